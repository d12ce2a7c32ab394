"""One-hot vectors made continuous: the Gumbel-softmax, in log space (layer: inference).

At low temperature the points of the simplex underflow, and with them densities written in terms of the points;
logarithms do not: everything here is finite for ten thousand classes at temperature 0.1.
"""

from __future__ import annotations

import math

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor

from pyro_nlp.inference.support import parameter


def gumbel(like: Tensor) -> Tensor:
    """Standard Gumbel noise of a tensor's shape."""
    return -torch.empty_like(like, requires_grad=False).exponential_().clamp(min=torch.finfo(like.dtype).tiny).log()


def sample(logits: Tensor, temperature: float) -> Tensor:
    """log y, y = softmax((logits + g) / temperature), `[..., K]`.   Jang et al. 2017, eq. 2"""
    return ((logits + gumbel(logits)) / temperature).log_softmax(-1)


def harden(scores: Tensor) -> Tensor:
    """The one-hot argmax; where scores (log y) carry a gradient, with that of y: straight-through."""
    hard = torch.zeros_like(scores).scatter(-1, scores.argmax(-1, keepdim=True), 1.0)
    if not scores.requires_grad:
        return hard
    soft = scores.exp()
    return hard + (soft - soft.detach())


def conditional(logits: Tensor, hard: Tensor) -> Tensor:
    """Perturbed logits given that their argmax is `hard`, reparameterised.   Tucker et al. 2017, appendix

    Shapes: normalised logits and one-hots `[..., K]`.
    """
    noise = torch.empty_like(logits, requires_grad=False).exponential_().clamp(min=torch.finfo(logits.dtype).tiny)
    # the largest of Gumbel(logits) is a standard Gumbel, as the logits are normalised; the others are cut off at it
    largest = (noise * hard).sum(-1, keepdim=True).log()  # minus that Gumbel
    others = -torch.logaddexp(noise.log() - logits, largest)
    return torch.where(hard > 0, -largest, others)


def log_density(fn: TorchDistribution, log_y: Tensor, temperature: float) -> Tensor:
    """Density of log y under the Concrete distribution with the logits of a one-hot `fn`, over its batch shape.

    Maddison et al. 2017, appendix C.3 (ExpConcrete): log (K-1)! + (K-1) log T + sum_k log softmax(logits - T log y)_k.
    """
    classes = log_y.shape[-1]
    constant = math.lgamma(classes) + (classes - 1) * math.log(temperature)
    density = constant + (parameter(fn) - temperature * log_y).log_softmax(-1).sum(-1)
    events = len(fn.event_shape) - 1
    return density.flatten(-events).sum(-1) if events else density
