"""Concatenation of features that have different left dimensions (layer: nn)."""

from __future__ import annotations

import torch
from torch import Tensor


def cat(*tensors: Tensor) -> Tensor:
    """Join tensors at their last dimension, broadcasting all dimensions to its left.

    `torch.cat` does not broadcast, so it fails as soon as one latent is enumerated and the other is not:
    z `[S, B, latent]` and a table c `[K, 1, 1, K]` give `[K, S, B, latent + K]`.
    """
    left = torch.broadcast_shapes(*(t.shape[:-1] for t in tensors))
    return torch.cat([t.expand(*left, t.shape[-1]) for t in tensors], -1)
