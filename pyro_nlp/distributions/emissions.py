"""Words given preterminals, some of which depend on the document (layer: distributions)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pyro_nlp.distributions.fused import _second_derivatives

_CHUNK_ELEMENTS = 4_000_000
"""Logits computed at once."""
_KEEP_ELEMENTS = 64_000_000
"""Exponentials kept for the backward pass, 256 MB; beyond that they are computed again."""


class Emissions(NamedTuple):
    """p(word | preterminal) = softmax of a vocabulary layer over the states of preterminals.

    Attributes:
        states: `[p, D]`, or `[N, p, D]` for those of each document's own; without a layer D is V and these are logits.
        weight, bias: of the layer, `[V, D]` and `[V]`; None for none.
    """

    states: Tensor
    weight: Tensor | None = None
    bias: Tensor | None = None

    @property
    def vocabulary(self) -> int:
        return self.states.shape[-1] if self.weight is None else len(self.weight)

    def logits(self, states: Tensor) -> Tensor:
        """Of every word, not normalised, in float32: `[..., D]` to `[..., V]`."""
        found = states if self.weight is None else F.linear(states, self.weight, self.bias)
        return found.to(torch.promote_types(found.dtype, torch.float32))

    def look_up(self, words: Tensor) -> Tensor:
        """log p(word | preterminal): words `[N, T]` to `[N, T, p]`; nothing of size N V outlives the call."""
        if self.states.dim() == 2:
            table = self.logits(self.states).log_softmax(-1)
            return table.index_select(1, words.reshape(-1)).t().reshape(*words.shape, -1)
        rows, preterminals, width = self.states.shape
        if self.weight is None:
            table = self.logits(self.states).log_softmax(-1)
            return table.gather(2, words[:, None].expand(-1, preterminals, -1)).mT
        with torch.autocast(self.states.device.type, enabled=False):  # scores and total are subtracted
            states = self.states.to(torch.promote_types(self.states.dtype, torch.float32))
            weight = self.weight.to(states.dtype)
            scores = F.embedding(words, weight) @ states.mT
            if self.bias is not None:
                scores = scores + self.bias[words][..., None]
            total = log_total(states.reshape(-1, width), weight, self.bias)
            return scores - total.view(rows, 1, preterminals)

    @torch.no_grad()
    def best(self) -> tuple[Tensor, Tensor]:
        """The likeliest word of each preterminal: log p and id, `[N, p]`; N is 1 for shared states."""
        states = self.states if self.states.dim() == 3 else self.states[None]
        found = [self.logits(row).log_softmax(-1).max(-1) for row in states]
        return torch.stack([one.values for one in found]), torch.stack([one.indices for one in found])

    @torch.no_grad()
    def write(self, preterminals: Tensor, mask: Tensor) -> Tensor:
        """A word drawn for each preterminal: `[N, T]` of these to ids `[N, T]`, 0 where the mask is false."""
        written = torch.zeros_like(preterminals)
        row, place = mask.nonzero(as_tuple=True)
        chosen = preterminals[row, place]
        size = max(1, _CHUNK_ELEMENTS // self.vocabulary)
        for start in range(0, len(row), size):
            r, t, symbol = (x[start : start + size] for x in (row, place, chosen))
            states = self.states[symbol] if self.states.dim() == 2 else self.states[r, symbol]
            written[r, t] = self.logits(states).softmax(-1).multinomial(1).squeeze(1)
        return written


def log_total(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """logsumexp of `states @ weight.T + bias` along the vocabulary, in chunks: `[R, D]`, `[V, D]`, `[V]` to `[R]`."""
    if _second_derivatives.get():
        return F.linear(states, weight, bias).logsumexp(-1)
    return _LogTotal.apply(states, weight, bias)


def _exponentials(states: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> tuple[Tensor, Tensor]:
    """exp(logits - their largest) of some rows in `out`, and the largest, `[r, 1]`."""
    if bias is None:
        torch.mm(states, weight.t(), out=out)
    else:
        torch.addmm(bias, states, weight.t(), out=out)
    largest = out.amax(1, keepdim=True)
    return out.sub_(largest).exp_(), largest


class _LogTotal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        rows, vocabulary = len(states), len(weight)
        size = max(1, min(rows, _CHUNK_ELEMENTS // vocabulary))
        keep = any(ctx.needs_input_grad) and rows * vocabulary <= _KEEP_ELEMENTS
        buffer = states.new_empty(rows if keep else size, vocabulary)
        sums, tops = states.new_empty(rows), states.new_empty(rows)
        for start in range(0, rows, size):
            chunk = slice(start, min(start + size, rows))
            out = buffer[chunk] if keep else buffer[: chunk.stop - start]
            p, largest = _exponentials(states[chunk], weight, bias, out)
            torch.sum(p, 1, out=sums[chunk])
            tops[chunk] = largest.squeeze(1)
        ctx.save_for_backward(states, weight, bias, sums, buffer if keep else None)
        ctx.size = size
        return sums.log().add_(tops)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, bias, sums, kept = ctx.saved_tensors
        share = (upstream / sums)[:, None]
        d_states, d_weight = torch.empty_like(states), torch.zeros_like(weight)
        d_bias = None if bias is None else torch.zeros_like(bias)
        buffer = states.new_empty(ctx.size, len(weight)) if kept is None else None
        for start in range(0, len(states), ctx.size):
            chunk = slice(start, min(start + ctx.size, len(states)))
            if buffer is None:
                p = kept[chunk]
            else:
                p, _ = _exponentials(states[chunk], weight, bias, buffer[: chunk.stop - start])
            torch.mm(p, weight, out=d_states[chunk])
            d_weight.addmm_(p.t(), states[chunk] * share[chunk])
            if d_bias is not None:
                d_bias.addmv_(p.t(), share[chunk, 0])
        return d_states.mul_(share), d_weight, d_bias
