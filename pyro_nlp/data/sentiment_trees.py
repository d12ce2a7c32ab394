"""Labelled phrases of the Stanford Sentiment Treebank: trees whose nodes bear a class (layer: data)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pyro_nlp.data.corpus import CorpusError
from pyro_nlp.data.files import read_lines

_PIECE = re.compile(r"[()]|[^\s()]+")


class Phrase(NamedTuple):
    """A phrase with its class, 0 to 4, and where its tree stands."""

    words: tuple[str, ...]
    label: int
    where: str
    line: int


def read_phrases(file: Path) -> Iterator[Phrase]:
    """Every node of every tree, `(3 (2 a) (4 (3 fine) (2 film)))` on a line, smaller phrases first; lower-cased.

    Raises CorpusError naming a line that is no such tree.
    """
    for line, text in read_lines(file):
        if text.strip():
            yield from _phrases(text, file, line)


def _phrases(text: str, file: Path, line: int) -> Iterator[Phrase]:
    words: list[str] = []
    nodes: list[tuple[int, int]] = []  # class and first word of the nodes still open
    pieces = iter(_PIECE.findall(text))
    whole = False
    for piece in pieces:
        if piece == "(":
            label = next(pieces, "")
            if whole or label not in ("0", "1", "2", "3", "4"):
                raise _wrong(file, line, f"{label!r} stands where a class, 0 to 4, should")
            nodes.append((int(label), len(words)))
        elif piece != ")":
            if not nodes:
                raise _wrong(file, line, f"{piece!r} stands outside the tree")
            words.append(piece.lower())
        else:
            if not nodes or nodes[-1][1] == len(words):
                raise _wrong(file, line, "a bracket closes that is not open, or holds no word")
            label_of, start = nodes.pop()
            whole = not nodes
            yield Phrase(tuple(words[start:]), label_of, str(file), line)
    if nodes or not whole:
        raise _wrong(file, line, "the tree is not closed")


def _wrong(file: Path, line: int, what: str) -> CorpusError:
    return CorpusError(f"{file}: line {line}: {what}; repair the tree, as in (3 (2 a) (4 film))")
