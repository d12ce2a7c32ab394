"""Ranking of candidate answers: by hand, in plain loops, and against ir-measures (trec_eval)."""

from __future__ import annotations

import itertools
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyro_nlp.data import TrecQA
from pyro_nlp.evaluation import compare_rankings, rank_questions
from pyro_nlp.evaluation.intervals import sign_flips
from pyro_nlp.evaluation.ranking import MEASURES, Keep, Ranking

SCORES = np.array([0.9, 0.8, 0.1, 0.5, 0.7, 0.3, 0.2, 0.4])
LABELS = np.array([0, 1, 1, 1, 0, 1, 0, 0])
GROUP = np.array([4, 4, 4, 2, 2, 7, 9, 9])
"""Question 2: right answer second; 4: second and third; 7: nothing wrong; 9: nothing right."""


def pairs(questions: int, seed: int = 0, most: int = 12, levels: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of few levels, so with many ties, labels, and groups in no order; some questions have no right answer."""
    rng = np.random.default_rng(seed)
    group = rng.permutation(np.repeat(np.arange(questions) * 3, rng.integers(1, most + 1, questions)))
    return rng.integers(levels, size=len(group)) / levels, (rng.random(len(group)) < 0.25).astype(int), group


def twin(scores: Any, labels: Any, group: Any, keep: Keep) -> dict[int, tuple[float, float, float]]:
    """AP, RR and P@1 by question, by plain loops."""
    found = {}
    for question in sorted(set(group)):
        rows = [i for i in range(len(group)) if group[i] == question]
        rows.sort(key=lambda i: (np.float32(scores[i]), i), reverse=True)
        hits = [labels[i] for i in rows if labels[i] >= 0]
        if not hits or (keep != "all" and 1 not in hits) or (keep == "both" and 0 not in hits):
            continue
        places = [k for k, hit in enumerate(hits, 1) if hit]
        precision = sum(n / k for n, k in enumerate(places, 1)) / max(len(places), 1)
        found[int(question)] = precision, 1 / places[0] if places else 0.0, float(hits[0])
    return found


def test_three_questions_by_hand() -> None:
    found = rank_questions(SCORES, LABELS, GROUP)
    assert found.questions.tolist() == [2, 4]
    np.testing.assert_allclose(found.average_precision, [1 / 2, (1 / 2 + 2 / 3) / 2], rtol=1e-12)
    assert found.reciprocal_rank.tolist() == [0.5, 0.5] and found.precision_at_1.tolist() == [0, 0]
    assert found.right.tolist() == [1, 2] and found.wrong.tolist() == [1, 1]
    assert (found.without_right, found.without_wrong, found.unjudged, found.tied) == (1, 1, 0, 0)
    assert found.rows()["questions"] == "2; left out: 1 without a right answer, 1 without a wrong answer"
    assert (found.map, found.mrr, found.p_at_1) == pytest.approx((13 / 24, 1 / 2, 0))


def test_what_is_kept_is_said_and_a_question_without_right_answer_scores_zero_among_all() -> None:
    right, every = (rank_questions(SCORES, LABELS, GROUP, keep) for keep in ("right", "all"))
    assert right.questions.tolist() == [2, 4, 7] and right.average_precision[-1] == 1
    assert (right.without_right, right.without_wrong) == (1, 0)
    assert every.questions.tolist() == [2, 4, 7, 9] and every.average_precision[-1] == 0 == every.reciprocal_rank[-1]
    assert (every.without_right, every.without_wrong) == (0, 0)


def test_of_equal_scores_the_later_candidate_stands_first() -> None:
    assert rank_questions([1, 1, 1], [1, 0, 0], [0, 0, 0]).mrr == pytest.approx(1 / 3)
    assert rank_questions([1, 1, 1], [0, 0, 1], [0, 0, 0]).mrr == 1
    many = rank_questions(np.zeros(12), np.arange(12) == 10, np.zeros(12, int))  # "10" before "9", as numbers are
    assert many.mrr == 1 / 2 and many.tied == 1
    assert rank_questions([1 + 1e-9, 1.0], [1, 0], [0, 0]).mrr == 1 / 2  # one number in float32


def test_ties_count_where_they_are_between_right_and_wrong_answers_of_one_question() -> None:
    assert rank_questions([2, 2, 1, 2, 0], [1, 1, 0, 0, 1], [0, 0, 0, 1, 1]).tied == 0
    found = rank_questions([2, 2, 2, 1, 1], [1, 1, 0, 0, 1], [0, 0, 0, 1, 1])
    assert found.tied == 2 and found.rows()["ties of right and wrong"] == "in 2 questions"


def test_pairs_without_label_are_left_out_of_the_order() -> None:
    found = rank_questions([3, 2, 1, 5], [-1, 1, 0, -1], [0, 0, 0, 1])
    assert found.mrr == 1 and (found.unknown, found.unjudged, found.wrong.tolist()) == (2, 1, [1])


@pytest.mark.parametrize("keep", ["both", "right", "all"])
def test_the_vectorised_form_is_that_of_plain_loops(keep: Keep) -> None:
    scores, labels, group = pairs(60)
    labels[np.random.default_rng(1).random(len(labels)) < 0.1] = -1
    found, wanted = rank_questions(scores, labels, group, keep), twin(scores, labels, group, keep)
    assert found.questions.tolist() == list(wanted)
    np.testing.assert_allclose(found.values, list(wanted.values()), rtol=1e-12)


@pytest.mark.parametrize("keep", ["both", "right", "all"])
def test_measures_are_those_of_trec_eval(keep: Keep) -> None:
    ir = pytest.importorskip("ir_measures")
    scores, labels, group = pairs(200, seed=2)
    scores = scores + np.random.default_rng(3).choice([0, 1e-9, 1e-3], len(scores))  # some ties in float32 only
    found = rank_questions(scores, labels, group, keep)
    kept, seen = set(found.questions.tolist()), dict.fromkeys(group.tolist(), 0)
    qrels, run = [], []
    for score, label, question in zip(scores.tolist(), labels.tolist(), group.tolist(), strict=True):
        name = f"{seen[question]:05d}"
        seen[question] += 1
        if question in kept:
            qrels.append(ir.Qrel(str(question), name, label))
            run.append(ir.ScoredDoc(str(question), name, score))
    wanted = {(m.query_id, str(m.measure)): m.value for m in ir.iter_calc([ir.AP, ir.RR, ir.P @ 1], qrels, run)}
    for i, name in enumerate(("AP", "RR", "P@1")):
        trec = [wanted[str(q), name] for q in found.questions.tolist()]
        np.testing.assert_allclose(found.values[:, i], trec, atol=1e-6)
    assert found.tied > 20 and {"both": found.without_wrong, "all": (found.right == 0).sum()}.get(keep, 1) > 0


def test_what_is_added_to_or_done_to_all_scores_in_order_changes_nothing() -> None:
    scores, labels, group = pairs(50, levels=1000)
    found, other = rank_questions(scores, labels, group), rank_questions(np.exp(3 * scores), labels, group)
    np.testing.assert_array_equal(found.values, other.values)
    order = np.random.default_rng(0).permutation(len(scores))
    untied = rank_questions(scores + np.arange(len(scores)) * 1e-5, labels, group)
    shuffled = rank_questions((scores + np.arange(len(scores)) * 1e-5)[order], labels[order], group[order])
    np.testing.assert_array_equal(untied.values, shuffled.values)


def test_a_million_pairs_take_seconds() -> None:
    rng = np.random.default_rng(0)
    group = rng.integers(50_000, size=1_000_000)
    start = time.perf_counter()
    found = rank_questions(rng.random(len(group)), rng.random(len(group)) < 0.1, group)
    assert time.perf_counter() - start < 15  # 0.8 on an idle core
    assert found.right.sum() + found.wrong.sum() < len(group) and 0.1 < found.p_at_1 < 0.13


# ---- intervals -------------------------------------------------------------------------------------------------------


def with_values(precision: np.ndarray) -> Ranking:
    ones = np.ones(len(precision), int)
    return Ranking(np.arange(len(precision)), precision, precision, np.round(precision), ones, ones, "both")


def test_bootstrap_intervals_hold_the_mean_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    held = [
        interval.low <= 0.5 <= interval.high
        for _ in range(300)
        for interval in [with_values(rng.random(80)).intervals(500)["MAP"]]
    ]
    assert abs(np.mean(held) - 0.95) < 0.015 + 4.5 * math.sqrt(0.05 * 0.95 / 300)  # percentile intervals are narrow


def test_bootstrap_intervals_are_as_wide_as_the_standard_error_says_and_seeded() -> None:
    ranking = with_values(np.random.default_rng(1).random(400))
    found = ranking.intervals()
    assert tuple(found) == MEASURES and ranking.intervals(seed=1) != found == ranking.intervals()
    error = ranking.average_precision.std() / 20
    assert found["MAP"].high - found["MAP"].low == pytest.approx(2 * 1.96 * error, rel=0.06)
    assert found["MAP"].mean == pytest.approx(ranking.map) and found["P@1"].mean == ranking.p_at_1
    assert str(found["MAP"]) == f"{ranking.map:.4f} ({found['MAP'].low:.4f} to {found['MAP'].high:.4f})"


def test_memory_is_bounded_without_changing_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    ranking = with_values(np.random.default_rng(1).random(40))
    before = ranking.intervals(100), compare_rankings(ranking, with_values(np.full(40, 0.5)), permutations=99).map
    monkeypatch.setattr("pyro_nlp.evaluation.intervals.DRAWS", 200)
    after = ranking.intervals(100)
    assert after == before[0]
    assert compare_rankings(ranking, with_values(np.full(40, 0.5)), permutations=99).map.low == before[1].low


def test_signs_are_flipped_as_an_enumeration_would() -> None:
    difference = np.array([0.3, -0.1, 0.2, 0.25, 0.0, 0.15, -0.05, 0.1])
    sums = [abs(np.dot(signs, difference)) for signs in itertools.product([-1, 1], repeat=8)]
    wanted = np.mean([s >= abs(difference.sum()) - 1e-9 for s in sums])
    (found,) = sign_flips(difference[:, None], 20_000, 0)
    assert found == pytest.approx(wanted, abs=4.5 * math.sqrt(wanted * (1 - wanted) / 20_000))


def test_rankings_are_compared_question_by_question() -> None:
    scores, labels, group = pairs(300, levels=1000)
    better = rank_questions(scores + 0.4 * labels, labels, group)
    worse = rank_questions(scores, labels, group)
    found = compare_rankings(better, worse)
    assert found.map.mean == pytest.approx(better.map - worse.map) and found.mrr.mean == pytest.approx(
        better.mrr - worse.mrr
    )
    assert found.map.low > 0 and found.map.p_value == pytest.approx(1e-4) and found.worse == 0 < found.better
    back = compare_rankings(worse, better)
    assert back.map.mean == -found.map.mean and back.map.p_value == found.map.p_value
    same = compare_rankings(worse, worse)
    assert (same.map.mean, same.map.low, same.map.high, same.map.p_value) == (0, 0, 0, 1)
    assert same.rows()["questions"] == f"{len(worse)}: 0 better, 0 worse by average precision"
    noise = np.random.default_rng(5)
    first, second = (rank_questions(scores + 0.2 * noise.standard_normal(len(scores)), labels, group) for _ in range(2))
    apart = compare_rankings(first, second)
    assert apart.map.low < 0 < apart.map.high and apart.map.p_value > 0.01
    # the spread between questions, which both share, cancels
    assert apart.map.high - apart.map.low < first.intervals()["MAP"].high - first.intervals()["MAP"].low


def test_the_p_value_is_uniform_where_there_is_no_difference() -> None:
    rng = np.random.default_rng(0)
    p = [sign_flips(rng.standard_normal((30, 1)), 199, seed)[0] for seed in range(400)]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=4.5 * math.sqrt(0.05 * 0.95 / 400))


def test_a_ranking_becomes_a_dataset() -> None:
    data = rank_questions(SCORES, LABELS, GROUP).to_xarray()
    assert data["average_precision"].dims == ("question",) and data["question"].values.tolist() == [2, 4]
    assert data.attrs["keep"] == "both" and data.attrs["without_right"] == 1
    assert data["right"].attrs["units"] == "answers"


# ---- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: rank_questions([1.0, math.nan, math.inf], [0, 1, 0], [0, 0, 0]),
            "^2 of 3 scores are not finite in float32; the first is nan at pair 1$",
        ),
        (lambda: rank_questions([1e300, 1.0], [0, 1], [0, 0]), r"^1 of 2 .* the first is 1e\+300 at pair 0$"),
        (lambda: rank_questions([1.0, 2.0], [0, 2], [0, 0]), "^pair 1 has the label 2: give 1 for right, 0 for wrong"),
        (lambda: rank_questions([1.0], [0, 1], [0, 0]), r"^scores \(1,\), labels \(2,\) and groups \(2,\): give one"),
        (lambda: rank_questions([1.0], None, [0]), r"^scores \(1,\), labels \(\) and groups \(1,\): give one"),
        (
            lambda: rank_questions([1.0, 2.0], [1, 1], [0, 1]),
            "^none of 2 questions has a right and a wrong answer: there is nothing to rank .keep='both'.$",
        ),
        (lambda: rank_questions([1.0], [0], [0], "right"), "^none of 1 questions has a right answer"),
        (lambda: rank_questions([1.0], [-1], [0], "all"), "^no pair of 1 has a label, 0 or 1"),
        (lambda: rank_questions([], [], [], "all"), "^no pair of 0 has a label"),
        (lambda: rank_questions([1.0], [1], [0], "usual"), "^keep is 'usual'; give both, right or all$"),
        (
            lambda: compare_rankings(
                rank_questions(SCORES, LABELS, GROUP), rank_questions(SCORES, LABELS, GROUP, "all")
            ),
            r"^rankings of 2 \(keep='both'\) and 4 \(keep='all'\) questions share 2: rank the same pairs",
        ),
        (
            lambda: compare_rankings(
                rank_questions([1, 2, 3], [0, 0, 1], [0, 0, 0]), rank_questions([1, 2], [0, 1], [0, 0])
            ),
            "share 1, with other answers: rank the same pairs",
        ),
        (lambda: with_values(np.ones(2)).intervals(0), "^0 resamples: take at least 1"),
        (
            lambda: compare_rankings(with_values(np.ones(2)), with_values(np.ones(2)), permutations=0),
            "^0 permutations: take at least 1",
        ),
    ],
)
def test_what_cannot_be_ranked_is_refused_in_a_line(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


# ---- published corpora -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trecqa(corpora: Path) -> dict[str, TrecQA]:
    folder = str(corpora / "trecqa")
    return {"raw": TrecQA(folder, "train", "raw"), "clean": TrecQA(folder, "train", "clean")}


def test_the_clean_questions_of_trec_qa_are_those_kept_of_the_raw_ones(trecqa: dict[str, TrecQA]) -> None:
    found = {}
    for name, corpus in trecqa.items():
        found[name] = rank_questions(corpus.test.lengths, *of(corpus.test))
    assert len(found["raw"]) == len(found["clean"]) == 68
    assert (found["raw"].without_right, found["raw"].without_wrong) == (6, 21)
    np.testing.assert_array_equal(found["raw"].values, found["clean"].values)


def test_right_answers_stand_first_in_trec_qa_so_ties_go_to_the_last(trecqa: dict[str, TrecQA]) -> None:
    split = trecqa["raw"].test
    first = rank_questions(-np.arange(len(split)), *of(split))
    constant = rank_questions(np.zeros(len(split)), *of(split))
    assert first.map == 1 and constant.map < 0.3 and constant.tied == len(constant) == 68


def of(split: Any) -> tuple[np.ndarray, np.ndarray]:
    return split.labels, split.group
