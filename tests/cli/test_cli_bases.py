"""Recipes that are built on another: what they keep, what they replace, and the laboratory that is made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pyro_nlp import recipe as recipes
from pyro_nlp.inference import KL, Aggressive, FreeBits, Linear
from tests.cli.commands import CommandLine

LABORATORY = sorted(name for name in recipes.shipped() if name.startswith("collapse/"))


def write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content), "utf-8")


def spelled_out(path: Path, *options: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(recipes.spelled_out(str(path), options))
    return found


def test_what_a_recipe_does_not_say_is_its_bases(work: Path) -> None:
    base = {"base": "vae.yaml"}
    write(work / "mine.yaml", base | {"training": {"clip": 1.5}, "strategy": {"kl": {"weight": 0.3}}, "seed": 5})
    mine, below = spelled_out(work / "mine.yaml"), spelled_out(work / "vae.yaml")
    assert mine["training"] == below["training"] | {"clip": 1.5}
    assert mine["strategy"]["kl"] == below["strategy"]["kl"] | {"weight": 0.3}
    assert mine["seed"] == 5 and mine["model"] == below["model"]
    assert "base" not in mine


def test_another_class_takes_nothing_from_the_one_it_replaces(work: Path) -> None:
    decoder = {"class_path": "GRUDecoder", "init_args": {"width": 5}}
    write(work / "mine.yaml", {"base": "vae.yaml", "model": {"init_args": {"decoder": decoder}}})
    found = spelled_out(work / "mine.yaml")["model"]["init_args"]
    assert found["decoder"]["class_path"].endswith("GRUDecoder")
    assert found["decoder"]["init_args"]["width"] == 5 and found["decoder"]["init_args"]["embedding"] == 256
    assert found["latent"] == spelled_out(work / "vae.yaml")["model"]["init_args"]["latent"]


def test_a_class_without_its_name_is_that_of_the_base(work: Path) -> None:
    write(work / "mine.yaml", {"base": "vae.yaml", "model": {"init_args": {"decoder": {"init_args": {"width": 5}}}}})
    found, below = (spelled_out(work / f"{n}.yaml")["model"]["init_args"]["decoder"] for n in ("mine", "vae"))
    assert found == {"class_path": below["class_path"], "init_args": below["init_args"] | {"width": 5}}


def test_bases_have_bases_and_stand_beside_the_recipe(work: Path) -> None:
    (work / "deep").mkdir()
    write(work / "deep" / "first.yaml", {"base": "../vae.yaml", "seed": 1, "training": {"epochs": 7}})
    write(work / "deep" / "second.yaml", {"base": "first.yaml", "seed": 2})
    found = spelled_out(work / "deep" / "second.yaml")
    assert (found["seed"], found["training"]["epochs"]) == (2, 7)


def test_a_class_that_the_base_names_without_arguments_can_be_given_some(work: Path) -> None:
    write(work / "first.yaml", {"base": "vae.yaml", "strategy": {"updates": "Aggressive"}})
    write(work / "mine.yaml", {"base": "first.yaml", "strategy": {"updates": {"init_args": {"check": 7}}}})
    found = spelled_out(work / "mine.yaml")["strategy"]["updates"]
    assert found["class_path"].endswith("Aggressive") and found["init_args"]["check"] == 7


def test_classes_beside_a_base_in_another_folder_are_found(work: Path) -> None:
    (work / "theirs").mkdir()
    text = "from pyro_nlp.models.sentence_vae import SentenceVAE\n\n\nclass Theirs(SentenceVAE):\n    pass\n"
    (work / "theirs" / "their_model_of_bases.py").write_text(text, "utf-8")
    model = {"class_path": "their_model_of_bases.Theirs", "init_args": {"latent": 2}}
    write(work / "theirs" / "first.yaml", {"base": "../vae.yaml", "model": model})
    write(work / "mine.yaml", {"base": "theirs/first.yaml", "seed": 3})
    assert spelled_out(work / "mine.yaml")["model"]["class_path"] == "their_model_of_bases.Theirs"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"base": "../" + "{here}/mine.yaml"}, "mine.yaml: its base is built on itself"),
        ({"base": "mine.yaml"}, "mine.yaml: its base is built on itself"),
        ({"base": 3}, "mine.yaml: 'base': expected the name or path of a recipe, got 3"),
        ({"base": "vea.yaml"}, "there is no recipe 'vea.yaml'"),
        ({"base": "collapse/liner"}, "there is no recipe 'collapse/liner'; did you mean 'collapse/linear'?"),
    ],
)
def test_a_base_that_cannot_be_is_named(cli: CommandLine, work: Path, content: Any, message: str) -> None:
    write(work / "mine.yaml", {key: str(v).format(here=work.name) if v != 3 else v for key, v in content.items()})
    assert cli("check", "mine.yaml", cwd=work).failed(2).startswith(message)


def test_a_resolved_recipe_that_ends_early_is_damaged(cli: CommandLine, work: Path) -> None:
    text = recipes.spelled_out(str(work / "vae.yaml"))
    (work / "mine.yaml").write_text(text[: text.index("\nseed:")], "utf-8")
    assert "mine.yaml is damaged: it ends before 'seed'" in cli("check", "mine.yaml", cwd=work).failed(2)


@pytest.mark.parametrize("name", LABORATORY)
def test_a_recipe_of_the_laboratory_differs_from_the_others_in_what_it_says_alone(name: str) -> None:
    path = recipes.shipped()[name]
    said = yaml.safe_load(path.read_text("utf-8"))
    assert path.read_text("utf-8").startswith("# ") and (said.get("base") == "collapse/linear") == (
        name != "collapse/linear"
    )
    _, config, _, _ = recipes.read(name)
    training = config.training
    assert (training.epochs, training.batch_size, training.clip, training.precision) == (100, 32, 5.0, "bf16")
    assert training.optimizer.init_args.learning_rate == 0.001
    assert (training.plateau.patience, training.plateau.factor, training.plateau.decays) == (2, 0.5, 4)
    assert config.corpus.class_path.endswith("PTB")


def test_a_recipe_on_a_base_builds_what_it_says(work: Path) -> None:
    strategy = {
        "updates": {"class_path": "Aggressive", "init_args": {"check": 3}},
        "kl": {
            "weight": {"class_path": "Linear", "init_args": {"epochs": 1}},
            "shape": {"class_path": "FreeBits", "init_args": {"nats": 2.0}},
        },
    }
    write(work / "mine.yaml", {"base": "vae.yaml", "strategy": strategy})
    built = recipes.load(str(work / "mine.yaml"), [f"--corpus.path={work / 'my.txt'}"]).strategy
    assert built.updates == Aggressive(check=3)
    assert built.kl == KL(Linear(epochs=1), FreeBits(2.0))
