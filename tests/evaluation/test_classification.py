"""Classes judged alike, however a model comes by them; pairing, calibration, foreign text, the command line."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from pyro_nlp.cli import main
from pyro_nlp.data.batches import UNK
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.data.tense import TENSES
from pyro_nlp.evaluation import (
    Classification,
    auroc,
    class_posteriors,
    classify,
    compare_classifications,
    judges_classes,
    out_of_domain,
)
from pyro_nlp.evaluation.classifying import classed
from pyro_nlp.inference import terms
from pyro_nlp.models.class_language_model import ClassLanguageModel
from pyro_nlp.models.text_classifier import TextClassifier
from tests.tiny import CLASSES, CODE, VOCABULARY, decoder, encoder, lm, mixture, sentences, sharpen, styled, vae, whole


def labelled(count: int = 12, seed: int = 0) -> TextSplit:
    texts = sentences(count, seed)
    return TextSplit.from_sentences(texts, np.random.default_rng(seed).integers(0, CLASSES, count))


def made(log_p: Any, labels: Any, likelihood: Any = None) -> Classification:
    """A classification of given probabilities."""
    table = np.log(np.asarray(log_p, float))
    names = tuple("abcdefgh"[: table.shape[1]])
    ones = np.ones(len(table), np.int64)
    return Classification(table, np.asarray(labels), "by hand", names, likelihood, ones)


def test_probabilities_sum_to_one_and_stand_in_the_order_of_the_corpus() -> None:
    torch.manual_seed(0)
    split, model = labelled(), sharpen(TextClassifier(VOCABULARY, CLASSES, encoder))
    found = classify(model, None, split, batch_size=5, names=("x", "y", "z"))
    np.testing.assert_allclose(np.exp(found.log_probability).sum(1), 1, rtol=1e-6)
    with torch.no_grad():
        np.testing.assert_allclose(found.log_probability, model.class_log_probs(whole(split)), rtol=1e-4, atol=1e-6)
    assert found.log_likelihood is None and found.how == "by the model" and found.names == ("x", "y", "z")
    assert model.training  # it is put back


def test_a_class_beside_no_other_latent_is_exact_and_the_guide_stands_beside_it() -> None:
    split, (model, guide) = labelled(), mixture(supervision=0.5)
    found = classify(model, guide, split)
    exact = class_posteriors(model, None, split)["c"]
    np.testing.assert_allclose(np.exp(found.log_probability), exact, rtol=1e-4, atol=1e-6)
    assert found.how == "Bayes' rule, exact" and found.guide is not None
    guide.eval()
    said = terms(model, guide, whole(split)).sites["c"].q.logits.log_softmax(-1)
    np.testing.assert_allclose(found.guide, said.reshape(len(split), -1).detach(), rtol=1e-4, atol=1e-6)
    alone = classify(model, None, split)
    np.testing.assert_allclose(alone.log_probability, found.log_probability, atol=1e-6)
    assert alone.guide is None
    with pytest.raises(ValueError, match=r"there is no q\(y \| x\) beside Bayes' rule, exact: only a model with a"):
        alone.by_guide()


def test_beside_a_continuous_latent_it_is_importance_weighted_class_by_class() -> None:
    split, (model, guide) = labelled(6), styled()
    with torch.no_grad():  # a broad posterior, of weights that vary little
        for parameter in guide.posterior.parameters():
            parameter.mul_(0.1)
    found = classify(model, guide, split, samples=10_000, chunk=6000)
    model.eval(), guide.eval()
    torch.manual_seed(7)
    joint = np.zeros((6, CLASSES))
    prior = model.prior.detach().log_softmax(0)
    with torch.no_grad():
        for k in range(CLASSES):  # by draws from the prior of z, which needs no guide
            z = torch.randn(20_000, 6, model.latent)
            c = torch.eye(CLASSES)[k].expand(20_000, 6, -1)
            parts = []
            for rows in torch.arange(20_000).split(2000):
                given = {"z": z[rows], "c": c[rows]}
                parts.append(terms(model, guide, whole(split), particles=len(rows), given=given).log_likelihood)
            joint[:, k] = (torch.cat(parts).double().logsumexp(0) - math.log(20_000) + prior[k]).numpy()
    assert found.log_likelihood is not None
    np.testing.assert_allclose(found.log_likelihood, np.logaddexp.reduce(joint, 1), atol=0.05)
    expected = joint - np.logaddexp.reduce(joint, 1)[:, None]
    np.testing.assert_allclose(found.log_probability, expected, atol=0.1)
    assert found.how == "Bayes' rule, 10000 importance samples per class" and found.guide is not None


def test_accuracy_loss_and_the_table_of_classes_are_those_by_hand() -> None:
    found = made([[0.7, 0.3], [0.4, 0.6], [0.9, 0.1], [0.2, 0.8], [0.5, 0.5]], [0, 0, 1, 1, -1])
    assert found.accuracy == 0.5 and len(found) == 5 and found.majority == 0.5
    assert found.log_loss == pytest.approx(-np.mean(np.log([0.7, 0.4, 0.1, 0.8])))
    table = found.per_class()
    assert table["a"] == {"documents": 2, "precision": 0.5, "recall": 0.5, "F1": 0.5}
    calibration = found.calibration(bins=2)
    # the likeliest class has .6 and .7 (one right), .8 and .9 (one right)
    assert calibration.expected_error == pytest.approx((abs(0.65 - 0.5) + abs(0.85 - 0.5)) / 2)
    interval = found.intervals(2000)["accuracy"]
    assert interval.low <= 0.5 <= interval.high and interval.low >= 0
    unseen = made([[0.7, 0.3], [0.6, 0.4]], [0, 0]).per_class()["b"]
    assert unseen["documents"] == 0 and math.isnan(unseen["precision"]) and math.isnan(unseen["F1"])
    rows = found.rows()
    assert rows["documents with a label"] == "4" and "class b" in rows
    assert json.loads(json.dumps(made([[0.7, 0.3]], [0]).as_dict(), allow_nan=False))["classes"]["b"]["recall"] is None


def test_two_classifications_are_paired_document_by_document() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    right = np.stack([rng.random(400) < 0.9, rng.random(400) < 0.7])
    first, second = (
        made(np.where((np.arange(2) == labels[:, None]) == hit[:, None], 0.8, 0.2), labels) for hit in right
    )
    found = compare_classifications(first, second, resamples=500, permutations=999)
    alone = [int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())]
    assert [found.first_right, found.second_right] == alone
    assert found.mcnemar == binomtest(alone[0], sum(alone)).pvalue < 1e-6
    assert found.accuracy.mean == pytest.approx(right[0].mean() - right[1].mean())
    assert found.accuracy.low > 0 and found.accuracy.p_value == 1 / 1000 and found.log_loss.high < 0
    same = compare_classifications(first, first, resamples=10, permutations=10)
    assert same.mcnemar == 1 and same.accuracy.p_value == 1
    with pytest.raises(ValueError, match="cannot pair classifications of 400 and 1 documents .* on the same split"):
        compare_classifications(first, made([[0.5, 0.5]], [0]))


def test_auroc_is_the_chance_of_the_right_order() -> None:
    rng = np.random.default_rng(0)
    inside, outside = rng.integers(0, 8, 50).astype(float), rng.integers(0, 6, 70).astype(float)
    pairs = inside[:, None] - outside
    assert auroc(inside, outside) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert auroc(inside, inside) == 0.5 and auroc(inside + 10, outside) == 1


def test_foreign_text_is_told_by_its_likelihood_or_by_confidence() -> None:
    own = made([[0.9, 0.1]] * 30, [0] * 30, np.linspace(-2, -1, 30))
    other = made([[0.6, 0.4]] * 40, [-1] * 40, np.linspace(-1.5, -0.5, 40))
    found = out_of_domain(own, other, resamples=100)
    assert found["confidence"].mean == 1 and list(found) == ["likelihood", "confidence"]
    assert found["likelihood"].low <= found["likelihood"].mean <= found["likelihood"].high < 0.5
    assert list(out_of_domain(made([[0.9, 0.1]], [0]), other, resamples=2)) == ["confidence"]


def with_unknown(seed: int = 0) -> TextSplit:
    """Sentences of which about a third of the words are `<unk>`, one of them nothing else."""
    rng = np.random.default_rng(seed)
    texts = [np.where(rng.random(len(text)) < 0.3, UNK, text) for text in sentences(8, seed)]
    texts[2] = np.full(3, UNK)
    return TextSplit.from_sentences(texts, rng.integers(0, CLASSES, 8))


def word_by_word(states: torch.Tensor, head: Any, split: TextSplit) -> torch.Tensor:
    """log p of the known words given all before them, `[N]`, of states `[N, T, D]`."""
    batch = whole(split)
    log_p = head(states).log_softmax(-1).gather(-1, batch.targets[..., None])[..., 0]
    return (log_p * (batch.mask & (batch.targets != UNK))).double().sum(-1)


def test_known_words_alone_are_judged_given_all_before_them() -> None:
    torch.manual_seed(0)
    split, model = with_unknown(), sharpen(ClassLanguageModel(VOCABULARY, CLASSES, CODE, decoder))
    plain = classify(model, None, split)
    assert plain.known_likelihood is None
    found = classify(model, None, split, known_words=True, batch_size=3)
    np.testing.assert_allclose(found.log_probability, plain.log_probability, rtol=1e-5)
    by_class = []
    with torch.no_grad():
        for k in range(CLASSES):
            states = model.decoder(model.codes[k].expand(8, -1), whole(split).inputs)
            by_class.append(word_by_word(states, model.head, split) + model.prior.log_softmax(-1)[k])
    assert found.known_likelihood is not None
    np.testing.assert_allclose(found.known_likelihood, torch.stack(by_class).logsumexp(0), rtol=1e-5)
    assert found.unknown is not None
    assert found.unknown.tolist() == [split.words(i).count(UNK) for i in range(8)]
    assert found.unknown_share == found.unknown.sum() / (split.lengths - 1).sum()
    nothing = TextSplit.from_sentences([[UNK, UNK]])  # but the end of sentence
    assert classify(model, None, nothing, known_words=True).tokens[0] == 3
    classifier = TextClassifier(VOCABULARY, CLASSES, encoder)
    assert classify(classifier, None, split, known_words=True).known_likelihood is None


def test_known_words_are_judged_beside_other_latents_too() -> None:
    split, (model, guide) = with_unknown(), styled()
    with torch.no_grad():
        for parameter in guide.posterior.parameters():
            parameter.mul_(0.1)
    found = classify(model, guide, split, samples=4000, chunk=8000, known_words=True)
    torch.manual_seed(7)
    joint = []
    with torch.no_grad():
        for k in range(CLASSES):
            parts = []
            for _ in range(20):
                z, c = torch.randn(1000, 8, model.latent), torch.eye(CLASSES)[k].expand(1000, 8, -1)
                states = model.decoder(torch.cat([z, c @ model.codes], -1), whole(split).inputs)
                batch = whole(split)
                log_p = model.head(states).log_softmax(-1).gather(-1, batch.targets.expand(1000, -1, -1)[..., None])
                parts.append((log_p[..., 0] * (batch.mask & (batch.targets != UNK))).double().sum(-1))
            joint.append(torch.cat(parts).logsumexp(0) - math.log(20_000) + model.prior.log_softmax(-1)[k])
    assert found.known_likelihood is not None
    np.testing.assert_allclose(found.known_likelihood, torch.stack(joint).logsumexp(0), atol=0.05)


def test_foreign_text_is_told_by_known_words_and_by_how_many_there_are() -> None:
    own, other = (replace(made([[0.9, 0.1]] * 20, [-1] * 20, np.zeros(20)), tokens=np.full(20, 10)) for _ in "ab")
    own = replace(own, unknown=np.zeros(20, int), known_likelihood=np.full(20, -20.0))
    other = replace(other, unknown=np.full(20, 5), known_likelihood=np.full(20, -12.0))
    found = out_of_domain(own, other, resamples=10)
    assert list(found) == ["likelihood", "known words", "unknown words", "confidence"]
    assert found["known words"].mean == 1 and found["unknown words"].mean == 1 and found["likelihood"].mean == 0.5
    assert own.unknown_share == 0 and other.unknown_share == pytest.approx(100 / 180)


@pytest.mark.parametrize(
    "ask",
    [
        lambda found: found.accuracy,
        lambda found: found.log_loss,
        lambda found: found.majority,
        lambda found: found.calibration(),
        lambda found: found.intervals(),
        lambda found: found.per_class(),
        lambda found: found.rows(),
        lambda found: found.as_dict(),
        lambda found: compare_classifications(found, found),
    ],
)
@pytest.mark.parametrize("labels", [None, [-1] * 12])
def test_without_a_label_there_is_nothing_to_judge_by(ask: Any, labels: Any) -> None:
    torch.manual_seed(0)
    split = TextSplit.from_sentences(sentences(12, 0), labels)
    found = classify(TextClassifier(VOCABULARY, CLASSES, encoder), None, split)
    assert found.predicted.shape == (12,)
    with pytest.raises(ValueError, match=r"none of the 12 documents has a label .* judge a split with labels"):
        ask(found)


def test_what_has_no_class_is_refused_and_what_is_not_taught_one_is_not_judged() -> None:
    split = labelled()
    with pytest.raises(TypeError, match="SentenceLM has no class of a document: give a model with class_log_probs"):
        classify(lm(), None, split)
    assert not judges_classes(lm(), None, split) and not judges_classes(*vae(), split)
    assert not judges_classes(*mixture(), split)  # its classes are its own
    assert judges_classes(*mixture(supervision=0.1), split) and judges_classes(*styled(supervision=0.1), split)
    assert not judges_classes(ClassLanguageModel(VOCABULARY, CLASSES, CODE, decoder, supervision=0), None, split)
    classifier = TextClassifier(VOCABULARY, 2, encoder)
    assert judges_classes(classifier, None, split)
    assert not judges_classes(classifier, None, TextSplit.from_sentences([[4]], [-1]))
    assert not judges_classes(classifier, None, TextSplit.from_sentences([[4]]))
    with pytest.raises(ValueError, match="TextClassifier has 2 classes, and the split the label 2: judge it on the"):
        classify(classifier, None, split)
    with pytest.raises(ValueError, match="samples is 0; take at least 1"):
        classify(classifier, None, split, samples=0)


def test_the_only_attribute_of_a_model_is_judged_by_its_own_classes() -> None:
    corpus: Any = SimpleNamespace(attribute="tone", labels=("a", "b"), attributes={"tone": ("a", "b"), "tense": TENSES})
    both = np.array([[0, 1], [1, 0], [1, -1]])
    split = TextSplit.from_sentences([[4], [5], [6]], both[:, 0])
    split = TextSplit(split.flat, split.offsets, split.labels, None, both)
    found, names = classed(SimpleNamespace(attributes={"tense": 2}), corpus, split)
    assert isinstance(found, TextSplit) and found.labels is not None
    assert found.labels.tolist() == [1, 0, -1] and names == TENSES
    for attributes in ({"tone": 2}, {"tone": 2, "tense": 2}):
        assert classed(SimpleNamespace(attributes=attributes), corpus, split) == (split, ("a", "b"))
    assert classed(lm(), corpus, split) == (split, ("a", "b"))


def test_a_model_with_more_classes_than_the_corpus_has_numbers_for_names() -> None:
    torch.manual_seed(0)
    model = ClassLanguageModel(VOCABULARY, 5, CODE, decoder)
    assert classify(model, None, labelled(), names=("a", "b", "c")).names == ("a", "b", "c", "3", "4")


RECIPE = """
model: {class_path: CLASS, init_args: {classes: 2, PART}}
guide: null
corpus: {class_path: LabelledLines, init_args: {train: reviews.tsv, separator: "\\t"}}
training: {epochs: 8, batch_size: 20, device: cpu, optimizer: {class_path: Adam, init_args: {learning_rate: 0.03}}}
"""


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("TextClassifier", "encoder: {class_path: CNNEncoder, init_args: {embedding: 8, width: 8, pooling: max}}"),
        ("ClassLanguageModel", "decoder: {class_path: LSTMDecoder, init_args: {embedding: 8, width: 8}}"),
        ("NaiveBayes", "smoothing: 0.1"),
    ],
)
def test_a_run_is_judged_from_the_command_line(
    name: str, part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    words = {"good": ["fine", "warm", "sweet"], "bad": ["dull", "flat", "cold"]}
    lines = [f"{k}\ta {rng.choice(w)} film {i} , {rng.choice(w)} it is\n" for i in range(120) for k, w in words.items()]
    Path("reviews.tsv").write_text("".join(lines), "utf-8")
    Path("r.yaml").write_text(RECIPE.replace("CLASS", name).replace("PART", part), "utf-8")
    assert main(["check", "r.yaml"]) == 0
    assert main(["train", "r.yaml", "--out", "run"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["classes"]["accuracy"]["mean"] > 0.9 and set(found["classes"]["classes"]) == {"bad", "good"}
    assert (found["perplexity"] is None) == (name == "TextClassifier")
    assert main(["evaluate", "run"]) == 0
    printed = capsys.readouterr().out
    assert "expected calibration error" in printed and "class good" in printed
