"""The sparse format of counted documents, `label id:count id:count ...`, and its vocabulary (layer: data)."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple, NoReturn, get_args

import numpy as np

from pyro_nlp.data.counts import LARGEST, CountSplit
from pyro_nlp.data.files import CorpusError, locate, read_lines
from pyro_nlp.data.vocabulary import WordList

FirstField = Literal["label", "ignored", "absent"]

_PAIRS = re.compile(r"(?:\s+[0-9]{1,9}:[0-9]{1,8})*\s*")
_WHOLE = re.compile(r"[0-9]+")


class Documents(NamedTuple):
    """Documents of several files in one.

    Attributes:
        split: their words, without labels.
        classes: the name of the class of each, None where it has none.
        places: where each stood, as `file: line 7`.
        files: from which file each is, by its number, int `[N]`.
    """

    split: CountSplit
    classes: list[str | None]
    places: list[str]
    files: np.ndarray


def read_counts(
    files: Iterable[Path],
    vocabulary: WordList,
    words_file: str,
    first_id: int = 1,
    first_field: FirstField = "label",
    encoding: str = "utf-8",
) -> Documents:
    """The documents of files in the sparse format, one a line; a line without pairs is an empty document.

    Args:
        files: the files to read one after the other.
        vocabulary: the words that the ids stand for.
        words_file: where they are from, for errors.
        first_id: id of the first of them, 1 or 0.
        first_field: what stands first in a line: the name of the class, something to ignore, or nothing.
        encoding: how the files are encoded.

    Raises:
        CorpusError: one line that names the file, the line and the cure.
    """
    if first_field not in get_args(FirstField):
        raise CorpusError(f"first_field is {first_field!r}; give {', '.join(get_args(FirstField))}")
    if first_id not in (0, 1):
        raise CorpusError(f"first_id is {first_id}; ids of words begin at 1 or at 0")
    last_id = first_id + len(vocabulary) - 1
    numbers, ends, from_file = array("q"), array("q", [0]), array("q")
    classes: list[str | None] = []
    places = []
    for which, file in enumerate(files):
        for number, line in read_lines(file, encoding):
            where = f"{file}: line {number}"
            label, pairs = "", " " + line
            if first_field != "absent":
                fields = line.split(None, 1)
                label, pairs = fields[0] if fields else "", " " + " ".join(fields[1:])
                if label and _PAIRS.fullmatch(" " + label):
                    raise CorpusError(
                        f"{where} begins with {label!r} where a label should stand; give --corpus.first_field absent "
                        "if the lines have none"
                    )
            if _PAIRS.fullmatch(pairs) is None:
                _explain(where, pairs, first_id, last_id, words_file)
            found = list(map(int, pairs.replace(":", " ").split()))
            ids = found[::2]
            if ids and not (
                first_id <= min(ids)
                and max(ids) <= last_id
                and len(set(ids)) == len(ids)
                and min(found[1::2]) >= 1
                and max(found[1::2]) <= LARGEST
            ):
                _explain(where, pairs, first_id, last_id, words_file)
            numbers.extend(found)
            ends.append(len(numbers) // 2)
            classes.append((label or None) if first_field == "label" else None)
            places.append(where)
            from_file.append(which)
    documents = np.repeat(np.arange(len(places)), np.diff(np.array(ends)))
    ids_and_counts = np.array(numbers).reshape(-1, 2)
    words, counts = ids_and_counts[:, 0] - first_id, ids_and_counts[:, 1]
    split = CountSplit.from_pairs(documents, words, counts, len(places), len(vocabulary))
    return Documents(split, classes, places, np.array(from_file))


def _explain(where: str, pairs: str, first_id: int, last_id: int, words_file: str) -> NoReturn:
    """Raise the CorpusError of the first pair that is wrong."""
    seen: set[int] = set()
    for pair in pairs.split():
        word, colon, count = pair.partition(":")
        if not colon:
            raise CorpusError(
                f"{where} has {pair[:40]!r} where id:count should stand; correct the line, or read plain text with "
                "--corpus TextDocuments"
            )
        if not _WHOLE.fullmatch(word) or len(word) > 9:
            raise CorpusError(f"{where} has {pair[:40]!r}, whose word id is no whole number; correct the line")
        if not _WHOLE.fullmatch(count) or not 1 <= len(count) <= 8 or not 1 <= int(count) <= LARGEST:
            raise CorpusError(f"{where} has {pair[:40]!r}, {_wrong(count)}")
        number = int(word)
        if number < first_id:
            raise CorpusError(
                f"{where} has the word id 0, and ids begin at 1; give --corpus.first_id 0 if the first word of "
                f"{words_file} has the id 0"
            )
        if number > last_id:
            shift = " or --corpus.first_id 1 if ids begin at 1" if first_id == 0 and number == last_id + 1 else ""
            raise CorpusError(
                f"{where} has the word id {number}, and {words_file} has {last_id - first_id + 1:,} words (ids "
                f"{first_id} to {last_id}); give the vocabulary that was made with this file{shift}"
            )
        if number in seen:
            raise CorpusError(f"{where} has the word id {number} twice; add its counts up into one")
        seen.add(number)
    raise AssertionError(f"{where}: no pair is wrong")  # what the caller refused is wrong by one of these


def _wrong(count: str) -> str:
    """What is wrong with a count."""
    try:
        value = float(count)
    except ValueError:
        return "whose count is no number; correct the line"
    if value == 0:
        return "a word that does not occur; leave the pair out"
    if value < 0:
        return "whose count is negative; counts are whole numbers from 1"
    if value > LARGEST:
        return f"whose count is too large; {LARGEST:,} is the most"
    return "whose count is not written as a whole number; give counts, not weights such as tf-idf"


def read_words(path: Path, encoding: str = "utf-8") -> WordList:
    """The words by id, the first field of each line of a file.

    Raises:
        CorpusError: a line without a word, or a word twice: ids would stand for other words than in the counts.
    """
    lines: dict[str, int] = {}
    for number, line in read_lines(path, encoding):
        fields = line.split(None, 1)
        if not fields:
            raise CorpusError(
                f"{path}: line {number} has no word; ids of words are numbers of lines: give each line one"
            )
        first = lines.setdefault(fields[0], number)
        if first != number:
            raise CorpusError(
                f"{path}: line {number} has the word {fields[0]!r} of line {first} again; give each word one id, "
                "in the counts too"
            )
    return WordList(lines)


def locate_file(path: str) -> Path:
    """A file as `locate` finds it; CorpusError if it is a folder."""
    file = locate(path)
    if file.is_dir():
        raise CorpusError(f"{file}: is a folder; give a file")
    return file
