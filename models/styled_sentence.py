"""A sentence VAE with a class beside its code: what is said, and of which kind it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import TextBatch
from pyro_nlp.distributions import WordSequence
from pyro_nlp.nn import Decoder, LSTMDecoder, cat, write


class StyledSentence(PyroModule):
    """p(z) p(c) prod_t p(x_t | x_<t, z, c)             Kingma et al. 2014b (arXiv:1406.5298), M2; Hu et al. 2017

    A continuous code and a one-hot class, independent a priori; the decoder reads them side by side, (z, c W).
    Whether a document's class is known is the guide's business: the model stays the same.

    Sites    z  Normal(0, 1), event [latent]
             c  OneHotCategorical, learnt prior, event [classes]
             x  WordSequence, event [T], padding masked out
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        latent: size of z.
        classes: number of classes, K.
        code: size of a class's code.
        decoder: `decoder(vocabulary, latent + code)` gives the states.
    """

    plates = 1
    told = "c"  # the class that a user may ask it to write

    def __init__(
        self,
        vocabulary: int,
        latent: int = 32,
        classes: int = 10,
        code: int = 16,
        decoder: Callable[[int, int], Decoder] = LSTMDecoder,
    ) -> None:
        super().__init__()
        self.latent = latent
        self.prior = nn.Parameter(torch.zeros(classes))
        self.codes = nn.Parameter(torch.randn(classes, code))
        self.decoder = decoder(vocabulary, latent + code)
        self.head = nn.Linear(self.decoder.width, vocabulary)
        self.register_buffer("zero", torch.zeros(()))

    def forward(self, batch: TextBatch) -> None:
        with batch.documents():
            c = pyro.sample("c", dist.OneHotCategorical(logits=self.prior))
            z = pyro.sample("z", dist.Normal(self.zero, 1.0).expand([self.latent]).to_event(1))
            states = self.decoder(cat(z, c @ self.codes), batch.inputs)
            pyro.sample("x", WordSequence(states, self.head, batch.mask), obs=batch.targets)

    def generate(self, latents: Mapping[str, Tensor], **options: Any) -> Tensor:
        """Sentences from `z` `[R, latent]` and `c` `[R, classes]` to ids `[R, L]`. Options: see `nn.write`."""
        return write(self.decoder, self.head, cat(latents["z"], latents["c"] @ self.codes), **options)
