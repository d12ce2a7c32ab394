"""Sentences under a probabilistic context-free grammar, trees summed out (layer: distributions)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from pyro_nlp.distributions.charts import Tree, leaves
from pyro_nlp.distributions.emissions import Emissions
from pyro_nlp.distributions.grammars import Grammars, autograd_floats, fast_floats, log_floats

_BUDGET = 1 << 27  # floats of the charts made at once


class PCFG(TorchDistribution):
    """sum over trees of p(root A) prod p(A -> b c) prod p(T -> word), in Chomsky normal form

    n nonterminals span two words or more and p preterminals one word each; a child of a nonterminal is either. A
    sentence is its words: `</s>` is none, as a tree ends by itself. A grammar has no sentence of no word, and one of a
    single word only if the root may be a preterminal; others in a batch are an error.

    Shapes: root `[..., n]` are logits, or `[..., n + p]` where the root may be a preterminal; rules `[n, s * s]` or
    `[..., B, n, s * s]`, logits of the pairs of children with s = n + p, nonterminals first, left child first; shift
    `[..., B, s * s]`, added to the rules of every parent, is how documents share a grammar cheaply; emissions are
    logits `[p, V]` or `[..., B, p, V]`, or `Emissions`, the states of a vocabulary layer. All are normalised here. mask
    `[..., B, T]` is true at words, which stand left of the padding; batch shape `[..., B]`, event shape `[T]`.

    `log_prob` is the inside algorithm with the outside one for a gradient (`inside.py`), in time T^3 n^2 + T^2 n^3,
    once differentiable; within `second_derivatives()`, or where float32 does not hold the probabilities, it is autograd
    in log space (`charts.py`). Methods that look at trees take a value:

        >>> x = PCFG(root, rules, emissions, mask)
        >>> x.marginals(words)  # p(words i to j are a constituent | x), [B, T, T]
        >>> trees, log_p = x.viterbi(words)

    Reference: Lari and Young 1990 (Computer Speech and Language 4).
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)
    has_rsample = False

    def __init__(
        self,
        root: Tensor,
        rules: Tensor,
        emissions: Emissions | Tensor,
        mask: Tensor,
        shift: Tensor | None = None,
        batch_shape: torch.Size | None = None,
    ) -> None:
        emissions = emissions if isinstance(emissions, Emissions) else Emissions(emissions)
        self.root, self.rules, self.emissions, self.shift, self.mask_ = root, rules, emissions, shift, mask
        self.nonterminals, self.preterminals = rules.shape[-2], emissions.states.shape[-2]
        symbols = self.nonterminals + self.preterminals
        pairs = [x.shape[-1] for x in (rules, shift) if x is not None]
        if root.shape[-1] not in (self.nonterminals, symbols) or any(found != symbols**2 for found in pairs):
            raise ValueError(
                f"root {list(root.shape)}, rules {list(rules.shape)}"
                + ("" if shift is None else f", shift {list(shift.shape)}")
                + f" and emissions {list(emissions.states.shape)} do not fit: with n nonterminals, p preterminals and "
                "s = n + p give [.., n] or [.., s], [.., n, s * s], [.., s * s] and [.., p, V]"
            )
        left = [root.shape[:-1], rules.shape[:-2], emissions.states.shape[:-2], mask.shape[:-1]]
        self.own_shape = torch.broadcast_shapes(*left, () if shift is None else shift.shape[:-1])
        super().__init__(self.own_shape if batch_shape is None else batch_shape, mask.shape[-1:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.integer_interval(0, self.emissions.vocabulary - 1), 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> PCFG:
        # Nothing is copied: log_prob works at the value's own shape and expands its result.
        given = (self.root, self.rules, self.emissions, self.mask_, self.shift)
        return PCFG(*given, torch.Size(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x) of each sentence in nats, `[..., B]`."""
        words, mask, left = self._rows(value)
        parts = [part.log_prob(part.emitted(w, m), m.sum(1)) for part, w, m in self._parts(left, words, mask)]
        found = torch.cat(parts).view(left) if parts else words.new_zeros(left, dtype=torch.float32)
        return found.expand(torch.broadcast_shapes(left, self.batch_shape))

    def marginals(self, value: Tensor) -> Tensor:
        """p(words i to j are a constituent | x), `[..., B, T, T]` by first and last word; words themselves are."""
        words, mask, left = self._rows(value)
        parts = self._parts(left, words, mask, autograd_floats)
        found = [part.marginals(part.emitted(w, m), m.sum(1)) for part, w, m in parts]
        longest, size = words.shape[1], self.event_shape[0]
        spans = torch.zeros(len(words), size, size, device=words.device)
        spans[:, :longest, :longest] = torch.cat(found)
        return spans.view(*left, size, size)

    @torch.no_grad()
    def viterbi(self, value: Tensor) -> tuple[list[Tree], Tensor]:
        """The likeliest tree of each sentence, and log p(x, tree) `[..., B]`; left dimensions are one in the list."""
        words, mask, left = self._rows(value)
        trees: list[Tree] = []
        scores: list[Tensor] = []
        for part, w, m in self._parts(left, words, mask, log_floats):
            found, score = part.viterbi(part.emitted(w, m), m.sum(1))
            trees += found
            scores.append(score)
        return trees, torch.cat(scores).view(left)

    @torch.no_grad()
    def posterior_sample(self, value: Tensor) -> list[Tree]:
        """A draw from p(tree | x) of each sentence; left dimensions are one in the list."""
        words, mask, left = self._rows(value)
        parts = self._parts(left, words, mask, log_floats)
        return [tree for part, w, m in parts for tree in part.draw(part.emitted(w, m), m.sum(1))]

    @torch.no_grad()
    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Sentences as long as the mask says, drawn from p(x | its length); 0 at padding."""
        shape = (*torch.Size(sample_shape), *self.batch_shape, *self.event_shape)
        words, mask, left = self._rows(torch.zeros(shape, dtype=torch.long, device=self.mask_.device))
        found = []
        for part, w, m in self._parts(left, words, mask, log_floats):
            trees = part.draw(torch.zeros(*w.shape, self.preterminals, device=w.device), m.sum(1))
            found.append(part.emissions.write(leaves(trees, self.nonterminals, m), m))
        written = torch.zeros(len(words), shape[-1], dtype=torch.long, device=words.device)
        written[:, : words.shape[1]] = torch.cat(found)
        return written.view(shape)

    @torch.no_grad()
    def log_lengths(self, longest: int) -> Tensor:
        """log p(a sentence has n words) for n from 1 to `longest`, `[N, longest]`, batch dimensions flattened."""
        left = self.own_shape
        rows = torch.ones(left.numel(), max(longest, 2), dtype=torch.bool, device=self.root.device)
        parts = self._parts(left, rows.long(), rows, log_floats)
        return torch.cat([part.log_lengths(mask.shape[1]) for part, _, mask in parts])[:, :longest]

    @torch.no_grad()
    def complete(self, value: Tensor) -> Tensor:
        """The value with every `BLANK` (-1) filled by the likeliest words and tree together, `[..., B, T]`."""
        words, mask, left = self._rows(value)
        parts = self._parts(left, words, mask, log_floats)
        found = value.expand(*left, -1).reshape(-1, value.shape[-1]).clone()
        found[:, : words.shape[1]] = torch.cat([part.complete(w, m) for part, w, m in parts])
        return found.view(*left, -1)

    def _rows(self, value: Tensor) -> tuple[Tensor, Tensor, torch.Size]:
        """Words and mask as `[N, longest]`, and the left dimensions that N stands for."""
        left = torch.broadcast_shapes(value.shape[:-1], self.own_shape)
        size = self.event_shape[0]
        words, mask = (x.expand(*left, size).reshape(-1, size) for x in (value, self.mask_))
        lengths = mask.sum(1)
        fewest = 1 if self.root.shape[-1] > self.nonterminals else 2
        if bool((lengths < fewest).any()):
            row = int((lengths < fewest).nonzero()[0])
            raise ValueError(
                f"sentence {row} of the batch has {int(lengths[row])} words; this grammar derives {fewest} or more: "
                "leave it out (min_length of the corpus)"
                + ("" if fewest == 1 else ", or let the root be a preterminal (single_words of the model)")
            )
        longest = int(lengths.max()) if len(lengths) else 0
        return words[:, :longest], mask[:, :longest], left

    def _parts(
        self, left: torch.Size, words: Tensor, mask: Tensor, floats: Callable[[int, int, int], int] | None = None
    ) -> Iterator[tuple[Grammars, Tensor, Tensor]]:
        """Grammar, words and mask of as many rows at a time as the memory is meant for."""
        each = (floats or fast_floats)(words.shape[1], self.nonterminals, self.preterminals)
        size = max(1, _BUDGET // max(1, each))

        def rows(x: Tensor, event: int) -> Tensor:
            return x.expand(*left, *x.shape[-event:]).reshape(-1, *x.shape[-event:])

        root = rows(self.root, 1)
        rules = self.rules if self.rules.dim() == 2 else rows(self.rules, 2)
        shift = None if self.shift is None else rows(self.shift, 1)
        states = self.emissions.states if self.emissions.states.dim() == 2 else rows(self.emissions.states, 2)
        for start in range(0, len(words), size):
            chunk = slice(start, start + size)
            emissions = self.emissions._replace(states=states if states.dim() == 2 else states[chunk])
            own = rules if rules.dim() == 2 else rules[chunk]
            part = Grammars(root[chunk], own, None if shift is None else shift[chunk], emissions)
            yield part, words[chunk], mask[chunk]
