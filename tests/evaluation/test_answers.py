"""Scores of candidate answers: whole questions, shared draws, and the probability that is averaged."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from torch import Tensor, nn

from pyro_nlp.data import PairBatch, PairSplit
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.evaluation import rank_questions, score_pairs
from pyro_nlp.evaluation.answers import whole_questions
from pyro_nlp.models.answer_matcher import AnswerMatcher
from pyro_nlp.models.nasm import NASM
from pyro_nlp.nn import CNNEncoder
from tests.tiny import VOCABULARY, encoder, lm, sharpen, text, whole

LATENT = 4
cnn = partial(CNNEncoder, embedding=6, width=7)
MODELS = {
    "NASM": lambda: NASM(VOCABULARY, LATENT, encoder, None, 6),
    "LSTM": lambda: AnswerMatcher(VOCABULARY, LATENT, encoder, None, 6),
    "LSTM with attention": lambda: AnswerMatcher(VOCABULARY, LATENT, encoder, None, 6, attention=True),
    "CNN": lambda: AnswerMatcher(VOCABULARY, LATENT, cnn, None, 6),
}


def model(name: str = "NASM") -> Any:
    torch.manual_seed(0)
    return sharpen(MODELS[name]())


def pairs(count: int = 40, questions: int = 7, seed: int = 0) -> PairSplit:
    """Random pairs, those of a question far apart; the last first text has none."""
    rng = np.random.default_rng(seed)
    group = rng.permutation(np.append(np.arange(questions - 1), rng.integers(0, questions - 1, count - questions + 1)))
    return PairSplit(text(questions, seed), text(count, seed + 1, longest=9), group, rng.integers(0, 2, count))


class Given(nn.Module):
    """Log-odds as given, `[draws, N]`, whatever the texts say."""

    def __init__(self, logits: Any) -> None:
        super().__init__()
        self.logits, self.asked = torch.as_tensor(logits), list[int]()

    def scores(self, batch: PairBatch, draws: int = 1) -> tuple[Tensor, None]:
        done = sum(self.asked)
        self.asked.append(draws)
        return self.logits[done : done + max(1, draws)][:, batch.index], None


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("batch_size", [1, 11, 1000])
def test_scores_are_those_of_the_model_in_corpus_order(name: str, batch_size: int) -> None:
    split, judged = pairs(), model(name)
    with torch.no_grad():
        expected = judged.scores(whole(split), 0)[0][0]
    found = score_pairs(judged, split, batch_size=batch_size)
    assert found.dtype == np.float64 and found.std() > 1e-3
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    rank_questions(found, split.labels, split.group)


@pytest.mark.parametrize("batch_size", [1, 5, 16, 1000])
def test_the_pairs_of_a_question_are_in_one_batch_and_each_pair_in_one(batch_size: int) -> None:
    split = pairs()
    parts = list(whole_questions(split, batch_size))
    assert sorted(np.concatenate(parts)) == list(range(len(split)))
    for part in parts:
        assert sorted(split.of_groups(np.unique(split.group[part]))) == sorted(part)
        assert len(part) <= batch_size or len(np.unique(split.group[part])) == 1


def test_each_question_that_has_candidates_is_read_once() -> None:
    split, judged = pairs(), model()
    rows: list[int] = []
    judged.question.register_forward_hook(lambda module, args, out: rows.append(len(args[0])))
    score_pairs(judged, split, 3, batch_size=16)
    assert sum(rows) == 6 and len(split.first) == 7


def test_candidates_of_a_question_share_its_draws() -> None:
    """The same answer has the same score under a question, whatever else is drawn, and another under its twin."""
    words = np.array([5, 6, 7])
    texts = TextSplit.from_sentences([words] * 6)
    split = PairSplit(texts.take(np.arange(2)), texts, np.array([0, 1, 0, 1, 0, 1]))
    found = score_pairs(model(), split, 1)
    for question in (0, 1):
        np.testing.assert_allclose(found[question::2], found[question], rtol=1e-5)
    assert abs(found[0] - found[1]) > 1e-3


def test_draws_depend_on_the_seed_alone_and_none_is_the_mean_reading() -> None:
    split, judged = pairs(), model()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = score_pairs(judged, split, 5, seed=3)
    assert torch.equal(torch.get_rng_state(), state) and judged.training
    torch.manual_seed(2)
    np.testing.assert_array_equal(score_pairs(judged, split, 5, seed=3), first)
    assert np.abs(score_pairs(judged, split, 5, seed=4) - first).max() > 1e-3
    np.testing.assert_array_equal(score_pairs(judged, split, seed=3), score_pairs(judged, split, seed=4))


def test_the_probability_is_averaged_and_not_the_log_odds() -> None:
    split, rng = pairs(9, 3), np.random.default_rng(0)
    logits = 3 * rng.normal(size=(6, 9))
    expected = logit(expit(logits).mean(0))
    np.testing.assert_allclose(score_pairs(Given(logits), split, 6), expected, rtol=1e-10)
    assert np.abs(expected - logits.mean(0)).max() > 0.1


def test_the_mean_over_draws_of_nasm_is_that_of_its_prior() -> None:
    split, judged = pairs(8, 3), model()
    with torch.no_grad():
        torch.manual_seed(5)
        many = judged.scores(whole(split), 20_000)[0].double().sigmoid()
    error = many.std(0) / math.sqrt(len(many))
    found = expit(score_pairs(judged, split, 20_000, chunk=100_000))
    assert (np.abs(found - many.mean(0).numpy()) < 5 * math.sqrt(2) * error.numpy()).all()


def test_candidates_that_are_all_but_certain_still_have_an_order() -> None:
    split = pairs(9, 3)
    logits = np.linspace(40, 48, 9) * np.ones((4, 1))
    for draws in (0, 4):
        found = score_pairs(Given(logits), split, draws)
        np.testing.assert_allclose(found, logits[0], rtol=1e-12)
        np.testing.assert_allclose(score_pairs(Given(-logits), split, draws), -logits[0], rtol=1e-12)


def test_many_draws_are_scored_in_parts_and_averaged_together() -> None:
    split = pairs(9, 3)
    logits = np.random.default_rng(1).normal(size=(7, 9))
    judged = Given(logits)
    found = score_pairs(judged, split, 7, chunk=30)
    assert judged.asked == [3, 3, 1]
    np.testing.assert_allclose(found, logit(expit(logits).mean(0)), rtol=1e-10)


def test_a_model_without_latents_is_asked_once() -> None:
    split, judged = pairs(), model("LSTM with attention")
    np.testing.assert_array_equal(score_pairs(judged, split, 50, chunk=100), score_pairs(judged, split))


def test_no_pairs_have_no_scores() -> None:
    empty = pairs().take(np.zeros(0, np.int64))
    assert score_pairs(model(), empty).shape == (0,)


def test_what_cannot_be_scored_is_refused() -> None:
    split = pairs(9, 3)
    with pytest.raises(TypeError, match=r"SentenceLM has no scores\(batch, draws\).*such as NASM"):
        score_pairs(lm(), split)
    with pytest.raises(TypeError, match=r"a TextSplit has no candidates to score: give a PairSplit"):
        score_pairs(model(), text(4))
    with pytest.raises(ValueError, match="draws is -1, batch_size 128 and chunk 4096"):
        score_pairs(model(), split, -1)
    with pytest.raises(ValueError, match="batch_size 0"):
        score_pairs(model(), split, batch_size=0)
    with pytest.raises(ValueError, match=r"gives \[2, 9\] for 3 draws of 9 pairs; it should be \[3, 9\]"):
        score_pairs(Given(np.zeros((2, 9))), split, 3)
