"""What the benchmark of compression adds to judging (`benchmarks/compression.py`), on a corpus of a few sentences."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tests.tiny  # noqa: F401 (PyTorch's first optimiser sets an environment variable, and there it is made)
from benchmarks import compression
from benchmarks.common import Row
from benchmarks.compression import (
    COLUMNS,
    ROUGE,
    file,
    half_width,
    headline_rouge,
    judge,
    judge_again,
    keep,
    markdown,
    rows,
)
from benchmarks.rows import read, standard_error
from pyro_nlp import cli
from pyro_nlp.data.compression import Summarised

pytest.importorskip("rouge_score")

WORDS = ("police", "arrested", "a", "man", "on", "monday", "in", "the", "old", "town")
READER = ("embedding=3", "width=4")
PARTS = ("model.prior", "model.encoder", "model.decoder", "guide.source", "guide.decoder")
SMALL = [*(f"--{part}.{size}" for part in PARTS for size in READER), "--model.width=4", "--training.epochs=1"]
NAME = "10 % alone"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch on a few sentences, in a folder `runs` beside test sets of two texts."""
    folder = tmp_path_factory.mktemp("compression")
    rng = np.random.default_rng(0)
    sentences = [[str(word) for word in rng.choice(WORDS, 8, replace=False)] for _ in range(60)]
    (folder / "my.tsv").write_text("".join(f"{' '.join(s)}\t{' '.join(s[::3])}\n" for s in sentences))
    for name, references in (("gigaword_test/gigaword", 1), ("duc2004/duc2004", 4)):
        out = folder / f"{name}.jsonl"
        out.parent.mkdir()
        lines = [{"text": " ".join(s), "summaries": [" ".join(s[:3])] * references} for s in sentences[:2]]
        out.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    given = ["train", "compression", "--corpus=CompressionFile", f"--corpus.path={folder / 'my.tsv'}"]
    out = folder / "runs" / file(NAME, 0).stem
    assert cli.main([*given, *SMALL, "--training.precision=float32", "--out", str(out)]) == 0
    return out


@pytest.fixture
def results(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of results."""
    monkeypatch.setenv("PYRO_NLP_DATA", str(run.parent.parent))
    monkeypatch.setattr(compression, "FOLDER", tmp_path)
    return tmp_path


def cells(found: list[Row]) -> set[str]:
    return {one["measure"].rpartition(" | ")[2] for one in found}


def test_duc_2004_is_judged_by_the_recall_of_75_bytes_and_the_mean_over_references() -> None:
    texts = [Summarised("", ("one two thirteen", "thirteen", "two one three", "seven"))]
    candidate = f"one two three four five six seven {'x' * 60} thirteen"
    found = headline_rouge("duc2004", [candidate], texts)
    assert found[0, 0] == pytest.approx(100 * (2 / 3 + 0 + 1 + 1) / 4)
    assert headline_rouge("gigaword", [candidate], texts)[0, 0] == pytest.approx(100 * 2 * 3 / (9 + 3))


def test_a_row_has_every_column_and_an_old_one_empty_cells(run: Path, results: Path) -> None:
    measures, arrays = judge(run)
    assert {"headlines", "duc2004"} < set(arrays) and arrays["duc2004"].shape == (2, 3)
    assert [measures[f"duc2004 {name}"] for name in ROUGE] == pytest.approx(arrays["duc2004"].mean(0))
    keep(file(NAME, 0), measures, arrays)
    assert cells(list(rows())) == set(COLUMNS) - {"gain", "low", "high"}
    old = {name: value for name, value in arrays.items() if name != "duc2004"}
    keep(file(NAME, 1), {n: v for n, v in measures.items() if "duc" not in n}, old)
    found = list(rows())
    assert not {f"duc2004 {name}" for name in ROUGE} & cells(found) and "gigaword R-L" in cells(found)
    assert "|  |  |  |" in markdown(found)


def test_a_finished_row_is_judged_again_on_other_test_sets_alone(
    run: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measures, arrays = judge(run)
    old = {n: v for n, v in measures.items() if "duc" not in n} | {"gigaword R-1": -1.0, "R-1": -2.0}
    keep(file(NAME, 0), old, {"rouge": arrays["rouge"], "lead": arrays["lead"]})
    judge_again(NAME, 0, run.parent)
    found = read(file(NAME, 0))
    assert found == json.loads(json.dumps(measures | {"R-1": -2.0}))
    assert set(np.load(file(NAME, 0).with_suffix(".npz"))) == set(arrays)
    capsys.readouterr()
    keep(file(NAME, 0), old | {"valid -ELBO": 0.0}, arrays)
    judge_again(NAME, 0, run.parent)
    assert "is another run than it was made from" in capsys.readouterr().out
    judge_again(NAME, 0, run.parent / "nowhere")
    assert "its run is not in" in capsys.readouterr().out and read(file(NAME, 0))["gigaword R-1"] == -1.0


def test_the_interval_of_a_gain_is_a_t_interval_of_seeds_where_they_are_far_apart() -> None:
    sentences = np.random.default_rng(0).normal(size=(1, 1000))
    error = sentences.std(ddof=1) / 1000**0.5
    assert half_width(sentences) == pytest.approx(1.9623 * error, rel=1e-4)  # t of 999 degrees of freedom
    seeds = np.array([[-100.0], [0.0], [100.0]]) + sentences
    assert half_width(seeds) == pytest.approx(4.3027 * 100 / 3**0.5, rel=1e-3)  # t of two
    assert standard_error([-100.0, 0.0, 100.0], [error]) == pytest.approx((100**2 / 3 + error**2) ** 0.5)
