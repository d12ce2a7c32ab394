"""Bracketed trees of the Penn Treebank, read as sequences of words with their tags (layer: data)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

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


def read_trees(path: Path) -> Iterator[tuple[int, list[str], list[str]]]:
    """Number of the first line, words and tags of each tree with at least one word that is no trace.

    Raises CorpusError naming the first line that is no tree.
    """
    words: list[str] = []
    tags: list[str] = []
    open_since: list[int] = []  # the lines of the brackets still open
    atoms: list[str] = []  # what stands between the last bracket and here
    for number, line in read_lines(path):
        for piece in _PIECE.findall(line):
            if piece == "(":
                open_since.append(number)
                atoms = []
            elif piece != ")":
                if not open_since or len(atoms) == 2:
                    raise CorpusError(f"{path}: line {number}: {piece!r} {_WRONG}")
                atoms.append(piece)
            elif not open_since:
                raise CorpusError(f"{path}: line {number} closes a bracket that is not open; {_CURE}")
            else:
                first = open_since.pop()
                if len(atoms) == 2 and atoms[0] != _TRACE:
                    tags.append(atoms[0])
                    words.append(atoms[1])
                atoms = []
                if not open_since and words:
                    yield first, words, tags
                    words, tags = [], []
    if open_since:
        raise CorpusError(f"{path}: the tree that begins on line {open_since[0]} is not closed; {_CURE}")


_CURE = "repair the brackets of that tree"
_WRONG = "stands where no word can; each word is a leaf of its own, as in (NN word)"
