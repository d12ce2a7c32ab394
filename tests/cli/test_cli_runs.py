"""train, evaluate, generate: the way through."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import safetensors.torch
import torch
import yaml

from tests.cli.commands import CommandLine

FILES = {
    "recipe.yaml",
    "model.safetensors",
    "guide.safetensors",
    "checkpoint.pt",
    "vocabulary.json",
    "metrics.jsonl",
    "environment.json",
    "curves.png",
}


def words(trained: Path) -> set[str]:
    return set((trained / "my.txt").read_text("utf-8").replace(".", "").split())


def test_a_run_folder_holds_the_documented_files_and_no_other(trained: Path) -> None:
    for name in ("vae", "autoencoder", "lm"):
        found = {path.name for path in (trained / name).iterdir()} - {"latent_z.png"}  # of evaluate
        assert found == (FILES - {"guide.safetensors"} if name == "lm" else FILES)


def test_what_is_in_a_run_folder_can_be_read_without_the_package(trained: Path) -> None:
    run = trained / "vae"
    size = len(json.loads((run / "vocabulary.json").read_text("utf-8")))
    recipe = yaml.safe_load((run / "recipe.yaml").read_text("utf-8"))
    assert recipe["model"]["init_args"]["vocabulary"] == recipe["guide"]["init_args"]["vocabulary"] == 22
    assert size >= 1 and recipe["training"]["epochs"] == 2
    weights = safetensors.torch.load_file(run / "model.safetensors")
    assert weights["head.weight"].shape == (22, 16)
    assert torch.load(run / "checkpoint.pt", weights_only=True)["counters"]["epoch"] == 2
    environment = json.loads((run / "environment.json").read_text("utf-8"))
    assert environment["seed"] == 0 and len(environment["fingerprint"]) == 16
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [row["epoch"] for row in metrics if "valid.loss" in row] == [0, 1]
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_training_says_where_the_run_is_and_what_comes_next(cli: CommandLine, work: Path) -> None:
    printed = cli("train", "lm.yaml", "--training.epochs", "1", cwd=work).worked()
    first, bound, following = printed.splitlines()
    assert first.startswith("lm on TextFile(my: ") and first.endswith("into runs/lm")
    assert re.fullmatch(r"best validation bound \d+\.\d\d nats per document, after epoch 1", bound)
    assert following == "next: pyro-nlp evaluate runs/lm" and (work / "runs" / "lm" / "checkpoint.pt").exists()


@pytest.mark.parametrize(
    ("run", "likelihood", "latents"),
    [
        ("vae", r"NLL, 10 importance samples\s+│ \d+\.\d\d ± \d\.\d\d ", r"latents\s+│ (in use|collapsed): KL \d"),
        (
            "autoencoder",
            r"NLL\s+│ no density \(point guide\)",
            r"latents\s+│ (a point per document, with no|collapsed)",
        ),
        ("lm", r"NLL, exact\s+│ \d+\.\d\d ± \d\.\d\d ", r"latents\s+│ no latent variables"),
    ],
)
def test_evaluation_is_a_table_and_the_same_as_json(
    cli: CommandLine, trained: Path, run: str, likelihood: str, latents: str
) -> None:
    table = cli("evaluate", run, "--samples", "10", cwd=trained).worked()
    assert table.startswith(f"{run}, test split\n")
    assert re.search(likelihood, table) and re.search(latents, table)
    assert (f"latent space: {run}/latent_z.png" in table) == (run != "lm") == (trained / run / "latent_z.png").exists()
    found = json.loads(cli("evaluate", run, "--samples", "10", "--json", cwd=trained).worked())
    assert found["run"] == run
    assert found["protocol"] == {"split": "test", "samples": 10, "seed": 0, "precision": "float32"}
    assert f"│ {found['documents']:,} " in table and f"│ {found['reconstruction']:.2f} " in table
    assert found["verdict"] in table
    if run == "autoencoder":
        assert found["likelihood"] is None and found["perplexity"] is None
        return
    assert f"│ {found['likelihood']['nll']:.2f} ± " in table and f"│ {found['perplexity']:.2f} " in table
    nats = found["likelihood"]["nll"] * found["documents"] / found["tokens"]
    assert math.isclose(found["perplexity"], math.exp(nats), rel_tol=1e-9)
    assert found["likelihood"]["samples"] == (0 if run == "lm" else 10)


def test_any_split_can_be_judged_and_a_seed_repeats_it(cli: CommandLine, trained: Path) -> None:
    def nll(*options: str) -> float:
        printed = cli("evaluate", "vae", "--samples", "5", "--json", *options, cwd=trained).worked()
        return float(json.loads(printed)["likelihood"]["nll"])

    assert nll("--split", "valid") == nll("--split", "valid") != nll("--split", "valid", "--seed", "1")
    assert nll("--split", "train") != nll()


def test_text_is_generated_in_four_ways(cli: CommandLine, trained: Path) -> None:
    printed = cli("generate", "vae", "--count", "3", "--method", "greedy", cwd=trained).worked()
    for title in ("samples", "reconstructions", "interpolations"):
        assert f"\n{title}\n" in printed
    assert printed.count("  reconstructed  ") == 3 and "from  " in printed and "to    " in printed
    assert "imputations" not in printed

    sample = ("generate", "vae", "--what", "samples", "--count", "4", "--json")
    written = json.loads(cli(*sample, cwd=trained).worked())
    assert list(written) == ["samples"] and len(written["samples"]) == 4
    assert {w for line in written["samples"] for w in line.replace(".", " ").split()} <= words(trained) | {"<unk>"}
    assert json.loads(cli(*sample, cwd=trained).worked()) == written, "the seed is fixed"
    assert json.loads(cli(*sample, "--seed", "1", cwd=trained).worked()) != written

    mine = ("--sentence", "the small cat sees a dog .", "--sentence", "This old river leaves.", "--json")
    written = json.loads(cli("generate", "autoencoder", "--what", "reconstructions", *mine, cwd=trained).worked())
    assert [pair["sentence"] for pair in written["reconstructions"]] == [
        "the small cat sees a dog.",
        "this old river leaves.",
    ]
    alone = json.loads(cli("generate", "vae", *mine[:2], "--json", cwd=trained).worked())
    assert list(alone) == ["samples", "reconstructions"], "there is nothing between one sentence and none"
    between = ("--what", "interpolations", "--steps", "4")
    written = json.loads(cli("generate", "vae", *between, *mine, cwd=trained).worked())
    assert written["interpolations"][0] == "from  the small cat sees a dog."
    assert written["interpolations"][-1] == "to    this old river leaves." and len(written["interpolations"]) == 6


def test_analogies_are_drawn_between_three_sentences_of_the_users_or_of_the_test_split(
    cli: CommandLine, trained: Path
) -> None:
    mine = ("the small cat sees a dog .", "this small cat sees a dog .", "The old river leaves.")
    given = [word for sentence in mine for word in ("--sentence", sentence)]
    (found,) = json.loads(cli("generate", "vae", "--what", "analogies", *given, "--json", cwd=trained).worked())[
        "analogies"
    ]
    assert list(found) == ["sentence", "becomes", "as", "would become"]
    assert (found["sentence"], found["as"]) == ("the small cat sees a dog.", "the old river leaves.")
    assert set(found["would become"].replace(".", " ").split()) <= words(trained) | {"<unk>"}

    # a is to itself as c is to its reconstruction
    same = [word for sentence in (mine[0], mine[0], mine[2]) for word in ("--sentence", sentence)]
    (found,) = json.loads(cli("generate", "vae", "--what", "analogies", *same, "--json", cwd=trained).worked())[
        "analogies"
    ]
    again = ("generate", "vae", "--what", "reconstructions", "--sentence", mine[2], "--json")
    (pair,) = json.loads(cli(*again, cwd=trained).worked())["reconstructions"]
    assert found["would become"] == pair["reconstructed"]

    printed = cli("generate", "autoencoder", "--what", "analogies", "--count", "2", cwd=trained).worked()
    assert (
        printed.startswith("\nanalogies\n") and printed.count("   would become  ") == printed.count("  becomes  ") == 2
    )
    assert "analogies" in cli("generate", "--help", cwd=trained).worked()


@pytest.mark.parametrize("run", ["lm", "vae"])
def test_missing_words_are_filled_in(cli: CommandLine, trained: Path, run: str) -> None:
    given = ("the _ cat sees a dog .", "this _ _ leaves .")
    blanks = ("--what", "imputations", "--sentence", given[0], "--sentence", given[1], "--json")
    first, second = json.loads(cli("generate", run, *blanks, cwd=trained).worked())["imputations"]
    assert (first["given"], second["given"]) == given
    found = re.fullmatch(r"the (\w+) cat sees a dog\.", first["filled"])
    assert found and found[1] in words(trained)
    assert re.fullmatch(r"this.*leaves\.", second["filled"]) and "_" not in second["filled"]


def test_a_language_model_writes_samples_by_default(cli: CommandLine, trained: Path) -> None:
    printed = cli("generate", "lm", "--method", "beam", "--beam", "3", cwd=trained).worked()
    assert printed.startswith("\nsamples\n") and "reconstructions" not in printed


def test_the_ring_is_trained_and_judged_and_writes_no_text(cli: CommandLine, tmp_path: Path) -> None:
    smaller = ("--corpus.size", "200", "--training.epochs", "1", "--out", "run")
    cli("train", "ring", *smaller, cwd=tmp_path).worked()
    assert {path.name for path in (tmp_path / "run").iterdir()} == FILES - {"vocabulary.json"}
    found = json.loads(cli("evaluate", "run", "--samples", "5", "--json", cwd=tmp_path).worked())
    assert found["tokens"] == 0 and found["perplexity"] is None and found["latents"]["z"]["dimensions"] == 2
    assert cli("generate", "run", cwd=tmp_path).failed() == "Ring does not write text"


OWN_MODEL = '''
import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import nn
from pyro_nlp.distributions import WordSequence
from pyro_nlp.nn import LSTMDecoder


class MyModel(PyroModule):
    """A model of the user's.

    Args:
        vocabulary: number of words.
        width: size of the states.
    """

    plates = 1

    def __init__(self, vocabulary: int, width: int = 12) -> None:
        super().__init__()
        self.decoder = LSTMDecoder(vocabulary, 2, embedding=8, width=width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, batch):
        with batch.documents():
            zero = self.head.weight.new_zeros(())
            z = pyro.sample("code", dist.Normal(zero, 1.0).expand([2]).to_event(1))
            pyro.sample("x", WordSequence(self.decoder(z, batch.inputs), self.head, batch.mask), obs=batch.targets)
'''
OWN_GUIDE = """
import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from pyro_nlp.nn import GaussianHead, LSTMEncoder


class MyGuide(PyroModule):
    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.encoder = LSTMEncoder(vocabulary, embedding=8, width=12)
        self.head = GaussianHead(12, 2)

    def forward(self, batch):
        loc, scale = self.head(self.encoder(batch))
        with batch.documents():
            pyro.sample("code", dist.Normal(loc, scale).to_event(1))
"""
OWN_RECIPE = """
model: {class_path: my_model.MyModel, init_args: {width: 10}}
guide: my_guide.MyGuide
corpus: {class_path: TextFile, init_args: {path: my.txt}}
training: {epochs: 1}
"""


def test_a_users_own_classes_are_found_beside_the_recipe_and_in_the_working_directory(
    cli: CommandLine, work: Path
) -> None:
    folder = work / "elsewhere"
    folder.mkdir()
    (folder / "my_model.py").write_text(OWN_MODEL, "utf-8")
    (work / "my_guide.py").write_text(OWN_GUIDE, "utf-8")
    (folder / "mine.yaml").write_text(OWN_RECIPE, "utf-8")
    recipe = Path("elsewhere", "mine.yaml")
    assert ["code", "Normal", "[32] | [2]", "latent", "random"] in [
        [cell.strip() for cell in line.strip("│ ").split("│")]
        for line in cli("check", recipe, cwd=work).worked().splitlines()
    ]
    cli("train", recipe, "--model.width", "11", "--out", "runs/mine", cwd=work).worked()
    resolved = yaml.safe_load((work / "runs" / "mine" / "recipe.yaml").read_text("utf-8"))
    assert resolved["model"] == {"class_path": "my_model.MyModel", "init_args": {"width": 11, "vocabulary": 22}}
    # the run folder is a third place: it knows where its recipe was
    found = json.loads(cli("evaluate", "runs/mine", "--samples", "5", "--json", cwd=work).worked())
    assert list(found["latents"]) == ["code"]
    assert "does not write text" in cli("generate", "runs/mine", cwd=work).failed()
    cli("train", "--resume", "--out", "runs/mine", "--training.epochs", "2", cwd=work).worked()
    assert "MyModel takes no 'widht'; did you mean 'width'?" in cli(
        "check", recipe, "--model.widht", "3", cwd=work
    ).failed(2)
