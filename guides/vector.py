"""Gaussian posteriors for models of real vectors: the guides of the ring."""

from __future__ import annotations

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import nn

from pyro_nlp.data.batches import VectorBatch


class VectorGuide(PyroModule):
    """q(z | x) = N(mu(x), L(x) L(x)'), mu and L by a network of two hidden layers.

    Sites    z  MultivariateNormal (or Normal, if `diagonal`), event [latent]
    Plates   documents (dim -1)

    Args:
        dimension: size of x.
        latent: size of z.
        width: size of the hidden layers.
        diagonal: leave out correlations.
    """

    def __init__(self, dimension: int = 2, latent: int = 2, width: int = 64, diagonal: bool = False) -> None:
        super().__init__()
        self.latent, self.diagonal = latent, diagonal
        outputs = 2 * latent if diagonal else latent + latent * latent
        self.network = nn.Sequential(
            nn.Linear(dimension, width),
            nn.Tanh(),
            nn.Linear(width, width),
            nn.Tanh(),
            nn.Linear(width, outputs),
        )

    def forward(self, batch: VectorBatch) -> None:
        loc, rest = self.network(batch.values).tensor_split([self.latent], -1)
        if self.diagonal:
            q = dist.Normal(loc, rest.exp()).to_event(1)
        else:
            square = rest.unflatten(-1, (self.latent, self.latent))
            lower = square.tril(-1) + torch.diag_embed(square.diagonal(dim1=-2, dim2=-1).exp())
            q = dist.MultivariateNormal(loc, scale_tril=lower)
        with batch.documents():
            pyro.sample("z", q)
