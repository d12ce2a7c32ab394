"""Calibration of p(y = 1): by hand, by identities, and against plain loops."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread
from scipy import stats

from pyro_nlp.evaluation import binary_calibration, reliability_plot
from pyro_nlp.evaluation.binary import wilson

try:
    from sklearn import metrics  # sets environment variables, so here and not in a test
except ImportError:
    metrics = None


def judged(count: int, seed: int = 0, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """p, and labels of a model that is calibrated if the sharpness is 1."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-1, 1.5, count)
    return 1 / (1 + np.exp(-sharpness * logit)), (rng.random(count) < 1 / (1 + np.exp(-logit))).astype(int)


def test_two_bins_by_hand() -> None:
    found = binary_calibration([0.2, 0.2, 0.2, 0.2, 0.6, 0.6, 0.6, 0.6], [0, 0, 0, 1, 1, 1, 0, 1], bins=2)
    assert found.curve.probability.tolist() == pytest.approx([0.2, 0.6])
    assert found.curve.observed.tolist() == [0.25, 0.75] and found.curve.count.tolist() == [4, 4]
    assert found.brier == pytest.approx((3 * 0.04 + 0.64 + 3 * 0.16 + 0.36) / 8)
    assert found.reliability == pytest.approx((0.05**2 + 0.15**2) / 2) and found.resolution == pytest.approx(0.0625)
    assert found.uncertainty == 0.25 and found.within == pytest.approx(0)
    assert found.expected_error == pytest.approx(0.1)
    assert found.log_loss == pytest.approx(-(3 * math.log(0.8) + math.log(0.2) + 3 * math.log(0.6) + math.log(0.4)) / 8)
    assert found.skill == pytest.approx(1 - found.brier / 0.25)


@pytest.mark.parametrize("bins", [1, 7, 10, 10_000])
def test_the_parts_of_the_brier_score_add_up(bins: int) -> None:
    found = binary_calibration(*judged(500), bins=bins)
    parts = found.reliability - found.resolution + found.uncertainty + found.within
    assert found.brier == pytest.approx(parts, rel=1e-12)
    if bins == 10_000:
        assert found.within == pytest.approx(0, abs=1e-15) and len(found.curve) == 500


def test_bins_hold_equal_numbers_and_equal_p_are_together() -> None:
    p, y = judged(1003)
    assert set(binary_calibration(p, y).curve.count.tolist()) == {100, 101}
    tied = np.concatenate([np.full(700, 0.1), p[:300]])
    found = binary_calibration(tied, np.arange(1000) % 2, bins=10)
    order = np.random.default_rng(0).permutation(1000)
    other = binary_calibration(tied[order], (np.arange(1000) % 2)[order], bins=10)
    assert found.curve.count.max() >= 700 and len(found.curve) < 10 and found.curve.count.sum() == 1000
    assert found.curve.count.tolist() == other.curve.count.tolist()
    assert found.expected_error == pytest.approx(other.expected_error, rel=1e-12)
    assert len(binary_calibration(np.full(20, 0.3), np.arange(20) % 2).curve) == 1


def test_a_calibrated_model_has_a_small_error_and_an_overconfident_one_a_large() -> None:
    right, sure = binary_calibration(*judged(20_000)), binary_calibration(*judged(20_000, sharpness=3))
    noise = np.mean(np.sqrt(2 / np.pi * right.curve.observed * (1 - right.curve.observed) / right.curve.count))
    assert right.expected_error < 2 * noise < sure.expected_error / 5
    assert right.reliability < 1e-3 < sure.reliability and sure.log_loss > right.log_loss
    assert right.resolution == pytest.approx(sure.resolution)  # it depends on the order of p alone
    inside = (right.curve.low <= right.curve.probability) & (right.curve.probability <= right.curve.high)
    assert inside.sum() >= 8


def test_the_interval_is_wilsons() -> None:
    share, count = np.array([0.0, 0.1, 0.5, 1.0]), np.array([10, 30, 8, 5])
    low, high = wilson(share, count)
    for i in range(4):
        wanted = stats.binomtest(round(share[i] * count[i]), int(count[i])).proportion_ci(method="wilson")
        assert (low[i], high[i]) == pytest.approx((wanted.low, wanted.high), abs=1e-9)


def test_pairs_without_label_are_left_out() -> None:
    p, y = judged(200)
    found = binary_calibration(np.append(p, [0.3, 0.9]), np.append(y, [-1, -1]))
    assert found.pairs == 200 and found.brier == binary_calibration(p, y).brier


def test_a_certainty_that_is_wrong_costs_infinitely_and_one_that_is_right_nothing() -> None:
    assert binary_calibration([0.0, 1.0], [0, 1]).log_loss == 0
    assert binary_calibration([0.0, 1.0], [1, 1]).log_loss == math.inf
    assert math.isnan(binary_calibration([0.5], [1]).skill)


@pytest.mark.skipif(metrics is None, reason="scikit-learn is not installed: scores are NOT COMPARED WITH IT")
def test_scores_are_those_of_scikit_learn() -> None:
    p, y = judged(300)
    found = binary_calibration(p, y)
    assert found.brier == pytest.approx(metrics.brier_score_loss(y, p), rel=1e-12)
    assert found.log_loss == pytest.approx(metrics.log_loss(y, p), rel=1e-12)


def test_what_is_found_is_printed_and_becomes_a_dataset() -> None:
    found = binary_calibration(*judged(500))
    assert found.rows()["expected calibration error"] == f"{found.expected_error:.4f} in 10 bins"
    data = found.to_xarray()
    assert data["observed"].dims == ("bin",) and float(data["brier"]) == found.brier and data.attrs["pairs"] == 500


def test_the_curves_are_drawn_with_their_intervals(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    models = {name: binary_calibration(*judged(500, sharpness=s)) for name, s in (("good", 1.0), ("sure", 3.0))}
    figure = reliability_plot(models, tmp_path / "reliability.png", title="valid")
    assert dict(matplotlib.rcParams) == before and imread(tmp_path / "reliability.png").std() > 0.05
    (axis,) = figure.axes
    assert len(axis.containers) == 2 and axis.get_title() == "valid"
    line, _, (bars,) = axis.containers[0]
    np.testing.assert_allclose(line.get_ydata(), models["good"].curve.observed)
    np.testing.assert_allclose(np.array(bars.get_segments())[:, 1, 1], models["good"].curve.high)
    (label,) = reliability_plot(models["good"]).axes[0].get_legend_handles_labels()[1]
    assert label.startswith("calibration error 0.")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: binary_calibration([0.5, 1.5, math.nan], [0, 1, 1]), "^2 of 3 numbers .* the first is 1.5 at pair 1$"),
        (lambda: binary_calibration([0.5], [0, 1]), r"^probabilities \(1,\) and labels \(2,\): give one of each"),
        (lambda: binary_calibration([0.5, 0.5], [0, 3]), "^pair 1 has the label 3: give 1 for right"),
        (lambda: binary_calibration([0.5], [-1]), "^no pair of 1 has a label, 0 or 1"),
        (lambda: binary_calibration([0.5], [1], bins=0), "^0 bins: take at least 1$"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_a_line(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
