"""A Gaussian of its own for every document: variational inference without amortisation."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import nn

from pyro_nlp.data.batches import Batch


class MeanFieldGuide(PyroModule):
    """q(z_n) = N(mu_n, diag sigma_n^2), parameters per document n.          Hoffman et al. 2013 (arXiv:1206.7051)

    It belongs to the documents it was made for. To judge a model on other documents, make a fresh guide of their
    number and fit it with the model's parameters frozen (`model.requires_grad_(False)`).

    Sites    z  Normal, event [latent]
    Plates   documents (dim -1)

    Args:
        population: number of documents, N.
        latent: size of z.
        scale: initial sigma.
    """

    def __init__(self, population: int, latent: int = 32, scale: float = 1.0) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(population, latent))
        self.log_scale = nn.Parameter(torch.full((population, latent), scale).log())

    def forward(self, batch: Batch) -> None:
        if batch.population != len(self.loc):
            raise ValueError(
                f"MeanFieldGuide: made for {len(self.loc)} documents, given a corpus of {batch.population}. "
                f"Make MeanFieldGuide({batch.population}, ...) and fit it with the model frozen."
            )
        loc, scale = self.loc[batch.index], self.log_scale[batch.index].exp()
        with batch.documents():
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))
