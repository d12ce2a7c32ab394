"""A language model as a part: what writes a latent sentence word by word (layer: nn)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pyro_nlp.data.batches import BOS, EOS, PAD
from pyro_nlp.distributions import target_log_prob
from pyro_nlp.distributions.written import OUT_OF_REACH, Ends, Writer, rows_of
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

    @property
    def vocabulary(self) -> int:
        return self.head.out_features

    def logits(self, inputs: Tensor) -> Tensor:
        left = inputs.shape[:-1] if not inputs.is_floating_point() else inputs.shape[:-2]
        found: Tensor = self.head(self.decoder(self._no_code(*left), inputs))
        return found

    def score(self, inputs: Tensor, words: Tensor, ends: Ends) -> Tensor:
        """As the default, without holding the vocabulary's logits: what cannot stand there has a bias out of reach."""
        hidden = self.decoder(self._no_code(*inputs.shape[:-1]), inputs)
        shape = torch.broadcast_shapes(hidden.shape[:-1], words.shape, ends.may.shape, ends.must.shape)
        states, ids = hidden.expand(*shape, -1).flatten(0, -2), words.expand(shape).flatten()
        may, must = (flag.expand(shape).flatten() for flag in ends)
        log_p = torch.where(ids == EOS, 0.0, OUT_OF_REACH)  # of ends that are certain
        for ending, barred in ((False, [PAD, BOS, EOS]), (True, [PAD, BOS])):
            rows = (~must & (may == ending) & (ids != PAD)).nonzero().squeeze(-1)
            if len(rows):
                bias = self.head.bias.index_fill(0, torch.tensor(barred, device=ids.device), OUT_OF_REACH)
                log_p = log_p.index_copy(0, rows, target_log_prob(states[rows], self.head.weight, bias, ids[rows]))
        return log_p.view(shape)

    def begin(self, left: torch.Size) -> Any:
        return self.decoder.start(self._no_code(left.numel()))

    def step(self, state: Any, words: Tensor) -> tuple[Tensor, Any]:
        left, flat = rows_of(words)
        hidden, state = self.decoder.step(state, flat)
        return self.head(hidden).view(*left, -1), state

    def _no_code(self, *left: int) -> Tensor:
        return self.head.weight.new_zeros(*left, 0)
