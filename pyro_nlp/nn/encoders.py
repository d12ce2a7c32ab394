"""Networks that read a batch and give one vector per document (layer: nn).

An encoder is built as `factory(vocabulary)`. It reads `batch.targets`, which word dropout never corrupts; those with a
state at every word also read relaxed words, `[B, T, V]` in the place of ids.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from pyro_nlp.data.batches import TextBatch
from pyro_nlp.nn.words import look_up, word_vectors

Pooling = Literal["last", "mean", "max"]


class Encoder(nn.Module, ABC):
    """A batch of B documents to features `[B, width]`."""

    width: int

    @abstractmethod
    def forward(self, batch: TextBatch) -> Tensor:
        """Features of each document, `[B, width]`."""


class StateEncoder(Encoder):
    """An encoder with a state at every word, of which its features are a summary: what attention looks at."""

    pooling: Pooling

    @abstractmethod
    def states(self, batch: TextBatch) -> Tensor:
        """`[B, T, width]`; whatever stands at padding."""

    def forward(self, batch: TextBatch) -> Tensor:
        return pool(self.states(batch), batch.mask, self.pooling)


class LSTMEncoder(StateEncoder):
    """An LSTM over the words, pooled.

    Args:
        vocabulary: number of words.
        embedding: size of the word vectors.
        width: size of the features.
        pooling: `last` state (Bowman et al. 2016), or `mean` or `max` over the real positions (Long et al. 2019).
        dropout: rate on word vectors, and between layers.
        layers: recurrent layers.
        bidirectional: read from right to left too, by a network of its own; a state is both, `2 width` wide. Not with
            the `last` state.
    """

    cell: type[nn.LSTM] | type[nn.GRU] = nn.LSTM

    def __init__(
        self,
        vocabulary: int,
        embedding: int = 256,
        width: int = 256,
        pooling: Pooling = "last",
        dropout: float = 0.0,
        layers: int = 1,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        if bidirectional and pooling == "last":
            raise ValueError(
                f"{type(self).__name__}: what reads from right to left has read a single word at the last one: with "
                "bidirectional use pooling='mean' or 'max'"
            )
        self.embedding, self.width, self.pooling = embedding, width * (1 + bidirectional), pooling
        self.words = word_vectors(vocabulary, embedding)
        between = dropout if layers > 1 else 0.0
        self.network = self.cell(embedding, width, layers, batch_first=True, dropout=between)
        self.back = self.cell(embedding, width, layers, batch_first=True, dropout=between) if bidirectional else None
        self.dropout = nn.Dropout(dropout)

    def states(self, batch: TextBatch) -> Tensor:
        return self._run(look_up(self.words, batch.targets), batch.mask)

    def read(self, vectors: Tensor, mask: Tensor) -> Tensor:
        """Features of sequences of word vectors: vectors `[B, T, embedding]`, mask `[B, T]`, result `[B, width]`."""
        return pool(self._run(vectors, mask), mask, self.pooling)

    def _run(self, vectors: Tensor, mask: Tensor) -> Tensor:
        # Left to right, so padding on the right cannot reach a real state: no packing needed.
        vectors = self.dropout(vectors)
        states, _ = self.network(vectors)
        if self.back is None:
            return states
        place = torch.arange(mask.shape[1], device=mask.device)
        mirrored = torch.where(mask, mask.sum(1, keepdim=True) - 1 - place, place)[..., None]  # padding stays right
        back, _ = self.back(vectors.gather(1, mirrored.expand_as(vectors)))
        return torch.cat([states, back.gather(1, mirrored.expand_as(back))], -1)


class GRUEncoder(LSTMEncoder):
    """The same with a GRU. Same arguments as `LSTMEncoder`."""

    cell = nn.GRU


class CNNEncoder(StateEncoder):
    """A convolution over windows of words and tanh, pooled: the bigram network of Yu et al. 2014 (arXiv:1412.1632).

    A state at every word, of it and the words before it.

    Args:
        vocabulary: number of words.
        embedding: size of the word vectors.
        width: size of the features.
        window: words in a window.
        pooling: as of `LSTMEncoder`.
        dropout: rate on word vectors.
    """

    def __init__(
        self,
        vocabulary: int,
        embedding: int = 256,
        width: int = 256,
        window: int = 2,
        pooling: Pooling = "mean",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if window < 1:
            raise ValueError(f"CNNEncoder: window is {window}; it holds at least one word")
        self.width, self.pooling, self.window = width, pooling, window
        self.words = word_vectors(vocabulary, embedding)
        self.convolution = nn.Conv1d(embedding, width, window)
        self.dropout = nn.Dropout(dropout)

    def states(self, batch: TextBatch) -> Tensor:
        vectors = self.dropout(look_up(self.words, batch.targets)).transpose(1, 2)
        return self.convolution(nn.functional.pad(vectors, (self.window - 1, 0))).tanh().transpose(1, 2)


def pool(states: Tensor, mask: Tensor, how: Pooling) -> Tensor:
    """One vector from the real positions of each row: states `[B, T, D]`, mask `[B, T]`, result `[B, D]`."""
    if how == "last":
        last = mask.sum(-1).sub(1).clamp(min=0)
        return states[torch.arange(len(states), device=states.device), last]
    if how == "max":
        return states.masked_fill(~mask[..., None], -torch.inf).amax(-2)
    if how == "mean":
        return (states * mask[..., None]).sum(-2) / mask.sum(-1, keepdim=True).clamp(min=1)
    raise ValueError(f"pooling is 'last', 'mean' or 'max', not {how!r}")
