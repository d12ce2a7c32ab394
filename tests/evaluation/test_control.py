"""Text written to order: who was asked for what, what a transfer keeps, and which judges are refused."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from pyro_nlp.commands.generate import generate_options, write
from pyro_nlp.data import Vocabulary
from pyro_nlp.data.batches import UNK
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.data.tokenise import detokenise
from pyro_nlp.evaluation.control_measures import attribute_of, content, from_code, refuse_judge
from pyro_nlp.evaluation.control_report import report_control
from pyro_nlp.evaluation.controlling import read_attributes, texts_of, transfer, wanted, write_to_order
from pyro_nlp.evaluation.texts import codes
from pyro_nlp.guides.controlled import ControlledGuide
from pyro_nlp.inference.fit import Run
from pyro_nlp.models.controlled_sentence import ControlledSentence
from pyro_nlp.models.text_classifier import TextClassifier
from pyro_nlp.nn import CNNEncoder, GRUDecoder, GRUEncoder
from tests.inference.test_control import ATTRIBUTES, Attributed, made
from tests.tiny import VOCABULARY


def ran(documents: int = 40) -> Run:
    model, guide = made()
    corpus = Attributed(documents)
    corpus.vocabulary = Vocabulary([f"w{i}" for i in range(VOCABULARY - 4)])
    return Run(model.eval(), guide.eval(), corpus)


def judge(corpus: Any, labels: tuple[str, ...] = ("b", "a")) -> Run:
    torch.manual_seed(3)
    model = TextClassifier(VOCABULARY, len(labels), lambda words: CNNEncoder(words, 4, 5))
    return Run(model.eval(), None, corpus)


def test_all_combinations_are_asked_for_in_turn_or_the_one_that_is_named() -> None:
    model, _ = made()
    found = write_to_order(model, 12, max_length=5)
    every = list(itertools.product(range(2), range(3)))
    assert list(zip(*(found.asked[name].tolist() for name in ATTRIBUTES), strict=True)) == every * 2
    found = write_to_order(model, 5, {"tense": 2}, max_length=5)
    assert found.asked["tense"].tolist() == [2] * 5 and found.asked["tone"].tolist() == [0, 1, 0, 1, 0]


def test_what_is_written_is_written_from_the_code_and_the_order() -> None:
    model, _ = made()
    z = torch.randn(4, model.latent)
    found = write_to_order(model, 4, {"tone": 1, "tense": 0}, z=z, max_length=5)
    latents = {"z": z, "tone": torch.tensor([[0.0, 1.0]] * 4), "tense": torch.tensor([[1.0, 0.0, 0.0]] * 4)}
    written = model.generate(latents, max_length=5).tolist()
    for row, ids in enumerate(written):
        assert found.split.words(row) == [i for i in ids if i > 2]


def test_a_transfer_changes_the_first_attribute_and_keeps_code_and_the_rest() -> None:
    run = ran()
    split = run.corpus.test
    assert isinstance(split, TextSplit) and run.guide is not None and split.labels is not None
    found = transfer(run.model, run.guide, split, max_length=5)
    assert list(found.asked) == ["tone"]
    batch = split.batch(np.arange(len(split)))
    latents = codes(run.model, run.guide, batch)
    said = latents["tone"].argmax(-1).numpy()
    known = np.where(split.labels >= 0, split.labels, said)
    assert np.array_equal(found.asked["tone"], 1 - known)
    for row in (0, 7, len(split) - 1):
        own = {
            "z": latents["z"][row : row + 1],
            "tone": torch.eye(2)[1 - known[row]][None],
            "tense": torch.eye(3)[latents["tense"][row].argmax()][None],
        }
        assert found.split.words(row) == [i for i in run.model.generate(own, max_length=5)[0].tolist() if i > 2]
    asked = transfer(run.model, run.guide, split, {"tense": 1}, max_length=5).asked
    assert asked["tense"].tolist() == [1] * len(split)


def test_the_discriminators_are_read_in_the_order_of_the_split() -> None:
    run = ran()
    split = run.corpus.test
    assert isinstance(split, TextSplit)
    found = read_attributes(run.model, run.guide, split)
    guide: Any = run.guide
    for name in ATTRIBUTES:
        for row in (0, 11):
            log_q = guide.discriminators[name](split.batch(np.array([row]))).log_softmax(-1)
            assert np.allclose(found[name][row], log_q.detach().numpy()[0], atol=1e-5)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"mood": "glad"}, "no attribute is called 'mood'; the run has tone, tense"),
        ({"tone": "glad"}, "tone cannot be 'glad'; it is one of a, b"),
    ],
)
def test_an_unknown_order_is_refused_with_the_known_ones(asked: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wanted(Attributed().attributes, asked)
    assert wanted(Attributed().attributes, {"tense": "z"}) == {"tense": 2}


class Others(Attributed):
    """Other sentences with the same classes, named in another order."""

    labels = ("b", "a")

    def __init__(self, copied: TextSplit | None = None) -> None:
        super().__init__(30, tensed=False)
        self.vocabulary = Vocabulary([f"v{i}" for i in range(VOCABULARY - 4)])
        self.tokenise = str.split
        if copied is not None:
            self.train = self.valid = copied
            self.vocabulary = Vocabulary([f"w{i}" for i in range(VOCABULARY - 4)])


def test_judges_that_have_seen_what_they_judge_or_judge_nothing_are_refused() -> None:
    run = ran()
    test = run.corpus.test
    assert isinstance(test, TextSplit)
    assert "saw 0 of 39 here, 0 of 38 of train" in refuse_judge(judge(Others()), run, test)
    with pytest.raises(ValueError, match="the very corpus that the run learnt from .*: train one on others"):
        refuse_judge(judge(run.corpus), run, test)
    sentences = TextSplit.from_sentences([[9, 9, 8, i] for i in range(4, 24)], [0, 1] * 10)
    with pytest.raises(ValueError, match="where 20 of the 20 sentences stand that it is to judge"):
        refuse_judge(judge(Others(sentences)), run, sentences)
    with pytest.raises(ValueError, match="ControlledSentence tells no classes apart"):
        refuse_judge(Run(run.model, None, Others()), run, test)
    chosen_on = Others(sentences)
    chosen_on.valid = test
    with pytest.raises(ValueError, match="of the 38 different sentences stand that the run learnt from"):
        refuse_judge(judge(chosen_on), run, test)
    unread = Others(TextSplit.from_sentences([[UNK, 9]], [0]))
    with pytest.raises(ValueError, match="whose sentences cannot be compared with the run's"):
        refuse_judge(judge(unread), run, test)
    assert attribute_of(judge(Others()), run.corpus) == "tone"
    strange = Others()
    strange.labels = ("good", "bad")
    with pytest.raises(ValueError, match="judges no attribute of the run; these are tone: a, b; tense: x, y, z"):
        attribute_of(judge(strange), run.corpus)


def test_a_judge_may_not_have_seen_a_small_run_among_much_else() -> None:
    run = ran()
    own = run.corpus.train
    assert isinstance(own, TextSplit)
    longer = np.random.default_rng(0).integers(4, VOCABULARY, (9000, int(own.lengths.max()) + 1))
    rows = [*longer.tolist(), *(own.words(row) for row in range(len(own)))]
    other = Others(TextSplit.from_sentences(rows, [0, 1] * (len(rows) // 2)))
    with pytest.raises(ValueError, match="where 38 of the 38 different sentences stand that the run learnt from"):
        refuse_judge(judge(other), run, own)


def test_content_is_bleu_and_a_copy_has_all_of_it() -> None:
    sentences = TextSplit.from_sentences([[4, 5, 6, 7, 8], [9, 4, 5, 6]])
    assert content(sentences, sentences).mean == pytest.approx(100.0)
    other = TextSplit.from_sentences([[4, 5, 6, 7, 9], [9, 4, 5, 6]])
    found = content(other, sentences)
    assert 0 < found.mean < 100 and found.low <= found.high


def test_what_z_tells_of_an_attribute_is_found_and_what_it_does_not_is_not() -> None:
    run = ran(400)
    guide: Any = run.guide
    split = run.corpus.test
    assert isinstance(split, TextSplit)
    means = codes(run.model, guide, split.batch(np.arange(len(split))))["z"].numpy()
    told = (means[:, 0] > np.median(means[:, 0])).astype(int)
    chance = np.random.default_rng(5).integers(0, 3, len(split))
    labelled = TextSplit(split.flat, split.offsets, told, None, np.stack([told, chance], 1))
    run.corpus.train = run.corpus.test = labelled
    found = from_code(run, labelled)
    assert found["tone"].accuracy > 0.95 and found["tone"].majority == pytest.approx(0.5, abs=0.01)
    assert found["tense"].accuracy < 0.5


def test_the_report_is_a_table_and_numbers() -> None:
    run = ran()
    test = run.corpus.test
    assert isinstance(test, TextSplit)
    found = report_control(run, test, count=24, sentences=20)
    asked = write_to_order(run.model, 24, max_length=int(test.lengths.max()))
    log_q = read_attributes(run.model, run.guide, asked.split)["tone"]
    assert found.samples.in_loop["tone"].mean == (log_q.argmax(1) == asked.asked["tone"]).mean()
    train = {tuple(test.words(row)) for row in range(len(test))}
    copied = [tuple(asked.split.words(row)) in train for row in range(24)]
    assert found.samples.copied.mean == sum(copied) / 24
    assert found.transferred.sentences == 20 and list(found.transferred.in_loop) == ["tone"]
    assert found.as_dict()["samples"]["sentences"] == 24
    assert "tone obeyed, by the discriminator in the loop" in found.rows()
    assert "tone obeyed, by the judge" not in found.rows()
    assert texts_of(asked.split, SimpleNamespace(vocabulary=run.corpus.vocabulary))[0].split()[0].startswith(("w", "<"))  # type: ignore[arg-type]


def test_an_attribute_has_one_judge() -> None:
    run = ran()
    test = run.corpus.test
    assert isinstance(test, TextSplit)
    with pytest.raises(ValueError, match="two judges of tone: an attribute has one"):
        report_control(run, test, (judge(Others()), judge(Others())), count=4, sentences=4)


def test_without_sacrebleu_the_rest_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    run = ran()
    test = run.corpus.test
    assert isinstance(test, TextSplit)
    found = report_control(run, test, count=12, sentences=10)
    assert found.samples.diversity is None and found.transferred.bleu is None and found.from_code
    assert ["sacrebleu" in why for why in found.missing] == [True]
    assert "self-BLEU" not in found.rows() and "copied from train" in found.rows()


def test_a_corpus_that_keeps_its_texts_is_compared_by_them() -> None:
    """Where half of the words are unknown to the model, its vocabulary cannot tell what a judge has seen."""
    run, other = ran(), Others()
    test = run.corpus.test
    assert isinstance(test, TextSplit) and isinstance(other.train, TextSplit)
    texts = tuple(f"rare{i} words here" for i in range(len(test)))
    run.corpus.train = Attributed(7).train
    run.corpus.texts = {"test": texts}  # type: ignore[attr-defined]
    other.texts = {"train": texts[: len(other.train)]}  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=f"where 30 of the {len(test)} sentences stand"):
        refuse_judge(judge(other), run, test)


def test_the_first_attribute_of_a_model_need_not_be_the_corpuss() -> None:
    run = ran()
    torch.manual_seed(0)
    model = ControlledSentence(VOCABULARY, 3, {"tense": 3}, lambda words, latent: GRUDecoder(words, latent, 4, 5))
    guide = ControlledGuide(VOCABULARY, 3, {"tense": 3}, *[lambda words: GRUEncoder(words, 4, 5)] * 2)
    guide.meet_corpus(run.corpus)
    split = run.corpus.test
    assert isinstance(split, TextSplit) and split.attributes is not None
    asked = transfer(model.eval(), guide.eval(), split, max_length=5).asked["tense"]
    known = split.attributes[:, 1] >= 0
    assert known.any() and (asked[known] != split.attributes[known, 1]).all()


def test_a_guide_may_have_the_attributes_in_another_order() -> None:
    run = ran()
    torch.manual_seed(0)
    turned = dict(reversed(ATTRIBUTES.items()))
    guide = ControlledGuide(VOCABULARY, 3, turned, *[lambda words: GRUEncoder(words, 4, 5)] * 2)
    guide.meet_corpus(run.corpus)
    split = run.corpus.test
    assert isinstance(split, TextSplit) and split.labels is not None
    asked = transfer(run.model, guide.eval(), split, max_length=5).asked["tone"]
    known = split.labels >= 0
    assert known.any() and (asked[known] != split.labels[known]).all()


def test_transfers_on_the_command_line_change_the_label_of_a_test_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    run = ran()
    parser = argparse.ArgumentParser()
    generate_options(parser)
    options = parser.parse_args(["run", "--what", "transfers", "--count", "40", "--method", "greedy", "--json"])
    write(options, run)
    split = run.corpus.test
    assert isinstance(split, TextSplit) and split.labels is not None
    label = dict(zip(map(detokenise, map(str.split, texts_of(split, run.corpus))), split.labels, strict=True))
    asked = [(label[one["sentence"]], one["to be"]) for one in json.loads(capsys.readouterr().out)["transfers"]]
    assert {pair for pair in asked if pair[0] >= 0} == {(0, "b"), (1, "a")}


@pytest.mark.parametrize(
    ("asked", "message"),
    [({"nope": 1}, "no attribute is called 'nope'; the model has tone, tense"), ({"tone": 2}, "classes 0 to 1, not 2")],
)
def test_orders_by_number_are_refused_too(asked: dict[str, int], message: str) -> None:
    run = ran()
    with pytest.raises(ValueError, match=message):
        write_to_order(run.model, 4, asked)
    with pytest.raises(ValueError, match=message):
        transfer(run.model, run.guide, run.corpus.test, asked)  # type: ignore[arg-type]


def test_an_attribute_that_is_never_known_is_left_out_of_the_report_and_refused_in_training() -> None:
    run = ran()
    test = run.corpus.test
    assert isinstance(test, TextSplit) and test.attributes is not None
    nowhere = np.stack([test.attributes[:, 0], np.full(len(test), -1)], 1)
    run.corpus.train = run.corpus.test = TextSplit(test.flat, test.offsets, test.labels, None, nowhere)
    found = report_control(run, run.corpus.test, count=6, sentences=6)
    assert set(found.real) == {"in the loop, tone"} and set(found.from_code) <= {"tone"}
    guide: Any = run.guide
    with pytest.raises(ValueError, match="wants labels of 'tense', and sees none at all in the train split"):
        guide.meet_corpus(run.corpus)
