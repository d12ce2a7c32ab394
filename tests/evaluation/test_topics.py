"""Topics, their words and their shares: every number by hand or by a loop."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pyro_nlp.data.counts import CountSplit
from pyro_nlp.data.vocabulary import WordList
from pyro_nlp.evaluation import (
    coherence_npmi,
    distinct_topics,
    redundancy,
    reference_for,
    retrieval_precision,
    theta,
    top_words,
    topic_diversity,
    topics_used,
)
from tests.evaluation.urn import WORDS, bags, dense, random_bags, urn

ROUNDING = 1e-5
"""Relative: float32 sums of some ten words."""


def topics_of(words: list[list[int]], vocabulary: int) -> np.ndarray:
    """Topics whose likeliest words are these, in this order."""
    topics = np.zeros((len(words), vocabulary))
    for row, ids in zip(topics, words, strict=True):
        row[ids] = np.arange(len(ids), 0, -1)
    return topics / topics.sum(1, keepdims=True)


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
