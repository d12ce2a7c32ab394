"""Tense by the forms of verbs, as a second attribute; a corpus without the sentences of another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pyro_nlp.data import CorpusError, LabelledLines, Polarity, TextFile, Without, WithTense, YelpStyle
from pyro_nlp.data.tense import tense


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("the food was cold", 0),
        ("it is great", 1),
        ("it was what it is", -1),
        ("a moving , inspired film", -1),
        ("they didn't care", 0),
        ("the film 's charm", -1),
    ],
)
def test_tense_is_that_of_all_finite_verbs_that_tell(sentence: str, expected: int) -> None:
    assert tense(sentence.split()) == expected


def test_it_is_right_where_it_says_anything(published: Callable[[str], str]) -> None:
    """By the finite verbs of a treebank: sentences of at most 15 words whose verbs are all of one tense."""
    told, right, all_of_one = 0, 0, 0
    for block in (Path(published("ud_ewt")) / "en_ewt-ud-dev.conllu").read_text("utf-8").split("\n\n"):
        rows = [line.split("\t") for line in block.splitlines() if line and line[0].isdigit()]
        rows = [row for row in rows if row[0].isdigit()]
        finite = {"Past" if "Tense=Past" in row[5] else "Present" for row in rows if "VerbForm=Fin" in row[5]}
        if len(rows) <= 15 and len(finite) == 1:
            said = tense(row[1].lower() for row in rows)
            all_of_one += 1
            told += said >= 0
            right += said == ("Present" in finite)
    assert right / told > 0.95 and told / all_of_one > 0.5


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.txt"
    kinds = ("0 it was dull {}", "1 it is fine {}", "0 dull {}")
    path.write_text("\n".join(kinds[i % 3].format(i) for i in range(90)) + "\n", "utf-8")
    return path


def test_a_labelled_corpus_gets_a_second_attribute_that_batches_carry(lines: Path) -> None:
    plain = LabelledLines(str(lines), min_count=1)
    corpus = WithTense(plain)
    assert corpus.attributes == {"label": ("0", "1"), "tense": ("past", "present")}
    assert plain.attributes == {"label": ("0", "1")} and corpus.fingerprint != plain.fingerprint
    batch = corpus.train.batch(np.arange(len(corpus.train)))
    assert batch.attributes is not None and batch.labels is not None
    assert batch.attributes[:, 0].tolist() == batch.labels.tolist()
    for row in range(len(corpus.train)):
        words = corpus.vocabulary.decode(corpus.train.words(row))
        assert batch.attributes[row, 1] == tense(words)
    few = corpus.train.take(np.array([3, 1]))
    assert few.attributes is not None and corpus.train.attributes is not None
    assert np.array_equal(few.attributes, corpus.train.attributes[[3, 1]])


def test_tense_is_added_to_labels_alone(tmp_path: Path) -> None:
    path = tmp_path / "plain.txt"
    path.write_text("".join(f"it was dull {i}\n" for i in range(90)), "utf-8")
    with pytest.raises(CorpusError, match="WithTense adds tense to labelled sentences"):
        WithTense(TextFile(str(path), min_count=1))


def polarity(folder: Path, sentences: list[str]) -> Polarity:
    folder.mkdir()
    for end, word in (("neg", "bad"), ("pos", "good")):
        (folder / f"rt-polarity.{end}").write_text("\n".join(f"{s} {word}" for s in sentences) + "\n", "utf-8")
    return Polarity(str(folder))


def test_a_judges_corpus_lacks_the_sentences_of_another_and_their_parts(tmp_path: Path) -> None:
    ours = polarity(tmp_path / "a", [f"this film number {i} is" for i in range(60)])
    theirs = polarity(tmp_path / "b", [f"i say that this film number {i} is" for i in range(0, 60, 2)])
    corpus = Without(ours, theirs)
    kept = [" ".join(ours.vocabulary.decode(corpus.train.words(row))) for row in range(len(corpus.train))]
    assert kept and all(int(text.split()[3]) % 2 for text in kept)
    assert corpus.left_out[0] == len(ours.train) - len(corpus.train) > 0
    assert corpus.test is ours.test and corpus.attribute == "sentiment"
    with pytest.raises(CorpusError, match="has no sentence left without those of"):
        Without(ours, ours)
    assert Without(ours, WithTense(theirs)).left_out == corpus.left_out


def test_a_users_own_text_is_compared_too(tmp_path: Path) -> None:
    lines = [f"{i % 2} this film number {i} is {'long and dull' if i < 60 else 'fine'}\n" for i in range(120)]
    for name, part in (("all", lines), ("some", lines[60:])):
        (tmp_path / name).write_text("".join(part), "utf-8")
    everything, some = (LabelledLines(str(tmp_path / name), max_length=6, overlong="drop") for name in ("all", "some"))
    assert len(everything.texts["train"]) == len(everything.train)
    with pytest.raises(CorpusError, match="has no sentence left"):
        Without(some, everything)
    plain = TextFile(str(tmp_path / "all"), tokeniser="whitespace")
    assert Without(plain, some).left_out[0] == sum(text.endswith("fine") for text in plain.texts["train"])
    plain.texts = {}
    with pytest.raises(CorpusError, match="TextFile .* keeps no texts to be compared"):
        Without(plain, some)


def test_halves_of_yelp_share_nothing_and_make_the_whole(tmp_path: Path) -> None:
    for part, start in (("dev", 0), ("test", 100)):
        for label in (0, 1):
            text = "\n".join(f"sentence {label} {i}" for i in range(start, start + 100))
            (tmp_path / f"sentiment.{part}.{label}").write_text(text + "\n", "utf-8")
    whole, first, second = (YelpStyle(str(tmp_path), half=half) for half in (None, "first", "second"))
    assert set(first.texts["train"]).isdisjoint(second.texts["train"])
    assert set(first.texts["train"]) | set(second.texts["train"]) == set(whole.texts["train"])
    assert first.texts["test"] == second.texts["test"] == whole.texts["test"]
    with pytest.raises(CorpusError, match="half is 'third'; give first or second"):
        YelpStyle(str(tmp_path), half="third")  # type: ignore[arg-type]
