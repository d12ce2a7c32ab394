"""Priors of a continuous code, as parts of a model (layer: nn).

A prior is built as `factory(latent)`; its forward gives a Pyro distribution of event `[latent]` and no batch dimension,
which the plates of the model expand.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_nlp.distributions.autoregressive_normal import AutoregressiveNormal
from pyro_nlp.distributions.von_mises_fisher import HypersphericalUniform


class Prior(nn.Module, ABC):
    """p(z), event `[latent]`, batch ().

    Args:
        latent: size of z.
    """

    zero: Tensor

    def __init__(self, latent: int) -> None:
        super().__init__()
        self.latent = latent
        self.register_buffer("zero", torch.zeros(()), persistent=False)  # knows the device

    @abstractmethod
    def forward(self) -> TorchDistribution:
        """The distribution."""

    def meet(self, guide: nn.Module) -> None:
        """Take note of the model's guide, where the prior is made of it; its parameters stay the guide's."""


class StandardNormal(Prior):
    """N(0, I): the KL of a diagonal Gaussian is in closed form, dimension by dimension."""

    def forward(self) -> TorchDistribution:
        return dist.Normal(self.zero, 1.0).expand([self.latent]).to_event(1)


class MixturePrior(Prior):
    """sum_k w_k N(m_k, diag s_k^2), all learnt: the "MoG" prior of Tomczak and Welling 2018 (arXiv:1705.07120)

    The KL is log q - log p at the draw. At the start the mixture has mean 0 and variance 1 in expectation.

    Args:
        latent: size of z.
        components: Gaussians, K.
    """

    def __init__(self, latent: int, components: int = 50) -> None:
        super().__init__(latent)
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(0.5 * torch.randn(components, latent))
        self.log_scale = nn.Parameter(torch.full((components, latent), 0.5 * math.log(0.75)))

    def forward(self) -> TorchDistribution:
        gaussians = dist.Normal(self.loc, self.log_scale.exp()).to_event(1)
        return dist.MixtureSameFamily(dist.Categorical(logits=self.logits), gaussians)


class AutoregressivePrior(Prior):
    """z_d | z_{d-1} ~ N(alpha z_{d-1}, 1 - alpha^2): the prior of delta-VAE over the dimensions of z
    Razavi et al. 2019 (arXiv:1901.03416)

    A posterior with independent dimensions cannot equal it, so that the KL, in closed form, is never below
    `committed_rate`. (The paper has an autoregression over time, one in each dimension of a sequence of codes.)

    Args:
        latent: size of z.
        alpha: correlation of neighbouring dimensions.

    Raises:
        ValueError: alpha is not between -1 and 1.
    """

    def __init__(self, latent: int, alpha: float = 0.5) -> None:
        super().__init__(latent)
        self.alpha = alpha
        self.committed_rate = AutoregressiveNormal(latent, alpha).committed_rate

    def forward(self) -> TorchDistribution:
        return AutoregressiveNormal(self.latent, self.alpha, self.zero)


class UniformSphere(Prior):
    """Uniform on the unit sphere: the prior of a `VonMisesFisherGuide`           Xu and Durrett 2018 (arXiv:1808.10805)

    Args:
        latent: size of z, at least 2; the sphere has one dimension less.

    Raises:
        ValueError: fewer than two dimensions.
    """

    def __init__(self, latent: int) -> None:
        super().__init__(latent)
        HypersphericalUniform(latent)  # refuses at once what it would refuse at the first batch

    def forward(self) -> TorchDistribution:
        return HypersphericalUniform(self.latent, self.zero)


class VampPrior(Prior):
    """(1/K) sum_k q(z | u_k), u_k learnt: the variational mixture of posteriors
    Tomczak and Welling 2018 (arXiv:1705.07120)

    The u_k stand in for documents: sequences of word vectors, which the guide's own encoder reads. The KL is
    log q - log p at the draw, and its gradient reaches the guide on both sides. The guide is met after both were built
    (`Strategy.compile` sees to it) and is no part of the model: its parameters and its state stay its own. A copy of
    the model has to meet the copy of the guide.

    Args:
        latent: size of z.
        components: pseudo-inputs, K.
        length: word vectors in each, T.
        embedding: size of the word vectors of the guide's encoder.
    """

    def __init__(self, latent: int, components: int = 50, length: int = 12, embedding: int = 256) -> None:
        super().__init__(latent)
        self.inputs = nn.Parameter(torch.empty(components, length, embedding).uniform_(-0.1, 0.1))  # as word vectors
        self._met: tuple[Any, ...] = ()  # within a tuple no module of this one

    def meet(self, guide: nn.Module) -> None:
        """Take the posteriors from `guide`.

        Raises:
            ValueError: a guide that has none at made-up inputs, or word vectors of another size.
        """
        encoder: Any = getattr(guide, "encoder", None)
        if not hasattr(guide, "posterior_of") or not hasattr(encoder, "read"):
            raise ValueError(
                f"VampPrior: found a {type(guide).__name__}, expected a guide with posterior_of(features) and an "
                "encoder with read(vectors, mask): GaussianGuide with LSTMEncoder or GRUEncoder"
            )
        size = self.inputs.shape[-1]
        if encoder.embedding != size:
            raise ValueError(
                f"VampPrior: found pseudo-inputs of {size} numbers a word, and word vectors of {encoder.embedding} in "
                f"the guide's encoder: VampPrior(embedding={encoder.embedding})"
            )
        normalising = next((type(m).__name__ for m in guide.modules() if hasattr(m, "running_mean")), None)
        if normalising:
            raise ValueError(
                f"VampPrior: the guide has a {normalising}, which would normalise pseudo-inputs over each other and "
                "not over documents: choose another head"
            )
        self._met = (guide,)

    def forward(self) -> TorchDistribution:
        if not self._met:
            raise RuntimeError(
                "VampPrior: it is made of the guide's posteriors and has met no guide: call model.meet(guide) first"
            )
        (guide,) = self._met
        mask = torch.ones(self.inputs.shape[:-1], dtype=torch.bool, device=self.inputs.device)
        posteriors = guide.posterior_of(guide.encoder.read(self.inputs, mask))
        return dist.MixtureSameFamily(dist.Categorical(logits=self.zero.expand(len(self.inputs))), posteriors)
