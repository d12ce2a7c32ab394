"""The forward and backward recursions of a hidden Markov chain of two tables (layer: distributions).

`marginal_log_prob` is what training calls where transitions and emissions are each a table. Its scaled form works on
probabilities: two small products a step and little else, with expected counts from a second sweep in place of an
autograd graph. Positions are packed time by time, longest sequence first, so padding is never seen. What it cannot do,
`chain_sum.py` does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pyro_nlp.distributions.chain_sum import chain_log_prob, clamp_tags
from pyro_nlp.distributions.fused import _second_derivatives
from pyro_nlp.distributions.moves import Dense, log_softmax

# With no transition below e^-38, every normaliser, its inverse and every backward message is a float32, and what
# underflows in a state is less than a rounding error of what reaches that state from the others.
_LEAST = -38.0
_BETWEEN = math.log(1e-12)  # mass that may be lost before the next rescaling
_RARELY = 16  # steps


class Chain(NamedTuple):
    """A hidden Markov model in logits: initial `[K]`, transition `[K, K]` (from, to), emission `[K, V]`."""

    initial: Tensor
    transition: Tensor
    emission: Tensor

    def normalised(self) -> Chain:
        """The same in log-probabilities, in float32 at least."""
        return Chain(*map(log_softmax, self))

    def look_up(self, words: Tensor) -> Tensor:
        """log p(word | state) of log-probabilities: words `[N, T]` to `[N, T, K]`, nothing of size V in between."""
        return self.emission.index_select(1, words.reshape(-1)).t().reshape(*words.shape, -1)


def marginal_log_prob(chain: Chain, words: Tensor, mask: Tensor, tags: Tensor | None = None) -> Tensor:
    """log sum over chains of p(chain, words) in nats: words and mask `[N, T]`, right-padded, to `[N]`.

    Scaled and by hand where the parameters allow it in their precision; else, and within `second_derivatives`, as
    `chain_log_prob` has it. `tags` `[N, T]` are those that are known, -1 where unknown: other chains do not count.
    """
    if not _second_derivatives.get():
        packed = _pack(mask)
        seen = words.reshape(-1)[packed.position]
        known = None if tags is None else tags.reshape(-1)[packed.position]
        prepared = _prepare(chain, seen, known) if packed.sizes else None
        if prepared is not None:
            return _Scaled.apply(*chain, seen, prepared, packed)
    normal = chain.normalised()
    return chain_log_prob(normal.initial, Dense(chain.transition), clamp_tags(normal.look_up(words), tags), mask)


@dataclass(frozen=True)
class _Packed:
    """The real positions of right-padded sequences: one column each, time by time, longest sequence first.

    Attributes:
        count: all sequences, N.
        sizes: sequences still running at each time, falling; their sum is the number of columns, M.
        order: the sequences that have any position, longest first, `[sizes[0]]`.
        position: where each column stands in the flattened `[N, T]`, `[M]`.
        rank: which of `order` each column belongs to, `[M]`.
        last: the column of the last position of each of `order`.
    """

    count: int
    sizes: list[int]
    order: Tensor
    position: Tensor
    rank: Tensor
    last: Tensor


def _pack(mask: Tensor) -> _Packed:
    count, time = mask.shape
    lengths, order = mask.sum(1).sort(descending=True, stable=True)
    running = torch.arange(time, device=mask.device)[:, None] < lengths
    sizes_at = running.sum(1)
    sizes = [size for size in sizes_at.tolist() if size]
    steps, rank = running.nonzero(as_tuple=True)
    alive = sizes[0] if sizes else 0
    order = order[:alive]
    last = (sizes_at.cumsum(0) - sizes_at)[lengths[:alive] - 1] + torch.arange(alive, device=mask.device)
    return _Packed(count, sizes, order, order[rank] * time + steps, rank, last)


class _Prepared(NamedTuple):
    """What the recursions read: probabilities, and emissions of the words at hand over the largest of each column."""

    start: Tensor  # [K]
    move: Tensor  # [K, K]
    emission: Tensor  # [K, V]
    emitted: Tensor  # [K, M]
    shift: Tensor  # [1, M], the logarithm of what was divided by
    every: int  # steps between rescalings


@torch.no_grad()
def _prepare(chain: Chain, words: Tensor, tags: Tensor | None) -> _Prepared | None:
    """None where the parameters are too extreme for the scaled form, or not numbers."""
    initial, transition = log_softmax(chain.initial), log_softmax(chain.transition)
    logits = chain.emission.to(torch.promote_types(chain.emission.dtype, torch.float32))
    # The gradient wants the table of emissions as probabilities, the words at hand are wanted as logarithms: one pass.
    emission = logits.softmax(1)
    log_total = logits.amax(1) - emission.amax(1).log()
    emitted = logits.index_select(1, words).sub_(log_total[:, None])
    if tags is not None:
        emitted = clamp_tags(emitted.t(), tags).t()
    shift = emitted.amax(0, keepdim=True)
    least, seen = torch.stack([torch.minimum(initial.min(), transition.min()), shift.min()]).tolist()
    if not (least >= _LEAST and seen > -math.inf):
        return None
    # A column's largest emission is now 1, so a step keeps at least the least transition of the mass.
    every = min(_RARELY, int(_BETWEEN / min(least, -1e-3)))
    return _Prepared(initial.exp(), transition.exp(), emission, emitted.sub_(shift).exp_(), shift, max(1, every))


class _Scaled(torch.autograd.Function):
    """Forward: alphas, rescaled now and then. Backward: betas, and from both the expected counts."""

    @staticmethod
    def forward(ctx: Any, initial: Tensor, transition: Tensor, emission: Tensor, words: Tensor, *given: Any) -> Tensor:
        prepared, packed = given
        alpha, norm = _forward(prepared, packed.sizes)
        emitted = prepared.emitted.div_(norm)
        total = alpha.index_select(1, packed.last).sum(0)
        logs = norm.log_().add_(prepared.shift).squeeze(0)
        log_prob = total.log().index_add_(0, packed.rank, logs)
        ctx.save_for_backward(prepared.start, prepared.move, prepared.emission, emitted, alpha, total, words)
        ctx.packed, ctx.dtypes = packed, (initial.dtype, transition.dtype, emission.dtype)
        return log_prob.new_zeros(packed.count).index_copy_(0, packed.order, log_prob)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        start, move, emission, emitted, alpha, total, words = ctx.saved_tensors
        packed, first = ctx.packed, ctx.packed.sizes[0]
        weight = (upstream.index_select(0, packed.order) / total).index_select(0, packed.rank)
        beta, message = _backward(move, emitted, weight, packed.sizes)
        tags = beta.mul_(alpha)  # upstream * p(z_t = k | x), [K, M]
        before, after = alpha.index_select(1, _previous(packed)), message[:, first:]
        pairs = torch.mm(before, after.t(), out=torch.empty_like(move)).mul_(move)  # out: autocast leaves it alone
        starts, each = tags[:, :first].sum(1), tags.sum(1)
        # expected counts minus what the softmax expects of as many draws
        d_initial = starts - starts.sum() * start
        d_transition = pairs - pairs.sum(1, keepdim=True) * move
        d_emission = (emission * -each[:, None]).index_add_(1, words, tags)
        gradients = zip((d_initial, d_transition, d_emission), ctx.dtypes, strict=True)
        return *(g.to(dtype) for g, dtype in gradients), None, None, None


def _forward(given: _Prepared, sizes: list[int]) -> tuple[Tensor, Tensor]:
    """Rescaled p(x_1 .. x_t, z_t) `[K, M]`, and what each column was divided by `[1, M]`."""
    alpha, norm = torch.empty_like(given.emitted), torch.ones_like(given.shift)
    move, size = given.move.t(), sizes[0]
    columns = zip(alpha.split(sizes, 1), given.emitted.split(sizes, 1), norm.split(sizes, 1), strict=True)
    before = None
    for t, (now, emitted, scale) in enumerate(columns, 1):
        if before is None:
            torch.mul(emitted, given.start[:, None], out=now)
        else:
            if size != sizes[t - 1]:  # some sequences have ended: they were the last columns
                size = sizes[t - 1]
                before = before[:, :size]
            torch.mm(move, before, out=now)
            now.mul_(emitted)
        if t % given.every == 0:
            torch.sum(now, 0, keepdim=True, out=scale)
            now.div_(scale)
        before = now
    return alpha, norm


def _backward(move: Tensor, emitted: Tensor, weight: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
    """weight * p(x_t+1 .. x_T | z_t) in the scale of alpha, and the same before the transition into t, `[K, M]`."""
    beta, message = weight.expand_as(emitted).contiguous(), torch.empty_like(emitted)
    columns = zip(beta.split(sizes, 1), emitted.split(sizes, 1), message.split(sizes, 1), sizes, strict=True)
    after = None
    for now, emission, out, size in reversed(list(columns)):
        if after is not None:  # the columns that end here keep their weight
            torch.mm(move, after, out=now[:, : after.shape[1]] if after.shape[1] != size else now)
        after = torch.mul(emission, now, out=out)
    return beta, message


def _previous(packed: _Packed) -> Tensor:
    """For each column after the first time, the column of the same sequence one step before."""
    sizes = torch.tensor(packed.sizes, device=packed.rank.device)
    columns = torch.arange(packed.sizes[0], len(packed.rank), device=packed.rank.device)
    return columns - sizes[:-1].repeat_interleave(sizes[1:], output_size=len(columns))
