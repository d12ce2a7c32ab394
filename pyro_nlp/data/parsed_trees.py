"""Sentences with their gold trees, as grammar induction is judged by (layer: data)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyro_nlp.data.files import CorpusError, locate
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.data.text import TEST, TRAIN, VALID, Overlong, Sentence, TextCorpus, cut
from pyro_nlp.data.trees import Constituent, Parse, read_parses

PUNCTUATION = (".", ",", ":", "``", "''", "-LRB-", "-RRB-", "$", "#", "HYPH", "NFP")
"""Tags left out: those that Kim et al. 2019 leave out of the Penn Treebank, and the hyphens and superfluous
punctuation of later treebanks."""
_SPLITS = (("train", TRAIN), ("dev", VALID), ("test", TEST))
_NUMBER = re.compile(r"\d+(?:[.,]?\d+)*")
_FUNCTION = re.compile(r"(?<=.)[-=|].*")  # of NP-SBJ-1, all but NP


class TreeSplit(TextSplit):
    """Sentences, each with the constituents of its gold tree.

    Args:
        split: the sentences.
        gold: constituents of each.
    """

    def __init__(self, split: TextSplit, gold: Sequence[Sequence[Constituent]]) -> None:
        super().__init__(split.flat, split.offsets, split.labels, split.tags)
        if len(gold) != len(self):
            raise ValueError(f"{len(gold)} trees for {len(self)} sentences")
        self.gold = list(gold)

    def take(self, rows: np.ndarray) -> TreeSplit:
        return TreeSplit(super().take(rows), [self.gold[row] for row in np.asarray(rows).tolist()])

    def feed(self, hasher: Any) -> None:
        super().feed(hasher)
        for constituents in self.gold:
            hasher.update(repr([tuple(found) for found in constituents]).encode())


class ParsedTrees(TextCorpus):
    """A treebank of bracketed trees for grammar induction: words to learn from, gold constituents to judge by.

    `corpus.test.gold[i]` are the constituents of sentence i, as spans of the words that are left once punctuation and
    traces are gone; what held nothing else is gone with them. Of several over the same words the outermost gives the
    label, without its function (NP-SBJ is NP). The whole sentence is among them: `evaluation.parsing` drops it. Tags
    stand beside the words.

    Args:
        path: a folder with one file *train*, one *dev* and one *test*, or one file, cut by a hash of the words, 10 %
            each for validation and test; in the working directory, in PYRO_NLP_DATA or absolute.
        suffix: of the files in a folder.
        punctuation: keep it.
        lowercase: lower-case the words.
        numbers: replace every number by N, as Kim et al. 2019 do.
        min_count: words seen less often in train become `<unk>`.
        min_length: shorter sentences are left out of all splits; a grammar of two words and more has none of one.
        max_length: bound on the words of a *training* sentence; None for no bound. Validation and test have all.
        overlong: what to do with a longer one; it cannot be cut, as its tree would be none.
    """

    reference = "Marcus et al. 1993, Building a large annotated corpus of English (the format)"

    def __init__(
        self,
        path: str,
        suffix: str = ".ptb",
        punctuation: bool = False,
        lowercase: bool = True,
        numbers: bool = True,
        min_count: int = 1,
        min_length: int = 2,
        max_length: int | None = None,
        overlong: Overlong = "drop",
    ):
        if overlong == "truncate":
            raise CorpusError("overlong is truncate, but half a tree is none; give drop or error")
        found = locate(path)
        self.name = found.stem
        gold: tuple[list[list[Constituent]], ...] = ([], [], [])
        left_out, short = 0, 0

        def sentences() -> Iterator[Sentence]:
            nonlocal left_out, short
            for file, given in _files(found, suffix):
                for parse in read_parses(file, () if punctuation else PUNCTUATION):
                    words = [_form(word, lowercase, numbers) for word in parse.words]
                    split = cut(words) if given is None else given
                    if len(words) < min_length:
                        short += 1
                        continue
                    if split == TRAIN and max_length is not None and len(words) > max_length:
                        if overlong == "error":
                            raise CorpusError(
                                f"{file}: line {parse.line} has {len(words)} words, the limit is {max_length}; raise "
                                "--corpus.max_length, or give --corpus.overlong drop"
                            )
                        left_out += 1
                        continue
                    gold[split].append(constituents(parse))
                    yield Sentence(words, split, None, str(file), parse.line, parse.tags)
            if short and not any(gold):
                raise CorpusError(
                    f"{found}: none of {short:,} sentences has {min_length} words; give longer ones, or lower "
                    "--corpus.min_length"
                )

        self.build(sentences(), min_count=min_count, tagged=True, where=str(found))
        self.dropped = left_out
        self.train, self.valid, self.test = (
            TreeSplit(split, trees) for split, trees in zip((self.train, self.valid, self.test), gold, strict=True)
        )


def constituents(parse: Parse) -> list[Constituent]:
    """The constituents of a tree, each set of words once, by their beginning and from the longest."""
    outermost = {(start, end): label for start, end, label in parse.constituents}  # the outer of two comes later
    ordered = sorted(outermost.items(), key=lambda item: (item[0][0], -item[0][1]))
    return [Constituent(start, end, _FUNCTION.sub("", label)) for (start, end), label in ordered]


def _form(word: str, lowercase: bool, numbers: bool) -> str:
    word = word.lower() if lowercase else word
    return _NUMBER.sub("N", word) if numbers else word


def _files(path: Path, suffix: str) -> list[tuple[Path, int | None]]:
    """The files to read, and the split each is of; None where it is to be cut."""
    if not path.is_dir():
        return [(path, None)]
    files: list[tuple[Path, int | None]] = []
    for name, split in _SPLITS:
        found = sorted(path.glob(f"*{name}*{suffix}"))
        if len(found) != 1:
            names = ", ".join(file.name for file in found) or "none"
            raise CorpusError(f"{path}: needs exactly one file *{name}*{suffix}, found {names}")
        files.append((found[0], split))
    return files
