"""How compressions are shown: what is kept of a source, where the guide points, how sure it is (layer: recipe)."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes

from pyro_nlp.diagnosis.alignment import heat_map
from pyro_nlp.diagnosis.blocks import Block, Cell, Grid, Marked, Pictures, Step, Steps, Words, number
from pyro_nlp.diagnosis.compressions import WIDEST, Aligned, PosteriorOfCompressions
from pyro_nlp.diagnosis.svg import MUTED, SERIES, Picture, picture

LEAD = (
    "Compressions by the guide q(c | s), none of them known. The entropy of a step is what q leaves open after the "
    "words before it; where draws agree, q is sure of its compression, rightly or not: k-hat says whether the model "
    "agrees with q, and cannot see what q never draws, as words that are not in the source where it only points. Of a "
    "source, words are marked by the share of the draws that keep them, and in the drawing the probability of every "
    "word of the source (across) is that of being written next, along the compression (down)."
)
BAD = 0.7
FEWEST = 0.05
"""Share of the sources that a step has to have, to be drawn."""


def compressions(found: PosteriorOfCompressions) -> list[Block]:
    """The table, pictures, and sources one by one."""
    rows = [[Cell(measure), Cell(value)] for measure, value in found.rows().items()]
    drawings = [_steps(found), _agreement(found)]
    if found.pareto_k is not None and np.isfinite(found.pareto_k).any():
        drawings.append(_weights(found, found.pareto_k))
    about = f"{len(found.entropy):,} sources, {found.draws} draws of each."
    return [
        Words(about),
        Grid("The posterior over compressions", ["measure", "value"], rows),
        Pictures(drawings),
        Steps("Sources", [_step(one, found.draws) for one in found.shown]),
    ]


def _step(one: Aligned, draws: int) -> Step:
    by_share = [
        Marked(word, float(share), f"kept in {round(share * draws)} of {draws} draws")
        for word, share in zip(one.words, one.share, strict=True)
    ]
    by_best = [
        Marked(word, float(kept), "kept" if kept else "left out")
        for word, kept in zip(one.words, one.kept.tolist(), strict=True)
    ]
    text = " ".join(one.words)
    blank = [Cell(""), Cell("")]
    rows = [
        [Cell("source, as beam search keeps it"), *blank, Cell(text, wide=True, marked=by_best)],
        [Cell("source, as draws keep it"), *blank, Cell(text, wide=True, marked=by_share)],
        [Cell("beam search"), _probability(one.best.log_q), Cell(""), Cell(one.best.text, wide=True)],
    ]
    for draw in one.draws:
        posterior = Cell("") if draw.posterior is None else number(draw.posterior, 3)
        rows.append([Cell("draw"), _probability(draw.log_q), posterior, Cell(draw.text, wide=True)])
    grid = Grid(f"Compressions of source {one.source}", ["", "q(c | s)", "p(c | s), of draws", "text"], rows)
    drawing = _pointer(one) if len(one.words) <= WIDEST else None
    return Step(f"Source {one.source:,}: {one.why}", [("reference", one.reference)], drawing, grid)


def _probability(log_q: float) -> Cell:
    return Cell(f"{math.exp(log_q):.2g}", log_q)


def _pointer(one: Aligned) -> Picture:
    said = "; ".join(
        f"{word}: {one.words[int(row.argmax())]} {row.max():.2f}"
        for word, row in zip(one.target, one.pointed, strict=True)
    )
    alt = f"Heat map of the guide's next word; the likeliest of the source for every word written: {said}."
    return heat_map(one.words, one.target, [("q of the next word", one.pointed)], alt)


def _steps(found: PosteriorOfCompressions) -> Picture:
    there = found.reached >= FEWEST
    place = np.flatnonzero(there) + 1

    def paint(axis: Axes) -> None:
        axis.fill_between(place, found.lower[there], found.upper[there], color=SERIES[0], alpha=0.2, linewidth=0)
        axis.plot(place, found.by_step[there], color=SERIES[0], marker="o", markersize=3, label="mean over sources")
        axis.set(xlabel="step", ylabel="entropy of q at the step, nats", ylim=(0, None))
        axis.legend()

    values = ", ".join(f"{p}: {v:.2f}" for p, v in zip(place.tolist(), found.by_step[there], strict=True))
    alt = f"Entropy of q(c_j | c_<j, s) by step, nats, the mean over sources: {values}."
    return picture(paint, alt, "What q leaves open at every step; the band holds the middle half of the sources")


def _agreement(found: PosteriorOfCompressions) -> Picture:
    def paint(axis: Axes) -> None:
        bins = np.linspace(0, 1, 21).tolist()
        axis.hist(found.same, bins=bins, color=SERIES[0], alpha=0.75, label="same word at a position")
        axis.hist(found.overlap, bins=bins, color=SERIES[1], alpha=0.55, label="words in common")
        axis.set(xlabel="agreement of two draws", ylabel="sources", xlim=(0, 1))
        axis.legend()

    alt = (
        f"Histograms over {len(found.same)} sources: two draws have the same word at {found.same.mean():.2f} of "
        f"positions and {found.overlap.mean():.2f} of their words in common, on average."
    )
    return picture(paint, alt, "How much two draws of a source have in common")


def _weights(found: PosteriorOfCompressions, pareto_k: np.ndarray) -> Picture:
    k = np.where(np.isfinite(pareto_k), pareto_k, np.nan)

    def paint(axis: Axes) -> None:
        bad = k > BAD
        for group, color, label in ((k <= BAD, SERIES[0], "k ≤ 0.7"), (bad, SERIES[1], "k > 0.7")):
            if group.any():
                axis.scatter(found.entropy[group], k[group], s=14, color=color, linewidths=0, alpha=0.8, label=label)
        axis.axhline(BAD, color=MUTED, linewidth=1, linestyle="--")
        axis.set(xlabel="entropy of q(c | s), nats", ylabel="k-hat")
        axis.legend()

    finite = int(np.isfinite(pareto_k).sum())
    alt = f"Scatter of {finite} sources: k-hat by entropy of q; {int((k > BAD).sum())} are above 0.7."
    caption = "Importance weights of a source by how much its compressions spread"
    if finite < len(k):
        caption += f"; {len(k) - finite} without a tail to fit are left out"
    return picture(paint, alt, caption)
