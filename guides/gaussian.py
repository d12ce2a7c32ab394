"""Amortised Gaussian posteriors over a continuous code z."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule

from pyro_nlp.data.batches import TextBatch
from pyro_nlp.nn import Encoder, GaussianHead, LSTMEncoder


class GaussianGuide(PyroModule):
    """q(z | x) = N(mu(x), diag sigma(x)^2)                      Kingma and Welling 2014 (arXiv:1312.6114)

    Sites    z  Normal, event [latent]
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        latent: size of z.
        encoder: `encoder(vocabulary)` reads the batch.
    """

    def __init__(self, vocabulary: int, latent: int = 32, encoder: Callable[[int], Encoder] = LSTMEncoder) -> None:
        super().__init__()
        self.encoder = encoder(vocabulary)
        self.posterior = GaussianHead(self.encoder.width, latent)

    def forward(self, batch: TextBatch) -> None:
        loc, scale = self.posterior(self.encoder(batch))
        with batch.documents():
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))
