"""Amortised Gaussian posteriors over a continuous code z."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor

from pyro_nlp.data.batches import TextBatch
from pyro_nlp.nn import Encoder, GaussianHead, Head, LSTMEncoder


class GaussianGuide(PyroModule):
    """q(z | x) = N(mu(x), diag sigma(x)^2)                      Kingma and Welling 2014 (arXiv:1312.6114)

    Sites    z  Normal, event [latent]
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        latent: size of z.
        encoder: `encoder(vocabulary)` reads the batch.
        head: `head(width, latent)` gives mean and scale; `BatchNormHead` and `CommittedHead` keep the KL from zero.
    """

    def __init__(
        self,
        vocabulary: int,
        latent: int = 32,
        encoder: Callable[[int], Encoder] = LSTMEncoder,
        head: Callable[[int, int], Head] = GaussianHead,
    ) -> None:
        super().__init__()
        self.encoder = encoder(vocabulary)
        self.posterior = head(self.encoder.width, latent)

    def forward(self, batch: TextBatch) -> None:
        q = self.posterior_of(self.encoder(batch))
        with batch.documents():
            pyro.sample("z", q)

    def posterior_of(self, features: Tensor) -> TorchDistribution:
        """q(z | x) by the encoder's features of x, `[B, width]`."""
        loc, scale = self.posterior(features)
        return dist.Normal(loc, scale).to_event(1)
