"""The documents of one split, and how rows of it become a batch (layer: data)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch

from pyro_nlp.data.batches import BOS, EOS, PAD, Batch, TextBatch, VectorBatch


class Split(ABC):
    """Documents that can be counted, measured and made into batches."""

    @abstractmethod
    def __len__(self) -> int:
        """How many documents."""

    @property
    @abstractmethod
    def lengths(self) -> np.ndarray:
        """What bucketing sorts by: positions of each document, int64 `[N]`."""

    @abstractmethod
    def batch(self, rows: np.ndarray) -> Batch:
        """The documents `rows` (int `[B]`) as a batch: `index` is `rows`, `population` is `len(self)`."""

    @abstractmethod
    def take(self, rows: np.ndarray) -> Self:
        """A smaller split of these documents only; its population is their number."""

    @abstractmethod
    def feed(self, hasher: Any) -> None:
        """Update a hashlib object with the content, for the corpus's fingerprint."""


class TextSplit(Split):
    """Sentences as one flat array of token ids, which may be memory-mapped.

    Args:
        tokens: ids of all sentences one after the other, without end of sentence, int32 `[sum n]`.
        offsets: sentence i is `tokens[offsets[i]:offsets[i + 1]]`, int64 `[N + 1]`.
        labels: class of each sentence, -1 where unknown, int `[N]`; None when the corpus has none.
        tags: class of each token, -1 where unknown, int `[sum n]`; None when the corpus has none.
        attributes: class of each sentence in every respect of `Corpus.attributes`, -1 where unknown, int `[N, A]`; the
            first is `labels`. None where there is one respect at most.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        offsets: np.ndarray,
        labels: np.ndarray | None = None,
        tags: np.ndarray | None = None,
        attributes: np.ndarray | None = None,
    ):
        if len(offsets) < 1 or int(offsets[-1]) != len(tokens):
            raise ValueError(f"offsets end at {offsets[-1:]}, but there are {len(tokens)} tokens")
        if labels is not None and len(labels) != len(offsets) - 1:
            raise ValueError(f"{len(labels)} labels for {len(offsets) - 1} sentences")
        if tags is not None and len(tags) != len(tokens):
            raise ValueError(f"{len(tags)} tags for {len(tokens)} tokens")
        if attributes is not None and len(attributes) != len(offsets) - 1:
            raise ValueError(f"attributes of {len(attributes)} sentences for {len(offsets) - 1}")
        # plain views: indexing an np.memmap object costs a Python-level __array_finalize__ each time
        self._tokens, self._offsets = np.asarray(tokens), np.asarray(offsets)
        self.labels = None if labels is None else np.asarray(labels)
        self.tags = None if tags is None else np.asarray(tags)
        self.attributes = None if attributes is None else np.asarray(attributes)

    @classmethod
    def from_sentences(
        cls, sentences: Sequence[Any], labels: Any = None, tags: Sequence[Any] | None = None
    ) -> TextSplit:
        """From a list of id arrays, the end of sentence not included; `tags` likewise, as many of each sentence."""
        sizes = np.fromiter((len(s) for s in sentences), np.int64, len(sentences))
        offsets = np.concatenate([np.zeros(1, np.int64), sizes.cumsum()])
        parts = [np.asarray(s, dtype=np.int32) for s in sentences]
        tokens = np.concatenate(parts) if parts else np.zeros(0, np.int32)
        for i, (sentence, given) in enumerate(zip(sentences, tags, strict=True) if tags is not None else ()):
            if len(sentence) != len(given):
                raise ValueError(f"sentence {i} has {len(sentence)} tokens and {len(given)} tags")
        flat = None if tags is None else np.fromiter((tag for given in tags for tag in given), np.int32)
        return cls(tokens, offsets, None if labels is None else np.asarray(labels, dtype=np.int64), flat)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """Words of each sentence and its end of sentence, int64 `[N]`."""
        return np.diff(self._offsets) + 1

    @property
    def tokens(self) -> int:
        """Targets in the split, the ends of sentence counted: what perplexity divides by."""
        return len(self._tokens) + len(self)

    @property
    def flat(self) -> np.ndarray:
        """Ids of all sentences one after the other, without end of sentence, int32 `[sum n]`."""
        return self._tokens

    @property
    def offsets(self) -> np.ndarray:
        """Sentence i is `flat[offsets[i]:offsets[i + 1]]`, int64 `[N + 1]`."""
        return self._offsets

    def words(self, row: int) -> list[int]:
        """Ids of one sentence, without end of sentence."""
        row = range(len(self))[row]
        return self._tokens[self._offsets[row] : self._offsets[row + 1]].tolist()

    def batch(self, rows: np.ndarray) -> TextBatch:
        """The sentences `rows` (int `[B]`), right-padded to the longest of them."""
        rows = np.asarray(rows, dtype=np.int64)
        starts = self._offsets[rows]
        sizes = (self._offsets[rows + 1] - starts)[:, None]
        time = np.arange(int(sizes.max(initial=0)) + 1)
        word = time < sizes
        place = np.where(word, starts[:, None] + time, 0)

        def spread(flat: np.ndarray, filler: int) -> np.ndarray:
            source = flat if len(flat) else np.full(1, filler, np.int32)
            return np.where(word, source[place], filler).astype(np.int64)

        body = spread(self._tokens, PAD)
        inputs = np.full_like(body, BOS)
        inputs[:, 1:] = body[:, :-1]
        targets = np.where(time == sizes, EOS, body)
        return TextBatch(
            index=torch.from_numpy(rows),
            population=len(self),
            inputs=torch.from_numpy(inputs),
            targets=torch.from_numpy(targets),
            mask=torch.from_numpy(time <= sizes),
            labels=None if self.labels is None else torch.from_numpy(self.labels[rows].astype(np.int64)),
            tags=None if self.tags is None else torch.from_numpy(spread(self.tags, -1)),
            attributes=None if self.attributes is None else torch.from_numpy(self.attributes[rows].astype(np.int64)),
        )

    def take(self, rows: np.ndarray) -> TextSplit:
        """These sentences only, in the order of `rows`, in memory."""
        rows = np.asarray(rows, dtype=np.int64)
        starts, sizes = self._offsets[rows], self._offsets[rows + 1] - self._offsets[rows]
        offsets = np.concatenate([np.zeros(1, np.int64), sizes.cumsum()])
        # position of each kept token in the source: its place in the copy, moved by its sentence's shift
        source = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], sizes)
        labels = None if self.labels is None else self.labels[rows]
        tags = None if self.tags is None else self.tags[source]
        attributes = None if self.attributes is None else self.attributes[rows]
        return TextSplit(self._tokens[source], offsets, labels, tags, attributes)

    def feed(self, hasher: Any) -> None:
        hasher.update(np.ascontiguousarray(self._tokens, dtype="<i4"))
        hasher.update(np.ascontiguousarray(self._offsets, dtype="<i8"))
        if self.labels is not None:
            hasher.update(np.ascontiguousarray(self.labels, dtype="<i8"))
        if self.tags is not None:
            hasher.update(b"tags")
            hasher.update(np.ascontiguousarray(self.tags, dtype="<i4"))
        if self.attributes is not None:
            hasher.update(b"attributes")
            hasher.update(np.ascontiguousarray(self.attributes, dtype="<i8"))


class VectorSplit(Split):
    """Real vectors: `values` `[N, D]`, all of one length."""

    def __init__(self, values: np.ndarray | torch.Tensor):
        self.values = torch.as_tensor(values)
        if self.values.dim() != 2:
            raise ValueError(f"values must be [N, D], found shape {tuple(self.values.shape)}")

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Ones: every vector is as long as every other."""
        return np.ones(len(self), np.int64)

    def batch(self, rows: np.ndarray) -> VectorBatch:
        """The vectors `rows` (int `[B]`)."""
        index = torch.as_tensor(np.asarray(rows, dtype=np.int64))
        return VectorBatch(index=index, population=len(self), values=self.values[index])

    def take(self, rows: np.ndarray) -> VectorSplit:
        """These vectors only."""
        return VectorSplit(self.values[torch.as_tensor(np.asarray(rows, dtype=np.int64))])

    def feed(self, hasher: Any) -> None:
        hasher.update(np.ascontiguousarray(self.values.numpy()))
