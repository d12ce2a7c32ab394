"""The modified Bessel function of the first kind, as spherical distributions need it (layer: distributions).

I_v(x) itself over- and underflows; what is wanted is S_v in I_v(x) = (x/2)^v / Gamma(v+1) S_v(x), which is 1 at 0 and
grows with x, and the ratio I_{v+1} / I_v. Both are here in float64, differentiable as often as one likes: for small x
by the power series, all of whose terms are positive; else by the uniform expansion in the order (Debye's, NIST DLMF
10.41.3) at an order of at least 32, and from there down to v by the recurrence of ratios, stable in that direction.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

_TERMS = 80
"""Of the power series where x^2 <= 64 (v + 1): the last is below 1e-19 of the sum for every v."""
_LEAST = 32
"""Smallest order of the expansion: what its ten coefficients leave out is below 1e-13."""


def log_series(order: float, x: Tensor) -> Tensor:
    """log S_v(x) = log I_v(x) - v log(x/2) + log Gamma(v+1) for x >= 0, of x's shape, in float64.

    Args:
        order: v, at least 0.
        x: any shape.
    """
    return _LogSeries.apply(x.double(), float(order))


def bessel_ratio(order: float, x: Tensor) -> Tensor:
    """I_{v+1}(x) / I_v(x), between 0 and 1, of x's shape, in float64: the derivative of `log_series`."""
    return _Ratio.apply(x.double(), float(order))


class _LogSeries(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, order: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.order = order
        return _both(order, x)[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        return gradient * bessel_ratio(ctx.order, x), None


class _Ratio(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, order: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.order = order
        return _both(order, x)[1]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors
        ratio = bessel_ratio(ctx.order, x)
        return gradient * (1 - ratio.square() - (2 * ctx.order + 1) * ratio / x), None


def _both(order: float, x: Tensor) -> tuple[Tensor, Tensor]:
    """log S_v and the ratio."""
    near = 8 * math.sqrt(order + 1)
    small = x <= near
    low = x.clamp(max=near)
    log_s, log_next = (_power_series(v, low) for v in (order, order + 1))
    ratio = low / (2 * (order + 1)) * (log_next - log_s).exp()
    if bool(small.all()):
        return log_s, ratio
    log_s_far, ratio_far = _expansion(order, x.clamp(min=near))
    return torch.where(small, log_s, log_s_far), torch.where(small, ratio, ratio_far)


def _power_series(order: float, x: Tensor) -> Tensor:
    """log sum_k (x^2/4)^k / (k! (v+1) .. (v+k))."""
    quarter = 0.25 * x.square()
    term = quarter / (order + 1)
    total = term
    for k in range(2, _TERMS):
        term = term * quarter / (k * (order + k))
        total = total + term
    return total.log1p()


def _expansion(order: float, x: Tensor) -> tuple[Tensor, Tensor]:
    steps = max(0, math.ceil(_LEAST - order))
    top = order + steps
    log_s, ratio = _uniform(top, x)
    for j in range(steps):
        above = top - j
        ratio = 1 / (2 * above / x + ratio)  # now I_above / I_(above - 1)
        log_s = log_s - (ratio * (2 * above / x)).log()
    return log_s, ratio


def _uniform(order: float, x: Tensor) -> tuple[Tensor, Tensor]:
    """log S_v and the ratio at a large order. What grows with v is taken out of every difference by hand."""
    z = x / order
    root = (1 + z.square()).sqrt()
    excess = z.square() / (1 + root)  # root - 1
    stirling = math.lgamma(order + 1) - order * math.log(order) + order - 0.5 * math.log(2 * math.pi * order)
    u, v = (_polynomials(coefficients, order, 1 / root) for coefficients in (_FUNCTION, _DERIVATIVE))
    log_s = order * (excess - (0.5 * excess).log1p()) + stirling - 0.5 * root.log() + u.log()
    return log_s, (excess + root * (v - u) / u) / z  # I'_v / I_v - v / x, by DLMF 10.41.5


def _polynomials(coefficients: list[list[float]], order: float, p: Tensor) -> Tensor:
    """sum_k u_k(p) / order^k."""
    total = torch.zeros_like(p)
    for row in reversed(coefficients):
        polynomial = torch.zeros_like(p)
        for c in reversed(row):
            polynomial = polynomial * p + c
        total = total / order + polynomial
    return total


def _coefficients(count: int) -> tuple[list[list[float]], list[list[float]]]:
    """The polynomials u_k and v_k of the expansions of I_v and I'_v, k to `count`, lowest power first, from fractions:

    u_{k+1}(p) = p^2 (1 - p^2) u_k'(p) / 2 + (1/8) int_0^p (1 - 5 t^2) u_k(t) dt                     DLMF 10.41.9
    v_{k+1}(p) = u_{k+1}(p) + (p^3 - p) (u_k(p) / 2 + p u_k'(p))                                      DLMF 10.41.9
    """
    function, derivative = [[Fraction(1)]], [[Fraction(1)]]
    for _ in range(count):
        u = [Fraction(0)] * (len(function[-1]) + 3)
        v = u[:]
        for i, c in enumerate(function[-1]):
            u[i + 1] += c * (Fraction(i, 2) + Fraction(1, 8 * (i + 1)))
            u[i + 3] -= c * (Fraction(i, 2) + Fraction(5, 8 * (i + 3)))
            v[i + 1] -= c * (Fraction(1, 2) + i)
            v[i + 3] += c * (Fraction(1, 2) + i)
        function.append(u)
        derivative.append([a + b for a, b in zip(u, v, strict=True)])
    first, second = ([[float(c) for c in row] for row in rows] for rows in (function, derivative))
    return first, second


_FUNCTION, _DERIVATIVE = _coefficients(10)
