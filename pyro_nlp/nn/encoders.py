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
        self.embedding, self.width, self.pooling = embedding, width, pooling
        self.words = word_vectors(vocabulary, embedding)
        self.network = self.cell(embedding, width, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch: TextBatch) -> Tensor:
        return self.read(self.words(batch.targets), batch.mask)

    def read(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Features of sequences of word vectors: vectors `[B, T, embedding]`, mask `[B, T]`, result `[B, width]`."""
        # Left to right, so padding on the right cannot reach a real state: no packing needed.
        states, _ = self.network(self.dropout(vectors))
        return pool(states, mask, self.pooling)


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
