"""For every test of commands: one process that runs them, one text, and one small run of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import CommandLine, sentences

RECIPE = """
# A small {model}.
model:
  class_path: {model}
  init_args: {{{latent}decoder: {{class_path: LSTMDecoder, init_args: {{embedding: 8, width: 16}}}}}}
guide: {guide}
corpus: {{class_path: TextFile, init_args: {{path: my.txt}}}}
training:
  epochs: 2
  optimizer: {{class_path: Adam, init_args: {{learning_rate: 0.03}}}}
"""
ENCODER = "{class_path: LSTMEncoder, init_args: {embedding: 8, width: 16}}"


def recipe(model: str, guide: str | None) -> str:
    """A recipe of a few thousand parameters for `my.txt`."""
    section = f"{{class_path: {guide}, init_args: {{encoder: {ENCODER}}}}}" if guide else "null"
    return RECIPE.format(model=model, guide=section, latent="latent: 2, " if guide else "")


def furnish(folder: Path) -> Path:
    """A user's folder: a text of 300 sentences, and recipes for it."""
    (folder / "my.txt").write_text(sentences(), "utf-8")
    (folder / "vae.yaml").write_text(recipe("SentenceVAE", "GaussianGuide"), "utf-8")
    (folder / "autoencoder.yaml").write_text(recipe("SentenceAutoencoder", "PointGuide"), "utf-8")
    (folder / "lm.yaml").write_text(recipe("SentenceLM", None), "utf-8")
    return folder


@pytest.fixture(scope="session")
def cli(_own_home: None) -> Iterator[CommandLine]:
    command_line = CommandLine()
    yield command_line
    command_line.close()


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder of the test's own with a text and recipes."""
    return furnish(tmp_path)


@pytest.fixture(scope="session")
def trained(cli: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the trained runs `vae`, `autoencoder` and `lm`, not to be changed."""
    folder = furnish(tmp_path_factory.mktemp("trained"))
    for name in ("vae", "autoencoder", "lm"):
        cli("train", f"{name}.yaml", "--out", name, cwd=folder).worked()
    return folder
