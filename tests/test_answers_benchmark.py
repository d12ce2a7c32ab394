"""What the benchmark of answer selection rests on (`benchmarks/answers.py`), on a corpus of a few questions."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit

import tests.tiny  # noqa: F401 (PyTorch's first optimiser sets an environment variable, and there it is made)
from benchmarks import answers
from benchmarks.answers import COLUMNS, Trained, averaged, judge, question_a_pair, ranking_of
from pyro_nlp import cli
from pyro_nlp.data import WikiQA
from pyro_nlp.evaluation import binary_calibration, compare_rankings, rank_questions
from pyro_nlp.evaluation.answers import whole_questions

TOPICS = ("moon", "river", "bread", "piano", "tiger", "paper", "metal", "storm")
READER = ("embedding=3", "width=4")
SMALL = ["model.latent=4", "model.width=4", *(f"model.question.{size}" for size in READER), "training.epochs=2"]
GUIDE = ["guide.width=4", *(f"guide.{side}.{size}" for side in ("question", "answer") for size in READER)]


def write_wikiqa(folder: Path, seed: int = 0) -> None:
    """Questions of one topic each; the right answers are the ones that speak of it, first or last at random."""
    rng = np.random.default_rng(seed)
    number = 0
    for name, count in (("train", 30), ("dev", 12), ("test", 12)):
        text, judged = [], []
        for _ in range(count):
            number += 1
            topic = TOPICS[number % 8]
            other = TOPICS[(number + rng.integers(1, 8)) % 8]
            labels = rng.permutation([1, 0, 0, 0]) if number % 5 else np.zeros(2, int)
            for candidate, label in enumerate(labels):
                text.append(f"what is a {topic} q{number % 3} ?\tthe {topic if label else other} is here .\t{label}\n")
                judged.append(f"{number} 0 {candidate} {label}\n")
        (folder / f"WikiQA-{name}.txt").write_text("".join(text))
        (folder / f"WikiQA-{name}.ref").write_text("".join(judged))


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WikiQA:
    """The benchmark on a small WikiQA, with networks of four units, all in a folder of the test's own."""
    write_wikiqa(tmp_path)
    (tmp_path / "vectors.txt").write_text("".join(f"{word} {i} 1 -1\n" for i, word in enumerate(TOPICS)))
    text = ["--corpus=WikiQA", f"--corpus.path={tmp_path}"]

    def train(recipe: str, out: Path, options: Sequence[str]) -> None:
        more = [f"--{option}" for option in (*SMALL, *(GUIDE if recipe == "nasm" else []))]
        with contextlib.redirect_stdout(io.StringIO()):
            assert cli.main(["train", recipe, *options, *more, "--out", str(out)]) == 0

    monkeypatch.setattr(answers, "train", train)
    monkeypatch.setattr(answers, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(answers, "CORPORA", {"wikiqa": text})
    monkeypatch.setattr(answers, "DRAWS", 3)
    answers.corpus_of.cache_clear()
    return WikiQA(str(tmp_path))


def test_a_row_is_trained_judged_kept_and_not_repeated(small: WikiQA, tmp_path: Path) -> None:
    vectors, runs = tmp_path / "vectors.txt", tmp_path / "runs"
    parts = ["lexical", "answer_attention", "nasm"]
    answers.complete(parts, ["wikiqa"], [0, 1], vectors, runs)
    trained = sorted(path.name for path in runs.iterdir())
    assert len(trained) == 8 and "wikiqa-nasm-vectors-1" in trained
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    answers.complete(parts, ["wikiqa"], [0, 1], vectors, runs)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == before

    found = list(answers.rows())
    measures = {one["measure"]: one for one in found}
    assert len(measures) == len(found)
    lines = {name.split(" | ")[1] for name in measures if name.startswith("wikiqa | ")}
    assert len(lines) == 4 + 2 * 2 + 2 * 4 and "NASM, scratch, 3 draws + overlap" in lines
    assert measures["wikiqa | BM25 | MAP"]["value"] == 100 and "wikiqa | BM25 | Brier" not in measures
    for line in lines:
        low, mean, high = (measures[f"wikiqa | {line} | {name}"]["value"] for name in ("MAP from", "MAP", "MAP to"))
        assert low <= mean <= high and mean <= measures[f"wikiqa | {line} | MAP, right"]["value"] + 1e-6
    nasm = measures["wikiqa | NASM, vectors | KL"]
    assert nasm["value"] > 0 and nasm["standard_error"] is not None and nasm["protocol"] == "seeds 0, 1"
    assert measures["wikiqa | NASM, vectors + overlap | MAP"]["reference"] == 68.86
    exact = measures["wikiqa | LSTM with attention, scratch | NLL"]["value"]
    assert exact == pytest.approx(measures["wikiqa | LSTM with attention, scratch | log loss"]["value"], abs=2e-3)

    name = "wikiqa, paired | NASM, vectors minus LSTM with attention, vectors | MAP"
    by_hand = [measures[f"wikiqa | {line}, vectors | MAP"]["value"] for line in ("NASM", "LSTM with attention")]
    assert measures[name]["value"] == pytest.approx(by_hand[0] - by_hand[1], abs=2e-3)
    assert "wikiqa, paired | NASM, scratch minus BM25 | p" in measures
    table = answers.markdown(found)
    assert table.count("### ") == 3 and "| NASM, vectors + overlap |" in table
    heads = next(line for line in table.splitlines() if line.startswith("| | MAP"))
    assert heads.count("|") == len(COLUMNS) + 3


@pytest.mark.parametrize("strategy", answers.STRATEGIES)
def test_every_strategy_trains_nasm(small: WikiQA, tmp_path: Path, strategy: str) -> None:
    what = Trained("wikiqa", "nasm", "vectors", 0, strategy)
    answers.finish(what, tmp_path / "runs", tmp_path / "vectors.txt")
    table = {one["measure"]: one["value"] for one in answers.strategy_rows()}
    assert table[f"wikiqa, strategies | {strategy} | KL"] > 0
    assert np.isfinite(list(table.values())).all()


def test_without_vectors_only_what_begins_from_scratch_is_trained(
    small: WikiQA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Trained] = []
    monkeypatch.setattr(answers, "finish", lambda what, runs, vectors: asked.append(what))
    answers.complete(["answer_lstm", "nasm", "strategies"], ["wikiqa"], [0], None, tmp_path)
    assert [what.stem for what in asked] == ["answer_lstm-scratch-0", "nasm-scratch-0"]


def test_measures_are_of_the_questions_that_each_convention_keeps(small: WikiQA) -> None:
    scores = np.random.default_rng(0).normal(size=len(small.test))
    found, _ = judge(scores, small.test)
    for keep, end in (("both", ""), ("right", ", right")):
        expected = rank_questions(scores, small.test.labels, small.test.group, keep)
        assert found[f"MAP{end}"] == pytest.approx(100 * expected.map) and found[f"questions{end}"] == len(expected)
    assert found["Brier"] == pytest.approx(100 * binary_calibration(expit(scores), small.test.labels).brier)


def test_what_is_kept_of_a_ranking_compares_like_the_ranking(small: WikiQA, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    judged = [judge(rng.normal(size=len(small.test)), small.test) for _ in range(2)]
    for i, (measures, ranking) in enumerate(judged):
        answers.keep(tmp_path / f"{i}.json", measures, {"a": ranking})
    first, second = (ranking_of(tmp_path / f"{i}.json", "a") for i in range(2))
    assert 100 * first.map == pytest.approx(judged[0][0]["MAP"], abs=1e-4)
    assert 100 * averaged([first, second]).map == pytest.approx(50 * (first.map + second.map))
    assert compare_rankings(first, second).map.mean == pytest.approx(first.map - second.map)
    with pytest.raises(ValueError, match="rank the same pairs"):
        compare_rankings(first, replace(second, questions=second.questions + 1))


def test_a_copy_of_the_question_for_every_pair_changes_no_score(small: WikiQA) -> None:
    from pyro_nlp.recipe import load

    model = load("nasm", answers.CORPORA["wikiqa"]).model.eval()
    for rows in whole_questions(small.test, 16):
        once, copied = small.test.batch(rows), question_a_pair(small.test, rows)
        assert len(copied.first) == len(rows) > len(once.first)
        with torch.no_grad():
            torch.testing.assert_close(model.scores(copied, 0)[0], model.scores(once, 0)[0])


def test_the_speed_of_every_system_is_measured(small: WikiQA) -> None:
    found = answers.speed(questions=6, rounds=2)["lines"]
    assert len(found) == 6 and found["NASM"]["ratio"] > 0
    assert all(0 < value < 1e9 for line in found.values() for name, value in line.items() if "ratio" not in name)
