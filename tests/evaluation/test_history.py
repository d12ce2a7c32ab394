"""Rows of metrics.jsonl as data by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pyro_nlp import Strategy, Training, fit
from pyro_nlp.evaluation.history import training_history
from tests.tiny import Sentences, vae

ROWS: list[dict[str, Any]] = [
    {
        "step": 5,
        "epoch": 0,
        "loss": 9.0,
        "kl.z": 0.5,
        "kl.c": 0.1,
        "kl_weight.z": 0.2,
        "snr.model": 1.5,
        "seconds": 3.0,
    },
    {"step": 5, "epoch": 0, "best": True, "valid.loss": 9.5, "valid.kl.z": 0.6},
    {"step": 9, "epoch": 1, "loss": 8.0, "kl.z": 0.7, "kl.c": 0.2, "kl_weight.z": 1.0, "gradient_norm": 2.0},
]


def test_every_number_is_at_its_step_and_what_was_not_measured_is_nan() -> None:
    found = training_history(ROWS)
    assert found["step"].values.tolist() == [5, 9] and found["site"].values.tolist() == ["z", "c"]
    np.testing.assert_array_equal(found["bound"], [-9.0, -8.0])
    np.testing.assert_array_equal(found["kl"].sel(site="c"), [0.1, 0.2])
    np.testing.assert_array_equal(found["kl_weight"], [[0.2, np.nan], [1.0, np.nan]])
    np.testing.assert_array_equal(found["valid_bound"], [-9.5, np.nan])
    np.testing.assert_array_equal(found["valid_kl"].sel(site="z"), [0.6, np.nan])
    np.testing.assert_array_equal(found["gradient_norm"], [np.nan, 2.0])
    np.testing.assert_array_equal(found["snr"].sel(module="model"), [1.5, np.nan])
    assert found["kl"].attrs["units"] == "nats per document"
    assert not {"reconstruction", "learning_rate", "auxiliary"} & set(found.data_vars) and "term" not in found.coords


def test_of_two_rows_of_one_step_the_later_counts() -> None:
    again = [*ROWS, {"step": 9, "loss": 7.0}]
    assert training_history(again)["bound"].values.tolist() == [-9.0, -7.0]


def test_a_run_of_fit_has_a_history_of_every_measure() -> None:
    run = fit(*vae(), Sentences(), Strategy(), Training(epochs=2, batch_size=10), progress=False)
    found = training_history(run.history)
    assert {"bound", "reconstruction", "kl", "kl_weight", "gradient_norm", "valid_bound"} <= set(found.data_vars)
    assert found["valid_bound"].notnull().sum() == 2 and found["kl"].dims == ("step", "site")
    trained = found.where(found["bound"].notnull(), drop=True)
    whole = trained["reconstruction"] + (trained["kl_weight"] * trained["kl"]).sum("site")
    # the weight is that of the last step, the others are means over steps: equal where the weight is constant
    np.testing.assert_allclose(-trained["bound"], whole, rtol=1e-5)


@pytest.mark.parametrize("rows", [[], [{"step": 3, "epoch": 0}], [{"loss": 1.0}]])
def test_no_numbers_are_no_history(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="^metrics.jsonl holds no rows of numbers yet: train an epoch$"):
        training_history(rows)
