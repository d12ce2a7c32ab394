"""Pairs of texts: the first text of many pairs is held, and later read, once (layer: data)."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch

from pyro_nlp.data.batches import PairBatch
from pyro_nlp.data.splits import Split, TextSplit


class PairSplit(Split):
    """Pairs of a first text (a question, a source) and a second (a candidate answer, a target).

    Args:
        first: the first texts, each once.
        second: the second texts, one a pair.
        group: which first text a pair has, int `[N]`.
        labels: class of each pair, -1 where unknown, int `[N]`; None when the corpus has none.

    Raises:
        ValueError: the parts do not fit each other.
    """

    def __init__(self, first: TextSplit, second: TextSplit, group: np.ndarray, labels: np.ndarray | None = None):
        self.first, self.second = first, second
        self.group = np.asarray(group, np.int64)
        self.labels = None if labels is None else np.asarray(labels, np.int64)
        if len(self.group) != len(second):
            raise ValueError(f"{len(self.group)} groups for {len(second)} second texts")
        if len(self.group) and not 0 <= self.group.min() <= self.group.max() < len(first):
            found = f"{self.group.min()} to {self.group.max()}"
            raise ValueError(f"groups go from {found}; there are {len(first)} first texts")
        if self.labels is not None and len(self.labels) != len(second):
            raise ValueError(f"{len(self.labels)} labels for {len(second)} pairs")

    def __len__(self) -> int:
        return len(self.group)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Words of each second text and its end of sentence, int64 `[N]`."""
        return self.second.lengths

    @property
    def tokens(self) -> int:
        """Targets in the second texts, the ends of sentence counted: what perplexity divides by."""
        return self.second.tokens

    @cached_property
    def answered(self) -> np.ndarray:
        """The first texts that have a right pair (label 1), those that can be judged, int64; none without labels."""
        return np.unique(self.group[self.labels == 1]) if self.labels is not None else np.zeros(0, np.int64)

    def batch(self, rows: np.ndarray) -> PairBatch:
        """The pairs `rows` (int `[B]`), and the first texts that they have."""
        rows = np.asarray(rows, np.int64)
        groups, place = np.unique(self.group[rows], return_inverse=True)
        return PairBatch(
            index=torch.from_numpy(rows),
            population=len(self),
            first=self.first.batch(groups),
            second=self.second.batch(rows),
            group=torch.from_numpy(place.reshape(-1)),
            labels=None if self.labels is None else torch.from_numpy(self.labels[rows]),
        )

    def take(self, rows: np.ndarray) -> PairSplit:
        """These pairs only, in the order of `rows`; first texts that none of them has are left out."""
        rows = np.asarray(rows, np.int64)
        groups, place = np.unique(self.group[rows], return_inverse=True)
        labels = None if self.labels is None else self.labels[rows]
        return PairSplit(self.first.take(groups), self.second.take(rows), place.reshape(-1), labels)

    def of_groups(self, groups: np.ndarray) -> np.ndarray:
        """The pairs of these first texts, in the order of the split, int64."""
        return np.flatnonzero(np.isin(self.group, groups))

    def feed(self, hasher: Any) -> None:
        for part in (self.first, self.second):
            part.feed(hasher)
        hasher.update(np.ascontiguousarray(self.group, dtype="<i8"))
        if self.labels is not None:
            hasher.update(np.ascontiguousarray(self.labels, dtype="<i8"))
