"""The ring's quadrature is exact, so that everything else can be tested against it."""

from __future__ import annotations

import math

import pytest
import torch

from pyro_nlp.data.toy import Ring as RingCorpus
from pyro_nlp.inference import terms
from pyro_nlp.models.ring import Ring
from tests.tiny import ring, whole

NOISE = 0.3


@pytest.fixture
def values() -> torch.Tensor:
    return RingCorpus(size=8, noise=NOISE).train.values


def test_the_evidence_integrates_to_one_over_x() -> None:
    axis = torch.linspace(-3, 3, 25)
    x = torch.cartesian_prod(axis, axis)
    log_evidence, _, _ = Ring(NOISE).quadrature(x, points=120)
    assert float(log_evidence.exp().sum()) * 0.25**2 == pytest.approx(1.0, abs=1e-3)  # cells of 0.25 by 0.25


def test_a_finer_grid_gives_the_same_answers(values: torch.Tensor) -> None:
    for coarse, fine in zip(Ring(NOISE).quadrature(values, 240), Ring(NOISE).quadrature(values, 480), strict=True):
        # the integrand has a kink at the origin, where nothing can be smoother than the cell is wide
        torch.testing.assert_close(coarse, fine, rtol=0, atol=2e-3)


def test_the_evidence_equals_an_average_over_the_prior(values: torch.Tensor) -> None:
    draws = 200_000
    log_x = torch.distributions.Normal(Ring.bend(torch.randn(draws, 1, 2)), NOISE).log_prob(values).sum(-1).double()
    exact, _, _ = Ring(NOISE).quadrature(values)
    share = log_x.softmax(0)
    error = (share.square().sum(0) - 1 / draws).sqrt()
    assert ((log_x.logsumexp(0) - math.log(draws) - exact).abs() < 5 * error).all()


def test_the_posterior_is_symmetric_about_the_line_through_x() -> None:
    _, mean, covariance = Ring(NOISE).quadrature(torch.tensor([[1.1, 0.0], [0.0, -1.1]]))
    torch.testing.assert_close(mean[0, 1], torch.zeros((), dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(mean[0, 0], -mean[1, 1])
    torch.testing.assert_close(covariance[0], covariance[1].flip(0).flip(1), atol=1e-9, rtol=1e-9)
    assert (torch.linalg.eigvalsh(covariance) > 0).all()


def test_the_model_has_the_density_that_quadrature_integrates(values: torch.Tensor) -> None:
    model, guide = ring(noise=NOISE)
    split = RingCorpus(size=8, noise=NOISE).train
    z = torch.randn(1, 8, 2)
    found = terms(model, guide, whole(split), given={"z": z})
    by_hand = torch.distributions.Normal(Ring.bend(z), NOISE).log_prob(values).sum(-1)
    torch.testing.assert_close(found.log_likelihood, by_hand, rtol=1e-5, atol=1e-5)


def test_the_bend_is_the_published_one() -> None:
    torch.testing.assert_close(Ring.bend(torch.tensor([3.0, 4.0])), torch.tensor([0.3 + 0.6, 0.4 + 0.8]))


def test_the_bend_at_the_origin_is_finite() -> None:
    assert Ring.bend(torch.zeros(1, 2)).isfinite().all()
