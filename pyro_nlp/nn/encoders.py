"""Networks that read a batch and give one vector per document (layer: nn).

An encoder is built as `factory(vocabulary)`. It reads `batch.targets`, which word dropout never corrupts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from pyro_nlp.data.batches import TextBatch
from pyro_nlp.nn.words import word_vectors


class Encoder(nn.Module, ABC):
    """A batch of B documents to features `[B, width]`."""

    width: int

    @abstractmethod
    def forward(self, batch: TextBatch) -> Tensor:
        """Features of each document, `[B, width]`."""


class LSTMEncoder(Encoder):
    """An LSTM over the words, pooled.

    Args:
        vocabulary: number of words.
        embedding: size of the word vectors.
        width: size of the features.
        pooling: `last` state (Bowman et al. 2016), or `mean` or `max` over the real positions (Long et al. 2019).
        dropout: rate on word vectors.
    """

    cell: type[nn.LSTM] | type[nn.GRU] = nn.LSTM

    def __init__(
        self,
        vocabulary: int,
        embedding: int = 256,
        width: int = 256,
        pooling: Literal["last", "mean", "max"] = "last",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.width, self.pooling = width, pooling
        self.words = word_vectors(vocabulary, embedding)
        self.network = self.cell(embedding, width, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch: TextBatch) -> Tensor:
        # Left to right, so padding on the right cannot reach a real state: no packing needed.
        states, _ = self.network(self.dropout(self.words(batch.targets)))
        return pool(states, batch.mask, self.pooling)


class GRUEncoder(LSTMEncoder):
    """The same with a GRU. Same arguments as `LSTMEncoder`."""

    cell = nn.GRU


def pool(states: Tensor, mask: Tensor, how: Literal["last", "mean", "max"]) -> Tensor:
    """One vector from the real positions of each row: states `[B, T, D]`, mask `[B, T]`, result `[B, D]`."""
    if how == "last":
        last = mask.sum(-1).sub(1).clamp(min=0)
        return states[torch.arange(len(states), device=states.device), last]
    if how == "max":
        return states.masked_fill(~mask[..., None], -torch.inf).amax(-2)
    if how == "mean":
        return (states * mask[..., None]).sum(-2) / mask.sum(-1, keepdim=True).clamp(min=1)
    raise ValueError(f"pooling is 'last', 'mean' or 'max', not {how!r}")


class GaussianHead(nn.Module):
    """Features to the mean and standard deviation of a diagonal Gaussian, in float32 also under autocast.

    Shapes: `[..., width]` to two of `[..., latent]`. The log-variance starts at zero.
    """

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        self.loc, self.log_variance = nn.Linear(width, latent), nn.Linear(width, latent)
        nn.init.zeros_(self.log_variance.weight)
        nn.init.zeros_(self.log_variance.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            return self.loc(features), (0.5 * self.log_variance(features)).exp()


class CategoricalHead(nn.Module):
    """Features to logits of a categorical, in float32 also under autocast.

    Shapes: `[..., width]` to `[..., classes]`. The weights start small: near the uniform distribution, where no class
    is given up early, yet not at it, so that the encoder gets a gradient from the first step.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.logits = nn.Linear(width, classes)
        nn.init.normal_(self.logits.weight, std=0.1 * width**-0.5)
        nn.init.zeros_(self.logits.bias)

    def forward(self, features: Tensor) -> Tensor:
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = self.logits(features.float())
            return logits
