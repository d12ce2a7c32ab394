"""Whether importance weights can be trusted, document by document: Pareto k-hat, effective draws (layer: evaluation).

The weights p(x, z) / q(z | x) of a guide that misses part of a posterior have a heavy right tail. A generalised Pareto
distribution fitted to their largest says how heavy: its shape k. Up to 1/2 their variance is finite; above 0.7 an
average of any practical number of them is off by more than its standard error admits, and above 1 it has no mean. What
no draw has reached, a second mode say, k-hat cannot see either.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from pyro_nlp.data.splits import Split
from pyro_nlp.evaluation._arviz import measured
from pyro_nlp.evaluation._drawn import require_documents
from pyro_nlp.evaluation.discrete import summable
from pyro_nlp.evaluation.documents import as_float64, judging
from pyro_nlp.evaluation.likelihood import log_weights
from pyro_nlp.inference.terms import not_finite
from pyro_nlp.inference.training import Precision

FEWEST = 5
"""Weights in a tail that a Pareto distribution is fitted to."""
SMALLEST = 5 * (FEWEST - 1) + 1
"""Draws that give such a tail."""
TIE = 1e-6
"""Relative difference of log-weights that float32 cannot tell from none."""


@dataclass(frozen=True)
class Smoothed:
    """Weights whose tail was replaced by the quantiles of the Pareto distribution fitted to it.

    Attributes:
        log_weights: not normalised, none above the largest raw one, `[draws, documents]`.
        pareto_k: shape of the tail, `[documents]`; -inf where the largest weights are all equal (exact weights, no
            tail), inf where fewer than five stand above the rest (a tail that cannot be fitted).
    """

    log_weights: np.ndarray
    pareto_k: np.ndarray


def pareto_smooth(log_weights: np.ndarray, *, chunk: int = 2**20) -> Smoothed:
    """Pareto-smoothed importance sampling, all documents at once.       Vehtari et al. 2024 (JMLR 25, 72), algorithm 1

    The tail is the largest ceil(min(S / 5, 3 sqrt(S))) of S weights; the fit is that of Zhang and Stephens 2009
    (Technometrics 51, 3) with the weak prior of the paper (k is drawn to 1/2 by ten observations).

    Example:
        >>> heavy = np.random.default_rng(0).pareto(1.0, (4000, 1)) + 1
        >>> bool(0.8 < pareto_smooth(np.log(heavy)).pareto_k[0] < 1.2)
        True

    Args:
        log_weights: log p(x, z) - log q(z | x) of independent draws, `[draws, documents]`; -inf is a weight of zero.
        chunk: numbers held at once beside input and output; bounds the memory.

    Raises:
        ValueError: a weight is NaN or infinite, or the draws are too few.
    """
    draws, documents = log_weights.shape
    require_draws(draws)
    require_weights(log_weights, np.arange(documents))
    tail = math.ceil(min(draws / 5, 3 * math.sqrt(draws)))
    step = max(1, chunk // (2 * draws + 2 * tail * _grid(tail)))
    smoothed = np.empty((draws, documents))
    k = np.empty(documents)
    for start in range(0, documents, step):
        part = slice(start, start + step)
        smoothed[:, part], k[part] = _smooth(log_weights[:, part], tail)
    return Smoothed(smoothed, k)


def require_draws(draws: int) -> None:
    """Raise ValueError if so few draws have no tail."""
    if draws < SMALLEST:
        raise ValueError(f"{draws} draws are too few to fit a tail: k-hat needs at least {SMALLEST}, better 500")


def require_weights(log_weights: np.ndarray, rows: np.ndarray, cause: str | None = None) -> None:
    """Raise ValueError if a log-weight `[draws, B]` is NaN or infinite, by its document; -inf is a weight of zero."""
    bad = np.isnan(log_weights) | (log_weights == np.inf)
    if bad.any():
        column = int(bad.any(0).argmax())
        what = "NaN" if np.isnan(log_weights[:, column]).any() else "infinite"
        because = f": {cause}" if cause else ""
        raise ValueError(
            f"document {rows[column]}: {bad[:, column].sum()} of {len(bad)} importance weights are {what}{because}"
        )


def _grid(tail: int | np.ndarray) -> int:
    """Points of the grid that the fit of a tail of this size integrates over."""
    return 30 + int(np.max(tail) ** 0.5)


def _smooth(log_weights: np.ndarray, tail: int) -> tuple[np.ndarray, np.ndarray]:
    """`pareto_smooth` of some documents: smoothed `[S, B]` and k `[B]`."""
    raw = np.array(log_weights.T, dtype=np.float64, order="C")  # [B, S]: a document's draws side by side
    peak = raw.max(1)
    shift = np.where(np.isfinite(peak), peak, 0.0)
    x = raw - shift[:, None]
    top = np.argpartition(x, -tail - 1, axis=1)[:, -tail - 1 :]
    top = np.take_along_axis(top, np.take_along_axis(x, top, 1).argsort(1, kind="stable"), 1)
    largest = np.take_along_axis(x, top, 1)  # ascending; the first is the cutoff
    floor = np.exp(np.maximum(largest[:, :1], math.log(np.finfo(float).tiny)))
    excess = np.maximum(np.exp(largest[:, 1:]) - floor, 0.0)  # [B, tail], zeros at the cutoff
    count = (excess > 0).sum(1)
    flat = largest[:, 0] >= -TIE * np.maximum(1.0, np.abs(shift))
    k = np.where(flat & np.isfinite(peak), -np.inf, np.inf)
    fitted = np.flatnonzero(~flat & (count >= FEWEST))
    if len(fitted):
        excess, floor, count = excess[fitted], floor[fitted], count[fitted]
        shape, scale = _fit(excess, count)
        good = np.isfinite(shape) & np.isfinite(scale)
        k[fitted] = np.where(good, shape, np.inf)
        rank = np.arange(tail) - (tail - count[:, None])
        share = np.clip((rank + 0.5) / count[:, None], 0.0, None)
        values = np.minimum(np.log(_quantile(share, shape[:, None], scale[:, None]) + floor), 0.0)
        keep = (rank < 0) | ~good[:, None]
        values = np.where(keep, largest[fitted, 1:], values)
        raw[fitted[:, None], top[fitted, 1:]] = values + shift[fitted, None]
    return raw.T, k


def _fit(excess: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shape k and scale of a generalised Pareto distribution for each row of `excess` `[B, M]`.

    A row ascends, and only its last `count` entries are data; the others are zero, which adds nothing to a sum of
    log(1 - b x). The likelihood, with k solved for, is averaged over a grid of b = -k / scale.
    """
    n = count[:, None]
    points = 30 + np.sqrt(count).astype(int)[:, None]
    j = np.arange(1, _grid(count) + 1)
    quartile = np.take_along_axis(excess, excess.shape[1] - n + (n / 4 + 0.5).astype(int) - 1, 1)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        b = (1 - np.sqrt(points / (j - 0.5))) / (3 * quartile) + 1 / excess[:, -1:]
        k = np.log1p(-b[:, :, None] * excess[:, None, :]).sum(2) / n
        profile = n * (np.log(-b / k) - k - 1)
        profile = np.where((j <= points) & ~np.isnan(profile), profile, -np.inf)
        weight = np.exp(profile - profile.max(1, keepdims=True))
        weight /= weight.sum(1, keepdims=True)
        weight[weight < 10 * np.finfo(float).eps] = 0.0
        b = (np.where(weight > 0, b, 0.0) * weight).sum(1) / weight.sum(1)
        shape = np.log1p(-b[:, None] * excess).sum(1) / count
        return (count * shape + 10 * 0.5) / (count + 10), -shape / b


def _quantile(share: np.ndarray, shape: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Quantiles of the generalised Pareto distribution."""
    exponential = -np.log1p(-share)
    small = np.abs(shape) < np.finfo(float).eps
    shape = np.where(small, 1.0, shape)
    return scale * np.where(small, exponential, np.expm1(shape * exponential) / shape)


def good_k(draws: int) -> float:
    """k-hat up to which S draws are enough: min(1 - 1 / log10(S), 0.7), and 0.7 where no draws are needed.

    Vehtari et al. 2024 (JMLR 25, 72).
    """
    return min(1 - 1 / math.log10(draws), 0.7) if draws else 0.7


def log_mean(log_weights: np.ndarray) -> np.ndarray:
    """log (1/S) sum_s w_s, `[documents]`; -inf where every weight is zero."""
    peak = log_weights.max(0)
    shift = np.where(np.isfinite(peak), peak, 0.0)
    with np.errstate(divide="ignore"):
        found: np.ndarray = np.log(np.exp(log_weights - shift).mean(0)) + shift
    return found


def effective_draws(log_weights: np.ndarray) -> np.ndarray:
    """(sum w)^2 / sum w^2, `[documents]`; zero where every weight is zero.       Kish 1965, Survey sampling"""
    peak = log_weights.max(0)
    weight = np.exp(log_weights - np.where(np.isfinite(peak), peak, 0.0))
    found: np.ndarray = np.where(np.isfinite(peak), weight.sum(0) ** 2 / np.maximum((weight**2).sum(0), 1.0), 0.0)
    return found


@dataclass(frozen=True)
class ImportanceSummary:
    """The distribution over documents of what `ImportanceDiagnostics` holds.

    Attributes:
        documents, draws: how many; no draws where the weights are exact.
        above: share of documents with k-hat above 0.7.
        threshold: min(1 - 1 / log10(S), 0.7), above which S draws are too few.
        above_threshold: share of documents above it.
        pareto_k, ess: quantiles over documents, by level. Levels are those of documents, not interpolated.
        warnings: what is wrong, one sentence each; empty where nothing is.
    """

    documents: int
    draws: int
    above: float
    threshold: float
    above_threshold: float
    pareto_k: dict[float, float]
    ess: dict[float, float]
    warnings: tuple[str, ...] = ()

    def rows(self) -> dict[str, str]:
        """Measure and value, as printed."""
        if not self.draws:
            return {"importance weights": f"exact, of {self.documents:,} documents (k-hat -inf)"}
        rows = {
            "documents, draws": f"{self.documents:,}, {self.draws:,}",
            "k-hat above 0.7": f"{self.above:.1%} of documents",
            f"k-hat above {self.threshold:.2f}, what these draws allow": f"{self.above_threshold:.1%} of documents",
            "k-hat at " + ", ".join(f"{q:.0%}" for q in self.pareto_k): _listed(self.pareto_k, ".2f"),
            "effective draws at " + ", ".join(f"{q:.0%}" for q in self.ess): _listed(self.ess, ".1f"),
        }
        return rows | {f"warning {i}": text for i, text in enumerate(self.warnings, 1)}

    def __str__(self) -> str:
        return "\n".join(f"{measure}: {value}" for measure, value in self.rows().items())


def _listed(quantiles: dict[float, float], style: str) -> str:
    return ", ".join(format(value, style) for value in quantiles.values())


QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class ImportanceDiagnostics:
    """Importance weights of every document, in corpus order: whether they can be trusted, and what they say.

    Attributes:
        pareto_k: k-hat, `[N]`; -inf where the weights are equal, inf where fewer than five stand above the rest.
        ess: effective draws by Kish, of raw weights, `[N]`; inf where the weights are exact.
        ess_smoothed: of smoothed weights, `[N]`.
        nll: -log (1/S) sum_s w_s, `[N]`: that of `importance_nll`, draw for draw.
        nll_smoothed: the same with smoothed weights, `[N]`: less noise where k is below 0.7.
        standard_error: of `nll` by the delta method, `[N]`; too small where k is above 1/2.
        draws: per document, S; 0 where the weights are exact.
    """

    pareto_k: np.ndarray
    ess: np.ndarray
    ess_smoothed: np.ndarray
    nll: np.ndarray
    nll_smoothed: np.ndarray
    standard_error: np.ndarray
    draws: int

    def summary(self) -> ImportanceSummary:
        """The distribution over documents: never one number for the joint, which the worst document would decide."""
        threshold = good_k(self.draws)
        return ImportanceSummary(
            documents=len(self.pareto_k),
            draws=self.draws,
            above=float((self.pareto_k > 0.7).mean()),
            threshold=threshold,
            above_threshold=float((self.pareto_k > threshold).mean()),
            pareto_k=_quantiles(self.pareto_k),
            ess=_quantiles(self.ess),
            warnings=tuple(self._warnings(threshold)),
        )

    def to_xarray(self) -> Any:
        """The same as an `xarray.Dataset` over `document`, with units."""
        units = {"pareto_k": "1", "ess": "draws", "ess_smoothed": "draws"}
        names = ("pareto_k", "ess", "ess_smoothed", "nll", "nll_smoothed", "standard_error")
        variables = {name: (("document",), getattr(self, name), units.get(name, "nats")) for name in names}
        return measured(variables, attrs={"draws": self.draws})

    def _warnings(self, threshold: float) -> Iterator[str]:
        no_tail = np.isposinf(self.pareto_k)
        high = np.isfinite(self.pareto_k) & (self.pareto_k > threshold)
        lost = no_tail & (self.ess < FEWEST)
        if lost.any():
            yield (
                f"{_some(lost)} have fewer than {FEWEST} weights that count among {self.draws:,}: the guide misses "
                "their posterior, and how far their NLL is off cannot be told"
            )
        if (no_tail & ~lost).any():
            yield (
                f"{_some(no_tail & ~lost)} have fewer than {FEWEST} weights above many equal ones: k-hat cannot be "
                "told, draw more"
            )
        if high.any():
            yield (
                f"{_some(high)} have k-hat above {threshold:.2f}: {self.draws:,} draws are too few for their NLL and "
                "its standard error; widen the guide or draw more"
            )


def _some(chosen: np.ndarray) -> str:
    return f"{chosen.sum():,} of {len(chosen):,} documents (the first is {int(chosen.argmax())})"


def _quantiles(values: np.ndarray) -> dict[float, float]:
    found = np.quantile(values, QUANTILES, method="inverted_cdf")  # interpolation between infinities is NaN
    return dict(zip(QUANTILES, found.tolist(), strict=True))


def importance_diagnostics(
    model: nn.Module,
    guide: nn.Module | None,
    split: Split,
    draws: int = 500,
    *,
    seed: int = 0,
    batch_size: int = 8,
    chunk: int = 800,
    precision: Precision = "float32",
) -> ImportanceDiagnostics:
    """How well a guide covers the posterior of every document, by its importance weights.

    Discrete latents are summed out where they can be (`discrete.summable`): k-hat then judges the guide's other
    latents. Where nothing else is latent the weights are exact: every one is p(x), and k-hat is -inf.

    Args:
        model, guide: what is judged.
        split: the documents; one is enough.
        draws: per document, S; at least 21, so that the tail has five.
        seed: of the draws.
        batch_size: documents taken together.
        chunk: documents x draws x summed values decoded at once; bounds the memory.
        precision: of the networks.

    Raises:
        NoDensityError: the guide is a point.
        ValueError: too few draws, no latents, or a weight that is not a number; names the document.
    """
    require_documents(split)
    summed = summable(model, guide, split)
    if summed.all and not summed.sites:
        raise ValueError(
            f"{type(model).__name__} has no latents, so there is no guide to judge: importance_nll gives its exact "
            "likelihood"
        )
    exact = guide is None or summed.all
    if not exact:
        require_draws(draws)
    names = ("pareto_k", "ess", "ess_smoothed", "nll", "nll_smoothed", "standard_error")
    found = {name: np.zeros(len(split)) for name in names}
    with judging(model, guide, seed, precision):
        for rows, batch, drawn in log_weights(model, guide, split, draws, summed, batch_size, chunk):
            weights = as_float64(drawn)
            if np.isnan(weights).any() or np.isposinf(weights).any():
                require_weights(weights, rows, not_finite(model, guide, batch))
            judged = _exact(weights) if exact else _judge(weights)
            for name, value in zip(names, judged, strict=True):
                found[name][rows] = value
    return ImportanceDiagnostics(**found, draws=0 if exact else draws)


def _judge(weights: np.ndarray) -> tuple[np.ndarray, ...]:
    """The columns of `ImportanceDiagnostics` of some documents, by their log-weights `[draws, B]`."""
    smoothed = pareto_smooth(weights)
    ess = effective_draws(weights)
    # the squares of normalised weights sum to 1 / ESS
    error = np.sqrt(np.maximum(1 / np.maximum(ess, 1.0) - 1 / len(weights), 0))
    smooth_ess = effective_draws(smoothed.log_weights)
    return smoothed.pareto_k, ess, smooth_ess, -log_mean(weights), -log_mean(smoothed.log_weights), error


def _exact(weights: np.ndarray) -> tuple[np.ndarray, ...]:
    nll = -weights[0]
    infinite, zero = np.full(len(nll), np.inf), np.zeros(len(nll))
    return -infinite, infinite, infinite, nll, nll, zero
