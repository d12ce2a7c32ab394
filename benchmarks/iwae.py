"""Importance-weighted training of a sentence VAE, and what more particles do to the guide's gradient.

Protocol, fixed before looking. Text: summary lines of docstrings of at most 8 words (vocabulary: seen 8 times or more),
8,000 of them for training and 500 test sentences, both by a fixed permutation. Model: `SentenceVAE`, LSTM of width 128,
16 latent dimensions, its decoder inputless (it reads z and never the words): the autoregressive one of `make demo`
collapses when trained plainly (KL 0.00 there), and the bounds of a collapsed model are equal for every k.

1. Bounds. `IWAE(k)` at k = 1, 5, 50 from the same initial weights, with the optimiser of the demo (Adam, 5e-3 falling
   to 5e-4, batch 72), 4 epochs, no KL annealing, products in bf16 where the machine is faster at it (`auto`); the
   parameters are the last ones. Every model is judged by one set of 500 draws a sentence: L_k is the mean over the
   500 / k groups of k draws, NLL that of all 500. Groups nest, so L_1 <= L_5 <= L_50 <= -NLL holds draw by draw; it is
   measured by how much, with the standard error of the paired difference over sentences.
2. Signal-to-noise ratio of the guide's gradient, |E g| / sqrt(sum Var g) over all its parameters (Rainforth et al. 2018
   look at single weights), at k = 1, 2, 5, 10, 20, 50 for `Pathwise` gradients plain, stl and dreg, at a model in the
   midst of its training (`IWAE(5)`, one epoch of the above), on 4 test sentences, from 800 draws in float32. |E g|^2 is
   freed of the noise of its estimate, and the standard error is the jackknife's over 20 blocks. Theory: plain falls
   like k^-1/2, dreg rises like k^1/2. The row `exponent` is the slope of log SNR over log k from 5 to 50.

One thing was changed after a first look: that run kept, as `fit` does, the parameters of the best one-draw ELBO on
validation data, which stops a model early for having been trained on another bound.
"""

from __future__ import annotations

import argparse
import math
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyro
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.common import Row, environment, row, save
from benchmarks.estimators import ShortDocstrings
from pyro_nlp import IWAE, Adam, Linear, Pathwise, Run, Strategy, Training, compare, terms
from pyro_nlp.cli import tune_allocator
from pyro_nlp.data import TextBatch, TextSplit
from pyro_nlp.evaluation.documents import as_float64, batches, judging
from pyro_nlp.guides.gaussian import GaussianGuide
from pyro_nlp.inference.loop import Loop
from pyro_nlp.models.sentence_vae import SentenceVAE
from pyro_nlp.nn import InputlessDecoder, LSTMEncoder

SEED, LATENT, WIDTH, EPOCHS, SENTENCES = 0, 16, 128, 4, 500
TRAINED, SAMPLES = (1, 5, 50), 500
PARTICLES, DRAWS, BLOCKS = (1, 2, 5, 10, 20, 50), 800, 20
Gradient = Literal["plain", "stl", "dreg"]
GRADIENTS: tuple[Gradient, ...] = ("plain", "stl", "dreg")
FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "snr.png"
RAINFORTH = "Rainforth et al. 2018 (arXiv:1802.04537), theorem 1"
TUCKER = "Tucker et al. 2019 (arXiv:1810.04152)"


def train(corpus: ShortDocstrings, particles: int, epochs: int) -> Run:
    """A model and a guide, from the same weights whatever k is."""
    torch.manual_seed(SEED)
    size = len(corpus.vocabulary)
    model = SentenceVAE(size, LATENT, partial(InputlessDecoder, embedding=WIDTH, width=WIDTH))
    guide = GaussianGuide(size, LATENT, partial(LSTMEncoder, embedding=WIDTH, width=WIDTH))
    training = Training(
        epochs=epochs,
        batch_size=72,
        optimizer=Adam(Linear(0.005, 0.0005, epochs=EPOCHS)),
        precision="auto",
        device="cpu",
    )
    objective = Strategy(bound=IWAE(particles)).compile(model, guide, corpus.train.batch(np.arange(4)))
    loop = Loop(objective, corpus, training, seed=SEED)
    with pyro.validation_enabled(False):
        for _ in range(epochs):
            for _ in loop.steps():
                pass
            loop.next_epoch()
    return Run(model.eval(), guide.eval(), corpus)


def log_weights(run: Run, split: TextSplit) -> np.ndarray:
    """log p(x, z) - log q(z | x) of `SAMPLES` draws for every sentence, `[SAMPLES, N]`."""
    found = np.zeros((SAMPLES, len(split)))
    with judging(run.model, run.guide, SEED, "auto"):
        for rows, batch in batches(run.model, split, 16):
            parts = [terms(run.model, run.guide, batch, particles=50).log_weight for _ in range(SAMPLES // 50)]
            found[:, rows] = as_float64(torch.cat(parts))
    return found


def bound(log_weight: np.ndarray, k: int) -> np.ndarray:
    """L_k of every sentence, by groups of k draws, `[N]`."""
    groups = log_weight.reshape(-1, k, log_weight.shape[1])
    return (np.logaddexp.reduce(groups, 1) - math.log(k)).mean(0)


def bounds(corpus: ShortDocstrings, more: dict[str, Any]) -> tuple[list[Row], dict[int, list[float]]]:
    """Part 1."""
    rows: list[Row] = []
    nll: dict[int, np.ndarray] = {}
    curves: dict[int, list[float]] = {}
    for k in TRAINED:
        run = train(corpus, k, EPOCHS)
        weights = log_weights(run, corpus.test)
        each = {j: bound(weights, j) for j in TRAINED}
        nll[k] = -bound(weights, SAMPLES)
        curves[k] = [float(each[j].mean()) for j in TRAINED] + [-float(nll[k].mean())]
        name = f"trained with k = {k}"
        for j in TRAINED:
            error = each[j].std(ddof=1) / len(nll[k]) ** 0.5
            rows.append(_row(f"{name}: test L_{j}", each[j].mean(), "nats", error, more))
        for j, i in ((5, 1), (50, 5)):
            gain = compare(each[j], each[i])
            rows.append(_row(f"{name}: L_{j} - L_{i}, paired", gain.mean, "nats", gain.standard_error, more))
        error = nll[k].std(ddof=1) / len(nll[k]) ** 0.5
        rows.append(_row(f"{name}: NLL, {SAMPLES} importance samples", nll[k].mean(), "nats", error, more))
        print(f"k = {k}: {curves[k]}", flush=True)
    for k in TRAINED[1:]:
        gain = compare(nll[k], nll[1])
        what = f"NLL, trained with k = {k} minus k = 1, paired"
        rows.append(_row(what, gain.mean, "nats", gain.standard_error, more))
    return rows, curves


def _row(measure: str, value: float, unit: str, error: float, more: dict[str, Any], **rest: Any) -> Row:
    return row(measure, round(float(value), 3), unit, standard_error=round(float(error), 3), environment=more, **rest)


# ---- signal to noise ------------------------------------------------------------------------------------------


def guide_gradients(run: Run, batch: TextBatch, gradient: Gradient, k: int) -> torch.Tensor:
    """`DRAWS` gradients of the guide's parameters, `[DRAWS, P]`."""
    strategy = Strategy(continuous=Pathwise(gradient), bound=IWAE(k))
    objective = strategy.compile(run.model, run.guide, batch)
    assert run.guide is not None
    parameters = list(run.guide.parameters())
    torch.manual_seed(SEED)
    taken = []
    with pyro.validation_enabled(False):
        for _ in range(DRAWS):
            found = torch.autograd.grad(objective(batch), parameters)
            taken.append(torch.cat([g.flatten() for g in found]))
    return torch.stack(taken)


def signal_to_noise(taken: torch.Tensor) -> tuple[float, float]:
    """The ratio and its standard error, by the jackknife over blocks of draws."""
    blocks = taken.view(BLOCKS, -1, taken.shape[1]).double()
    sums, squares = blocks.sum(1), blocks.square().sum((1, 2))
    size = blocks.shape[1]

    def ratio(total: torch.Tensor, square: torch.Tensor, count: int) -> float:
        mean = total / count
        variance = (square - count * mean.square().sum()) / (count - 1)
        signal = mean.square().sum() - variance / count  # its expectation is |E g|^2
        return float((signal.clamp(min=0) / variance).sqrt())

    whole = ratio(sums.sum(0), squares.sum(), size * BLOCKS)
    without = [
        ratio(sums.sum(0) - s, squares.sum() - q, size * (BLOCKS - 1)) for s, q in zip(sums, squares, strict=True)
    ]
    spread = (BLOCKS - 1) / BLOCKS * float(np.square(np.array(without) - np.mean(without)).sum())
    return whole, spread**0.5


def ratios(corpus: ShortDocstrings, more: dict[str, Any]) -> tuple[list[Row], dict[str, list[tuple[float, float]]]]:
    """Part 2."""
    run = train(corpus, 5, 1)
    batch = corpus.test.batch(np.arange(4))
    rows: list[Row] = []
    curves: dict[str, list[tuple[float, float]]] = {}
    for gradient in GRADIENTS:
        curves[gradient] = []
        for k in PARTICLES:
            value, error = signal_to_noise(guide_gradients(run, batch, gradient, k))
            curves[gradient].append((value, error))
            rows.append(_row(f"SNR of the guide's gradient, {gradient}, k = {k}", value, "", error, more))
            print(f"{gradient}, k = {k}: {value:.3f} +- {error:.3f}", flush=True)
        exponent, error = slope([(k, *c) for k, c in zip(PARTICLES, curves[gradient], strict=True) if k >= 5])
        theory = {"plain": (-0.5, RAINFORTH), "stl": (None, ""), "dreg": (0.5, TUCKER)}[gradient]
        what = f"exponent of k in the SNR, {gradient}"
        rows.append(_row(what, exponent, "", error, more, reference=theory[0], source=theory[1]))
    return rows, curves


def slope(points: list[tuple[int, float, float]]) -> tuple[float, float]:
    """Of log SNR over log k, by weighted least squares, and its standard error."""
    k, value, error = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    x, y, weight = np.log(k), np.log(value), (value / error) ** 2
    centred = x - np.average(x, weights=weight)
    information = (weight * centred**2).sum()
    return float((weight * centred * y).sum() / information), float(information**-0.5)


def draw(bounds: dict[int, list[float]], snr: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """Both parts, side by side."""
    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for trained, values in bounds.items():
        left.plot([*TRAINED, SAMPLES], values, marker="o", markersize=4, label=f"trained with k = {trained}")
    left.set(xscale="log", xlabel="k", ylabel="nats per sentence", title="test bound $L_k$")
    left.legend(fontsize=8)
    for name, points in snr.items():
        value, error = zip(*points, strict=True)
        right.errorbar(PARTICLES, value, error, marker="o", markersize=4, label=name)
    start = snr["plain"][0][0]
    right.plot(PARTICLES, [start / k**0.5 for k in PARTICLES], "k:", linewidth=1, label="$k^{-1/2}$")
    right.set(xscale="log", yscale="log", xlabel="particles k", title="signal to noise of the guide's gradient")
    right.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)


def main() -> None:
    """Train, measure, draw, and write results/iwae.json."""
    parser = argparse.ArgumentParser(description="IWAE: bounds and signal-to-noise ratios.")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    tune_allocator()
    torch.set_num_threads(options.threads)
    corpus = ShortDocstrings(train=8000, test=SENTENCES)
    print(repr(corpus), flush=True)
    more = environment(corpus=corpus.name, fingerprint=corpus.fingerprint)
    snr_rows, snr = ratios(corpus, more)
    rows, curves = bounds(corpus, more)
    draw(curves, snr, FIGURE)
    save("iwae", rows + snr_rows)


if __name__ == "__main__":
    main()
