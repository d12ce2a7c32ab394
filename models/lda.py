"""Latent Dirichlet allocation (Blei et al. 2003), its topic assignments summed out, by hand or by Pyro."""

from __future__ import annotations

from collections.abc import Mapping

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import CountBatch
from pyro_nlp.distributions import TopicMixture


class LDA(PyroModule):
    """p(theta) prod_v (sum_k theta_k beta_kv)^n_v                       Blei et al. 2003 (JMLR 3)

    Every word has a topic of its own, drawn from theta; summed out, what is left is a mixture of the topics for each
    word. Topics are parameters, as in the paper's section 5.3, and have no prior.

    Sites    theta  Dirichlet(a), event [latent]
             x      TopicMixture, event [V]
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        latent: number of topics, K.
        concentration: a, of a symmetric Dirichlet. Below 1 a document has few topics.
        learn_concentration: fit one for each topic, from there.
        spread: standard deviation of the first logits of words in a topic: topics that begin alike stay alike.
    """

    plates = 1

    def __init__(
        self,
        vocabulary: int,
        latent: int = 50,
        concentration: float = 0.1,
        learn_concentration: bool = False,
        spread: float = 1.0,
    ) -> None:
        super().__init__()
        if not concentration > 0:
            raise ValueError(f"{type(self).__name__}: concentration is above 0, not {concentration}")
        self.latent = latent
        self.log_concentration = nn.Parameter(
            torch.full((latent,), float(concentration)).log(), requires_grad=learn_concentration
        )
        self.weights = nn.Parameter(spread * torch.randn(latent, vocabulary))

    def forward(self, batch: CountBatch) -> None:
        with batch.documents():
            theta = pyro.sample("theta", dist.Dirichlet(self.log_concentration.exp()))
            pyro.sample("x", TopicMixture(theta, self.log_topics(), batch.counts.sum(-1)), obs=batch.counts)

    def log_topics(self) -> Tensor:
        """log beta, `[K, V]`."""
        return self.weights.log_softmax(-1)

    @property
    def topics_count(self) -> int:
        """Number of topics, K."""
        return self.latent

    def topics(self) -> Tensor:
        """beta, `[K, V]`."""
        return self.log_topics().detach().exp()

    def proportions(self, latents: Mapping[str, Tensor]) -> Tensor:
        """theta, `[..., K]`: the latent itself."""
        return latents["theta"]


class EnumeratedLDA(LDA):
    """p(theta) prod_t p(k_t | theta) p(w_t | k_t), assignments enumerated by Pyro      Blei et al. 2003 (JMLR 3)

    The same model and the same parameters with every word's topic a site, for a guide of theta alone and
    `Strategy(discrete=Marginalize())`, with `bound=PyroELBO("TraceEnum_ELBO")` by Pyro: a check of `LDA`, and a place
    to begin from where a word's topic is to depend on more than theta. It holds `[K, T, B, V]` numbers.

    Sites    theta  Dirichlet(a), event [latent]
             k      Categorical, enumerated in parallel, one for each word
             x      Categorical, one for each word, padding masked out
    Plates   words (dim -2), documents (dim -1)

    Args:
        vocabulary: number of words.
        latent: number of topics, K.
        concentration: a, of a symmetric Dirichlet.
        learn_concentration: fit one for each topic, from there.
        spread: standard deviation of the first logits of words in a topic.
    """

    plates = 2

    def forward(self, batch: CountBatch) -> None:
        words, mask = spelled_out(batch.counts)
        with batch.documents():
            theta = pyro.sample("theta", dist.Dirichlet(self.log_concentration.exp()))
            with pyro.plate("words", len(words), dim=-2):
                # a topic of padding is drawn too: it sums to one. Masked, it would count as often as there are topics
                k = pyro.sample("k", dist.Categorical(theta), infer={"enumerate": "parallel"})
                pyro.sample("x", dist.Categorical(logits=self.log_topics()[k]).mask(mask), obs=words)


def spelled_out(counts: Tensor) -> tuple[Tensor, Tensor]:
    """The words of each document one by one, in the order of their ids: ids and mask, both `[T, B]`."""
    totals = counts.sum(-1).long()
    words = torch.zeros(int(totals.max()), len(counts), dtype=torch.long, device=counts.device)
    mask = torch.arange(len(words), device=counts.device)[:, None] < totals
    every = torch.arange(counts.shape[-1], device=counts.device)
    for document, row in enumerate(counts.long()):
        words[: totals[document], document] = every.repeat_interleave(row)
    return words, mask
