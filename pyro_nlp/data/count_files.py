"""A user's own documents as bags of words that were counted before (layer: data)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pyro_nlp.data.counts import CountCorpus, CountSplit
from pyro_nlp.data.files import CorpusError
from pyro_nlp.data.sparse import Documents, FirstField, locate_file, read_counts, read_words
from pyro_nlp.data.store import SPLITS
from pyro_nlp.data.text import TRAIN, _natural, cut
from pyro_nlp.data.text_files import SHARE


class CountFile(CountCorpus):
    """A user's own counted documents, lines `label id:count id:count ...`, beside a vocabulary.

    The vocabulary is a file whose lines begin with the words by id. `TextDocuments` counts documents as they were
    written.

    Splits that are not given are cut from `path` by a hash of the words of a document (10 % each), so copies of a
    document stay on one side. Documents without a word of the vocabulary are left out with a warning and counted.

    Args:
        path: the train documents, in the working directory, in PYRO_NLP_DATA or absolute.
        vocabulary: file of the words by id, one a line, what follows the word ignored.
        valid: the validation documents; None to cut them from `path`.
        test: the test documents; None to cut them from `path`.
        first_field: what stands first in a line: the class, something to ignore, or nothing.
        first_id: id of the first word of the vocabulary, 1 or 0.
        encoding: how the files are encoded.
    """

    reference = "a file of documents of the user's"

    def __init__(
        self,
        path: str,
        vocabulary: str | None = None,
        valid: str | None = None,
        test: str | None = None,
        first_field: FirstField = "label",
        first_id: int = 1,
        encoding: str = "utf-8",
    ):
        given = dict(zip(SPLITS, (path, valid, test), strict=True))
        files = {name: locate_file(p) for name, p in given.items() if p is not None}
        self.name, where = files["train"].stem, str(files["train"])
        if vocabulary is None:
            raise CorpusError(
                f"{where}: counts are of words by id; give the file of the words as --corpus.vocabulary, or read plain "
                "text with --corpus TextDocuments"
            )
        self.vocabulary = read_words(locate_file(vocabulary), encoding)
        documents = read_counts(files.values(), self.vocabulary, vocabulary, first_id, first_field, encoding)
        whole, sides = documents.split, _sides(documents, self.vocabulary.words, list(files))
        if first_field == "label":
            self.labels = tuple(sorted({name for name in documents.classes if name is not None}, key=_natural))
            whole = _with_labels(whole, documents.classes, self.labels)
        rows = {name: np.flatnonzero(sides == i) for i, name in enumerate(SPLITS)}
        places = {name: [documents.places[i] for i in found] for name, found in rows.items()}
        self.fill(self.keep({name: whole.take(found) for name, found in rows.items()}, places), where)


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
