"""A user's own documents as they were written: scikit-learn's counts, splits, labels, and bad input in one line."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jsonargparse import ArgumentParser
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

import pyro_nlp
from pyro_nlp.data import Corpus, CorpusError, TextDocuments
from pyro_nlp.data.text_documents import WORD

Write = Callable[[str, str | bytes], Path]

TEXT = "".join(
    f"The {animal} eats x{i}, and x{i % 9} doesn't sleep 3 times.\n" for i in range(40) for animal in ("cat", "dog")
)
ROOT = Path(pyro_nlp.__file__).parent


def plain(write: Write, text: str | bytes = TEXT, **options: Any) -> TextDocuments:
    return TextDocuments(str(write("mine.txt", text)), **options)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of real text, the sources of two parts of this package, each in a folder of its own."""
    folder = tmp_path_factory.mktemp("sources")
    for part in ("data", "inference"):
        (folder / part / "deeper").mkdir(parents=True)
        for i, file in enumerate(sorted((ROOT / part).glob("*.py"))):
            (folder / part / ("deeper" if i % 2 else "") / f"{file.stem}.txt").write_bytes(file.read_bytes())
    return folder


def counts(corpus: TextDocuments, split: str = "train") -> torch.Tensor:
    part = getattr(corpus, split)
    found: torch.Tensor = part.batch(np.arange(len(part))).counts
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stop_words": None, "ngrams": 2, "max_size": 300},
        {"min_documents": 5, "max_document_share": 0.9, "lowercase": False, "stop_words": None, "max_size": None},
        {"pattern": r"(?u)\b\w\w+\b", "ngrams": 3, "stop_words": None},
    ],
)
def test_the_counts_are_those_of_scikit_learn_on_real_text(sources: Path, options: dict[str, Any]) -> None:
    train, valid, test = sources / "data", sources / "inference", sources / "inference" / "deeper"
    corpus = TextDocuments(str(train), valid=str(valid), test=str(test), **options)
    stop = None
    if not options:
        stop = [*ENGLISH_STOP_WORDS, "ain", "aren", "couldn", "didn", "doesn", "don", "hadn", "hasn", "haven", "isn"]
        stop += ["ll", "mightn", "mustn", "needn", "shan", "shouldn", "ve", "wasn", "weren", "wouldn"]
    theirs = CountVectorizer(
        stop_words=stop,
        ngram_range=(1, options.get("ngrams", 1)),
        min_df=options.get("min_documents", 2),
        max_df=options.get("max_document_share", 0.5),
        max_features=options.get("max_size", 5000),
        lowercase=options.get("lowercase", True),
        token_pattern=options.get("pattern", WORD),
    )
    texts = [[f.read_text("utf-8") for f in sorted(p.rglob("*.txt"))] for p in (train, valid, test)]
    assert counts(corpus).tolist() == theirs.fit_transform(texts[0]).toarray().tolist()
    assert list(corpus.vocabulary.words) == theirs.get_feature_names_out().tolist()
    for name, part in zip(("valid", "test"), texts[1:], strict=True):
        assert counts(corpus, name).tolist() == theirs.transform(part).toarray().tolist()
    assert corpus.dropped == 0 and corpus.name == "data" and corpus.versions["scikit-learn"]


def test_the_first_folder_is_the_label_where_every_document_has_one(sources: Path) -> None:
    corpus = TextDocuments(str(sources))
    assert corpus.labels == ("data", "inference")
    sizes = [len(list((sources / name).rglob("*.txt"))) for name in corpus.labels]
    splits = (corpus.train, corpus.valid, corpus.test)
    found = np.concatenate([split.labels for split in splits if split.labels is not None])
    assert np.bincount(found).tolist() == sizes
    own = TextDocuments(str(sources / "data"), valid=str(sources / "inference"), test=str(sources / "inference"))
    assert own.labels == () and own.train.labels is None  # some are in a folder below, some are not


def rows(corpus: TextDocuments) -> list[set[tuple[int, ...]]]:
    """The documents of train, valid and test as rows of counts."""
    return [set(map(tuple, counts(corpus, name).int().tolist())) for name in ("train", "valid", "test")]


def test_every_document_is_in_one_split_and_copies_stay_together(write: Write) -> None:
    once = plain(write, min_documents=1, max_document_share=1.0)
    twice = plain(write, TEXT + TEXT, min_documents=2, max_document_share=1.0)
    sizes = [len(once.train), len(once.valid), len(once.test)]
    assert sum(sizes) == 80 == len(TEXT.splitlines()) and min(sizes) > 0
    assert [len(twice.train), len(twice.valid), len(twice.test)] == [2 * size for size in sizes]
    assert twice.vocabulary == once.vocabulary and rows(twice) == rows(once)


def test_splits_are_stable_and_neither_stop_words_nor_n_grams_move_a_document(write: Write) -> None:
    corpus, again = plain(write, max_document_share=1.0), plain(write, max_document_share=1.0)
    other = plain(write, max_document_share=1.0, stop_words=None, ngrams=2, max_size=None)
    assert again.fingerprint == corpus.fingerprint != other.fingerprint
    shared = [other.vocabulary.words.index(word) for word in corpus.vocabulary.words]
    for name in ("train", "valid", "test"):
        assert counts(other, name)[:, shared].equal(counts(corpus, name))


def test_words_of_the_test_split_alone_are_unknown(write: Write) -> None:
    given = {name: str(write(name, f"cat {name}\n" * 3)) for name in ("valid", "test")}
    corpus = plain(write, "cat dog\ncat dog\n", max_document_share=1.0, **given)
    assert corpus.vocabulary.words == ("cat", "dog")
    assert counts(corpus, "test").tolist() == [[1, 0]] * 3 and len(corpus.train) == 2


def test_stop_words_are_english_or_the_words_of_a_file_as_documents_are_cut(write: Write) -> None:
    assert {"cat", "dog", "eats", "sleep", "times"} < set(plain(write, max_document_share=1.0).vocabulary.words)
    assert not {"the", "and", "doesn"} & set(plain(write, max_document_share=1.0).vocabulary.words)
    stop = str(write("stop.txt", "Cat\ndoesn't\n\n"))
    words = plain(write, stop_words=stop, max_document_share=1.0).vocabulary.words
    assert "the" in words and not {"cat", "doesn"} & set(words)
    whole = plain(write, stop_words=None, max_document_share=1.0).vocabulary.words
    assert {"the", "and", "doesn", "cat"} < set(whole) and not {"3", "t"} & set(whole)


def test_n_grams_are_counted_beside_words(write: Write) -> None:
    words = plain(write, ngrams=2, max_document_share=1.0).vocabulary.words
    assert {"cat", "cat eats", "sleep times"} < set(words)
    assert not [word for word in words if word.count(" ") > 1]


def test_hidden_files_and_files_of_other_kinds_are_no_documents(tmp_path: Path) -> None:
    for i, line in enumerate(TEXT.splitlines()):
        (tmp_path / f"{i}.TXT").write_text(line, "utf-8")
    (tmp_path / ".hidden.txt").write_bytes(b"\xff")
    (tmp_path / "picture.png").write_bytes(b"\xff")
    corpus = TextDocuments(str(tmp_path), max_document_share=1.0)
    assert len(corpus.train) + len(corpus.valid) + len(corpus.test) == 80 and corpus.labels == ()
    with pytest.raises(CorpusError, match=r"picture\.png: byte 0 is not utf-8"):
        TextDocuments(str(tmp_path), suffix="")


def test_empty_documents_are_left_out_with_one_warning_and_counted(write: Write) -> None:
    with pytest.warns(
        UserWarning, match=r"mine: .* left out: 1 of \w+ \(the first is .*mine\.txt: line 81\)"
    ) as caught:
        assert plain(write, TEXT + "\n").dropped == 1
    assert len(caught) == 1 and caught[0].filename == __file__.replace(".pyc", ".py")
    with pytest.warns(UserWarning, match=r"mine\.txt: line 81"):  # it has words, and none of the vocabulary
        assert plain(write, TEXT + "nobody nowhere\n").dropped == 1
    folder = write("mine.txt", TEXT).parent / "folder"
    folder.mkdir()
    for i, line in enumerate(["", *TEXT.splitlines()]):
        (folder / f"{i:02}.txt").write_text(line, "utf-8")
    with pytest.warns(UserWarning, match=r"1 of \w+ \(the first is .*00\.txt\)"):
        assert TextDocuments(str(folder)).dropped == 1


def folder(write: Write, name: str, content: str | bytes) -> str:
    """A folder of 20 documents and one more."""
    inside = write("x", "").parent / "inside"
    inside.mkdir()
    for i, line in enumerate(TEXT.splitlines()[:20]):
        (inside / f"{i}.txt").write_text(line, "utf-8")
    (inside / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(inside)


def only(write: Write, name: str) -> str:
    inside = write("x", "").parent / "only"
    inside.mkdir()
    (inside / name).write_text("a,b\n", "utf-8")
    return str(inside)


CASES: dict[str, tuple[Callable[[Write], object], str]] = {
    "no such path": (lambda w: TextDocuments("/nowhere/at/all"), r"^/nowhere/at/all: no such file or folder"),
    "no text file": (
        lambda w: TextDocuments(only(w, "a.csv")),
        r"only: no .* ends in \.txt \(there are 1 with \.csv\)",
    ),
    "nothing": (
        lambda w: TextDocuments(str(w("x", "").parent), suffix=".text"),
        r"ends in \.text \(there are 1 with no ending\); give --corpus\.suffix",
    ),
    "an empty folder": (lambda w: TextDocuments(only(w, ".a")), r"\(there is none\); give a folder of documents"),
    "an empty file": (lambda w: plain(w, ""), r"mine\.txt: the file is empty"),
    "a table": (lambda w: TextDocuments(str(w("a.csv", TEXT))), r"a\.csv: \.csv is not plain text; write its texts"),
    "a binary line": (lambda w: plain(w, TEXT + "a\0b\n"), r"mine\.txt: line 81 has a zero byte"),
    "a binary file": (
        lambda w: TextDocuments(folder(w, "b.txt", b"ab\0c")),
        r"b\.txt has a zero byte, .* take the file",
    ),
    "undecodable": (
        lambda w: TextDocuments(folder(w, "b.txt", "näh".encode("latin-1"))),
        r"b\.txt: byte 1 is not utf-8; convert .* --corpus\.encoding \(for instance latin-1\)",
    ),
    "undecodable line": (lambda w: plain(w, b"a\n\xff\n"), r"mine\.txt: byte 2 \(line 2\) is not utf-8"),
    "encoding": (
        lambda w: TextDocuments(folder(w, "b.txt", "a"), encoding="utf-7777"),
        "encoding 'utf-7777' is unknown",
    ),
    "stop words": (
        lambda w: plain(w, stop_words="/no/german"),
        r"/no/german: no such file .*\(stop_words is english, a file with one word a line, or null\)",
    ),
    "ngrams": (lambda w: plain(w, ngrams=0), "ngrams is 0; give 1 for words, 2 for"),
    "pattern": (lambda w: plain(w, pattern="("), r"pattern '\(' is no regular expression of a word: missing \)"),
    "groups": (lambda w: plain(w, pattern="(a)(b)"), "is no regular expression of a word: More than 1 capturing"),
    "no word left": (
        lambda w: plain(w, min_documents=60),
        r"mine\.txt: no word is in at least 60 and at most 50% of the \d+ train documents, .* --corpus\.min_documents",
    ),
    "no word in enough": (lambda w: plain(w, "".join(f"word{i}\n" for i in range(80))), "no word is in at least 2 and"),
    "stop words alone": (
        lambda w: plain(w, "".join("the and\n" + "of " * i + "\n" for i in range(80))),
        "no word is in at least 2 .* stop words left aside",
    ),
    "too few": (
        lambda w: plain(w, "one document\nanother one\n"),
        r"mine\.txt: no document for the \w+ split \(found 2 in all, .*; give more documents, or .*--corpus\.valid",
    ),
    "min_documents": (lambda w: plain(w, min_documents=0), "min_documents is 0"),
    "share": (lambda w: plain(w, max_document_share=1.5), "max_document_share is 1.5"),
    "max_size": (lambda w: plain(w, max_size=0), "max_size is 0"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_with_the_cure(case: str, write: Write) -> None:
    build, message = CASES[case]
    with pytest.raises(CorpusError, match=message) as raised:
        build(write)
    assert "\n" not in str(raised.value)


def test_without_scikit_learn_the_extra_is_named(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.feature_extraction.text", None)
    with pytest.raises(CorpusError, match=r'not installed; pip install "pyro-nlp\[documents\]"'):
        plain(write)


def test_a_command_line_names_the_reader_by_its_short_name(write: Write) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Corpus, "corpus")
    path = str(write("mine.txt", TEXT))
    arguments = ["--corpus=TextDocuments", f"--corpus.path={path}", "--corpus.stop_words=null", "--corpus.ngrams=2"]
    corpus = parser.instantiate(parser.parse_args(arguments)).corpus
    assert isinstance(corpus, TextDocuments) and "cat eats" in corpus.vocabulary.words
