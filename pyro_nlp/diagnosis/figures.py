"""The pictures of a report, from data that a diagnosis holds (layer: recipe)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from pyro_nlp.diagnosis.sections import Curve, Dimensions, Projection, Weights
from pyro_nlp.diagnosis.spaces import Sensitivity
from pyro_nlp.diagnosis.svg import LINE, MUTED, SERIES, Picture, picture
from pyro_nlp.evaluation.calibration import Calibration, Uniformity
from pyro_nlp.evaluation.gaps import InferenceGaps
from pyro_nlp.evaluation.latent import Aggregate, MeanSpace
from pyro_nlp.evaluation.plots import paint_mean_space

MOST_POINTS = 1500
"""Points of a scatter; more are thinned."""
BAD = 0.7


def kl_bars(site: str, found: Dimensions) -> Picture:
    """KL by dimension, the dearest first; the active ones in colour."""
    order = np.argsort(-found.kl, kind="stable")
    active = found.active[order]

    def paint(axis: Axes) -> None:
        place = np.arange(len(order))
        for group, color, label in ((active, SERIES[0], "active"), (~active, MUTED, "not active")):
            if group.any():
                axis.bar(place[group], found.kl[order][group], color=color, width=0.75, label=label)
        axis.set(xlabel=f"dimension of {site}, dearest first", ylabel="KL, nats per document")
        axis.set_xticks(place if len(place) <= 20 else place[:: len(place) // 8], minor=False)
        ticks = axis.get_xticks()
        axis.set_xticklabels([str(order[int(t)]) for t in ticks])
        axis.set_ylim(0, max(float(found.kl.max()) * 1.08, 0.1))
        axis.legend()

    alt = (
        f"Bars: KL of {len(order)} dimensions of {site}, {active.sum()} of them active. "
        f"Largest {found.kl.max():.2f} nats, median {np.median(found.kl):.2f}, smallest {found.kl.min():.3f}."
    )
    return picture(paint, alt, "KL(q(z | x) || p(z)) by dimension, averaged over documents")


def khat(found: Weights) -> Picture:
    """k-hat over documents, with the threshold."""
    k = found.pareto_k
    finite = k[np.isfinite(k)]

    def paint(axis: Axes) -> None:
        low, high = min(float(finite.min(initial=0.0)), 0.0), max(float(finite.max(initial=1.0)), 1.0)
        step = (high - low) / 30
        edges = BAD + step * np.arange(np.floor((low - BAD) / step), np.ceil((high - BAD) / step) + 1)
        for group, color, label in ((finite <= BAD, SERIES[0], "k ≤ 0.7"), (finite > BAD, SERIES[1], "k > 0.7")):
            if group.any():
                axis.hist(finite[group], bins=edges.tolist(), color=color, label=label, rwidth=0.92)
        axis.axvline(BAD, color=MUTED, linewidth=1, linestyle="--")
        axis.set(xlabel="Pareto k-hat of a document", ylabel="documents")
        axis.legend()

    summary = found.summary
    alt = (
        f"Histogram of Pareto k-hat over {len(k)} documents: {summary.above:.1%} above 0.7, "
        f"median {summary.pareto_k[0.5]:.2f}, largest {summary.pareto_k[1.0]:.2f}."
    )
    return picture(paint, alt, "Pareto k-hat of every document; above 0.7 its NLL is not to be believed")


def effective(found: Weights) -> Picture:
    """Effective draws over documents."""
    share = np.clip(found.ess / found.draws, 0, 1)

    def paint(axis: Axes) -> None:
        axis.hist(share * 100, bins=np.linspace(0, 100, 31).tolist(), color=SERIES[0], rwidth=0.92)
        axis.set(xlabel=f"effective draws, % of {found.draws}", ylabel="documents", xlim=(0, 100))

    least, median = found.ess.min(), np.median(found.ess)
    alt = f"Histogram of effective draws of {found.draws}: median {median:.0f}, least {least:.1f}."
    return picture(paint, alt, "Effective importance draws of every document (Kish)")


def gaps(found: InferenceGaps) -> Picture:
    """The gap by document in its two parts."""
    parts = {"amortisation": found.amortisation.value, f"approximation, {found.family}": found.approximation.value}
    order = np.argsort(-(found.amortisation.value + found.approximation.value), kind="stable")

    def bars(axis: Axes) -> None:
        below = np.zeros(len(order))
        for (label, values), color in zip(parts.items(), SERIES, strict=False):
            height = np.maximum(values[order], 0)
            axis.bar(np.arange(len(order)), height, bottom=below, color=color, width=0.8, label=label)
            below = below + height
        axis.set(xlabel="documents, the largest gap first", ylabel="nats")
        axis.set_xticks([])
        axis.legend()

    means = {name: float(values.mean()) for name, values in parts.items()}
    said = ", ".join(f"{name} {value:.2f} nats" for name, value in means.items())
    alt = f"Stacked bars of the inference gap of {len(order)} documents: mean {said}."
    return picture(bars, alt, "log p(x) - ELBO of some documents in its two parts; what is below zero is not drawn")


def ranks(name: str, test: Uniformity, found: Calibration) -> Picture:
    """A histogram of ranks and the band of uniform ones."""
    count = len(found.ranks[name])

    def paint(axis: Axes) -> None:
        axis.bar(np.arange(found.bins), test.histogram, width=0.92, color=SERIES[0])
        for edge in test.band:
            axis.axhline(edge, color=MUTED, linewidth=1, linestyle="--")
        axis.axhline(count / found.bins, color=MUTED, linewidth=0.8)
        axis.set(xlabel="rank among the guide's draws", ylabel="simulations")
        axis.set_xticks([0, found.bins - 1], ["lowest", "highest"])

    outside = int(((test.histogram < test.band[0]) | (test.histogram > test.band[1])).sum())
    alt = f"Histogram of {count} ranks of {name}: {outside} of {found.bins} bins outside the band, p {test.ecdf:.3g}."
    return picture(paint, alt, f"{name}: p {test.ecdf:.2g}, spread {test.spread:.2f}", height=2.3)


def aggregate(site: str, found: Aggregate) -> list[Picture]:
    """Moments of the aggregate posterior by dimension; the prior's are lines."""
    made = []
    for what, values, prior in (("mean", found.mean, 0.0), ("variance", found.variance, 1.0)):

        def paint(axis: Axes, what: str = what, values: np.ndarray = values, prior: float = prior) -> None:
            axis.axhline(prior, color=MUTED, linewidth=1, linestyle="--", label="prior")
            axis.vlines(np.arange(len(values)), prior, values, color=SERIES[0], linewidth=1)
            axis.plot(values, "o", color=SERIES[0], markersize=4.5)
            low, high = min(float(values.min()), prior), max(float(values.max()), prior)
            room = max(0.12 * (high - low), 0.1)
            axis.set(xlabel=f"dimension of {site}", ylabel=f"{what} of q(z)", ylim=(low - room, high + room))
            axis.legend()

        alt = (
            f"{what} of the aggregate posterior in {len(values)} dimensions: {values.min():.2f} to {values.max():.2f}."
        )
        made.append(picture(paint, alt.capitalize(), f"{what.capitalize()} of the aggregate posterior", height=2.3))
    return made


def heard(found: Sensitivity) -> Picture:
    """How much the decoder listens to each dimension."""
    order = np.argsort(-found.mean_square, kind="stable")

    def paint(axis: Axes) -> None:
        axis.bar(np.arange(len(order)), found.mean_square[order], color=SERIES[0], width=0.75)
        axis.set(xlabel=f"dimension of {found.site}, the most heard first", ylabel="mean square gradient")
        shown = np.arange(len(order)) if len(order) <= 20 else np.arange(0, len(order), len(order) // 8)
        axis.set_xticks(shown, [str(order[i]) for i in shown])

    most, least = found.mean_square.max(), found.mean_square.min()
    alt = f"Bars: mean square of d log p(x | z) / dz in {len(order)} dimensions, from {most:.3g} down to {least:.3g}."
    return picture(paint, alt, "A step d along a dimension changes p(x | z) by d² / 2 times this, in nats")


def curve(found: Curve) -> Picture:
    """One measure by step."""

    def paint(axis: Axes) -> None:
        many = len(found.training) > 60
        if found.training:
            axis.plot(*_columns(found.training), color=SERIES[0], linewidth=0.9 if many else 1.3, label="training")
        if found.validation:
            axis.plot(*_columns(found.validation), color=SERIES[1], marker="o", markersize=4, label="validation")
        axis.set(xlabel="step", ylabel=found.unit)
        axis.grid(axis="y")
        if found.training and found.validation:
            axis.legend()

    parts = [
        f"{name} from {points[0][1]:.3g} to {points[-1][1]:.3g}"
        for name, points in (("training", found.training), ("validation", found.validation))
        if points
    ]
    alt = f"{found.measure} by training step: {', '.join(parts)}."
    return picture(paint, alt, found.measure + (f", {found.unit}" if found.unit else ""), height=2.3)


def _columns(points: Sequence[tuple[int, float]]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    steps, values = zip(*points, strict=True)
    return steps, values


def latent_space(site: str, found: Projection) -> Picture:
    """Posterior means along their principal directions, coloured by label."""
    step = max(1, -(-len(found.points) // MOST_POINTS))
    points, labels = found.points[::step], None if found.labels is None else found.labels[::step]
    groups = _groups(labels, found.names, len(points))

    def paint(axis: Axes) -> None:
        for (label, group), color in zip(groups.items(), (*SERIES[: len(groups) - 1], MUTED), strict=True):
            shade = SERIES[0] if len(groups) == 1 else color
            axis.scatter(points[group, 0], points[group, 1], s=7, color=shade, linewidths=0, alpha=0.75, label=label)
        axis.set(xlabel=f"first direction, {found.explained[0]:.0%} of the variance")
        axis.set_ylabel(f"second, {found.explained[1]:.0%}")
        if len(groups) > 1:
            axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=2, handletextpad=0.1)
        axis.set_aspect("equal", adjustable="datalim")

    coloured = f", coloured by {len(groups)} labels" if len(groups) > 1 else ""
    alt = (
        f"Scatter of {len(points)} posterior means of {site} along their two principal directions{coloured}; "
        f"these hold {found.explained[:2].sum():.0%} of the variance."
    )
    return picture(paint, alt, f"Posterior means of {site}, seen from where they spread most", height=2.9)


def means(found: MeanSpace) -> list[Picture]:
    """The model's posterior means against the guide's, a picture for each dimension; three and more are projected."""
    shown = found if found.model.shape[1] <= 2 else found.projected()
    made = []
    for dimension in range(shown.model.shape[1]):

        def paint(axis: Axes, dimension: int = dimension) -> None:
            paint_mean_space(axis, shown, dimension, SERIES[0], MUTED)
            axis.set(xlabel="mean of the model's p(z | x)", ylabel="mean of the guide's q(z | x)")

        what = f"Dimension {dimension}" if shown is found else "Along the direction of most difference"
        lag, spread = shown.lag[dimension], shown.model[:, dimension].std()
        alt = (
            f"Scatter of {len(shown.model)} documents: the guide's mean against the model's; root mean square distance "
            f"from the diagonal {lag:.2f}; the model's means spread by {spread:.2f}."
        )
        made.append(picture(paint, alt, f"{what}: {lag:.2f} from the diagonal", height=3.4))
    return made


def _groups(labels: np.ndarray | None, names: Sequence[str], count: int) -> dict[str, np.ndarray]:
    """Masks by label, the most frequent nine first and the rest together."""
    if labels is None or not len(names):
        return {"documents": np.ones(count, bool)}
    sizes = np.bincount(labels[labels >= 0], minlength=len(names))
    kept = [int(i) for i in np.argsort(-sizes, kind="stable")[: len(SERIES) - 1] if sizes[i]]
    found = {names[i]: labels == i for i in kept}
    rest = ~np.isin(labels, kept)
    return found | ({"others": rest} if rest.any() else {"": rest})


def differences(name: str, reference: str, values: np.ndarray) -> Picture:
    """Paired differences of the NLL, document by document."""
    low, high = np.quantile(values, (0.005, 0.995))
    edge = max(abs(float(low)), abs(float(high)), 1e-3)

    def paint(axis: Axes) -> None:
        axis.hist(
            np.clip(values, -edge, edge), bins=np.linspace(-edge, edge, 41).tolist(), color=SERIES[0], rwidth=0.92
        )
        axis.axvline(0, color=MUTED, linewidth=1)
        axis.axvline(float(values.mean()), color=SERIES[1], linewidth=1.6, label=f"mean {values.mean():+.2f}")
        axis.set(xlabel=f"NLL of {name} - NLL of {reference}, nats", ylabel="documents")
        axis.legend()

    better = float((values < 0).mean())
    alt = (
        f"Histogram of paired differences in NLL: mean {values.mean():+.2f} nats; "
        f"{name} is better on {better:.0%} of documents."
    )
    return picture(paint, alt, f"{name} against {reference}, document by document: left of zero, {name} is better")


def together(title: str, unit: str, lines: Mapping[str, Sequence[tuple[int, float]]], runs: Sequence[str]) -> Picture:
    """One measure of several of the runs, each in its own colour on every picture."""

    def paint(axis: Axes) -> None:
        for name, points in lines.items():
            axis.plot(
                *_columns(points), color=SERIES[runs.index(name) % len(SERIES)], marker="o", markersize=3.5, label=name
            )
        axis.set(xlabel="step", ylabel=unit)
        axis.grid(axis="y", color=LINE)
        if len(lines) > 3:  # many names cover the lines
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3, handlelength=1.4, columnspacing=1.2)
        else:
            axis.legend()

    ends = ", ".join(f"{name} ends at {points[-1][1]:.3g}" for name, points in lines.items())
    return picture(paint, f"{title} by step of {len(lines)} runs: {ends}.", f"{title} on the validation split")
