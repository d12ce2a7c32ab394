"""Documents as bags of words: how often each word occurs, stored without the zeros (layer: data)."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch

from pyro_nlp.data.batches import CountBatch
from pyro_nlp.data.corpus import Corpus
from pyro_nlp.data.files import CorpusError
from pyro_nlp.data.splits import Split
from pyro_nlp.data.vocabulary import WordList

LARGEST = 2**24
"""The largest count: up to here float32, which batches hold, has every whole number."""


class CountSplit(Split):
    """Bags of words, the words of document i at `offsets[i]:offsets[i + 1]`, ascending and each once.

    Args:
        offsets: where documents begin and the last ends, int64 `[N + 1]`.
        words: ids of the words that occur, from 0, int32 `[nonzero]`.
        counts: how often each does, at least 1, int32 `[nonzero]`.
        vocabulary: how many words there are.
        labels: class of each document, -1 where unknown, int `[N]`; None when the corpus has none.

    Raises:
        ValueError: the arrays are not such a store; `from_pairs` makes one from pairs in any order.
    """

    def __init__(
        self,
        offsets: np.ndarray,
        words: np.ndarray,
        counts: np.ndarray,
        vocabulary: int,
        labels: np.ndarray | None = None,
    ):
        self.offsets = np.asarray(offsets, np.int64)
        self.words, self.counts = np.asarray(words, np.int32), np.asarray(counts, np.int32)
        self.vocabulary = int(vocabulary)
        self.labels = None if labels is None else np.asarray(labels, np.int64)
        nonzero = len(self.words)
        if len(self.offsets) < 1 or self.offsets[0] != 0 or self.offsets[-1] != nonzero:
            raise ValueError(f"offsets go from {self.offsets[:1]} to {self.offsets[-1:]}; there are {nonzero} words")
        if (np.diff(self.offsets) < 0).any():
            raise ValueError("offsets fall; each document begins where the one before it ends")
        if len(self.counts) != nonzero:
            raise ValueError(f"{len(self.counts)} counts for {nonzero} words")
        if nonzero and not 0 <= self.words.min() <= self.words.max() < self.vocabulary:
            found = f"{self.words.min()} to {self.words.max()}"
            raise ValueError(f"word ids go from {found}; with {self.vocabulary} words they are 0 to {vocabulary - 1}")
        if nonzero and not 1 <= self.counts.min() <= self.counts.max() <= LARGEST:
            found = f"{self.counts.min()} to {self.counts.max()}"
            raise ValueError(f"counts go from {found}; they must be 1 to {LARGEST}")
        rises = np.diff(self.words) > 0
        starts = self.offsets[(self.offsets > 0) & (self.offsets < nonzero)]
        rises[starts - 1] = True  # from one document to the next ids may fall
        if not rises.all():
            raise ValueError("the word ids of each document must ascend, each once; use CountSplit.from_pairs")
        if self.labels is not None and len(self.labels) != len(self):
            raise ValueError(f"{len(self.labels)} labels for {len(self)} documents")

    @classmethod
    def from_pairs(
        cls,
        documents: np.ndarray,
        words: np.ndarray,
        counts: np.ndarray | None,
        size: int,
        vocabulary: int,
        labels: np.ndarray | None = None,
    ) -> CountSplit:
        """From pairs in any order; what is said of one word of one document more than once is added up.

        Args:
            documents: number of the document, int `[pairs]`.
            words: id of the word, int `[pairs]`.
            counts: how often, int `[pairs]`; None for once each.
            size: how many documents there are; those without a pair are empty.
            vocabulary: how many words there are.
            labels: class of each document, `[size]`, or None.
        """
        words = np.asarray(words, np.int64)
        if len(words) and not 0 <= words.min() <= words.max() < vocabulary:
            raise ValueError(f"word ids go from {words.min()} to {words.max()}; there are {vocabulary} words")
        keys, inverse = np.unique(np.asarray(documents, np.int64) * vocabulary + words, return_inverse=True)
        sums = np.bincount(inverse.ravel(), counts, len(keys))  # exact: floats below 2^53
        if (sums > LARGEST).any():
            raise ValueError(f"a word occurs {sums.max():.0f} times in a document; counts are at most {LARGEST}")
        offsets = np.searchsorted(keys, np.arange(size + 1) * vocabulary)
        return cls(offsets, keys % max(vocabulary, 1), sums, vocabulary, labels)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """Ones: a bag is as wide as every other, so that epochs shuffle freely, int64 `[N]`."""
        return np.ones(len(self), np.int64)

    @cached_property
    def sizes(self) -> np.ndarray:
        """Tokens of each document, int64 `[N]`."""
        total = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.counts, dtype=np.int64)])
        return np.diff(total[self.offsets])

    @property
    def tokens(self) -> int:
        """Tokens of the split: what perplexity divides by."""
        return int(self.sizes.sum())

    def batch(self, rows: np.ndarray) -> CountBatch:
        """The documents `rows` (int `[B]`), their counts with the zeros, float32 `[B, V]`."""
        rows = np.asarray(rows, dtype=np.int64)
        place, sizes = self._places(rows)
        counts = np.zeros(len(rows) * self.vocabulary, np.float32)
        counts[np.repeat(np.arange(len(rows)) * self.vocabulary, sizes) + self.words[place]] = self.counts[place]
        return CountBatch(
            index=torch.from_numpy(rows),
            population=len(self),
            counts=torch.from_numpy(counts.reshape(len(rows), self.vocabulary)),
            labels=None if self.labels is None else torch.from_numpy(self.labels[rows]),
        )

    def take(self, rows: np.ndarray) -> CountSplit:
        """These documents only, in the order of `rows`."""
        rows = np.asarray(rows, dtype=np.int64)
        place, sizes = self._places(rows)
        offsets = np.concatenate([np.zeros(1, np.int64), sizes.cumsum()])
        labels = None if self.labels is None else self.labels[rows]
        return CountSplit(offsets, self.words[place], self.counts[place], self.vocabulary, labels)

    def _places(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the words of these documents stand, one document after the other, and how many each has."""
        starts = self.offsets[rows]
        sizes = self.offsets[rows + 1] - starts
        before = sizes.cumsum() - sizes
        return np.arange(sizes.sum()) + np.repeat(starts - before, sizes), sizes

    def recode(self, table: np.ndarray, vocabulary: int) -> CountSplit:
        """The documents with word v as `table[v]`, without the words that are -1 there."""
        words = np.asarray(table)[self.words]
        kept = words >= 0
        documents = np.repeat(np.arange(len(self)), np.diff(self.offsets))[kept]
        return CountSplit.from_pairs(documents, words[kept], self.counts[kept], len(self), vocabulary, self.labels)

    def halves(self, seed: int = 0) -> Halves:
        """Each document's tokens divided at random in two, for document completion.

        The first half has the odd token. A document of one token has nothing to complete, one of none neither: they
        are in neither half and counted. The division is a function of `seed` and of the whole split.
        """
        rows = np.flatnonzero(self.sizes >= 2)
        part = self.take(rows)
        documents = np.repeat(np.arange(len(rows)), part.sizes)
        order = np.lexsort((np.random.default_rng(seed).random(len(documents)), documents))
        words = np.repeat(part.words, part.counts)[order]  # documents stay where they are, their tokens are shuffled
        rank = np.arange(len(documents)) - np.repeat(part.sizes.cumsum() - part.sizes, part.sizes)
        first = rank < np.repeat((part.sizes + 1) // 2, part.sizes)
        seen, held_out = (
            CountSplit.from_pairs(documents[half], words[half], None, len(rows), self.vocabulary, part.labels)
            for half in (first, ~first)
        )
        return Halves(seen, held_out, rows, len(self) - len(rows))

    def feed(self, hasher: Any) -> None:
        hasher.update(b"counts")
        hasher.update(np.ascontiguousarray(self.offsets, dtype="<i8"))
        hasher.update(np.ascontiguousarray(self.words, dtype="<i4"))
        hasher.update(np.ascontiguousarray(self.counts, dtype="<i4"))
        if self.labels is not None:
            hasher.update(np.ascontiguousarray(self.labels, dtype="<i8"))


class Halves(NamedTuple):
    """Documents divided for completion: infer from what was seen, predict what was held out.

    Attributes:
        seen, held_out: the two halves, document by document, `[len(rows)]`.
        rows: which documents of the split they are.
        excluded: how many documents of the split are not among them.
    """

    seen: CountSplit
    held_out: CountSplit
    rows: np.ndarray
    excluded: int


class CountCorpus(Corpus):
    """A corpus of bags of words; a concrete reader's constructor calls `keep` and `fill`.

    Attributes:
        dropped: documents left out because they had too few words, in all.
        dropped_by_split: the same by the name of the split.
    """

    train: CountSplit
    valid: CountSplit
    test: CountSplit
    vocabulary: WordList
    dropped_by_split: Mapping[str, int]

    @abstractmethod
    def __init__(self) -> None:
        """See Corpus."""

    def keep(
        self,
        splits: Mapping[str, CountSplit],
        places: Mapping[str, Sequence[str]] | None = None,
        min_words: int = 1,
    ) -> dict[str, CountSplit]:
        """The splits without documents of fewer than `min_words` tokens, which are counted.

        Documents without any word are warned of, once for all splits: a perplexity is over the documents kept.

        Args:
            splits: by name.
            places: where each document stood, as `file: line 7`, by name of the split; for the warning.
            min_words: 1 to leave out empty documents only.
        """
        rows = {name: np.flatnonzero(split.sizes >= min_words) for name, split in splits.items()}
        self.dropped_by_split = dict.fromkeys(("train", "valid", "test"), 0)
        self.dropped_by_split |= {name: len(split) - len(rows[name]) for name, split in splits.items()}
        self.dropped = sum(self.dropped_by_split.values())
        empty = {name: np.flatnonzero(split.sizes == 0) for name, split in splits.items()}
        if min_words == 1 and self.dropped:
            told = ", ".join(f"{len(found)} of {name}" for name, found in empty.items() if len(found))
            first = [places[name][found[0]] for name, found in empty.items() if len(found)] if places else []
            at = f" (the first is {first[0]})" if first else ""
            warnings.warn(
                f"{self.name}: documents without a word of the vocabulary are left out: {told}{at}", stacklevel=3
            )
        return {name: split.take(rows[name]) for name, split in splits.items()}

    def fill(self, splits: Mapping[str, CountSplit], where: str | None = None) -> None:
        """Set `train`, `valid` and `test`, by these names; raises CorpusError if one has no document."""
        for name, split in splits.items():
            if len(split) == 0:
                raise CorpusError(
                    f"{where or self.name}: no document for the {name} split (found "
                    f"{sum(map(len, splits.values()))} in all); give more documents, or a file for that split"
                )
        self.train, self.valid, self.test = (splits[name] for name in ("train", "valid", "test"))
