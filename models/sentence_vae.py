"""The sentence VAE of Bowman et al. 2016: one continuous code per sentence, a language model that reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import TextBatch
from pyro_nlp.distributions import WordSequence
from pyro_nlp.nn import Decoder, LSTMDecoder, Prior, StandardNormal, write


class SentenceVAE(PyroModule):
    """p(z) prod_t p(x_t | x_<t, z)                     Bowman et al. 2016 (arXiv:1511.06349)

    Sites    z  Normal(0, 1) or another prior, event [latent]
             x  WordSequence, event [T], padding masked out
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        latent: size of z.
        decoder: `decoder(vocabulary, latent)` gives the states.
        prior: `prior(latent)` gives p(z).
    """

    plates = 1

    def __init__(
        self,
        vocabulary: int,
        latent: int = 32,
        decoder: Callable[[int, int], Decoder] = LSTMDecoder,
        prior: Callable[[int], Prior] = StandardNormal,
    ) -> None:
        super().__init__()
        self.latent = latent
        self.decoder = decoder(vocabulary, latent)
        self.head = nn.Linear(self.decoder.width, vocabulary)
        self.prior = prior(latent)

    def meet(self, guide: nn.Module) -> None:
        """Introduce the guide to a prior that is made of it (`VampPrior`); nothing for any other."""
        self.prior.meet(guide)

    def forward(self, batch: TextBatch) -> None:
        with batch.documents():
            z = pyro.sample("z", self.prior())
            states = self.decoder(z, batch.inputs)
            pyro.sample("x", WordSequence(states, self.head, batch.mask), obs=batch.targets)

    def generate(self, latents: Mapping[str, Tensor], **options: Any) -> Tensor:
        """Sentences from codes: `z` `[R, latent]` to ids `[R, L]`. Options: see `nn.write`."""
        return write(self.decoder, self.head, latents["z"], **options)
