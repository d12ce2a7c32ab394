"""Amortised posteriors over a continuous code, bent by a normalising flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import pyro
import pyro.distributions as dist
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import TextBatch
from pyro_nlp.distributions.flow import Flow
from pyro_nlp.nn import Encoder, GaussianHead, Head, LSTMEncoder
from pyro_nlp.nn.flows import conditional_flow


class FlowGuide(PyroModule):
    """z = T_x(u), u ~ N(mu(x), diag sigma(x)^2): posteriors with correlations and tails of their own

    Kingma et al. 2016 (arXiv:1606.04934) for `iaf`, Rezende and Mohamed 2015 (arXiv:1505.05770) for `planar`. All of T
    depends on the document. The KL is log q - log p at the draw, and a draw's own density costs nothing more; that of a
    value from elsewhere (replays, `stl`) takes as many passes as z has dimensions under `iaf`.

    Sites    z  Flow, event [latent]
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        latent: size of z.
        encoder: `encoder(vocabulary)` reads the batch.
        head: `head(width, latent)` gives mean and scale of u.
        flow: kind of transform, see `pyro_nlp.nn.flows.conditional_flow`.
        layers: transforms one after the other.
        hidden: units of the network in each; at least `latent` under `iaf`.
    """

    def __init__(
        self,
        vocabulary: int,
        latent: int = 32,
        encoder: Callable[[int], Encoder] = LSTMEncoder,
        head: Callable[[int, int], Head] = GaussianHead,
        flow: Literal["iaf", "planar"] = "iaf",
        layers: int = 2,
        hidden: int = 128,
    ) -> None:
        super().__init__()
        self.encoder = encoder(vocabulary)
        self.posterior = head(self.encoder.width, latent)
        self.flow = nn.ModuleList(conditional_flow(flow, latent, self.encoder.width, layers, hidden))

    def forward(self, batch: TextBatch) -> None:
        q = self.posterior_of(self.encoder(batch))
        with batch.documents():
            pyro.sample("z", q)

    def posterior_of(self, features: Tensor) -> TorchDistribution:
        """q(z | x) by the encoder's features of x, `[B, width]`."""
        loc, scale = self.posterior(features)
        steps: Any = self.flow
        return Flow(dist.Normal(loc, scale).to_event(1), [step.condition(features) for step in steps])
