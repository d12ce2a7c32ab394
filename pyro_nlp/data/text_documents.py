"""A user's own documents as they were written: a folder of text files, or a file of lines (layer: data)."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pyro_nlp.data.bags import check_choice
from pyro_nlp.data.counts import CountCorpus, CountSplit
from pyro_nlp.data.files import CorpusError, locate, read_lines
from pyro_nlp.data.progress import Meter
from pyro_nlp.data.sparse import locate_file
from pyro_nlp.data.store import SPLITS
from pyro_nlp.data.text import _natural
from pyro_nlp.data.text_files import _place
from pyro_nlp.data.vocabulary import WordList

WORD = r"\b[^\W\d_]\w+\b"
"""A word begins with a letter and has two characters or more."""

Tokenise = Callable[[str], list[str]]

_CONTRACTED = (
    "ain aren couldn didn doesn don hadn hasn haven isn ll mightn mustn needn shan shouldn ve wasn weren wouldn"
)
_MARKED_UP = {".csv", ".tsv", ".json", ".jsonl", ".html", ".htm", ".xml", ".rtf"}


class TextDocuments(CountCorpus):
    """A user's own documents as they were written: a folder of text files, or a file with one document a line.

    In a folder every file below it whose name ends with `suffix` is a document, in the order of their paths. If all of
    them are in folders below it, the name of the first of these folders is the label, as in 20 Newsgroups.

    scikit-learn's CountVectorizer counts the words (`pip install "pyro-nlp[documents]"`) and chooses them from train.
    With n-grams a document has more tokens, so that perplexities compare only where `ngrams` is the same.

    Splits that are not given are cut from `path` by a hash of the words of a document (10 % each), so copies of a
    document stay on one side, and neither stop words nor n-grams move one. Documents without a word of the vocabulary
    are left out with a warning and counted.

    Args:
        path: the train documents, in the working directory, in PYRO_NLP_DATA or absolute.
        valid: the validation documents, a folder or a file; None to cut them from `path`.
        test: the test documents, a folder or a file; None to cut them from `path`.
        stop_words: words that do not count: "english" for scikit-learn's list and what it leaves of contractions (don,
            ve), or a file with one word a line; None to count all. With `lowercase` false they are lower-case words.
        ngrams: 1 for words, 2 for pairs of neighbours too, 3 for triples too; stop words are left out before.
        min_documents: words in fewer documents are left out.
        max_document_share: words in a larger share of the documents are left out.
        max_size: bound on the vocabulary, which keeps the most frequent; None for no bound.
        lowercase: whether words are lower-cased.
        pattern: regular expression of a word; by default two characters or more, of which the first is a letter.
        suffix: how the names of a folder's documents end; "" for every file.
        encoding: how the files are encoded.
    """

    reference = "text files of the user's"

    def __init__(
        self,
        path: str,
        valid: str | None = None,
        test: str | None = None,
        stop_words: str | None = "english",
        ngrams: int = 1,
        min_documents: int = 2,
        max_document_share: float = 0.5,
        max_size: int | None = 5000,
        lowercase: bool = True,
        pattern: str = WORD,
        suffix: str = ".txt",
        encoding: str = "utf-8",
    ):
        check_choice(min_documents, max_document_share, max_size)
        if ngrams < 1:
            raise CorpusError(f"ngrams is {ngrams}; give 1 for words, 2 for pairs of neighbours too")
        learn, version = _scikit_learn()
        self.versions = {"scikit-learn": version}
        words = _tokeniser(learn, pattern)
        vectoriser = learn.CountVectorizer(
            lowercase=lowercase,
            token_pattern=pattern,
            stop_words=_stop_words(stop_words, learn, words, lowercase, encoding),
            ngram_range=(1, ngrams),
            min_df=min_documents,
            max_df=float(max_document_share),
            max_features=max_size,
        )
        given = {name: locate(p) for name, p in zip(SPLITS, (path, valid, test), strict=True) if p is not None}
        where = str(given["train"])
        self.name = given["train"].resolve().stem if given["train"].is_file() else given["train"].resolve().name
        parts: dict[str, list[_Document]] = {name: [] for name in SPLITS}
        for name, place in given.items():
            for document in _documents(place, suffix, encoding):
                parts[SPLITS[_place(name, words(document.text.lower()), given)]].append(document)
        _refuse_missing(parts, where)
        texts = {name: [document.text for document in part] for name, part in parts.items()}
        try:
            train = vectoriser.fit_transform(texts["train"])
        except ValueError:  # for one of three reasons, with one cure
            raise CorpusError(
                f"{where}: no word is in at least {min_documents} and at most {max_document_share:.0%} of the "
                f"{len(parts['train']):,} train documents, stop words left aside; change --corpus.min_documents or "
                "--corpus.max_document_share, or give more documents"
            ) from None
        self.vocabulary = WordList(vectoriser.get_feature_names_out().tolist())
        classes = {document.label for part in parts.values() for document in part}
        self.labels = () if None in classes else tuple(sorted((str(name) for name in classes), key=_natural))
        splits = {
            name: _split(
                train if name == "train" else vectoriser.transform(texts[name]),
                [self.labels.index(str(document.label)) for document in part] if self.labels else None,
            )
            for name, part in parts.items()
        }
        self.fill(self.keep(splits, {name: [d.place for d in part] for name, part in parts.items()}), where)


class _Document(NamedTuple):
    text: str
    place: str
    label: str | None


def _scikit_learn() -> tuple[Any, str]:
    """The module of its vectorisers, and its version."""
    try:
        learn = importlib.import_module("sklearn.feature_extraction.text")
        return learn, importlib.import_module("sklearn").__version__
    except ImportError:
        raise CorpusError(
            'the corpus TextDocuments needs scikit-learn, which is not installed; pip install "pyro-nlp[documents]"'
        ) from None


def _tokeniser(learn: Any, pattern: str) -> Tokenise:
    """The words of a text, stop words among them."""
    try:
        found: Tokenise = learn.CountVectorizer(token_pattern=pattern).build_tokenizer()
    except (re.error, ValueError) as error:
        raise CorpusError(f"pattern {pattern!r} is no regular expression of a word: {error}") from None
    return found


def _stop_words(given: str | None, learn: Any, words: Tokenise, lowercase: bool, encoding: str) -> list[str] | None:
    """The words that do not count, cut as those of the documents are: of `don't` the word `don`."""
    if given is None:
        return None
    if given == "english":
        return sorted(learn.ENGLISH_STOP_WORDS | set(_CONTRACTED.split()))
    try:
        file = locate_file(given)
    except CorpusError as error:
        raise CorpusError(f"{error} (stop_words is english, a file with one word a line, or null)") from None
    lines = (line.lower() if lowercase else line for _, line in read_lines(file, encoding))
    return sorted({word for line in lines for word in words(line)}) or None


def _documents(path: Path, suffix: str, encoding: str) -> Iterator[_Document]:
    """The documents of a folder, or of the lines of a file."""
    if path.is_dir():
        yield from _files(path, suffix, encoding)
        return
    if path.suffix.lower() in _MARKED_UP:
        raise CorpusError(
            f"{path}: {path.suffix} is not plain text; write its texts to a .txt file with one document a line, or to "
            "a folder of .txt files"
        )
    for number, line in read_lines(path, encoding):
        place = f"{path}: line {number}"
        _refuse_binary(line, place)
        yield _Document(line, place, None)


def _files(folder: Path, suffix: str, encoding: str) -> Iterator[_Document]:
    visible = [
        (file, file.relative_to(folder).parts)
        for file in folder.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    chosen = sorted((parts, file) for file, parts in visible if file.name.lower().endswith(suffix.lower()))
    if not chosen:
        endings = Counter(file.suffix or "no ending" for file, _ in visible).most_common(3)
        there = ", ".join(f"{count:,} with {ending}" for ending, count in endings)
        raise CorpusError(
            f"{folder}: no file below it ends in {suffix or 'anything'} "
            + (f"(there are {there}); give --corpus.suffix" if there else "(there is none); give a folder of documents")
        )
    with Meter(f"reading {folder.name}", len(chosen)) as meter:
        for parts, file in chosen:
            try:
                text = file.read_bytes().decode(encoding).removeprefix("\ufeff")
            except UnicodeDecodeError as error:
                raise CorpusError(
                    f"{file}: byte {error.start} is not {encoding}; convert the file to UTF-8, or name the encoding of "
                    "all files as --corpus.encoding (for instance latin-1)"
                ) from None
            except LookupError:
                raise CorpusError(
                    f"encoding {encoding!r} is unknown; use a Python codec name such as utf-8 or latin-1"
                ) from None
            except OSError as error:
                raise CorpusError(f"{file}: {error.strerror or error}") from None
            _refuse_binary(text, str(file))
            yield _Document(text, str(file), parts[0] if len(parts) > 1 else None)
            meter.advance()


def _refuse_binary(text: str, where: str) -> None:
    if "\0" in text:
        raise CorpusError(f"{where} has a zero byte, which no text has; take the file out, or convert it to text")


def _refuse_missing(parts: dict[str, list[_Document]], where: str) -> None:
    """Refuse a split without any document, empty ones counted."""
    for name, part in parts.items():
        if not part:
            whole = sum(map(len, parts.values()))
            raise CorpusError(
                f"{where}: no document for the {name} split (found {whole:,} in all, and a hash of their words chooses "
                "10 % for each of valid and test); give more documents, or those of a split as --corpus.valid and "
                "--corpus.test"
            )


def _split(counts: Any, labels: list[int] | None) -> CountSplit:
    """A sparse matrix of scikit-learn's, `[N, V]`."""
    counts.sort_indices()
    found = None if labels is None else np.array(labels, np.int64)
    return CountSplit(counts.indptr, counts.indices, counts.data, counts.shape[1], found)
