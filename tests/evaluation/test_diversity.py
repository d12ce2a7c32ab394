"""Diversity of written sentences against closed forms and sacrebleu, and its intervals against many corpora."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import sacrebleu

from pyro_nlp.data.splits import TextSplit
from pyro_nlp.evaluation import Interval, diversity
from pyro_nlp.evaluation.diversity import distinct, grams, new_grams, self_bleu


def split(*sentences: Sequence[int]) -> TextSplit:
    return TextSplit.from_sentences(sentences)


def drawn(count: int, seed: int) -> list[list[int]]:
    """Sentences with common and rare words, some of them very short."""
    rng = np.random.default_rng(seed)
    return [(rng.zipf(1.5, rng.integers(1, 9)) % 60 + 4).tolist() for _ in range(count)]


def test_one_sentence_over_and_over_is_not_diverse() -> None:
    found = diversity(split(*[[5, 6, 7, 8]] * 10))
    assert (found.distinct_1.mean, found.distinct_2.mean) == (4 / 40, 3 / 30)
    assert found.self_bleu.mean == pytest.approx(100, rel=1e-12)
    assert found.self_bleu.low == pytest.approx(100) == found.self_bleu.high


def test_distinct_words_and_pairs_are_counted_within_sentences() -> None:
    found = diversity(split([5, 6, 5, 6], [], [6, 5], [7]))
    assert (found.distinct_1.mean, found.distinct_2.mean) == (3 / 7, 2 / 4)


def test_self_bleu_is_that_of_each_sentence_against_all_others() -> None:
    # words, pairs ... of the first that another sentence has: 4 of 5, 3 of 4, 2 of 3, 1 of 2; the second likewise;
    # the third shares one word with them and no pair, for which smoothing counts 1/2, 1/4 and 1/8 of an n-gram
    alike, apart = (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4), (1 / 5 * 1 / 8 * 1 / 12 * 1 / 16) ** (1 / 4)
    found = diversity(split([5, 6, 7, 8, 9], [5, 6, 7, 8, 10], [11, 12, 13, 14, 5]))
    assert found.self_bleu.mean == pytest.approx(100 * (2 * alike + apart) / 3, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_self_bleu_is_sacrebleus(seed: int) -> None:
    sentences = drawn(60, seed)
    lines = [" ".join(map(str, words)) for words in sentences]
    bleu = sacrebleu.BLEU(tokenize="none", force=True, effective_order=True)
    scores = [bleu.sentence_score(line, lines[:i] + lines[i + 1 :]).score for i, line in enumerate(lines)]
    assert self_bleu(sentences).mean == pytest.approx(np.mean(scores), rel=1e-9)


def test_self_bleu_is_taken_of_a_subset_and_of_sentences_with_words() -> None:
    same_words, other = [5, 6, 7, 8], [9, 10, 11, 12]
    assert diversity(split(*[same_words] * 3, [], [])).self_bleu.mean == pytest.approx(100, rel=1e-12)
    assert math.isnan(diversity(split(same_words, [])).self_bleu.mean)
    halves = [diversity(split(*[same_words] * 20, *[other] * 20), subset=2, seed=s).self_bleu for s in range(20)]
    assert {round(value.mean) for value in halves} == {0, 100}


def test_new_n_grams_are_those_that_are_not_known() -> None:
    known = set(grams([4, 5, 6, 7, 8], 4))
    found = new_grams([[4, 5, 6, 7, 9], [5, 6, 7, 9], [4]], known, 4)
    assert found.mean == 1 / 2 and found.low < 1 / 2 < found.high
    assert new_grams([[4], [5]], known, 4) == Interval(0.0, 0.0, 0.0)


KNOWN = {gram for words in drawn(300, 99) for gram in grams(words, 2)}
MEASURES: dict[str, Callable[[list[list[int]]], Interval]] = {
    "distinct": lambda sentences: distinct(sentences, 2),
    "new": lambda sentences: new_grams(sentences, KNOWN, 2),
    "self-BLEU": self_bleu,
}


@pytest.mark.parametrize("name", MEASURES)
def test_intervals_are_as_wide_as_corpora_of_that_size_differ(name: str) -> None:
    found = [MEASURES[name](drawn(120, seed)) for seed in range(60)]
    spread = float(np.std([one.mean for one in found], ddof=1))
    errors = [(one.high - one.low) / 2 / 2.093 for one in found]
    assert float(np.mean(errors)) == pytest.approx(spread, rel=0.25)  # of 60 a standard deviation is known to 9 %
    middle = float(np.mean([one.mean for one in found]))
    held = float(np.mean([one.low < middle < one.high for one in found]))
    assert held >= 0.85
