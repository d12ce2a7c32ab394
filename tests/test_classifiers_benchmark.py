"""The benchmarks of classifiers at toy size: what is trained on, a file per row, the tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import classifiers, semi_supervised
from benchmarks.rows import read
from pyro_nlp.data import LabelledLines, TextSplit, class_counts
from tests import tiny  # noqa: F401 (PyTorch's first optimiser sets an environment variable)

pytest.importorskip("sklearn.linear_model")  # so does its import


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabelledLines:
    """Sixty sentences of either class under the names of two corpora, and results in a folder of their own."""
    lines = [f"{k} the {w} film {i % 7} is {w}\n" for i in range(60) for k, w in (("neg", "dull"), ("pos", "fine"))]
    (tmp_path / "toy.txt").write_text("".join(dict.fromkeys(lines)) + "".join(lines), "utf-8")
    path = str(tmp_path / "toy.txt")
    corpus = LabelledLines(path, path, path)
    monkeypatch.setattr(classifiers, "CORPORA", {"sst": lambda: corpus, "docstrings": lambda: corpus})
    monkeypatch.setattr(semi_supervised, "CORPORA", ("sst",))
    for module in (classifiers, semi_supervised):
        monkeypatch.setattr(module, "FOLDER", tmp_path / "results")
    classifiers.corpus_of.cache_clear()
    return corpus


def test_a_size_is_sentences_of_each_class_chosen_by_the_seed(toy: LabelledLines) -> None:
    parts = [classifiers.part_of(toy, 10, seed) for seed in (0, 0, 1)]
    for part in parts:
        assert [class_counts(split, 2).tolist() for split in (part.train, part.valid)] == [[10, 10]] * 2
    assert parts[0].fingerprint == parts[1].fingerprint != parts[2].fingerprint
    assert len(classifiers.part_of(toy, 0, 0).train) == len(toy.train)
    assert class_counts(classifiers.part_of(toy, 1000, 0).train, 2).tolist() == class_counts(toy.train, 2).tolist()


def test_a_row_is_trained_once_and_comes_into_the_tables(toy: LabelledLines, tmp_path: Path) -> None:
    for name in ("naive Bayes", "logistic, words", "logistic, pairs"):
        for size in (10, 0):
            classifiers.finish("sst", name, size, 0)
    files = sorted((tmp_path / "results" / "sst").glob("*.json"))
    assert len(files) == 6
    before = files[0].stat().st_mtime_ns
    classifiers.finish("sst", "logistic, pairs", 10, 0)
    assert files[0].stat().st_mtime_ns == before
    found = read(classifiers.file("sst", "naive Bayes", 0, 0))
    assert found["accuracy"] == 100 and found["sentences"] == len(toy.train) and "AUROC of known words" in found
    assert found["unknown in test"] == found["unknown in the others"] == 0
    rows = list(classifiers.rows())
    paired = [row for row in rows if "| naive Bayes minus logistic, words | 10 a class" in row["measure"]]
    assert len(paired) == 1 and paired[0]["protocol"] == "seeds 0"
    table = classifiers.markdown(rows)
    assert "### sst, accuracy (%)" in table and "### out of domain" in table and "| logistic, pairs |" in table


def test_labels_are_seen_by_the_guide_and_the_baseline_alike(toy: LabelledLines) -> None:
    train, rows, share = semi_supervised.permuted("sst", 0, 50)
    other = semi_supervised.permuted("sst", 1, 50)[0]
    assert 25 < len(rows) < 75 and share == 50 / len(train) and not np.array_equal(train.flat, other.flat)
    for name in ("naive Bayes", "M2, enumerate", "M1+M2"):
        semi_supervised.finish("sst", name, 50, 0)
    found = read(semi_supervised.file("sst", "M2, enumerate", 50, 0))
    assert found["labels"] == len(rows) == read(semi_supervised.file("sst", "naive Bayes", 50, 0))["labels"]
    assert {"guide", "Bayes", "NLL"} <= found.keys()
    assert {"guide", "Bayes", "NLL"} <= read(semi_supervised.file("sst", "M1+M2", 50, 0)).keys()
    assert "| M2, enumerate |" in semi_supervised.markdown(list(semi_supervised.rows()))


def test_a_small_training_set_is_read_without_copies_in_batches_of_a_quarter() -> None:
    for sentences, passes, batch in ((20, 50, 5), (60, 17, 15), (999, 2, 32), (1000, 1, 32), (3, 334, 1)):
        training = classifiers.network("LSTM", 9, 2, sentences)[1]
        assert (training.epochs, training.batch_size) == (15 * passes, batch)
        assert training.plateau is not None and training.plateau.patience == (1 if passes == 1 else 3 * passes)


@pytest.mark.slow
def test_a_small_training_set_is_trained_until_it_stalls(toy: LabelledLines) -> None:
    _, epochs = classifiers.trained("CNN", classifiers.part_of(toy, 10, 0), 0)
    assert 2 <= epochs <= 15


def test_logistic_regression_reads_the_counts_that_naive_bayes_reads(toy: LabelledLines) -> None:
    part = classifiers.part_of(toy, 10, 0)
    assert isinstance(part.test, TextSplit)
    sentence = part.test.words(0)
    twice = TextSplit.from_sentences([sentence, [*sentence, *sentence]])
    words = classifiers.logistic(part, {"test": twice}, False)["test"].log_probability
    assert abs(words[0, 0] - words[1, 0]) > 0.01  # presence alone would not tell them apart
    orders = TextSplit.from_sentences([sentence, sentence[::-1]])
    words, pairs = (classifiers.logistic(part, {"test": orders}, of)["test"].log_probability for of in (False, True))
    np.testing.assert_allclose(words[0], words[1], rtol=1e-6)
    assert abs(pairs[0, 0] - pairs[1, 0]) > 0.01
