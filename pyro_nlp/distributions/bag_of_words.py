"""The distribution of a bag of words (layer: distributions)."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints


class BagOfWords(TorchDistribution):
    """prod_v softmax(logits)_v ^ counts_v: the words of a document drawn one by one, their order forgotten.

    Unlike `Multinomial` it leaves out the multinomial coefficient, as NVDM and its successors do, so that
    exp(-log_prob / length) is a perplexity per word. Works for documents of different lengths.

    Shapes: logits `[..., V]`, counts (the value) `[..., V]`, batch shape `[...]`, event shape `[V]`.
    `length` is the number of words that `sample` draws.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)
    support = constraints.independent(constraints.nonnegative, 1)
    has_rsample = False

    def __init__(self, logits: Tensor, length: int = 1, batch_shape: torch.Size | None = None):
        self.logits, self.length = logits, length
        shape = logits.shape[:-1] if batch_shape is None else batch_shape
        super().__init__(shape, logits.shape[-1:], validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> BagOfWords:
        return BagOfWords(self.logits, self.length, torch.Size(batch_shape))

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        with torch.no_grad():
            logits = self.logits.expand(*self.batch_shape, *self.event_shape)
            return torch.distributions.Multinomial(self.length, logits=logits).sample(torch.Size(sample_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """sum_v counts_v log p_v, in nats, `[...]`."""
        words = (value * self.logits).sum(-1) - value.sum(-1) * self.logits.logsumexp(-1)
        return words.expand(torch.broadcast_shapes(words.shape, self.batch_shape))
