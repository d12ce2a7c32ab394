"""Gold trees beside the words: what becomes of punctuation, which spans are kept, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pyro_nlp.data import CorpusError, ParsedTrees, TreeSplit
from pyro_nlp.data.trees import Constituent, read_parses

Write = Callable[[str, str | bytes], Path]

TREE = """
(ROOT (S
  (NP-SBJ (DT The) (`` ``) (NN dog) ('' '') (PRN (-LRB- -LRB-) (-RRB- -RRB-)))
  (VP (VBD saw) (NP (NP-TMP (CD 1,250) (NNS cats))) (PP (IN at) (NP (NN noon))))
  (. .)))
"""


def folder(write: Write, train: str = TREE, dev: str = TREE, test: str = TREE) -> Path:
    for name, text in (("train", train), ("dev", dev), ("test", test)):
        path = write(f"my.{name}.ptb", text)
    return path.parent


def test_spans_are_of_the_words_that_are_left_and_each_has_its_outermost_label(write: Write) -> None:
    corpus = ParsedTrees(str(folder(write)))
    assert corpus.vocabulary.decode(corpus.train.words(0)) == ["the", "dog", "saw", "N", "cats", "at", "noon"]
    assert [corpus.tags[t] for t in corpus.train.tags] == ["DT", "NN", "VBD", "CD", "NNS", "IN", "NN"]
    assert corpus.test.gold == [
        [
            Constituent(0, 7, "ROOT"),
            Constituent(0, 2, "NP"),
            Constituent(2, 7, "VP"),
            Constituent(3, 5, "NP"),
            Constituent(5, 7, "PP"),
            Constituent(6, 7, "NP"),
        ]
    ]


def test_words_can_be_left_as_they_are(write: Write) -> None:
    corpus = ParsedTrees(str(folder(write)), punctuation=True, lowercase=False, numbers=False)
    words = corpus.vocabulary.decode(corpus.train.words(0))
    assert words[:4] == ["The", "``", "dog", "''"] and words[-1] == "." and "1,250" in words
    assert Constituent(4, 6, "PRN") in corpus.train.gold[0]


def test_short_sentences_leave_all_splits_and_long_ones_only_train(write: Write) -> None:
    short, pair = "(ROOT (NP (NN one) (. .)))\n", "(ROOT (NP (DT a) (NN b)))\n"
    path = str(folder(write, short + TREE + pair, short + pair, pair + short + TREE))
    corpus = ParsedTrees(path, max_length=3)
    assert [len(s) for s in (corpus.train, corpus.valid, corpus.test)] == [1, 1, 2] and corpus.dropped == 1
    assert corpus.test.gold[0] == [Constituent(0, 2, "ROOT")] and len(corpus.test.gold[1]) == 6
    assert len(ParsedTrees(path, min_length=1).valid) == 2
    with pytest.raises(CorpusError, match=r"my\.train\.ptb: line 3 has 7 words, the limit is 3; raise --corpus"):
        ParsedTrees(path, max_length=3, overlong="error")
    with pytest.raises(CorpusError, match="half a tree is none; give drop or error"):
        ParsedTrees(path, overlong="truncate")


def test_trees_follow_their_sentences_and_count_in_the_fingerprint(write: Write) -> None:
    trees = "".join(f"(ROOT (S (NP (DT x{i}) (NN y)) (VB z)))\n" for i in range(6))
    corpus = ParsedTrees(str(folder(write, trees, TREE + trees, TREE)))
    part = corpus.valid.take(np.array([3, 0]))
    assert isinstance(part, TreeSplit) and part.words(0) == corpus.valid.words(3)
    assert part.gold == [corpus.valid.gold[3], corpus.valid.gold[0]]
    flat = trees.replace("(NP (DT x0) (NN y)) (VB z)", "(DT x0) (NN y) (VB z)")
    other = ParsedTrees(str(folder(write, flat, TREE + trees, TREE)))
    assert np.array_equal(other.train.flat, corpus.train.flat) and other.fingerprint != corpus.fingerprint


def test_one_file_is_cut_by_a_hash_of_the_words(write: Write) -> None:
    path = str(write("all.mrg", "".join(f"( (NP (DT a) (NN n{i}x)) )\n" for i in range(80))))
    corpus = ParsedTrees(path, numbers=False)
    sizes = [len(s) for s in (corpus.train, corpus.valid, corpus.test)]
    assert sum(sizes) == 80 and min(sizes) > 0
    assert all(found == [Constituent(0, 2, "")] for found in corpus.train.gold)  # the bracket without a label is outer


CASES = {
    "not closed": (
        "\n(ROOT (S (NN a) (NN b))\n",
        r"my\.dev\.ptb: the tree that begins on line 2 is not closed",
    ),
    "not open": ("(ROOT (NN a) (NN b)))\n", r"my\.dev\.ptb: line 1: '\)' closes a bracket that is not open; repair"),
    "a word after a bracket": ("(S (NN a) b)\n", r"my\.dev\.ptb: line 1: 'b' stands where no word can"),
    "single words only": ("(ROOT (NN a))\n", r"no sentence for the valid split"),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_file_is_one_line_with_the_cure(case: str, write: Write) -> None:
    content, message = CASES[case]
    with pytest.raises(CorpusError, match=message) as raised:
        ParsedTrees(str(folder(write, dev=content)))
    assert "\n" not in str(raised.value)


def test_a_file_of_single_words_says_that_they_are_left_out(write: Write) -> None:
    with pytest.raises(CorpusError, match=r"my\.ptb: none of 2 sentences has 2 words; give longer ones, or lower"):
        ParsedTrees(str(write("my.ptb", "(ROOT (NN a))\n(ROOT (NN b))\n")))


def test_a_folder_without_the_three_files_is_refused(write: Write) -> None:
    path = write("my.train.ptb", TREE).parent
    with pytest.raises(CorpusError, match=r"needs exactly one file \*dev\*\.ptb, found none"):
        ParsedTrees(str(path))


def test_gum_has_its_trees_and_no_punctuation(published: Callable[[str], str]) -> None:
    path = published("gum_const")
    files = {name: list(read_parses(Path(path) / f"gum.{name}.ptb")) for name in ("train", "dev", "test")}
    assert [len(trees) for trees in files.values()] == [7_189, 969, 898]
    corpus = ParsedTrees(path, min_count=2, max_length=30)
    assert not {".", ",", "-LRB-", "HYPH"} & set(corpus.tags) and {"NN", "SYM"} < set(corpus.tags)
    assert corpus.train.lengths.max() == 31 and corpus.test.lengths.max() > 100
    for split in (corpus.train, corpus.valid, corpus.test):
        for length, gold in zip((split.lengths - 1).tolist(), split.gold, strict=True):
            assert gold[0][:2] == (0, length)
            assert all(0 <= start < end <= length for start, end, _ in gold)
            assert len({span[:2] for span in gold}) == len(gold) <= 2 * length - 1
