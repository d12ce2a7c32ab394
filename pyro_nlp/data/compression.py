"""Sentences and their compressions: the corpora's common part, and test sets of texts with references (layer: data)."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple, get_args

import numpy as np

from pyro_nlp.data.files import CorpusError, locate, read_lines
from pyro_nlp.data.pair_corpus import Pair, PairCorpus
from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.data.store import SPLITS
from pyro_nlp.data.text import Overlong, check_limits
from pyro_nlp.data.vocabulary import Vocabulary

HIDDEN, KNOWN = -1, 1
"""What `PairSplit.labels` says of a compression: to be inferred, or given."""


class Summarised(NamedTuple):
    """A text as it was written, and its compressions, each as right as the others; none where nobody wrote one."""

    source: str
    references: tuple[str, ...]


class Compressed(NamedTuple):
    """A sentence and its compression on their way into a corpus, the split, and where they stood; None where nobody
    wrote a compression."""

    source: str
    compression: str | None
    split: int
    where: str = ""


class CompressionCorpus(PairCorpus):
    """A corpus of sentences (first texts) and their compressions (second texts); a reader's constructor calls `fill`.

    Pair i of a split is its first text i and its second text i. Where only some of the training compressions are
    known, `train.labels` says which, 1 or -1, and so does `batch.labels`; None says that all are. Those of valid and
    test are always known, and a model that is not to see them does not look, or there are none at all (`judges`). A
    second text that nobody wrote is empty. `labels`, the names of classes, is empty.

    Attributes:
        texts: by split, every pair as it was written, in the order of the pairs: what ROUGE compares.
        extractive: by split, the share of compressions that are a subsequence of their source, by `tokenise`d words.
        longer: pairs left out as the compression has more words than its source.
    """

    texts: dict[str, tuple[Summarised, ...]]
    extractive: dict[str, float]
    longer: int = 0

    @abstractmethod
    def __init__(self) -> None:
        """See Corpus."""

    def fill(
        self,
        pairs: Iterable[Compressed],
        *,
        labelled: float = 1.0,
        keep_hidden: bool = True,
        seed: int = 0,
        min_count: int = 1,
        max_size: int | None = None,
        max_source: int | None = None,
        max_length: int | None = None,
        overlong: Overlong = "truncate",
        where: str | None = None,
    ) -> None:
        """Fill the splits, the vocabulary and the attributes.

        The vocabulary is that of all of train, hidden compressions too: perplexities at two shares stay comparable.

        Args:
            pairs: a stream is enough; it is read once.
            labelled: share of the training compressions that are known; see `hide`.
            keep_hidden: keep the training pairs whose compression is hidden; without, what the others give alone.
            seed: of the choice of these.
            min_count: words seen less often in train become `<unk>`.
            max_size: bound on the size of the vocabulary, special symbols counted.
            max_source: bound on the words of a source, the end of sentence not counted; None for no bound.
            max_length: the same of a compression.
            overlong: what to do with a pair of which either is longer.
            where: what errors call the text; None for the corpus's name.
        """
        check_limits(min_count, max_size, max_length)
        if max_source is not None and max_source < 1:
            raise CorpusError(f"max_source is {max_source}; it must be at least 1")
        if overlong not in get_args(Overlong):
            raise CorpusError(f"overlong is {overlong!r}; give error, drop or truncate")
        _check_share(labelled)
        read: list[list[Summarised]] = [[] for _ in SPLITS]
        whole = [0 for _ in SPLITS]
        self.longer = 0
        limited = self._limited(pairs, (max_source, max_length), overlong, read, whole)
        self.build(limited, min_count=min_count, max_size=max_size, bare=True, where=where)
        self.texts = {name: tuple(texts) for name, texts in zip(SPLITS, read, strict=True)}
        self.extractive = {name: n / len(texts) for name, n, texts in zip(SPLITS, whole, read, strict=True)}
        known = np.array([bool(text.references) for text in self.texts["train"]])
        if not known.all():
            split = self.train
            self.train = PairSplit(split.first, split.second, split.group, np.where(known, KNOWN, HIDDEN))
        if labelled < 1:
            self.train = hide(self.train, labelled, seed)
        if not keep_hidden:
            self._drop_hidden()

    def judges(self, split: str) -> bool:
        """Whether every text of a split has a reference."""
        return all(text.references for text in self.texts[split])

    def _drop_hidden(self) -> None:
        if self.train.labels is None:
            return
        known = np.flatnonzero(self.train.labels == KNOWN)
        if not len(known):
            raise CorpusError(
                "no training compression is known, and hidden ones are not kept; raise --corpus.labelled, or give some"
            )
        self.train = self.train.take(known)
        self.texts["train"] = tuple(self.texts["train"][row] for row in known)

    def _limited(
        self,
        pairs: Iterable[Compressed],
        limits: tuple[int | None, int | None],
        overlong: Overlong,
        read: list[list[Summarised]],
        whole: list[int],
    ) -> Iterator[Pair]:
        """The pairs that are kept, cut where they are too long; each is noted in `read`, and counted in `whole`."""
        for row, (source, compression, split, where) in enumerate(pairs):
            first, second = self.tokenise(source), self.tokenise(compression or "")
            for text, name in ((first, "sentence"), (second, "compression")):
                if not text and not (compression is None and text is second):
                    raise CorpusError(f"{where} has an empty {name}; give it words, or take the pair out")
            if len(second) > len(first):
                self.longer += 1
                continue
            beyond = [limit is not None and len(t) > limit for t, limit in zip((first, second), limits, strict=True)]
            if any(beyond) and overlong == "error":
                place = beyond.index(True)
                name, option = (("sentence", "max_source"), ("compression", "max_length"))[place]
                raise CorpusError(
                    f"{where} has a {name} of {len((first, second)[place])} words, the limit is {limits[place]}; raise "
                    f"--corpus.{option}, or give --corpus.overlong drop (or truncate)"
                )
            if any(beyond):
                self.dropped += overlong == "drop"
                self.truncated += overlong == "truncate"
                if overlong == "drop":
                    continue
            whole[split] += bool(second) and len(align(first, second)) == len(second)
            read[split].append(Summarised(source.strip(), () if compression is None else (compression.strip(),)))
            yield Pair(first[: limits[0]], second[: limits[1]], split, row, None, where)


def hide(split: PairSplit, labelled: float, seed: int = 0) -> PairSplit:
    """The same pairs with only a share of their known second texts known: `labels` is 1 for these, -1 for the others.

    Exactly `round(labelled * N)` of N are, drawn by the seed; those of a smaller share are among those of a larger.
    """
    _check_share(labelled)
    known = np.arange(len(split)) if split.labels is None else np.flatnonzero(split.labels == KNOWN)
    order = np.random.default_rng(seed).permutation(len(known))
    labels = np.full(len(split), HIDDEN)
    labels[known[order[: round(labelled * len(known))]]] = KNOWN
    return PairSplit(split.first, split.second, split.group, labels)


def _check_share(labelled: float) -> None:
    if not 0 <= labelled <= 1:
        raise CorpusError(f"labelled is {labelled}; it is a share of the training pairs, 0 to 1")


def refuse_longer(source: Sequence[str], compression: Sequence[str], where: str, cure: str = "") -> None:
    """Refuse a compression that has more words than its sentence.

    Raises:
        CorpusError: names the place.
    """
    if len(compression) > len(source):
        raise CorpusError(
            f"{where} has a compression of {len(compression)} words for a sentence of {len(source)}; "
            f"{cure or 'shorten it, or take the line out'}"
        )


def align(source: Sequence[Hashable], text: Sequence[Hashable]) -> list[int]:
    """Positions of the source, ascending, that spell the text, or the longest part of it that can be spelt.

    Of a subsequence all words are found, each at the first place after the one before: the leftmost alignment. Of
    another text, the longest common subsequence is found, and of several alignments the leftmost (the first position
    smallest, then the second, and so on).

    Example:
        >>> align("the big cat saw the small dog".split(), "the small dog".split())
        [0, 5, 6]
        >>> align("the big cat saw the small dog".split(), "a small cat saw".split())
        [2, 3]
    """
    found, place = [], 0
    for word in text:
        while place < len(source) and source[place] != word:
            place += 1
        if place == len(source):
            return _align_part(source, text)
        found.append(place)
        place += 1
    return found


def _align_part(source: Sequence[Hashable], text: Sequence[Hashable]) -> list[int]:
    """As `align`, of a text that is no subsequence."""
    rows, columns = len(source), len(text)
    # common[i][j]: length of the longest common subsequence of source[i:] and text[j:]
    common = [[0] * (columns + 1) for _ in range(rows + 1)]
    for i in range(rows - 1, -1, -1):
        for j in range(columns - 1, -1, -1):
            same = source[i] == text[j]
            common[i][j] = 1 + common[i + 1][j + 1] if same else max(common[i + 1][j], common[i][j + 1])
    found, j = [], 0
    for i, word in enumerate(source):
        wanted = common[i][j]
        if wanted == 0:
            break
        k = next((k for k in range(j, columns) if text[k] == word), columns)
        if k < columns and 1 + common[i + 1][k + 1] == wanted:  # using this place loses nothing
            found.append(i)
            j = k + 1
    return found


def read_headlines(path: str) -> list[Summarised]:
    """A test set of texts with one or several references: a JSON object on each line, `text` and `summaries`.

    Gigaword's headlines and DUC-2004 are stored so (`gigaword_test/gigaword.jsonl`, 1,951 with one reference each;
    `duc2004/duc2004.jsonl`, 500 with four). Gigaword's are words with spaces between them, lower-cased, with `UNK` for
    rare ones and `#` for digits: `tokenise.lowered` reads them as they are, where `news_words` cuts `####` in four.

    Example:
        >>> texts = read_headlines("gigaword_test/gigaword.jsonl")  # doctest: +SKIP
        >>> split = headline_split(texts, corpus.vocabulary, lowered)  # doctest: +SKIP

    Args:
        path: the file, in the working directory, in PYRO_NLP_DATA or absolute.

    Raises:
        CorpusError: a file that is not there, or a line that is not such an object or has an empty text.
    """
    file = locate(path)
    if file.is_dir():
        raise CorpusError(f"{file}: is a folder; give a file with a JSON object on each line")
    found = []
    for line, raw in read_lines(file):
        if not raw.strip():
            continue
        place = f"{file}: line {line}"
        try:
            entry = json.loads(raw)
        except ValueError as error:
            raise CorpusError(f"{place} is not JSON ({error}); give an object with text and summaries") from None
        text, summaries = (entry.get(name) if isinstance(entry, dict) else None for name in ("text", "summaries"))
        if not isinstance(text, str) or not isinstance(summaries, list) or not summaries:
            raise CorpusError(f'{place} is not {{"text": a text, "summaries": [at least one text]}}')
        for part in (text, *summaries):
            if not isinstance(part, str) or not part.strip():
                raise CorpusError(f"{place} has the text or summary {part!r}; give it words, or take the line out")
        found.append(Summarised(text.strip(), tuple(part.strip() for part in summaries)))
    if not found:
        raise CorpusError(f"{file}: no text; give a JSON object on each line")
    return found


def headline_split(
    texts: Sequence[Summarised],
    vocabulary: Vocabulary,
    tokenise: Callable[[str], list[str]],
    max_source: int | None = None,
) -> PairSplit:
    """Texts as pairs in a trained model's vocabulary: row i is text i and its first reference.

    Args:
        texts: from `read_headlines`, or a corpus's `texts`.
        vocabulary: of the corpus that the model was trained on.
        tokenise: of that corpus, for texts as they are written; `lowered` for those that were tokenised before.
        max_source: sources are cut at so many words; None for no bound.

    Raises:
        ValueError: no texts, or one without a word.
    """
    if not texts:
        raise ValueError("there are no texts")
    sources = [tokenise(source)[:max_source] for source, _ in texts]
    targets = [tokenise(next(iter(references), "")) for _, references in texts]
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        if not source or not target:
            raise ValueError(f"text {row} or its reference has no words: {texts[row].source[:60]!r}")
    first, second = (TextSplit.from_sentences([vocabulary.encode(t) for t in side]) for side in (sources, targets))
    return PairSplit(first, second, np.arange(len(texts)))


def source_split(sources: Sequence[Sequence[str]], vocabulary: Vocabulary) -> PairSplit:
    """Sources without a reference as pairs, for a model that compresses them: every second text is empty.

    Args:
        sources: words of each, as the corpus that the model was trained on tokenises them.
        vocabulary: of that corpus.

    Raises:
        ValueError: no sources, or one without a word.
    """
    if not sources:
        raise ValueError("there are no sources")
    empty = next((row for row, source in enumerate(sources) if not source), None)
    if empty is not None:
        raise ValueError(f"source {empty} has no words")
    first = TextSplit.from_sentences([vocabulary.encode(source) for source in sources])
    return PairSplit(first, TextSplit.from_sentences([[] for _ in sources]), np.arange(len(sources)))
