"""log p(target) under a softmax layer without ever holding all its logits (layer: distributions).

A vocabulary layer is most of the cost of a small text model. Rows are taken in chunks, as many as make a matrix product
fast; within a chunk the logits become probabilities, and the probabilities the gradient, in place and in blocks of few
rows: a dozen passes over a block that stays in a core's own cache cost less than three over memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_CHUNK_ELEMENTS = 4_000_000  # 16 MB of float32: larger buffers leave the cache, smaller ones starve the product
_BLOCK_ELEMENTS = 320_000  # 1.3 MB of float32
_ROUNDING = 32  # rows
_second_derivatives: ContextVar[bool] = ContextVar("second_derivatives", default=False)


_uneven: ContextVar[bool] = ContextVar("uneven", default=False)


@contextmanager
def uneven_rows() -> Iterator[None]:
    """Within it rows are expected to weigh differently in the loss, as under importance weights or enumeration:
    `target_log_prob` then leaves the gradient to its backward pass, when the weights are known."""
    token = _uneven.set(True)
    try:
        yield
    finally:
        _uneven.reset(token)


@contextmanager
def second_derivatives() -> Iterator[None]:
    """Within it `target_log_prob` is plain autograd: slower, and differentiable twice."""
    token = _second_derivatives.set(True)
    try:
        yield
    finally:
        _second_derivatives.reset(token)


def target_log_prob(states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    """`log softmax(states @ weight.T + bias)[targets]`, in float32 (float64 if the states are).

    Shapes: states `[R, D]`, weight `[V, D]`, bias `[V]` or None, targets `[R]`; result `[R]`.
    Under autocast the products are taken in its type, everything else in float32.
    """
    if _second_derivatives.get():
        logits = F.linear(states, weight, bias)
        logits = logits.to(_accumulator(logits.dtype))
        return F.log_softmax(logits, -1).gather(1, targets[:, None]).squeeze(1)
    device = states.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        states, weight = states.to(dtype), weight.to(dtype)
    if not torch.is_grad_enabled():  # needs_input_grad does not know of no_grad
        return _by_chunks(states, weight, bias, targets, None, False)[0]
    return _TargetLogProb.apply(states, weight, bias, targets)


def _accumulator(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


class _TargetLogProb(torch.autograd.Function):
    """Takes the gradients in its forward pass, for an upstream gradient of one in every row.

    That is right up to a factor whenever all rows weigh the same, as in a mean loss. When they do not
    (importance weights, enumeration; see `uneven_rows`) the backward pass goes through the chunks once more.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
        differentiate = any(ctx.needs_input_grad[:3])
        now = differentiate and not _uneven.get()
        log_prob, *gradients = _by_chunks(states, weight, bias, targets, None, now)
        if differentiate:
            ctx.save_for_backward(states, weight, bias, targets)
            ctx.gradients = gradients if now else None
        return log_prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, bias, targets = ctx.saved_tensors
        gradients, ctx.gradients = ctx.gradients, None  # scaled in place, so good for one backward pass
        if gradients is not None and bool((upstream == upstream[:1]).all()):
            d_states, d_weight, d_bias = (g.mul_(upstream[0]) if len(upstream) else g for g in gradients)
        else:
            _, d_states, d_weight, d_bias = _by_chunks(states, weight, bias, targets, upstream, True)
        d_bias = None if bias is None else d_bias.to(bias.dtype)
        return d_states, d_weight.to(weight.dtype), d_bias, None


def _by_chunks(
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    upstream: Tensor | None,
    differentiate: bool,
) -> tuple[Tensor, ...]:
    """log_prob `[R]` and, if asked, the gradients of sum(upstream * log_prob) for states, weight, bias."""
    rows, vocabulary = len(states), len(weight)
    full = _accumulator(states.dtype)
    same = states.dtype == full
    parts = max(1, min(-(-rows * vocabulary // _CHUNK_ELEMENTS), -(-rows // 64)))
    size = -(-rows // parts)  # equal chunks: a small last one would waste the product
    if not same:
        # low-precision products are compiled for each shape they meet: let them meet few
        size = -(-size // _ROUNDING) * _ROUNDING
    padding = parts * size - rows
    row_weight = states.new_ones(rows, dtype=full) if upstream is None else upstream
    states, targets = F.pad(states, (0, 0, 0, padding)), F.pad(targets, (0, padding))
    row_weight = F.pad(row_weight, (0, padding))[:, None]

    logits = states.new_empty(size, vocabulary)
    block = size if states.is_cuda else max(1, min(size, _BLOCK_ELEMENTS // vocabulary))
    room = logits if same else states.new_empty(block, vocabulary, dtype=full)
    offset = None if bias is None else bias.to(states.dtype)
    log_prob = torch.empty(len(states), dtype=full, device=states.device)
    d_states = torch.empty_like(states) if differentiate else states.new_empty(0)
    d_weight = weight.new_empty(weight.shape if differentiate else 0, dtype=full)
    d_bias = weight.new_zeros(vocabulary if differentiate else 0, dtype=full)
    if differentiate and not rows:
        d_weight.zero_()

    for start in range(0, len(states), max(size, 1)):
        chunk = slice(start, start + size)
        h = states[chunk]
        if offset is None:
            torch.mm(h, weight.t(), out=logits)
        else:
            torch.addmm(offset, h, weight.t(), out=logits)
        for first in range(0, size, block):
            here = slice(start + first, start + min(first + block, size))
            few, y = logits[first : first + block], targets[here, None]
            p = few if same else room[: len(few)].copy_(few)
            if not differentiate:
                log_prob[here] = torch.log_softmax(p, 1, out=p).gather(1, y).squeeze(1)
                continue
            target, largest = p.gather(1, y), p.amax(1, keepdim=True)
            total = p.sub_(largest).exp_().sum(1, keepdim=True)
            log_prob[here] = (target - largest - total.log()).squeeze(1)
            # d log_prob / d logits = onehot(target) - softmax, each row times its upstream gradient
            p.mul_(-row_weight[here] / total).scatter_add_(1, y, row_weight[here])
            d_bias += p.sum(0)
            if not same:
                few.copy_(p)
        if not differentiate:
            continue
        torch.mm(logits, weight, out=d_states[chunk])
        if same:
            d_weight.addmm_(logits.t(), h, beta=float(start > 0))  # the first product needs no zeros to add to
        elif start == 0:
            d_weight.copy_(logits.t() @ h)
        else:
            d_weight += logits.t() @ h
    return log_prob[:rows], d_states[:rows], d_weight, d_bias
