"""Bijections of a code whose parameters depend on features, for normalising flows (layer: nn).

Pyro's conditional transforms, in float32 also under autocast, and exact at values that they did not make themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pyro.distributions.conditional import ConditionalTransformModule
from pyro.distributions.transforms import ConditionalAffineAutoregressive, ConditionalPlanar
from pyro.nn import ConditionalAutoRegressiveNN, DenseNN
from torch import Tensor, nn
from torch.distributions import Transform, constraints


def conditional_flow(
    kind: Literal["iaf", "planar"], latent: int, width: int, layers: int, hidden: int
) -> list[ConditionalTransformModule]:
    """`layers` transforms of `[..., latent]`, given features `[..., width]` by `condition`; networks of `hidden` units.

    `iaf`: z_d = s_d(u_<d, x) u_d + m_d(u_<d, x), an affine step of inverse autoregressive flow (Kingma et al. 2016,
    arXiv:1606.04934, eq. 10); the order of the dimensions is turned round from layer to layer. A draw takes one pass,
    and another value's density `latent` passes. It starts as the identity.

    `planar`: z = u + a(x) tanh(w(x)' u + b(x)) (Rezende and Mohamed 2015, arXiv:1505.05770, eq. 10), inverted by
    bisection along w.

    Raises:
        ValueError: an unknown kind; too few layers, dimensions or units.
    """
    if layers < 1:
        raise ValueError(f"a flow has at least 1 layer, not {layers}")
    if kind == "planar":
        return [_Planar(DenseNN(width, [hidden], [1, latent, latent])) for _ in range(layers)]
    if kind != "iaf":
        raise ValueError(f"flow is 'iaf' or 'planar', not {kind!r}")
    if latent < 2 or hidden < latent:
        raise ValueError(
            f"an autoregressive flow has at least 2 dimensions and no fewer hidden units than dimensions, not {latent} "
            f"and {hidden}"
        )
    order = torch.arange(latent)
    return [
        ConditionalAffineAutoregressive(_Network(latent, width, hidden, order.flip(0) if layer % 2 else order))
        for layer in range(layers)
    ]


def _full(features: Tensor) -> Tensor:
    return features.to(torch.promote_types(features.dtype, torch.float32))


class _Network(ConditionalAutoRegressiveNN):
    """With smooth units, or the density would have jumps; its last layer starts at zero: scale 1 and shift 0."""

    def __init__(self, latent: int, width: int, hidden: int, order: Any) -> None:
        super().__init__(latent, width, [hidden], permutation=order, nonlinearity=nn.ELU())
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, context: Tensor) -> Sequence[Tensor] | Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x, _full(context))


class _Planar(ConditionalPlanar):
    """Pyro's planar transform with an inverse."""

    def condition(self, context: Tensor) -> Transform:
        with torch.autocast(context.device.type, enabled=False):
            bias, u, w = self.nn(_full(context))
        return _Plane(bias[..., 0], u, w)


class _Plane(Transform):
    """z = x + a tanh(w' x + b), where a = u + (softplus(w'u) - 1 - w'u) w / |w|^2 keeps w'a above -1."""

    domain = constraints.real_vector
    codomain = constraints.real_vector
    bijective = True

    def __init__(self, bias: Tensor, u: Tensor, w: Tensor) -> None:
        super().__init__(cache_size=1)
        along = (u * w).sum(-1)
        self.bias, self.w = bias, w
        self.slope = nn.functional.softplus(along) - 1  # w'a
        self.a = u + ((self.slope - along) / w.square().sum(-1))[..., None] * w

    def _call(self, x: Tensor) -> Tensor:
        return x + self.a * ((self.w * x).sum(-1) + self.bias).tanh()[..., None]

    def _inverse(self, y: Tensor) -> Tensor:
        target = (self.w * y).sum(-1)  # of s = w'x:  s + slope tanh(s + b) = target, which rises with s
        with torch.no_grad():
            reach = self.slope.abs().double() + 1
            low, high = target.double() - reach, target.double() + reach
            for _ in range(60):
                middle = 0.5 * (low + high)
                above = middle + self.slope * (middle + self.bias).tanh() > target
                low, high = torch.where(above, low, middle), torch.where(above, middle, high)
            s = (0.5 * (low + high)).to(y.dtype)
            act = (s + self.bias).tanh()
            rise = 1 + self.slope * (1 - act.square())
        # one step of Newton, which carries the gradient of the root
        s = s - (s + self.slope * (s + self.bias).tanh() - target) / rise
        return y - self.a * (s + self.bias).tanh()[..., None]

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        act = ((self.w * x).sum(-1) + self.bias).tanh()
        return (self.slope * (1 - act.square())).log1p()
