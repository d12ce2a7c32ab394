"""Whether runs that differ by their seed alone come to the same answer (layer: evaluation)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from pyro_nlp.evaluation._arviz import measured
from pyro_nlp.evaluation.clustering import _contingency
from pyro_nlp.evaluation.collapse import Posteriors
from pyro_nlp.evaluation.history import Rows, training_history


def linear_cka(first: np.ndarray, second: np.ndarray) -> float:
    """Similarity, 0 to 1, of two sets of vectors of the same N things.       Kornblith et al. 2019 (arXiv:1905.00414)

    Linear centred kernel alignment: |X'Y|^2 / (|X'X| |Y'Y|) by Frobenius norms, columns centred. It is one for sets
    that differ by a shift, a rotation, a reflection or one scale, and that is what two seeds of one model may differ
    by. It is not zero for unrelated sets (`cka_by_chance`). NaN where all vectors of a set are equal.

    Args:
        first, second: `[N, D]` and `[N, E]`.
    """
    x, y = _centred(first, second)
    below = float(np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    return float(np.linalg.norm(x.T @ y) ** 2 / below) if below > 0 else math.nan


def cka_by_chance(first: np.ndarray, second: np.ndarray) -> float:
    """The mean of `linear_cka` over all pairings of the N vectors of one set with those of the other, exactly.

    A matrix that is centred on both sides keeps, after a random permutation, only its trace, shared by N - 1 others:
    tr(K) tr(L) / ((N - 1) |K| |L|). High where N is not much larger than the dimensions.
    """
    x, y = _centred(first, second)
    below = float((len(x) - 1) * np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    return float((x**2).sum() * (y**2).sum() / below) if below > 0 else math.nan


def _centred(*sets: np.ndarray) -> list[np.ndarray]:
    """Each in float64 with columns of mean zero; one number in every row leaves no rounding behind."""
    shapes = [np.shape(vectors) for vectors in sets]
    if any(len(shape) != 2 or shape[0] != shapes[0][0] or shape[0] < 2 for shape in shapes):
        raise ValueError(f"shapes {shapes[0]} and {shapes[1]}: give vectors of the same things, two or more")
    constant = [np.ptp(vectors, 0) <= 1e-9 * np.abs(vectors).max(0) for vectors in sets]
    return [np.where(c, 0.0, v - v.mean(0, dtype=np.float64)) for c, v in zip(constant, sets, strict=True)]


def adjusted_rand(first: ArrayLike, second: ArrayLike) -> float:
    """Agreement of two partitions, 1 if equal, 0 by chance.       Hubert and Arabie 1985 (Journal of Classification 2)

    The share of pairs that are together in both, less what is expected when things are dealt at random to groups of
    the same sizes. However the groups are numbered; one where both put all together, or all apart.

    Args:
        first, second: integers of one shape; things with -1 in `second` are left out.
    """
    table = _contingency(first, second).astype(np.float64)
    both, one, other = (float((n * (n - 1) / 2).sum()) for n in (table, table.sum(1), table.sum(0)))
    count = table.sum()
    expected = one * other / (count * (count - 1) / 2) if count > 1 else 0.0
    most = (one + other) / 2
    return 1.0 if most == expected else (both - expected) / (most - expected)


@dataclass(frozen=True)
class SeedAgreement:
    """R runs of one recipe.

    Attributes:
        runs: their names.
        bounds: the best validation bound of each, nats per document, `[R]`: that of the parameters that were kept.
        steps, curves: steps at which all were validated, `[T]`, and their validation bounds there, `[R, T]`.
        similarity: of the posteriors of each pair by site, `[R, R]`: linear CKA of posterior means, or the adjusted
            Rand index of the likeliest classes.
        chance: what unrelated posteriors would have, by site: 0 of classes.
        measure: which of the two, by site.
    """

    runs: tuple[str, ...]
    bounds: np.ndarray
    steps: np.ndarray
    curves: np.ndarray
    similarity: dict[str, np.ndarray]
    chance: dict[str, float]
    measure: dict[str, str]

    @property
    def mean(self) -> float:
        """Of the bounds."""
        return float(self.bounds.mean())

    @property
    def deviation(self) -> float:
        """Standard deviation of the bounds between seeds."""
        return float(self.bounds.std(ddof=1))

    def between(self, site: str) -> np.ndarray:
        """Similarities of all pairs, `[R (R - 1) / 2]`."""
        return self.similarity[site][np.triu_indices(len(self.runs), 1)]

    def rows(self) -> dict[str, str]:
        """Measure and value, as printed."""
        found = {
            f"validation bound, {len(self.runs)} seeds": f"{self.mean:.2f}, standard deviation {self.deviation:.2f}"
        }
        if len(self.steps):
            apart = self.curves.std(0, ddof=1)
            found["standard deviation along training"] = f"{apart.min():.2f} to {apart.max():.2f}"
        for site, name in self.measure.items():
            pairs = self.between(site)
            span = f"{np.mean(pairs):.2f}, from {np.min(pairs):.2f} to {np.max(pairs):.2f}"
            found[f"{name} of {site}"] = f"{span}; {self.chance[site]:.2f} by chance"
        return found

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` over `run`, `step` and `other`; bounds in nats per document."""
        variables: dict[str, Any] = {"bound": (("run",), self.bounds, "nats per document")}
        variables["curve"] = (("run", "step"), self.curves, "nats per document")
        for site, values in self.similarity.items():
            variables[f"similarity_{site}"] = (("run", "other"), values, self.measure[site])
        return measured(variables, {"run": list(self.runs), "step": self.steps, "other": list(self.runs)})


def seed_agreement(histories: Mapping[str, Rows], posteriors: Mapping[str, Mapping[str, Posteriors]]) -> SeedAgreement:
    """Compare runs of one recipe by several seeds.

    Args:
        histories: `run.history` by run; two or more.
        posteriors: of the same documents by run and site (`evaluation.posteriors`); empty where there are no latents.

    Raises:
        ValueError: a single run, runs without a validation bound, or posteriors of different documents or sites.
    """
    runs = tuple(histories)
    if len(runs) < 2 or set(posteriors) != set(runs):
        raise ValueError(f"{len(runs)} runs, posteriors of {len(posteriors)}: agreement is between two runs or more")
    bounds = {name: training_history(history) for name, history in histories.items()}
    if missing := [name for name in runs if "valid_bound" not in bounds[name]]:
        raise ValueError(f"{missing[0]} has no validation bound yet: train an epoch")
    curves = {name: data["valid_bound"].dropna("step") for name, data in bounds.items()}
    steps = np.array(sorted(set.intersection(*(set(curve["step"].values.tolist()) for curve in curves.values()))), int)
    sites = list(posteriors[runs[0]])
    if any(list(found) != sites for found in posteriors.values()):
        raise ValueError("the runs have different latents: they are not of one recipe")
    similarity, chance, measure = {}, {}, {}
    for site in sites:
        found = [posteriors[name][site] for name in runs]
        measure[site], similarity[site], chance[site] = _similarities(found)
    return SeedAgreement(
        runs,
        np.array([float(curves[name].max()) for name in runs]),
        steps,
        np.stack([curves[name].sel(step=steps).values for name in runs]),
        similarity,
        chance,
        measure,
    )


def _similarities(found: list[Posteriors]) -> tuple[str, np.ndarray, float]:
    """The measure, its values `[R, R]`, and what chance would give."""
    classes = found[0].classes
    values, chance = np.eye(len(found)), []
    for i, j in itertools.combinations(range(len(found)), 2):
        first, second = found[i].mean, found[j].mean
        if classes:
            ids = (mean.reshape(len(mean), -1, classes).argmax(-1) for mean in (first, second))
            values[i, j] = np.mean([adjusted_rand(*pair) for pair in zip(*(a.T for a in ids), strict=True)])
        else:
            values[i, j] = linear_cka(first, second)
            chance.append(cka_by_chance(first, second))
        values[j, i] = values[i, j]
    return ("adjusted Rand index", values, 0.0) if classes else ("linear CKA", values, float(np.mean(chance)))
