"""Amortised posteriors over a code on the unit sphere."""

from __future__ import annotations

import math
from collections.abc import Callable

import pyro
import torch
import torch.nn.functional as F
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import TextBatch
from pyro_nlp.distributions.von_mises_fisher import VonMisesFisher
from pyro_nlp.nn import Encoder, LSTMEncoder


class VonMisesFisherGuide(PyroModule):
    """q(z | x) = vMF(mu(x), kappa), on the sphere |z| = 1                Xu and Durrett 2018 (arXiv:1808.10805)

    For a model with `prior=UniformSphere`; drawn by rejection (Wood 1994). With kappa fixed the KL is a constant of
    kappa and latent, which training cannot lower; with kappa(x) learnt (Davidson et al. 2018, arXiv:1804.00891) it can
    fall to zero.

    Sites    z  VonMisesFisher, event [latent]
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        latent: size of z, at least 2.
        encoder: `encoder(vocabulary)` reads the batch.
        concentration: kappa; where it is learnt, at the start.
        learn_concentration: let kappa depend on the document.

    Raises:
        ValueError: fewer than two dimensions, or a concentration that is not positive.
    """

    concentration: Tensor

    def __init__(
        self,
        vocabulary: int,
        latent: int = 32,
        encoder: Callable[[int], Encoder] = LSTMEncoder,
        concentration: float = 20.0,
        learn_concentration: bool = False,
    ) -> None:
        super().__init__()
        if latent < 2:
            raise ValueError(f"a sphere has 2 dimensions or more, not {latent}: set latent of model and guide")
        if not 0 < concentration < math.inf:
            raise ValueError(f"VonMisesFisherGuide: concentration is a number above 0, not {concentration}")
        self.encoder = encoder(vocabulary)
        self.direction = nn.Linear(self.encoder.width, latent)
        self.spread = nn.Linear(self.encoder.width, 1) if learn_concentration else None
        if self.spread is not None:
            nn.init.zeros_(self.spread.weight)
            # softplus of it is the concentration; log(expm1(x)) = x + log(1 - e^-x)
            nn.init.constant_(self.spread.bias, concentration + math.log(-math.expm1(-concentration)))
        self.register_buffer("concentration", torch.tensor(float(concentration)))

    def forward(self, batch: TextBatch) -> None:
        q = self.posterior_of(self.encoder(batch))
        with batch.documents():
            pyro.sample("z", q)

    def posterior_of(self, features: Tensor) -> TorchDistribution:
        """q(z | x) by the encoder's features of x, `[B, width]`; in float32 also under autocast."""
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            loc = F.normalize(self.direction(features), dim=-1)
            kappa = self.concentration
            if self.spread is not None:
                kappa = F.softplus(self.spread(features)[..., 0]) + 1e-3  # never zero
            return VonMisesFisher(loc, kappa)
