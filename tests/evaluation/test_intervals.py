"""Intervals of shares, ratios and measures that are no means; those of means are tested with rankings."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pyro_nlp.evaluation.intervals import jackknife, ratio, share


def test_of_a_mean_the_jackknife_is_its_standard_error() -> None:
    values = np.random.default_rng(0).normal(size=400)
    found = jackknife(lambda rows: float(values[rows].mean()), 400, blocks=400)
    assert found.mean == pytest.approx(values.mean())
    reach = 1.96593 * values.std(ddof=1) / 20  # the quantile of Student's t with 399 degrees of freedom
    assert (found.high - found.mean, found.mean - found.low) == pytest.approx((reach, reach), rel=1e-4)


def test_blocks_are_chosen_by_the_seed_and_one_example_has_no_interval() -> None:
    values = np.random.default_rng(0).normal(size=90)
    found = [jackknife(lambda rows: float(values[rows].mean()), 90, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2] and found[0].mean == found[2].mean
    alone = jackknife(lambda rows: 3.0, 1)
    assert alone.mean == 3.0 and math.isnan(alone.low) and math.isnan(alone.high)


def test_shares_and_ratios_have_the_intervals_of_their_standard_errors() -> None:
    rng = np.random.default_rng(0)
    right = rng.random(900) < 0.3
    found = share(right)
    reach = 1.96 * (found.mean * (1 - found.mean) / 900) ** 0.5
    assert found.mean == right.mean() and found.high - found.low == pytest.approx(2 * reach, rel=0.05)
    words = rng.integers(1, 20, 900)
    unknown = rng.binomial(words, 0.2)
    of = ratio(unknown, words)
    assert of.mean == unknown.sum() / words.sum()
    error = np.std(unknown - of.mean * words) / words.mean() / 30
    assert of.high - of.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    assert ratio(np.zeros(3), np.zeros(3)).mean == 0
