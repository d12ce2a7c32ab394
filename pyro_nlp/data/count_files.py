"""A user's own documents as bags of words: counted before, or plain text (layer: data)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from pyro_nlp.data.bags import bags, check_choice, choose_words, content_words
from pyro_nlp.data.counts import CountCorpus, CountSplit
from pyro_nlp.data.files import CorpusError, read_lines
from pyro_nlp.data.sparse import Documents, FirstField, locate_file, read_counts, read_words
from pyro_nlp.data.store import SPLITS
from pyro_nlp.data.text import TRAIN, _natural, cut
from pyro_nlp.data.text_files import SHARE
from pyro_nlp.data.tokenise import Tokeniser, choose_tokeniser

Form = Literal["counts", "text"]


class CountFile(CountCorpus):
    """A user's own documents, one a line: counted before, or plain text.

    Counted documents are lines `label id:count id:count ...` beside a vocabulary, a file whose lines begin with the
    words by id. Plain text is lower-cased and counted here, without punctuation, numbers and common function words,
    unless the tokeniser is "whitespace", which takes the text as it was prepared.

    Splits that are not given are cut from `path` by a hash of the words of a document (10 % each), so copies of a
    document stay on one side. Documents without a word of the vocabulary are left out with a warning and counted.

    Args:
        path: the train documents, in the working directory, in PYRO_NLP_DATA or absolute.
        vocabulary: file of the words by id, one a line, what follows the word ignored; None for plain text whose
            words are to be chosen from train by the arguments below.
        form: what `path` holds.
        valid: the validation documents; None to cut them from `path`.
        test: the test documents; None to cut them from `path`.
        first_field: what stands first in a line of counts: the class, something to ignore, or nothing.
        first_id: id of the first word of the vocabulary, 1 or 0.
        tokeniser: how plain text becomes words.
        min_documents: words of plain text in fewer documents are left out.
        max_document_share: words of plain text in a larger share of the documents are left out.
        max_size: bound on the vocabulary of plain text; None for no bound.
        encoding: how the files are encoded.
    """

    reference = "a file of documents of the user's"

    def __init__(
        self,
        path: str,
        vocabulary: str | None = None,
        form: Form = "counts",
        valid: str | None = None,
        test: str | None = None,
        first_field: FirstField = "label",
        first_id: int = 1,
        tokeniser: Tokeniser = "words",
        min_documents: int = 2,
        max_document_share: float = 0.5,
        max_size: int | None = 5000,
        encoding: str = "utf-8",
    ):
        if form not in get_args(Form):
            raise CorpusError(f"form is {form!r}; give {' or '.join(get_args(Form))}")
        check_choice(min_documents, max_document_share, max_size)
        given = dict(zip(SPLITS, (path, valid, test), strict=True))
        files = {name: locate_file(p) for name, p in given.items() if p is not None}
        self.name = files["train"].stem
        known = None if vocabulary is None else read_words(locate_file(vocabulary), encoding)
        names: Sequence[str]
        if form == "text":
            documents, names = read_text(list(files.values()), tokeniser, encoding)
        elif known is None or vocabulary is None:
            raise CorpusError(
                f"{files['train']}: counts are of words by id; give the file of the words as --corpus.vocabulary, "
                "or --corpus.form text if this is plain text"
            )
        else:
            documents = read_counts(files.values(), known, vocabulary, first_id, first_field, encoding)
            names = known.words
        whole, sides = documents.split, _sides(documents, names, list(files))
        where = str(files["train"])
        if known is None:
            train = whole.take(np.flatnonzero(sides == TRAIN))
            table, known = choose_words(train, names, min_documents, max_document_share, max_size, where)
            whole = whole.recode(table, len(known))
        elif form == "text":
            place = {word: i for i, word in enumerate(known.words)}
            whole = whole.recode(np.array([place.get(word, -1) for word in names], np.int64), len(known))
        self.vocabulary = known
        if form == "counts" and first_field == "label":
            self.labels = tuple(sorted({name for name in documents.classes if name is not None}, key=_natural))
            whole = _with_labels(whole, documents.classes, self.labels)
        rows = {name: np.flatnonzero(sides == i) for i, name in enumerate(SPLITS)}
        places = {name: [documents.places[i] for i in found] for name, found in rows.items()}
        self.fill(self.keep({name: whole.take(found) for name, found in rows.items()}, places), where)


def read_text(files: Sequence[Path], tokeniser: Tokeniser, encoding: str) -> tuple[Documents, list[str]]:
    """The documents of plain text, one a line, and their words by id; a blank line is an empty document."""
    split_words = content_words if tokeniser == "words" else choose_tokeniser(tokeniser)
    places: list[str] = []
    from_file: list[int] = []

    def documents() -> Iterator[list[str]]:
        for which, file in enumerate(files):
            for number, line in read_lines(file, encoding):
                places.append(f"{file}: line {number}")
                from_file.append(which)
                yield split_words(line)

    split, names = bags(documents())
    return Documents(split, [None] * len(split), places, np.array(from_file, np.int64)), names


def _sides(documents: Documents, names: Sequence[str], given: Sequence[str]) -> np.ndarray:
    """The number of each document's split: that of its file, or cut from train where a split has no file."""
    sides = np.array([SPLITS.index(name) for name in given])[documents.files]
    valid, test = (0.0 if name in given else SHARE for name in ("valid", "test"))
    split = documents.split
    for row in np.flatnonzero((sides == TRAIN) & (split.sizes > 0)) if valid or test else ():
        inside = slice(split.offsets[row], split.offsets[row + 1])
        pairs = zip(split.words[inside].tolist(), split.counts[inside].tolist(), strict=True)
        sides[row] = cut(sorted(f"{names[word]}:{count}" for word, count in pairs), valid, test)
    return sides


def _with_labels(split: CountSplit, classes: Sequence[str | None], labels: Sequence[str]) -> CountSplit:
    ids = {name: i for i, name in enumerate(labels)}
    found = np.array([-1 if name is None else ids[name] for name in classes], np.int64)
    return CountSplit(split.offsets, split.words, split.counts, split.vocabulary, found)
