"""Charts of a grammar in log space for any semiring, and trees taken from a chart from the top down (distributions).

The reference to `inside.py`: differentiable as often as one likes, safe for any probabilities, slower and larger. With
the maximum for a sum it finds the likeliest trees. Axes as in `inside.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Reduce = Callable[[Tensor, int], Tensor]
Choose = Callable[[np.ndarray], int]


class Span(NamedTuple):
    """A node of a tree: words `start` to `end`, the latter not included, under a nonterminal or a preterminal.

    Symbols are numbered nonterminals first; a preterminal spans one word.
    """

    start: int
    end: int
    symbol: int


Tree = list[Span]
"""The nodes of a tree from the top down and left to right; n words have 2n - 1."""


def logsumexp(x: Tensor, dim: int) -> Tensor:
    """`torch.logsumexp`, with a gradient of zero in place of NaN where every term is -inf."""
    impossible = (x == -torch.inf).all(dim, keepdim=True)
    return x.masked_fill(impossible, 0.0).logsumexp(dim).masked_fill(impossible.squeeze(dim), -torch.inf)


def largest(x: Tensor, dim: int) -> Tensor:
    """The sum of the max-plus semiring."""
    return x.amax(dim)


def log_chart(log_rules: Tensor, emitted: Tensor, reduce: Reduce) -> list[Tensor]:
    """Cells by width: entry w is `[N, T - w + 1, n]`, entry 1 the emissions; entry 0 is empty.

    Args:
        log_rules: log p(b c | A), `[N or 1, n, s, s]`.
        emitted: log p(word | preterminal), `[N, T, p]`.
        reduce: logsumexp for the inside algorithm, `largest` for Viterbi's.
    """
    n, T = log_rules.shape[1], emitted.shape[1]
    # The rules with a one-word child reduced over what that word may be, for every word: [N, T, n, the other child]
    after = _each(n, lambda a: reduce(log_rules[:, None, a, :, n:] + emitted[:, :, None], -1), 2)
    before = _each(n, lambda a: reduce(log_rules[:, None, a, n:, :n] + emitted[..., None], -2), 2)
    wide = log_rules[:, :, :n, :n].flatten(2)
    cells = [emitted[:, :0], emitted]
    for width in range(2, T + 1):
        spans = T - width + 1
        if width == 2:
            cells.append(reduce(after[:, 1:, :, n:] + emitted[:, :-1, None], -1))
            continue
        options = [
            reduce(after[:, width - 1 :, :, :n] + cells[-1][:, :spans, None], -1),
            reduce(before[:, :spans] + cells[-1][:, 1:, None], -1),
        ]
        if width > 3:
            options.append(_inner(wide, cells, spans, reduce))
        cells.append(reduce(torch.stack(options), 0))
    return cells


def _inner(wide: Tensor, cells: list[Tensor], spans: int, reduce: Reduce) -> Tensor:
    """Of two children of two words and more."""
    width = len(cells)
    pairs = [cells[k][:, :spans, :, None] + cells[width - k][:, k : k + spans, None] for k in range(2, width - 1)]
    best = reduce(torch.stack(pairs), 0).flatten(2)
    return _each(wide.shape[1], lambda a: reduce(best + wide[:, None, a], -1), -1)


def _each(count: int, of: Callable[[int], Tensor], dim: int) -> Tensor:
    return torch.stack([of(a) for a in range(count)], dim)


def whole(cells: list[Tensor], lengths: Tensor) -> Tensor:
    """The cells of whole sentences of two words and more, `[N, n]`."""
    return torch.stack([cells[length][row, 0] for row, length in enumerate(lengths.tolist())])


def by_start(cells: list[Tensor], nonterminals: int) -> np.ndarray:
    """Cells of two words and more by start and width, `[N, T, T + 1, n]`."""
    rows, length = cells[1].shape[:2]
    found = np.zeros((rows, length, length + 1, nonterminals), np.float32)
    for width in range(2, length + 1):
        found[:, : length - width + 1, width] = cells[width].cpu().numpy()
    return found


def leaves(trees: list[Tree], nonterminals: int, mask: Tensor) -> Tensor:
    """Which preterminal, from 0, stands over each word: `[N, T]`, 0 at padding."""
    found = torch.zeros(mask.shape, dtype=torch.long)
    for row, tree in enumerate(trees):
        words = [node.symbol - nonterminals for node in tree if node.symbol >= nonterminals]
        found[row, : len(words)] = torch.tensor(words)
    return found.to(mask.device)


class Cells(NamedTuple):
    """What one sentence's chart holds, in log space.

    Attributes:
        root: of each nonterminal, `[n]`.
        rules: log p(b c | A) of one A, `[s, s]`.
        words: `[T, p]`.
        wide: by start and width, `[T, T + 1, n]`.
    """

    root: np.ndarray
    rules: Callable[[int], np.ndarray]
    words: np.ndarray
    wide: np.ndarray


def descend(cells: Cells, length: int, choose: Choose) -> Tree:
    """A tree over the first `length` words, at least two, chosen from the top down.

    `choose` gets the log weights of all ways to go on, and says which: the largest of a Viterbi chart is the likeliest
    tree, a draw in proportion from an inside chart is a draw from the posterior.
    """
    n, p = len(cells.root), cells.words.shape[1]
    waiting = [Span(0, length, choose(cells.root + cells.wide[0, length]))]
    tree = []
    while waiting:
        node = waiting.pop()
        tree.append(node)
        start, end, symbol = node
        width = end - start
        if width == 1:
            continue
        rules = cells.rules(symbol)
        if width == 2:
            pick = choose((rules[n:, n:] + cells.words[start][:, None] + cells.words[start + 1]).ravel())
            cut, left, right = start + 1, n + pick // p, n + pick % p
        else:
            cut, left, right = _split(cells, rules, start, end, choose)
        waiting += [Span(cut, end, right), Span(start, cut, left)]
    return tree


def _split(cells: Cells, rules: np.ndarray, start: int, end: int, choose: Choose) -> tuple[int, int, int]:
    """Where a span of three words and more is cut, and the symbols on both sides."""
    n, p, width = len(cells.root), cells.words.shape[1], end - start
    last = rules[:n, n:] + cells.wide[start, width - 1][:, None] + cells.words[end - 1]
    first = rules[n:, :n] + cells.words[start][:, None] + cells.wide[start + 1, width - 1]
    k = np.arange(2, width - 1)
    inner = rules[:n, :n] + cells.wide[start, k][:, :, None] + cells.wide[start + k, width - k][:, None]
    pick = choose(np.concatenate([last.ravel(), first.ravel(), inner.ravel()]))
    if pick < n * p:
        return end - 1, pick // p, n + pick % p
    pick -= n * p
    if pick < n * p:
        return start + 1, n + pick // n, pick % n
    cut, pick = divmod(pick - n * p, n * n)
    return start + 2 + cut, pick // n, pick % n


def likeliest(scores: np.ndarray) -> int:
    """The largest."""
    return int(scores.argmax())


def drawn(rng: np.random.Generator) -> Choose:
    """In proportion to the exponentials, by the largest of scores with Gumbel noise."""
    return lambda scores: int((scores + rng.gumbel(size=len(scores))).argmax())
