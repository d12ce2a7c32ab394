"""Pictures of a run: training curves and the latent space (layer: evaluation)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from pyro_nlp.evaluation.collapse import Posteriors

CURVES = ("loss", "reconstruction", "kl")


def curves(histories: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Loss, reconstruction and KL by step, one line a run: training thin, validation with marks."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, measure in zip(figure.subplots(1, len(CURVES)), CURVES, strict=True):
        for color, (name, rows) in zip(_colors(len(histories)), histories.items(), strict=True):
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
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    if labels is None:
        axis.scatter(points[:, 0], points[:, 1], s=4, alpha=0.6)
    else:
        for color, label in zip(_colors(len(names)), range(len(names)), strict=True):
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


def _colors(count: int) -> list[Any]:
    palette = matplotlib.colormaps["tab10" if count <= 10 else "tab20"]
    return [palette(i % palette.N) for i in range(count)]
