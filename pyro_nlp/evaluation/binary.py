"""Whether the probability of a right answer means what it says (layer: evaluation).

A model is calibrated if, of the pairs to which it gives p, a share p is right. Ranking does not ask for that: it is the
same for any increasing function of p (`ranking`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy
from numpy.typing import ArrayLike

from pyro_nlp.evaluation._arviz import measured
from pyro_nlp.evaluation.drawing import colors, empty_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NORMAL_95 = 1.959963984540054
"""97.5 % point of the standard normal."""


@dataclass(frozen=True)
class ReliabilityCurve:
    """Bins of pairs by p, of about equal size; equal p are in one bin, so there may be fewer than were asked for.

    Attributes:
        probability: mean p, ascending, `[bins]`.
        observed: share that is right, `[bins]`.
        count: pairs, int64 `[bins]`.
        low, high: 95 % interval of the share by Wilson 1927 (JASA 22), `[bins]`.
    """

    probability: np.ndarray
    observed: np.ndarray
    count: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __len__(self) -> int:
        return len(self.count)


@dataclass(frozen=True)
class BinaryCalibration:
    """Calibration of p(y = 1) on pairs with a label.

    brier = reliability - resolution + uncertainty + within, exactly. With a bin for each value of p, `within` is zero
    and this is Murphy 1973 (J. Applied Meteorology 12); with fewer it is what bins hide (Stephenson et al. 2008,
    Weather and Forecasting 23).

    Attributes:
        pairs: how many.
        share: of them that is right.
        brier: mean of (p - y)^2; the smaller, the better. Brier 1950 (Monthly Weather Review 78)
        reliability: mean of (mean p - share)^2 of a pair's bin; 0 if calibrated.
        resolution: mean of (share of the bin - share of all)^2; the larger, the more p tells.
        uncertainty: share (1 - share): the Brier score of a p that is `share` for all.
        within: variance of p in a bin, less twice its covariance with y, the mean over pairs.
        expected_error: expected calibration error, the mean of |mean p - share| of a pair's bin. Bins hold equal
            numbers of pairs, as in Nguyen and O'Connor 2015 (EMNLP). It is never below 0, so a calibrated model has
            about 0.8 standard errors of a bin's share (Kumar et al. 2019).
        log_loss: mean of -log p(y), in nats; infinite where a p of 0 or 1 was wrong.
        curve: the bins.
    """

    pairs: int
    share: float
    brier: float
    reliability: float
    resolution: float
    uncertainty: float
    within: float
    expected_error: float
    log_loss: float
    curve: ReliabilityCurve

    @property
    def skill(self) -> float:
        """1 - brier / uncertainty: 1 at best, 0 for a p that is the share for all; NaN where all labels are equal."""
        return 1 - self.brier / self.uncertainty if self.uncertainty else math.nan

    def rows(self) -> dict[str, str]:
        """Measure and value, as printed."""
        parts = f"reliability {self.reliability:.4f}, resolution {self.resolution:.4f}"
        return {
            "Brier score": f"{self.brier:.4f}, {self.uncertainty:.4f} for the share of right answers; {parts}",
            "expected calibration error": f"{self.expected_error:.4f} in {len(self.curve)} bins",
            "log loss": f"{self.log_loss:.4f} nats, {_entropy(self.share):.4f} for the share of right answers",
        }

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` over `bin`: the reliability curve, and the scores without dimension."""
        curve = self.curve
        table: dict[str, Any] = {
            name: (("bin",), getattr(curve, name), "1") for name in ("probability", "observed", "low", "high")
        }
        table["count"] = (("bin",), curve.count, "pairs")
        names = ("share", "brier", "reliability", "resolution", "uncertainty", "within", "expected_error", "skill")
        table |= {name: ((), getattr(self, name), "1") for name in names}
        table["log_loss"] = ((), self.log_loss, "nats")
        return measured(table, attrs={"pairs": self.pairs})


def binary_calibration(probability: ArrayLike, labels: ArrayLike, bins: int = 10) -> BinaryCalibration:
    """Judge p(y = 1) of pairs; those labelled -1 are left out.

    Example:
        >>> found = binary_calibration([0.2, 0.2, 0.2, 0.2, 0.2, 0.8], [0, 0, 0, 0, 1, 1])
        >>> round(found.brier, 3), round(found.expected_error, 3), found.curve.count.tolist()
        (0.14, 0.033, [5, 1])

    Args:
        probability: of a right answer, 0 to 1, `[N]`. Take the sigmoid of a logit in float64: in float32 it is 1 from
            17 on.
        labels: 1 right, 0 wrong, -1 unknown, `[N]`.
        bins: of about equal numbers of pairs.

    Raises:
        ValueError: numbers that do not match, a p that is no probability, other labels, or none that is known.
    """
    p, y = np.asarray(probability, np.float64), np.asarray(labels)
    if p.ndim != 1 or p.shape != y.shape:
        raise ValueError(f"probabilities {p.shape} and labels {y.shape}: give one of each per pair, [N]")
    if not ((p >= 0) & (p <= 1)).all():
        bad = np.flatnonzero(~((p >= 0) & (p <= 1)))
        raise ValueError(
            f"{len(bad)} of {len(p)} numbers are no probabilities, 0 to 1; the first is {p[bad[0]]} at pair {bad[0]}"
        )
    if not (usual := np.isin(y, (-1, 0, 1))).all():
        place = int(np.flatnonzero(~usual)[0])
        raise ValueError(f"pair {place} has the label {y[place]}: give 1 for right, 0 for wrong, -1 for unknown")
    if not (y >= 0).any():
        raise ValueError(f"no pair of {len(y)} has a label, 0 or 1: there is nothing to judge p by")
    if bins < 1:
        raise ValueError(f"{bins} bins: take at least 1")
    p, y = p[y >= 0], y[y >= 0].astype(np.float64)
    bin_of = _equal_mass(p, bins)
    count = np.bincount(bin_of)
    mean, observed = np.bincount(bin_of, p) / count, np.bincount(bin_of, y) / count
    weight, share = count / len(p), float(y.mean())
    inside_p, inside_y = p - mean[bin_of], y - observed[bin_of]
    return BinaryCalibration(
        pairs=len(p),
        share=share,
        brier=float(np.mean((p - y) ** 2)),
        reliability=float(weight @ (mean - observed) ** 2),
        resolution=float(weight @ (observed - share) ** 2),
        uncertainty=share * (1 - share),
        within=float(np.mean(inside_p**2 - 2 * inside_p * inside_y)),
        expected_error=float(weight @ np.abs(mean - observed)),
        log_loss=-float(np.mean(scipy.special.xlogy(y, p) + scipy.special.xlog1py(1 - y, -p))),
        curve=ReliabilityCurve(mean, observed, count, *wilson(observed, count)),
    )


def wilson(share: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """95 % interval of a binomial share of `count` things.      Wilson 1927 (JASA 22)"""
    square = NORMAL_95**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = NORMAL_95 / (1 + square / count) * np.sqrt(share * (1 - share) / count + square / (4 * count**2))
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)


def _equal_mass(p: np.ndarray, bins: int) -> np.ndarray:
    """Bin of each p, from 0 without gaps, int64 `[N]`: by the middle of the ranks of its equals."""
    _, place, ties = np.unique(p, return_inverse=True, return_counts=True)
    middle = np.cumsum(ties) - (ties + 1) / 2
    of_value = np.floor(middle * bins / len(p))
    return np.unique(of_value, return_inverse=True)[1].reshape(-1)[place.reshape(-1)]


def _entropy(share: float) -> float:
    return -float(scipy.special.xlogy(share, share) + scipy.special.xlog1py(1 - share, -share))


def reliability_plot(
    found: BinaryCalibration | Mapping[str, BinaryCalibration], path: Path | None = None, title: str = ""
) -> Figure:
    """Share of right answers against p by bin, with 95 % intervals; on the diagonal a model is calibrated.

    Args:
        found: of one model, or of several by name.
        path: where to save the picture; None to only return it.
        title: above it.
    """
    several = found if isinstance(found, Mapping) else {"": found}
    figure = empty_figure(4.8, 4.6)
    axis = figure.subplots()
    axis.plot([0, 1], [0, 1], color="0.6", linewidth=1, linestyle="--")
    for color, (name, model) in zip(colors(len(several)), several.items(), strict=True):
        curve = model.curve
        error = f"calibration error {model.expected_error:.3f}, Brier {model.brier:.3f}"
        axis.errorbar(
            curve.probability,
            curve.observed,
            yerr=np.maximum(np.stack([curve.observed - curve.low, curve.high - curve.observed]), 0),
            color=color,
            marker="o",
            markersize=4,
            linewidth=1,
            elinewidth=0.7,
            label=f"{name}: {error}" if name else error,
        )
    axis.set(title=title, xlim=(0, 1), ylim=(0, 1), xlabel="mean p(y = 1)", ylabel="share of right answers")
    axis.set_aspect("equal")
    axis.legend(fontsize=7, loc="upper left")
    if path is not None:
        figure.savefig(path, dpi=130)
    return figure
