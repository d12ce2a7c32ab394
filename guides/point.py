"""A point in place of a posterior: with it a latent-variable model becomes an autoencoder."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import nn

from pyro_nlp.data.batches import TextBatch
from pyro_nlp.nn import Encoder, LSTMEncoder


class PointGuide(PyroModule):
    """q(z | x) = delta(z - c(x)): amortised maximum a posteriori.

    Its log-density counts as zero, so evaluation reports reconstruction and no likelihood ("no density").

    Sites    z  Delta, event [latent]
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        latent: size of z.
        encoder: `encoder(vocabulary)` reads the batch.
    """

    def __init__(self, vocabulary: int, latent: int = 32, encoder: Callable[[int], Encoder] = LSTMEncoder) -> None:
        super().__init__()
        self.encoder = encoder(vocabulary)
        self.code = nn.Linear(self.encoder.width, latent)

    def forward(self, batch: TextBatch) -> None:
        code = self.code(self.encoder(batch)).float()
        with batch.documents():
            pyro.sample("z", dist.Delta(code, event_dim=1))
