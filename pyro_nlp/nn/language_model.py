"""A language model as a part: what writes a latent sentence word by word (layer: nn)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pyro_nlp.distributions.written import Writer, rows_of
from pyro_nlp.nn.decoders import Decoder


class LanguageModel(nn.Module, Writer):
    """p(c_j | c_<j), with the parameters of `models.sentence_lm.SentenceLM` under the same names.

    Args:
        decoder: of no code, `factory(vocabulary, 0)`.
        vocabulary: number of words.
    """

    def __init__(self, decoder: Decoder, vocabulary: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.head = nn.Linear(decoder.width, vocabulary)

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    def logits(self, inputs: Tensor) -> Tensor:
        left = inputs.shape[:-1] if not inputs.is_floating_point() else inputs.shape[:-2]
        found: Tensor = self.head(self.decoder(self._no_code(*left), inputs))
        return found

    def begin(self, left: torch.Size) -> Any:
        return self.decoder.start(self._no_code(left.numel()))

    def step(self, state: Any, words: Tensor) -> tuple[Tensor, Any]:
        left, flat = rows_of(words)
        hidden, state = self.decoder.step(state, flat)
        return self.head(hidden).view(*left, -1), state

    def _no_code(self, *left: int) -> Tensor:
        return self.head.weight.new_zeros(*left, 0)
