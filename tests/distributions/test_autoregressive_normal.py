"""AutoregressiveNormal against a dense Gaussian, and its committed rate against a minimiser."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_nlp.distributions import AutoregressiveNormal

DOUBLE = torch.zeros((), dtype=torch.float64)


def dense(size: int, alpha: float) -> dist.MultivariateNormal:
    index = torch.arange(size, dtype=torch.float64)
    return dist.MultivariateNormal(torch.zeros_like(index), alpha ** (index[:, None] - index).abs())


def diagonal(*shape: int) -> dist.Independent:
    scale = torch.rand(shape, dtype=torch.float64) + 0.2
    return dist.Normal(torch.randn(shape, dtype=torch.float64), scale).to_event(1)


@pytest.mark.parametrize("alpha", [-0.4, 0.5, 0.95])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_density_and_divergence_are_those_of_a_gaussian_with_correlations_that_fall_geometrically(
    size: int, alpha: float
) -> None:
    p, wanted = AutoregressiveNormal(size, alpha, DOUBLE), dense(size, alpha)
    value, q = torch.randn(5, size, dtype=torch.float64), diagonal(3, 5, size)
    torch.testing.assert_close(p.log_prob(value), wanted.log_prob(value))
    torch.testing.assert_close(kl_divergence(q, p), kl_divergence(q, wanted.expand([3, 5])))
    assert kl_divergence(q, p.expand([3, 5])).shape == (3, 5)


def test_draws_have_variance_one_and_the_correlation_of_neighbours() -> None:
    draws = AutoregressiveNormal(4, 0.6, DOUBLE).sample((40_000,))
    # standard errors of a variance, sqrt(2 / n), and of a covariance, sqrt((1 + r^2) / n); five of them
    wanted = dense(4, 0.6).covariance_matrix
    torch.testing.assert_close(draws.T.cov(), wanted, rtol=0, atol=5 * (2 / 40_000) ** 0.5)


@pytest.mark.parametrize(("size", "alpha"), [(1, 0.5), (2, 0.5), (3, -0.7), (8, 0.3), (32, 0.9)])
def test_the_committed_rate_is_the_least_divergence_of_all_diagonal_gaussians(size: int, alpha: float) -> None:
    p = AutoregressiveNormal(size, alpha, DOUBLE)
    parameters = torch.randn(2, size, dtype=torch.float64).requires_grad_()
    optimizer = torch.optim.LBFGS([parameters], max_iter=500, line_search_fn="strong_wolfe", tolerance_change=1e-14)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = kl_divergence(dist.Normal(parameters[0], parameters[1].exp()).to_event(1), p)
        value.backward()
        return value

    optimizer.step(loss)
    # flat at the minimum: a gradient of 1e-7 leaves some 1e-12 of the value
    assert float(loss().detach()) == pytest.approx(p.committed_rate, abs=1e-9)


def test_a_correlation_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="alpha is a correlation, between -1 and 1, not 1"):
        AutoregressiveNormal(3, 1.0)


def test_no_closed_form_is_claimed_for_others() -> None:
    p = AutoregressiveNormal(3, 0.5)
    with pytest.raises(NotImplementedError):
        kl_divergence(dist.Laplace(torch.zeros(3), 1.0).to_event(1), p)
