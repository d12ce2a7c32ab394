"""list, check, cite, --help, --print_config: what can be known without training."""

from __future__ import annotations

import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import yaml

import pyro_nlp
from pyro_nlp import recipe as recipes
from pyro_nlp.recipe_strategies import shipped_strategies
from tests.cli.commands import CommandLine, real

COMMANDS = ("list", "check", "train", "evaluate", "compare", "generate", "cite")
OWN_TEXT = ("--corpus", "TextFile", "--corpus.path", "my.txt")


def classes(package: str) -> dict[str, type]:
    root = importlib.import_module(f"pyro_nlp.{package}")
    modules = [importlib.import_module(f"{root.__name__}.{m.name}") for m in pkgutil.iter_modules(root.__path__)]
    return {
        name: found
        for module in modules
        for name, found in vars(module).items()
        if isinstance(found, type) and found.__module__ == module.__name__
    }


def rows(printed: str) -> list[list[str]]:
    """The cells of every line of a table."""
    return [[cell.strip() for cell in line.strip("│┃ ").split("│")] for line in printed.splitlines() if "│" in line]


def test_list_shows_every_model_guide_recipe_and_strategy_with_its_reference(cli: CommandLine, tmp_path: Path) -> None:
    lines = [" ".join(line.split()) for line in cli("list", cwd=tmp_path).worked().splitlines()]
    for found in (*classes("models").items(), *classes("guides").items()):
        name, described = found
        if name.startswith("_") or getattr(described.forward, "__isabstractmethod__", False):
            assert not any(line.startswith(f"{name} ") for line in lines)
            continue
        assert described.__doc__ is not None
        assert f"{name} {' '.join(described.__doc__.strip().splitlines()[0].split())}" in lines
    assert any(line.startswith("SentenceVAE") and "Bowman et al. 2016 (arXiv:1511.06349)" in line for line in lines)
    for name, path in (*recipes.shipped().items(), *shipped_strategies().items()):
        first = path.read_text("utf-8").splitlines()[0]
        assert first.startswith("# ") and f"{name} {first[2:]}" in lines


def test_every_command_explains_itself(cli: CommandLine, tmp_path: Path) -> None:
    overview = cli("--help", cwd=tmp_path).worked()
    for command in COMMANDS:
        assert re.search(rf"^ +{command} +\w", overview, re.MULTILINE)
        assert f"usage: pyro-nlp {command}" in cli(command, "--help", cwd=tmp_path).worked()
    assert "--print_config" in cli("train", "--help", cwd=tmp_path).worked()


def test_a_process_from_its_start_does_what_the_other_tests_see(cli: CommandLine, tmp_path: Path) -> None:
    assert real("check", "sentence_vea", cwd=tmp_path) == cli("check", "sentence_vea", cwd=tmp_path)


def test_the_version_is_the_packages(cli: CommandLine, tmp_path: Path) -> None:
    assert cli("--version", cwd=tmp_path).worked() == f"{pyro_nlp.__version__}\n"


def test_misuse_is_one_line_and_status_2(cli: CommandLine, tmp_path: Path) -> None:
    assert "are required: COMMAND" in cli(cwd=tmp_path).failed(2)
    assert "invalid choice: 'lst'" in cli("lst", cwd=tmp_path).failed(2)
    assert "--frob" in cli("list", "--frob", cwd=tmp_path).failed(2)
    assert "RECIPE; see pyro-nlp check --help" in cli("check", cwd=tmp_path).failed(2)
    assert "RUN; see pyro-nlp evaluate --help" in cli("evaluate", cwd=tmp_path).failed(2)
    assert "wants a RECIPE" in cli("train", cwd=tmp_path).failed(2)
    assert "wants a RECIPE" in cli("train", "--resume", cwd=tmp_path).failed(2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("recipe", "model", "z", "treated"),
    [
        ("ring", "Ring", ["z", "Normal", "[100] | [2]", "latent", "random"], "MultivariateNormal"),
        ("sentence_lm", "SentenceLM", None, None),
        ("sentence_autoencoder", "SentenceAutoencoder", ["z", "Normal", "[32] | [16]", "latent", "random"], "Delta"),
        ("sentence_vae", "SentenceVAE", ["z", "Normal", "[32] | [16]", "latent", "random"], "Normal"),
    ],
)
def test_check_shows_every_variable_and_how_each_latent_is_treated(
    cli: CommandLine, work: Path, recipe: str, model: str, z: list[str] | None, treated: str | None
) -> None:
    printed = cli("check", recipe, *(() if recipe == "ring" else OWN_TEXT), cwd=work).worked()
    table = rows(printed)
    observed = ["x", "Normal", "[100] | [2]"] if recipe == "ring" else ["x", "WordSequence", "[32] | [8]"]
    assert [*observed, "observed", "random"] in table and model in printed.splitlines()
    assert re.search(r"^model: [\d,]+ parameters$", printed, re.MULTILINE)
    if z is None:
        assert "treated" not in printed and "guide:" not in printed
        return
    assert z in table
    (treatment,) = [row for row in table if row[0] == "z" and row != z]
    # site, guide, event, dimensions, estimator, rows, kl, weight, shape
    assert treatment[1] == treated and treatment[4:6] == ["Pathwise(gradient='plain')", "1"]
    assert treatment[3] == treatment[2].strip("[]") == z[2].split("| ")[1].strip("[]")
    if recipe == "sentence_vae":
        assert treatment[6] == "closed form"
        assert treatment[7].startswith("Linear(start=0.0, end=1.0") and treatment[8].startswith("FreeBits(nats=4.0")


def test_a_printed_recipe_is_a_recipe_and_resolves_to_itself(cli: CommandLine, work: Path) -> None:
    changes = ("--model.latent", "3", "--training.epochs", "1", "--seed", "7", "--training.clip", "null")
    printed = cli("check", "vae.yaml", *changes, "--print_config", cwd=work).worked()
    content = yaml.safe_load(printed)
    assert content["model"]["init_args"]["latent"] == 3 and content["seed"] == 7
    assert content["training"]["epochs"] == 1 and content["training"]["clip"] is None
    assert content["training"]["batch_size"] == 32, "defaults are stated"
    (work / "printed.yaml").write_text(printed, "utf-8")
    assert cli("train", "printed.yaml", "--print_config", cwd=work).worked() == printed
    cli("train", "printed.yaml", "--out", "run", cwd=work).worked()
    resolved = yaml.safe_load((work / "run" / "recipe.yaml").read_text("utf-8"))
    for section in ("model", "guide"):
        assert resolved[section]["init_args"].pop("vocabulary") == 22
    assert resolved == content
    assert cli("train", "run", "--print_config", cwd=work).worked() == printed


def test_an_option_may_stand_before_the_recipe(cli: CommandLine, work: Path) -> None:
    after = cli("check", "vae.yaml", "--model.latent", "5", "--seed", "3", "--print_config", cwd=work).worked()
    assert cli("check", "--model.latent", "5", "--seed", "3", "vae.yaml", "--print_config", cwd=work).worked() == after
    assert cli("check", "--model.latent=5", "--seed=3", "--print_config", "vae.yaml", cwd=work).worked() == after


def test_a_shipped_recipe_is_found_whatever_stands_in_the_working_directory(cli: CommandLine, tmp_path: Path) -> None:
    shipped = cli("check", "ring", "--print_config", cwd=tmp_path).worked()
    (tmp_path / "ring").mkdir()
    (tmp_path / "ring" / "recipe.yaml").write_text("{", "utf-8")
    assert cli("check", "ring", "--print_config", cwd=tmp_path).worked() == shipped
    assert "not YAML" in cli("check", "./ring", cwd=tmp_path).failed(2)


def test_cite_prints_bibtex_of_what_a_recipe_or_a_run_uses(cli: CommandLine, trained: Path) -> None:
    printed = cli("cite", "sentence_vae", cwd=trained).worked()
    entries = re.findall(r"^@(\w+)\{(\w+),\n((?:  \w+=\{.*\},?\n)+)\}$", printed, re.MULTILINE)
    keys = [key for _, key, _ in entries]
    assert len(keys) == printed.count("@") == len(set(keys)), "every entry parses, none twice"
    assert {"bingham2019", "bowman2016", "kingma2014", "kingma2015"} <= set(keys)
    for kind, key, body in entries:
        assert body.count("{") == body.count("}"), key
        fields = re.findall(r"^  (\w+)=", body, re.MULTILINE)
        wanted = {"inproceedings": "booktitle", "article": "journal"}[kind]  # as BibTeX asks
        assert {"title", "author", "year", wanted} <= set(fields), key
    of_run = set(re.findall(r"@\w+\{(\w+)", cli("cite", "vae", cwd=trained).worked()))
    assert {"bingham2019", "bowman2016", "kingma2014", "kingma2015"} <= of_run
    of_model = set(re.findall(r"@\w+\{(\w+)", cli("cite", "lm", cwd=trained).worked()))
    assert {"bingham2019", "mikolov2010"} <= of_model
