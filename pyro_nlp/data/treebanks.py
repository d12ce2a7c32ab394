"""Treebanks in CoNLL-U, read as sequences of words, lemmas or tags (layer: data)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pyro_nlp.data.files import CorpusError, locate, read_lines
from pyro_nlp.data.text import Overlong, Sentence, TextCorpus

_COLUMNS = {"form": 1, "lemma": 2, "upos": 3}
_TAGS = {"upos": 3, "xpos": 4}
_SKIPPED = re.compile(r"\d+[-.]\d+")  # a range, an empty node
_SPLITS = ("train", "dev", "test")


class Treebank(TextCorpus):
    """The sentences of a Universal Dependencies treebank.

    Words are those of the syntax: `didn't` is `did` and `n't`; the ranges that give its spelling and the
    empty nodes of the enhanced graph are skipped.

    Args:
        path: folder with one *train*.conllu, one *dev*.conllu and one *test*.conllu, in the working
            directory, in PYRO_NLP_DATA or absolute.
        column: what stands for a word: its form, its lemma or its universal part of speech.
        lowercase: lower-case forms and lemmas.
        min_count: words seen less often in train become `<unk>`.
        max_length: bound on the words of a sentence; None for no bound.
        overlong: what to do with a longer sentence.
        tags: keep the universal or the language's own parts of speech beside the words; None for no tags.
    """

    reference = "Universal Dependencies (CoNLL-U), https://universaldependencies.org"

    def __init__(
        self,
        path: str,
        column: Literal["form", "lemma", "upos"] = "form",
        lowercase: bool = False,
        min_count: int = 1,
        max_length: int | None = None,
        overlong: Overlong = "error",
        tags: Literal["upos", "xpos"] | None = None,
    ):
        if tags is not None and tags not in _TAGS:
            raise CorpusError(f"tags {tags!r} are unknown; give {', '.join(_TAGS)} or null")
        if column not in _COLUMNS:
            raise CorpusError(f"column {column!r} is unknown; give {', '.join(_COLUMNS)}")
        folder = locate(path)
        self.name = folder.name
        files = [_only(folder, split) for split in _SPLITS]
        columns = (_COLUMNS[column], _TAGS[tags]) if tags else (_COLUMNS[column],)
        self.build(
            (
                Sentence(
                    [w.lower() for w in words] if lowercase and column != "upos" else words,
                    split,
                    None,
                    str(file),
                    line,
                    *kept,
                )
                for split, file in enumerate(files)
                for line, (words, *kept) in read_conllu(file, *columns)
            ),
            min_count=min_count,
            max_length=max_length,
            overlong=overlong,
            tagged=tags is not None,
            where=str(folder),
        )


def read_conllu(path: Path, *columns: int) -> Iterator[tuple[int, list[list[str]]]]:
    """Number of the first line and the given columns of each sentence of a CoNLL-U file.

    Raises CorpusError naming the first line that is not CoNLL-U.
    """
    rows: list[list[str]] = []
    first = 0
    for number, line in read_lines(path):
        if line.startswith("#"):
            continue
        if not line.strip():
            if rows:
                yield first, [[row[c] for row in rows] for c in columns]
            rows = []
            continue
        fields = line.split("\t")
        if len(fields) != 10:
            raise CorpusError(f"{path}: line {number} has {len(fields)} tab-separated fields, CoNLL-U has 10")
        identity = fields[0]
        if identity == str(len(rows) + 1):
            first = first if rows else number
            rows.append(fields)
        elif not _SKIPPED.fullmatch(identity):
            raise CorpusError(
                f"{path}: line {number} has the word number {identity!r} where CoNLL-U wants "
                f"{len(rows) + 1}; is the blank line between two sentences missing?"
            )
    if rows:
        yield first, [[row[c] for row in rows] for c in columns]


def _only(folder: Path, split: str) -> Path:
    if not folder.is_dir():
        raise CorpusError(f"{folder}: is not a folder; give the folder that holds the three .conllu files")
    found = sorted(folder.glob(f"*{split}*.conllu"))
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise CorpusError(f"{folder}: needs exactly one file *{split}*.conllu, found {names}")
    return found[0]
