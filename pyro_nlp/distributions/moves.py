"""How a hidden chain moves from state to state: one step of every recursion, for each kind of transition
(layer: distributions).

A kind holds its transitions as log-probabilities. Its states, S of them, are the tags K, or pairs of tags where two
tags decide the next. `pushed`, `pulled` and `counts` work on the exponentials of `logs`, which `chain_sum.py` hands
back to them; the other methods work in log space. `t` is the position a step leads to, 1 at least.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

Tensors = tuple[Tensor, ...]


def log_softmax(logits: Tensor) -> Tensor:
    """Normalised along the last dimension, in float32 at least."""
    return F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), -1)


def logsumexp(x: Tensor, dim: int) -> Tensor:
    """`torch.logsumexp`, with a gradient of zero in place of NaN where every term is -inf."""
    impossible = (x == -torch.inf).all(dim, keepdim=True)
    return x.masked_fill(impossible, 0.0).logsumexp(dim).masked_fill(impossible.squeeze(dim), -torch.inf)


class Moves(ABC):
    """The transitions of a chain.

    Attributes:
        tags: K.
        logs: log-probabilities, normalised.
    """

    tags: int
    logs: Tensors

    # ---- between tags and states; the two are one where a state is a tag ----------------------------------------

    def begin(self, initial: Tensor) -> Tensor:
        """log p of the first state, `[S]`, by that of the first tag, `[K]`."""
        return initial

    def spread(self, emitted: Tensor) -> Tensor:
        """What a tag emits as what a state does, `[..., K]` to `[..., S]`."""
        return emitted

    def tag(self, states: Tensor) -> Tensor:
        """The tag of each state."""
        return states

    def by_tag(self, share: Tensor) -> Tensor:
        """Probabilities of states summed by tag, `[..., S]` to `[..., K]`."""
        return share

    def least(self) -> float:
        """A lower bound of the log-probability of a step; of two, where not all states are a step apart."""
        return min(float(x.min()) for x in self.logs)

    def rows(self, times: int) -> Moves:
        """The same for batches repeated `times` times, one after the other."""
        return self

    # ---- a step of probabilities ------------------------------------------------------------------------------

    @abstractmethod
    def pushed(self, p: Tensors, t: int, before: Tensor) -> Tensor:
        """sum_i before_i p(j | i), `[N, S]` to `[N, S]`."""

    @abstractmethod
    def pulled(self, p: Tensors, t: int, after: Tensor) -> Tensor:
        """sum_j p(j | i) after_j, `[N, S]` to `[N, S]`."""

    @abstractmethod
    def counts(self, p: Tensors, before: Tensor, after: Tensor) -> Tensors:
        """Gradient by each of `p` of sum_t,n before_t,n p after_t,n, both `[T - 1, N, S]`."""

    # ---- a step in log space ----------------------------------------------------------------------------------

    @abstractmethod
    def log_pushed(self, t: int, before: Tensor) -> Tensor:
        """The logarithm of `pushed`, of a logarithm."""

    @abstractmethod
    def best(self, t: int, score: Tensor) -> tuple[Tensor, Tensor]:
        """max_i score_i + log p(j | i), and where it is, both `[N, S]`."""

    @abstractmethod
    def into(self, t: int, state: Tensor) -> Tensor:
        """log p(state | i) for every i, `[N]` to `[N, S]`."""

    @abstractmethod
    def out_of(self, t: int, state: Tensor) -> Tensor:
        """log p(j | state) for every j, `[N]` to `[N, S]`."""


class Dense(Moves):
    """One table for all positions.

    Args:
        logits: `[K, K]` (from, to).
    """

    def __init__(self, logits: Tensor) -> None:
        self.tags, self.logs = logits.shape[-1], (log_softmax(logits),)

    def pushed(self, p: Tensors, t: int, before: Tensor) -> Tensor:
        return before @ p[0]

    def pulled(self, p: Tensors, t: int, after: Tensor) -> Tensor:
        return after @ p[0].t()

    def counts(self, p: Tensors, before: Tensor, after: Tensor) -> Tensors:
        return (before.flatten(0, 1).t() @ after.flatten(0, 1),)

    def log_pushed(self, t: int, before: Tensor) -> Tensor:
        return logsumexp(before[:, :, None] + self.logs[0], 1)

    def best(self, t: int, score: Tensor) -> tuple[Tensor, Tensor]:
        found = (score[:, :, None] + self.logs[0]).max(1)
        return found.values, found.indices

    def into(self, t: int, state: Tensor) -> Tensor:
        return self.logs[0].t()[state]

    def out_of(self, t: int, state: Tensor) -> Tensor:
        return self.logs[0][state]


class Varying(Moves):
    """A table for every position of every sequence, as where the words so far inform the next tag.

    Args:
        logits: `[N, T, K, K]` (sequence, position led to, from, to); those of the first position are not read.
    """

    def __init__(self, logits: Tensor) -> None:
        self.tags, self.logs = logits.shape[-1], (log_softmax(logits.transpose(0, 1)[1:]),)  # [T - 1, N, K, K]

    def least(self) -> float:
        return super().least() if self.logs[0].numel() else 0.0

    @classmethod
    def of(cls, logs: Tensor) -> Varying:
        """By log-probabilities into all positions but the first, `[T - 1, N, K, K]`; rows may sum to less than 1."""
        made = object.__new__(cls)
        made.tags, made.logs = logs.shape[-1], (logs,)
        return made

    def rows(self, times: int) -> Moves:
        return Varying.of(self.logs[0].repeat(1, times, 1, 1))

    def pushed(self, p: Tensors, t: int, before: Tensor) -> Tensor:
        return (before[:, None] @ p[0][t - 1]).squeeze(1)

    def pulled(self, p: Tensors, t: int, after: Tensor) -> Tensor:
        return (p[0][t - 1] @ after[..., None]).squeeze(2)

    def counts(self, p: Tensors, before: Tensor, after: Tensor) -> Tensors:
        return (before[..., None] * after[..., None, :],)

    def log_pushed(self, t: int, before: Tensor) -> Tensor:
        return logsumexp(before[:, :, None] + self.logs[0][t - 1], 1)

    def best(self, t: int, score: Tensor) -> tuple[Tensor, Tensor]:
        found = (score[:, :, None] + self.logs[0][t - 1]).max(1)
        return found.values, found.indices

    def into(self, t: int, state: Tensor) -> Tensor:
        return self._of(t)[torch.arange(len(state), device=state.device), :, state]

    def out_of(self, t: int, state: Tensor) -> Tensor:
        return self._of(t)[torch.arange(len(state), device=state.device), state]

    def _of(self, t: int) -> Tensor:
        return self.logs[0][t - 1]


class LowRank(Moves):
    """p(j | i) = sum_r p(r | i) p(j | r): a table of rank R that is never written out.

    Chiu, Deng and Rush 2021 (arXiv:2201.02715) have p(j | i) in proportion to phi(u_i)^T phi(v_j) with phi > 0: the
    same, with p(j | r) in proportion to phi(v_j)_r, and p(r | i) to phi(u_i)_r sum_j phi(v_j)_r. A step takes K R
    products in place of K^2. Viterbi has no such saving, and goes over the table in pieces.

    Args:
        left: logits of r by i, `[K, R]`.
        right: logits of j by r, `[R, K]`.
    """

    _PIECE = 4_000_000  # elements

    def __init__(self, left: Tensor, right: Tensor) -> None:
        self.tags, self.logs = right.shape[-1], (log_softmax(left), log_softmax(right))

    def least(self) -> float:
        left, right = self.logs
        return float((left.amin(0) + right.amin(1)).max())

    def pushed(self, p: Tensors, t: int, before: Tensor) -> Tensor:
        return (before @ p[0]) @ p[1]

    def pulled(self, p: Tensors, t: int, after: Tensor) -> Tensor:
        return (after @ p[1].t()) @ p[0].t()

    def counts(self, p: Tensors, before: Tensor, after: Tensor) -> Tensors:
        before, after = before.flatten(0, 1), after.flatten(0, 1)
        return before.t() @ (after @ p[1].t()), (before @ p[0]).t() @ after

    def log_pushed(self, t: int, before: Tensor) -> Tensor:
        within = logsumexp(before[:, :, None] + self.logs[0], 1)
        return logsumexp(within[:, :, None] + self.logs[1], 1)

    def best(self, t: int, score: Tensor) -> tuple[Tensor, Tensor]:
        value = torch.full_like(score, -math.inf)
        origin = torch.zeros_like(score, dtype=torch.long)
        size = max(1, self._PIECE // score.numel())
        every = torch.arange(self.tags, device=score.device)
        for rows in every.split(size):  # the states before
            found = (score[:, rows, None] + self._table(rows, every).to(score.dtype)).max(1)
            better = found.values > value
            value = torch.where(better, found.values, value)
            origin = torch.where(better, rows[found.indices], origin)
        return value, origin

    def into(self, t: int, state: Tensor) -> Tensor:
        return self._table(torch.arange(self.tags, device=state.device), state).t().to(self.logs[0].dtype)

    def out_of(self, t: int, state: Tensor) -> Tensor:
        return self._table(state, torch.arange(self.tags, device=state.device)).to(self.logs[0].dtype)

    def _table(self, before: Tensor, after: Tensor) -> Tensor:
        """log p(after | before) of some states, in double precision."""
        left, right = (x.double().exp() for x in (self.logs[0][before], self.logs[1][:, after]))
        return (left @ right).log()


class SecondOrder(Moves):
    """p(z_t | z_t-2, z_t-1): a trigram of tags, as a chain of pairs       Thede and Harper 1999 (ACL)

    State (i, j) is i K + j: the tag before, K for the beginning, and the tag. A step takes K^3 products.

    Args:
        logits: `[K + 1, K, K]` (tag before the last, last tag, next); in the last of K + 1 nothing is before the last.
    """

    def __init__(self, logits: Tensor) -> None:
        self.tags, self.logs = logits.shape[-1], (log_softmax(logits),)

    def begin(self, initial: Tensor) -> Tensor:
        return F.pad(initial, (self.tags**2, 0), value=-math.inf)

    def spread(self, emitted: Tensor) -> Tensor:
        return emitted[..., None, :].expand(*emitted.shape[:-1], self.tags + 1, self.tags).flatten(-2)

    def tag(self, states: Tensor) -> Tensor:
        return states % self.tags

    def by_tag(self, share: Tensor) -> Tensor:
        return self._pairs(share).sum(-2)

    def least(self) -> float:
        return 2 * super().least()

    def pushed(self, p: Tensors, t: int, before: Tensor) -> Tensor:
        moved = self._pairs(before).permute(2, 0, 1) @ p[0].transpose(0, 1)  # [K (j), N, K (k)]
        return F.pad(moved.transpose(0, 1).flatten(1), (0, self.tags))

    def pulled(self, p: Tensors, t: int, after: Tensor) -> Tensor:
        wanted = self._pairs(after)[:, :-1].permute(1, 2, 0)  # [K (j), K (k), N]
        return (p[0].transpose(0, 1) @ wanted).permute(2, 1, 0).flatten(1)

    def counts(self, p: Tensors, before: Tensor, after: Tensor) -> Tensors:
        first = self._pairs(before.flatten(0, 1)).permute(2, 1, 0)  # [K (j), K + 1 (i), M]
        second = self._pairs(after.flatten(0, 1))[:, :-1].transpose(0, 1)  # [K (j), M, K (k)]
        return ((first @ second).transpose(0, 1),)

    def log_pushed(self, t: int, before: Tensor) -> Tensor:
        moved = logsumexp(self._pairs(before)[..., None] + self.logs[0], 1)
        return F.pad(moved.flatten(1), (0, self.tags), value=-math.inf)

    def best(self, t: int, score: Tensor) -> tuple[Tensor, Tensor]:
        found = (self._pairs(score)[..., None] + self.logs[0]).max(1)
        last = torch.arange(self.tags, device=score.device)[:, None]
        origin = (found.indices * self.tags + last).flatten(1)
        return F.pad(found.values.flatten(1), (0, self.tags), value=-math.inf), F.pad(origin, (0, self.tags))

    def into(self, t: int, state: Tensor) -> Tensor:
        # Where the state is a first one nothing leads into it, and what is said of it is not used.
        last, new = (state // self.tags).clamp(max=self.tags - 1), state % self.tags
        log_p = self.logs[0][:, last, new].t()  # [N, K + 1]
        other = torch.arange(self.tags, device=state.device) != last[:, None]
        return log_p[:, :, None].expand(-1, -1, self.tags).masked_fill(other[:, None], -math.inf).flatten(1)

    def out_of(self, t: int, state: Tensor) -> Tensor:
        before, last = state // self.tags, state % self.tags
        found = torch.full((len(state), self.tags + 1, self.tags), -math.inf, device=state.device)
        found = found.to(self.logs[0].dtype)
        found[torch.arange(len(state), device=state.device), last] = self.logs[0][before, last]
        return found.flatten(1)

    def _pairs(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.tags + 1, self.tags))
