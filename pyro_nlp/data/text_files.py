"""A user's own text: plain sentences, and sentences with a label (layer: data)."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyro_nlp.data.classes import class_counts, require_classes
from pyro_nlp.data.files import CorpusError, home, locate, read_lines
from pyro_nlp.data.store import SPLITS
from pyro_nlp.data.text import TRAIN, Overlong, Sentence, TextCorpus, cut
from pyro_nlp.data.tokenise import Tokeniser, choose_tokeniser

MAP_ABOVE = 50_000_000
"""Bytes of text above which the tokens are memory-mapped."""

SHARE = 0.1
"""Share of the train file that becomes a split for which no file is given."""


class TextFile(TextCorpus):
    """Plain text, a sentence on each line; blank lines are skipped.

    Splits that are not given are cut from `path` by a hash of the words (10 % each), so copies of a sentence
    stay on one side. Above 50 MB the tokens are memory-mapped files under PYRO_NLP_HOME, which the next run
    finds again as long as the text and the arguments are the same.

    Args:
        path: the train text, in the working directory, in PYRO_NLP_DATA or absolute.
        valid: the validation text; None to cut it from `path`.
        test: the test text; None to cut it from `path`.
        tokeniser: "words" lower-cases and splits off punctuation; "whitespace" is for text tokenised before.
        min_count: words seen less often in train become `<unk>`.
        max_size: bound on the vocabulary; None for no bound.
        max_length: bound on the words of a sentence; None for no bound.
        overlong: what to do with a longer sentence.
        encoding: how the files are encoded.
    """

    reference = "a text file of the user's"

    def __init__(
        self,
        path: str,
        valid: str | None = None,
        test: str | None = None,
        tokeniser: Tokeniser = "words",
        min_count: int = 2,
        max_size: int | None = 50_000,
        max_length: int | None = 100,
        overlong: Overlong = "error",
        encoding: str = "utf-8",
    ):
        files = _files(path, valid, test)
        self.tokenise = choose_tokeniser(tokeniser)
        self.name = files["train"].stem
        options = [tokeniser, min_count, max_size, max_length, overlong, encoding]
        large = sum(file.stat().st_size for file in files.values()) > MAP_ABOVE
        self.build(
            _plain(files, tokeniser, encoding),
            min_count=min_count,
            max_size=max_size,
            max_length=max_length,
            overlong=overlong,
            where=str(files["train"]),
            keep=not large,
            store=_store(files, options) if large else None,
        )


class LabelledLines(TextCorpus):
    """Sentences with a class: `label text` lines, or a file per class.

    A path without `*` is a file of lines that begin with the label, as in SST (`1 a stirring , funny film`).
    A path with `*` in its last part stands for one file per class, named by what the `*` stands for:
    `yelp_style/sentiment.dev.*` reads `sentiment.dev.0` and `sentiment.dev.1`. Blank lines are skipped. There have to
    be two classes at least, and each of them in train.

    Not every sentence needs a label: a line that begins with the separator has none, as in `,a stirring film`; where
    that is white space, one that begins with a tab. Such sentences are learnt from without a class, and not judged.

    Args:
        train: path of the train text, in the working directory, in PYRO_NLP_DATA or absolute.
        valid: path of the validation text; None to cut 10 % from train by a hash of the words.
        test: path of the test text; None to cut 10 % from train by a hash of the words.
        separator: what stands between label and text; None for white space. Not used with `*`.
        tokeniser: "words" lower-cases and splits off punctuation; "whitespace" is for text tokenised before.
        min_count: words seen less often in train become `<unk>`.
        max_length: bound on the words of a sentence; None for no bound.
        overlong: what to do with a longer sentence.
        encoding: how the files are encoded, for instance latin-1.
    """

    reference = "labelled text files of the user's"

    def __init__(
        self,
        train: str,
        valid: str | None = None,
        test: str | None = None,
        separator: str | None = None,
        tokeniser: Tokeniser = "whitespace",
        min_count: int = 1,
        max_length: int | None = 100,
        overlong: Overlong = "error",
        encoding: str = "utf-8",
    ):
        if separator == "":
            raise CorpusError("separator is empty; give the mark between label and text, or null for white space")
        self.tokenise = choose_tokeniser(tokeniser)
        self.name = Path(train).name.replace("*", "").strip(".-_") or Path(train).parent.name
        self.build(
            _labelled({"train": train, "valid": valid, "test": test}, separator, tokeniser, encoding),
            min_count=min_count,
            max_length=max_length,
            overlong=overlong,
            labelled=True,
            keep=True,
            where=train,
        )
        labelled = int(class_counts(self.train, len(self.labels)).sum())
        if len(self.labels) > max(20, labelled // 10):
            raise CorpusError(
                f"{train}: {len(self.labels):,} different labels in {labelled:,} labelled sentences; each line "
                f"has to begin with its label (give --corpus.separator if it is not white space that follows)"
            )
        require_classes(self, train)


def _files(path: str, valid: str | None, test: str | None) -> dict[str, Path]:
    given = {"train": path, "valid": valid, "test": test}
    files = {split: locate(name) for split, name in given.items() if name is not None}
    for file in files.values():
        if not file.is_file():
            raise CorpusError(f"{file}: is a folder; give a text file with a sentence on each line")
    return files


def _plain(files: dict[str, Path], name: Tokeniser, encoding: str) -> Iterator[Sentence]:
    split_words = choose_tokeniser(name)
    for split, file in files.items():
        for line, text in read_lines(file, encoding):
            if words := split_words(text):
                yield Sentence(words, _place(split, words, files), None, str(file), line)


def _place(split: str, words: list[str], given: dict[str, Any]) -> int:
    """The number of a sentence's split: the file's own, or cut from train for those without a file."""
    if split != "train":
        return SPLITS.index(split)
    valid, test = (0.0 if given.get(name) else SHARE for name in ("valid", "test"))
    return cut(words, valid, test) if valid or test else TRAIN


def _labelled(
    given: dict[str, str | None], separator: str | None, name: Tokeniser, encoding: str
) -> Iterator[Sentence]:
    split_words = choose_tokeniser(name)
    for split, path in given.items():
        for file, line, label, text in _labelled_lines(path, separator, encoding) if path else ():
            if words := split_words(text):
                yield Sentence(words, _place(split, words, given), label, str(file), line)


def _labelled_lines(path: str, separator: str | None, encoding: str) -> Iterator[tuple[Path, int, str | None, str]]:
    """File, line number, label, None where there is none, and text."""
    if "*" in path:
        for label, file in _per_class(path).items():
            for line, text in read_lines(file, encoding):
                yield file, line, label, text
        return
    file = locate(path)
    for line, text in read_lines(file, encoding):
        if not text.strip():
            continue
        tab = separator is None and text.lstrip(" ").startswith("\t")
        label, *rest = text.split("\t" if tab else separator, 1)
        if not rest or not rest[0].strip():
            mark = "white space" if separator is None else repr(separator)
            raise CorpusError(
                f"{file}: line {line} should be a label, {mark} and a text, found {text.strip()[:40]!r}; "
                f"correct the line, or give --corpus.separator"
            )
        yield file, line, label.strip() or None, rest[0].strip()


def _per_class(path: str) -> dict[str, Path]:
    """Class name to file, for a path with one `*` in its last part."""
    pattern = Path(path)
    before, star, after = pattern.name.partition("*")
    if not star or "*" in after or "*" in str(pattern.parent):
        raise CorpusError(f"{path}: give one * in the last part of the path, where the name of the class stands")
    folder = locate(str(pattern.parent))
    found = {
        file.name[len(before) : len(file.name) - len(after)]: file
        for file in sorted(folder.iterdir())
        if file.is_file()
        and file.name.startswith(before)
        and file.name.endswith(after)
        and len(file.name) > len(before) + len(after)
    }
    if not found:
        raise CorpusError(f"{folder / pattern.name}: no file has such a name; give a path such as sentiment.train.*")
    return found


def _store(files: dict[str, Path], options: list[Any]) -> Path:
    """Where the tokens of these files under these options are kept."""
    state = [[str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns] for f in files.values()]
    key = hashlib.blake2b(json.dumps([list(files), state, options]).encode(), digest_size=8).hexdigest()
    return home() / "texts" / f"{os.path.basename(files['train'])}-{key}"
