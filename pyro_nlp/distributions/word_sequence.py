"""The distribution of a sentence given its decoder's states (layer: distributions)."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_nlp.distributions.fused import target_log_prob


class WordSequence(TorchDistribution):
    """prod_t Categorical(x_t | softmax(head(states_t))) over the real positions of a sentence.

    The states come from a decoder that read the sentence shifted by one, so this is p(x) = prod_t p(x_t | x_<t).
    The vocabulary layer is applied to real positions only, in chunks, and no normalised copy is kept.

    Shapes: states `[..., B, T, D]`; mask `[..., B, T]`, true at real positions; batch shape `[..., B]`,
    event shape `[T]`; values are ids `[..., B, T]` and may carry more or fewer left dimensions than the states.
    `head` is the vocabulary layer, D to V.

    `sample()` draws every position given the words the decoder *was fed*. That is right for a check of
    shapes and wrong for writing text, which needs `model.generate`.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)
    has_rsample = False

    def __init__(self, states: Tensor, head: nn.Linear, mask: Tensor, batch_shape: torch.Size | None = None):
        self.states, self.head, self.mask_ = states, head, mask
        left = torch.broadcast_shapes(states.shape[:-2], mask.shape[:-1])
        super().__init__(left if batch_shape is None else batch_shape, mask.shape[-1:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.integer_interval(0, self.head.out_features - 1), 1)

    @property
    def logits(self) -> Tensor:
        """Unnormalised log-probabilities of every word at every position, `[..., B, T, V]`."""
        return self.head(self.states)

    def expand(self, batch_shape: Any, _instance: Any = None) -> WordSequence:
        # Nothing is copied: log_prob works at the states' own shape and expands its result.
        return WordSequence(self.states, self.head, self.mask_, torch.Size(batch_shape))

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        with torch.no_grad():
            # every element of the batch shape is drawn on its own, also where the states are shared
            logits = self.logits.expand(*self.batch_shape, *self.event_shape, -1)
            drawn = torch.distributions.Categorical(logits=logits).sample(torch.Size(sample_shape))
            return drawn.masked_fill(~self.mask_, 0)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x) of each sentence in nats, padding left out, `[..., B]`."""
        left = torch.broadcast_shapes(self.states.shape[:-2], value.shape[:-1], self.mask_.shape[:-1])
        length = self.event_shape[0]
        mask = self.mask_.expand(*left, length)
        rows = mask.reshape(-1).nonzero().squeeze(1)
        states = self.states.expand(*left, length, self.states.shape[-1]).flatten(0, -2)[rows]
        words = value.expand(*left, length).reshape(-1)[rows]
        log_prob = target_log_prob(states, self.head.weight, self.head.bias, words)
        sentence = rows.div(length, rounding_mode="floor")
        total = log_prob.new_zeros(left.numel()).index_add(0, sentence, log_prob)
        return total.view(left).expand(torch.broadcast_shapes(left, self.batch_shape))
