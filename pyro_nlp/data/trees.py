"""Bracketed trees of the Penn Treebank, read as sequences of words with their tags (layer: data)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pyro_nlp.data.files import CorpusError, locate, read_lines
from pyro_nlp.data.text import Overlong, Sentence, TextCorpus, cut

_PIECE = re.compile(r"[()]|[^\s()]+")
_TRACE = "-NONE-"  # the tag of what is not there: traces and empty complementisers


class BracketedTrees(TextCorpus):
    """The leaves of a file of trees, `( (S (NP (NNP Mr.) (NNP Vinken) ) ...) )`: words, and their tags beside them.

    Traces (`-NONE-`) are dropped. The file is one, so the splits are cut from it by a hash of the words, 10 % each for
    validation and test, and copies of a sentence stay on one side.

    Args:
        path: the file, in the working directory, in PYRO_NLP_DATA or absolute.
        lowercase: lower-case the words.
        min_count: words seen less often in train become `<unk>`.
        max_length: bound on the words of a sentence; None for no bound.
        overlong: what to do with a longer sentence.
    """

    reference = "Marcus et al. 1993, Building a large annotated corpus of English"

    def __init__(
        self,
        path: str,
        lowercase: bool = False,
        min_count: int = 1,
        max_length: int | None = None,
        overlong: Overlong = "error",
    ):
        file = locate(path)
        if file.is_dir():
            raise CorpusError(f"{file}: is a folder; give a file of bracketed trees")
        self.name = file.stem

        def sentences() -> Iterator[Sentence]:
            for line, words, tags in read_trees(file):
                form = [word.lower() for word in words] if lowercase else words
                yield Sentence(form, cut(form), None, str(file), line, tags)

        self.build(
            sentences(),
            min_count=min_count,
            max_length=max_length,
            overlong=overlong,
            tagged=True,
            where=str(file),
        )


class Constituent(NamedTuple):
    """Words `start` to `end` of a sentence, the latter not included, under a label."""

    start: int
    end: int
    label: str


class Parse(NamedTuple):
    """A tree: its first line, its words and their tags, and its constituents, the inner of two before the outer.

    A constituent with a single word, or the whole sentence, is one like others; several may have the same words.
    """

    line: int
    words: list[str]
    tags: list[str]
    constituents: list[Constituent]


def read_trees(path: Path) -> Iterator[tuple[int, list[str], list[str]]]:
    """Number of the first line, words and tags of each tree with at least one word that is no trace.

    Raises CorpusError naming the first line that is no tree.
    """
    return ((parse.line, parse.words, parse.tags) for parse in read_parses(path))


def read_parses(path: Path, dropped: Collection[str] = ()) -> Iterator[Parse]:
    """The trees of a file, without traces and words whose tag is in `dropped`, and what holds nothing but these.

    Raises CorpusError naming the first line that is no tree.
    """
    parse = Parse(0, [], [], [])
    opened: list[_Open] = []
    first, flat = True, False  # the first tree shows whether lines that go on with a tree are indented
    for number, line in read_lines(path):
        if opened and line.startswith("("):
            if not first and not flat:
                begun = f"line {number} begins a tree, and that of line {opened[0].line} is not closed"
                raise CorpusError(f"{path}: {begun}; {_CURE}, or indent the lines that go on with it")
            flat = True
        for piece in _PIECE.findall(line):
            if reason := _refusal(piece, opened):
                raise CorpusError(f"{path}: line {number}: {reason}")
            if piece == "(":
                opened.append(_Open(number, len(parse.words), []))
            elif piece != ")":
                opened[-1].atoms.append(piece)
            else:
                node = opened.pop()
                if opened:
                    opened[-1].inner = True
                _close(node, parse, dropped)
                if not opened and parse.words:
                    yield parse._replace(line=node.line)
                if not opened:
                    parse, first = Parse(0, [], [], []), False
    if opened:
        raise CorpusError(f"{path}: the tree that begins on line {opened[0].line} is not closed; {_CURE}")


@dataclass
class _Open:
    """A bracket still open: its line, how many words stand before it, its atoms, whether it has brackets inside."""

    line: int
    start: int
    atoms: list[str]
    inner: bool = False


def _refusal(piece: str, opened: list[_Open]) -> str | None:
    """Why a piece cannot stand in the brackets that are open, or None."""
    node = opened[-1] if opened else None
    if piece == ")" and node is None:
        return f"')' closes a bracket that is not open; {_CURE}"
    if piece == ")" and node and len(node.atoms) < 2 and not node.inner:
        return f"({''.join(node.atoms)}) has no word; {_LEAF}"
    if piece == "(" and node and len(node.atoms) == 2:
        return f"'(' follows the word {node.atoms[1]!r}; {_LEAF}"
    if piece not in "()" and (node is None or len(node.atoms) == 2 or node.inner):
        return f"{piece!r} stands where no word can; {_LEAF}"
    return None


def _close(node: _Open, parse: Parse, dropped: Collection[str]) -> None:
    if len(node.atoms) == 2:
        tag, word = node.atoms
        if tag != _TRACE and tag not in dropped:
            parse.tags.append(tag)
            parse.words.append(word)
    elif len(parse.words) > node.start and node.inner:
        label = node.atoms[0] if node.atoms else ""
        parse.constituents.append(Constituent(node.start, len(parse.words), label))


_CURE = "repair the brackets of that tree"
_LEAF = "each word is a leaf of its own, as in (NN word)"
