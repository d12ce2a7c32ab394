"""Google's sentences of news and their compressions (layer: data)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from pyro_nlp.data.compression import Compressed, CompressionCorpus, refuse_longer
from pyro_nlp.data.files import CorpusError, locate, read_lines
from pyro_nlp.data.text import TEST, TRAIN, VALID, Overlong

JUDGED = 1000
"""Pairs of test, the first ones, and then as many of valid."""

_CUT = r"(?:s|re|ve|m|d|ll)\b"
_WORD = re.compile(
    rf"""
    ``|''|\.\.\.|--+
  | '{_CUT}                                # the genitive, and shortened verbs
  | n't\b
  | [^\W_]+?(?=n't\b)                      # do of don't
  | \d+(?:[.,]\d+)*[^\W\d_]*               # 1.65, 10,000, 57th
  | [^\W_]+(?:(?:\.|'(?!{_CUT}))[^\W_]+)*  # words, u.s, o'brien; hyphenated ones come apart
  | \S
    """,
    re.VERBOSE,
)


def news_words(text: str) -> list[str]:
    """Lower-cased words of news: numbers are kept, hyphens and marks are words, a dash however long is `-`.

    Unlike `tokenise.words` it cuts what compressions are cut at: `57-year-old` is five words, `they're` is two.
    """
    return ["-" if word[0] == "-" else word for word in _WORD.findall(text.lower())]


class GoogleCompression(CompressionCorpus):
    """10,000 sentences of news, and what is left of each when its tree is pruned to match the headline.

    The first 1,000 pairs are test, as is usual, the next 1,000 valid and 8,000 train. A compression has 40 % of the
    words of its sentence, and none has more. By words as `news_words` has them, 97.9 % are a subsequence of their
    sentence (`extractive`), and 99.4 % but for a full stop that the sentence does not end with; in many of the others
    a name stands for a pronoun.

    ROUGE of the first ten words is 61.95 / 51.61 / 61.55 on test. Zhou and Rush 2019 (arXiv:1907.13337) judge on a
    preparation of the same pairs, with `UNK` for rare words and `#` for digits, on which it is about half a point lower
    by ROUGE-2: numbers on the two are not comparable.

    Args:
        path: folder with sentence_en.txt and compression_en.txt, aligned line by line; None looks for
            `google_compression` in the working directory and in PYRO_NLP_DATA.
        labelled: share of the training compressions that are known, 0 to 1; the others are marked in `train.labels`.
        keep_hidden: keep the training pairs whose compression is hidden; false leaves the known ones alone, in the same
            vocabulary.
        min_count: words seen less often in train become `<unk>`.
        max_size: bound on the vocabulary; None for no bound, which gives 16,206 words at a min_count of 2.
        max_source: bound on the words of a sentence; None for no bound. 9 of 10,000 have more than 100.
        max_length: bound on the words of a compression; None for no bound. The longest has 33.
        overlong: what to do with a pair of which either is longer.
        seed: of the choice of the compressions that are known.
    """

    reference = "Filippova and Altun 2013, Overcoming the Lack of Parallel Data in Sentence Compression"

    def __init__(
        self,
        path: str | None = None,
        labelled: float = 1.0,
        keep_hidden: bool = True,
        min_count: int = 2,
        max_size: int | None = None,
        max_source: int | None = 100,
        max_length: int | None = None,
        overlong: Overlong = "truncate",
        seed: int = 0,
    ):
        folder = locate(path or "google_compression")
        if not folder.is_dir():
            raise CorpusError(
                f"{folder}: is a file; give the folder with sentence_en.txt and compression_en.txt, or read a "
                "file of your own by --corpus CompressionFile"
            )
        self.name = "google-compression"
        self.tokenise = news_words
        self.fill(
            _pairs(folder / "sentence_en.txt", folder / "compression_en.txt"),
            labelled=labelled,
            keep_hidden=keep_hidden,
            seed=seed,
            min_count=min_count,
            max_size=max_size,
            max_source=max_source,
            max_length=max_length,
            overlong=overlong,
            where=str(folder),
        )


def _pairs(sentences: Path, compressions: Path) -> Iterator[Compressed]:
    for line, read in enumerate(zip_longest(read_lines(sentences), read_lines(compressions)), 1):
        for file, found, other in zip((sentences, compressions), read, (compressions, sentences), strict=True):
            if found is None:
                raise CorpusError(
                    f"{file}: has {line - 1} lines, and {other.name} has more; take both files of one release"
                )
            if not found[1].strip():
                raise CorpusError(f"{file}: line {line} is empty; take the line out of {file.name} and {other.name}")
        source, compression = (found[1] for found in read)
        cure = "are the two files still aligned? take both of one release"
        refuse_longer(news_words(source), news_words(compression), f"{compressions}: line {line}", cure)
        split = TEST if line <= JUDGED else VALID if line <= 2 * JUDGED else TRAIN
        yield Compressed(source, compression, split, f"{sentences}: line {line}")
