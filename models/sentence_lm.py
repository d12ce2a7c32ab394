"""A recurrent language model of sentences: the baseline in every table of sentence models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import TextBatch
from pyro_nlp.distributions import WordSequence
from pyro_nlp.nn import Decoder, LSTMDecoder, write


class SentenceLM(PyroModule):
    """prod_t p(x_t | x_<t)                             Mikolov et al. 2010 (Interspeech), sentence by sentence

    The state is reset before every sentence, so its likelihood is comparable with that of a sentence VAE.

    Sites    x  WordSequence, event [T], padding masked out
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        decoder: `decoder(vocabulary, 0)` gives the states.
    """

    plates = 1

    def __init__(self, vocabulary: int, decoder: Callable[[int, int], Decoder] = LSTMDecoder) -> None:
        super().__init__()
        self.decoder = decoder(vocabulary, 0)
        self.head = nn.Linear(self.decoder.width, vocabulary)

    def forward(self, batch: TextBatch) -> None:
        with batch.documents():
            states = self.decoder(self._no_code(len(batch)), batch.inputs)
            pyro.sample("x", WordSequence(states, self.head, batch.mask), obs=batch.targets)

    def generate(self, latents: Mapping[str, Tensor], count: int = 1, **options: Any) -> Tensor:
        """`count` sentences as ids `[count, L]`; there are no latents to start from. Options: see `nn.write`."""
        return write(self.decoder, self.head, self._no_code(count), **options)

    def _no_code(self, rows: int) -> Tensor:
        return self.head.weight.new_zeros(rows, 0)
