"""What a model sees of the corpus: one batch type per kind of observation (layer: data).

A batch knows which documents it holds (`index`), how many the corpus has (`population`) and opens the
plate that owns the scale between the two (`documents()`); models never compute N/B themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Self

import pyro
import torch
from torch import Tensor

if TYPE_CHECKING:
    from pyro.poutine.subsample_messenger import SubsampleMessenger

PAD, BOS, EOS, UNK = 0, 1, 2, 3
"""Ids of the special symbols, the same in every vocabulary; padding holds a valid id and a false mask."""


@dataclass(frozen=True)
class Batch:
    """Some documents of a corpus.

    Attributes:
        index: their positions in the split they come from, `[B]`.
        population: how many documents that split has.
    """

    index: Tensor
    population: int

    def __len__(self) -> int:
        return len(self.index)

    def documents(self) -> SubsampleMessenger:
        """The plate over documents at dim -1: corpus size, subsampled to this batch (scale N/B)."""
        return pyro.plate("documents", self.population, subsample=self.index, dim=-1)

    @property
    def scale(self) -> float:
        """N/B, the factor that `documents()` puts on every site inside it."""
        return self.population / len(self)

    @property
    def words(self) -> int:
        """Words in the batch, ends of sentence not counted; 0 for data that are not text."""
        return 0

    def replace(self, **changes: Any) -> Self:
        """The same documents with some fields changed."""
        return replace(self, **changes)

    def to(self, device: torch.device | str) -> Self:
        """The same batch with every tensor on `device`."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved: dict[str, Any] = {k: v.to(device) for k, v in values.items() if isinstance(v, Tensor | Batch)}
        return replace(self, **moved)


@dataclass(frozen=True)
class TextBatch(Batch):
    """Sentences, right-padded.

    Attributes:
        inputs: `<s> w_1 ... w_n`, what a decoder reads, `[B, T]`; word dropout corrupts these only.
        targets: `w_1 ... w_n </s>`, what it is to predict and what encoders read, `[B, T]`.
        mask: true at real positions of `targets`, `[B, T]`.
        labels: class of each document, -1 where unknown, `[B]`; None when the corpus has none.
        tags: class of each target, -1 where there is none (the end of sentence, padding), `[B, T]`; None when the
            corpus has none.
        attributes: class of each document in every respect of the corpus's `attributes`, -1 where unknown, `[B, A]`;
            the first is `labels`. None where there is one respect at most.
    """

    inputs: Tensor
    targets: Tensor
    mask: Tensor
    labels: Tensor | None = None
    tags: Tensor | None = None
    attributes: Tensor | None = None

    @property
    def lengths(self) -> Tensor:
        """Real positions of each document, the end of sentence counted, `[B]`."""
        return self.mask.sum(-1)

    @property
    def words(self) -> int:
        return int(self.mask.sum()) - len(self)


@dataclass(frozen=True)
class CountBatch(Batch):
    """Bags of words: `counts[b, v]` occurrences of word v in document b, `[B, V]`."""

    counts: Tensor
    labels: Tensor | None = None

    @property
    def words(self) -> int:
        return int(self.counts.sum())


@dataclass(frozen=True)
class PairBatch(Batch):
    """Pairs of texts: question and candidate answer, or source and target. A document is a pair.

    Attributes:
        first: the first texts, each once however many pairs of the batch it stands in, `Q` rows; their `index` counts
            the first texts of the split.
        second: the second text of every pair, `B` rows.
        group: row in `first` of every pair's own, `[B]`.
        labels: class of every pair, as 1 for a right answer and 0 for a wrong one, -1 where unknown, `[B]`; None when
            the corpus has none.
    """

    first: TextBatch
    second: TextBatch
    group: Tensor
    labels: Tensor | None = None

    @property
    def words(self) -> int:
        return self.second.words


@dataclass(frozen=True)
class VectorBatch(Batch):
    """Real vectors, for the toy models: `values` `[B, D]`."""

    values: Tensor


def drop_words(batch: TextBatch, rate: float) -> TextBatch:
    """Word dropout: each input word becomes `<unk>` with probability `rate`; targets stay (Bowman et al. 2016)."""
    word = (batch.inputs != BOS) & (batch.inputs != PAD)
    dropped = torch.rand(batch.inputs.shape, device=batch.inputs.device) < rate
    return batch.replace(inputs=batch.inputs.masked_fill(word & dropped, UNK))
