"""Recipes and corpora that cannot be used: one line that says where and what to do, and nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.cli.commands import CommandLine, contents, sentences

VAE = {"class_path": "SentenceVAE", "init_args": {"latent": 2}}
BASE = {
    "model": VAE,
    "guide": "GaussianGuide",
    "corpus": {"class_path": "TextFile", "init_args": {"path": "my.txt"}},
}


def model(**arguments: Any) -> dict[str, Any]:
    return {"model": {"class_path": "SentenceVAE", "init_args": arguments}}


def decoder(**arguments: Any) -> dict[str, Any]:
    return model(decoder={"class_path": "LSTMDecoder", "init_args": arguments})


def refused(cli: CommandLine, work: Path, *arguments: str, status: int = 2, data: Path | None = None) -> str:
    """The line of a `train` that fails and changes nothing."""
    before = contents(work)
    line = cli("train", *arguments, "--out", "run", cwd=work, PYRO_NLP_DATA=str(data) if data else None).failed(status)
    assert contents(work) == before and not (work / "run").exists()
    return line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # a key
        ({"modle": VAE}, "'modle': a recipe has no such key; did you mean 'model'?"),
        (model(latnt=2), "'model.latnt': SentenceVAE takes no 'latnt'; did you mean 'latent'?"),
        (decoder(widht=3), "'model.decoder.widht': LSTMDecoder takes no 'widht'; did you mean 'width'?"),
        ({"training": {"epohcs": 3}}, "'training.epohcs': training takes no 'epohcs'; did you mean 'epochs'?"),
        ({"strategy": {"bnd": "ELBO"}}, "'strategy.bnd': strategy takes no 'bnd'; did you mean 'bound'?"),
        (
            {"training": {"optimizer": {"class_path": "Adam", "init_args": {"learning_rat": 0.1}}}},
            "'training.optimizer.learning_rat': Adam takes no 'learning_rat'; did you mean 'learning_rate'?",
        ),
        (
            {"strategy": {"kl": {"shape": {"class_path": "FreeBits", "init_args": {"nat": 3}}}}},
            "'strategy.kl.shape.nat': FreeBits takes no 'nat'; did you mean 'nats'?",
        ),
        ({"model": {"class_path": "SentenceVAE", "latent": 3}}, "'model': a class of its own is named by class_path"),
        # a class
        ({"model": "SentenceVEA"}, "'model': there is no class 'SentenceVEA'; did you mean 'SentenceVAE'?"),
        ({"guide": "GausianGuide"}, "'guide': there is no class 'GausianGuide'; did you mean 'GaussianGuide'?"),
        ({"corpus": "Docstring"}, "'corpus': there is no class 'Docstring'; did you mean 'Docstrings'?"),
        (model(decoder="LSTMDecodr"), "'model.decoder': there is no class 'LSTMDecodr'; did you mean 'LSTMDecoder'?"),
        ({"guide": "no.such.Guide"}, "'guide': No module named 'no'"),
        # a class of the wrong kind
        ({"guide": "TextFile"}, "'guide': TextFile is a corpus, which cannot stand here"),
        ({"guide": "LSTMEncoder"}, "'guide': LSTMEncoder is an encoder, which cannot stand here"),
        ({"guide": "Ring"}, "'guide': Ring is a model, which cannot stand here"),
        ({"model": "GaussianGuide"}, "'model': GaussianGuide is a guide, which cannot stand here"),
        ({"model": "collections.OrderedDict"}, "'model': collections.OrderedDict is no PyroModule"),
        ({"corpus": "SentenceVAE"}, "'corpus': SentenceVAE is a model, which cannot stand here"),
        (model(decoder="LSTMEncoder"), "'model.decoder': LSTMEncoder is an encoder, which cannot stand here"),
        ({"strategy": {"bound": "Pathwise"}}, "'strategy.bound': Pathwise is an estimator, which cannot stand here"),
        ({"training": {"optimizer": "Linear"}}, "'training.optimizer': Linear is a schedule, which cannot stand here"),
        # a value
        (model(latent="many"), "'model.latent': expected int, got many"),
        (decoder(width="wide"), "'model.decoder.width': expected int, got wide"),
        ({"training": {"epochs": "three"}}, "'training.epochs': expected int, got three"),
        ({"seed": "x"}, "'seed': expected int, got x"),
        ({"model": 3}, "'model': expected the name of a class of kind PyroModule, got 3"),
        ({"training": 5}, "'training': expected arguments of Training, got 5"),
        ({"strategy": ["ELBO"]}, "'strategy': expected arguments of Strategy, got ['ELBO']"),
        (
            {"training": {"optimizer": {"class_path": "Adam", "init_args": {"learning_rate": "fast"}}}},
            "'training.optimizer.learning_rate': expected a number or the name of a class, got fast",
        ),
        ({"training": {"precision": "fp8"}}, "'training.precision': Expected a typing.Literal["),
        ({"model": None}, "the following arguments are required: model"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_in_a_recipe_is_named_with_its_path_and_the_cure(
    cli: CommandLine, work: Path, changes: dict[str, Any], message: str
) -> None:
    (work / "mine.yaml").write_text(yaml.safe_dump(BASE | changes), "utf-8")
    assert refused(cli, work, "mine.yaml").startswith(f"mine.yaml: {message}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--model.latnt", "3"), "'model.latnt': SentenceVAE takes no 'latnt'; did you mean 'latent'?"),
        (("--model.latent", "many"), "'model.latent': expected int, got many"),
        (("--model.decoder.width", "wide"), "'model.decoder.width': expected int, got wide"),
        (("--training.epoch", "3"), "there is no option '--training.epoch'; did you mean 'training.epochs'?"),
        (("--trainin.epochs", "3"), "there is no option '--trainin.epochs'; did you mean 'training.epochs'?"),
        (("--frob", "3"), "there is no option '--frob'"),
        (("stray",), "'stray' is not understood"),
        (("--training.epochs",), "argument --training.epochs: expected one argument"),
        (("--guide.encoder", "LSTMDecoder"), "'guide.encoder': LSTMDecoder is a decoder, which cannot stand here"),
        (("--guide.latent", "3"), "guide.latent follows model.latent (2): leave it out"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_mistake_in_an_option_is_named_with_the_cure(
    cli: CommandLine, work: Path, options: tuple[str, ...], message: str
) -> None:
    assert refused(cli, work, "vae.yaml", *options).startswith(f"vae.yaml: {message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"model: [\n  a: b\n", "not YAML: line 3, column 1: expected ',' or ']', but got '<stream end>'"),
        (b"model: \xff\n", "not YAML: 'utf-8' codec can't decode byte 0xff in position 7"),
        (b"- model\n", "a recipe has the keys model, guide, corpus, strategy, training, seed"),
        (b"", "a recipe has the keys model, guide, corpus, strategy, training, seed"),
    ],
    ids=["cut off", "not text", "a list", "empty"],
)
def test_a_file_that_is_no_recipe_is_named(cli: CommandLine, work: Path, content: bytes, message: str) -> None:
    (work / "mine.yaml").write_bytes(content)
    assert refused(cli, work, "mine.yaml").startswith(f"mine.yaml: {message}")


def test_a_recipe_that_is_not_there_is_named_with_the_near_match(cli: CommandLine, work: Path) -> None:
    line = refused(cli, work, "sentence_vea")
    assert line.startswith("there is no recipe 'sentence_vea'; did you mean 'sentence_vae'? (give a YAML file, or one")
    assert "sentence_lm_ptb" in line
    assert refused(cli, work, "mine.yaml").startswith("there is no recipe 'mine.yaml' (give a YAML file")
    assert refused(cli, work, ".").startswith("the folder . has no recipe.yaml")


def test_the_size_of_the_vocabulary_is_the_corpuss(cli: CommandLine, work: Path) -> None:
    assert refused(cli, work, "vae.yaml", "--model.vocabulary", "7") == (
        "--model.vocabulary is decided by the corpus: leave it out"
    )
    assert "guide.vocabulary is decided" in refused(cli, work, "vae.yaml", "--guide.init_args.vocabulary=7")
    (work / "mine.yaml").write_text(yaml.safe_dump(BASE | model(latent=2, vocabulary=7)), "utf-8")
    assert refused(cli, work, "mine.yaml") == (
        "mine: model.vocabulary is 7 in the recipe and 22 in the corpus 'my': leave it out, it comes from the corpus"
    )


def test_sites_that_do_not_meet_are_named(cli: CommandLine, work: Path) -> None:
    (work / "mine.yaml").write_text(yaml.safe_dump(BASE | {"guide": None}), "utf-8")
    assert "latent site 'z' of the model has no counterpart in the guide" in refused(cli, work, "mine.yaml", status=1)
    (work / "mine.yaml").write_text(yaml.safe_dump(BASE | {"strategy": {"sites": {"q": "Pathwise"}}}), "utf-8")
    assert refused(cli, work, "mine.yaml", status=1) == "the strategy names the site 'q'; the latents are 'z'"


def test_an_error_of_a_users_own_class_is_one_line_with_its_place(cli: CommandLine, work: Path) -> None:
    (work / "broken.py").write_text(
        "from pyro_nlp.models.sentence_vae import SentenceVAE\n"
        "class Broken(SentenceVAE):\n"
        "    def forward(self, batch):\n"
        "        return self.head(batch)\n"
        "class Refusing(SentenceVAE):\n"
        "    def __init__(self, vocabulary: int, latent: int = 2) -> None:\n"
        "        raise ValueError('latent must be even')\n"
    )
    (work / "mine.yaml").write_text(yaml.safe_dump(BASE | {"model": "broken.Broken"}), "utf-8")
    line = cli("check", "mine.yaml", cwd=work).failed()
    assert line.startswith("TypeError: linear()") and line.endswith("; --debug shows the traceback")
    debugged = cli("check", "mine.yaml", "--debug", cwd=work)
    assert debugged.status == 1 and debugged.err.startswith("Traceback") and "broken.py" in debugged.err
    (work / "mine.yaml").write_text(yaml.safe_dump(BASE | {"model": "broken.Refusing"}), "utf-8")
    assert cli("check", "mine.yaml", cwd=work).failed() == "latent must be even"


def test_debug_shows_the_traceback_of_any_error(cli: CommandLine, work: Path) -> None:
    for arguments in (("check", "sentence_vea"), ("evaluate", "nowhere"), ("train", "vae.yaml", "--model.latnt", "3")):
        failed = cli("--debug", *arguments, cwd=work)
        assert failed.status == 1 and failed.err.startswith("Traceback (most recent call last)")


def test_a_corpus_that_cannot_be_read_is_named_with_the_cure(cli: CommandLine, work: Path) -> None:
    (work / "empty.txt").write_bytes(b"")
    (work / "blank.txt").write_text("\n \n\n", "utf-8")
    (work / "latin.txt").write_bytes(b"hello there\ncaf\xe9\n")
    (work / "long.txt").write_text(sentences(20) + "word " * 150 + "\n", "utf-8")

    def corpus(path: str) -> str:
        return refused(cli, work, "vae.yaml", "--corpus.path", path, status=1)

    assert corpus("empty.txt") == "empty.txt: the file is empty; give a text file with a sentence on each line"
    assert corpus("blank.txt").startswith("blank.txt: no sentence for the train split")
    assert corpus("latin.txt").startswith("latin.txt: byte 15 (line 2) is not utf-8; convert the file to UTF-8, or")
    assert corpus("long.txt") == (
        "long.txt: line 21 has 150 words, the limit is 100; raise --corpus.max_length, "
        "or give --corpus.overlong drop (or truncate)"
    )
    assert corpus("missing.txt").startswith("missing.txt: ")
    cured = ("--corpus.path", "long.txt", "--corpus.overlong", "drop", "--corpus.min_count", "1")
    cli("check", "vae.yaml", *cured, cwd=work).worked()
    latin = ("--corpus.path", "latin.txt", "--corpus.encoding", "latin-1")
    assert "no sentence for the" in cli("check", "vae.yaml", *latin, cwd=work).failed(), "read, and too small"


def test_published_data_that_are_not_there_are_named_with_the_variable(cli: CommandLine, work: Path) -> None:
    unset = refused(cli, work, "sentence_lm_ptb", status=1)
    assert unset == (
        "ptb: not in the working directory, and PYRO_NLP_DATA is not set; give a path that exists, "
        "or set PYRO_NLP_DATA to the folder that holds 'ptb'"
    )
    nowhere = refused(cli, work, "sentence_vae_ptb", status=1, data=work / "nowhere")
    assert "nowhere, which is not a folder" in nowhere
    (work / "data").mkdir()
    assert "neither in the working directory nor in PYRO_NLP_DATA" in refused(
        cli, work, "sentence_vae_ptb", status=1, data=work / "data"
    )


def test_a_device_that_is_not_there_is_refused_before_anything_is_written(cli: CommandLine, work: Path) -> None:
    line = refused(cli, work, "vae.yaml", "--training.device", "warp", status=1)
    assert line == "device 'warp' is not known: use auto, cpu or cuda"
    if not torch.cuda.is_available():
        line = refused(cli, work, "vae.yaml", "--training.device", "cuda", status=1)
        assert line == "device 'cuda' was asked for and PyTorch finds none: use --training.device cpu"


def test_settings_that_cannot_be_meant_are_refused(cli: CommandLine, work: Path) -> None:
    line = refused(cli, work, "vae.yaml", "--training.epochs", "0", status=1)
    assert line == "Training: epochs, batch_size and log_every must be at least 1"
