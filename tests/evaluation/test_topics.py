"""Evaluation of models of documents: every number by hand or by a loop, and a model whose answers are known."""

from __future__ import annotations

import argparse
import itertools
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from scipy import special
from torch import Tensor

from pyro_nlp import recipe as recipes
from pyro_nlp.commands.runs import evaluate_run
from pyro_nlp.data.batches import CountBatch
from pyro_nlp.data.counts import CountCorpus, CountSplit
from pyro_nlp.data.vocabulary import WordList
from pyro_nlp.distributions import BagOfWords
from pyro_nlp.evaluation import (
    NoDensityError,
    TopicCollapse,
    coherence_npmi,
    distinct_topics,
    document_completion,
    document_perplexity,
    elbo_terms,
    evaluate,
    evaluate_topics,
    importance_nll,
    linear_probe,
    perplexities,
    redundancy,
    reference_for,
    retrieval_precision,
    theta,
    top_words,
    topic_diversity,
    topics_used,
)
from pyro_nlp.evaluation.topics import reads_words
from pyro_nlp.guides.dirichlet import DirichletGuide
from pyro_nlp.guides.gaussian import GaussianGuide
from pyro_nlp.inference import fit
from pyro_nlp.models.etm import ETM
from pyro_nlp.models.gsm import GSB, GSM, RSB
from pyro_nlp.models.lda import LDA
from pyro_nlp.models.nvdm import NVDM
from pyro_nlp.models.prodlda import NVLDA, ProdLDA
from pyro_nlp.nn import CountEncoder
from tests.tiny import sharpen

ROUNDING = 1e-5
"""Relative: float32 sums of some ten words."""


def bags(documents: list[list[int]], vocabulary: int, labels: list[int] | None = None) -> CountSplit:
    """Documents by their words, one by one."""
    rows = np.repeat(np.arange(len(documents)), [len(words) for words in documents])
    words = np.array([word for document in documents for word in document], np.int64)
    return CountSplit.from_pairs(
        rows, words, None, len(documents), vocabulary, None if labels is None else np.array(labels)
    )


def random_bags(count: int, vocabulary: int, seed: int = 0, labels: bool = False) -> CountSplit:
    """Documents of 0 to 6 words, the first of none, the second of one."""
    rng = np.random.default_rng(seed)
    sizes = [0, 1, *rng.integers(2, 7, count - 2)]
    documents = [rng.integers(0, vocabulary, size).tolist() for size in sizes]
    return bags(documents, vocabulary, rng.integers(0, 3, count).tolist() if labels else None)


def topics_of(words: list[list[int]], vocabulary: int) -> np.ndarray:
    """Topics whose likeliest words are these, in this order."""
    topics = np.zeros((len(words), vocabulary))
    for row, ids in zip(topics, words, strict=True):
        row[ids] = np.arange(len(ids), 0, -1)
    return topics / topics.sum(1, keepdims=True)


# ---- a model whose answers are known ---------------------------------------------------------------------------------

WORDS = 3


class Urn(PyroModule):
    """p(theta) prod_v theta_v^n_v, theta ~ Dirichlet(a): each topic is a word, and all is in closed form."""

    plates = 1
    topics_count = WORDS

    def __init__(self, concentration: tuple[float, ...] = (0.5, 1.0, 2.0)) -> None:
        super().__init__()
        self.register_buffer("a", torch.tensor(concentration))

    def forward(self, batch: CountBatch) -> None:
        with batch.documents():
            theta = pyro.sample("theta", dist.Dirichlet(self.a))
            pyro.sample("x", BagOfWords(theta.log()), obs=batch.counts)

    def topics(self) -> Tensor:
        return torch.eye(WORDS)

    def proportions(self, latents: dict[str, Tensor]) -> Tensor:
        return latents["theta"]


class Exact(PyroModule):
    """Its posterior, Dirichlet(a + n)."""

    def __init__(self, model: Urn) -> None:
        super().__init__()
        self.register_buffer("a", model.a)

    def forward(self, batch: CountBatch) -> None:
        with batch.documents():
            pyro.sample("theta", dist.Dirichlet(self.a + batch.counts))


class Prior(Exact):
    """A guide that has learnt nothing."""

    def forward(self, batch: CountBatch) -> None:
        with batch.documents():
            pyro.sample("theta", dist.Dirichlet(self.a))


class Point(Exact):
    """The posterior mean, without a density."""

    def forward(self, batch: CountBatch) -> None:
        mean = self.a + batch.counts
        with batch.documents():
            pyro.sample("theta", dist.Delta(mean / mean.sum(-1, keepdim=True), event_dim=1))


class Own(PyroModule):
    """Parameters of its own for each document, as given."""

    def __init__(self, concentration: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("concentration", torch.from_numpy(concentration).float())

    def forward(self, batch: CountBatch) -> None:
        with batch.documents():
            pyro.sample("theta", dist.Dirichlet(self.concentration[batch.index]))


def urn() -> tuple[Urn, Exact]:
    model = Urn()
    return model, Exact(model)


def dense(split: CountSplit) -> np.ndarray:
    found: np.ndarray = split.batch(np.arange(len(split))).counts.double().numpy()
    return found


def log_beta(a: np.ndarray) -> np.ndarray:
    found: np.ndarray = special.gammaln(a).sum(-1) - special.gammaln(a.sum(-1))
    return found


class Small(CountCorpus):
    """Documents in memory."""

    def __init__(self, train: CountSplit, valid: CountSplit, test: CountSplit, words: int = WORDS) -> None:
        self.name, self.reference, self.vocabulary = "small", "made up", WordList(f"w{i}" for i in range(words))
        self.fill({"train": train, "valid": valid, "test": test})


def small(labels: bool = True) -> Small:
    return Small(*(random_bags(count, WORDS, seed, labels) for seed, count in enumerate((60, 20, 30))))


# ---- perplexity ------------------------------------------------------------------------------------------------------


def test_perplexity_per_corpus_and_per_document_are_by_hand_those_of_two_documents_and_an_empty_one() -> None:
    nll, sizes = np.array([4 * math.log(3), 7.0, math.log(48)]), np.array([4, 0, 1])
    corpus, per_document = perplexities(nll, sizes)
    assert corpus == pytest.approx((3**4 * 48) ** (1 / 5)) and per_document == pytest.approx(math.sqrt(3 * 48))


def test_the_four_perplexities_are_those_of_a_loop_over_documents() -> None:
    (model, guide), split = urn(), random_bags(25, WORDS)
    found = document_perplexity(model, guide, split, 40, seed=3)
    losses = (-elbo_terms(model, guide, split, seed=3).elbo, importance_nll(model, guide, split, 40, seed=3).nll)
    wanted = []
    for loss in losses:
        nats, words, rates = 0.0, 0, []
        for document in range(1, 25):
            size = int(split.sizes[document])
            nats, words = nats + loss[document], words + size
            rates.append(loss[document] / size)
        wanted += [math.exp(nats / words), math.exp(sum(rates) / len(rates))]
    assert [found.bound, found.bound_per_document, found.importance, found.importance_per_document] == pytest.approx(
        wanted, rel=1e-12
    )
    assert (found.samples, found.documents, found.empty) == (40, 24, 1)


def test_under_the_exact_posterior_the_weighted_perplexity_is_the_closed_form() -> None:
    (model, guide), split = urn(), random_bags(25, WORDS)
    found = document_perplexity(model, guide, split, 3)
    a = model.a.double().numpy()
    exact = log_beta(a) - log_beta(a + dense(split))
    assert found.importance == pytest.approx(math.exp(exact.sum() / split.tokens), rel=ROUNDING)


def test_a_likelihood_that_is_known_is_not_estimated_again() -> None:
    (model, guide), split = urn(), random_bags(9, WORDS)
    known = importance_nll(model, guide, split, 7)
    found = document_perplexity(model, guide, split, 500, likelihood=known)
    assert found == document_perplexity(model, guide, split, 7) and found.samples == 7


def test_perplexity_beyond_floats_is_infinite() -> None:
    assert perplexities(np.array([1e6]), np.array([1])) == (math.inf, math.inf)


@pytest.mark.parametrize(
    ("nll", "sizes", "message"), [([1.0], [1, 2], "1 losses and 2 sizes"), ([1.0, 2.0], [0, 0], "no document has")]
)
def test_losses_that_are_not_of_words_are_refused(nll: list[float], sizes: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        perplexities(np.array(nll), np.array(sizes))


# ---- completion ------------------------------------------------------------------------------------------------------


def test_completion_of_a_known_model_is_its_predictive_distribution() -> None:
    (model, guide), split, samples = urn(), random_bags(40, WORDS), 400
    found = document_completion(model, guide, split, 5, samples=samples)
    halves = split.halves(5)
    seen, held_out = dense(halves.seen), dense(halves.held_out)
    posterior = model.a.double().numpy() + seen
    tokens = held_out.sum()
    # theta at its posterior mean
    plug_in = -(held_out * np.log(posterior / posterior.sum(-1, keepdims=True))).sum(-1)
    assert found.plug_in == pytest.approx(math.exp(plug_in.sum() / tokens), rel=ROUNDING)
    per_document = np.mean(plug_in / held_out.sum(-1))
    assert found.plug_in_per_document == pytest.approx(math.exp(per_document), rel=ROUNDING)
    # the Polya urn; draws of the exact posterior all have the same weight, and the variance of p(x2 | theta) is known
    evidence = log_beta(posterior + held_out) - log_beta(posterior)
    square = log_beta(posterior + 2 * held_out) - log_beta(posterior)
    variance = np.expm1(square - 2 * evidence) / samples
    error = math.sqrt(variance.sum()) / tokens + variance.sum() / 2 / tokens  # delta method, and its bias
    assert found.importance is not None
    assert math.log(found.importance) == pytest.approx(-evidence.sum() / tokens, abs=4 * error)
    assert (found.samples, found.documents, found.excluded) == (samples, 38, 2)


def test_weighted_completion_comes_to_the_same_with_a_guide_that_has_learnt_nothing() -> None:
    model, split, samples = urn()[0], random_bags(40, WORDS), 4000
    found = document_completion(model, Prior(model), split, 5, samples=samples)
    halves = split.halves(5)
    a, seen, held_out = model.a.double().numpy(), dense(halves.seen), dense(halves.held_out)
    # the log of a ratio of means over draws of the prior: its variance is at most twice the sum of theirs, relative
    one, both = a + seen, a + seen + held_out
    relative = [np.expm1(log_beta(2 * c - a) + log_beta(a) - 2 * log_beta(c)) / samples for c in (one, both)]
    error = math.sqrt(2 * np.sum(relative)) / held_out.sum()
    wanted = (log_beta(one) - log_beta(both)).sum() / held_out.sum()
    assert found.importance is not None and math.log(found.importance) == pytest.approx(wanted, abs=4 * error)
    plug_in = -(held_out * np.log(a / a.sum())).sum() / held_out.sum()
    assert math.log(found.plug_in) == pytest.approx(plug_in, rel=ROUNDING)


def test_a_point_guide_completes_by_its_point_only() -> None:
    model, guide = urn()
    split = random_bags(12, WORDS)
    found, exact = (document_completion(model, g, split, samples=3) for g in (Point(model), guide))
    assert found.importance is None and found.importance_per_document is None
    assert found.plug_in == pytest.approx(exact.plug_in, rel=ROUNDING)


def test_parameters_of_each_document_that_may_know_its_second_half_are_refused() -> None:
    model, split = urn()[0], random_bags(12, WORDS)
    a, halves = model.a.numpy(), split.halves(0)
    with pytest.raises(ValueError, match="Own has parameters of its own for each document"):
        document_completion(model, Own(a + dense(split)), split)
    fitted = Own(a + dense(halves.seen))
    found = document_completion(model, fitted, split, samples=50, own_parameters=True)
    assert found.plug_in == document_completion(model, Exact(model), split, samples=50).plug_in


def test_a_guide_that_answers_every_document_alike_is_collapsed_but_not_one_of_parameters_for_each() -> None:
    model, split = urn()[0], random_bags(9, WORDS)
    assert reads_words(model, Prior(model), split) and reads_words(model, Exact(model), split)
    assert not reads_words(model, Own(dense(split) + 1), split)


def test_documents_of_one_word_cannot_be_completed() -> None:
    with pytest.raises(ValueError, match="no document has two words"):
        document_completion(*urn(), bags([[0], [], [2]], WORDS))


# ---- topics and their words ------------------------------------------------------------------------------------------


def test_top_words_are_the_likeliest_and_equals_go_by_id() -> None:
    topics = torch.tensor([[0.1, 0.4, 0.1, 0.4], [0.7, 0.0, 0.2, 0.1]])
    assert top_words(topics, 3).tolist() == [[1, 3, 0], [0, 2, 3]]


REFERENCE = bags([[0, 1, 1], [1, 0], [], [0, 2, 0], [3]], 5)
"""Of the four that have words, word 0 is in three, 1 in two, 2 and 3 in one, 4 in none."""


@pytest.mark.parametrize(
    ("pair", "epsilon", "npmi"),
    [
        ([0, 1], 0.0, math.log(0.5 / (0.75 * 0.5)) / -math.log(0.5)),
        ([2, 0], 0.0, math.log(0.25 / (0.25 * 0.75)) / -math.log(0.25)),
        ([0, 3], 0.0, -1.0),
        ([0, 3], 1e-12, math.log(1e-12 / (0.75 * 0.25)) / -math.log(1e-12)),
        ([0, 4], 1e-12, -1.0),
        ([0, 4], 0.0, -1.0),
    ],
)
def test_npmi_of_a_pair_is_that_by_hand(pair: list[int], epsilon: float, npmi: float) -> None:
    found = coherence_npmi(topics_of([pair], 5), REFERENCE, 2, epsilon=epsilon)
    assert found.topics[0] == pytest.approx(npmi, abs=1e-9)
    assert found.documents == 4 and found.absent == (4 in pair)


def test_npmi_of_a_topic_is_the_mean_over_its_pairs_and_of_all_topics_over_them() -> None:
    pairs = {pair: coherence_npmi(topics_of([[*pair]], 5), REFERENCE, 2).mean for pair in ((0, 1), (0, 2), (1, 2))}
    found = coherence_npmi(topics_of([[1, 0, 2], [0, 1, 3]], 5), REFERENCE, 3)
    assert found.topics[0] == pytest.approx(sum(pairs.values()) / 3)
    assert found.mean == pytest.approx(found.topics.sum() / 2) and found.topics.shape == (2,)


def test_a_word_in_no_document_is_left_out_and_counted() -> None:
    found = coherence_npmi(topics_of([[4, 0, 1], [0, 1, 2]], 5), REFERENCE, 3)
    assert found.topics[0] == coherence_npmi(topics_of([[0, 1]], 5), REFERENCE, 2).mean
    assert found.absent == 1


def test_another_corpus_is_a_reference_in_the_words_that_are_spelt_the_same() -> None:
    own, words = WordList(["b", "x", "a", "c"]), WordList(["a", "b", "c", "d", "e"])
    found = reference_for(own, REFERENCE, words)
    np.testing.assert_array_equal(dense(found), dense(REFERENCE)[:, [1, 4, 0, 2]])  # no document has an e, nor an x
    # the same three words, in the documents that have one of them
    without = bags([[0, 1, 1], [1, 0], [0, 2, 0]], 5)
    wanted = coherence_npmi(topics_of([[1, 0, 2]], 5), without, 3)
    got = coherence_npmi(topics_of([[0, 2, 3, 1]], 4), found, 4)
    assert got.mean == pytest.approx(wanted.mean) and (got.documents, got.absent) == (3, 1)


def test_a_word_in_every_document_says_nothing_of_any_other() -> None:
    everywhere = bags([[0, 1, 2], [0, 1], [1, 0, 3]], 5)
    assert coherence_npmi(topics_of([[0, 1]], 5), everywhere, 2).mean == 0
    assert coherence_npmi(topics_of([[0, 2]], 5), everywhere, 2).mean == pytest.approx(0, abs=1e-11)


def test_npmi_is_that_of_a_loop_over_documents() -> None:
    split = random_bags(60, 12, 1)
    topics = np.random.default_rng(2).random((5, 12))
    found = coherence_npmi(topics, split, 4)
    documents = [set(np.flatnonzero(row)) for row in dense(split)][1:]
    for topic, words in enumerate(top_words(topics, 4)):
        values = []
        for a, b in itertools.permutations(words, 2):
            p_a, p_b, p_ab = (sum(s <= d for d in documents) / len(documents) for s in ({a}, {b}, {a, b}))
            values.append(math.log((p_ab + 1e-12) / (p_a * p_b)) / -math.log(p_ab + 1e-12))
        assert found.topics[topic] == pytest.approx(np.mean(values), rel=1e-9)


def test_npmi_is_that_of_gensim() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = pytest.importorskip("gensim.models", reason="gensim is not installed: NPMI is NOT COMPARED WITH IT")
        dictionary = pytest.importorskip("gensim.corpora")
    split, rng = random_bags(300, 40, 1).recode(np.arange(40), 41), np.random.default_rng(2)
    kept = split.take(np.flatnonzero(split.sizes))
    names = np.array([f"w{word}" for word in range(41)])
    texts = [names[np.repeat(np.arange(41), row.astype(int))].tolist() for row in dense(kept)]
    topics = rng.random((6, 41))
    topics[:2, 40] = 1.0  # a word that is in no document
    oracle = models.CoherenceModel(
        topics=[names[words].tolist() for words in top_words(topics, 10)],
        texts=texts,
        dictionary=dictionary.Dictionary(texts),
        coherence="c_npmi",
        window_size=int(split.sizes.max()),
        processes=1,
    )
    found = coherence_npmi(topics, split, 10)
    assert found.absent == (top_words(topics, 10) == 40).sum() > 1
    np.testing.assert_allclose(found.topics, oracle.get_coherence_per_topic(), rtol=1e-9)


THREE = topics_of([[0, 1, 2, 3], [1, 0, 4, 5], [6, 7, 8, 9]], 10)


def test_diversity_is_the_share_of_different_words() -> None:
    assert topic_diversity(THREE, 4) == pytest.approx(10 / 12)
    assert topic_diversity(np.repeat(THREE[:1], 4, 0), 4) == 1 / 4
    assert topic_diversity(THREE[[0, 2]], 4) == 1


def test_redundancy_is_the_share_of_other_topics_with_the_same_words() -> None:
    # two of topic 0's four words are in one of the two others
    assert redundancy(THREE, 4).tolist() == [0.25, 0.25, 0.0]
    assert redundancy(np.repeat(THREE[:1], 4, 0), 4).tolist() == [1.0] * 4
    assert redundancy(THREE[:1], 4).tolist() == [0.0]


def test_near_duplicates_count_once_and_so_do_those_near_the_same_third() -> None:
    assert distinct_topics(THREE, 4) == 2  # half the words of the first two are the same
    assert distinct_topics(THREE, 4, overlap=0.6) == 3
    chain = topics_of([[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]], 10)
    assert distinct_topics(chain, 4) == 1 and distinct_topics(chain[[0, 2]], 4) == 2


def test_topics_in_use_are_those_that_are_largest_somewhere() -> None:
    found = topics_used(np.array([[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.1, 0.8, 0.1], [0.4, 0.3, 0.3]]))
    assert found.largest.tolist() == [0.75, 0.25, 0.0] and found.used == 2
    mean = np.array([1.6, 1.8, 0.6]) / 4
    assert found.mean == pytest.approx(mean)
    assert found.effective == pytest.approx(math.exp(-sum(p * math.log(p) for p in mean)))
    assert topics_used(np.full((5, 4), 0.25)).used == 1  # the same shares in every document
    assert topics_used(np.eye(4)).effective == pytest.approx(4)


METRICS: dict[str, Callable[[np.ndarray, CountSplit], Any]] = {
    "NPMI": lambda topics, split: sorted(coherence_npmi(topics, split, 5).topics),
    "diversity": lambda topics, _: topic_diversity(topics, 5),
    "redundancy": lambda topics, _: sorted(redundancy(topics, 5)),
    "distinct": lambda topics, _: distinct_topics(topics, 5),
}


@pytest.mark.parametrize("metric", METRICS)
def test_the_order_of_topics_words_and_documents_does_not_matter(metric: str) -> None:
    rng, split = np.random.default_rng(3), random_bags(80, 12, 1)
    topics = rng.random((6, 12))
    topics[3] = topics[2] + 0.1 * rng.random(12)
    wanted = METRICS[metric](topics, split)
    place = rng.permutation(12)  # word v becomes word place[v]
    moved = np.empty_like(topics)
    moved[:, place] = topics
    for other in (
        METRICS[metric](topics[rng.permutation(6)], split),
        METRICS[metric](topics, split.take(rng.permutation(80))),
        METRICS[metric](moved, split.recode(place, 12)),
    ):
        assert other == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        (lambda: topic_diversity(THREE, 11), "the top 11 words of a topic, from a vocabulary of 10"),
        (lambda: redundancy(THREE, 0), "the top 0 words"),
        (lambda: distinct_topics(THREE.T, 2), "10 topics of 3 words: topics are \\[K, V\\]"),
        (lambda: top_words(THREE[0], 2), "a matrix \\[K, V\\] of finite numbers, not \\(10,\\)"),
        (lambda: top_words(np.full((2, 5), np.nan), 2), "finite numbers"),
        (lambda: coherence_npmi(THREE, REFERENCE, 2), "topics have 10 words and the reference 5"),
        (lambda: coherence_npmi(THREE, bags([[], []], 10), 2), "no document of the reference has a word"),
        (lambda: coherence_npmi(THREE, REFERENCE, 1), "pairs of words: top is at least 2"),
        (lambda: topics_used(np.zeros((0, 3))), "there must be a document"),
    ],
    ids=itertools.count(),
)
def test_what_is_no_topic_model_s_ends_in_one_clear_error(judge: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        judge()


# ---- shares of topics ------------------------------------------------------------------------------------------------


def test_theta_is_the_posterior_mean_in_the_order_of_the_corpus() -> None:
    (model, guide), split = urn(), random_bags(30, WORDS)
    found = theta(model, guide, split, batch_size=7)
    wanted = model.a.double().numpy() + dense(split)
    np.testing.assert_allclose(found, wanted / wanted.sum(-1, keepdims=True), rtol=ROUNDING)


def test_theta_by_draws_is_the_same_for_a_dirichlet_but_for_noise() -> None:
    (model, guide), split, draws = urn(), random_bags(30, WORDS), 2000
    mean, drawn = theta(model, guide, split), theta(model, guide, split, draws=draws)
    total = model.a.sum().item() + split.sizes[:, None]
    error = np.sqrt(mean * (1 - mean) / (total + 1) / draws)
    assert (np.abs(drawn - mean) < 5 * error).all()  # 90 numbers


def test_what_has_no_topics_has_no_theta() -> None:
    with pytest.raises(ValueError, match="Linear is no topic model"):
        theta(torch.nn.Linear(1, 1), urn()[1], random_bags(5, WORDS))


def test_retrieval_by_hand() -> None:
    train = np.array([[1.0, 0.0], [0.9, 0.1], [0.1, 0.9], [0.0, 1.0], [0.5, 0.5]])
    labels, test = np.array([0, 1, 1, 1, -1]), np.array([[0.95, 0.05], [0.05, 0.95], [0.6, 0.4]])
    found = retrieval_precision(train, labels, test, np.array([0, 1, -1]), at=(0.0002, 0.5, 1.0))
    # of four labelled documents the nearest, the nearest two, all; the first query's nearest are 0 and 1
    assert found.retrieved == (1, 2, 4) and found.queries == 2
    assert found.precision[1:] == pytest.approx(((0.5 + 1) / 2, (0.25 + 0.75) / 2))
    assert found.chance == pytest.approx((0.25 + 0.75) / 2) and found.chance == pytest.approx(found.precision[-1])


def test_retrieval_is_that_of_a_loop_over_queries() -> None:
    rng = np.random.default_rng(0)
    train, test = rng.dirichlet(np.full(4, 0.3), 50), rng.dirichlet(np.full(4, 0.3), 21)
    labels, wanted = rng.integers(-1, 3, 50), rng.integers(0, 3, 21)
    found = retrieval_precision(train, labels, test, wanted, at=(0.1, 0.4), chunk=4)
    known = np.flatnonzero(labels >= 0)
    for count, precision in zip(found.retrieved, found.precision, strict=True):
        values = []
        for query, label in zip(test, wanted, strict=True):
            cosine = train[known] @ query / np.linalg.norm(train[known], axis=1)
            values.append((labels[known[np.argsort(-cosine)[:count]]] == label).mean())
        assert precision == pytest.approx(np.mean(values), rel=1e-12)


@pytest.mark.parametrize(
    ("labels", "wanted", "at", "message"),
    [
        ([0, 1], [-1], (0.1,), "no test document has a label"),
        ([-1, -1], [0], (0.1,), "no train document has a label"),
        ([0], [0], (0.1,), "2 train documents and 1 labels"),
        ([0, 1], [0], (0.0,), "above 0 and at most 1"),
        ([0, 1], [0], (), "above 0 and at most 1"),
    ],
)
def test_retrieval_without_labels_is_refused(labels: Any, wanted: Any, at: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        retrieval_precision(np.eye(2), np.array(labels), np.eye(2)[:1], np.array(wanted), at)


# ---- everything ------------------------------------------------------------------------------------------------------


def test_every_measure_of_the_table_is_what_its_own_function_gives() -> None:
    (model, guide), corpus = urn(), small()
    found = evaluate_topics(model, guide, corpus, samples=10, seed=4, top=2)
    assert found.perplexity == document_perplexity(model, guide, corpus.test, 10, seed=4)
    assert found.completion == document_completion(model, guide, corpus.test, 4, samples=2)
    assert found.coherence.mean == coherence_npmi(model.topics(), corpus.train, 2).mean
    assert found.diversity == (topic_diversity(model.topics(), WORDS), WORDS)
    shares, of_train = (theta(model, guide, split) for split in (corpus.test, corpus.train))
    assert found.use.largest.tolist() == topics_used(shares[corpus.test.sizes > 0]).largest.tolist()
    by_labels = of_train, corpus.train.labels, shares, corpus.test.labels
    assert found.probe == linear_probe(*by_labels) and found.retrieval == retrieval_precision(*by_labels)
    assert found.collapse.kl == elbo_terms(model, guide, corpus.test, seed=4).kl["theta"].mean()
    assert found.collapse.distinct == distinct_topics(model.topics(), 2)
    assert found.words[1] == ("w1", "w0")


@pytest.mark.parametrize("kind", [NVDM, GSM, GSB, RSB, ProdLDA, NVLDA, ETM, LDA], ids=lambda kind: kind.__name__)
def test_every_topic_model_of_the_zoo_is_judged(kind: Any) -> None:
    corpus = small()
    guide = DirichletGuide if kind is LDA else GaussianGuide
    model, guide = sharpen(kind(WORDS, 2)), sharpen(guide(WORDS, 2, partial(CountEncoder, width=4)))
    shares = theta(model, guide, corpus.test)
    np.testing.assert_allclose(shares.sum(1), 1, rtol=ROUNDING)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = evaluate_topics(model, guide, corpus, samples=5)
    assert found.as_dict() == evaluate_topics(model, guide, corpus, samples=5).as_dict()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert found.perplexity is not None and found.completion is not None and found.probe is not None
    assert found.perplexity.documents == 29 and found.coherence.topics.shape == (2,)


def test_another_reference_is_counted_in_its_place() -> None:
    (model, guide), corpus = urn(), small()
    found = evaluate_topics(model, guide, corpus, samples=2, top=2, reference=corpus.valid)
    assert found.coherence.mean == coherence_npmi(model.topics(), corpus.valid, 2).mean
    assert found.coherence.documents == 19


def test_the_table_prints_every_row_and_is_json() -> None:
    found = evaluate_topics(*urn(), small(), samples=10)
    rows = found.rows()
    assert found.table("title").row_count == len(rows) and rows["topics"] == found.verdict
    assert rows["empty documents left out"] == "1" and rows["documents too short to complete"] == "2"
    assert f"NPMI of the top {WORDS}" in rows and "precision of 1 % retrieved (1)" in rows
    again = json.loads(json.dumps(found.as_dict()))
    assert found.perplexity is not None and again["perplexity"]["bound"] == found.perplexity.bound
    assert again["coherence"]["mean"] == found.coherence.mean and len(again["words"]) == WORDS
    assert again["verdict"] == found.verdict


@pytest.mark.parametrize("how", ["none", "unknown", "one class", "the train split"])
def test_without_labels_to_tell_apart_there_is_neither_probe_nor_retrieval(how: str) -> None:
    corpus = small(labels=how != "none")
    if how == "unknown":
        corpus.test.labels = np.full(len(corpus.test), -1)
    if how == "one class":
        corpus.train.labels = np.zeros(len(corpus.train), np.int64)
    found = evaluate_topics(*urn(), corpus, "train" if how == "the train split" else "test", samples=2)
    assert found.probe is None and found.retrieval is None
    assert not any("probe" in row or "retrieved" in row for row in found.rows())


def test_a_point_guide_has_no_perplexity_and_a_guide_for_each_document_no_completion() -> None:
    (model, _), corpus = urn(), small()
    point = evaluate_topics(model, Point(model), corpus, samples=2)
    assert point.perplexity is None and point.completion is not None and point.completion.importance is None
    with pytest.raises(NoDensityError):
        document_perplexity(model, Point(model), corpus.test, 2)
    own = evaluate_topics(model, Own(model.a.numpy() + dense(corpus.test)), corpus, samples=2)
    assert own.completion is None and own.probe is None and own.perplexity is not None
    for found in (point, own):
        assert found.rows() and json.dumps(found.as_dict())


def test_documents_too_short_to_complete_are_judged_without_completion() -> None:
    (model, guide), corpus = urn(), small()
    corpus.test = bags([[0], [], [2]], WORDS)
    found = evaluate_topics(model, guide, corpus, samples=2)
    assert found.completion is None and found.perplexity is not None and found.perplexity.empty == 1


def test_a_corpus_of_another_vocabulary_is_refused() -> None:
    corpus = small()
    corpus.vocabulary = WordList(["a", "b"])
    with pytest.raises(ValueError, match="the model has 3 words and small 2"):
        evaluate_topics(*urn(), corpus, samples=2)


HEALTHY = TopicCollapse(kl=20.0, active=50, units=50, topics=50, distinct=45, used=25, redundancy=0.02)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({}, "in use: 45 of 50 topics distinct, 25 the largest of some document"),
        ({"kl": 0.05}, "collapsed, all documents have the same topics: "),
        ({"distinct": 44}, "components collapsed, topics are repeated: 44 of 50"),
        ({"used": 24}, "components collapsed, topics are idle: "),
        ({"used": 3, "distinct": 9}, "components collapsed, topics are repeated and idle: "),
    ],
)
def test_collapse_of_posterior_and_of_components_is_told_with_its_evidence(changes: Any, says: str) -> None:
    found = replace(HEALTHY, **changes)
    assert found.verdict.startswith(says)
    assert found.verdict.endswith(f"redundancy 0.02, KL {found.kl:.2f} nats, 50 of 50 units active")
    assert found.components == bool({"used", "distinct"} & changes.keys()) and found.posterior == ("kl" in changes)


def test_a_guide_that_has_learnt_nothing_is_collapsed() -> None:
    model = Urn()
    found = evaluate_topics(model, Prior(model), small(), samples=2)
    assert found.collapse.posterior and found.verdict.startswith("collapsed, all documents have the same topics")


# ---- the common table ------------------------------------------------------------------------------------------------


def test_the_common_table_counts_tokens_of_bags_without_ends_of_sentence_and_has_both_perplexities() -> None:
    (model, guide), split = urn(), random_bags(25, WORDS)
    found, four = evaluate(model, guide, split, samples=30), document_perplexity(model, guide, split, 30)
    assert found.tokens == split.tokens == split.sizes.sum()
    assert (found.perplexity, found.perplexity_per_document) == (four.importance, four.importance_per_document)
    rows = found.rows()
    assert rows["tokens"] == f"{split.tokens}" and "tokens (ends of sentence counted)" not in rows
    assert rows["perplexity, mean over documents"] == f"{four.importance_per_document:.2f}"


def test_bags_without_any_word_have_no_perplexity() -> None:
    found = evaluate(*urn(), bags([[], []], WORDS), samples=3)
    assert found.perplexity is None and found.perplexity_per_document is None and "tokens" not in found.rows()


RECIPE = """
model: {class_path: LDA, init_args: {latent: 2}}
guide: {class_path: DirichletGuide, init_args: {encoder: {class_path: CountEncoder, init_args: {width: 4}}}}
corpus: {class_path: TextDocuments, init_args: {path: %s, max_document_share: 1.0}}
training: {epochs: 1, batch_size: 32}
"""


def test_the_command_prints_both_tables_and_both_are_in_its_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    words = np.array(["ape", "bee", "cat", "dog", "eel"])
    lines = [" ".join(words[rng.integers(0, 5, rng.integers(2, 9))]) for _ in range(200)]
    (tmp_path / "my.txt").write_text("\n".join(lines), "utf-8")
    (tmp_path / "my.yaml").write_text(RECIPE % (tmp_path / "my.txt"), "utf-8")
    loaded, run = recipes.load(str(tmp_path / "my.yaml"), []), tmp_path / "run"
    fit(loaded.model, loaded.guide, loaded.corpus, loaded.strategy, loaded.training, out=run, recipe=loaded.text)
    capsys.readouterr()
    options = argparse.Namespace(run_folder=run, split="test", samples=5, seed=0, precision="float32", json=False)
    options.judge, options.fluency = [], None
    evaluate_run(options, ())
    printed = capsys.readouterr().out
    for row in ("tokens", "perplexity, mean over documents", "topics, test split", "NPMI of the top 5", "distinct"):
        assert row in printed
    options.json = True
    evaluate_run(options, ())
    found = json.loads(capsys.readouterr().out)
    assert found["topics"]["perplexity"]["importance"] == found["perplexity"]
    assert found["topics"]["verdict"] and not found["ends_counted"]
