"""A user's own documents that were counted before; bad input ends in one line with the cure."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonargparse import ArgumentParser

from pyro_nlp.data import Corpus, CorpusError, CountCorpus, CountFile, CountSplit, WordList
from pyro_nlp.data.bags import STOP, bags, content_words

Write = Callable[[str, str | bytes], Path]

WORDS = "the 99\ncat 7\ndog 5\neats 2\n"
LINES = "".join(f"{'ab'[i % 2]} {i % 4 + 1}:{i + 1} {(i + 1) % 4 + 1}:2\n" for i in range(80))


def counted(write: Write, lines: str | bytes = LINES, words: str = WORDS, **options: Any) -> CountFile:
    return CountFile(str(write("mine.feat", lines)), str(write("mine.vocab", words)), **options)


def contents(corpus: CountCorpus) -> list[set[tuple[int, ...]]]:
    """The documents of train, valid and test as rows of counts."""
    splits = (corpus.train, corpus.valid, corpus.test)
    return [set(map(tuple, s.batch(np.arange(len(s))).counts.int().tolist())) for s in splits]


def test_counted_documents_keep_their_words_counts_and_classes(write: Write) -> None:
    valid, test = (str(write(name, text)) for name, text in (("v", "c 4:1\nb 2:3 1:1\n"), ("t", "10\t1:1\t3:2\n2 1:1")))
    corpus = counted(write, "b 1:2 4:1 \r\na 3:5\n", valid=valid, test=test)
    assert corpus.train.batch(np.arange(2)).counts.tolist() == [[2, 0, 0, 1], [0, 0, 5, 0]]
    assert corpus.valid.batch(np.arange(2)).counts.tolist() == [[0, 0, 0, 1], [1, 3, 0, 0]]
    assert corpus.test.batch(np.arange(1)).counts.tolist() == [[1, 0, 2, 0]]
    assert corpus.labels == ("2", "10", "a", "b", "c") and corpus.name == "mine" and corpus.dropped == 0
    assert [s.labels.tolist() for s in (corpus.train, corpus.valid, corpus.test) if s.labels is not None] == [
        [3, 2],
        [4, 3],
        [1, 0],
    ]
    assert corpus.vocabulary == WordList(["the", "cat", "dog", "eats"])


def test_splits_are_cut_so_that_copies_of_a_document_stay_together(write: Write) -> None:
    once = counted(write)
    # the same documents again, their words in the other order
    turned = "".join(" ".join([line.split()[0], *line.split()[:0:-1]]) + "\n" for line in LINES.splitlines())
    twice = counted(write, LINES + turned)
    assert contents(once) == contents(twice) and len(twice.test) == 2 * len(once.test) > 0
    assert len(once.train) + len(once.valid) + len(once.test) == 80
    given = counted(write, valid=str(write("valid.feat", "a 1:1\n")))
    assert len(given.valid) == 1 and len(given.train) + len(given.test) == 80


@pytest.mark.parametrize(("field", "first"), [("ignored", "x "), ("absent", ""), ("absent", " ")])
def test_lines_without_classes_are_read_too(write: Write, field: str, first: str) -> None:
    lines = "".join(first + line.split(" ", 1)[1] + "\n" for line in LINES.splitlines())
    corpus = counted(write, lines, first_field=field)
    assert corpus.labels == () and corpus.train.labels is None
    assert contents(corpus) == contents(counted(write))


def test_ids_from_zero_are_read_where_this_is_said(write: Write) -> None:
    lines = "".join(f"a {i % 4}:{i + 1} {(i + 1) % 4}:2\n" for i in range(80))
    assert contents(counted(write, lines, first_id=0)) == contents(counted(write))


def test_empty_documents_are_left_out_with_one_warning_and_counted_by_split(write: Write) -> None:
    valid, test = str(write("v.feat", "a 1:1\na\n")), str(write("t.feat", "a 1:1\n"))
    message = (
        r"mine: documents without a word .* left out: 2 of train, 1 of valid \(the first is .*mine\.feat: line 2\)"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        corpus = counted(write, "a 1:1\na\nb 2:1\n\n", valid=valid, test=test)
    assert len(caught) == 1 and caught[0].filename == __file__.replace(".pyc", ".py")
    assert corpus.dropped_by_split == {"train": 2, "valid": 1, "test": 0} and corpus.dropped == 3
    assert len(corpus.train) == 2 and corpus.train.labels is not None and corpus.train.labels.tolist() == [0, 1]


CASES: dict[str, tuple[Callable[[Write], object], str]] = {
    "id 0": (
        lambda w: counted(w, "a 1:1\na 0:2\n"),
        r"mine\.feat: line 2 has the word id 0, and ids begin at 1; give --corpus\.first_id 0 if .*mine\.vocab",
    ),
    "id outside": (
        lambda w: counted(w, "a 5:1\n"),
        r"line 1 has the word id 5, and .*mine\.vocab has 4 words \(ids 1 to 4\); give the vocabulary that",
    ),
    "id outside from 0": (
        lambda w: counted(w, "a 4:1\n", first_id=0),
        r"has 4 words \(ids 0 to 3\); give the vocabulary .* or --corpus\.first_id 1 if ids begin at 1",
    ),
    "long id": (lambda w: counted(w, "a 12345678901:1\n"), "line 1 has '12345678901:1', whose word id is no whole"),
    "repeated id": (lambda w: counted(w, "a 1:1 2:1 1:3\n"), "line 1 has the word id 1 twice; add its counts up"),
    "negative count": (lambda w: counted(w, "a 1:-2\n"), "line 1 has '1:-2', whose count is negative"),
    "fraction": (lambda w: counted(w, "a 1:1 2:0.5\n"), "line 1 has '2:0.5', whose count is not .* tf-idf"),
    "no occurrence": (lambda w: counted(w, "a 1:0\n"), "line 1 has '1:0', a word that does not occur; leave"),
    "too many": (lambda w: counted(w, "a 1:16777217\n"), "'1:16777217', whose count is too large; 16,777,216 is"),
    "far too many": (lambda w: counted(w, f"a 1:{'9' * 400}\n"), "whose count is too large"),
    "no count": (lambda w: counted(w, "a 1:\n"), "line 1 has '1:', whose count is no number"),
    "unreadable count": (lambda w: counted(w, "a 1:x\n"), "line 1 has '1:x', whose count is no number"),
    "foreign digits": (lambda w: counted(w, "a 1:٣\n"), "line 1 has '1:٣', whose count is not written as a whole"),
    "three parts": (lambda w: counted(w, "a 1:2:3\n"), "line 1 has '1:2:3', whose count is no number"),
    "unreadable id": (lambda w: counted(w, "a x:1\n"), "line 1 has 'x:1', whose word id is no whole number"),
    "negative id": (lambda w: counted(w, "a -1:1\n"), "line 1 has '-1:1', whose word id is no whole number"),
    "text for counts": (
        lambda w: counted(w, "The cat eats.\n"),
        r"line 1 has 'cat' where id:count should stand; correct the line, .* --corpus TextDocuments",
    ),
    "no class": (
        lambda w: counted(w, "1:1 2:1\n"),
        r"line 1 begins with '1:1' where a label should stand; give --corpus\.first_field absent",
    ),
    "a class that is not expected": (lambda w: counted(w, LINES, first_field="absent"), "line 1 has 'a' where id:"),
    "no vocabulary": (
        lambda w: CountFile(str(w("mine.feat", LINES))),
        r"mine\.feat: counts are of words by id; give .* --corpus\.vocabulary, or .* --corpus TextDocuments",
    ),
    "repeated word": (
        lambda w: counted(w, words=WORDS + "cat\n"),
        r"mine\.vocab: line 5 has the word 'cat' of line 2 again",
    ),
    "no word": (lambda w: counted(w, words="the\n\ncat\n"), r"mine\.vocab: line 2 has no word"),
    "empty vocabulary": (lambda w: counted(w, words=""), r"mine\.vocab: the file is empty"),
    "short vocabulary": (lambda w: counted(w, words="the\ncat\ndog\n"), r"line 3 has the word id 4, .* 3 words"),
    "undecodable": (lambda w: counted(w, b"a 1:1\n\xff 2:1\n"), r"mine\.feat: byte 6 \(line 2\) is not utf-8"),
    "a folder": (lambda w: CountFile(str(w("x", "").parent), "v"), "is a folder; give a file"),
    "too few": (lambda w: counted(w, "a 1:1\n"), r"mine\.feat: no document for the \w+ split \(found 1 in all\)"),
    "first id": (lambda w: counted(w, first_id=2), "first_id is 2; ids of words begin at 1 or at 0"),
    "first field": (lambda w: counted(w, first_field="class"), "first_field is 'class'; give label, ignored, absent"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_with_the_cure(case: str, write: Write) -> None:
    build, message = CASES[case]
    with pytest.raises(CorpusError, match=message) as raised:
        build(write)
    assert "\n" not in str(raised.value)


def test_unusual_white_space_separates_like_any_other(write: Write) -> None:
    given = {name: str(write(name, "a 1:1\n")) for name in ("valid", "test")}
    corpus = counted(write, "a\t1:1\u00a02:1 \x0b 3:1\n", **given)
    assert corpus.train.batch(np.array([0])).counts.tolist() == [[1, 1, 1, 0]]


def test_a_command_line_names_the_reader_by_its_short_name(write: Write) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Corpus, "corpus")
    path, words = str(write("mine.feat", LINES.replace("4:", "0:"))), str(write("v", WORDS))
    arguments = ["--corpus=CountFile", f"--corpus.path={path}", f"--corpus.vocabulary={words}", "--corpus.first_id=0"]
    corpus = parser.instantiate(parser.parse_args(arguments)).corpus
    assert isinstance(corpus, CountFile) and len(corpus.vocabulary) == 4 and corpus.train.labels is not None


def test_content_words_begin_with_a_letter_and_say_something() -> None:
    found = content_words("The 3 Tensors of `torch.nn` aren't x: see 1,000 non-negative ones, e.g. *this* _one.")
    assert found == ["tensors", "torch.nn", "non-negative", "ones"]
    assert all(word == word.lower() for word in STOP)


def test_bags_count_the_words_of_a_stream() -> None:
    split, names = bags(iter([["b", "a", "b"], [], ["a"]]))
    assert names == ["b", "a"] and isinstance(split, CountSplit)
    assert split.batch(np.arange(3)).counts.tolist() == [[2, 1], [0, 0], [0, 1]]
    nothing, names = bags([])
    assert names == [] and len(nothing) == 0 and len(bags([[], []])[0]) == 2
