"""A mixture of sentence language models: the smallest discrete latent, and one that can be summed over exactly."""

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
from pyro_nlp.nn import Decoder, LSTMDecoder, write


class SentenceMixture(PyroModule):
    """p(c) prod_t p(x_t | x_<t, c)                     a neural form of Iyer et al. 1994 (HLT), sentence-level mixtures

    The class is a one-hot vector that picks its code, c W, which the decoder reads in place of a VAE's z. One decoder
    is shared, so classes differ by their codes alone; these start apart, as equal ones would never part.
    c may be drawn, an enumerated table, relaxed or a point of the simplex, which mixes codes.

    Sites    c  OneHotCategorical, learnt prior, event [classes]
             x  WordSequence, event [T], padding masked out
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        classes: number of components, K.
        code: size of a class's code.
        decoder: `decoder(vocabulary, code)` gives the states.
    """

    plates = 1

    def __init__(
        self,
        vocabulary: int,
        classes: int = 10,
        code: int = 32,
        decoder: Callable[[int, int], Decoder] = LSTMDecoder,
    ) -> None:
        super().__init__()
        self.prior = nn.Parameter(torch.zeros(classes))
        self.codes = nn.Parameter(torch.randn(classes, code))
        self.decoder = decoder(vocabulary, code)
        self.head = nn.Linear(self.decoder.width, vocabulary)

    def forward(self, batch: TextBatch) -> None:
        with batch.documents():
            c = pyro.sample("c", dist.OneHotCategorical(logits=self.prior))
            states = self.decoder(c @ self.codes, batch.inputs)
            pyro.sample("x", WordSequence(states, self.head, batch.mask), obs=batch.targets)

    def generate(self, latents: Mapping[str, Tensor], **options: Any) -> Tensor:
        """Sentences from classes: `c` `[R, classes]`, one-hot or weights, to ids `[R, L]`. Options: see `nn.write`."""
        return write(self.decoder, self.head, latents["c"] @ self.codes, **options)
