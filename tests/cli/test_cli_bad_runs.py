"""Run folders that exist, are damaged or cannot be written, and training that breaks: one line, nothing destroyed."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from tests.cli.commands import CommandLine, contents, sentences
from tests.cli.conftest import recipe

RUN = ("recipe.yaml", "vocabulary.json", "environment.json", "checkpoint.pt", "model.safetensors", "guide.safetensors")


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run of the test's own to damage; its text is in the folder above it."""
    shutil.copy(trained / "my.txt", tmp_path)
    shutil.copy(trained / "vae.yaml", tmp_path)
    return Path(shutil.copytree(trained / "vae", tmp_path / "run"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_run_that_exists_is_refused_and_left_as_it_is(cli: CommandLine, run: Path) -> None:
    before = contents(run.parent)
    line = cli("train", "vae.yaml", "--out", "run", cwd=run.parent).failed()
    assert line == ("run exists already and is not overwritten: add --resume to go on with it, or choose another --out")
    (run.parent / "other").mkdir()
    (run.parent / "other" / "thesis.tex").write_text("x")
    line = cli("train", "vae.yaml", "--out", "other", cwd=run.parent).failed()
    assert line == "other exists already and is not overwritten: choose another --out"
    (run.parent / "other" / "thesis.tex").unlink()
    assert contents(run.parent) == before
    cli("train", "vae.yaml", "--training.epochs", "1", "--out", "other", cwd=run.parent).worked()  # empty: nothing lost


def test_a_folder_that_cannot_be_made_is_named(cli: CommandLine, work: Path) -> None:
    (work / "file").write_text("")
    before = contents(work)
    line = cli("train", "vae.yaml", "--out", "file/run", cwd=work).failed()
    assert line == "cannot make the run folder file/run: Not a directory"
    assert cli("train", "vae.yaml", "--out", "file", cwd=work).failed().startswith("file exists already")
    assert contents(work) == before


def test_a_folder_that_is_no_run_is_named(cli: CommandLine, work: Path) -> None:
    for command in (("evaluate", "nowhere"), ("generate", "nowhere"), ("train", "--resume", "--out", "nowhere")):
        assert cli(*command, cwd=work).failed() == "there is no run folder nowhere"
    for command in (("evaluate", "."), ("generate", "."), ("train", "--resume", "--out", ".")):
        assert cli(*command, cwd=work).failed().startswith(". holds no checkpoint.pt: it is not a run, or was stopped")


EVALUATE = ("evaluate", "run", "--samples", "2")
RESUME = ("train", "--resume", "--out", "run", "--training.epochs", "3")


@pytest.mark.parametrize("command", [EVALUATE, RESUME], ids=["evaluate", "resume"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("checkpoint.pt", "run is damaged: checkpoint.pt cannot be read"),
        ("model.safetensors", "run is damaged: model.safetensors cannot be read"),
        ("guide.safetensors", "run is damaged: guide.safetensors cannot be read"),
        ("vocabulary.json", "run is damaged: vocabulary.json is"),
        ("environment.json", "run is damaged: environment.json cannot be read"),
        ("recipe.yaml", ""),
    ],
)
def test_a_file_that_is_cut_off_is_named_and_nothing_is_changed(
    cli: CommandLine, run: Path, name: str, message: str, command: tuple[str, ...]
) -> None:
    cut(run / name)
    before = contents(run)
    result = cli(*command, cwd=run.parent)
    if (name == "checkpoint.pt") == (command == EVALUATE) and name.startswith(("checkpoint", "model", "guide")):
        result.worked()  # evaluation does not need the checkpoint, resuming does not need the best weights
        return
    assert result.failed(2 if name == "recipe.yaml" else 1).startswith(message)
    assert contents(run) == before


@pytest.mark.parametrize("name", ["recipe.yaml", "vocabulary.json", "environment.json", "checkpoint.pt"])
def test_a_file_that_is_missing_is_named(cli: CommandLine, run: Path, name: str) -> None:
    (run / name).unlink()
    before = contents(run)
    for command in (EVALUATE, RESUME):
        line = cli(*command, cwd=run.parent).failed()
        assert line.startswith("run ") and name in line
    assert contents(run) == before


def test_a_recipe_that_was_edited_to_another_size_does_not_fit(cli: CommandLine, run: Path) -> None:
    text = (run / "recipe.yaml").read_text("utf-8")
    (run / "recipe.yaml").write_text(text.replace("latent: 2\n", "latent: 3\n"), "utf-8")
    before = contents(run)
    line = cli(*EVALUATE, cwd=run.parent).failed()
    assert line.startswith("run is damaged: model.safetensors does not fit recipe.yaml (size mismatch for decoder.")
    assert "trained with another model" in cli(*RESUME, cwd=run.parent).failed()
    (run / "recipe.yaml").write_text(text.replace("vocabulary: 22\n", "vocabulary: 23\n"), "utf-8")
    for command in (EVALUATE, RESUME):
        line = cli(*command, cwd=run.parent).failed(2)
        assert line.startswith("run: model.vocabulary is 23 in the recipe and 22 in the corpus 'my'")
    assert contents(run).keys() == before.keys()
    assert all(contents(run)[name] == before[name] for name in before if name != "recipe.yaml")


def test_a_run_is_not_judged_on_a_corpus_that_has_changed(cli: CommandLine, run: Path) -> None:
    (run.parent / "my.txt").write_text(sentences(300, seed=1), "utf-8")
    before = contents(run)
    for command in (EVALUATE, RESUME, ("generate", "run")):
        line = cli(*command, cwd=run.parent).failed()
        assert line.startswith("the corpus 'my' has changed since run began (fingerprint ") and "restore it" in line
    (run.parent / "my.txt").unlink()
    assert cli(*EVALUATE, cwd=run.parent).failed().startswith("my.txt: ")
    assert contents(run) == before


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("evaluate", "vae", "--samples", "0"), 2, "argument --samples: 0 is not positive"),
        (("evaluate", "vae", "--samples", "many"), 2, "argument --samples: invalid int value: 'many'"),
        (("evaluate", "vae", "--split", "all"), 2, "argument --split: invalid choice: 'all'"),
        (("evaluate", "vae", "--model.latent", "3"), 2, "unrecognized arguments: --model.latent=3"),
        (("generate", "vae", "--count", "0"), 2, "argument --count: 0 is not positive"),
        (("generate", "vae", "--steps", "1"), 2, "argument --steps: 1 is less than 2"),
        (("generate", "vae", "--temperature", "-1"), 2, "argument --temperature: -1 is not a temperature"),
        (("generate", "vae", "--what", "poems"), 2, "argument --what: invalid choice: 'poems'"),
        (("generate", "vae", "--what", "imputations"), 1, "imputations want a --sentence with `_` for every missing"),
        (("generate", "vae", "--what", "imputations", "--sentence", "a cat"), 1, "imputations want a --sentence with"),
        (
            ("generate", "vae", "--what", "interpolations", "--sentence", "the cat"),
            1,
            "an interpolation wants two sentences: give --sentence twice",
        ),
        (("generate", "vae", "--what", "reconstructions", "--sentence", "  "), 1, "no known word in --sentence '  '"),
        (("generate", "lm", "--what", "reconstructions"), 1, "SentenceLM has no latents: it writes samples and"),
        (("generate", "lm", "--what", "interpolations"), 1, "SentenceLM has no latents: it writes samples and"),
        (("generate", "lm", "--what", "analogies"), 1, "SentenceLM has no latents: it writes samples and"),
        (
            ("generate", "vae", "--what", "analogies", "--sentence", "the cat", "--sentence", "a dog"),
            1,
            "an analogy wants three sentences, a, b and c: give --sentence three times",
        ),
    ],
    ids=lambda value: " ".join(value[:4]) if isinstance(value, tuple) else "",
)
def test_what_a_run_cannot_do_is_refused(
    cli: CommandLine, trained: Path, arguments: tuple[str, ...], status: int, message: str
) -> None:
    result = cli(*arguments, cwd=trained)
    # one space, as a message is one line
    assert result.failed(status).startswith(" ".join(message.split()))


BREAKING = '''
"""A SentenceVAE whose log-probability is NaN from the 13th training pass on, in the second epoch."""
import pyro
import pyro.distributions as dist
import torch
from pyro_nlp.distributions import WordSequence
from pyro_nlp.models.sentence_vae import SentenceVAE


class Breaking(SentenceVAE):
    passes = 0

    def forward(self, batch):
        with batch.documents():
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0).expand([self.latent]).to_event(1))
            states = self.decoder(z, batch.inputs)
            self.passes += torch.is_grad_enabled() and self.training
            if self.passes > 12:
                states = states * float("nan")
            pyro.sample("x", WordSequence(states, self.head, batch.mask), obs=batch.targets)
'''


def test_a_nan_in_training_is_named_and_the_last_good_checkpoint_kept(cli: CommandLine, work: Path) -> None:
    (work / "breaking.py").write_text(BREAKING, "utf-8")
    text = recipe("SentenceVAE", "GaussianGuide").replace("class_path: SentenceVAE", "class_path: breaking.Breaking")
    (work / "mine.yaml").write_text(text, "utf-8")
    line = cli("train", "mine.yaml", "--out", "run", cwd=work).failed()
    assert line.startswith("step 1") and "(epoch 1, batch " in line
    assert "the log-probability of 'x' is not finite for training documents [" in line
    assert torch.load(work / "run" / "checkpoint.pt", weights_only=True)["counters"]["epoch"] == 1
    found = json.loads(cli("evaluate", "run", "--samples", "2", "--json", cwd=work).worked())
    assert found["likelihood"]["nll"] > 0
    before = contents(work / "run")
    (work / "breaking.py").write_text(BREAKING.replace("> 12", "> 1e9"), "utf-8")  # the user mends the model ...
    cli("train", "--resume", "--out", "run", cwd=work).worked()  # ... and goes on
    assert contents(work / "run") != before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a limit on the size of files as POSIX has it")
def test_a_full_disk_in_training_keeps_what_was_saved_before(cli: CommandLine, run: Path) -> None:
    sizes = {name: (run / name).stat().st_size for name in RUN}
    before = contents(run)
    limit = sizes["checkpoint.pt"] // 2
    assert limit > (run / "metrics.jsonl").stat().st_size + 4096, "the checkpoint is what does not fit"
    line = cli("train", "--resume", "--out", "run", "--training.epochs", "3", cwd=run.parent, file_size=limit).failed()
    assert line == "cannot write run/checkpoint.pt: File too large; what was saved before is intact"
    after = contents(run)
    assert after.keys() == before.keys(), "no temporary file is left"
    assert all(after[name] == before[name] for name in ("recipe.yaml", "vocabulary.json", "checkpoint.pt"))
    cli("evaluate", "run", "--samples", "2", "--json", cwd=run.parent).worked()
    cli("train", "--resume", "--out", "run", "--training.epochs", "3", cwd=run.parent).worked()
    cli("train", "vae.yaml", "--out", "whole", "--training.epochs", "3", cwd=run.parent).worked()
    whole = run.parent / "whole" / "model.safetensors"
    assert (run / "model.safetensors").read_bytes() == whole.read_bytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a limit on the size of files as POSIX has it")
def test_a_full_disk_in_the_first_epoch_is_one_line_and_leaves_no_temporary_file(cli: CommandLine, work: Path) -> None:
    for limit in (400, 4096):  # not even the recipe fits; the first checkpoint does not
        line = cli("train", "vae.yaml", "--out", f"run{limit}", cwd=work, file_size=limit).failed()
        assert line.startswith(f"cannot write run{limit}/") and "File too large" in line
        assert not list(work.glob(f"run{limit}/.*"))
