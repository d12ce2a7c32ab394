"""Discriminative, generative and semi-supervised classifiers: Bayes' rule by hand, unknown labels, every strategy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch.nn.functional import cross_entropy

from pyro_nlp.data import TextBatch
from pyro_nlp.data.batches import EOS
from pyro_nlp.data.corpus import Corpus
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.evaluation import classify, evaluate, importance_nll
from pyro_nlp.guides.categorical import CategoricalGuide
from pyro_nlp.guides.styled import StyledGuide
from pyro_nlp.inference import (
    ELBO,
    REBAR,
    Adam,
    Constant,
    Enumerate,
    KnownLabels,
    LeaveOneOut,
    Marginalize,
    Neural,
    Relax,
    ScoreFunction,
    Strategy,
    StructureError,
    Subset,
    Training,
    fit,
    terms,
)
from pyro_nlp.models.class_language_model import ClassLanguageModel
from pyro_nlp.models.naive_bayes import NaiveBayes
from pyro_nlp.models.sentence_mixture import SentenceMixture
from pyro_nlp.models.styled_sentence import StyledSentence
from pyro_nlp.models.text_classifier import TextClassifier
from pyro_nlp.nn import CNNEncoder
from tests.tiny import CODE, LATENT, VOCABULARY, WIDTH, decoder, encoder, gradients, padded, sharpen, styled, whole

CLASSES = 3
pooled = partial(encoder, pooling="max")
cnn = partial(CNNEncoder, embedding=WIDTH, width=WIDTH, pooling="max")

MODELS: dict[str, Callable[[], Any]] = {
    "LSTM": lambda: TextClassifier(VOCABULARY, CLASSES, pooled),
    "CNN": lambda: TextClassifier(VOCABULARY, CLASSES, cnn),
    "class LM": lambda: ClassLanguageModel(VOCABULARY, CLASSES, CODE, decoder),
    "naive Bayes": lambda: NaiveBayes(VOCABULARY, CLASSES, 0.1),
}
GENERATIVE = ("class LM", "naive Bayes")


def separable(count: int, seed: int = 0, unknown: int = 0) -> TextSplit:
    """Sentences of two to five words, a third of the vocabulary for each class; the first `unknown` have no label."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    texts = [4 + 8 * label + rng.integers(0, 8, rng.integers(2, 6)) for label in labels]
    labels[:unknown] = -1
    return TextSplit.from_sentences(texts, labels)


class Separable(Corpus):
    """Text whose class is told by any word of it."""

    def __init__(self, train: int = 120, unknown: int = 0) -> None:
        self.name, self.reference, self.labels = "separable", "made up", ("a", "b", "c")
        self.train, self.valid, self.test = separable(train, 0, unknown), separable(40, 1), separable(60, 2)


def make(name: str) -> Any:
    torch.manual_seed(0)
    return sharpen(MODELS[name]())


def some(count: int = 9, unknown: int = 0) -> TextBatch:
    batch: TextBatch = whole(separable(count, 3, unknown))
    return batch


def log_likelihood(model: Any, batch: TextBatch) -> torch.Tensor:
    found: torch.Tensor = terms(model, None, batch).log_likelihood[0]
    return found


# what is learnt from a label, and from its absence


@pytest.mark.parametrize("name", MODELS)
def test_padding_changes_nothing(name: str) -> None:
    model, batch = make(name), some()
    torch.testing.assert_close(log_likelihood(model, batch), log_likelihood(model, padded(batch, 3)))


@pytest.mark.parametrize("name", ["LSTM", "CNN"])
def test_a_discriminative_loss_is_the_cross_entropy_of_the_known_labels(name: str) -> None:
    model, batch = make(name), some(9, unknown=4)
    assert batch.labels is not None
    expected = cross_entropy(model.head(model.encoder(batch)), batch.labels, ignore_index=-1, reduction="none")
    torch.testing.assert_close(-log_likelihood(model, batch), expected)
    assert not expected[:4].any() and expected[4:].all()
    torch.testing.assert_close(model.class_log_probs(batch).logsumexp(-1), torch.zeros(9))


def by_hand(model: Any, batch: TextBatch) -> np.ndarray:
    """log p(x, y), a sentence, a class and a word at a time."""
    table = np.zeros((len(batch), CLASSES))
    prior = model.prior.detach().double().softmax(0).log().numpy()
    for i in range(len(batch)):
        for k in range(CLASSES):
            total = prior[k]
            for t in range(int(batch.lengths[i])):
                if isinstance(model, NaiveBayes):
                    logits = model.head.weight[:, k].double()
                else:
                    state = model.decoder(model.codes[k : k + 1], batch.inputs[i : i + 1, : t + 1])[0, -1]
                    logits = model.head(state).double()
                total += float(logits.log_softmax(0)[batch.targets[i, t]])
            table[i, k] = total
    return table


@pytest.mark.parametrize("name", GENERATIVE)
def test_a_known_class_is_observed_and_an_unknown_one_summed_out_exactly(name: str) -> None:
    model, batch = make(name), some(7, unknown=3)
    with torch.no_grad():
        expected, joint = by_hand(model, batch), model.class_log_joint(batch).double().numpy()
        found = terms(model, None, batch).observed
    np.testing.assert_allclose(joint, expected, rtol=1e-5)
    together = (found["x"] + found["y"]).double().numpy().reshape(-1)
    np.testing.assert_allclose(together[:3], logsumexp(expected[:3], axis=1), rtol=1e-5)
    assert batch.labels is not None
    np.testing.assert_allclose(together[3:], expected[np.arange(3, 7), batch.labels[3:].numpy()], rtol=1e-5)
    model.eval()  # then no label is seen
    with torch.no_grad():
        unseen = log_likelihood(model, batch).double().numpy()
    np.testing.assert_allclose(unseen, logsumexp(expected, axis=1), rtol=1e-5)


@pytest.mark.parametrize("name", GENERATIVE)
def test_bayes_rule_is_that_of_a_mixture_by_brute_force(name: str) -> None:
    model, split = make(name), separable(8, 5)
    with torch.no_grad():
        joint = by_hand(model, whole(split))
    found = classify(model, None, split)
    np.testing.assert_allclose(found.log_probability, joint - logsumexp(joint, axis=1)[:, None], atol=1e-5)
    assert found.log_likelihood is not None and found.how == "Bayes' rule, exact"
    np.testing.assert_allclose(found.log_likelihood, logsumexp(joint, axis=1), rtol=1e-6)
    np.testing.assert_allclose(-found.log_likelihood, importance_nll(model, None, split).nll, rtol=1e-6)


def test_a_known_class_costs_one_reading_and_an_unknown_one_a_reading_for_each() -> None:
    model, rows = make("class LM"), []
    model.decoder.register_forward_hook(lambda module, args, out: rows.append(len(args[0])))
    log_likelihood(model, some(9, unknown=4))
    assert rows == [5 + 4 * CLASSES]
    rows.clear()
    model.supervision = 0.0
    log_likelihood(model, some(9))
    assert rows == [9 * CLASSES]


def test_naive_bayes_is_smoothed_counts_of_words_and_classes() -> None:
    split = TextSplit.from_sentences([[4, 4, 5], [5], [6]], [0, 0, 1])
    model = NaiveBayes(7, 2, smoothing=0.5).estimate(split)
    counts = np.full((7, 2), 0.5)
    for word, label in ((4, 0), (4, 0), (5, 0), (5, 0), (6, 1), (EOS, 0), (EOS, 0), (EOS, 1)):
        counts[word, label] += 1
    np.testing.assert_allclose(model.log_words.exp().detach().numpy(), counts / counts.sum(0), rtol=1e-5)
    np.testing.assert_allclose(model.prior.softmax(0).detach().numpy(), [2 / 3, 1 / 3], rtol=1e-6)


def test_gradients_lead_naive_bayes_to_its_closed_form() -> None:
    split = separable(30)
    exact, learnt = (NaiveBayes(VOCABULARY, CLASSES, 0.3) for _ in range(2))
    exact.estimate(split)
    batch = whole(split)
    objective = Strategy().compile(learnt, None, batch)
    best = torch.optim.LBFGS(learnt.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> float:
        best.zero_grad()
        value = objective(batch)
        value.backward()
        return float(value.detach())

    best.step(loss)
    torch.testing.assert_close(learnt.log_words, exact.log_words, rtol=0, atol=2e-2)
    torch.testing.assert_close(learnt.prior.log_softmax(0), exact.prior.log_softmax(0), rtol=0, atol=1e-2)
    with pytest.raises(ValueError, match="smoothing is 0; above 0, or a word unseen in a class rules it out"):
        NaiveBayes(7, 2, 0)


@pytest.mark.parametrize("name", MODELS)
def test_separable_text_is_learnt(name: str) -> None:
    corpus, model = Separable(), make(name)
    run = fit(model, None, corpus, training=Training(epochs=12, batch_size=20, optimizer=Adam(0.03), device="cpu"))
    found = classify(run.model, None, corpus.test, names=corpus.labels)
    assert found.accuracy >= 0.95 and found.log_loss < 0.3
    assert evaluate(run.model, None, corpus.test).perplexity is None or name in GENERATIVE


def test_unlabelled_text_teaches_a_generative_classifier() -> None:
    corpus = Separable(train=200, unknown=191)
    model = NaiveBayes(VOCABULARY, CLASSES, 0.3).estimate(corpus.train)  # type: ignore[arg-type]
    before = classify(model, None, corpus.test)
    training = Training(epochs=10, batch_size=50, optimizer=Adam(0.1), device="cpu", plateau=None)
    found = classify(fit(model, None, corpus, training=training).model, None, corpus.test)
    assert before.accuracy < 0.95 < found.accuracy and found.log_loss < before.log_loss - 0.1


@pytest.mark.parametrize("name", GENERATIVE)
def test_sentences_are_written_of_a_class(name: str) -> None:
    corpus, model = Separable(), make(name)
    fit(model, None, corpus, training=Training(epochs=15, batch_size=20, optimizer=Adam(0.06), device="cpu"))
    written = model.generate({"y": torch.eye(CLASSES)[torch.full((40,), 1)]}, method="ancestral", max_length=6)
    words = written[written > 3]
    assert len(words) > 40 and float(((words >= 12) & (words < 20)).float().mean()) > 0.9
    assert len(model.generate({}, count=3, max_length=4)) == 3


# errors


def test_a_classifier_refuses_text_without_labels_and_more_classes_than_it_has() -> None:
    batch = some()
    with pytest.raises(ValueError, match="site 'y': the corpus has no labels: choose one that has, such as SST"):
        Strategy().compile(make("LSTM"), None, batch.replace(labels=None))
    for model in (TextClassifier(VOCABULARY, 2, pooled), ClassLanguageModel(VOCABULARY, 2, CODE, decoder)):
        with pytest.raises(ValueError, match="found the label 2, expected less than the 2 classes: set .* least 3"):
            Strategy().compile(model, None, batch)
    with pytest.raises(ValueError, match=r"supervision is 1\.0, but the corpus has no labels: choose one that has"):
        Strategy().compile(make("class LM"), None, batch.replace(labels=None))


# M2


HALF = Separable(train=120)
WEIGHT = 3.0
STRATEGIES: dict[str, Any] = {
    "enumerate": {"discrete": Enumerate()},
    "rloo": {"discrete": ScoreFunction(LeaveOneOut()), "bound": ELBO(4)},
    "nvil": {"discrete": ScoreFunction(Neural()), "bound": ELBO(4)},
    "rebar": {"discrete": REBAR(), "bound": ELBO(2)},
    "relax": {"discrete": Relax(Constant(0.7))},
    "straight through": {"discrete": Relax(Constant(0.7), hard=True)},
    "subset": {"discrete": Subset(2)},
}


def m2(supervision: float = 0.5) -> tuple[Any, Any]:
    torch.manual_seed(0)
    model = StyledSentence(VOCABULARY, LATENT, CLASSES, CODE, decoder)
    return model, StyledGuide(VOCABULARY, LATENT, CLASSES, pooled, supervision=supervision)


@pytest.mark.parametrize("name", STRATEGIES)
def test_m2_learns_separable_text_from_half_of_its_labels(name: str) -> None:
    model, guide = m2()
    strategy = Strategy(**STRATEGIES[name], auxiliary=(KnownLabels(WEIGHT),))
    training = Training(epochs=8, batch_size=20, optimizer=Adam(0.02), device="cpu")
    run = fit(model, guide, HALF, strategy, training)
    bounds = [entry["valid.loss"] for entry in run.history if "valid.loss" in entry]
    assert bounds[-1] < bounds[0] - 1
    found = classify(run.model, run.guide, HALF.test, names=HALF.labels, samples=5)
    assert found.by_guide().accuracy >= 0.9 and found.accuracy >= 0.9


def test_known_labels_is_alpha_times_the_cross_entropy_and_reaches_the_classifier() -> None:
    batch = some(30)
    model, guide = styled(supervision=0.5)
    found = {}
    for weight in (0.0, 2.0):
        strategy = Strategy(discrete=Enumerate(), auxiliary=(KnownLabels(weight),))
        objective = strategy.compile(model, guide, batch)
        torch.manual_seed(1)
        objective(batch).backward()
        found[weight] = gradients(model, guide)
        assert objective.last is not None
    from pyro_nlp.distributions.labelled import seen_labels

    labels = seen_labels(batch, 0.5)
    assert labels is not None and 5 < int((labels >= 0).sum()) < 25
    logits = guide.classifier(guide.encoder(batch))
    loss = 2.0 * cross_entropy(logits, labels, ignore_index=-1, reduction="sum") / len(batch)
    torch.testing.assert_close(objective.last.auxiliary["KnownLabels"], loss.detach())
    loss.backward()
    alone = gradients(model, guide)
    assert "1.classifier.logits.weight" in alone and alone["1.encoder.words.weight"].any()
    for name, value in found[2.0].items():
        expected = found[0.0][name] + alone.get(name, torch.zeros(()))
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-6)


def test_known_labels_ignores_documents_without_one_and_evaluation() -> None:
    model, guide = m2()
    batch = some(12, unknown=12)
    objective = Strategy(discrete=Enumerate(), auxiliary=(KnownLabels(WEIGHT),)).compile(model, guide, batch)
    objective(batch)
    assert objective.last is not None and float(objective.last.auxiliary["KnownLabels"]) == 0
    objective.eval()
    objective(some())
    assert float(objective.last.auxiliary["KnownLabels"]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"auxiliary": (KnownLabels(site="y"),)}, "it reads the site 'y'; the latents are 'c', 'z'"),
        ({"supervision": 0.0}, "no label of 'c' is seen: set the guide's supervision above 0"),
    ],
)
def test_known_labels_says_why_it_cannot_be_used(change: dict[str, Any], message: str) -> None:
    model, guide = m2(change.pop("supervision", 0.5))
    strategy = replace(Strategy(discrete=Enumerate(), auxiliary=(KnownLabels(),)), **change)
    with pytest.raises(StructureError, match=f"KnownLabels: {message}"):
        strategy.compile(model, guide, some())


def test_known_labels_has_nothing_to_teach_where_the_class_is_summed_out() -> None:
    torch.manual_seed(0)
    model = SentenceMixture(VOCABULARY, CLASSES, CODE, decoder)
    guide = CategoricalGuide(VOCABULARY, CLASSES, pooled, supervision=0.5)
    with pytest.raises(StructureError, match="'c' is summed out in the model, and the guide learns nothing of it"):
        Strategy(discrete=Marginalize(), auxiliary=(KnownLabels(),)).compile(model, guide, some())


def test_naive_bayes_refuses_a_split_it_cannot_learn_from() -> None:
    model = NaiveBayes(VOCABULARY, 2)
    sentences = [[4, 5], [6]]
    with pytest.raises(ValueError, match="no document has a label; give a labelled split"):
        model.estimate(TextSplit.from_sentences(sentences))
    with pytest.raises(ValueError, match="found the label 2, expected less than the 2 classes"):
        model.estimate(TextSplit.from_sentences(sentences, np.array([0, 2])))


@pytest.mark.parametrize("unknown", [None, 20])
@pytest.mark.parametrize("name", ["LSTM", "naive Bayes"])
def test_a_classifier_does_not_train_where_no_label_is_known(name: str, unknown: int | None) -> None:
    corpus = Separable(train=20, unknown=unknown or 0)
    if unknown is None:
        corpus.train = TextSplit(corpus.train.flat, corpus.train.offsets)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"learns from labels alone, .* such as SST or LabelledLines"):
        fit(make(name), None, corpus, training=Training(epochs=1, device="cpu"))


@pytest.mark.parametrize(
    ("classes", "share", "keep", "message"),
    [
        (4, 1.0, (0, 1, 2), "CategoricalGuide has 4 classes, and Separable .separable. 3: set classes to 3"),
        (3, 1.0, (0, 2), "wants labels of 'label', and sees none of the class 'b' in the train split of Separable"),
        (3, 0.01, (0, 1, 2), "sees none of the class '.' .*: choose a corpus that has them, or more supervision"),
        (3, 1.0, (), "wants labels of 'label', and sees none at all in the train split"),
        (4, 0.0, (), None),
    ],
)
def test_classes_that_the_labels_of_a_corpus_cannot_teach_are_refused(
    classes: int, share: float, keep: tuple[int, ...], message: str | None
) -> None:
    corpus = Separable()
    assert isinstance(corpus.train, TextSplit) and corpus.train.labels is not None
    corpus.train.labels = np.where(np.isin(corpus.train.labels, keep), corpus.train.labels, -1)
    guide = CategoricalGuide(VOCABULARY, classes, encoder, share)
    with pytest.raises(ValueError, match=message) if message else nullcontext():
        guide.meet_corpus(corpus)
