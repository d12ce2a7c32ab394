"""The sum over all chains of one that moves in any way of `moves.py` (layer: distributions).

`forward_backward.py` is the fast form of the commonest case, one dense table and a table of emissions; this is the
form of all others. Probabilities are rescaled at every step, and the gradient comes from a second sweep, so that no
autograd graph of the steps is held: of the size of the emissions `[T, N, S]`, five tensors in all.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pyro_nlp.distributions.fused import _second_derivatives
from pyro_nlp.distributions.moves import Moves, logsumexp

_REACH = {torch.float32: -38.0, torch.float64: -300.0}
"""With no step below e to this power, every backward message is a number of the type."""


def clamp_tags(emitted: Tensor, tags: Tensor | None) -> Tensor:
    """What each tag emits, with every tag but the known one out of reach: `[..., K]`, tags `[...]` (-1 unknown)."""
    if tags is None:
        return emitted
    other = torch.arange(emitted.shape[-1], device=tags.device) != tags[..., None]
    return emitted.masked_fill(other & (tags >= 0)[..., None], -torch.inf)


def chain_log_prob(initial: Tensor, moves: Moves, emitted: Tensor, mask: Tensor) -> Tensor:
    """log sum over chains of p(chain, words) in nats, `[N]`.

    In probabilities where their type can hold them, in double precision where float32 cannot, else and within
    `second_derivatives` in log space by autograd.

    Args:
        initial: log-probabilities of the first tag, `[K]`.
        moves: the transitions.
        emitted: log p(x_t | z_t = k), `[N, T, K]`; -inf where a tag is out of reach.
        mask: true at real positions, which stand left of the padding, `[N, T]`.
    """
    if not _second_derivatives.get():
        dtype = _dtype(initial, moves, emitted, mask)
        if dtype is not None:
            with torch.autocast(emitted.device.type, enabled=False):
                spread = moves.spread(emitted.transpose(0, 1).to(dtype))
                start, steps = moves.begin(initial).to(dtype).exp(), [x.to(dtype).exp() for x in moves.logs]
                found: Tensor = _Sum.apply(moves, mask.t()[..., None], start, spread, *steps)
            return found.to(emitted.dtype)
    last = log_forward(initial, moves, emitted, mask)[-1]
    return torch.where(mask[:, 0], logsumexp(last, -1), 0.0)


def log_forward(initial: Tensor, moves: Moves, emitted: Tensor, mask: Tensor) -> list[Tensor]:
    """log p(x_1 .. x_t, state_t) for every t, `[N, S]` each; past the end a sequence keeps its last."""
    emitted = moves.spread(emitted)
    found = [moves.begin(initial) + emitted[:, 0]]
    for t in range(1, emitted.shape[1]):
        step = moves.log_pushed(t, found[-1]) + emitted[:, t]
        found.append(torch.where(mask[:, t, None], step, found[-1]))
    return found


@torch.no_grad()
def _dtype(initial: Tensor, moves: Moves, emitted: Tensor, mask: Tensor) -> torch.dtype | None:
    """The smallest type that holds the recursions; None for log space."""
    highest = emitted.amax(-1).masked_fill(~mask, 0.0)
    if not bool((highest > -torch.inf).all()) or emitted.shape[1] == 0:
        return None  # something impossible, or not a number
    least = min(float(initial.min()), moves.least())
    types = [x for x in _REACH if x.itemsize >= emitted.dtype.itemsize and least >= _REACH[x]]
    return types[0] if types else None


class _Sum(torch.autograd.Function):
    """Forward: p(state_t | x_1 .. x_t) and its normalisers. Backward: expected counts of everything."""

    @staticmethod
    def forward(ctx: Any, moves: Moves, mask: Tensor, start: Tensor, emitted: Tensor, *steps: Tensor) -> Tensor:
        shift = emitted.amax(-1, keepdim=True)
        weight = (emitted - shift).exp_()
        alpha, norm = torch.empty_like(weight), torch.ones_like(shift)
        for t in range(len(weight)):
            now = weight[t] * (start if t == 0 else moves.pushed(steps, t, alpha[t - 1]))
            norm[t] = torch.where(mask[t], now.sum(-1, keepdim=True), 1.0)
            now.div_(norm[t])
            alpha[t] = now if t == 0 else torch.where(mask[t], now, alpha[t - 1])
        ctx.moves = moves
        ctx.save_for_backward(mask, start, weight, alpha, norm, *steps)
        return torch.where(mask, norm.log() + shift, 0.0).sum(0).squeeze(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        mask, _, weight, alpha, norm, *rest = ctx.saved_tensors
        moves, steps = ctx.moves, tuple(rest)
        message, beta = torch.empty_like(weight), torch.ones_like(weight[0])
        share = torch.empty_like(weight)  # p(state_t | x)
        for t in reversed(range(len(weight))):
            torch.mul(alpha[t], beta, out=share[t])
            torch.mul(weight[t] / norm[t] * mask[t], beta, out=message[t])
            if t:
                beta = torch.where(mask[t], moves.pulled(steps, t, message[t]), beta)
        each = upstream[:, None]
        message.mul_(each)
        counts = moves.counts(steps, alpha[:-1], message[1:])
        return None, None, message[0].sum(0), share.mul_(each * mask), *counts
