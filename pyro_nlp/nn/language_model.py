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
        """As the default, without holding the vocabulary's logits: what cannot stand there is taken off afterwards."""
        hidden = self.decoder(self._no_code(*inputs.shape[:-1]), inputs)
        words = words.expand(hidden.shape[:-1])
        weight, bias = self.head.weight, self.head.bias
        rows = hidden.flatten(0, -2)
        log_p = target_log_prob(rows, weight, bias, words.flatten()).view(words.shape)
        # of the normaliser's words, the ones that are not allowed
        barred = torch.tensor([PAD, BOS, EOS], device=words.device)
        logits = nn.functional.linear(hidden, weight[barred], bias[barred]).float()
        own = (hidden * weight[words]).sum(-1).float() + bias[words]
        share = (logits - (own - log_p)[..., None]).exp()
        beyond = share[..., 0] + share[..., 1] + torch.where(ends.may, 0.0, share[..., 2])
        log_p = log_p - torch.log1p(-beyond.clamp(max=1 - 1e-6))
        end = words == EOS
        log_p = torch.where(ends.must, torch.where(end, 0.0, OUT_OF_REACH), log_p)
        return log_p.masked_fill(end & ~ends.may, OUT_OF_REACH)

    def begin(self, left: torch.Size) -> Any:
        return self.decoder.start(self._no_code(left.numel()))

    def step(self, state: Any, words: Tensor) -> tuple[Tensor, Any]:
        left, flat = rows_of(words)
        hidden, state = self.decoder.step(state, flat)
        return self.head(hidden).view(*left, -1), state

    def _no_code(self, *left: int) -> Tensor:
        return self.head.weight.new_zeros(*left, 0)
