"""Last layers of a guide: features to the parameters of a posterior (layer: nn).

A head of a diagonal Gaussian is built as `factory(width, latent)`. Some make a posterior equal to the prior impossible.
All work in float32 also under autocast, and take any left batch dimensions.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Head(nn.Module, ABC):
    """Features to the mean and standard deviation of a diagonal Gaussian.

    Shapes: `[..., width]` to two of `[..., latent]`.
    """

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(features.device.type, enabled=False):
            return self.moments(features.float())

    @abstractmethod
    def moments(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation by float32 features; autocast is off."""


class GaussianHead(Head):
    """Features to the mean and standard deviation of a diagonal Gaussian, in float32 also under autocast.

    Shapes: `[..., width]` to two of `[..., latent]`. The log-variance starts at zero.
    """

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        self.loc, self.log_variance = nn.Linear(width, latent), _zero(nn.Linear(width, latent))

    def moments(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.loc(features), (0.5 * self.log_variance(features)).exp()


EPSILON = 1e-12
"""What batch normalisation adds to the variance."""


class BatchNormHead(Head):
    """A `GaussianHead` whose means are normalised over the batch: BN-VAE        Zhu et al. 2020 (arXiv:2004.12585)

    mu_d = gamma (m_d - mean(m_d)) / sd(m_d) + beta_d, with gamma fixed and beta learnt. Over the documents of a batch
    the mean KL from N(0, 1) is then at least latent (gamma^2 + mean_d beta_d^2) / 2, whatever the encoder does, as long
    as it tells the documents of a batch apart. What is added to the variance is 1e-12: with PyTorch's 1e-5 an encoder
    of the Penn Treebank, whose m_d begin with a variance of that size, got below the floor by keeping them small.

    In evaluation mode, and for a batch of one, the running statistics take the place of the batch's. They are updated
    where gradients are kept only, so that looking at a guide in training does not change it. Under `torchrun` every
    process normalises over its own documents.

    Args:
        width: size of the features.
        latent: size of z.
        gamma: weight of the normalised mean; the paper's results are of 0.5 to 0.7.
        momentum: of the running statistics.

    Raises:
        ValueError: gamma is not positive.
    """

    running_mean: Tensor
    running_variance: Tensor
    weight: Tensor

    def __init__(self, width: int, latent: int, gamma: float = 0.6, momentum: float = 0.1) -> None:
        super().__init__()
        if not gamma > 0:
            raise ValueError(f"BatchNormHead: gamma is the spread of the posterior means, above 0, not {gamma}")
        self.momentum = momentum
        # a bias before the normalisation would be subtracted by it
        self.loc, self.log_variance = nn.Linear(width, latent, bias=False), _zero(nn.Linear(width, latent))
        self.bias = nn.Parameter(torch.zeros(latent))
        self.register_buffer("weight", torch.full((latent,), gamma))
        self.register_buffer("running_mean", torch.zeros(latent))
        self.register_buffer("running_variance", torch.ones(latent))

    def moments(self, features: Tensor) -> tuple[Tensor, Tensor]:
        loc = self.loc(features)
        rows = loc.reshape(-1, loc.shape[-1])
        over_batch = self.training and len(rows) > 1
        learn = over_batch and torch.is_grad_enabled()
        mean, variance = (self.running_mean, self.running_variance) if learn or not over_batch else (None, None)
        normal = F.batch_norm(rows, mean, variance, self.weight, self.bias, over_batch, self.momentum, EPSILON)
        return normal.view_as(loc), (0.5 * self.log_variance(features)).exp()


class CommittedHead(Head):
    """A `GaussianHead` with a KL of at least delta in every dimension, as in the independent delta-VAE
    of Razavi et al. 2019 (arXiv:1901.03416), by a parametrisation of our own.

    A Gaussian of variance v has KL(N(mu, v) || N(0, 1)) = (mu^2 + v - log v - 1) / 2 >= (v - log v - 1) / 2, which
    falls in v below 1: any mean and any v up to the root v_delta < 1 of (v - log v - 1) / 2 = delta keep the rate.
    Here log v = log v_delta - softplus(linear): the scale alone is committed, the mean is free and everything smooth.
    What this leaves out is posteriors wider than v_delta with a mean far from 0. A rate is not information: an encoder
    may pay it and say nothing (see the mutual information).

    Args:
        width: size of the features.
        latent: size of z.
        delta: nats that every dimension costs at least.

    Raises:
        ValueError: delta is not positive.
    """

    def __init__(self, width: int, latent: int, delta: float = 0.1) -> None:
        super().__init__()
        if not 0 < delta < math.inf:
            raise ValueError(f"CommittedHead: delta is a rate in nats per dimension, above 0, not {delta}")
        self.loc, self.narrowing = nn.Linear(width, latent), _zero(nn.Linear(width, latent))
        self.largest = _committed_log_variance(delta)

    def moments(self, features: Tensor) -> tuple[Tensor, Tensor]:
        log_variance = self.largest - F.softplus(self.narrowing(features))
        return self.loc(features), (0.5 * log_variance).exp()


def _committed_log_variance(delta: float) -> float:
    """The root u < 0 of (e^u - u - 1) / 2 = delta, less float32's rounding of it."""
    low, high = -2 * delta - 1.0, 0.0  # at -2 delta - 1 the KL is delta + e^u / 2
    while high - low > 1e-15 * (1 - low):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        # expm1(u) - u is u^2 / 2 near 0, and e^u - u - 1 would be nothing but rounding there
        low, high = (middle, high) if 0.5 * (math.expm1(middle) - middle) > delta else (low, middle)
    return low * (1 + 2e-6)


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class CategoricalHead(nn.Module):
    """Features to logits of a categorical, in float32 also under autocast.

    Shapes: `[..., width]` to `[..., classes]`. The weights start small: near the uniform distribution, where no class
    is given up early, yet not at it, so that the encoder gets a gradient from the first step.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.logits = nn.Linear(width, classes)
        nn.init.normal_(self.logits.weight, std=0.1 * width**-0.5)
        nn.init.zeros_(self.logits.bias)

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = self.logits(features.float())
            return logits
