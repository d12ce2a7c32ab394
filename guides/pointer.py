"""The posterior over compressions of a sentence, by a network that points at its words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import EOS, PairBatch
from pyro_nlp.distributions import Written
from pyro_nlp.distributions.written import (
    OUT_OF_REACH,
    Ends,
    Writer,
    allowed_lengths,
    check_lengths,
    draw,
    given_sequences,
    known_compressions,
    rows_of,
)
from pyro_nlp.nn import Decoder, LSTMDecoder, LSTMEncoder, StateEncoder, pool

NOWHERE = -69.0
"""log-probability of a word that the source does not have: one that no pointer can write."""


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
        longest: words of a c of learnt length at most, or those of s where they are fewer.
        reach: how far, in words of the source, a jump from the last word's place is told from others, either way; the
            energy of every jump is learnt, so that the pointer can go on where it was. 0 for a pointer that does not
            know where it was, as the paper's.
    """

    def __init__(
        self,
        vocabulary: int,
        source: Callable[[int], StateEncoder] = LSTMEncoder,
        decoder: Callable[[int, int], Decoder] = LSTMDecoder,
        free: bool = False,
        ratio: float | None = 0.4,
        longest: int = 20,
        reach: int = 8,
    ) -> None:
        super().__init__()
        check_lengths("PointerGuide", ratio, longest)
        if reach < 0:
            raise ValueError(f"PointerGuide: reach is {reach}; it is a number of words, and 0 for none")
        self.vocabulary, self.ratio, self.longest = vocabulary, ratio, longest
        self.source = source(vocabulary)
        self.decoder = decoder(vocabulary, self.source.width)
        self.query = nn.Linear(self.decoder.width, self.source.width, bias=False)
        self.gate = nn.Linear(self.decoder.width, 1) if free else None
        self.head = nn.Linear(self.decoder.width, vocabulary) if free else None
        self.jumps = nn.Parameter(torch.zeros(2 * reach + 1)) if reach else None

    def forward(self, batch: PairBatch) -> None:
        known = known_compressions(batch, self.training)
        longest, lengths, most = allowed_lengths(batch, self.ratio, self.longest, known)
        given = given_sequences(batch, longest, known)
        with batch.documents():
            pyro.sample("c", Written(_Pointer(self, batch), len(batch), longest, lengths, given, most=most))


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

    @property
    def vocabulary(self) -> int:
        return self.guide.vocabulary

    def logits(self, inputs: Tensor) -> Tensor:
        return self._words(self.guide.decoder(self.summary, inputs), self._read(inputs))  # states [..., B, M, D]

    def begin(self, left: torch.Size) -> Any:
        state = self.guide.decoder.start(self.summary.expand(*left, -1).flatten(0, -2))
        return *state, torch.full((left.numel(),), -1, device=self.device)

    def step(self, state: Any, words: Tensor) -> tuple[Tensor, Any]:
        hidden, last, state = self._step(state, words)
        return self._words(hidden, last).squeeze(-2), state

    def score(self, inputs: Tensor, words: Tensor, ends: Ends) -> Tensor:
        if self.guide.gate is not None:
            return super().score(inputs, words, ends)
        hidden = self.guide.decoder(self.summary, inputs)
        where = self._where(hidden, self._read(inputs), ends).log_softmax(-1)  # [..., B, M, S]
        same = words[..., None] == self.words[:, None]
        return where.masked_fill(~same, OUT_OF_REACH).logsumexp(-1).clamp(min=NOWHERE)

    def choose(self, state: Any, words: Tensor, ends: Ends) -> tuple[Tensor, Any]:
        if self.guide.gate is not None:
            return super().choose(state, words, ends)
        hidden, last, state = self._step(state, words)
        ends = Ends(ends.may[..., None], ends.must[..., None])
        place = draw(self._where(hidden, last, ends).squeeze(-2))
        return self.words.expand(*words.shape, -1).gather(-1, place[..., None]).squeeze(-1), state

    def candidates(self, state: Any, words: Tensor, ends: Ends) -> tuple[Tensor, Tensor, Any]:
        if self.guide.gate is not None:
            return super().candidates(state, words, ends)
        hidden, last, state = self._step(state, words)
        ends = Ends(ends.may[..., None], ends.must[..., None])
        where = self._where(hidden, last, ends).softmax(-1)  # [..., B, 1, S]
        same = self.words[:, None] == self.words[..., None]
        first = ~same.tril(-1).any(-1)  # a word stands for all its places
        log_p = (where @ same.float()).squeeze(-2).log().masked_fill(~first, -torch.inf)
        return self.words.expand_as(log_p), log_p, state

    def _step(self, state: Any, words: Tensor) -> tuple[Tensor, Tensor, Any]:
        """Read one word: the decoder's state `[..., B, 1, D]`, where the pointer is `[..., B, 1]`, what to remember."""
        left, flat = rows_of(words)
        *memory, last = state
        hidden, memory = self.guide.decoder.step(tuple(memory), flat)
        last = self._move(last.view(left), words)
        return hidden.view(*left, 1, -1), last[..., None], (*memory, last.flatten())

    def _read(self, inputs: Tensor) -> Tensor:
        """Where the pointer is after each of the words it has read, `[..., B, M]`; -1 before the first."""
        inputs = inputs.argmax(-1) if inputs.is_floating_point() else inputs
        last = torch.full(torch.broadcast_shapes(inputs.shape[:-1], self.words.shape[:1]), -1, device=self.device)
        places = []
        for words in inputs.unbind(-1):
            last = self._move(last, words)
            places.append(last)
        return torch.stack(places, -1)

    def _move(self, last: Tensor, words: Tensor) -> Tensor:
        """From place to place `[..., B]`: to the next one of a word, or its first, or nowhere without one."""
        words = words.argmax(-1) if words.is_floating_point() else words
        same = (words[..., None] == self.words) & self.mask
        after = same & (torch.arange(same.shape[-1], device=self.device) > last[..., None])
        same = torch.where(after.any(-1, keepdim=True), after, same)
        return torch.where(same.any(-1), same.int().argmax(-1), last)

    def _where(self, hidden: Tensor, last: Tensor, ends: Ends | None = None) -> Tensor:
        """Logits of places in the source, `[..., B, J, S]`, by states `[..., B, J, D]`, last places `[..., B, J]`."""
        energy = (self.guide.query(hidden) @ self.states.transpose(-1, -2) / self.states.shape[-1] ** 0.5).float()
        if self.guide.jumps is not None:
            reach = len(self.guide.jumps) // 2
            jump = torch.arange(self.words.shape[-1], device=self.device) - last[..., None]
            energy = energy + self.guide.jumps[jump.clamp(-reach, reach) + reach]
        outside = ~self.mask[:, None]
        if ends is not None:
            end = (self.words == EOS)[:, None]
            outside = outside | (end & ~ends.may[..., None]) | (~end & ends.must[..., None])
        return energy.masked_fill(outside, OUT_OF_REACH)

    def _words(self, hidden: Tensor, last: Tensor) -> Tensor:
        """log-probabilities of words, `[..., B, J, V]`, by what `_where` takes; tiny where the source lacks one."""
        where = self._where(hidden, last).softmax(-1)
        pointed = where.new_zeros(*where.shape[:-1], self.guide.vocabulary)
        pointed = pointed.scatter_add(-1, self.words[:, None].expand_as(where), where)
        if self.guide.gate is None or self.guide.head is None:
            return (pointed + 1e-30).log()
        free = self.guide.head(hidden).float().softmax(-1)
        share = torch.sigmoid(self.guide.gate(hidden).float())
        return (share * pointed + (1 - share) * free + 1e-30).log()
