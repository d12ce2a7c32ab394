"""The table of the collapse laboratory: errors, and options that name nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import collapse
from benchmarks.rows import write


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results made up: two seeds of a language model and of one recipe, whose losses are 1 apart in the mean."""
    monkeypatch.setattr(collapse, "FOLDER", tmp_path)
    rng = np.random.default_rng(0)
    sentences = rng.normal(100.0, 30.0, 400)
    for seed in (0, 7):
        for name, loss in (("language_model", sentences), ("linear", sentences + rng.normal(1.0, 2.0, 400))):
            path = collapse.file("small", name, seed)
            write(path, {"-ELBO": float(loss.mean()), "-ELBO standard error": 1.5, "environment": {}})
            np.savez_compressed(path.with_suffix(".npz"), nll=loss + 0.1 * seed)
    return tmp_path


def test_more_seeds_do_not_make_the_sentences_more(results: Path) -> None:
    found = {row["measure"]: row for row in collapse.rows("small")}
    apart = found["small | linear | minus LM"]
    assert apart["protocol"] == "seeds 0, 7"
    assert apart["value"] == pytest.approx(1.0, abs=0.3)  # seed by seed: what both gain at seed 7 is no difference
    assert 0.05 < apart["standard_error"] < 0.2  # 2 nats over 400 sentences, two draws of them
    assert found["small | linear | -ELBO"]["standard_error"] >= 1.5
    assert "small | language_model | minus LM" not in found


def test_errors_of_sentences_and_seeds_are_added_in_squares() -> None:
    assert collapse.standard_error([1.0, 7.0], [4.0, 4.0]) == pytest.approx(5.0)
    assert collapse.standard_error([1.0], [4.0]) == pytest.approx(4.0)
    assert collapse.standard_error([1.0, 7.0], []) == pytest.approx(3.0)
    assert collapse.standard_error([1.0], []) is None


def test_a_recipe_that_is_not_there_is_named_with_those_that_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["collapse", "--rows", "lineer"])
    with pytest.raises(SystemExit):
        collapse.main()
    assert "'lineer' (choose from" in (said := capsys.readouterr().err) and "cyclical" in said
