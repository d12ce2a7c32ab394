"""The candidates of a question under draws of its reading, and the table of a ranker."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit

from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.evaluation import (
    binary_calibration,
    evaluate_answers,
    is_ranker,
    judges_answers,
    rank_questions,
    read_candidates,
    score_pairs,
)
from pyro_nlp.evaluation.candidates import emphasis
from tests import tiny
from tests.models.test_pair_models import attention, matcher, nasm, pairs


def unlabelled(split: PairSplit) -> PairSplit:
    return PairSplit(split.first, split.second, split.group, np.full(len(split), -1))


def test_a_question_has_its_own_candidates_with_probabilities_over_draws() -> None:
    model, split = nasm()[0], pairs()
    found = read_candidates(model, split, 400, seed=3)
    assert len(found) == 4
    np.testing.assert_array_equal(np.sort(np.concatenate([one.rows for one in found])), np.arange(len(split)))
    mean = expit(score_pairs(model, split, 400, seed=4))
    for question, one in enumerate(found):
        assert (split.group[one.rows] == question).all()
        assert one.spread is not None and one.first is not None and one.where is not None
        error = np.sqrt(2 / 400) * one.spread + 1e-12  # of a difference between two means of 400 draws
        assert (np.abs(one.probability - mean[one.rows]) < 4.5 * error).all()
        assert one.first.sum() == pytest.approx(1)
        assert [len(row) for row in one.where] == split.lengths[one.rows].tolist()
        assert all(row.sum() == pytest.approx(1, abs=1e-5) for row in one.where)  # float32 softmaxes
        assert (np.diff(one.probability[one.order]) <= 0).all()


def test_draws_are_the_same_whatever_else_is_asked_and_the_model_is_left_as_it_was() -> None:
    model, split = nasm()[0].train(), pairs()
    whole = read_candidates(model, split, 30)
    again = read_candidates(model, split, 30)
    for one, two in zip(whole, again, strict=True):
        np.testing.assert_array_equal(one.probability, two.probability)
    parts = read_candidates(model, split, 4000, chunk=500)
    at_once = read_candidates(model, split, 4000)
    for one, two in zip(parts, at_once, strict=True):
        assert one.spread is not None
        assert (np.abs(one.probability - two.probability) < 4.5 * np.sqrt(2 / 4000) * one.spread + 1e-12).all()
    assert model.training


@pytest.mark.parametrize("looks", [False, True])
def test_without_latents_nothing_is_drawn(looks: bool) -> None:
    model, split = matcher(attention=looks), pairs()
    for one in read_candidates(model, split, 10, chunk=1):
        assert one.spread is None and one.first is None and (one.where is not None) == looks
        np.testing.assert_allclose(one.probability, expit(score_pairs(model, split)[one.rows]), atol=1e-6)


def test_equal_candidates_share_the_first_place() -> None:
    split = pairs()
    twice = split.take(np.array([0, 0]))
    (found,) = read_candidates(nasm()[0], twice, 10)
    assert found.first is not None
    np.testing.assert_allclose(found.first, 0.5)


def test_only_a_ranker_has_candidates() -> None:
    with pytest.raises(TypeError, match="SentenceLM on a PairSplit: there are no candidates to rank"):
        read_candidates(tiny.lm(), pairs())
    with pytest.raises(TypeError, match="NASM on a TextSplit"):
        read_candidates(nasm()[0], pairs().first)
    with pytest.raises(ValueError, match="draws is 1; a spread wants two or more"):
        read_candidates(nasm()[0], pairs(), 1)


def test_attention_that_looks_everywhere_alike_marks_nothing() -> None:
    np.testing.assert_allclose(emphasis(np.full(4, 0.25)), 0, atol=1e-7)
    np.testing.assert_allclose(emphasis(np.array([0.0, 1.0, 0.0])), [0, 1, 0])
    np.testing.assert_allclose(emphasis(np.array([0.1, 0.7, 0.2])), [0, np.sqrt(0.55), 0])
    assert np.isfinite(emphasis(np.ones(1))).all()


def test_the_table_of_a_ranker_is_what_its_parts_say() -> None:
    model, split = nasm()[0], pairs(40)
    assert split.labels is not None
    found = evaluate_answers(model, split, draws=20, seed=1)
    ranked = rank_questions(score_pairs(model, split), split.labels, split.group, keep="right")
    assert found.ranking is not None and found.ranking.map == ranked.map and found.ranking.mrr == ranked.mrr
    expected = binary_calibration(expit(score_pairs(model, split, 20, seed=1)), split.labels)
    assert found.calibration.brier == expected.brier and found.calibration.pairs == 40
    assert {"MAP", "MRR", "P@1", "Brier score", "expected calibration error", "log loss"} <= set(found.rows())
    assert found.as_dict()["ranking"]["MAP"]["mean"] == ranked.map


def test_questions_that_are_left_out_are_counted() -> None:
    split = pairs(12)
    labels = np.where(split.group == 0, 0, np.where(split.group == 1, -1, 1))
    some = PairSplit(split.first, split.second, split.group, labels)
    found = evaluate_answers(nasm()[0], some)
    assert found.rows()["questions with a right answer"] == "2; left out: 1 without a right answer, 1 without a label"
    none = PairSplit(split.first, split.second, split.group, np.zeros(12, int))
    assert evaluate_answers(nasm()[0], none).rows()["ranking"] == "none of 4 questions has a right answer"
    assert evaluate_answers(nasm()[0], none).as_dict()["ranking"] is None


def test_what_is_a_ranker_and_what_can_be_judged() -> None:
    torch.manual_seed(0)
    assert is_ranker(nasm()[0], pairs(labels=False)) and not is_ranker(attention()[0], pairs(labels=False))
    assert judges_answers(matcher(), pairs()) and not judges_answers(matcher(), unlabelled(pairs()))
    assert not judges_answers(nasm()[0], pairs(labels=False))
    with pytest.raises(ValueError, match="label"):
        evaluate_answers(nasm()[0], unlabelled(pairs()))
