import re
from collections import Counter

import numpy as np
import pytest

from pyro_nlp.data import BOS, EOS, PAD, UNK, Vocabulary, WordList


def test_words_come_by_falling_count_and_then_alphabetically() -> None:
    vocabulary = Vocabulary.from_counts(Counter({"b": 2, "a": 2, "z": 5, "rare": 1}), min_count=2)
    assert vocabulary.words == ("<pad>", "<s>", "</s>", "<unk>", "z", "a", "b")
    assert [vocabulary.words.index(w) for w in ("<pad>", "<s>", "</s>", "<unk>")] == [PAD, BOS, EOS, UNK]


def test_max_size_counts_the_special_symbols() -> None:
    vocabulary = Vocabulary.from_counts({"a": 3, "b": 2, "c": 1}, max_size=6)
    assert len(vocabulary) == 6 and vocabulary.words[4:] == ("a", "b")
    with pytest.raises(ValueError, match="special symbols"):
        Vocabulary.from_counts({"a": 3}, max_size=3)


def test_a_text_cannot_inject_special_ids() -> None:
    vocabulary = Vocabulary.from_counts({"<unk>": 9, "<s>": 9, "<pad>": 9, "</s>": 9, "a": 1})
    assert len(vocabulary) == 5
    assert vocabulary.encode(["<pad>", "<s>", "</s>", "<unk>", "a", "new"]).tolist() == [3, 3, 3, 3, 4, 3]


def test_encode_gives_int32_and_decode_inverts_it_up_to_the_end_of_sentence() -> None:
    vocabulary = Vocabulary(["a", "b"])
    ids = vocabulary.encode(["a", "b", "a"])
    assert ids.dtype == np.int32
    assert vocabulary.decode([BOS, *ids, UNK, EOS, PAD, 4]) == ["a", "b", "a", "<unk>"]
    assert vocabulary.decode([PAD, BOS]) == [] and len(vocabulary.encode([])) == 0


def test_json_round_trip_and_equality() -> None:
    vocabulary = Vocabulary(["naïve", '"', "\n"])
    again = Vocabulary.from_json(vocabulary.to_json())
    assert again == vocabulary and hash(again) == hash(vocabulary)
    assert vocabulary != Vocabulary(["naïve"]) and vocabulary != vocabulary.words
    assert "naïve" in vocabulary and "<s>" not in vocabulary and "other" not in vocabulary


@pytest.mark.parametrize("text", ["{}", '["a", "b"]', "3"])
def test_other_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a vocabulary"):
        Vocabulary.from_json(text)


def test_a_repeated_word_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=re.escape("'b' occurs twice")):
        Vocabulary(["a", "b", "b"])


def test_a_word_list_has_ids_from_zero_and_no_special_symbols() -> None:
    words = WordList(["b", "<unk>", "</s>", "a"])
    assert len(words) == 4 and words.words == ("b", "<unk>", "</s>", "a") and "<unk>" in words
    assert words.decode(np.array([2, 0, 3, 0])) == ["</s>", "b", "a", "b"]
    ids = words.encode(["a", "new", "b"])
    assert ids.tolist() == [3, 0] and ids.dtype == np.int32 and len(words.encode(["new"])) == 0
    assert repr(words) == "WordList(4 words: b, <unk>, </s>, a, ...)"


def test_a_word_list_of_counts_is_as_long_as_its_bound() -> None:
    counts = {"b": 2, "a": 2, "z": 5, "rare": 1, "<s>": 3}
    assert WordList.from_counts(counts, min_count=2).words == ("z", "<s>", "a", "b")
    assert WordList.from_counts(counts, max_size=1).words == ("z",)


def test_a_word_list_survives_json_and_differs_from_a_vocabulary_of_the_same_entries() -> None:
    words = WordList(["naïve", '"', "\n"])
    again = WordList.from_json(words.to_json())
    assert again == words and hash(again) == hash(words) and isinstance(again, WordList)
    assert words != WordList(["naïve"])
    vocabulary = Vocabulary(["a"])
    assert WordList(vocabulary.words) != vocabulary and vocabulary != WordList(vocabulary.words)


@pytest.mark.parametrize("text", ["{}", "[1, 2]", "3"])
def test_json_that_is_no_list_of_words_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a word list"):
        WordList.from_json(text)


def test_a_repeated_word_of_a_word_list_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'b' occurs twice"):
        WordList(["a", "b", "b"])
