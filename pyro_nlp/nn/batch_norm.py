"""Batch normalisation for models and guides that are also judged one document at a time (layer: nn)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.Module):
    """(x_d - mean(x_d)) / sd(x_d) * scale_d + bias_d, over all dimensions but the last      Ioffe and Szegedy 2015

    In training the moments are those of the batch, particles and tables included. In evaluation mode, and for a batch
    of one, the running moments take their place. These are updated where gradients are kept only, so that looking at a
    module in training does not change it. Under `torchrun` every process normalises over its own documents. In float32
    also under autocast.

    Shapes: `[..., D]` to `[..., D]`.

    Args:
        size: D.
        scale: learn a scale; without it the standard deviation stays 1.
        momentum: weight of a batch in the running moments.
        epsilon: added to the variance.
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, size: int, scale: bool = True, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.epsilon = momentum, epsilon
        self.scale = nn.Parameter(torch.ones(size)) if scale else None
        self.bias = nn.Parameter(torch.zeros(size))
        self.register_buffer("running_mean", torch.zeros(size))
        self.register_buffer("running_variance", torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            rows = x.float().reshape(-1, x.shape[-1])
            over_batch = self.training and len(rows) > 1
            learn = over_batch and torch.is_grad_enabled()
            mean, variance = (self.running_mean, self.running_variance) if learn or not over_batch else (None, None)
            normal = F.batch_norm(rows, mean, variance, self.scale, self.bias, over_batch, self.momentum, self.epsilon)
            return normal.view_as(x)
