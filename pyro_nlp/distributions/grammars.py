"""The calculations of `PCFG` for as many sentences as are taken at once (layer: distributions).

Axes as in `inside.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pyro_nlp.distributions.charts import (
    Cells,
    Choose,
    Span,
    Tree,
    by_start,
    descend,
    drawn,
    largest,
    leaves,
    likeliest,
    log_chart,
    logsumexp,
    whole,
)
from pyro_nlp.distributions.emissions import Emissions
from pyro_nlp.distributions.fused import _second_derivatives
from pyro_nlp.distributions.inside import Inside

BLANK = -1
"""Stands for a word that `complete` is to find."""
_LEAST_NORM = 1e-20  # below it products of float32 weights lose what matters


class Grammars(NamedTuple):
    """The grammar of N sentences: root `[N, .]`, rules `[n, s * s]` or `[N, n, s * s]`, shift `[N, s * s]` or None."""

    root: Tensor
    rules: Tensor
    shift: Tensor | None
    emissions: Emissions

    @property
    def n(self) -> int:
        return self.rules.shape[-2]

    @property
    def log_root(self) -> Tensor:
        return self.root.float().log_softmax(-1)

    def emitted(self, words: Tensor, mask: Tensor) -> Tensor:
        """log p(word | preterminal), `[N, T, p]`; 0 at padding."""
        return self.emissions.look_up(words).float().masked_fill(~mask[..., None], 0.0)

    def log_rules(self) -> Tensor:
        """log p(b c | A), `[N or 1, n, s, s]`."""
        rules = self.rules.float() if self.rules.dim() == 3 else self.rules.float()[None]
        if self.shift is not None:
            rules = rules + self.shift.float()[:, None]
        symbols = self.n + self.emissions.states.shape[-2]
        return rules.log_softmax(-1).unflatten(-1, (symbols, symbols))

    def weights(self) -> tuple[Tensor, Tensor | None, Tensor | None] | None:
        """Rules, factor and norm of a `Chart`; None where the probabilities are too far apart for float32."""
        if self.shift is None or self.rules.dim() == 3:
            found = self.log_rules().exp()
            return (found if self.rules.dim() == 3 else found[0]), None, None
        with torch.autocast(self.rules.device.type, enabled=False):
            rules, shift = self.rules.float(), self.shift.float()
            rules = (rules - rules.detach().amax(-1, keepdim=True)).exp()
            factor = (shift - shift.detach().amax(-1, keepdim=True)).exp()
            total = factor @ rules.t()
            if not bool((total > _LEAST_NORM).all()):
                return None
            symbols = self.n + self.emissions.states.shape[-2]
            pairs = (symbols, symbols)
            return rules.unflatten(-1, pairs), factor.unflatten(-1, pairs), total.reciprocal()

    def log_prob(self, emitted: Tensor, lengths: Tensor) -> Tensor:
        """log p of each sentence, `[N]`."""
        root, n = self.log_root, self.n
        alone = logsumexp(root[:, n:] + emitted[:, 0], -1) if root.shape[1] > n else root.new_zeros(len(root))
        if emitted.shape[1] < 2:
            return alone
        read = lengths.clamp(min=2)
        found = None
        if not _second_derivatives.get() and (weights := self.weights()) is not None:
            with torch.autocast(emitted.device.type, enabled=False):
                found = Inside.apply(root[:, :n].exp(), read, *weights, emitted)
            if not bool(found.isfinite().all()):
                found = None
        if found is None:
            cells = log_chart(self.log_rules(), emitted, logsumexp)
            found = logsumexp(root[:, :n] + whole(cells, read), -1)
        return torch.where(lengths > 1, found, alone)

    def marginals(self, emitted: Tensor, lengths: Tensor) -> Tensor:
        """`[N, T, T]`: the derivative of log p(x) by the logarithm of a cell is the probability of its span."""
        rows, longest = emitted.shape[:2]
        found = torch.zeros(rows, longest, longest, device=emitted.device)
        real = torch.arange(longest, device=lengths.device) < lengths[:, None]
        found.diagonal(0, 1, 2).copy_(real)
        if longest > 1:
            with torch.enable_grad():
                cells = log_chart(self.log_rules().detach(), emitted.detach().requires_grad_(), logsumexp)
                total = logsumexp(self.log_root[:, : self.n].detach() + whole(cells, lengths.clamp(min=2)), -1)
                spans = torch.autograd.grad(total[lengths > 1].sum(), cells[2:])
            for width, of in enumerate(spans, 1):
                found.diagonal(width, 1, 2).copy_(of.sum(-1))
        return found

    def viterbi(self, emitted: Tensor, lengths: Tensor) -> tuple[list[Tree], Tensor]:
        """The likeliest trees, and their log-probabilities with the words `[N]`."""
        rules = self.log_rules()
        cells = log_chart(rules, emitted, largest)
        trees = self._descend(rules, emitted, cells, lengths, likeliest)
        best = (self.log_root[:, : self.n] + whole(cells, lengths.clamp(min=2))).amax(-1) if len(cells) > 2 else None
        if self.log_root.shape[1] > self.n:
            alone = (self.log_root[:, self.n :] + emitted[:, 0]).amax(-1)
            best = alone if best is None else torch.where(lengths > 1, best, alone)
        assert best is not None
        return trees, best

    def draw(self, emitted: Tensor, lengths: Tensor) -> list[Tree]:
        """A tree of each sentence from p(tree | what is emitted)."""
        rules = self.log_rules()
        cells = log_chart(rules, emitted, logsumexp)
        seed = int(torch.randint(2**62, ()))
        return self._descend(rules, emitted, cells, lengths, drawn(np.random.default_rng(seed)))

    def log_lengths(self, longest: int) -> Tensor:
        """log p(n words), `[N, longest]`: the inside algorithm where every word is any word."""
        root = self.log_root
        free = torch.zeros(len(root), longest, self.emissions.states.shape[-2], device=root.device)
        cells = log_chart(self.log_rules(), free, logsumexp)
        wide = [logsumexp(root[:, : self.n] + cells[width][:, 0], -1) for width in range(2, longest + 1)]
        alone = logsumexp(root[:, self.n :], -1) if root.shape[1] > self.n else torch.full_like(wide[0], -torch.inf)
        return torch.stack([alone, *wide], 1)

    def complete(self, words: Tensor, mask: Tensor) -> Tensor:
        """Words `[N, T]` with blanks filled."""
        blank = words == BLANK
        score, word = self.emissions.best()
        emitted = torch.where(blank[..., None], score[:, None], self.emitted(words.clamp(min=0), mask))
        trees, _ = self.viterbi(emitted.masked_fill(~mask[..., None], 0.0), mask.sum(1))
        tags = leaves(trees, self.n, mask)
        return torch.where(blank & mask, word.expand(len(words), -1).gather(1, tags), words)

    def _descend(
        self, rules: Tensor, emitted: Tensor, cells: list[Tensor], lengths: Tensor, choose: Choose
    ) -> list[Tree]:
        table, words, root = (x.cpu().numpy() for x in (rules, emitted, self.log_root))
        wide = by_start(cells, self.n)
        trees = []
        for row, length in enumerate(lengths.tolist()):
            if length == 1:
                trees.append([Span(0, 1, self.n + choose(root[row, self.n :] + words[row, 0]))])
                continue
            of = table[row if len(table) > 1 else 0]
            chart = Cells(root[row, : self.n], of.__getitem__, words[row], wide[row])
            trees.append(descend(chart, length, choose))
        return trees


def fast_floats(T: int, n: int, p: int) -> int:
    """What a sentence needs of `Chart` and its gradient."""
    return 4 * T * (T + 1) * n + T * n * (4 * n + 3 * p)


def log_floats(T: int, n: int, p: int) -> int:
    """What it needs of `log_chart` and a table of rules of its own."""
    return T * T * n * n + T * (n + p) * (n + p) + 2 * n * (n + p) ** 2


def autograd_floats(T: int, n: int, p: int) -> int:
    """The same, kept for a gradient."""
    return T**3 * n * n // 3 + T * n * (n + p) ** 2
