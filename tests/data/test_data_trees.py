"""Bracketed Penn trees: what is read, what is dropped, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pyro_nlp.data import BracketedTrees, CorpusError
from pyro_nlp.data.trees import read_trees

Write = Callable[[str, str | bytes], Path]

TREE = """
( (S
    (NP-SBJ (NNP Mr.) (NNP Vinken) )
    (VP (VBZ is)
      (S (NP-SBJ (-NONE- *-1) ) (NP-PRD (NN chairman) )))
    (. .) ))
"""


def test_leaves_are_words_with_tags_and_traces_are_dropped(write: Write) -> None:
    path = write("t.mrg", TREE + "( (NP (-NONE- *) ))\n((NN word)(. ?))(UH oh)\n")
    assert list(read_trees(path)) == [
        (2, ["Mr.", "Vinken", "is", "chairman", "."], ["NNP", "NNP", "VBZ", "NN", "."]),
        (8, ["word", "?"], ["NN", "."]),
        (8, ["oh"], ["UH"]),
    ]


def test_lines_that_go_on_with_a_tree_need_no_indent_where_none_has_one(write: Write) -> None:
    trees = list(read_trees(write("t.mrg", "(S\n(NN a)\n(NN b))\n" * 2)))
    assert [(line, words) for line, words, _ in trees] == [(1, ["a", "b"]), (4, ["a", "b"])]


def test_the_file_is_cut_by_hash_so_that_copies_stay_together(write: Write) -> None:
    trees = "".join(f"( (S (DT The) (NN x{i}) ))\n" for i in range(80))
    once, twice = (BracketedTrees(str(write(f"{n}.mrg", trees * n)), lowercase=True) for n in (1, 2))
    assert once.tags == ("DT", "NN") and once.vocabulary.words[4] == "the"
    for a, b in zip((once.train, once.valid, once.test), (twice.train, twice.valid, twice.test), strict=True):
        assert 2 * len(a) == len(b) > 0
        assert a.tags is not None and a.tags.tolist() == [0, 1] * len(a)


CASES = {
    "not closed": ("((NN a))\n(S (NN b)\n (NN c)", r"bad\.mrg: the tree that begins on line 2 is not closed; repair"),
    "merged": (
        "((NN a))\n(S (NN b)\n(S (NN c)))\n",
        r"bad\.mrg: line 3 begins a tree, and that of line 2 is not closed; repair the brackets of that tree, or ind",
    ),
    "in a leaf": ("((NN a))\n(S (NN dog (VB ran)))", r"bad\.mrg: line 2: '\(' follows the word 'dog'; each word is a"),
    "no word": ("((NN a)\n (NN))", r"bad\.mrg: line 2: \(NN\) has no word; each word is a leaf"),
    "not open": ("((NN a)))\n", r"bad\.mrg: line 1: '\)' closes a bracket that is not open; repair"),
    "text": ("A sentence.\n", r"bad\.mrg: line 1: 'A' stands where no word can; each word is a leaf"),
    "three in a leaf": ("\n(NN two words)", r"bad\.mrg: line 2: 'words' stands where no word can"),
    "no words": ("((-NONE- *))", r"bad\.mrg: no sentence for the train split \(found 0 in all\)"),
    "empty": ("", r"bad\.mrg: the file is empty"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_file_is_one_line_with_the_cure(case: str, write: Write) -> None:
    content, message = CASES[case]
    with pytest.raises(CorpusError, match=message) as raised:
        BracketedTrees(str(write("bad.mrg", content)))
    assert "\n" not in str(raised.value)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="is a folder; give a file of bracketed trees"):
        BracketedTrees(str(tmp_path))


def test_the_published_sample_has_its_sentences_and_forty_five_tags(published: Callable[[str], str]) -> None:
    corpus = BracketedTrees(published("wsj_sample/wsj_sample.mrg"))
    splits = (corpus.train, corpus.valid, corpus.test)
    assert sum(map(len, splits)) == 3_914 and sum(s.tokens - len(s) for s in splits) == 94_084
    assert len(corpus.tags) == 45 and "-NONE-" not in corpus.tags
    first = corpus.vocabulary.encode(["Mr.", "Vinken", "is", "chairman", "of", "Elsevier", "N.V."])
    assert any(np.array_equal(s.words(i)[:7], first) for s in splits for i in range(3))
