"""From a stream of sentences to a text corpus, without holding the text (layer: data).

The text is read once, into provisional ids; counting and the final ids are array operations on these.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple, get_args

import numpy as np

from pyro_nlp.data.corpus import Corpus
from pyro_nlp.data.files import CorpusError
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.data.store import (
    SPLITS,
    SplitWriter,
    StoreBuilder,
    open_split,
    read_meta,
    unwritable,
)
from pyro_nlp.data.tokenise import words
from pyro_nlp.data.vocabulary import Vocabulary

Overlong = Literal["error", "drop", "truncate"]
TRAIN, VALID, TEST = 0, 1, 2


class Sentence(NamedTuple):
    """A sentence on its way into a corpus: its words, split, the name of its class, where it stood, a tag per word."""

    words: Sequence[str]
    split: int = TRAIN
    label: str | None = None
    where: str = ""
    line: int = 0
    tags: Sequence[str] | None = None


def cut(words: Sequence[str], valid: float = 0.1, test: float = 0.1) -> int:
    """The split of a sentence by a hash of its words: TEST, VALID or TRAIN.

    The same sentence gets the same split on every machine, whatever else the corpus holds, so copies of a
    sentence never stand on both sides. `valid` and `test` are the shares; 0 where the split is given.
    """
    digest = hashlib.blake2b(" ".join(words).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    point = int.from_bytes(digest, "big") / 2**64
    if point < test:
        return TEST
    return VALID if 1.0 - point <= valid else TRAIN


class TextCorpus(Corpus):
    """A corpus of sentences; a concrete reader's constructor calls `build`.

    Attributes:
        tags: names of the classes of words by id; empty where there are none.
        texts: the sentences of every split, words with spaces between, in the order of the split, so that overlap with
            another corpus can be found (`without`); empty where they are not kept.
        tokenise: reads a user's sentence as this corpus was read.
    """

    train: TextSplit
    valid: TextSplit
    test: TextSplit
    vocabulary: Vocabulary
    tags: tuple[str, ...] = ()
    texts: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    tokenise: Callable[[str], list[str]] = staticmethod(words)

    @abstractmethod
    def __init__(self) -> None:
        """See Corpus."""

    def build(
        self,
        sentences: Iterable[Sentence],
        *,
        min_count: int = 1,
        max_size: int | None = None,
        max_length: int | None = None,
        overlong: Overlong = "error",
        labelled: bool = False,
        labels: Sequence[str] = (),
        tagged: bool = False,
        keep: bool = False,
        store: Path | None = None,
        where: str | None = None,
    ) -> None:
        """Fill `train`, `valid`, `test`, `vocabulary` (of the words of train) and `labels`.

        Args:
            sentences: a stream is enough; it is read once.
            min_count: words seen less often in train become `<unk>`.
            max_size: bound on the size of the vocabulary, special symbols counted.
            max_length: bound on the words of a sentence, the end of sentence not counted; None for no bound.
            overlong: what to do with a longer one.
            labelled: whether sentences have a class; one without a label then gets -1.
            labels: names of the classes in the order wanted; others follow, sorted.
            tagged: whether every word has a tag; their names, sorted, become `tags`. Not with a store.
            keep: whether `texts` are kept. Not with a store.
            store: a folder for memory-mapped tokens; used as it is if complete. None keeps tokens in memory.
            where: what errors call the text; None for the corpus's name.
        """
        check_limits(min_count, max_size, max_length)
        if overlong not in get_args(Overlong):
            raise CorpusError(f"overlong is {overlong!r}; give error, drop or truncate")
        if (tagged or keep) and store is not None:
            raise ValueError("tags and texts are kept in memory: give no store")
        if store is not None and self._open(store):
            return
        builder = None if store is None else StoreBuilder(store)
        try:
            folder = builder.folder if builder is not None else None
            writers = [SplitWriter(name, folder, labelled, tagged) for name in SPLITS]
            words, classes, tags = self._read(sentences, writers, labels, max_length, overlong, keep)
            _refuse_empty([writer.sentences for writer in writers], where or self.name)
            self._encode(writers, words, classes, min_count, max_size, len(labels))
            self._name_tags(writers, tags)
            if builder is not None:
                meta = {"words": self.vocabulary.words, "labels": self.labels}
                builder.commit({**meta, "dropped": self.dropped, "truncated": self.truncated})
        except BaseException as error:  # also Ctrl-C: no half-written store stays behind
            if builder is not None:
                builder.discard()
            if isinstance(error, OSError) and store is not None:
                raise unwritable(store, error) from None
            raise
        if store is None:
            self.train, self.valid, self.test = (writer.split() for writer in writers)
        else:
            self.train, self.valid, self.test = (open_split(store, name) for name in SPLITS)

    def _read(
        self,
        sentences: Iterable[Sentence],
        writers: list[SplitWriter],
        labels: Sequence[str],
        max_length: int | None,
        overlong: Overlong,
        keep: bool,
    ) -> tuple[list[str], list[str], list[str]]:
        """Write provisional ids; words, class names and tag names in the order of these."""
        words: defaultdict[str, int] = defaultdict(count().__next__)
        classes: defaultdict[str, int] = defaultdict(count(len(labels)).__next__, zip(labels, count(), strict=False))
        tags: defaultdict[str, int] = defaultdict(count().__next__)
        texts: dict[str, list[str]] = {name: [] for name in SPLITS}
        self.dropped = self.truncated = 0
        with ExitStack() as stack:
            for writer in writers:
                stack.callback(writer.close)
            for sentence in sentences:
                tokens = sentence.words
                if max_length is not None and len(tokens) > max_length:
                    tokens = tokens[: self._shorten(sentence, max_length, overlong)]
                    if not tokens:
                        continue
                if keep:
                    texts[SPLITS[sentence.split]].append(" ".join(tokens))
                label = -1 if sentence.label is None else classes[sentence.label]
                tagged = map(tags.__getitem__, (sentence.tags or ())[: len(tokens)])
                writers[sentence.split].add(map(words.__getitem__, tokens), label, tagged)
        if keep:
            self.texts = {name: tuple(kept) for name, kept in texts.items()}
        return list(words), list(classes), list(tags)

    def _shorten(self, sentence: Sentence, limit: int, overlong: Overlong) -> int:
        """How many words of a sentence beyond the limit are kept."""
        if overlong == "error":
            raise CorpusError(
                f"{sentence.where}: line {sentence.line} has {len(sentence.words)} words, the limit is "
                f"{limit}; raise --corpus.max_length, or give --corpus.overlong drop (or truncate)"
            )
        if overlong == "drop":
            self.dropped += 1
            return 0
        self.truncated += 1
        return limit

    def _encode(
        self,
        writers: list[SplitWriter],
        words: list[str],
        classes: list[str],
        min_count: int,
        max_size: int | None,
        fixed: int,
    ) -> None:
        """Choose the vocabulary and the order of the classes, and make the ids final."""
        counts = dict(zip(words, writers[TRAIN].counts(len(words)).tolist(), strict=True))
        self.vocabulary = Vocabulary.from_counts(counts, min_count, max_size)
        self.labels = (*classes[:fixed], *sorted(classes[fixed:], key=_natural))
        place = {name: i for i, name in enumerate(self.labels)}
        # the last entry is where a label of -1 looks
        class_table = np.array([*(place[name] for name in classes), -1], np.int64)
        word_table = self.vocabulary.encode(words)
        for writer in writers:
            writer.recode("tokens", word_table)
            writer.recode("labels", class_table)

    def _name_tags(self, writers: list[SplitWriter], names: list[str]) -> None:
        """Put the tags in order, and make their ids final."""
        self.tags = tuple(sorted(names))
        table = np.array([self.tags.index(name) for name in names], np.int32)
        for writer in writers:
            writer.recode("tags", table)

    def _open(self, store: Path) -> bool:
        meta = read_meta(store)
        if meta is None:
            return False
        self.vocabulary = Vocabulary(meta["words"])
        self.labels = tuple(meta["labels"])
        self.dropped, self.truncated = meta["dropped"], meta["truncated"]
        self.train, self.valid, self.test = (open_split(store, name) for name in SPLITS)
        return True


def _refuse_empty(sizes: Sequence[int], where: str) -> None:
    for name, size in zip(SPLITS, sizes, strict=True):
        if size == 0:
            raise CorpusError(
                f"{where}: no sentence for the {name} split (found {sum(sizes)} in all); "
                f"give more text, or a file for that split"
            )


def check_limits(min_count: int, max_size: int | None, max_length: int | None) -> None:
    """Refuse limits that would leave nothing."""
    if min_count < 1:
        raise CorpusError(f"min_count is {min_count}; it must be at least 1")
    if max_size is not None and max_size < 5:
        raise CorpusError(f"max_size is {max_size}; it must be at least 5, as four ids are special symbols")
    if max_length is not None and max_length < 1:
        raise CorpusError(f"max_length is {max_length}; it must be at least 1")


def _natural(name: str) -> tuple[bool, int, str]:
    """Sorts 2 before 10, and numbers before words."""
    number = name.isascii() and name.isdigit()
    return not number, int(name) if number else 0, name
