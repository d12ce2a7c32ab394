"""The three topic models of Miao et al. 2017: shares of topics by softmax, by sticks, and by sticks in a row."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pyro
import pyro.distributions as dist
import torch
import torch.nn.functional as F
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import CountBatch
from pyro_nlp.distributions import TopicMixture


class GSM(PyroModule):
    """p(z) prod_v (sum_k theta_k beta_kv)^n_v, theta = softmax(W z)      Miao et al. 2017 (arXiv:1706.00359)

    The Gaussian softmax model. beta_k = softmax(t_k . v), a topic's vector against the words'. Where these vectors
    start small every topic starts as the same distribution, theta changes nothing, and its posterior has become the
    prior before topics have parted: so GSM nearly collapses. Here t_k . v starts with a standard deviation of `spread`.

    Sites    z      Normal(0, 1), event [latent]
             theta  deterministic, event [latent]
             x      TopicMixture, event [V]
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        latent: number of topics, K, and size of z.
        embedding: size of the vectors of topics and words.
        spread: standard deviation of the first logits of words in a topic.
    """

    plates = 1

    def __init__(
        self,
        vocabulary: int,
        latent: int = 50,
        embedding: int = 128,
        spread: float = 1.0,
    ) -> None:
        super().__init__()
        self.latent = latent
        each = math.sqrt(spread) * embedding**-0.25  # of both, so that their product has the spread
        self.topic_vectors = nn.Parameter(each * torch.randn(latent, embedding))
        self.word_vectors = nn.Parameter(each * torch.randn(vocabulary, embedding))
        self.register_buffer("zero", torch.zeros(()))
        self.build(latent)

    def build(self, latent: int) -> None:
        """What theta is made with."""
        self.shares = nn.Linear(latent, latent)
        nn.init.eye_(self.shares.weight)
        nn.init.zeros_(self.shares.bias)

    def forward(self, batch: CountBatch) -> None:
        with batch.documents():
            z = pyro.sample("z", dist.Normal(self.zero, 1.0).expand([self.latent]).to_event(1))
            theta = pyro.deterministic("theta", self.theta(z), event_dim=1)
            words = TopicMixture(theta, self.log_topics(), batch.counts.sum(-1))
            pyro.sample("x", words, obs=batch.counts)

    def theta(self, z: Tensor) -> Tensor:
        """Shares of the topics, `[..., latent]` to `[..., K]`."""
        return self.shares(z).float().softmax(-1)

    def log_topics(self) -> Tensor:
        """log beta, `[K, V]`."""
        return F.linear(self.topic_vectors, self.word_vectors).float().log_softmax(-1)

    @property
    def topics_count(self) -> int:
        """Number of topics, K."""
        return self.latent

    def topics(self) -> Tensor:
        """beta, `[K, V]`."""
        return self.log_topics().detach().exp()

    def proportions(self, latents: Mapping[str, Tensor]) -> Tensor:
        """theta, `[..., K]`, of `z` `[..., latent]`."""
        return self.theta(latents["z"])


class GSB(GSM):
    """p(z) prod_v (sum_k theta_k beta_kv)^n_v, theta by sticks           Miao et al. 2017 (arXiv:1706.00359)

    The Gaussian stick-breaking model: theta_k = eta_k prod_{j<k} (1 - eta_j), eta = sigmoid(W z + b), and the last
    topic has what is left. With b = 0, as in the paper, a stick is halved 49 times and most of 50 topics start with
    nothing; b_k starts at -log(K - k), which at z = 0 breaks it into equal parts.

    Sites, plates and arguments as in `GSM`.
    """

    def build(self, latent: int) -> None:
        if latent < 2:
            raise ValueError(f"{type(self).__name__}: a stick is broken into at least 2 topics, latent is {latent}")
        self.breaks = nn.Linear(latent, latent - 1)
        nn.init.eye_(self.breaks.weight)
        with torch.no_grad():
            self.breaks.bias.copy_(even_breaks(latent))

    def theta(self, z: Tensor) -> Tensor:
        return stick_breaking(self.breaks(z))


class RSB(GSM):
    """p(z) prod_v (sum_k theta_k beta_kv)^n_v, theta by sticks in a row  Miao et al. 2017 (arXiv:1706.00359)

    The recurrent stick-breaking model: theta_k = eta_k prod_{j<k} (1 - eta_j), eta_k = sigmoid(h_k . z / sqrt(K) +
    b_k), where h_k = tanh(U h_{k-1} + u) and b_k is fixed at -log(K - k) (0 in the paper; see `GSB`). No parameter
    belongs to one break, so U and u, and the sticks they break, could go on for ever.

    Sites, plates and arguments as in `GSM`.
    """

    def build(self, latent: int) -> None:
        if latent < 2:
            raise ValueError(f"{type(self).__name__}: a stick is broken into at least 2 topics, latent is {latent}")
        self.first = nn.Parameter(torch.randn(latent).tanh())
        self.next = nn.Linear(latent, latent)
        # a rotation, grown against tanh: breaks that follow each other look in different directions, and do not die out
        nn.init.orthogonal_(self.next.weight, gain=1.5)
        self.register_buffer("even", even_breaks(latent))

    def theta(self, z: Tensor) -> Tensor:
        states: list[Tensor] = [self.first]
        for _ in range(self.latent - 2):
            states.append(self.next(states[-1]).tanh())
        return stick_breaking(F.linear(z, self.latent**-0.5 * torch.stack(states), self.even))


def even_breaks(topics: int) -> Tensor:
    """Logits that break a stick into equal parts: sigmoid(-log(K - k)) = 1 / (K - k + 1) of what is left, `[K - 1]`."""
    return -torch.arange(topics - 1, 0, -1.0).log()


def stick_breaking(logits: Tensor) -> Tensor:
    """theta_k = sigmoid(logits_k) prod_{j<k} sigmoid(-logits_j), and the rest: `[..., K - 1]` to `[..., K]`."""
    logits = logits.float()
    broken = F.pad(F.logsigmoid(logits), (0, 1))
    left = F.pad(F.logsigmoid(-logits).cumsum(-1), (1, 0))
    return (broken + left).exp()
