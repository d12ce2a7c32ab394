"""The embedded topic model of Dieng et al. 2020: topics are points in the space of word vectors."""

from __future__ import annotations

from collections.abc import Mapping

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import CountBatch
from pyro_nlp.distributions import TopicMixture


class ETM(PyroModule):
    """p(z) prod_v (sum_k theta_k beta_kv)^n_v, theta = softmax(z), beta_k = softmax(rho alpha_k)
    Dieng et al. 2020 (arXiv:1907.04907)

    rho are vectors of words and alpha_k of a topic, in one space. With vectors trained elsewhere (`embed`), words that
    the corpus shows rarely or never get their place among the topics from those that are like them.

    Sites    z      Normal(0, 1), event [latent]
             theta  deterministic, event [latent]
             x      TopicMixture, event [V]
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        latent: number of topics, K, and size of z.
        embedding: size of the vectors, E.
        spread: standard deviation of the first logits of words in a topic: topics that begin alike stay alike.
    """

    plates = 1

    def __init__(self, vocabulary: int, latent: int = 50, embedding: int = 300, spread: float = 1.0) -> None:
        super().__init__()
        self.latent = latent
        # word vectors of length one in expectation, which `embed` keeps
        self.words = nn.Parameter(torch.randn(vocabulary, embedding) * embedding**-0.5)
        self.topic_vectors = nn.Parameter(spread * torch.randn(latent, embedding))
        self.register_buffer("zero", torch.zeros(()))

    def embed(self, vectors: Tensor, train: bool = False) -> None:
        """Take word vectors `[V, E]` from elsewhere, scaled to a mean square length of one; fixed unless `train`.

        Raises:
            ValueError: they are not one vector of the model's size for each of its words.
        """
        if vectors.shape != self.words.shape:
            raise ValueError(f"ETM: word vectors are {list(self.words.shape)}, not {list(vectors.shape)}")
        with torch.no_grad():
            self.words.copy_(vectors / vectors.square().sum(-1).mean().sqrt())
        self.words.requires_grad_(train)

    def forward(self, batch: CountBatch) -> None:
        with batch.documents():
            z = pyro.sample("z", dist.Normal(self.zero, 1.0).expand([self.latent]).to_event(1))
            theta = pyro.deterministic("theta", z.softmax(-1), event_dim=1)
            words = TopicMixture(theta, self.log_topics(), batch.counts.sum(-1))
            pyro.sample("x", words, obs=batch.counts)

    def log_topics(self) -> Tensor:
        """log beta, `[K, V]`."""
        return F.linear(self.topic_vectors, self.words).float().log_softmax(-1)

    @property
    def topics_count(self) -> int:
        """Number of topics, K."""
        return self.latent

    def topics(self) -> Tensor:
        """beta, `[K, V]`."""
        return self.log_topics().detach().exp()

    def proportions(self, latents: Mapping[str, Tensor]) -> Tensor:
        """theta, `[..., K]`, of `z` `[..., latent]`."""
        return latents["z"].softmax(-1)
