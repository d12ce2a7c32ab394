"""Words emitted by the states of a chain (layer: distributions)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pyro_nlp.distributions.chain_blocks import BlockEmission
from pyro_nlp.distributions.fused import _second_derivatives
from pyro_nlp.distributions.moves import log_softmax

_PIECE = 4_000_000  # logits held at once


class TableEmission:
    """A logit of every word in every state.

    Args:
        logits: `[K, V]`.
    """

    def __init__(self, logits: Tensor) -> None:
        self.states, self.words = logits.shape
        self.logits = logits

    def look_up(self, words: Tensor) -> Tensor:
        """log p(word | state), words `[N, T]` to `[N, T, K]`."""
        log_p = log_softmax(self.logits)
        return log_p.index_select(1, words.reshape(-1)).t().reshape(*words.shape, -1)

    def table(self) -> Tensor:
        """Logits of every word, `[K, V]`."""
        return self.logits

    def rows(self, states: Tensor) -> Tensor:
        """Logits of every word in some states, `[n, V]`."""
        return self.logits[states]


class FactoredEmission:
    """p(word | state) in proportion to exp(state . word + bias), of which the table `[K, V]` is never held.

    What the normalisers need of it is made in pieces, and made again for the gradient.

    Args:
        states: vectors of states, `[K, D]`.
        words: vectors of words, `[V, D]`.
        bias: of words, `[V]`.
    """

    def __init__(self, states: Tensor, words: Tensor, bias: Tensor) -> None:
        if states.shape[-1] != words.shape[-1] or bias.shape != words.shape[:1]:
            raise ValueError(
                f"states {list(states.shape)}, words {list(words.shape)} and bias {list(bias.shape)} do not fit: "
                "give [K, D], [V, D] and [V]"
            )
        self.vectors, self.of_words, self.bias = states, words, bias
        self.states, self.words = len(states), len(words)

    def look_up(self, words: Tensor) -> Tensor:
        """log p(word | state), words `[N, T]` to `[N, T, K]`."""
        flat = words.reshape(-1)
        scores = self.of_words[flat] @ self.vectors.t() + self.bias[flat][:, None]
        return (_full(scores) - self._normalisers()).view(*words.shape, -1)

    def table(self) -> Tensor:
        """Logits of every word, `[K, V]`."""
        return _scores(self.vectors, self.of_words, self.bias)

    def rows(self, states: Tensor) -> Tensor:
        """Logits of every word in some states, `[n, V]`."""
        return _scores(self.vectors[states], self.of_words, self.bias)

    def _normalisers(self) -> Tensor:
        """log sum_word exp(score) of every state, `[K]`."""
        if len(self.vectors) * self.words <= _PIECE or _second_derivatives.get():
            return _scores(self.vectors, self.of_words, self.bias).logsumexp(1)
        with torch.autocast(self.vectors.device.type, enabled=False):  # its backward pass runs outside autocast
            found: Tensor = _Normalisers.apply(*map(_full, (self.vectors, self.of_words, self.bias)))
        return found


Emission = TableEmission | FactoredEmission | BlockEmission


def _scores(states: Tensor, words: Tensor, bias: Tensor) -> Tensor:
    return _full(states @ words.t() + bias)


def _full(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


class _Normalisers(torch.autograd.Function):
    """log sum_w exp(states words^T + bias), some states at a time, forward and backward."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, words: Tensor, bias: Tensor) -> Tensor:
        found = torch.cat([_scores(x, words, bias).logsumexp(1) for x in states.split(_rows(words))])
        ctx.save_for_backward(states, words, bias, found)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        states, words, bias, total = ctx.saved_tensors
        by_state, by_word, by_bias = [], torch.zeros_like(words), torch.zeros_like(bias)
        pieces = (x.split(_rows(words)) for x in (states, total, upstream))
        for rows, normaliser, weight in zip(*pieces, strict=True):
            share = (_scores(rows, words, bias) - normaliser[:, None]).exp_().mul_(weight[:, None]).to(words.dtype)
            by_state.append(share @ words)
            by_word.addmm_(share.t(), rows)
            by_bias.add_(share.sum(0))
        return torch.cat(by_state), by_word, by_bias


def _rows(words: Tensor) -> int:
    return max(1, _PIECE // len(words))
