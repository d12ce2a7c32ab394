"""The inside and outside recursions of a grammar in Chomsky normal form, by matrix products (layer: distributions).

Works on probabilities. Every cell of the chart is divided by its largest value, whose logarithm is kept beside it, so
that what is multiplied lies between 0 and 1. Three things keep it small and fast:

- A cell of one word holds preterminals only and a wider one nonterminals only, so of all pairs of children a span of
  w words has only those of its kind: both one word (w = 2), one of the two (its first or its last word), or neither.
- A pair with a one-word child asks nothing of the span but that word: the rules are folded with every word once,
  for all spans (`after`, `before`).
- For two wide children the pairs are summed over the splits first and meet the rules in one product for all spans of
  a width. Where documents share their rules up to a factor per pair of children, that factor goes to the pairs, and no
  table of rules per document exists.

The backward pass is the outside recursion and keeps nothing but the chart; `second_derivatives()` and probabilities
that underflow are served by `charts.py` in log space.

Axes: T positions, N sentences, n nonterminals, p preterminals, s = n + p symbols, nonterminals first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_TINY = 1e-37


class Block:
    """The rules whose children are of one kind: `weights[.., A, b, c] * factor[N, b, c]`.

    Args:
        rules: `[n, s, s]`, or `[N, n, s, s]` for rules of each sentence's own.
        factor: `[N, s, s]` or None.
        left, right: which symbols the children are.
    """

    def __init__(self, rules: Tensor, factor: Tensor | None, left: slice, right: slice) -> None:
        self.place = (..., left, right)
        self.weights = rules[self.place].contiguous()
        self.factor = None if factor is None else factor[self.place].contiguous()
        self.own = rules.dim() == 4

    def clear(self) -> None:
        """Begin to add up gradients."""
        self.d_weights = torch.zeros_like(self.weights)
        self.d_factor = None if self.factor is None else torch.zeros_like(self.factor)

    def apply(self, pairs: Tensor) -> Tensor:
        """Sum over pairs of children: `[I, N, b, c]` to `[I, N, n]`."""
        pairs = pairs.flatten(2) if self.factor is None else (pairs * self.factor).flatten(2)
        if self.own:
            return (pairs.transpose(0, 1) @ self.weights.flatten(2).mT).transpose(0, 1)
        return pairs @ self.weights.flatten(1).t()

    def transpose(self, parents: Tensor, pairs: Tensor) -> Tensor:
        """Gradient of `apply` for the pairs by that of the parents `[I, N, n]`; those of the rules are added up."""
        flat = pairs.flatten(2)
        if self.own:
            weights, by_row = self.weights.flatten(2), parents.transpose(0, 1)
            d_pairs = (by_row @ weights).transpose(0, 1)
            self.d_weights += (by_row.mT @ flat.transpose(0, 1)).view_as(self.d_weights)
            return d_pairs.view_as(pairs)
        d_pairs = (parents @ self.weights.flatten(1)).view_as(pairs)
        if self.factor is not None and self.d_factor is not None:
            self.d_factor += (d_pairs * pairs).sum(0)
            d_pairs, flat = d_pairs.mul_(self.factor), (pairs * self.factor).flatten(2)
        self.d_weights.flatten(1).addmm_(parents.flatten(0, 1).t(), flat.flatten(0, 1))
        return d_pairs

    def fold(self, words: Tensor, side: str) -> Tensor:
        """The rules with one child summed over the preterminals of every word: `[T, N, p]` to `[T, N, n, other]`."""
        rule, pair, other = ("abc", "tnbc", "b") if side == "right" else ("acb", "tncb", "b")
        if self.own:
            return torch.einsum(f"tnc,n{rule}->tna{other}", words, self.weights).contiguous()
        if self.factor is None:
            return torch.einsum(f"tnc,{rule}->tna{other}", words, self.weights).contiguous()
        spread = self.factor * (words[..., None, :] if side == "right" else words[..., None])
        return torch.einsum(f"{pair},{rule}->tna{other}", spread, self.weights).contiguous()

    def unfold(self, d_folded: Tensor, words: Tensor, side: str) -> Tensor:
        """Gradient of `fold` for the words; those of the rules are added up."""
        rule, pair = ("abc", "tnbc") if side == "right" else ("acb", "tncb")
        if self.own:
            self.d_weights += torch.einsum(f"tnab,tnc->n{rule}", d_folded, words)
            return torch.einsum(f"tnab,n{rule}->tnc", d_folded, self.weights)
        if self.factor is None or self.d_factor is None:
            self.d_weights += torch.einsum(f"tnab,tnc->{rule}", d_folded, words)
            return torch.einsum(f"tnab,{rule}->tnc", d_folded, self.weights)
        word = words[..., None, :] if side == "right" else words[..., None]
        d_spread = torch.einsum(f"tnab,{rule}->{pair}", d_folded, self.weights)
        self.d_weights += torch.einsum(f"tnab,{pair}->{rule}", d_folded, self.factor * word)
        self.d_factor += (d_spread * word).sum(0)
        return (d_spread.mul_(self.factor)).sum(-2 if side == "right" else -1)


@dataclass
class _Splits:
    """The children of all spans of one width, weighted to a common scale; views where that is possible."""

    scale: Tensor  # [I, N], the largest log scale of a split
    first: Tensor  # [I, N, 1], weight of a first word with what follows
    last: Tensor  # [I, N, 1], weight of a last word with what precedes
    inner: Tensor  # [I, N, K, 1], weights of the others


class Chart:
    """The inside probabilities of every span of N sentences, and from them the outside ones.

    Args:
        rules: weights `[n, s, s]` or `[N, n, s, s]`, not normalised where there is a `norm`.
        factor: of pairs of children by sentence, `[N, s, s]`, or None.
        norm: what the rules of each parent are multiplied by, `[N, n]`, or None.
        emitted: log p(word | preterminal), `[N, T, p]`, T at least 2; anything finite at padding.

    Attributes:
        left: values by start and width, `[T, N, T + 1, n]`; right: the same by end and T - width.
        left_scale: log scales by start and width, `[T, N, T + 1]`; right_scale likewise.
    """

    def __init__(self, rules: Tensor, factor: Tensor | None, norm: Tensor | None, emitted: Tensor) -> None:
        self.n, self.norm = rules.shape[-3], norm
        wide, word = slice(0, self.n), slice(self.n, None)
        self.words_only = Block(rules, factor, word, word)
        self.word_last, self.word_first = Block(rules, factor, wide, word), Block(rules, factor, word, wide)
        self.wide_only = Block(rules, factor, wide, wide)
        emitted = emitted.transpose(0, 1)
        self.word_scale = emitted.amax(-1)
        self.words = (emitted - self.word_scale[..., None]).exp()
        self.length, self.rows = self.words.shape[:2]
        shape = (self.length, self.rows, self.length + 1)
        self.left, self.right = (emitted.new_zeros(*shape, self.n) for _ in range(2))
        self.left_scale, self.right_scale = (emitted.new_zeros(shape) for _ in range(2))
        self.after = self.word_last.fold(self.words, "right")
        self.before = self.word_first.fold(self.words, "left")
        for width in range(2, self.length + 1):
            self._fill(width)

    def _splits(self, width: int) -> _Splits:
        T, I = self.length, self.length - width + 1  # noqa: E741 (spans of this width)
        first = self.word_scale[:I] + self.right_scale[width - 1 :, :, T - width + 1]
        last = self.left_scale[:I, :, width - 1] + self.word_scale[width - 1 :]
        inner = self.left_scale[:I, :, 2 : width - 1] + self.right_scale[width - 1 :, :, T - width + 2 : T - 1]
        scale = torch.maximum(first, last)
        if width > 3:
            scale = torch.maximum(scale, inner.amax(-1))
        first, last = ((s - scale).exp_()[..., None] for s in (first, last))
        return _Splits(scale, first, last, (inner - scale[..., None]).exp_()[..., None])

    def _children(self, width: int) -> tuple[Tensor, Tensor]:
        """Cells of the left and the right children of two words and more, `[I * N, K, n]` each."""
        T, I = self.length, self.length - width + 1  # noqa: E741
        left = self.left.view(-1, T + 1, self.n)[: I * self.rows, 2 : width - 1]
        right = self.right.view(-1, T + 1, self.n)[(width - 1) * self.rows :, T - width + 2 : T - 1]
        return left, right

    def _fill(self, width: int) -> None:
        T, I = self.length, self.length - width + 1  # noqa: E741
        if width == 2:
            scale = self.word_scale[:-1] + self.word_scale[1:]
            found = self.words_only.apply(self.words[:-1, :, :, None] * self.words[1:, :, None])
        else:
            splits = self._splits(width)
            scale = splits.scale
            precede = self.left[:I, :, width - 1] * splits.last
            follow = self.right[width - 1 :, :, T - width + 1] * splits.first
            found = (self.after[width - 1 :] @ precede[..., None] + self.before[:I] @ follow[..., None]).squeeze(-1)
            if width > 3:
                left, right = self._children(width)
                pairs = torch.bmm((left * splits.inner.flatten(0, 1)).mT, right)
                found += self.wide_only.apply(pairs.view(I, self.rows, self.n, self.n))
        if self.norm is not None:
            found = found * self.norm
        largest = found.amax(-1).clamp(min=_TINY)
        self.left[:I, :, width] = self.right[width - 1 :, :, T - width] = found / largest[..., None]
        self.left_scale[:I, :, width] = self.right_scale[width - 1 :, :, T - width] = scale + largest.log()

    def whole(self, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Values `[N, n]` and log scales `[N]` of the whole sentences, at least two words each."""
        row = torch.arange(self.rows, device=lengths.device)
        return self.left[0, row, lengths], self.left_scale[0, row, lengths]

    def outside(self, d_whole: Tensor, lengths: Tensor) -> Outside:
        """Gradients of everything by those of the values of whole sentences, `[N, n]`."""
        T = self.length
        for block in (self.words_only, self.word_last, self.word_first, self.wide_only):
            block.clear()
        self.d_left, self.d_right = torch.zeros_like(self.left), torch.zeros_like(self.right)
        d_after, d_before, d_words = map(torch.zeros_like, (self.after, self.before, self.words))
        d_norm = None if self.norm is None else torch.zeros_like(self.norm)
        self.d_left[0, torch.arange(self.rows, device=lengths.device), lengths] = d_whole
        for width in range(T, 1, -1):
            I = T - width + 1  # noqa: E741
            d_cell = self.d_left[:I, :, width] + self.d_right[width - 1 :, :, T - width]
            splits = self._splits(width) if width > 2 else None
            scale = self.word_scale[:-1] + self.word_scale[1:] if splits is None else splits.scale
            d_found = d_cell * (scale - self.left_scale[:I, :, width]).exp_()[..., None]
            if self.norm is not None and d_norm is not None:
                d_norm += (d_cell * self.left[:I, :, width]).sum(0) / self.norm
                d_found = d_found * self.norm
            if splits is None:
                first, second = self.words[:-1], self.words[1:]
                d_pairs = self.words_only.transpose(d_found, first[..., None] * second[..., None, :])
                d_words[:-1] += (d_pairs @ second[..., None]).squeeze(-1)
                d_words[1:] += (first[..., None, :] @ d_pairs).squeeze(-2)
                continue
            precede = self.left[:I, :, width - 1] * splits.last
            follow = self.right[width - 1 :, :, T - width + 1] * splits.first
            d_after[width - 1 :] += d_found[..., None] * precede[..., None, :]
            d_before[:I] += d_found[..., None] * follow[..., None, :]
            upward = d_found[..., None, :]
            self.d_left[:I, :, width - 1] += (upward @ self.after[width - 1 :]).squeeze(-2) * splits.last
            self.d_right[width - 1 :, :, T - width + 1] += (upward @ self.before[:I]).squeeze(-2) * splits.first
            if width > 3:
                self._outside_inner(width, d_found, splits.inner.flatten(0, 1))
        d_words += self.word_last.unfold(d_after, self.words, "right")
        d_words += self.word_first.unfold(d_before, self.words, "left")
        return Outside(*self._assemble(), d_norm, (d_words * self.words).transpose(0, 1))

    def _outside_inner(self, width: int, d_found: Tensor, weight: Tensor) -> None:
        T, I = self.length, self.length - width + 1  # noqa: E741
        left, right = self._children(width)
        left = left * weight
        pairs = torch.bmm(left.mT, right).view(I, self.rows, self.n, self.n)
        d_pairs = self.wide_only.transpose(d_found, pairs).reshape(-1, self.n, self.n)
        d_left, d_right = (d.view(-1, T + 1, self.n) for d in (self.d_left, self.d_right))
        d_left[: I * self.rows, 2 : width - 1] += torch.bmm(right * weight, d_pairs.mT)
        d_right[(width - 1) * self.rows :, T - width + 2 : T - 1] += torch.bmm(left, d_pairs)

    def _assemble(self) -> tuple[Tensor, Tensor | None]:
        """Gradients of the rules and of the factor from those of their blocks."""
        blocks = (self.words_only, self.word_last, self.word_first, self.wide_only)
        symbols = self.n + self.words.shape[-1]
        some = self.words_only.d_weights
        d_rules = some.new_empty(*some.shape[:-2], symbols, symbols)
        d_factor = None if self.words_only.d_factor is None else some.new_empty(self.rows, symbols, symbols)
        for block in blocks:
            d_rules[block.place] = block.d_weights
            if d_factor is not None and block.d_factor is not None:
                d_factor[block.place] = block.d_factor
        return d_rules, d_factor


@dataclass(frozen=True)
class Outside:
    """Gradients of the rules, the factor, the norm and the logarithms emitted."""

    rules: Tensor
    factor: Tensor | None
    norm: Tensor | None
    emitted: Tensor


class Inside(torch.autograd.Function):
    """log p of sentences of two words and more, `[N]`; -inf where it underflows.

    Takes root weights `[N, n]`, lengths `[N]` and the arguments of `Chart`.
    """

    @staticmethod
    def forward(ctx: Any, root: Tensor, lengths: Tensor, *grammar: Any) -> Tensor:
        chart = Chart(*grammar)
        values, scale = chart.whole(lengths)
        total = (values * root).sum(-1)
        ctx.chart, ctx.lengths = chart, lengths
        ctx.save_for_backward(root, values, total)
        return total.log() + scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        root, values, total = ctx.saved_tensors
        share = (upstream / total)[:, None]
        found = ctx.chart.outside(share * root, ctx.lengths)
        return share * values, None, found.rules, found.factor, found.norm, found.emitted
