"""From a stream of pairs of texts to a corpus: questions and candidate answers, sources and targets (layer: data)."""

from __future__ import annotations

from abc import abstractmethod
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from itertools import count
from typing import NamedTuple, get_args

import numpy as np

from pyro_nlp.data.corpus import Corpus
from pyro_nlp.data.files import CorpusError
from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.data.store import SPLITS, SplitWriter
from pyro_nlp.data.text import TRAIN, Overlong, check_limits
from pyro_nlp.data.tokenise import words
from pyro_nlp.data.vocabulary import Vocabulary

WRONG, RIGHT = 0, 1
"""Classes of a pair by id."""


class Pair(NamedTuple):
    """A pair on its way into a corpus: its words, split, which question it belongs to, its class, where it stood.

    `group` names the first text within its split: pairs of one group have one first text. Two groups may have equal
    first texts.
    """

    first: Sequence[str]
    second: Sequence[str]
    split: int
    group: Hashable
    label: int | None = None
    where: str = ""
    line: int = 0


class PairCorpus(Corpus):
    """A corpus of pairs of texts; a concrete reader's constructor calls `build`.

    Attributes:
        labels: ("wrong", "right") where pairs have a class, else empty.
        tokenise: reads a user's text as this corpus was read.
    """

    train: PairSplit
    valid: PairSplit
    test: PairSplit
    vocabulary: Vocabulary
    tokenise: Callable[[str], list[str]] = staticmethod(words)

    @abstractmethod
    def __init__(self) -> None:
        """See Corpus."""

    def build(
        self,
        pairs: Iterable[Pair],
        *,
        min_count: int = 1,
        max_size: int | None = None,
        max_length: int | None = None,
        overlong: Overlong = "error",
        labelled: bool = False,
        bare: bool = False,
        where: str | None = None,
    ) -> None:
        """Fill `train`, `valid`, `test` and `vocabulary` (of the words of train, first and second texts together).

        A first text counts once however many pairs it stands in, and so does a second text.

        Args:
            pairs: a stream is enough; it is read once.
            min_count: words seen less often in train become `<unk>`.
            max_size: bound on the size of the vocabulary, special symbols counted.
            max_length: bound on the words of a second text, the end of sentence not counted; None for no bound.
            overlong: what to do with a longer one; dropping leaves out the pair.
            labelled: whether pairs have a class, 0 or 1. One of train needs it; one of valid or test without it
                gets -1.
            bare: whether a second text may be empty.
            where: what errors call the text; None for the corpus's name.
        """
        check_limits(min_count, max_size, max_length)
        if overlong not in get_args(Overlong):
            raise CorpusError(f"overlong is {overlong!r}; give error, drop or truncate")
        ids: defaultdict[str, int] = defaultdict(count().__next__)
        counts: Counter[str] = Counter()
        writers = [
            _PairWriter(name, labelled, ids, counts if i == TRAIN else None, bare) for i, name in enumerate(SPLITS)
        ]
        self.dropped = self.truncated = 0
        for pair in pairs:
            limit = max_length if max_length is not None and len(pair.second) > max_length else None
            if limit is not None and overlong == "error":
                raise CorpusError(
                    f"{pair.where}: line {pair.line} has a second text of {len(pair.second)} words, the limit is "
                    f"{limit}; raise --corpus.max_length, or give --corpus.overlong drop (or truncate)"
                )
            if limit is not None:
                self.truncated += overlong == "truncate"
                self.dropped += overlong == "drop"
            writers[pair.split].add(pair, limit, kept=limit is None or overlong == "truncate")
        found = [len(writer.group) for writer in writers]
        for name, size in zip(SPLITS, found, strict=True):
            if size == 0:
                raise CorpusError(
                    f"{where or self.name}: no pair for the {name} split (found {sum(found)} in all); "
                    f"give more text, or a file for that split"
                )
        self.vocabulary = Vocabulary.from_counts(counts, min_count, max_size)
        self.labels = ("wrong", "right") if labelled else ()
        table = self.vocabulary.encode(list(ids))
        self.train, self.valid, self.test = (writer.split(table) for writer in writers)


class _PairWriter:
    """The pairs of one split, in provisional ids; `counts` is None where the words are not to be counted."""

    def __init__(
        self, name: str, labelled: bool, ids: defaultdict[str, int], counts: Counter[str] | None, bare: bool
    ) -> None:
        self.first, self.second = SplitWriter(name, None, labelled=False), SplitWriter(name, None, labelled=False)
        self.group, self.labels, self.labelled = array("q"), array("q"), labelled
        self.ids, self.counts, self.train, self.bare = ids, counts, name == SPLITS[TRAIN], bare
        self._texts: dict[Hashable, tuple[str, ...]] = {}
        self._rows: dict[Hashable, int] = {}
        self._seen: set[tuple[str, ...]] = set()

    def add(self, pair: Pair, limit: int | None, kept: bool) -> None:
        """Check a pair and append it, its second text cut at `limit`; one that is not kept is only checked."""
        first, second = tuple(pair.first), tuple(pair.second)
        self._check(pair, first, second)
        if not kept:
            return
        if pair.group not in self._rows:  # a question whose every pair was dropped never gets a row
            self._rows[pair.group] = self.first.sentences
            self.first.add(map(self.ids.__getitem__, first), -1)
            if self.counts is not None:
                self.counts.update(first)
        second = second[:limit]
        self.second.add(map(self.ids.__getitem__, second), -1)
        if self.counts is not None and second not in self._seen:
            self._seen.add(second)
            self.counts.update(second)
        self.group.append(self._rows[pair.group])
        self.labels.append(-1 if pair.label is None else pair.label)

    def _check(self, pair: Pair, first: tuple[str, ...], second: tuple[str, ...]) -> None:
        place = f"{pair.where}: line {pair.line}"
        for text, name in ((first, "first"), (second, "second")):
            if not text and not (self.bare and name == "second"):
                raise CorpusError(f"{place} has an empty {name} text; give it words, or take the line out")
        known = self._texts.setdefault(pair.group, first)
        if known != first:
            raise CorpusError(
                f"{place}: group {pair.group!r} has the first text {' '.join(first)[:60]!r} here and "
                f"{' '.join(known)[:60]!r} before; give every first text a group of its own"
            )
        if not self.labelled:
            if pair.label is not None:
                raise CorpusError(f"{place} has a label, and the corpus has none; take the label out")
        elif pair.label is None:
            if self.train:
                raise CorpusError(f"{place} has no label; give every pair of train a label, 0 or 1, or none of them")
        elif pair.label not in (WRONG, RIGHT):
            raise CorpusError(f"{place} has the label {pair.label!r}; give 1 for a right pair and 0 for a wrong one")

    def split(self, table: np.ndarray) -> PairSplit:
        """What was added, with `table[i]` for each provisional id i."""
        for writer in (self.first, self.second):
            writer.recode("tokens", table)
        labels = np.array(self.labels, np.int64) if self.labelled else None
        return PairSplit(self.first.split(), self.second.split(), np.array(self.group, np.int64), labels)
