"""Bessel functions against the integral that defines them, and at known values."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_nlp.distributions.bessel import bessel_ratio, log_series

KAPPAS = [1e-3, 0.1, 1.0, 7.9, 8.1, 30.0, 100.0, 1e3, 1e4]


@cache
def nodes() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(1000)


def moments(order: float, x: float) -> tuple[float, float]:
    """log S_v(x) and I_{v+1} / I_v as the normaliser and mean of exp(x cos t) sin(t)^2v on [0, pi] (DLMF 10.32.2)."""
    points, weights = nodes()
    t = 0.5 * math.pi * (points + 1)
    log_sine = np.log(np.sin(t))
    peak = (x * np.cos(t) + 2 * order * log_sine).max()
    density = weights * np.exp(x * np.cos(t) + 2 * order * log_sine - peak)
    flat = weights * np.exp(2 * order * log_sine)
    return peak + math.log(density.sum() / flat.sum()), float((density * np.cos(t)).sum() / density.sum())


@pytest.mark.parametrize("dimension", [2, 3, 5, 16, 65, 66, 67, 128, 256])
def test_it_equals_quadrature_from_two_to_256_dimensions(dimension: int) -> None:
    order = dimension / 2 - 1
    kappas = torch.tensor([*KAPPAS, 7.99 * (order + 1) ** 0.5, 8.01 * (order + 1) ** 0.5], dtype=torch.float64)
    wanted = torch.tensor([moments(order, x) for x in kappas.tolist()], dtype=torch.float64)
    # the quadrature adds terms with exponents up to 1e4: 1e4 times float64's 2e-16, and 1e-13 of a ratio near zero
    torch.testing.assert_close(log_series(order, kappas), wanted[:, 0], rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(bessel_ratio(order, kappas), wanted[:, 1], rtol=1e-11, atol=1e-13)


def test_at_order_one_half_it_is_elementary() -> None:
    x = torch.logspace(-3, 4, 50, dtype=torch.float64)
    sinh = x + (-torch.expm1(-2 * x)).log() - math.log(2)  # I_{1/2}(x) = sqrt(2 / (pi x)) sinh x
    torch.testing.assert_close(log_series(0.5, x), sinh - x.log(), rtol=1e-13, atol=1e-13)
    # the definition loses digits as x falls: coth x - 1/x are two numbers of size 1/x
    torch.testing.assert_close(bessel_ratio(0.5, x), 1 / x.tanh() - 1 / x, rtol=1e-13, atol=1e-12)


@pytest.mark.parametrize("order", [0.0, 1.0, 15.5, 127.0])
def test_first_and_second_derivatives_are_those_of_finite_differences(order: float) -> None:
    x = torch.tensor([0.05, 1.0, 12.0, 60.0, 300.0], dtype=torch.float64, requires_grad=True)

    def function(value: Tensor) -> Tensor:
        return log_series(order, value)

    assert torch.autograd.gradcheck(function, (x,), eps=1e-5, rtol=1e-6, atol=1e-8)
    assert torch.autograd.gradgradcheck(function, (x,), eps=1e-5, rtol=1e-5, atol=1e-8)


def test_zero_and_float32_are_taken() -> None:
    assert (
        log_series(3.0, torch.zeros(2)).tolist() == [0.0, 0.0]
        and bessel_ratio(3.0, torch.zeros(2)).dtype == torch.float64
    )
