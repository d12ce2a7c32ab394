"""A user's own sentences and compressions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pyro_nlp.data import CompressionFile, CorpusError

Write = Callable[[str, str | bytes], Path]

PAIRS = "".join(f"the big dog number{i} saw a cat\tdog number{i} saw cat\n" for i in range(100))
ALONE = "".join(f"a small cat heard number{i}\n" for i in range(50))


def test_sentences_without_a_compression_are_hidden_ones_of_train(write: Write) -> None:
    corpus = CompressionFile(str(write("mine.tsv", PAIRS + ALONE)))
    assert corpus.train.labels is not None and (corpus.train.labels == -1).sum() == 50
    assert len(corpus.train) + len(corpus.valid) + len(corpus.test) == 150 and corpus.judges("test")
    assert not corpus.judges("train") and corpus.extractive["test"] == 1
    hidden = np.flatnonzero(corpus.train.labels == -1)
    assert all(len(corpus.train.second.words(int(row))) == 0 for row in hidden)
    some = CompressionFile(str(write("mine.tsv", PAIRS + ALONE)), labelled=0.5)
    known = int((corpus.train.labels == 1).sum())
    assert some.train.labels is not None and (some.train.labels == 1).sum() == round(known / 2)
    alone = CompressionFile(str(write("mine.tsv", PAIRS + ALONE)), keep_hidden=False)
    assert len(alone.train) == known


def test_sentences_alone_are_cut_into_splits_that_nothing_is_judged_by(write: Write) -> None:
    corpus = CompressionFile(str(write("mine.txt", ALONE)))
    assert corpus.train.labels is not None and (corpus.train.labels == -1).all()
    assert len(corpus.valid) and len(corpus.test) and not corpus.judges("valid") and not corpus.judges("test")


BAD = {
    "longer": ("dog ran\tdog man woman\n", "line 101 has a compression of 3 words for a sentence of 2; shorten it, or"),
    "fields": ("dog ran\tdog\t1\n", "line 101 has 3 fields; give a sentence, or one, a tab and its compression"),
    "empty": ("dog ran\t \n", "line 101 has an empty compression; give it words, or take the pair out"),
    "no sentence": ("\tdog\n", "line 101 has an empty sentence; give it words, or take the pair out"),
    "overlong": (f"{'b ' * 101}\tb\n", "line 101 has a sentence of 101 words, the limit is 100; raise --corpus.max_s"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_is_named_with_its_cure(name: str, write: Write) -> None:
    line, message = BAD[name]
    with pytest.raises(CorpusError, match=rf"mine\.tsv: {message}") as error:
        CompressionFile(str(write("mine.tsv", PAIRS + line)))
    assert "\n" not in str(error.value)


def test_what_judges_has_compressions(write: Write, tmp_path: Path) -> None:
    train, valid = str(write("mine.tsv", PAIRS)), str(write("valid.tsv", ALONE))
    with pytest.raises(CorpusError, match=r"valid\.tsv: line 1 has no compression: give it one"):
        CompressionFile(train, valid=valid)
    with pytest.raises(CorpusError, match="is a folder; give a file with a sentence on each line"):
        CompressionFile(str(tmp_path))
