"""Two topic models of Srivastava and Sutton 2017: a product of experts in place of LDA's mixture, and the mixture."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.distributions import TorchDistribution
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import CountBatch
from pyro_nlp.distributions import BagOfWords, TopicMixture
from pyro_nlp.nn import BatchNorm


class ProdLDA(PyroModule):
    """p(theta) prod_v p(v | theta)^n_v, p(v | theta) = softmax(BN(theta beta))_v
    Srivastava and Sutton 2017 (arXiv:1703.01488)

    A product of topics, each an unnormalised beta_k: prod_k p_k(v)^theta_k. The prior of theta = softmax(z) is the
    Laplace approximation in the softmax basis of a symmetric Dirichlet(a), which is N(0, (1 - 1/K) / a) in every
    dimension; or the Dirichlet itself.

    BN, without a learnt scale, has moments of the batch in training: there the likelihood of a document depends on the
    others of its batch (and on their particles), and the bound is one of the whole batch. In evaluation mode the
    running moments are constants, so every reported bound is one of a document. Dropout on theta is a part of training
    too.

    Sites    z      Normal(0, sqrt((1 - 1/K) / a)), event [latent]; with prior="dirichlet" there is none
             theta  deterministic, or Dirichlet(a), event [latent]
             x      BagOfWords, event [V]
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        latent: number of topics, K, at least 2, and size of z.
        concentration: a, of the symmetric Dirichlet.
        prior: `laplace`, for a Gaussian guide; `dirichlet`, for a Dirichlet one.
        dropout: rate on theta.
    """

    plates = 1

    def __init__(
        self,
        vocabulary: int,
        latent: int = 50,
        concentration: float = 1.0,
        prior: Literal["laplace", "dirichlet"] = "laplace",
        dropout: float = 0.6,
    ) -> None:
        super().__init__()
        if latent < 2 or not concentration > 0:
            kind = type(self).__name__
            raise ValueError(
                f"{kind}: latent is at least 2 and concentration above 0, not {latent} and {concentration}"
            )
        self.latent, self.exact = latent, prior == "dirichlet"
        self.weights = nn.Parameter(torch.empty(latent, vocabulary))
        nn.init.xavier_uniform_(self.weights)
        self.dropout = nn.Dropout(dropout)
        # (1/a) (1 - 2/K) + (1/K^2) sum_i 1/a_i, where all a_i are the same
        self.register_buffer("scale", torch.tensor(math.sqrt((1 - 1 / latent) / concentration)))
        self.register_buffer("concentration", torch.full((latent,), float(concentration)))
        self.build(vocabulary)

    def build(self, vocabulary: int) -> None:
        """What turns weights into probabilities."""
        self.norm = BatchNorm(vocabulary, scale=False)

    def forward(self, batch: CountBatch) -> None:
        with batch.documents():
            if self.exact:
                theta = pyro.sample("theta", dist.Dirichlet(self.concentration))
            else:
                z = pyro.sample("z", dist.Normal(0.0, self.scale).expand([self.latent]).to_event(1))
                theta = pyro.deterministic("theta", z.softmax(-1), event_dim=1)
            pyro.sample("x", self.words(theta, batch.counts.sum(-1)), obs=batch.counts)

    def words(self, theta: Tensor, total: Tensor) -> TorchDistribution:
        """The document's words by its shares of topics `[..., K]`."""
        return BagOfWords(self.norm(self.dropout(theta) @ self.weights), total)

    @property
    def topics_count(self) -> int:
        """Number of topics, K."""
        return self.latent

    def topics(self) -> Tensor:
        """softmax(beta_k), `[K, V]`: each topic as if alone, before BN. The model never mixes these distributions."""
        return self.weights.detach().softmax(-1)

    def proportions(self, latents: Mapping[str, Tensor]) -> Tensor:
        """theta, `[..., K]`, of `z` or `theta` `[..., latent]`."""
        return latents["theta"] if self.exact else latents["z"].softmax(-1)


class NVLDA(ProdLDA):
    """p(theta) prod_v (sum_k theta_k beta_kv)^n_v, beta = softmax(BN(weights))
    Srivastava and Sutton 2017 (arXiv:1703.01488)

    LDA's likelihood with ProdLDA's prior. BN is over topics: of every word's K weights, which are parameters, so that
    documents are not coupled and there is nothing to average while training. Topics that dropout leaves share the
    document between them (the published code lets the shares sum to something else).

    Sites    z      Normal(0, sqrt((1 - 1/K) / a)), event [latent]; with prior="dirichlet" there is none
             theta  deterministic, or Dirichlet(a), event [latent]
             x      TopicMixture, event [V]
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        latent: number of topics, K, at least 2, and size of z.
        concentration: a, of the symmetric Dirichlet.
        prior: `laplace`, for a Gaussian guide; `dirichlet`, for a Dirichlet one.
        dropout: rate on theta.
    """

    def __init__(
        self,
        vocabulary: int,
        latent: int = 50,
        concentration: float = 1.0,
        prior: Literal["laplace", "dirichlet"] = "laplace",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(vocabulary, latent, concentration, prior, dropout)

    def build(self, vocabulary: int) -> None:
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def words(self, theta: Tensor, total: Tensor) -> TorchDistribution:
        if self.training and self.dropout.p:
            kept = self.dropout(theta)
            kept = torch.where(kept.sum(-1, keepdim=True) > 0, kept, theta)  # where none is left, all are
            theta = kept / kept.sum(-1, keepdim=True)
        return TopicMixture(theta, self.log_topics(), total)

    def log_topics(self) -> Tensor:
        """log beta, `[K, V]`."""
        return F.batch_norm(self.weights, None, None, None, self.bias, training=True).log_softmax(-1)

    def topics(self) -> Tensor:
        """beta, `[K, V]`."""
        return self.log_topics().detach().exp()
