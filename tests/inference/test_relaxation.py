"""Relaxed one-hot vectors: finite, and distributed as they should be."""

from __future__ import annotations

import math

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions.relaxed_categorical import ExpRelaxedCategorical

from pyro_nlp.inference import (
    relaxation,
)

# ---- numbers ---------------------------------------------------------------------------------------------------


def test_relaxing_ten_thousand_classes_at_a_low_temperature_stays_finite() -> None:
    logits = (5 * torch.randn(20, 10_000)).requires_grad_()
    log_y = relaxation.sample(logits.log_softmax(-1), 0.1)
    fn = dist.OneHotCategorical(logits=logits, validate_args=False)  # whose float32 sum to one is off by 1e-6
    density = relaxation.log_density(fn, log_y, 0.1)
    value = log_y.exp()
    assert log_y.isfinite().all() and density.isfinite().all() and value.isfinite().all()
    torch.testing.assert_close(value.sum(-1), torch.ones(20), rtol=1e-4, atol=1e-4)
    (density.sum() + (value * torch.randn_like(value)).sum()).backward()
    assert logits.grad is not None and logits.grad.isfinite().all() and logits.grad.any()
    given = relaxation.conditional(logits.log_softmax(-1), relaxation.harden(log_y.detach()))
    assert given.isfinite().all()


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("classes", [2, 7])
def test_the_relaxed_density_is_that_of_exp_relaxed_categorical(temperature: float, classes: int) -> None:
    logits = torch.randn(50, classes, dtype=torch.float64)
    log_y = relaxation.sample(logits.log_softmax(-1), temperature)
    theirs = ExpRelaxedCategorical(torch.tensor(temperature, dtype=torch.float64), logits=logits)
    found = relaxation.log_density(dist.OneHotCategorical(logits=logits), log_y, temperature)
    torch.testing.assert_close(found, theirs.log_prob(log_y), rtol=1e-10, atol=1e-10)
    several = dist.OneHotCategorical(logits=logits.view(10, 5, classes)).to_event(1)
    summed = relaxation.log_density(several, log_y.view(10, 5, classes), temperature)
    torch.testing.assert_close(summed, found.view(10, 5).sum(-1), rtol=1e-10, atol=1e-10)


def test_a_straight_through_value_is_one_hot_with_the_gradient_of_the_relaxed_one() -> None:
    logits = torch.randn(200, 6, requires_grad=True)
    log_y = relaxation.sample(logits.log_softmax(-1), 0.3)
    hard = relaxation.harden(log_y)
    assert ((hard == 0) | (hard == 1)).all() and (hard.sum(-1) == 1).all()
    assert torch.equal(hard.argmax(-1), log_y.argmax(-1))
    weights = torch.randn_like(logits)
    (through,) = torch.autograd.grad((hard * weights).sum(), logits, retain_graph=True)
    (relaxed,) = torch.autograd.grad((log_y.exp() * weights).sum(), logits)
    torch.testing.assert_close(through, relaxed)


def test_the_argmax_of_a_relaxed_sample_has_the_probabilities_of_the_class() -> None:
    logits, draws = torch.tensor([1.5, 0.0, -1.0, 0.3]), 40_000
    chosen = relaxation.sample(logits.log_softmax(-1).expand(draws, -1), 0.5).argmax(-1)
    share, p = torch.bincount(chosen, minlength=4) / draws, logits.softmax(-1)
    assert ((share - p).abs() < 5 * (p * (1 - p) / draws).sqrt()).all()


def test_gumbels_given_their_argmax_have_it_and_are_gumbels_when_it_is_drawn() -> None:
    logits, draws = torch.tensor([1.5, 0.0, -3.0, 0.3]).log_softmax(-1).double(), 40_000
    every = logits.expand(draws, -1)
    hard = torch.distributions.OneHotCategorical(logits=every).sample()
    given = relaxation.conditional(every, hard)
    assert torch.equal(given.argmax(-1), hard.argmax(-1))
    noise = given - logits  # over the draws of the argmax, each is a standard Gumbel
    mean, variance, kurtosis = 0.5772157, math.pi**2 / 6, 5.4
    assert ((noise.mean(0) - mean).abs() < 5 * (variance / draws) ** 0.5).all()
    assert ((noise.var(0) - variance).abs() < 5 * variance * ((kurtosis - 1) / draws) ** 0.5).all()
    correlation = torch.corrcoef(noise.T) - torch.eye(4)
    assert correlation.abs().max() < 5 / draws**0.5  # and they are independent


def test_gumbels_given_an_argmax_move_with_the_logits() -> None:
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    hard = torch.eye(4, dtype=torch.float64)[[0, 1, 2, 3, 0]]

    def given(x: Tensor) -> Tensor:
        torch.manual_seed(0)
        return relaxation.conditional(x.log_softmax(-1), hard)

    assert torch.autograd.gradcheck(given, logits)
