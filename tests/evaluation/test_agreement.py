"""Agreement between seeds: against brute force, invariances, and chance."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import ortho_group

from pyro_nlp.evaluation import Posteriors
from pyro_nlp.evaluation.agreement import adjusted_rand, cka_by_chance, linear_cka, seed_agreement


def vectors(count: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width))


# ---- vectors ---------------------------------------------------------------------------------------------------------


def test_a_shift_a_rotation_and_one_scale_change_nothing() -> None:
    x = vectors(50, 4) * [3.0, 1.0, 0.5, 0.1]
    turned = 2.5 * x @ ortho_group.rvs(4, random_state=1) + [1.0, -2.0, 0.0, 5.0]
    assert linear_cka(x, turned) == pytest.approx(1, abs=1e-12)
    assert linear_cka(x, x * [1.0, 1.0, 1.0, 30.0]) < 0.8  # another shape is another answer


def test_the_similarity_is_that_of_the_matrices_of_inner_products() -> None:
    x, y = vectors(20, 3), vectors(20, 5, 1)
    centre = np.eye(20) - 1 / 20
    k, m = (centre @ a @ a.T @ centre for a in (x, y))
    wanted = (k * m).sum() / math.sqrt((k * k).sum() * (m * m).sum())
    assert linear_cka(x, y) == pytest.approx(wanted, rel=1e-12) == linear_cka(y, x)


def test_chance_is_the_mean_over_all_pairings() -> None:
    x, y = vectors(6, 2), vectors(6, 3, 1)
    every = [linear_cka(x, y[list(order)]) for order in itertools.permutations(range(6))]
    assert cka_by_chance(x, y) == pytest.approx(np.mean(every), rel=1e-12)


def test_vectors_that_are_all_equal_have_no_similarity() -> None:
    same = np.full((10, 2), 0.1)
    assert math.isnan(linear_cka(same, vectors(10, 2))) and math.isnan(cka_by_chance(vectors(10, 2), same))


# ---- classes ---------------------------------------------------------------------------------------------------------


def test_the_rand_index_counts_pairs_and_takes_off_what_permutations_give() -> None:
    first, second = np.array([0, 0, 1, 1, 2, 2, 2]), np.array([1, 1, 0, 2, 2, 2, 0])

    def together(a: np.ndarray, b: np.ndarray) -> int:
        return sum(a[i] == a[j] and b[i] == b[j] for i, j in itertools.combinations(range(7), 2))

    expected = np.mean([together(first, second[list(order)]) for order in itertools.permutations(range(7))])
    most = (together(first, first) + together(second, second)) / 2
    wanted = (together(first, second) - expected) / (most - expected)
    assert adjusted_rand(first, second) == pytest.approx(wanted, rel=1e-9) == adjusted_rand(second, first)


def test_numbers_of_groups_do_not_matter_and_chance_is_zero() -> None:
    labels = np.random.default_rng(0).integers(0, 4, 300)
    assert adjusted_rand(labels, (labels + 1) % 4) == 1
    rng = np.random.default_rng(1)
    dealt = [adjusted_rand(labels, rng.permutation(labels)) for _ in range(200)]
    assert abs(np.mean(dealt)) < 4.5 * np.std(dealt) / math.sqrt(200)
    assert adjusted_rand([0, 0], [0, 0]) == adjusted_rand([0, 1], [1, 0]) == adjusted_rand([3], [1]) == 1


# ---- runs ------------------------------------------------------------------------------------------------------------


def history(*bounds: float, first: int = 10) -> list[dict[str, Any]]:
    return [{"step": first * (i + 1), "valid.loss": -bound} for i, bound in enumerate(bounds)]


def gaussians(mean: np.ndarray) -> Posteriors:
    return Posteriors(mean, np.ones_like(mean), mean)


def test_runs_are_told_by_their_bounds_their_curves_and_their_posteriors() -> None:
    x = vectors(40, 3)
    sites = {
        "a": {"z": gaussians(x), "c": Posteriors(np.eye(4)[np.arange(40) % 4], None, np.eye(4)[np.arange(40) % 4], 4)},
        "b": {
            "z": gaussians(-x),
            "c": Posteriors(np.eye(4)[(np.arange(40) + 1) % 4], None, np.eye(4)[np.arange(40) % 4], 4),
        },
        "c": {
            "z": gaussians(vectors(40, 3, 7)),
            "c": Posteriors(np.eye(4)[np.arange(40) % 2], None, np.eye(4)[np.arange(40) % 4], 4),
        },
    }
    histories = {"a": history(-9, -7, -8), "b": history(-9, -8), "c": history(-10, -9, -6)}
    found = seed_agreement(histories, sites)
    np.testing.assert_array_equal(found.bounds, [-7, -8, -6])  # the best, not the last
    assert (found.mean, found.deviation) == (-7, 1)
    assert found.steps.tolist() == [10, 20]  # where all were validated
    np.testing.assert_array_equal(found.curves, [[-9, -7], [-9, -8], [-10, -9]])
    assert found.measure == {"z": "linear CKA", "c": "adjusted Rand index"}
    assert found.similarity["z"][0, 1] == pytest.approx(1, abs=1e-12) and found.similarity["c"][0, 1] == 1
    assert found.similarity["z"][0, 2] == pytest.approx(linear_cka(x, vectors(40, 3, 7)), rel=1e-12)
    assert found.chance["c"] == 0 < found.chance["z"] < 0.2
    for values in found.similarity.values():
        np.testing.assert_array_equal(values, values.T)
        np.testing.assert_array_equal(np.diagonal(values), 1)
    assert len(found.between("z")) == 3
    assert found.rows()["validation bound, 3 seeds"] == "-7.00, standard deviation 1.00"
    data = found.to_xarray()
    assert data["curve"].dims == ("run", "step") and data["similarity_c"].attrs["units"] == "adjusted Rand index"
    assert float(data["similarity_z"].sel(run="a", other="b")) == pytest.approx(1)


def test_runs_without_latents_agree_in_their_bounds_alone() -> None:
    found = seed_agreement({"a": history(-3.0), "b": history(-5.0, first=7)}, {"a": {}, "b": {}})
    assert found.similarity == {} and not len(found.steps) and found.curves.shape == (2, 0)
    assert list(found.rows()) == ["validation bound, 2 seeds"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: seed_agreement({"a": history(-1.0)}, {"a": {}}), "^1 runs, posteriors of 1: agreement is between two"),
        (
            lambda: seed_agreement({"a": history(-1.0), "b": [{"step": 1, "loss": 1.0}]}, {"a": {}, "b": {}}),
            "^b has no validation bound yet: train an epoch$",
        ),
        (
            lambda: seed_agreement(
                {"a": history(-1.0), "b": history(-1.0)}, {"a": {"z": gaussians(vectors(4, 2))}, "b": {}}
            ),
            "^the runs have different latents: they are not of one recipe$",
        ),
        (lambda: linear_cka(vectors(4, 2), vectors(5, 2)), r"^shapes \(4, 2\) and \(5, 2\): give vectors of the same"),
        (lambda: linear_cka(vectors(1, 2), vectors(1, 2)), r"^shapes \(1, 2\) and \(1, 2\): .* two or more$"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_a_line(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
