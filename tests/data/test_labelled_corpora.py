"""Sentences with a class: published corpora, a user's file, what cannot teach a classifier, shared sentences."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pyro_nlp.data import (
    SST,
    UNK,
    Corpus,
    CorpusError,
    LabelledLines,
    Polarity,
    TextCorpus,
    TextSplit,
    YelpStyle,
    class_counts,
    normalised,
    recode,
    require_classes,
    reread,
    without,
)
from pyro_nlp.data.sentiment_trees import read_phrases
from pyro_nlp.distributions.labelled import seen_labels

Published = Callable[[str], str]
Write = Callable[[str, str | bytes], Path]


def sizes(corpus: Corpus) -> list[int]:
    return [len(split) for split in (corpus.train, corpus.valid, corpus.test)]


@pytest.mark.parametrize(("classes", "published_sizes"), [(2, [6_920, 872, 1_821]), (5, [8_544, 1_101, 2_210])])
def test_sst_has_the_published_counts(published: Published, classes: int, published_sizes: list[int]) -> None:
    corpus = SST(published("sst"), classes=classes)  # type: ignore[arg-type]
    assert sizes(corpus) == published_sizes and len(corpus.labels) == classes
    assert corpus.labels[0].endswith("negative") and corpus.labels[-1].endswith("positive")
    assert corpus.texts["test"][0] == "no movement , no yuks , not much of anything ."
    assert corpus.test.labels is not None and corpus.test.labels[0] == (0 if classes == 2 else 1)
    first = corpus.vocabulary.decode(corpus.train.words(0))
    assert " ".join(first) == corpus.texts["train"][0]


def test_sst_can_be_trained_on_its_labelled_phrases(published: Published) -> None:
    plain, corpus = SST(published("sst")), SST(published("sst"), phrases=True)
    assert sizes(corpus) == [77_199, 872, 1_821]
    assert corpus.texts["test"] == plain.texts["test"] and len(set(corpus.texts["train"])) > 76_000
    judged = {*corpus.texts["test"], *corpus.texts["valid"]}
    assert not judged & set(corpus.texts["train"])
    assert set(plain.texts["train"]) - judged <= set(corpus.texts["train"])
    by_text = dict(zip(corpus.texts["train"], corpus.train.labels.tolist(), strict=True))  # type: ignore[union-attr]
    assert by_text["gorgeously"] == 1 and "the" not in by_text  # a neutral phrase has neither label


def test_polarity_is_cut_by_a_hash_and_no_sentence_stands_on_two_sides(published: Published) -> None:
    corpus = Polarity(published("polarity"))
    assert sum(sizes(corpus)) == 10_662 and sizes(corpus) == [8_498, 1_043, 1_121]
    total = sum(class_counts(split, 2) for split in (corpus.train, corpus.valid, corpus.test))
    assert total.tolist() == [5_331, 5_331]
    texts = [set(corpus.texts[name]) for name in ("train", "valid", "test")]
    assert not texts[0] & texts[1] and not texts[0] & texts[2] and not texts[1] & texts[2]


def test_yelp_is_split_again_as_its_files_share_sentences(published: Published) -> None:
    corpus = YelpStyle(published("yelp_style"))
    judged = set(corpus.texts["valid"]) | set(corpus.texts["test"])
    assert sizes(corpus) == [113_320, 31_899, 31_584] and corpus.shared == 126_670 - 113_320
    assert not judged & set(corpus.texts["train"]) and int(corpus.train.lengths.max()) <= 16


def test_four_fifths_of_sst_stand_in_polarity(published: Published) -> None:
    sst, polarity = SST(published("sst")), Polarity(published("polarity"))
    everywhere = [text for texts in polarity.texts.values() for text in texts]
    shared = {name: without(texts, everywhere)[1] for name, texts in sst.texts.items()}
    assert shared == {"train": 5_411, "valid": 691, "test": 1_431}
    assert sum(shared.values()) / sum(sizes(sst)) == pytest.approx(0.784, abs=5e-4)
    rows, removed = without(polarity.texts["train"], sst.texts["test"])
    assert removed == 1_145 and len(rows) == len(polarity.train) - removed
    left = {normalised(polarity.texts["train"][row]) for row in rows}
    assert not left & {normalised(text) for text in sst.texts["test"]}
    assert len(polarity.train.take(rows)) == len(rows)


def test_sst_cuts_sentences_of_polarity_in_two(published: Published) -> None:
    sst, polarity = SST(published("sst")), Polarity(published("polarity"))
    train = polarity.texts["train"]
    for parts, removed in ((3, 1_293), (4, 1_285), (5, 1_282)):
        rows, found = without(train, sst.texts["test"], parts)
        assert found == removed and len(rows) == len(train) - removed
    cut = without(train, sst.texts["test"], 4)[0]
    lost = set(without(train, sst.texts["test"])[0].tolist()) - set(cut.tolist())
    assert "the ending is a cop-out . what happens to john q ? i don't have an i am sam clue ." in {
        train[row] for row in lost
    }


@pytest.mark.parametrize(
    "other",
    ["a Film , n't it", "a film, n ' t it", 'A film "n\'t" it ...', "à film n't it"],
)
def test_a_sentence_is_the_same_however_it_was_tokenised(other: str) -> None:
    assert normalised("a film n't it") == normalised(other)
    assert without([other, "another film"], ["a film n't it ."])[0].tolist() == [1]


@pytest.mark.parametrize(
    ("text", "part", "words", "shared"),
    [
        ("Dull . No film for you .", "no film for you", 4, True),
        ("Dull . No film for you .", "no film for you", 5, False),
        ("Dull . No film for you .", "no film for yo", 4, False),
        ("Dull . No film for you .", "o film for you", 4, False),
        ("the century's worst film . truly", "The century 's worst film !", 4, True),
        ("you and me", "it is for you and me .", 3, True),
        ("you and me", "it is for you . and me .", 3, True),
        ("bad . bad", "bad", 1, True),
        ("...", "a . . . film", 1, False),
        ("no film", "for you", 1, False),
    ],
)
def test_a_part_is_a_run_of_whole_words_long_enough(text: str, part: str, words: int, shared: bool) -> None:
    for train, test in ((text, part), (part, text)):
        rows, removed = without([train, "another film"], [test], words)
        assert removed == shared and rows.tolist() == ([1] if shared else [0, 1])


def test_parts_do_not_run_over_from_one_text_into_the_next() -> None:
    assert without(["a film", "for you"], ["a film for you", "nothing else"], 2)[1] == 2
    assert without(["a film for you"], ["you there", "a film for"], 2)[1] == 1
    assert without(["x a film", "for you x"], ["a film for you"], 2)[1] == 0
    with pytest.raises(ValueError, match="parts is 0; give the least number of words that a part has, or None"):
        without(["a"], ["b"], 0)


def test_a_sentence_of_marks_alone_is_not_every_other() -> None:
    assert normalised("...") != normalised("! !") and normalised("! !") == normalised("!!")
    assert without([], ["a"])[0].dtype == np.int64


def test_another_corpus_is_read_by_the_vocabulary_of_the_model(write: Write) -> None:
    path = str(write("mine.tsv", "".join(f"{k}\tgood film {i}\n" for i in range(40) for k in "ab")))
    corpus = LabelledLines(path, path, path, separator="\t")
    split = reread(["good unheard film"], corpus, [1])
    assert corpus.vocabulary.decode(split.words(0)) == ["good", "<unk>", "film"] and split.labels is not None
    again = recode(split, corpus.vocabulary, corpus.vocabulary)
    assert again.words(0) == split.words(0) and split.words(0)[1] == UNK and again.labels is None


@pytest.mark.parametrize(
    ("corpus", "read"), [(SST, "it is n't ."), (YelpStyle, "it is n't ."), (Polarity, "it isn't .")]
)
def test_a_typed_sentence_is_read_as_the_corpus_was_tokenised(corpus: type[TextCorpus], read: str) -> None:
    assert corpus.tokenise("It isn't.") == read.split()


def test_an_unknown_word_is_read_as_one(write: Write) -> None:
    corpus = LabelledLines(str(write("my.txt", "".join(f"{i % 2} word {i} is here\n" for i in range(60)))), min_count=2)
    again = reread([" ".join(corpus.vocabulary.decode(corpus.train.words(row))) for row in range(9)], corpus)
    assert [again.words(row) for row in range(9)] == [corpus.train.words(row) for row in range(9)]
    assert UNK in again.flat


def test_a_users_file_of_label_and_text_is_read(write: Write) -> None:
    path = str(write("mine.tsv", "".join(f"{k}\tThe film, {k} {i}\n" for i in range(60) for k in ("bad", "good"))))
    corpus = LabelledLines(path, separator="\t", tokeniser="words")
    assert corpus.labels == ("bad", "good") and sum(sizes(corpus)) == 120
    assert corpus.vocabulary.decode(corpus.train.words(0))[:3] == ["the", "film", ","]


@pytest.mark.parametrize(
    ("separator", "bare"),
    [("\t", "\tthe film {}\n"), (None, "\tthe film {}\n"), (None, " \t the film {}\n"), (",", " ,the film {}\n")],
)
def test_a_line_that_begins_with_the_separator_has_no_label(write: Write, separator: str | None, bare: str) -> None:
    mark = separator or " "
    lines = "".join(f"good{mark}a film {i}\nbad{mark}no film {i}\n" + bare.format(i) for i in range(40))
    path = str(write("mine.txt", lines))
    corpus = LabelledLines(path, separator=separator)
    assert corpus.labels == ("bad", "good") and sum(sizes(corpus)) == 120
    for name in ("train", "valid", "test"):
        split = getattr(corpus, name)
        named = {text.split()[0]: label for text, label in zip(corpus.texts[name], split.labels.tolist(), strict=True)}
        assert named == {"a": 1, "no": 0, "the": -1}


def test_an_indented_label_is_still_one(write: Write) -> None:
    path = str(write("mine.txt", " 1 a film\n-1 no film\n\tthe film\n"))
    corpus = LabelledLines(path, path, path)
    assert corpus.labels == ("1", "-1") and corpus.train.labels is not None
    assert corpus.train.labels.tolist() == [0, 1, -1]


def test_a_model_sees_the_labels_that_there_are(write: Write) -> None:
    path = str(write("mine.tsv", "good\ta film\n\tthe film\nbad\tno film\n\tany film\n"))
    corpus = LabelledLines(path, path, path, separator="\t")
    seen = seen_labels(corpus.train.batch(np.arange(4)), 1.0)
    assert seen is not None and seen.tolist() == [1, -1, 0, -1]


@pytest.mark.parametrize(
    ("train", "valid", "message"),
    [
        ("\tx\n\ty\n", "\tx\n", "no document has a label"),
        ("a x\n\ty\n", "\tz\n", "all documents with a label are of one class, 'a'"),
        ("a x\nb y\n\tz\n", "c v\n\tw\n", r"the class 'c' stands in valid \(1 documents\) and never in train"),
        ("\tx\n\ty\n", "a z\n", "all documents with a label are of one class, 'a'"),
        ("\tx\n\ty\n", "a z\nb v\n", "the class 'a' stands in valid"),
        ("a x\na y\n", "a z\n", "all documents with a label are of one class, 'a'; give text of at least two classes"),
        ("a x\nb y\n", "a z\nc v\nc w\n", r"the class 'c' stands in valid \(2 documents\) and never in train; add"),
    ],
)
def test_a_file_that_cannot_teach_a_classifier_is_refused(write: Write, train: str, valid: str, message: str) -> None:
    first, second = str(write("train.txt", train)), str(write("valid.txt", valid))
    with pytest.raises(CorpusError, match=f"train.txt: {message}"):
        LabelledLines(first, second, first)


def test_a_corpus_whose_labels_are_all_unknown_is_refused(write: Write) -> None:
    path = str(write("mine.tsv", "a\tx\nb\ty\n"))
    corpus = LabelledLines(path, path, path, separator="\t")
    bare = TextSplit.from_sentences([[4], [5]], [-1, -1])
    corpus.train = corpus.valid = corpus.test = bare
    with pytest.raises(CorpusError, match="no document has a label; choose a corpus with labels, or a model that"):
        require_classes(corpus)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ("(3 (2 a) (7 film))", "line 2: '7' stands where a class, 0 to 4, should"),
        ("(3 (2 a) (4 film)", "line 2: the tree is not closed"),
        ("(3 (2 a) (4 film)))", "line 2: a bracket closes that is not open"),
        ("a (3 film)", "line 2: 'a' stands outside the tree"),
        ("(3 (2 a) (4))", "line 2: a bracket closes that is not open, or holds no word"),
    ],
)
def test_a_line_that_is_no_sentiment_tree_is_named(write: Write, tree: str, message: str) -> None:
    path = write("trees.txt", f"(2 (2 A) (3 film))\n{tree}\n")
    with pytest.raises(CorpusError, match=message.replace("(", r"\(").replace(")", r"\)")):
        list(read_phrases(path))


def test_phrases_are_the_nodes_of_a_tree_lower_cased(write: Write) -> None:
    path = write("trees.txt", "(4 (2 A) (3 (3 fine) (2 Film)))\n")
    found = [(phrase.words, phrase.label) for phrase in read_phrases(path)]
    assert found == [
        (("a",), 2),
        (("fine",), 3),
        (("film",), 2),
        (("fine", "film"), 3),
        (("a", "fine", "film"), 4),
    ]


def test_lines_of_sst_without_a_class_are_named(write: Write, tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        write(f"stsa.binary.{split}", "1 a film\n0 no film\n")
    write("stsa.binary.dev", "1 a film\n3 no film\n")
    with pytest.raises(CorpusError, match=r"stsa\.binary\.dev: line 2 should be a label, 0 to 1, and a sentence"):
        SST(str(tmp_path))
    with pytest.raises(CorpusError, match="classes is 3; SST has 2, without the neutral sentences, or 5"):
        SST(str(tmp_path), classes=3)  # type: ignore[arg-type]
