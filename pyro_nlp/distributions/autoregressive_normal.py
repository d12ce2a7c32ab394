"""A Gaussian whose dimensions follow each other as a first-order autoregression (layer: distributions)."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Tensor
from torch.distributions import Independent, Normal, register_kl


class AutoregressiveNormal(TorchDistribution):
    """z_1 ~ N(0, 1),  z_d | z_{d-1} ~ N(alpha z_{d-1}, 1 - alpha^2):  AR(1), every dimension of variance 1.

    Its correlations are alpha^|d - e|. No Gaussian with independent dimensions equals it: see `committed_rate`. The KL
    from those is in closed form.

    Shapes: batch shape (), event `[D]`.

    Args:
        dimension: D.
        alpha: correlation of neighbours, between -1 and 1.
        like: a tensor of the wanted type and on the wanted device; float32 on the CPU without it.

    Raises:
        ValueError: alpha is not between -1 and 1.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)
    support = constraints.real_vector
    has_rsample = True

    def __init__(
        self, dimension: int, alpha: float, like: Tensor | None = None, batch_shape: torch.Size = torch.Size()
    ) -> None:
        if not -1 < alpha < 1:
            raise ValueError(f"AutoregressiveNormal: alpha is a correlation, between -1 and 1, not {alpha}")
        self.alpha, self.like = alpha, torch.zeros(()) if like is None else like
        super().__init__(batch_shape, torch.Size([dimension]), validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> AutoregressiveNormal:
        return AutoregressiveNormal(self.event_shape[0], self.alpha, self.like, torch.Size(batch_shape))

    @property
    def innovations(self) -> Tensor:
        """Variance of every dimension given the one before, `[D]`."""
        variance = torch.full(self.event_shape, 1 - self.alpha**2, dtype=self.like.dtype, device=self.like.device)
        variance[0] = 1.0
        return variance

    @property
    def committed_rate(self) -> float:
        """The least KL(q || this) of all Gaussians q with independent dimensions, in nats:

        ((D - 2) log(1 + alpha^2) - log(1 - alpha^2)) / 2  for D >= 2            Razavi et al. 2019 (arXiv:1901.03416)

        At the least, q has mean 0 and the precisions of this distribution's diagonal.
        """
        dimension = self.event_shape[0]
        if dimension == 1:
            return 0.0
        return 0.5 * ((dimension - 2) * math.log1p(self.alpha**2) - math.log1p(-(self.alpha**2)))

    def _residuals(self, value: Tensor) -> Tensor:
        """z_d - alpha z_{d-1}, and z_1."""
        return torch.cat([value[..., :1], value[..., 1:] - self.alpha * value[..., :-1]], -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """In nats, `[...]`."""
        variance = self.innovations
        found = -0.5 * (self._residuals(value).square() / variance + (2 * math.pi * variance).log()).sum(-1)
        return found.expand(torch.broadcast_shapes(found.shape, self.batch_shape))

    @property
    def mean(self) -> Tensor:
        """Zero, `[..., D]`."""
        return self.like.new_zeros(self.batch_shape + self.event_shape)

    @property
    def variance(self) -> Tensor:
        """One, `[..., D]`."""
        return self.like.new_ones(self.batch_shape + self.event_shape)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = torch.randn(shape, dtype=self.like.dtype, device=self.like.device) * self.innovations.sqrt()
        drawn = [noise[..., 0]]
        for d in range(1, shape[-1]):
            drawn.append(self.alpha * drawn[-1] + noise[..., d])
        return torch.stack(drawn, -1)


@register_kl(Independent, AutoregressiveNormal)
def _kl_diagonal(q: Independent[Any], p: AutoregressiveNormal) -> Tensor:
    """sum_d [log t_d - log s_d^2 - 1 + ((m_d - alpha m_{d-1})^2 + s_d^2 + alpha^2 s_{d-1}^2) / t_d] / 2

    of N(m, diag s^2) from an autoregression with innovations t.
    """
    if not isinstance(q.base_dist, Normal) or q.reinterpreted_batch_ndims != 1:
        raise NotImplementedError
    variance, innovation = q.base_dist.variance, p.innovations
    before = torch.cat([torch.zeros_like(variance[..., :1]), variance[..., :-1]], -1)
    expected = p._residuals(q.base_dist.mean).square() + variance + p.alpha**2 * before
    kl = 0.5 * (innovation.log() - variance.log() - 1 + expected / innovation).sum(-1)
    return kl.expand(torch.broadcast_shapes(kl.shape, p.batch_shape))
