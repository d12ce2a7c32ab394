"""Corpora of pairs: the published ones (where PYRO_NLP_DATA has them), the built-in one, and a user's file."""

import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from pyro_nlp.data import (
    Corpus,
    CorpusError,
    NamedDocstrings,
    PairCorpus,
    PairFile,
    PairSplit,
    TrecQA,
    WikiQA,
    read_vectors,
)
from pyro_nlp.data.named_docstrings import name_words

Published = Callable[[str], str]
Write = Callable[[str, str | bytes], Path]


def splits(corpus: PairCorpus) -> tuple[PairSplit, PairSplit, PairSplit]:
    return corpus.train, corpus.valid, corpus.test


def seconds(split: PairSplit, label: int | None = None) -> set[tuple[int, ...]]:
    rows = np.arange(len(split)) if label is None or split.labels is None else np.flatnonzero(split.labels == label)
    return {tuple(split.second.words(int(i))) for i in rows}


def text(corpus: PairCorpus, split: PairSplit, row: int) -> tuple[str, str]:
    texts = split.first.words(int(split.group[row])), split.second.words(row)
    first, second = (" ".join(corpus.vocabulary.decode(words)) for words in texts)
    return first, second


# published corpora


def test_wikiqa_has_the_published_counts(published: Published) -> None:
    folder = published("wikiqa")
    corpus = WikiQA(folder, min_count=1)
    assert [len(s) for s in splits(corpus)] == [20_360, 2_733, 6_165]
    assert [len(s.first) for s in splits(corpus)] == [2_118, 296, 633]
    assert [len(s.answered) for s in splits(corpus)] == [873, 126, 243]
    assert [int((s.labels == 1).sum()) for s in splits(corpus) if s.labels is not None] == [1_040, 140, 293]
    assert (corpus.truncated, corpus.dropped) == (26, 0) and corpus.train.lengths.max() == 101
    answer = "a partly submerged glacier cave on perito moreno glacier ."
    assert text(corpus, corpus.train, 0) == ("how are glacier caves formed ?", answer)
    assert corpus.tokenise("How are GLACIERS formed ?")[2] == "glaciers"


def test_a_users_question_is_read_as_the_corpus_was(published: Published) -> None:
    trec = TrecQA(published("trecqa"), train="train")
    asked = 'Who is the author of the book, "The Iron Lady: A Biography of Margaret Thatcher"?'
    first = Path(published("trecqa"), "train", "a.toks").read_text("utf-8").splitlines()[0]
    assert trec.tokenise(asked) == first.split()
    assert trec.tokenise("It's (almost) [sic].") == [
        "it",
        "'s",
        "-lrb-",
        "almost",
        "-rrb-",
        "-lsb-",
        "sic",
        "-rsb-",
        ".",
    ]
    wiki = WikiQA(published("wikiqa"))
    assert wiki.tokenise("How are glacier caves formed?") == ["how", "are", "glacier", "caves", "formed", "?"]
    assert WikiQA(published("wikiqa"), lowercase=False).tokenise("(So?)") == ["(", "So", "?", ")"]
    for corpus, least in ((trec, 0.98), (wiki, 0.99)):  # what was read already stays as it is
        files = sorted(Path(published("trecqa"), "train").glob("?.toks"))
        if corpus is wiki:
            files = [Path(published("wikiqa"), "WikiQA-train.txt")]
        texts = {t for file in files for line in file.read_text("utf-8").splitlines() for t in line.split("\t")[:2]}
        same = [corpus.tokenise(text) == text.lower().split() for text in texts]
        assert sum(same) >= least * len(same)


def test_the_filtered_judgements_are_the_answered_questions_that_have_a_wrong_answer_too(published: Published) -> None:
    folder = Path(published("wikiqa"))
    corpus = WikiQA(str(folder))
    for split, name, count in ((corpus.valid, "dev", 122), (corpus.test, "test", 237)):
        assert split.labels is not None
        # questions are numbered from 1 in the order of the file
        filtered = (folder / f"WikiQA-{name}-filtered.ref").read_text().splitlines()
        mixed = np.intersect1d(split.answered, split.group[split.labels == 0])
        assert len(mixed) == count and len(split.of_groups(mixed)) == len(filtered)
        assert (mixed + 1).tolist() == sorted({int(line.split()[0]) for line in filtered})


def test_wikiqa_keeps_capitals_and_long_candidates_when_told_to(published: Published) -> None:
    folder = published("wikiqa")
    cased = WikiQA(folder, lowercase=False, max_length=None)
    assert text(cased, cased.train, 0)[1].startswith("A partly submerged") and cased.train.lengths.max() == 237
    assert WikiQA(folder, overlong="drop").dropped == 26
    with pytest.raises(
        CorpusError, match=r"WikiQA-train\.txt: line \d+ has a second text of \d+ words, the limit is 9"
    ):
        WikiQA(folder, max_length=9, overlong="error")


@pytest.mark.parametrize(("train", "test"), [*product(("train", "train-all"), ("raw", "clean"))])
def test_trecqa_has_the_published_counts(published: Published, train: str, test: str) -> None:
    corpus = TrecQA(published("trecqa"), train, test)  # type: ignore[arg-type]
    sizes = (
        {"train": (4_718, 93), "train-all": (53_417, 1_229)}[train],
        *{
            "raw": ((1_148, 81), (1_517, 95)),
            "clean": ((1_117, 65), (1_442, 68)),
        }[test],
    )
    assert [(len(s), len(s.first)) for s in splits(corpus)] == list(sizes)
    assert corpus.truncated == (55 if train == "train-all" else 0) and corpus.dropped == 0
    for split in splits(corpus)[1:] if test == "clean" else ():  # every question has right and wrong answers
        assert split.labels is not None and len(split.answered) == len(split.first)
        assert len(np.unique(split.group[split.labels == 0])) == len(split.first)


def test_right_answers_of_trecqa_stand_first_so_that_order_says_what_a_model_should(published: Published) -> None:
    for split in splits(TrecQA(published("trecqa"), "train"))[1:]:
        assert split.labels is not None
        for group in range(len(split.first)):
            labels = split.labels[split.of_groups(np.array([group]))]
            assert (np.diff(labels) <= 0).all()


def test_the_words_of_a_published_corpus_find_their_vectors(published: Published, write: Write) -> None:
    corpus = WikiQA(published("wikiqa"))
    most = corpus.vocabulary.words[4:104]
    path = write("v.txt", "".join(f"{word} {i} 0.5\n" for i, word in enumerate(most)))
    vectors = read_vectors(path, corpus.vocabulary)
    assert int(vectors.known.sum()) == 100 and vectors.table[4:104, 0].tolist() == list(range(100))


# files of the published forms, with something wrong


def wiki(folder: Path, question: str = "q", **wrong: str) -> Callable[[], Corpus]:
    """A small WikiQA in `folder`, the named files of train replaced."""
    for name in ("train", "dev", "test"):
        (folder / f"WikiQA-{name}.txt").write_text("who ?\tI am .\t1\nwho ?\tno\t0\nwhy ?\tso\t0\n")
        (folder / f"WikiQA-{name}.ref").write_text("7 0 0 1\n7 0 1 0\n9 0 0 0\n")
    for name, content in wrong.items():
        (folder / f"WikiQA-train.{name}").write_text(content)
    return lambda: WikiQA(str(folder))


def trec(folder: Path, **wrong: str) -> Callable[[], Corpus]:
    """A small TREC QA in `folder`, the named files of train-all replaced."""
    for part in ("train-all", "raw-dev", "raw-test"):
        (folder / part).mkdir()
        for name, content in {
            "a.toks": "q\nq\n",
            "b.toks": "a\nb\n",
            "sim.txt": "0\n1\n",
            "id.txt": "1.1\n1.1\n",
        }.items():
            (folder / part / name).write_text(content)
    for name, content in wrong.items():
        (folder / "train-all" / f"{name}.{'toks' if len(name) == 1 else 'txt'}").write_text(content)
    return lambda: TrecQA(str(folder))


PUBLISHED_BAD: dict[str, tuple[Callable[[Path], Callable[[], object]], str]] = {
    "text is shorter": (
        lambda d: wiki(d, txt="who ?\tI am .\t1\nwho ?\tno\t0\n"),
        r"WikiQA-train\.ref: line 3 judges a candidate that is not in WikiQA-train\.txt, which has 2 lines; take both",
    ),
    "judgements are shorter": (
        lambda d: wiki(d, ref="7 0 0 1\n"),
        r"train\.txt: line 2 has a candidate that is not judged in WikiQA-train\.ref.*not the -filtered\.ref",
    ),
    "labels disagree": (
        lambda d: wiki(d, ref="7 0 0 1\n7 0 1 1\n9 0 0 0\n"),
        r"train\.txt: line 2 has the label 0, and WikiQA-train\.ref has 1; take both",
    ),
    "no such label": (
        lambda d: wiki(d, txt="who ?\tI\t2\n"),
        r"train\.txt: line 1 has the label '2'; it must be 0 or 1",
    ),
    "two fields": (lambda d: wiki(d, txt="who ?\tI am .\n"), r"train\.txt: line 1 has 2 fields; it should be question"),
    "not judgements": (lambda d: wiki(d, ref="7 0 1\n"), r"train\.ref: line 1 has 3 fields; it should be question, 0"),
    "number changes alone": (
        lambda d: wiki(d, ref="7 0 0 1\n8 0 1 0\n9 0 0 0\n"),
        r"line 2: the question number changes and its text does not \(WikiQA-train\.ref: 8\)",
    ),
    "text changes alone": (
        lambda d: wiki(d, ref="7 0 0 1\n7 0 1 0\n7 0 0 0\n"),
        r"line 3: the text of the question changes and its number does not",
    ),
    "number comes again": (
        lambda d: wiki(d, txt="a\tb\t1\nc\td\t0\ne\tf\t0\n", ref="7 0 0 1\n8 0 0 0\n7 0 0 0\n"),
        r"line 3: group '7' has the first text 'e' here and 'a' before",
    ),
    "no candidate": (
        lambda d: wiki(d, txt="who ?\t \t0\n", ref="7 0 0 0\n"),
        r"train\.txt: line 1: question 7 has an empty candidate; a question without candidates cannot be ranked: take",
    ),
    "no question": (lambda d: wiki(d, txt="\tx\t1\n", ref="7 0 0 1\n"), r"train\.txt: line 1 has no question; take"),
    "a file for the folder": (lambda d: lambda: WikiQA(str(_file(d))), r"f\.txt: is a file; give the folder"),
    "a side is shorter": (
        lambda d: trec(d, b="a\n"),
        r"train-all/b\.toks: has 1 lines, fewer than the files beside it",
    ),
    "no such judgement": (lambda d: trec(d, sim="0\n3\n"), r"sim\.txt: line 2 has the label '3'; it must be 0 or 1"),
    "an empty side": (lambda d: trec(d, b="a\n\n"), r"b\.toks: line 2 is empty; take it out of all four files"),
    "two questions of one number": (
        lambda d: trec(d, a="q\nr\n"),
        r"a\.toks: line 2: group '1\.1' has the first text 'r'",
    ),
    "no such set": (lambda d: lambda: TrecQA(test="dev"), "test is 'dev'; give raw or clean"),  # type: ignore[arg-type]
}


def _file(folder: Path) -> Path:
    (folder / "f.txt").write_text("x")
    return folder / "f.txt"


@pytest.mark.parametrize("name", PUBLISHED_BAD)
def test_files_that_do_not_fit_each_other_end_in_one_line(name: str, tmp_path: Path) -> None:
    make, message = PUBLISHED_BAD[name]
    with pytest.raises(CorpusError, match=message) as error:
        make(tmp_path)()
    assert "\n" not in str(error.value)


def test_questions_of_one_text_and_two_numbers_stay_two(tmp_path: Path) -> None:
    corpus = trec(tmp_path, a="q\nr\nq\n", b="a\nb\nc\n", sim="0\n1\n1\n", id="1\n2\n3\n")()
    assert isinstance(corpus, TrecQA) and len(corpus.train.first) == 3
    shutil.rmtree(tmp_path / "raw-dev")
    with pytest.raises(CorpusError, match=r"raw-dev/a\.toks: No such file"):
        TrecQA(str(tmp_path))


# the built-in corpus


@pytest.fixture(scope="module")
def stdlib(session_home: Path) -> NamedDocstrings:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYRO_NLP_HOME", str(session_home))
        return NamedDocstrings(["stdlib"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("set_default_dtype", "set default dtype"),
        ("Zoo.getHTMLPage", "get html page"),
        ("HTMLParser.__init__", "init"),
        ("MaxPool2DLayer", "max pool2d layer"),
        ("Conv2d", "conv2d"),
        ("utf8_decode", "utf8 decode"),
        ("Http2Server", "http2 server"),
        ("_", ""),
        ("", ""),
    ],
)
def test_a_name_is_split_into_its_words(name: str, words: str) -> None:
    assert name_words(name) == words.split()


def test_every_question_has_one_right_answer_at_any_place(stdlib: NamedDocstrings) -> None:
    assert stdlib.labels == ("wrong", "right") and stdlib.left_out > 0 and stdlib.dropped > 0
    assert sum(len(s.first) for s in splits(stdlib)) > 5_000
    for split in splits(stdlib):
        assert split.labels is not None
        right = np.bincount(split.group, split.labels)
        assert np.array_equal(right, np.ones(len(split.first)))
        candidates = np.bincount(split.group)
        assert candidates.min() >= 3 and candidates.max() == 10
    # a place among ten: uniform, within four standard errors
    split = stdlib.train
    starts = np.concatenate([[0], np.bincount(split.group).cumsum()])
    full = np.flatnonzero(np.diff(starts) == 10)
    assert split.labels is not None
    places = np.array([split.labels[starts[g] : starts[g + 1]].argmax() for g in full])
    assert abs(places.mean() - 4.5) < 4 * (99 / 12 / len(full)) ** 0.5


def test_no_answer_stands_on_two_sides(stdlib: NamedDocstrings) -> None:
    # at a count of 1 few words are unknown, so that different answers do not look alike
    corpus = NamedDocstrings(["stdlib"], min_count=1)
    unknown = {w for s in splits(corpus) for w in seconds(s) if 3 in w}
    train, valid, test = (seconds(s) - unknown for s in splits(corpus))
    assert len(valid) > 20 and len(test) > 20
    assert not train & valid and not train & test and not valid & test
    assert seconds(corpus.train, 0) - unknown <= seconds(corpus.train, 1) | train


def test_wrong_answers_follow_the_seed_and_the_bound(stdlib: NamedDocstrings) -> None:
    assert NamedDocstrings(["stdlib"]).fingerprint == stdlib.fingerprint
    assert NamedDocstrings(["stdlib"], seed=1).fingerprint != stdlib.fingerprint
    few = NamedDocstrings(["stdlib"], candidates=2)
    assert np.bincount(few.train.group).max() == 2 and len(few.train.first) == len(stdlib.train.first)


@pytest.fixture
def beasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An importable package of many modules of three functions, and one module of two."""
    folder = tmp_path / "site" / "zoo_of_beasts"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text('"""A zoo of many beasts."""\n')
    names = ("feedBeast", "wash_beast", "count_all")
    for i in range(60):
        made = (f'def {name}():\n    """Take care of beast x{i}{name} here."""\n' for name in names)
        (folder / f"m{i}.py").write_text("".join(made))
    copy = 'def other():\n    """Take care of beast x0feedBeast here."""\n'
    pair = 'def one():\n    """The first of the two."""\ndef two():\n    """The second of the two."""\n'
    (folder / "small.py").write_text(copy + pair)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("PYRO_NLP_HOME", str(tmp_path / "home"))
    return folder.name


def test_questions_of_small_modules_are_left_out_and_copies_kept_once(beasts: str) -> None:
    corpus = NamedDocstrings([beasts], min_count=1)
    # one and two have one other answer each; the copy in their module belongs to m0, which is read before
    assert corpus.left_out == 2
    assert sum(len(s.first) for s in splits(corpus)) == 180 and sum(len(s) for s in splits(corpus)) == 540
    assert {text(corpus, corpus.train, i)[0] for i in range(9)} == {"feed beast", "wash beast", "count all"}


def test_without_wrong_answers_these_are_sources_and_targets_either_way_round(beasts: str) -> None:
    plain = NamedDocstrings([beasts], min_count=1, wrong=False)
    assert plain.labels == () and plain.train.labels is None and plain.left_out == 0
    assert sum(len(s) for s in splits(plain)) == 182 and len(plain.train) == len(plain.train.first)
    back = NamedDocstrings([beasts], min_count=1, wrong=False, reverse=True)
    assert [len(s) for s in splits(back)] == [len(s) for s in splits(plain)]
    first = text(plain, plain.train, 0)
    assert text(back, back.train, 0) == first[::-1] and first[1].startswith("take care of beast")
    both = NamedDocstrings([beasts], min_count=1, reverse=True)
    assert both.train.labels is not None and np.bincount(both.train.group).tolist() == [3] * len(both.train.first)


def test_what_names_cannot_be_asked_for_is_refused() -> None:
    for options, message in (
        ({"candidates": 1}, "candidates is 1; it must be at least 2"),
        ({"packages": []}, "packages is an empty list"),
        ({"min_count": 0}, "min_count is 0"),
        ({"packages": ["no_such_thing"]}, "no_such_thing"),
    ):
        with pytest.raises(CorpusError, match=message):
            NamedDocstrings(**options)


# a user's file

LINES = "".join(f"Who is x{i}?\tIt is {w} x{i}.\t{n}\n" for n, w in enumerate(("not", "surely")) for i in range(60))


def test_a_file_of_pairs_is_cut_so_that_a_question_stays_on_one_side(write: Write) -> None:
    corpus = PairFile(str(write("mine.tsv", LINES + "\n  \n")), min_count=1)
    assert corpus.name == "mine" and corpus.labels == ("wrong", "right")
    assert sum(len(s) for s in splits(corpus)) == 120 and sum(len(s.first) for s in splits(corpus)) == 60
    for split in splits(corpus):  # the two candidates stand 60 lines apart
        assert np.bincount(split.group).tolist() == [2] * len(split.first) == [2] * len(split.answered)
    assert text(corpus, corpus.train, 0) == ("who is x0 ?", "it is not x0 .")


def test_a_file_without_labels_holds_sources_and_targets(write: Write) -> None:
    lines = "".join(line.rpartition("\t")[0] + "\n" for line in LINES.splitlines())
    corpus = PairFile(str(write("mine.tsv", lines)), min_count=1)
    assert corpus.labels == () and corpus.train.labels is None
    labelled = PairFile(str(write("other.tsv", LINES)), min_count=1)
    assert corpus.vocabulary == labelled.vocabulary and corpus.fingerprint != labelled.fingerprint
    assert np.array_equal(corpus.train.group, labelled.train.group)


def test_given_splits_are_kept_and_may_have_pairs_of_unknown_class(write: Write) -> None:
    valid = str(write("v.tsv", "Who is x1?\tNobody.\nwho is X1 ?\tMe.\t1\n"))
    corpus = PairFile(str(write("mine.tsv", LINES)), valid=valid)
    assert len(corpus.valid.first) == 1 and corpus.valid.labels is not None
    assert corpus.valid.labels.tolist() == [-1, 1] and len(corpus.train) + len(corpus.test) == 120
    whole = PairFile(str(write("mine.tsv", LINES)), valid=valid, test=valid, tokeniser="whitespace")
    assert len(whole.train) == 120 and len(whole.valid.first) == 2


USER_BAD: dict[str, tuple[str, str]] = {
    "one field": ("no tab here\n", "line 121 has 1 field; it should be two texts with a tab between them"),
    "four fields": ("a\tb\t1\tc\n", "line 121 has 4 fields; it should be two texts"),
    "empty question": (" \tb\t1\n", r"line 121 has an empty question \(first field\); give it words"),
    "empty candidate": ("a\t\t1\n", r"line 121 has an empty candidate \(second field\); give it words"),
    "bad label": ("a\tb\tyes\n", "line 121 has the label 'yes'; the third field must be 1 for a right"),
    "no label": ("a\tb\n", "line 121 has no label, and the first line of train has one; give every line"),
    "empty label": ("a\tb\t\n", "line 121 has no label, and the first line"),
    "overlong": (f"a\t{'b ' * 101}\t1\n", "line 121 has a second text of 101 words, the limit is 100; raise"),
}


@pytest.mark.parametrize("name", USER_BAD)
def test_a_bad_line_is_named_with_its_cure(name: str, write: Write) -> None:
    line, message = USER_BAD[name]
    with pytest.raises(CorpusError, match=rf"mine\.tsv: {message}") as error:
        PairFile(str(write("mine.tsv", LINES + line)))
    assert "\n" not in str(error.value)


def test_other_bad_files_end_in_one_line(write: Write, tmp_path: Path) -> None:
    plain = "".join(f"a{i}\tb\n" for i in range(60))
    with pytest.raises(CorpusError, match=r"m\.tsv: line 61 has a label \('1'\), and the first line of train has none"):
        PairFile(str(write("m.tsv", plain + "a\tb\t1\n")))
    labelled = str(write("v.tsv", "a\tb\t1\n"))
    with pytest.raises(CorpusError, match=r"v\.tsv: line 1 has a label .*take the third field out everywhere"):
        PairFile(str(write("m.tsv", plain)), valid=labelled)
    with pytest.raises(CorpusError, match="is a folder; give a file with a pair on each line"):
        PairFile(str(tmp_path))
    with pytest.raises(CorpusError, match=r"m\.tsv: the file is empty"):
        PairFile(str(write("m.tsv", "")))
    with pytest.raises(CorpusError, match=r"m\.tsv: no pair for the train split \(found 0 in all\)"):
        PairFile(str(write("m.tsv", "\n\n")))
