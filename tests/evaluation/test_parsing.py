"""Unlabelled F1 by hand, its baselines, and its ceiling."""

from __future__ import annotations

import numpy as np
import pytest

from pyro_nlp.data.trees import Constituent
from pyro_nlp.evaluation import (
    ParsingScores,
    binarise,
    bracketed,
    compare_parses,
    left_branching,
    random_tree,
    right_branching,
    score_parses,
)

GOLD = [
    [Constituent(0, 5, "S"), Constituent(0, 2, "NP"), Constituent(2, 5, "VP"), Constituent(3, 5, "NP")],
    [Constituent(0, 4, "NP"), Constituent(1, 2, "NN")],  # flat
    [Constituent(0, 2, "NP")],
    [Constituent(0, 1, "UH")],
    [Constituent(0, 4, "S"), Constituent(0, 3, "NP")],
]
LENGTHS = [5, 4, 2, 1, 4]


def scores(*induced: list[tuple[int, int]]) -> ParsingScores:
    return score_parses(list(induced), GOLD, LENGTHS)


def test_f1_is_that_of_the_protocol_worked_out_by_hand() -> None:
    found = scores([(0, 5), (0, 2), (2, 5), (2, 4)], [(0, 4), (0, 3), (0, 2)], [(0, 2)], [], [(0, 4), (0, 3), (1, 3)])
    assert found.rows.tolist() == [0, 1, 2, 4]  # the single word is left out
    assert found.right.tolist() == [2, 0, 0, 1]
    assert found.found.tolist() == [3, 2, 0, 2] and found.gold.tolist() == [3, 0, 0, 1]
    np.testing.assert_allclose(found.sentences, [2 / 3, 0.0, 1.0, 2 / 3])  # two words have nothing to be found
    assert found.f1 == pytest.approx((2 / 3 + 0 + 1 + 2 / 3) / 4)
    assert found.f1_with_gold == pytest.approx(2 / 3)
    assert found.corpus_f1 == pytest.approx(2 * 3 / (7 + 4))
    assert found.labels == {"NP": (2, 3), "VP": (1, 1)} and found.recall["NP"] == pytest.approx(2 / 3)
    interval = found.interval(2000)
    assert interval.low < found.f1 < interval.high and interval == found.interval(2000)
    assert found.table()["sentences"] == "4, 2 without gold spans"


def test_a_span_counts_once_and_neither_words_nor_the_sentence_count() -> None:
    twice = score_parses([[(0, 3), (0, 3), (1, 3), (1, 3), (0, 1)]], [[(0, 3, "A"), (1, 3, "B"), (1, 3, "C")]], [3])
    assert (twice.right.item(), twice.found.item(), twice.gold.item()) == (1, 1, 1)
    assert twice.labels == {"B": (1, 1)}


def test_baselines_are_binary_trees_and_what_they_say() -> None:
    assert right_branching(4) == [(0, 4), (1, 4), (2, 4)] and left_branching(4) == [(0, 4), (0, 3), (0, 2)]
    assert right_branching(1) == left_branching(1) == []
    rng = np.random.default_rng(0)
    for length in range(1, 12):
        for tree in (right_branching(length), left_branching(length), random_tree(length, rng)):
            assert len(set(tree)) == length - 1 and binarise(tree, length) == sorted(tree, key=lambda s: (s[0], -s[1]))
    drawn = [random_tree(3, rng) for _ in range(2000)]
    left = sum((0, 2) in tree for tree in drawn)
    assert abs(left - 1000) < 4.5 * np.sqrt(500)  # both trees of three words alike
    again = [random_tree(9, np.random.default_rng(7)) for _ in range(2)]
    assert again[0] == again[1]


def test_the_ceiling_has_every_gold_span_and_is_as_precise_as_a_binary_tree_can_be() -> None:
    oracle = scores(*(binarise(gold, n) for gold, n in zip(GOLD, LENGTHS, strict=True)))
    assert (oracle.right == oracle.gold).all() and set(oracle.recall.values()) == {1.0}
    assert oracle.found.tolist() == [3, 2, 0, 2]  # n - 2 each
    rng = np.random.default_rng(3)
    for length in range(3, 14):
        whole = random_tree(length, rng)
        some = [span for span in whole if rng.random() < 0.5]
        tree = binarise(some, length)
        assert len(tree) == length - 1 and set(some) <= set(tree)
        assert binarise(tree, length) == tree
    with pytest.raises(ValueError, match=r"spans \(0, 2\) and \(1, 3\) cross"):
        binarise([(0, 2), (1, 3)], 4)


def test_two_parsers_are_compared_sentence_by_sentence() -> None:
    gold = [binarise([], 6) for _ in range(40)]
    right, left = (score_parses([of(6)] * 40, gold, [6] * 40) for of in (right_branching, left_branching))
    difference = compare_parses(right, left, resamples=500, permutations=499)
    assert difference.mean == difference.low == difference.high == pytest.approx(right.f1 - left.f1) == 1.0
    assert difference.p_value == pytest.approx(1 / 500)
    with pytest.raises(ValueError, match="scores of 40 and 4 sentences: judge both on the same gold trees"):
        compare_parses(right, scores(*(right_branching(n) for n in LENGTHS)))


def test_a_tree_is_written_with_brackets() -> None:
    assert (
        bracketed([(0, 4), (0, 2), (2, 4), (0, 1)], ["the", "dog", "barks", "loudly"]) == "((the dog) (barks loudly))"
    )
    assert bracketed(right_branching(3), list("abc")) == "(a (b c))"


def test_what_does_not_match_is_refused() -> None:
    with pytest.raises(ValueError, match="1 trees, 2 gold ones and 2 lengths"):
        score_parses([[]], [[], []], [2, 2])
    with pytest.raises(ValueError, match="sentence 1 has 2 words and a span of 0 to 3"):
        score_parses([[], [(0, 3)]], [[], []], [2, 2])
    with pytest.raises(ValueError, match="none of 1 sentences has two words"):
        score_parses([[]], [[]], [1])
