"""The posterior over compressions of a sentence, by a network that points at its words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import PairBatch
from pyro_nlp.distributions import Written
from pyro_nlp.distributions.written import (
    Writer,
    allowed_lengths,
    given_sequences,
    known_compressions,
    rows_of,
)
from pyro_nlp.nn import Decoder, LSTMDecoder, LSTMEncoder, StateEncoder, pool


class PointerGuide(PyroModule):
    """q(c | s) = prod_j q(c_j | c_<j, s): a word of the source, pointed at     Miao and Blunsom 2016b, sections 3, 4

    A word has the probability of all its places in the source (ASC). With `free` a gate chooses at every step between
    pointing and a softmax over all words (FSC). Compressions that are known are pinned.

    Sites    c  Written, event [M + 1]
    Plates   documents (dim -1): the pairs

    Args:
        vocabulary: number of words.
        source: `source(vocabulary)` reads the source, with a state at every word.
        decoder: `decoder(vocabulary, source.width)` reads what is written of c.
        free: may write words that are not in the source.
        ratio: words of c to those of s, in (0, 1], rounded up; None for a length that is learnt.
        longest: words of a c of learnt length at most.
    """

    def __init__(
        self,
        vocabulary: int,
        source: Callable[[int], StateEncoder] = LSTMEncoder,
        decoder: Callable[[int, int], Decoder] = LSTMDecoder,
        free: bool = False,
        ratio: float | None = 0.4,
        longest: int = 20,
    ) -> None:
        super().__init__()
        self.vocabulary, self.ratio, self.longest = vocabulary, ratio, longest
        self.source = source(vocabulary)
        self.decoder = decoder(vocabulary, self.source.width)
        self.query = nn.Linear(self.decoder.width, self.source.width, bias=False)
        self.gate = nn.Linear(self.decoder.width, 1) if free else None
        self.head = nn.Linear(self.decoder.width, vocabulary) if free else None

    def forward(self, batch: PairBatch) -> None:
        known = known_compressions(batch, self.training)
        longest, lengths = allowed_lengths(batch, self.ratio, self.longest, known)
        with batch.documents():
            pyro.sample(
                "c",
                Written(_Pointer(self, batch), len(batch), longest, lengths, given_sequences(batch, longest, known)),
            )


class _Pointer(Writer):
    """q(c_j | c_<j, s) of a guide for the sources of a batch."""

    def __init__(self, guide: PointerGuide, batch: PairBatch) -> None:
        self.guide, first = guide, batch.first
        self.words, self.mask = first.targets[batch.group], first.mask[batch.group]  # [B, S]
        states = guide.source.states(first)
        self.states = states[batch.group]
        self.summary = pool(states, first.mask, guide.source.pooling)[batch.group]

    @property
    def device(self) -> torch.device:
        return self.words.device

    def logits(self, inputs: Tensor) -> Tensor:
        hidden = self.guide.decoder(self.summary, inputs)  # [..., B, M, D]
        return self._words(hidden)

    def begin(self, left: torch.Size) -> Any:
        return self.guide.decoder.start(self.summary.expand(*left, -1).flatten(0, -2))

    def step(self, state: Any, words: Tensor) -> tuple[Tensor, Any]:
        left, flat = rows_of(words)
        hidden, state = self.guide.decoder.step(state, flat)
        return self._words(hidden.view(*left, 1, -1)).squeeze(-2), state

    def _words(self, hidden: Tensor) -> Tensor:
        """log-probabilities of words, `[..., B, J, V]`, by states `[..., B, J, D]`; tiny where the source lacks one."""
        energy = self.guide.query(hidden) @ self.states.transpose(-1, -2) / self.states.shape[-1] ** 0.5
        where = energy.float().masked_fill(~self.mask[:, None], -1e4).softmax(-1)  # [..., B, J, S]
        pointed = where.new_zeros(*where.shape[:-1], self.guide.vocabulary)
        pointed = pointed.scatter_add(-1, self.words[:, None].expand_as(where), where)
        if self.guide.gate is None or self.guide.head is None:
            return (pointed + 1e-30).log()
        free = self.guide.head(hidden).float().softmax(-1)
        share = torch.sigmoid(self.guide.gate(hidden).float())
        return (share * pointed + (1 - share) * free + 1e-30).log()
