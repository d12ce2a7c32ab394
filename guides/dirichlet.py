"""Dirichlet posteriors over the topics of a document, amortised or one for each document."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import Batch, CountBatch
from pyro_nlp.nn import CountEncoder, Encoder


class DirichletGuide(PyroModule):
    """q(theta | x) = Dirichlet(floor + softplus(a linear map of the encoded document))

    Drawn by implicit reparameterisation (Figurnov et al. 2018, arXiv:1805.08498), so that `Pathwise` serves; its KL
    from a Dirichlet is in closed form.

    Sites    theta  Dirichlet, event [latent]
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        latent: number of topics, K.
        encoder: `encoder(vocabulary)` reads the batch.
        floor: smallest concentration. Far below, draws underflow and the gradient is mostly noise.
    """

    def __init__(
        self,
        vocabulary: int,
        latent: int = 50,
        encoder: Callable[[int], Encoder] = CountEncoder,
        floor: float = 0.01,
    ) -> None:
        super().__init__()
        if not floor > 0:
            raise ValueError(f"DirichletGuide: floor is above 0, not {floor}")
        self.floor = floor
        self.encoder = encoder(vocabulary)
        self.posterior = nn.Linear(self.encoder.width, latent)

    def forward(self, batch: CountBatch) -> None:
        concentration = self.concentration(self.encoder(batch))
        with batch.documents():
            pyro.sample("theta", dist.Dirichlet(concentration))

    def concentration(self, features: Tensor) -> Tensor:
        """Concentrations by the encoder's features, `[B, width]` to `[B, latent]`, in float32 also under autocast."""
        with torch.autocast(features.device.type, enabled=False):
            return self.floor + F.softplus(self.posterior(features.float()))


class MeanFieldDirichletGuide(PyroModule):
    """q(theta_n) = Dirichlet(gamma_n), parameters per document n        Blei et al. 2003 (JMLR 3), section 5.2

    It belongs to the documents it was made for. To judge a model on other documents, make a fresh guide of their
    number and fit it with the model's parameters frozen (`model.requires_grad_(False)`).

    Sites    theta  Dirichlet, event [latent]
    Plates   documents (dim -1)

    Args:
        population: number of documents, N.
        latent: number of topics, K.
        concentration: initial gamma.
        floor: smallest gamma.
    """

    def __init__(self, population: int, latent: int = 50, concentration: float = 1.0, floor: float = 0.01) -> None:
        super().__init__()
        if not 0 < floor < concentration:
            raise ValueError(
                f"MeanFieldDirichletGuide: floor is above 0 and below concentration, not {floor} and {concentration}"
            )
        self.floor = floor
        # the inverse of softplus
        start = torch.full((population, latent), concentration - floor).expm1().log()
        self.gamma = nn.Parameter(start)

    def forward(self, batch: Batch) -> None:
        if batch.population != len(self.gamma):
            raise ValueError(
                f"MeanFieldDirichletGuide: made for {len(self.gamma)} documents, given a corpus of {batch.population}. "
                f"Make MeanFieldDirichletGuide({batch.population}, ...) and fit it with the model frozen."
            )
        concentration = self.floor + F.softplus(self.gamma[batch.index])
        with batch.documents():
            pyro.sample("theta", dist.Dirichlet(concentration))
