"""The values that a discrete site can take, as one table (layer: inference)."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import ExpandedDistribution
from torch import Tensor, distributions

from pyro_nlp.distributions import Written

LIMIT = 4096
"""Most configurations of all enumerated sites together, per document."""


def base(fn: TorchDistribution) -> TorchDistribution:
    """The distribution of one variable, without `to_event`, `expand` and `mask`; a flow is one of its own."""
    while hasattr(fn, "base_dist") and not isinstance(fn, distributions.TransformedDistribution):
        fn = fn.base_dist
    return fn


def one_hot(fn: TorchDistribution) -> bool:
    """Whether values are one-hot vectors."""
    return isinstance(base(fn), distributions.OneHotCategorical)


def binary(fn: TorchDistribution) -> bool:
    """Whether values are zeros and ones."""
    return isinstance(base(fn), distributions.Bernoulli)


def categories(fn: TorchDistribution) -> int | None:
    """Values of one variable, K; None where it is not finite."""
    if one_hot(fn):
        return int(base(fn).event_shape[-1])
    if isinstance(base(fn), distributions.Categorical):
        return int(base(fn).probs.shape[-1])
    return 2 if binary(fn) else None


def variables(fn: TorchDistribution) -> int:
    """Variables of a site, M: those that `to_event` has made one event."""
    return math.prod(fn.event_shape[:-1] if one_hot(fn) else fn.event_shape)


def configurations(fn: TorchDistribution) -> int | None:
    """K^M, the values of the whole site; None where they are not finite. Of a `Written` all its sequences."""
    if isinstance(base(fn), Written):
        return int(base(fn).count)
    k = categories(fn)
    return None if k is None else k ** variables(fn)


def support(fn: TorchDistribution) -> Tensor:
    """Every value of a site, `[K^M, *event]`, in the type and on the device of its samples."""
    if isinstance(base(fn), Written):
        return base(fn).all_sequences()
    k, m = categories(fn), variables(fn)
    assert k is not None
    like = parameter(fn)
    index = torch.arange(k, device=like.device)
    chosen = torch.cartesian_prod(*[index] * m).view(-1, m)  # [K^M, M]
    if one_hot(fn):
        return torch.eye(k, dtype=like.dtype, device=like.device)[chosen].view(-1, *fn.event_shape)
    return (chosen.to(like.dtype) if binary(fn) else chosen).view(-1, *fn.event_shape)


def parameter(fn: TorchDistribution) -> Tensor:
    """The normalised logits of a discrete site (of a binary one its log-odds)."""
    logits: Tensor = base(fn).logits
    return logits


def constant(fn: Any) -> bool:
    """Whether a distribution is one and the same in its whole batch, as a prior is that a plate has expanded."""
    return _same(fn, len(fn.batch_shape))


def _same(part: Any, batch: int) -> bool:
    """Whether the tensors of a distribution, and of those in it, are repeated along the first `batch` dimensions."""
    held = dict(vars(part))
    if "logits" in held:
        held.pop("probs", None)  # computed from them
    for value in held.values():
        if isinstance(value, distributions.Distribution):
            inner = len(value.batch_shape) if isinstance(part, ExpandedDistribution) else batch
            if not _same(value, inner):
                return False
        if isinstance(value, Tensor) and any(
            size > 1 and step for size, step in zip(value.shape[:batch], value.stride()[:batch], strict=True)
        ):
            return False
    return True
