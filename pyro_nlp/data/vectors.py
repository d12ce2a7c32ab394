"""Word vectors trained elsewhere, in the text format of word2vec and GloVe (layer: data)."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from pyro_nlp.data.files import CorpusError, locate
from pyro_nlp.data.progress import Meter
from pyro_nlp.data.vocabulary import SPECIAL, Vocabulary, WordList

_REPORT = 2000  # lines between two reports of progress
_EXACT, _LOWER, _FOLDED = 3, 2, 1
"""How a word of the file is one of the vocabulary: as it is; lower-cased in the file; lower-cased in both."""


@dataclass(frozen=True)
class Vectors:
    """Vectors of the words of a vocabulary.

    Attributes:
        table: a vector by word id, zeros where none is known, float32 `[V, D]`.
        known: true where the file has one, bool `[V]`; never for the special symbols.
        types: share of the words of the vocabulary that are known, the special symbols not counted.
        tokens: share of the occurrences that are known; None where the counts were not given.
    """

    table: Tensor
    known: Tensor
    types: float
    tokens: float | None = None

    @property
    def width(self) -> int:
        """Numbers in a vector."""
        return self.table.shape[1]

    def __str__(self) -> str:
        tokens = "" if self.tokens is None else f", {self.tokens:.1%} of their occurrences"
        return f"vectors of width {self.width} for {int(self.known.sum()):,} words, {self.types:.1%}{tokens}"


def read_vectors(path: str | Path, vocabulary: Vocabulary, counts: Mapping[str, int] | Tensor | None = None) -> Vectors:
    """The vectors of the words of `vocabulary`; the others are passed over, so the file may be large.

    A line is `word v1 ... vD`, with spaces between; the first may be `words D`. A file that ends in `.gz` is unpacked
    as it is read. A word takes the vector of the same form; else that of its form in lower case; else the first one
    that is the same in lower case.

        >>> vectors = read_vectors("glove.6B.50d.txt", corpus.vocabulary)  # doctest: +SKIP
        >>> print(vectors)  # doctest: +SKIP
        vectors of width 50 for 9,412 words, 96.2%

    Args:
        path: the file, in the working directory, in PYRO_NLP_DATA or absolute.
        vocabulary: whose words are looked for.
        counts: how often words occur, by word or by id `[V]`, for the share of tokens.

    Raises:
        CorpusError: lines of different width, a number that is none, fewer or more lines than the first line says, a
            file that was cut short, or no word of the vocabulary in it. The message names the line.
    """
    file = locate(str(path))
    ids = {word: i for i, word in enumerate(vocabulary.words) if i >= _special(vocabulary)}
    folded: dict[str, list[int]] = {}
    for word, i in ids.items():
        folded.setdefault(word.lower(), []).append(i)
    match = np.zeros(len(vocabulary), np.int8)
    table: np.ndarray | None = None
    promised: int | None = None
    width: int | None = None
    lines = 0
    for number, raw in _raw_lines(file):
        if number == 1 and (header := _header(raw)) is not None:
            promised, width = header
            continue
        if not raw.strip():
            continue
        word, values, width = _cut(file, number, raw, width)
        lines += 1
        if table is None:
            table = np.zeros((len(vocabulary), width), np.float32)
        lower = word.lower()
        if lower not in folded:
            continue
        exact, vector = ids.get(word), None
        for i in folded[lower]:
            rank = _EXACT if i == exact else _LOWER if word == lower else _FOLDED
            if rank > match[i]:
                vector = _numbers(file, number, word, values) if vector is None else vector
                table[i], match[i] = vector, rank
    if promised is not None and lines != promised:
        raise CorpusError(
            f"{file}: the first line says {promised:,} words, and {lines:,} are there; "
            f"the file was cut short or changed, get it again"
        )
    if table is None or not match.any():
        raise CorpusError(
            f"{file}: none of its {lines:,} words is in the vocabulary ({', '.join(list(ids)[:3])}, ...); "
            f"give vectors of the same language, or lower-case the corpus as the vectors are"
        )
    known = match > 0
    return Vectors(
        torch.from_numpy(table),
        torch.from_numpy(known),
        types=float(known.sum() / max(len(ids), 1)),
        tokens=_share(known, vocabulary, counts),
    )


def _special(vocabulary: Vocabulary) -> int:
    return 0 if isinstance(vocabulary, WordList) else len(SPECIAL)


def _share(known: np.ndarray, vocabulary: Vocabulary, counts: Mapping[str, int] | Tensor | None) -> float | None:
    """Known occurrences among all, words that are not in the vocabulary counted where `counts` has them."""
    if counts is None:
        return None
    if isinstance(counts, Tensor):
        if len(counts) != len(known):
            raise ValueError(f"{len(counts)} counts for a vocabulary of {len(known)}")
        by_id = counts.double().numpy().copy()
        by_id[: _special(vocabulary)] = 0
        return float(by_id[known].sum() / max(by_id.sum(), 1))
    met = sum(counts.get(vocabulary.words[i], 0) for i in np.flatnonzero(known))
    return met / max(sum(counts.values()), 1)


def _raw_lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of every line, unpacked where the name ends in `.gz`."""
    try:
        size = file.stat().st_size
        stream = file.open("rb")
    except OSError as error:
        raise CorpusError(f"{file}: {error.strerror or error}") from None
    number = reported = 0
    with stream, Meter(f"reading {file.name}", size) as meter:
        opened: IO[bytes] = io.BufferedReader(gzip.GzipFile(fileobj=stream)) if file.suffix == ".gz" else stream
        try:
            for number, raw in enumerate(opened, 1):
                yield number, raw
                if number % _REPORT == 0:
                    place = stream.tell()
                    meter.advance(place - reported)
                    reported = place
        except EOFError:
            raise CorpusError(f"{file}: ends within line {number + 1}; the file was cut short, get it again") from None
        except (zlib.error, gzip.BadGzipFile):
            raise CorpusError(f"{file}: is not a whole gzip file (near line {number + 1}); get it again") from None
        except OSError as error:
            raise CorpusError(f"{file}: {error.strerror or error}") from None
    if number == 0:
        raise CorpusError(f"{file}: the file is empty; give word vectors, a word and its numbers on each line")


def _header(raw: bytes) -> tuple[int, int] | None:
    """How many words and numbers the first line promises; None where it is a word's."""
    fields = raw.split()
    if len(fields) == 2 and all(field.isdigit() for field in fields):
        return int(fields[0]), int(fields[1])
    return None


def _cut(file: Path, number: int, raw: bytes, width: int | None) -> tuple[str, list[bytes], int]:
    """Word and numbers of a line, and how many numbers lines have."""
    word, *values = raw.rstrip(b" \r\n").split(b" ")
    if width is None:
        width = len(values)
        if width < 1:
            raise CorpusError(f"{file}: line {number} is not a word and its numbers with spaces between; {_TEXT}")
    while len(values) > width and not _is_number(values[0]):
        word = word + b" " + values.pop(0)  # a few files have keys of several words
    if len(values) != width:
        cure = _TEXT if b"\0" in raw else "get the file again" if raw.endswith(b"\n") else "the file was cut short"
        raise CorpusError(f"{file}: line {number} has {len(values)} numbers, those before it say {width}; {cure}")
    return word.decode("utf-8", "replace"), values, width


_TEXT = "give the text format (not .bin, which can be converted to it)"


def _is_number(field: bytes) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def _numbers(file: Path, number: int, word: str, values: list[bytes]) -> np.ndarray:
    try:
        vector = np.array([float(value) for value in values], np.float32)
    except ValueError as error:
        raise CorpusError(
            f"{file}: line {number} ({word!r}) has something that is no number ({error}); get it again"
        ) from None
    if not np.isfinite(vector).all():
        raise CorpusError(f"{file}: line {number} ({word!r}) has a number that is not finite; take the line out")
    return vector
