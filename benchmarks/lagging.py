"""Lagging inference, its cure, and what a language model's own latents have to do with it.

He et al. 2019 (arXiv:1901.05534) show collapse as a race: the guide's means lag behind the means of the model's own
posterior, until the model has learnt to do without z. `Aggressive` lets the guide run ahead.

Protocol. Data as in their synthetic setting, made here: a random LSTM of 100 units reads word vectors of 100 beside a
two-dimensional z, drawn from an equal mixture of four unit Gaussians at (+-2, +-2), and writes 10 words over a
vocabulary of 1,000, then the end of sentence; 16,000 / 2,000 / 2,000 sentences, seed 0. Its weights are uniform in
(-0.1, 0.1), those of z and the word vectors in (-1, 1), those of the vocabulary layer in (-5, 5), its biases zero: a
sentence has 9 nats, given z.
Model: `SentenceVAE`, z of 2, embeddings and LSTM of 50, dropout 0.5 on both sides of the decoder; guide: LSTM of 50.
SGD at 0.3 without momentum, clipping at 5, batches of 16, no annealing, the same initial weights for both:

    plain        Joint()
    aggressive   Aggressive()

for --epochs epochs (6; theirs: 50), at a constant learning rate. After every epoch, on the test sentences: MI against
all of them and inside minibatches, KL, -ELBO. The figure has the posterior means of 40 test sentences, model's against
guide's, at the start, after 300 steps of the model and after epochs 1, 3 and the last: model's by a grid of 160 x 160
points, or, where that is too coarse, as it says itself, by 2,000 weighted draws of the guide.

Not fixed before looking: with all weights of the LSTM in (-1, 1), as the paper has them [from memory], and its SGD at
1.0, information rose to 0.16 nats under `Aggressive` within 150 steps of the model and was gone after 400 (weights so
large make z a seed of chaos); with the weights above and 1.0 it rose to 1.2 and fell to 0.2, with Adam at 1e-3 to 0.16.
The learning rate was chosen after these looks, which went over the first 400 to 600 steps. Plain training had less than
0.02 nats in all of them.
"""

from __future__ import annotations

import argparse
import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import nn

from benchmarks.common import Row, environment, row, save
from pyro_nlp.cli import tune_allocator
from pyro_nlp.data import Corpus, TextSplit
from pyro_nlp.data.batches import BOS
from pyro_nlp.evaluation import elbo_terms, mutual_information, posteriors
from pyro_nlp.evaluation.latent import MeanSpace, mean_space
from pyro_nlp.evaluation.plots import paint_mean_space
from pyro_nlp.guides.gaussian import GaussianGuide
from pyro_nlp.inference import SGD, Aggressive, Joint, Strategy, Training, Updates
from pyro_nlp.inference.loop import Loop
from pyro_nlp.models.sentence_vae import SentenceVAE
from pyro_nlp.nn import LSTMDecoder, LSTMEncoder

WORDS, LENGTH, SPECIAL = 1000, 10, 4
FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "lagging.png"
UPDATES: dict[str, Updates] = {"plain": Joint(), "aggressive": Aggressive()}


class Synthetic(Corpus):
    """Sentences that a random LSTM writes from a mixture of four Gaussians."""

    def __init__(self, seed: int = 0) -> None:
        self.name, self.reference = "synthetic", "made here, after He et al. 2019"
        with torch.random.fork_rng([]), torch.no_grad():
            torch.manual_seed(seed)
            words = nn.Embedding(WORDS + SPECIAL, 100)
            network = nn.LSTM(102, 100, batch_first=True)
            head = nn.Linear(100, WORDS)
            nn.init.uniform_(words.weight, -1.0, 1.0)
            for parameter in network.parameters():
                nn.init.uniform_(parameter, -0.1, 0.1)
            nn.init.uniform_(next(network.parameters())[:, 100:], -1.0, 1.0)  # those of z
            nn.init.uniform_(head.weight, -5.0, 5.0)
            nn.init.zeros_(head.bias)
            splits = []
            for count in (16_000, 2_000, 2_000):
                z = torch.randn(count, 2) + 4.0 * torch.randint(2, (count, 2)) - 2.0
                last, state, written = torch.full((count,), BOS), None, []
                for _ in range(LENGTH):
                    hidden, state = network(torch.cat([words(last), z], -1)[:, None], state)
                    last = SPECIAL + torch.multinomial(head(hidden[:, 0]).softmax(-1), 1)[:, 0]
                    written.append(last)
                splits.append(TextSplit.from_sentences(list(torch.stack(written, 1).numpy())))
        self.train, self.valid, self.test = splits


def start() -> tuple[SentenceVAE, GaussianGuide]:
    """The same model and guide every time."""
    torch.manual_seed(0)
    decoder = partial(LSTMDecoder, embedding=50, width=50, input_dropout=0.5, output_dropout=0.5)
    encoder = partial(LSTMEncoder, embedding=50, width=50)
    return SentenceVAE(WORDS + SPECIAL, 2, decoder), GaussianGuide(WORDS + SPECIAL, 2, encoder)


def watch(updates: Updates, corpus: Synthetic, epochs: int) -> tuple[list[dict[str, Any]], dict[str, MeanSpace]]:
    """Train, measuring after every epoch; and the spaces of means on the way."""
    model, guide = start()
    training = Training(epochs=epochs, batch_size=16, optimizer=SGD(0.3), plateau=None, device="cpu")
    objective = Strategy(updates=updates).compile(model, guide, corpus.train.batch(np.arange(4)))
    loop = Loop(objective, corpus, training, seed=0)
    part = corpus.test.take(np.arange(40))
    assert isinstance(part, TextSplit)
    torch.manual_seed(0)
    spaces = {"at the start": means(model, guide, part)}
    found = []
    for epoch in range(epochs):
        for _ in loop.steps():
            if int(objective.step) == 300:
                spaces["after 300 steps"] = means(model, guide, part)
        updates.after_epoch(loop)
        loop.next_epoch()
        found.append(measures(model, guide, corpus) | {"epoch": epoch + 1} | led(objective))
        print(found[-1], flush=True)
        if epoch + 1 in (1, 3, epochs):
            spaces[f"after epoch {epoch + 1}"] = means(model, guide, part)
    return found, spaces


def means(model: SentenceVAE, guide: GaussianGuide, part: TextSplit) -> MeanSpace:
    """The means of model and guide."""
    try:
        return mean_space(model, guide, part, points=160)
    except ValueError:  # the grid is too coarse for so narrow a posterior
        return mean_space(model, guide, part, draws=2000)


def measures(model: SentenceVAE, guide: GaussianGuide, corpus: Synthetic) -> dict[str, float]:
    """On the test sentences."""
    terms = elbo_terms(model, guide, corpus.test)
    information = mutual_information(posteriors(model, guide, corpus.test)["z"])
    assert information is not None
    return {
        "MI": information.whole,
        "MI in minibatches": information.minibatch,
        "KL": float(terms.kl["z"].mean()),
        "-ELBO": float(-terms.elbo.mean()),
    }


def led(objective: Any) -> dict[str, Any]:
    """Whether the guide still runs ahead, and the steps it has taken by itself."""
    turns = copy.copy(objective.turns)
    return {} if turns is None else {"ahead": bool(turns.on), "guide steps": int(turns.steps)}


def draw(spaces: dict[str, dict[str, MeanSpace]]) -> None:
    """The figure: a row for each way to train."""
    columns = max(len(row) for row in spaces.values())
    figure = Figure(figsize=(2.7 * columns, 2.9 * len(spaces)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(spaces), columns, squeeze=False)
    for line, (name, found) in zip(axes, spaces.items(), strict=True):
        for axis, (when, space) in zip(line, found.items(), strict=True):
            for dimension in range(2):
                paint_mean_space(axis, space, dimension, color=f"C{dimension}", size=5)
            axis.set_xlim(-4, 4)
            axis.set_ylim(-4, 4)
            axis.set_title(f"{name}, {when}", fontsize=9)
        line[0].set_ylabel("mean of q(z | x)")
    for axis in axes[-1]:
        axis.set_xlabel("mean of p(z | x)")
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=110)


def main() -> None:
    """Train both ways, and write results/lagging.json and the figure."""
    parser = argparse.ArgumentParser(description="Lagging inference networks and their cure.")
    parser.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()
    tune_allocator()
    corpus = Synthetic()
    described = environment(corpus=corpus.name, fingerprint=corpus.fingerprint, epochs=options.epochs)
    rows: list[Row] = []
    spaces = {}
    for name, updates in UPDATES.items():
        found, spaces[name] = watch(updates, corpus, options.epochs)
        for entry in (found[0], found[min(2, len(found) - 1)], found[-1]):
            for measure in ("MI", "MI in minibatches", "KL", "-ELBO"):
                what = f"{name}: {measure} after epoch {entry['epoch']}"
                rows.append(row(what, round(entry[measure], 3), "nats", environment=described))
        if "ahead" in found[-1]:
            until = sum(entry["ahead"] for entry in found) + 1
            rows.append(row(f"{name}: last epoch in which the guide runs ahead", min(until, len(found)), ""))
            rows.append(row(f"{name}: steps of the guide alone", found[-1]["guide steps"], "", environment=described))
        for when, space in spaces[name].items():
            lag = round(float(np.sqrt((space.lag**2).mean())), 3)
            rows.append(row(f"{name}: distance from the diagonal, {when}", lag, "", environment=described))
    draw(spaces)
    save("lagging", rows)


if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))
    main()
