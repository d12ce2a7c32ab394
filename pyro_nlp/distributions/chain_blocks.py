"""Chains in which a word can be emitted by one block of the states only (layer: distributions).

States of other blocks have no part in a sentence, so the chain of a sentence is one of K / M states, its transitions
those from the block of each word to the block of the next: nothing of size K stands at a position, and a step takes
(K / M)^2 products.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pyro_nlp.distributions.fused import _second_derivatives
from pyro_nlp.distributions.moves import Varying

_ROWS = 64  # of a table, taken together


class BlockEmission:
    """p(word | state), zero but for the words of the state's own block.

    Chiu and Rush 2020 (arXiv:2011.04640), section 3.2. Of K states in M blocks the first K / M are block 0, and so on.

    Args:
        logits: of the words of each block in its states, `[M, W, K / M]`, W the words of the largest block, each
            block's words by rising id; what stands beyond a block's own words is not read.
        blocks: the block of each word, int64 `[V]`; every block has a word.
    """

    def __init__(self, logits: Tensor, blocks: Tensor) -> None:
        count, longest, self.size = logits.shape
        self.place, held = places(blocks, count)
        if held.shape[1] != longest:
            raise ValueError(f"logits {list(logits.shape)} do not fit: the largest block has {held.shape[1]} words")
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        self.logits = logits.masked_fill(~held[..., None], -math.inf)
        self.blocks, self.states, self.words = blocks, count * self.size, len(blocks)

    def within(self, words: Tensor) -> Tensor:
        """log p(word | state) for the states of the word's block, words `[N, T]` to `[N, T, K / M]`."""
        longest = self.logits.shape[1]
        row = (self.blocks * longest + self.place)[words.reshape(-1)]
        return self.logits.log_softmax(1).flatten(0, 1).index_select(0, row).view(*words.shape, -1)

    def look_up(self, words: Tensor) -> Tensor:
        """log p(word | state), words `[N, T]` to `[N, T, K]`; -inf where the word is not of the state's block."""
        found = self.within(words)
        every = found.new_full((*words.shape, self.states), -math.inf)
        return every.scatter(2, self.members(words), found)

    def members(self, words: Tensor) -> Tensor:
        """The states that may emit each word, `[N, T]` to `[N, T, K / M]`."""
        first = self.blocks[words] * self.size
        return first[..., None] + torch.arange(self.size, device=words.device)

    def table(self) -> Tensor:
        """Logits of every word, `[K, V]`."""
        return self.rows(torch.arange(self.states, device=self.blocks.device))

    def rows(self, states: Tensor) -> Tensor:
        """Logits of every word in some states, `[n, V]`."""
        own = states // self.size
        found = self.logits[own, :, states % self.size][:, self.place]
        return found.masked_fill(self.blocks != own[:, None], -math.inf)


def places(blocks: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Where each word stands among those of its block, `[V]`, and which places of a block hold one, `[M, W]`.

    Raises:
        ValueError: a block without a word, or a number that is none of a block.
    """
    if not len(blocks) or int(blocks.min()) < 0 or int(blocks.max()) >= count:
        raise ValueError(f"blocks are numbered from 0 to {count - 1}, one for each word")
    sizes = torch.bincount(blocks, minlength=count)
    if not bool(sizes.all()):
        raise ValueError(f"block {int(sizes.argmin())} of {count} has no word: its states could emit nothing")
    order = blocks.argsort(stable=True)
    rank = torch.arange(len(blocks), device=blocks.device) - (sizes.cumsum(0) - sizes)[blocks[order]]
    place = torch.empty_like(blocks).index_copy_(0, order, rank)
    return place, torch.arange(int(sizes.max()), device=blocks.device) < sizes[:, None]


def within_blocks(
    initial: Tensor, transition: Tensor, emission: BlockEmission, words: Tensor
) -> tuple[Varying, Tensor]:
    """The chain of each sentence among the states that may emit its words.

    Args:
        initial, transition: logits, `[K]` and `[K, K]`.
        emission: of which only the words at hand are looked up.
        words: `[N, T]`.

    Returns:
        Its moves, whose rows do not sum to one, and log-probabilities of what is emitted, that of the first state with
        it, `[N, T, K / M]`.
    """
    count, size = emission.states // emission.size, emission.size
    logits = transition.to(torch.promote_types(transition.dtype, torch.float32))
    start = initial.to(logits.dtype).log_softmax(0).view(count, size)
    block = emission.blocks[words].t()  # [T, N]
    total = (logits.logsumexp(1) if _second_derivatives.get() else _Totals.apply(logits)).view(count, size)
    steps = logits.view(count, size, count, size)[block[:-1], :, block[1:]] - total[block[:-1]][..., None]
    emitted = emission.within(words)
    emitted = torch.cat([emitted[:, :1] + start[block[:1]].transpose(0, 1), emitted[:, 1:]], 1)
    return Varying.of(steps), emitted


class _Totals(torch.autograd.Function):
    """logsumexp of every row, some rows at a time: of a large table only the gradient is another one."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        total = torch.cat([rows.logsumexp(1) for rows in logits.split(_ROWS)])
        ctx.save_for_backward(logits, total)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        logits, total = ctx.saved_tensors
        found = torch.empty_like(logits)
        parts = (x.split(_ROWS) for x in (found, logits, total[:, None], upstream[:, None]))
        for out, rows, normaliser, weight in zip(*parts, strict=True):
            torch.sub(rows, normaliser, out=out).exp_().mul_(weight)
        return found
