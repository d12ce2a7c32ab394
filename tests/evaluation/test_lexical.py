"""Baselines by shared words: against plain loops, scikit-learn, and published numbers."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyro_nlp.data import UNK, PairSplit, TextSplit, TrecQA, Vocabulary, WikiQA
from pyro_nlp.evaluation import bm25, fit_logistic, overlap_features, rank_questions, stop_words, tf_idf
from pyro_nlp.evaluation.lexical import DocumentFrequencies

try:
    from sklearn.feature_extraction.text import TfidfVectorizer  # sets environment variables, so here and not in a test
    from sklearn.linear_model import LogisticRegression
except ImportError:
    TfidfVectorizer = None
WITH_SCIKIT = pytest.mark.skipif(TfidfVectorizer is None, reason="scikit-learn is not installed: NOT COMPARED WITH IT")


def split(questions: int, pairs: int, seed: int = 0, vocabulary: int = 25) -> PairSplit:
    """Random pairs with repeated words, unknown words on both sides, and empty texts."""
    rng = np.random.default_rng(seed)

    def texts(count: int, longest: int) -> TextSplit:
        return TextSplit.from_sentences([rng.integers(UNK, vocabulary, rng.integers(0, longest)) for _ in range(count)])

    group = np.append(np.arange(questions), rng.integers(questions, size=pairs - questions))
    return PairSplit(texts(questions, 9), texts(pairs, 20), rng.permutation(group), rng.integers(0, 2, pairs))


def documents(reference: PairSplit) -> tuple[Counter[int], int, float]:
    """Document frequencies, number and mean length, by plain loops."""
    texts = [reference.second.words(row) for row in range(len(reference))]
    frequencies = Counter(word for text in texts for word in set(text))
    return frequencies, len(texts), sum(map(len, texts)) / len(texts)


def sides(pairs: PairSplit) -> list[tuple[list[int], list[int]]]:
    """Question and answer of every pair, unknown words left out, and the answer with them."""
    return [(pairs.first.words(int(g)), pairs.second.words(i)) for i, g in enumerate(pairs.group)]


TEST, TRAIN = split(12, 50), split(8, 70, seed=1, vocabulary=22)
"""TEST has words that TRAIN does not have."""


@pytest.mark.parametrize("reference", [TRAIN, TEST])
@pytest.mark.parametrize("options", [{}, {"k1": 0.0}, {"k1": 2.0, "b": 0.0}])
def test_bm25_is_the_sum_over_the_words_of_the_question(reference: PairSplit, options: dict[str, float]) -> None:
    frequencies, count, mean = documents(reference)
    k1, b = options.get("k1", 1.2), options.get("b", 0.75)
    wanted = []
    for question, answer in sides(TEST):
        score = 0.0
        for word in question:
            f = answer.count(word)
            if word > UNK and f:
                n = frequencies[word]
                idf = math.log(1 + (count - n + 0.5) / (n + 0.5))
                score += idf * f * (k1 + 1) / (f + k1 * (1 - b + b * len(answer) / mean))
        wanted.append(score)
    found = bm25(TEST, reference, **options)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    assert (found > 0).any() and (found == 0).any()


@pytest.mark.parametrize("reference", [TRAIN, TEST])
def test_tf_idf_is_a_cosine(reference: PairSplit) -> None:
    frequencies, count, _ = documents(reference)
    wanted = []
    for pair in sides(TEST):
        vectors = [
            {w: c * (math.log((1 + count) / (1 + frequencies[w])) + 1) for w, c in Counter(text).items() if w > UNK}
            for text in pair
        ]
        norms = [math.sqrt(sum(v * v for v in vector.values())) for vector in vectors]
        inner = sum(value * vectors[1].get(word, 0.0) for word, value in vectors[0].items())
        wanted.append(inner / (norms[0] * norms[1]) if all(norms) else 0.0)
    np.testing.assert_allclose(tf_idf(TEST, reference), wanted, rtol=1e-12)
    assert max(wanted) <= 1


@WITH_SCIKIT
def test_tf_idf_is_that_of_scikit_learn() -> None:
    pairs = sides(TEST)
    known = [str(word) for word in range(UNK + 1, 25)]
    vectors = TfidfVectorizer(analyzer=lambda words: [str(w) for w in words], vocabulary=known)
    vectors.fit([answer for _, answer in pairs])
    asked, answered = (vectors.transform([pair[i] for pair in pairs]) for i in (0, 1))
    np.testing.assert_allclose(tf_idf(TEST, TEST), np.asarray(asked.multiply(answered).sum(1)).ravel(), atol=1e-12)


@pytest.mark.parametrize("left_out", [(), (5, 9, 300)])
def test_overlap_counts_different_words_and_weighs_them(left_out: tuple[int, ...]) -> None:
    frequencies, count, _ = documents(TRAIN)
    idf = {w: math.log(1 + (count - frequencies[w] + 0.5) / (frequencies[w] + 0.5)) for w in range(25)}
    wanted = []
    for question, answer in sides(TEST):
        asked = {w for w in question if w > UNK and w not in left_out}
        shared = asked & set(answer)
        weight, whole = sum(idf[w] for w in shared), sum(idf[w] for w in asked)
        share = (len(shared) / len(asked), weight / whole) if asked else (0.0, 0.0)
        wanted.append([len(shared), share[0], weight, share[1]])
    found = overlap_features(TEST, TRAIN, left_out)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    assert found.shape == (50, 4) and (found[:, 1] <= 1).all()


def test_unknown_words_and_special_symbols_never_match() -> None:
    texts = TextSplit.from_sentences([[0, 1, 2, UNK]])
    pair = PairSplit(texts, texts, np.array([0]), np.array([1]))
    assert bm25(pair, pair) == tf_idf(pair, pair) == 0 and not overlap_features(pair, pair).any()
    assert DocumentFrequencies.of(pair).mean_length == 4  # they are words of their document all the same


def test_a_word_that_the_reference_lacks_is_the_rarest() -> None:
    idf = DocumentFrequencies.of(TRAIN).idf(25)
    assert idf[24] == idf.max() == math.log(1 + 70.5 / 0.5) and (idf > 0).all()


def test_stop_words_are_function_words_marks_and_what_tokenisers_cut_off() -> None:
    words = ["the", "?", "what", "n't", "'s", "1997", "paris", "--", "u.s.", "''"]
    found = stop_words(Vocabulary(words))
    assert {Vocabulary(words).words[i] for i in found if i > UNK} == {"the", "?", "what", "n't", "'s", "--", "''"}


# ---- joined by logistic regression -----------------------------------------------------------------------------------


def regression(count: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, 4)) * [1.0, 100.0, 0.01, 3.0] + [0.0, 1000.0, 5.0, -2.0]
    logit = x[:, 0] + 0.01 * (x[:, 1] - 1000) - 1
    return x, (rng.random(count) < 1 / (1 + np.exp(-logit))).astype(int)


@WITH_SCIKIT
@pytest.mark.parametrize("l2", [0.01, 1.0, 100.0])
def test_weights_are_those_of_scikit_learn(l2: float) -> None:
    x, y = regression()
    found = fit_logistic(x, y, l2=l2)
    standard = (x - x.mean(0)) / x.std(0)
    wanted = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=10_000).fit(standard, y)
    np.testing.assert_allclose(found.weights, wanted.coef_[0], atol=1e-4)
    assert found.bias == pytest.approx(wanted.intercept_[0], abs=1e-4)
    np.testing.assert_allclose(found.probability(x), wanted.predict_proba(standard)[:, 1], atol=1e-4)


def test_the_gradient_is_zero_at_the_weights_that_are_found() -> None:
    x, y = regression()
    found = fit_logistic(x, y, l2=2.0)
    off = found.probability(x) - y
    standard = (x - found.centre) / found.spread
    np.testing.assert_allclose(off @ standard + 2.0 * found.weights, 0, atol=1e-5)
    assert abs(off.sum()) < 1e-5
    again = fit_logistic(x, y, l2=2.0)
    assert again.weights.tobytes() == found.weights.tobytes() and again.bias == found.bias


def test_a_constant_feature_and_pairs_without_label_change_nothing() -> None:
    x, y = regression()
    more = np.column_stack([np.full(len(x), 0.1), x])
    found, wanted = fit_logistic(more, y), fit_logistic(x, y)
    assert found.weights[0] == 0 and found.spread[0] == 1
    np.testing.assert_allclose(found.logit(more), wanted.logit(x), atol=1e-6)
    unknown = fit_logistic(np.vstack([x, 9 * x[:3]]), np.append(y, [-1, -1, -1]))
    np.testing.assert_array_equal(unknown.weights, wanted.weights)


def test_classes_that_can_be_separated_have_finite_weights() -> None:
    found = fit_logistic(np.arange(10.0)[:, None], np.arange(10) > 4, l2=1e-6)
    assert 10 < found.weights[0] < 1e4 and np.array_equal(found.logit(np.arange(10.0)[:, None]) > 0, np.arange(10) > 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bm25(TEST, TRAIN, k1=-1.0), "^k1 is -1.0 and b 0.75; k1 is at least 0, and b 0 to 1$"),
        (lambda: tf_idf(TEST, TRAIN.take(np.zeros(0, int))), "^the reference has no pairs"),
        (lambda: fit_logistic(np.ones((3, 2)), [1, 0]), r"^features \(3, 2\) and labels \(2,\): give features"),
        (lambda: fit_logistic([[1.0], [math.nan]], [1, 0]), "^feature 0 of pair 1 is nan: features must be finite$"),
        (lambda: fit_logistic([[1.0], [2.0]], [1, 5]), r"^labels are \[1, 5\]: give 1 for right"),
        (lambda: fit_logistic([[1.0], [2.0]], [1, 1]), "^2 right and 0 wrong pairs: there must be both"),
        (lambda: fit_logistic([[1.0], [2.0]], [0, 1], l2=0.0), "^l2 is 0.0; it must be above 0"),
        (lambda: fit_logistic(*regression()).logit(np.ones((2, 3))), r"^features are \[N, 4\], not \(2, 3\)$"),
    ],
)
def test_what_cannot_be_joined_is_refused_in_a_line(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# ---- published corpora -----------------------------------------------------------------------------------------------


def told(name: str, scores: np.ndarray, pairs: PairSplit) -> tuple[float, float]:
    assert pairs.labels is not None
    found = rank_questions(scores, pairs.labels, pairs.group)
    print(f"{name}: {found.map:.4f}/{found.mrr:.4f}, {found.rows()}")
    return found.map, found.mrr


def test_bm25_on_trec_qa_is_near_the_published_number(corpora: Path) -> None:
    """brmson/dataset-sts has MAP .630 on the raw test set, with other tokens."""
    corpus = TrecQA(str(corpora / "trecqa"))
    assert told("trecqa raw, bm25", bm25(corpus.test, corpus.train), corpus.test) == pytest.approx(
        (0.633, 0.717), abs=0.005
    )
    assert told("trecqa raw, tf-idf", tf_idf(corpus.test, corpus.train), corpus.test) == pytest.approx(
        (0.603, 0.691), abs=0.005
    )


def test_overlap_joined_with_bm25_on_wikiqa_is_no_worse_than_bm25_alone(corpora: Path) -> None:
    """Fitted on valid, judged on test."""
    corpus = WikiQA(str(corpora / "wikiqa"))
    parts = {}
    for name in ("valid", "test"):
        pairs = getattr(corpus, name)
        parts[name] = np.column_stack([bm25(pairs, corpus.train), overlap_features(pairs, corpus.train)])
    ranker = fit_logistic(parts["valid"], corpus.valid.labels)
    alone, _ = told("wikiqa, bm25", parts["test"][:, 0], corpus.test)
    joined, _ = told("wikiqa, joined", ranker.logit(parts["test"]), corpus.test)
    assert alone == pytest.approx(0.566, abs=0.005) and joined == pytest.approx(0.571, abs=0.005)
