"""Pictures of a run: training, the latent space, and posteriors side by side (layer: evaluation).

Each is drawn from data that another function returns: `run.history` and `training_history`, `posteriors`, `mean_space`,
`posterior_to_arviz` and `mcmc_to_arviz`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pyro_nlp.evaluation._arviz import has_inference_data, load
from pyro_nlp.evaluation.collapse import Posteriors
from pyro_nlp.evaluation.drawing import colors, empty_figure
from pyro_nlp.evaluation.latent import MeanSpace

CURVES = ("loss", "reconstruction", "kl")


def curves(histories: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Loss, reconstruction and KL by step, one line a run: training thin, validation with marks."""
    figure = empty_figure(12, 3.6)
    for axis, measure in zip(figure.subplots(1, len(CURVES)), CURVES, strict=True):
        for color, (name, rows) in zip(colors(len(histories)), histories.items(), strict=True):
            for prefix, style in (
                ("", {"linewidth": 0.8, "alpha": 0.6}),
                ("valid.", {"marker": "o", "markersize": 3, "label": name}),
            ):
                points = [(row["step"], total) for row in rows if (total := _measure(row, prefix, measure)) is not None]
                if points:
                    axis.plot(*zip(*points, strict=True), color=color, **style)
        axis.set(title="KL" if measure == "kl" else measure, xlabel="step", ylabel="nats per document")
    figure.axes[0].legend(fontsize=7)
    figure.savefig(path, dpi=130)


def _measure(row: Mapping[str, Any], prefix: str, measure: str) -> float | None:
    if measure != "kl":
        return row.get(prefix + measure)
    values = [value for name, value in row.items() if name.startswith(f"{prefix}kl.")]
    return sum(values) if values else None


def latent_space(
    posterior: Posteriors,
    path: Path,
    labels: np.ndarray | None = None,
    names: Sequence[str] = (),
    title: str = "",
) -> None:
    """Posterior means along their two principal directions, coloured by label; circles at radius 1 and 2."""
    means = posterior.mean - posterior.mean.mean(0)
    _, _, directions = np.linalg.svd(means, full_matrices=False)
    points = posterior.mean @ directions[:2].T
    figure = empty_figure(6.4, 5.6)
    axis = figure.subplots()
    if labels is None:
        axis.scatter(points[:, 0], points[:, 1], s=4, alpha=0.6)
    else:
        for color, label in zip(colors(len(names)), range(len(names)), strict=True):
            axis.scatter(
                points[labels == label, 0], points[labels == label, 1], s=4, alpha=0.6, color=color, label=names[label]
            )
        axis.legend(fontsize=7, markerscale=3)
    for radius in (1, 2):
        circle = np.linspace(0, 2 * np.pi, 200)
        axis.plot(radius * np.cos(circle), radius * np.sin(circle), color="0.6", linewidth=0.7)
    spread = np.sort(posterior.mean.var(0, ddof=1))[::-1]
    axis.set(title=title, xlabel="first principal direction of E[z | x]", ylabel="second")
    axis.text(
        0.01,
        0.01,
        f"largest variances of E[z | x]: {', '.join(f'{v:.2g}' for v in spread[:4])}",
        transform=axis.transAxes,
        fontsize=7,
    )
    figure.savefig(path, dpi=130)


TRAINING = {
    "bound": ("bound", "valid_bound"),
    "reconstruction": ("reconstruction", "valid_reconstruction"),
    "KL": ("kl", "valid_kl"),
    "KL weight": ("kl_weight",),
    "gradient norm": ("gradient_norm",),
    "signal to noise of the gradient": ("snr",),
    "auxiliary losses": ("auxiliary",),
}
"""By title, variables of `training_history`: of training, and of validation."""
STYLES: tuple[dict[str, Any], dict[str, Any]] = ({"linewidth": 0.9}, {"marker": "o", "markersize": 3})
"""Of training, and of validation."""


def training(history: Any, path: Path) -> None:
    """All that `training_history` holds by step, one pair of axes a measure: training thin, validation with marks."""
    shown = {title: names for title, names in TRAINING.items() if any(name in history for name in names)}
    figure = empty_figure(4 * min(len(shown), 3), 3 * -(-len(shown) // 3))
    axes = figure.subplots(-(-len(shown) // 3), min(len(shown), 3), squeeze=False).flat
    for (title, names), axis in zip(shown.items(), axes, strict=False):
        for style, name in zip(STYLES, names, strict=False):
            if name in history:
                _lines(axis, history[name], style, "validation" if name.startswith("valid") else "")
        unit = history[next(name for name in names if name in history)].attrs["units"]
        axis.set(title=title, xlabel="step", ylabel="" if unit == "1" else unit)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(fontsize=7)
    for axis in axes:  # what is left of the last row
        axis.set_axis_off()
    figure.savefig(path, dpi=130)


def _lines(axis: Any, values: Any, style: Mapping[str, Any], of: str) -> None:
    """One variable by step; a line for each site, module or term, in the colour of its place."""
    columns = values.transpose("step", ...).values.reshape(len(values["step"]), -1)
    names = values[values.dims[1]].values.tolist() if values.ndim == 2 else [""]
    for color, name, column in zip(colors(len(names)), names, columns.T, strict=True):
        known = np.isfinite(column)
        label = " ".join(part for part in (name, of) if part)
        axis.plot(values["step"].values[known], column[known], color=color, label=label or None, **style)


def mean_space(found: MeanSpace, path: Path, title: str = "") -> None:
    """The model's posterior mean against the guide's, a point a document; one pair of axes a dimension.

    On the diagonal the guide has kept up; off it inference lags; along the vertical line in the middle the model has
    collapsed (He et al. 2019, figure 1). Latents of three dimensions and more are projected. Hollow points are of
    documents whose k-hat is above 0.7.
    """
    shown = found if found.model.shape[1] <= 2 else found.projected()
    count = shown.model.shape[1]
    figure = empty_figure(4.6 * count, 4.4)
    for dimension, axis in enumerate(figure.subplots(1, count, squeeze=False)[0]):
        paint_mean_space(axis, shown, dimension)
        what = f"dimension {dimension}" if shown is found else "widest direction"
        axis.set(title=f"{title}, {what}" if title else what, xlabel="mean of p(z | x)", ylabel="mean of q(z | x)")
    figure.savefig(path, dpi=130)


def paint_mean_space(
    axis: Any, found: MeanSpace, dimension: int, color: str = "C0", line: str = "0.6", size: float = 9
) -> None:
    """One dimension of a mean space, with its diagonal, the same scale along both axes."""
    model, guide, sure = found.model[:, dimension], found.guide[:, dimension], found.pareto_k <= 0.7
    edge = 1.08 * max(float(np.abs(model).max()), float(np.abs(guide).max()), 0.1)
    axis.plot([-edge, edge], [-edge, edge], color=line, linewidth=1, linestyle="--")
    axis.axvline(0, color=line, linewidth=0.6)
    axis.scatter(model[sure], guide[sure], s=size, color=color, linewidths=0, alpha=0.75)
    axis.scatter(model[~sure], guide[~sure], s=size, facecolors="none", edgecolors=color, linewidths=0.7)
    axis.set(xlim=(-edge, edge), ylim=(-edge, edge))
    axis.set_aspect("equal")


def forest(
    draws: Mapping[str, Any], path: Path, site: str = "z", documents: Sequence[int] = range(5), hdi: float = 0.94
) -> None:
    """Intervals of a latent by document and dimension, the runs' under each other, by ArviZ's forest plot.

    Args:
        draws: by name, what `posterior_to_arviz` or `mcmc_to_arviz` gave for one model and split: draws of a guide and
            of NUTS, say.
        path: of the picture.
        site: the latent.
        documents: which of them.
        hdi: probability of the longer interval; the shorter holds the quartiles.

    Raises:
        ValueError: no draws, or a run without this site or these documents.
    """
    if not draws:
        raise ValueError("a forest plot wants draws of a run")
    for name, data in draws.items():
        have = data["posterior"]
        if site not in have or not set(documents) <= set(have["document"].values.tolist()):
            raise ValueError(f"{name} has no draws of '{site}' for documents {list(documents)}")
    arviz, coords = load(), {"document": list(documents)}
    if not has_inference_data():  # 1.x
        made = arviz.plot_forest(
            dict(draws), var_names=[site], coords=coords, combined=True, ci_kind="hdi", ci_probs=(0.5, hdi)
        )
        made.savefig(path)
        return
    rows = draws[next(iter(draws))]["posterior"][site].sel(coords).isel(chain=0, draw=0).size
    figure = empty_figure(6.4, 1.2 + 0.22 * rows * len(draws))
    options = {"var_names": [site], "coords": coords, "combined": True, "hdi_prob": hdi, "textsize": 8}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ArviZ, on what its next version will do
        axis = figure.subplots()
        arviz.plot_forest(list(draws.values()), model_names=list(draws), ax=axis, show=False, **options)
    if (legend := axis.get_legend()) is not None:  # of one run there is none
        legend.set_loc("upper left")
        legend.set_bbox_to_anchor((1, 1))
    figure.savefig(path, dpi=130)
