"""Models that are told one class write to order as those with attributes do, each under the names of its corpus."""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from pyro_nlp.commands.generate import generate_options, write
from pyro_nlp.data import Corpus, Vocabulary
from pyro_nlp.data.batches import EOS
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.diagnosis.orders import CODES, has_orders, orders
from pyro_nlp.diagnosis.subject import Protocol, Subject
from pyro_nlp.diagnosis.written import LONGEST
from pyro_nlp.evaluation.controlling import classes_told, names_told, read_attributes, transfer, write_to_order
from pyro_nlp.inference.fit import Run
from pyro_nlp.inference.terms import terms
from pyro_nlp.models.class_language_model import ClassLanguageModel
from pyro_nlp.models.naive_bayes import NaiveBayes
from tests.tiny import CLASSES, CODE, LATENT, STYLE, VOCABULARY, decoder, lm, sharpen, stacked, styled, text, whole

GREEDY = ("--method", "greedy")


class Moods(Corpus):
    """The same random sentences as every split, a mood each but for a few; and some of no known mood."""

    labels, attribute = ("cross", "glad", "sad"), "mood"

    def __init__(self, documents: int = 40) -> None:
        self.name, self.reference = "moods", "made up"
        self.vocabulary, self.tokenise = Vocabulary([f"w{i}" for i in range(VOCABULARY - 4)]), str.split
        found = text(documents)
        labels = np.random.default_rng(0).integers(-1, CLASSES, documents)
        self.train = self.valid = self.test = TextSplit(found.flat, found.offsets, labels)


def models() -> dict[str, tuple[Any, Any]]:
    torch.manual_seed(0)
    return {
        "styled": styled(supervision=0.5),
        "stacked": stacked(supervision=0.5),
        "language model": (sharpen(ClassLanguageModel(VOCABULARY, CLASSES, CODE, decoder)), None),
        "naive Bayes": (sharpen(NaiveBayes(VOCABULARY, CLASSES)), None),
    }


def run_of(name: str) -> Run:
    model, guide = models()[name]
    return Run(model.eval(), None if guide is None else guide.eval(), Moods())


def overheard(model: Any) -> list[dict[str, torch.Tensor]]:
    """What a model is asked to write from, from now on; it writes nothing."""
    asked: list[dict[str, torch.Tensor]] = []

    def generate(latents: dict[str, torch.Tensor], **_: Any) -> torch.Tensor:
        asked.append(latents)
        return torch.full((len(latents["c"]), 1), EOS)

    model.generate = generate
    return asked


def printed(capsys: pytest.CaptureFixture[str], run: Run, *arguments: str) -> Any:
    """What `pyro-nlp generate` prints of a run, as JSON."""
    parser = argparse.ArgumentParser()
    generate_options(parser)
    write(parser.parse_args(["run", "--json", *arguments]), run)
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", models())
def test_samples_are_of_the_class_that_is_asked_for(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(name)
    written = [printed(capsys, run, "--attribute", f"mood={mood}", *GREEDY)["samples"] for mood in Moods.labels]
    for mood, lines in zip(Moods.labels, written, strict=True):
        assert len(lines) == 5 and all(line.startswith(f"{mood}: ") for line in lines)
    assert len({tuple(line.partition(": ")[2] for line in lines) for lines in written}) == 3


def test_what_a_told_model_writes_is_written_from_the_code_and_the_class() -> None:
    model, _ = styled()
    z = torch.randn(4, LATENT)
    found = write_to_order(model, 4, {"c": 2}, z=z, max_length=5)
    classes = one_hot(torch.full((4,), 2), CLASSES).float()
    ids = model.generate({"z": z, "c": classes}, max_length=5).tolist()
    assert [found.split.words(row) for row in range(4)] == [[i for i in row if i > 2] for row in ids]
    assert classes_told(model) == {"c": CLASSES} and found.asked["c"].tolist() == [2] * 4


def test_the_code_below_a_class_is_drawn_given_the_class() -> None:
    model, _ = models()["stacked"]
    asked = overheard(model)
    z2 = torch.randn(6, STYLE)
    write_to_order(model, 6, {"c": 1}, z=z2, seed=3)
    given = asked[0]
    loc, scale = model.code(model.hidden(torch.cat([z2, given["c"]], -1)))
    assert torch.equal(given["z2"], z2) and given["c"].argmax(-1).tolist() == [1] * 6
    drawn = (given["z1"] - loc) / scale
    torch.manual_seed(3)
    assert torch.allclose(drawn, torch.randn(6, LATENT), atol=1e-4)


def test_a_transfer_of_m2_keeps_the_code_of_the_sentence_given_its_own_class(
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = run_of("styled")
    split, model, guide = run.corpus.test, run.model, run.guide
    assert isinstance(split, TextSplit) and split.labels is not None
    found = transfer(model, guide, split, {"c": 1}, max_length=5)  # type: ignore[arg-type]
    batch = whole(split)
    said = read_attributes(model, guide, split)["c"].argmax(-1)  # type: ignore[arg-type]
    own = torch.from_numpy(np.where(split.labels >= 0, split.labels, said))
    assert guide is not None
    with torch.no_grad():
        z = terms(model, guide, batch, given={"c": one_hot(own, CLASSES).float()[None]}).sites["z"].q.mean[0]
    wanted = one_hot(torch.ones(len(split), dtype=torch.long), CLASSES).float()
    ids = model.generate({"z": z, "c": wanted}, max_length=5).tolist()  # type: ignore[operator]
    assert [found.split.words(row) for row in range(len(split))] == [[i for i in row if i > 2] for row in ids]
    lines = printed(capsys, run, "--sentence", "w3 w4 w5", "--attribute", "mood=sad", *GREEDY)["transfers"]
    assert [(line["sentence"], line["to be"]) for line in lines] == [("w3 w4 w5", "sad")]


@pytest.mark.parametrize("name", ["styled", "stacked"])
def test_a_sentence_becomes_one_of_another_class_by_default(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(name)
    split = run.corpus.test
    assert isinstance(split, TextSplit) and split.labels is not None and run.guide is not None
    found = transfer(run.model, run.guide, split, max_length=5)
    known = split.labels >= 0
    assert (found.asked["c"][known] != split.labels[known]).all()
    assert len(printed(capsys, run, "--what", "transfers", "--count", "3", *GREEDY)["transfers"]) == 3


def test_a_stacked_transfer_is_written_from_the_style_and_the_new_class() -> None:
    run = run_of("stacked")
    asked = overheard(run.model)
    transfer(run.model, run.guide, run.corpus.test, {"c": 0})  # type: ignore[arg-type]
    assert [set(latents) for latents in asked] == [{"z2", "c"}]
    assert (asked[0]["c"].argmax(-1) == 0).all()


@pytest.mark.parametrize("name", ["language model", "naive Bayes"])
@pytest.mark.parametrize("arguments", [("--what", "transfers"), ("--sentence", "w3 w4", "--attribute", "mood=sad")])
def test_a_transfer_without_a_code_is_refused(
    name: str, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="has no code z, so a sentence of another class would keep nothing: ask for"):
        printed(capsys, run_of(name), *arguments)


@pytest.mark.parametrize("name", models())
@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("tone=glad", "no attribute is called 'tone'; the run has mood"),
        ("mood=glum", "mood cannot be 'glum'; it is one of cross, glad, sad"),
    ],
)
def test_an_unknown_class_is_refused_with_the_known_ones(
    name: str, asked: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=message):
        printed(capsys, run_of(name), "--attribute", asked)


def test_a_class_that_was_found_without_labels_has_the_name_of_its_site_and_numbers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, guide = styled()
    found = Run(model.eval(), guide.eval(), Moods())
    assert names_told(found) == {"c": ("c", ("0", "1", "2"))}
    assert names_told(run_of("styled")) == {"c": ("mood", Moods.labels)}
    lines = printed(capsys, found, "--attribute", "c=1", *GREEDY)["samples"]
    assert [line.partition(": ")[0] for line in lines] == ["1"] * 5
    with pytest.raises(ValueError, match="no attribute is called 'mood'; the run has c"):
        printed(capsys, found, "--attribute", "mood=sad")
    unnamed: Any = Moods()
    unnamed.labels = ()
    assert names_told(Run(models()["naive Bayes"][0], None, unnamed)) == {"y": ("mood", ("0", "1", "2"))}


def test_nobody_asks_and_they_write_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(printed(capsys, run_of("styled"), *GREEDY)) == {"samples", "reconstructions", "interpolations"}
    assert set(printed(capsys, run_of("language model"))) == {"samples"}


def test_a_model_that_is_told_nothing_takes_no_orders(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(lm().eval(), None, Moods())
    assert classes_told(run.model) == {} and names_told(run) == {}
    with pytest.raises(ValueError, match="SentenceLM has no attributes to write to order"):
        printed(capsys, run, "--attribute", "mood=sad")


@pytest.mark.parametrize("name", ["styled", "stacked"])
def test_the_report_writes_the_same_code_to_every_class(name: str) -> None:
    run = run_of(name)
    split = run.corpus.test
    subject = Subject.of(name, run, split, np.arange(len(split)), Protocol(seed=2))
    found = orders(subject)
    assert found.asked == list(Moods.labels) and found.combinations == 3 and found.transfers
    if name == "styled":
        torch.manual_seed(2)
        z = torch.randn(CODES, LATENT)
        columns = [write_to_order(run.model, CODES, {"c": k}, z=z, max_length=LONGEST).split for k in range(3)]
        lines = [subject.lines([column.words(row) for row in range(CODES)]) for column in columns]
        assert [list(row) for row in zip(*lines, strict=True)] == found.written


def test_the_report_has_no_grid_of_a_class_without_a_code() -> None:
    run = run_of("naive Bayes")
    subject = Subject.of("bayes", run, run.corpus.test, np.arange(9), Protocol())
    assert not has_orders(subject)
