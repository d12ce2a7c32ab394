"""Latent sentences whose words are relaxed, and scores that are taken word by word."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_nlp.data.batches import EOS, PAD
from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.inference import (
    ELBO,
    IWAE,
    Enumerate,
    LeaveOneOut,
    Marginalize,
    Relax,
    ScoreFunction,
    Strategy,
    Subset,
    terms,
)
from pyro_nlp.inference.terms import StructureError
from tests.models.test_compression import KINDS, WORDS, exact, flat, pairs, programs
from tests.tiny import whole

RELAXED = {"relaxed": Relax(temperature=0.7), "straight through": Relax(temperature=0.7, hard=True)}


def hot(words: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(words, WORDS).float()


@pytest.mark.parametrize("kind", KINDS)
def test_a_sentence_of_one_hot_words_is_the_sentence(kind: str) -> None:
    """To model and guide alike, wherever it ends."""
    model, guide = programs(*KINDS[kind])
    batch = whole(pairs([1, -1, -1]))
    c = terms(model.train(), guide.train(), batch, particles=4).sites["c"].value
    by_id, by_hot = (terms(model, guide, batch, particles=4, given={"c": value}) for value in (c, hot(c)))
    for found in ("log_q", "log_p"):
        first, second = (getattr(each.sites["c"], found) for each in (by_id, by_hot))
        assert torch.allclose(first, second, atol=1e-5)
    assert torch.allclose(by_id.log_likelihood, by_hot.log_likelihood, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_straight_through_draws_are_draws(kind: str) -> None:
    model, guide = programs(*KINDS[kind])
    batch = pairs([-1, -1, -1]).batch(np.repeat([0, 1, 2], 600))
    q = terms(model, guide, batch).sites["c"].q
    torch.manual_seed(0)
    drawn = RELAXED["straight through"].draw(q, lambda value: value)
    assert drawn is not None
    relaxed, plain = drawn.value.argmax(-1), q.sample()
    assert torch.allclose(drawn.value.detach(), hot(relaxed), atol=1e-6)
    for row in range(3):
        own = torch.arange(1800) // 600 == row
        found, counts = torch.cat([relaxed[0, own], plain[0, own]]).unique(dim=0, return_inverse=True)
        table = torch.zeros(2, len(found))
        table.index_put_((torch.arange(1200) // 600, counts), torch.ones(1200), accumulate=True)
        expected = table.sum(0, keepdim=True) / 2
        chi = ((table - expected).square() / expected).sum()
        # chi-square with len(found) - 1 degrees of freedom: beyond mean + 5.5 standard deviations
        assert chi < len(found) - 1 + 5.5 * (2 * len(found)) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_relaxed_words_teach_the_guide_as_scores_do(kind: str) -> None:
    """By the exact bound of the discrete model: a pointer alone cannot close its gap, however it is taught."""
    batch = whole(pairs([-1, -1, -1]))
    closed = {}
    for name, estimator in {"scores": ScoreFunction(LeaveOneOut()), **RELAXED}.items():
        model, guide = programs(*KINDS[kind])
        before, _ = exact(model, guide, batch)
        objective = Strategy(discrete=estimator, bound=ELBO(4)).compile(model, guide, batch)
        optimizer = torch.optim.Adam(guide.parameters(), 0.01)
        for _ in range(120):
            optimizer.zero_grad()
            objective(batch).backward()
            optimizer.step()
        after, _ = exact(model, guide, batch)
        closed[name] = (before - after).mean().item()
    assert all(closed[name] > 0.5 * closed["scores"] > 0.01 for name in RELAXED)


def test_padding_after_the_end_costs_nothing() -> None:
    model, guide = programs(None, True)
    batch = whole(pairs([-1, -1, -1]))
    q = terms(model, guide, batch).sites["c"].q
    value = torch.tensor([[[4, EOS, PAD]] * 3])[0]
    assert torch.allclose(q.log_prob_by_word(hot(value)), q.log_prob_by_word(value), atol=1e-5)
    assert (q.log_prob_by_word(value)[:, 2] == 0).all()


def test_word_by_word_the_gradient_has_less_variance() -> None:
    """A word does not answer for what was drawn before it."""
    model, guide = programs(None, True)
    batch = pairs([-1, -1, -1]).batch(np.tile(np.arange(3), 20))
    spread = {}
    for per in ("site", "word"):
        strategy = Strategy(discrete=ScoreFunction(LeaveOneOut(), per=per), bound=ELBO(2))
        objective = strategy.compile(model, guide, batch).eval()
        torch.manual_seed(1)
        drawn = torch.stack([flat(objective(batch), model, guide) for _ in range(60)])
        spread[per] = drawn.var(0).sum().item()
    assert spread["word"] < 0.95 * spread["site"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labels", [[-1, -1, -1], [1, -1, 1]], ids=["latent", "some known"])
def test_few_sequences_can_be_summed(kind: str, labels: list[int]) -> None:
    """`Enumerate` has the loss and the gradient of the sum over every compression, those that are known alone."""
    model, guide = programs(*KINDS[kind])
    batch = whole(pairs(labels))
    loss, _ = exact(model.train(), guide.train(), batch)
    objective = Strategy(discrete=Enumerate()).compile(model, guide, batch)
    found = objective(batch)
    known = terms(model, guide, batch)
    expected = torch.where(torch.tensor(labels) == 1, -known.log_likelihood[0] + known.kl["c"][0], loss)
    assert found.item() == pytest.approx(expected.mean().item(), rel=1e-5)
    assert torch.allclose(flat(found, model, guide), flat(expected.mean(), model, guide), atol=1e-5)
    subset = Strategy(discrete=Subset(3)).compile(model, guide, batch)
    assert torch.isfinite(flat(subset(batch), model, guide)).all()


def test_what_words_cannot_do_is_refused() -> None:
    model, guide = programs()
    split: PairSplit = pairs([-1, -1, -1])
    word = Strategy(discrete=ScoreFunction(LeaveOneOut(), per="word"), bound=ELBO(2))

    def refused(strategy: Strategy, match: str, programs: Any = (model, guide)) -> None:
        with pytest.raises(StructureError, match=match):
            strategy.compile(*programs, whole(split))

    refused(replace(word, bound=IWAE(2)), "per='word' is of the ELBO")
    refused(Strategy(discrete=Relax(kl="relaxed")), "no Concrete density")
    refused(Strategy(discrete=Marginalize()), "summed under q: use Enumerate")
    long = PairSplit(TextSplit.from_sentences([[4, 5] * 12]), TextSplit.from_sentences([[4]]), np.zeros(1, np.int64))
    with pytest.raises(StructureError, match="Enumerate sums over every sequence of up to 12 words, 4,096 at most"):
        Strategy(discrete=Enumerate()).compile(model.eval(), guide.eval(), whole(long))
    with pytest.raises(ValueError, match="per is 'site' or 'word', not 'sentence'"):
        ScoreFunction(per="sentence")  # type: ignore[arg-type]
