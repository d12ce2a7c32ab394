"""The neural variational document model of Miao et al. 2016: a VAE of bags of words."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import CountBatch
from pyro_nlp.distributions import BagOfWords
from pyro_nlp.nn import Prior, StandardNormal


class NVDM(PyroModule):
    """p(z) prod_v p(v | z)^n_v, p(v | z) = softmax(W z + b)_v          Miao et al. 2016 (arXiv:1511.06038)

    A logistic regression from z to words: the code adds logits where a topic model mixes probabilities.

    Sites    z  Normal(0, 1) or another prior, event [latent]
             x  BagOfWords, event [V]
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        latent: size of z, K.
        prior: `prior(latent)` gives p(z).
    """

    plates = 1

    def __init__(self, vocabulary: int, latent: int = 50, prior: Callable[[int], Prior] = StandardNormal) -> None:
        super().__init__()
        self.latent = latent
        self.decoder = nn.Linear(latent, vocabulary)
        self.prior = prior(latent)

    def meet(self, guide: nn.Module) -> None:
        """Introduce the guide to a prior that is made of it (`VampPrior`); nothing for any other."""
        self.prior.meet(guide)

    def forward(self, batch: CountBatch) -> None:
        with batch.documents():
            z = pyro.sample("z", self.prior())
            pyro.sample("x", BagOfWords(self.decoder(z), batch.counts.sum(-1)), obs=batch.counts)

    @property
    def topics_count(self) -> int:
        """Dimensions of z, K."""
        return self.latent

    def topics(self) -> Tensor:
        """softmax(W_k), `[K, V]`: the words that z_k raises. A direction's other end, -W_k, is not among them, and b,
        common to all, is left out."""
        return self.decoder.weight.detach().T.softmax(-1)

    def proportions(self, latents: Mapping[str, Tensor]) -> Tensor:
        """softmax(z), `[..., latent]` to `[..., K]`: an ordering of the dimensions and no part of the model, in which z
        is unbounded."""
        return latents["z"].softmax(-1)
