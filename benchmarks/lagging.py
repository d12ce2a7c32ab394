"""Lagging inference, and its cure.

He et al. 2019 (arXiv:1901.05534) show collapse as a race: the guide's means lag behind the means of the model's own
posterior, until the model has learnt to do without z. `Aggressive` lets the guide run ahead.

Protocol. Their synthetic data, drawn anew by their recipe (github.com/jxhe/vae-lagging-encoder, generate.py and
lm_lstm.py of synthetic-data): z is of two dimensions, from an equal mixture of four unit Gaussians at (+-2, +-2);
c_0 = W z and h_0 = tanh(c_0) start an LSTM of 100 units that reads word vectors of 100 beside z; the first word is
drawn uniformly from 1,000, nine more from softmax(U h_t + V z). V is uniform in (-5, 5), all else in (-1, 1). Seed 0: a
sentence has 26.0 nats, given z.
Their training (toy.py and config/config_synthetic.py there), as for their figures 2 and 3: z of ONE dimension,
embeddings and LSTMs of 50, no biases in the last layers, word vectors from U(-0.1, 0.1) and all else from
U(-0.01, 0.01), dropout 0.5 on both sides of the decoder, SGD at 1.0 without momentum, clipping at 5 over model and
guide, batches of 16, no annealing, the same initial weights for all:

    plain        Joint()
    aggressive   Aggressive(): at most 99 steps of the guide before each of the model, checked every 15; the lead ends
                 for good after an epoch in which the information of the validation sentences has fallen
    200 steps    the same, but the lead ends after 200 steps of the model (ours)

What differs: 8,000 sentences to train on (--sentences; theirs 16,000), so that an epoch is 500 steps of the model
(1,000), and 2,000 each to validate and test; 3 epochs (--epochs; theirs 50, but their figures end at step 2,000), for
that is 62,000 steps of the guide; the learning rate is constant (theirs is halved after two epochs without a better
bound); the guide does not read the start of the sentence.
Looks at step 200 and after every epoch, on the test sentences: MI against all of them, KL, -ELBO by one draw; and of
the first 200, the means of z under the model's posterior (by a grid of 400 points) and under the guide's: their
standard deviations over sentences and the root mean square distance of the two. NLL at the end, by 100 draws.

Not fixed before looking: the third, added when the rule had not ended the lead of the second.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn

from benchmarks.common import Row, environment, row, save
from pyro_nlp.cli import tune_allocator
from pyro_nlp.data import Corpus, TextSplit
from pyro_nlp.data.batches import Batch
from pyro_nlp.evaluation import compare, elbo_terms, importance_nll, mutual_information, posteriors
from pyro_nlp.evaluation.latent import MeanSpace, mean_space
from pyro_nlp.evaluation.plots import paint_mean_space
from pyro_nlp.guides.gaussian import GaussianGuide
from pyro_nlp.inference import SGD, Aggressive, Joint, Strategy, Training, Updates
from pyro_nlp.inference.loop import Loop
from pyro_nlp.inference.updates import Engine
from pyro_nlp.models.sentence_vae import SentenceVAE
from pyro_nlp.nn import LSTMDecoder, LSTMEncoder

WORDS, LENGTH, SPECIAL = 1000, 10, 4
LOOKS = (200,)
"""Steps of the model, beside the ends of epochs."""
FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "lagging.png"


@dataclass(frozen=True)
class Briefly(Aggressive):
    """`Aggressive` for the first 200 steps of the model, `Joint` from there."""

    def step(self, engine: Engine, batch: Batch) -> Tensor:
        if int(engine.objective.step) == 200:
            turns: Any = engine.objective.turns
            turns.on.fill_(False)
        return super().step(engine, batch)


UPDATES: dict[str, Updates] = {"plain": Joint(), "aggressive": Aggressive(), "200 steps": Briefly()}


class Synthetic(Corpus):
    """Sentences that a random LSTM writes from a mixture of four Gaussians."""

    def __init__(self, sentences: int, seed: int = 0) -> None:
        self.name, self.reference = "synthetic", "made here, by the recipe of He et al. 2019"
        with torch.random.fork_rng([]), torch.no_grad():
            torch.manual_seed(seed)
            parts = _written(sentences + 4_000).split([sentences, 2_000, 2_000])
        self.train, self.valid, self.test = (TextSplit.from_sentences(list(part.numpy())) for part in parts)


def _written(count: int) -> Tensor:
    """Sentences of a new random LSTM, `[count, LENGTH]`."""
    words, network = nn.Embedding(WORDS, 100), nn.LSTM(102, 100, batch_first=True)
    initial, by_state, by_z = (nn.Linear(*size, bias=False) for size in ((2, 100), (100, WORDS), (2, WORDS)))
    for parameter in nn.ModuleList([words, network, initial, by_state]).parameters():
        nn.init.uniform_(parameter, -1.0, 1.0)
    nn.init.uniform_(by_z.weight, -5.0, 5.0)
    z = torch.randn(count, 2) + 4.0 * torch.randint(2, (count, 2)) - 2.0
    state = initial(z)[None].tanh(), initial(z)[None]
    written = [torch.randint(WORDS, (count,))]
    for _ in range(LENGTH - 1):
        hidden, state = network(torch.cat([words(written[-1]), z], -1)[:, None], state)
        written.append(torch.multinomial((by_state(hidden[:, 0]) + by_z(z)).softmax(-1), 1)[:, 0])
    return SPECIAL + torch.stack(written, 1)


def start() -> tuple[SentenceVAE, GaussianGuide]:
    """The same model and guide every time."""
    torch.manual_seed(0)
    decoder = partial(LSTMDecoder, embedding=50, width=50, input_dropout=0.5, output_dropout=0.5)
    encoder = partial(LSTMEncoder, embedding=50, width=50)
    model, guide = SentenceVAE(WORDS + SPECIAL, 1, decoder), GaussianGuide(WORDS + SPECIAL, 1, encoder)
    for part in (*model.modules(), *guide.modules()):
        if isinstance(part, nn.Linear):
            part.register_parameter("bias", None)
        if not isinstance(part, nn.Embedding):  # word vectors start in U(-0.1, 0.1) anyway
            for parameter in part.parameters(recurse=False):
                nn.init.uniform_(parameter, -0.01, 0.01)
    return model, guide


class Watch:
    """One training, looked at on the way.

    Attributes:
        found: measures by step of the model.
        spaces: means of model and guide by step.
        alone: steps that the guide has taken by itself.
        leads: whether it still runs ahead in the end.
        nll: of every test sentence in the end.
    """

    def __init__(self, updates: Updates, corpus: Synthetic, epochs: int) -> None:
        self.model, self.guide = start()
        self.corpus, self.alone, self.leads = corpus, 0, False
        self.found: dict[int, dict[str, float]] = {}
        self.spaces: dict[int, MeanSpace] = {}
        training = Training(epochs=epochs, batch_size=16, optimizer=SGD(1.0), plateau=None, device="cpu")
        objective = Strategy(updates=updates).compile(self.model, self.guide, corpus.train.batch(np.arange(4)))
        self._look(0)
        for step in self._steps(Loop(objective, corpus, training, seed=0), updates):
            self._look(step)
        self.nll = importance_nll(self.model, self.guide, corpus.test, 100, batch_size=40, chunk=4000).nll

    def _steps(self, loop: Loop, updates: Updates) -> Iterator[int]:
        """Train, stopping at every step to look at."""
        for _ in range(loop.training.epochs):
            for _ in loop.steps():
                if int(loop.objective.step) in LOOKS:
                    yield int(loop.objective.step)
            updates.after_epoch(loop)
            loop.next_epoch()
            turns: Any = loop.objective.turns
            if turns is not None:
                self.alone, self.leads = int(turns.steps), bool(turns.on)
            yield int(loop.objective.step)

    def _look(self, step: int) -> None:
        terms = elbo_terms(self.model, self.guide, self.corpus.test)
        information = mutual_information(posteriors(self.model, self.guide, self.corpus.test)["z"])
        part = self.corpus.test.take(np.arange(200))
        self.spaces[step] = space = mean_space(self.model, self.guide, part, points=400)
        assert information is not None
        self.found[step] = {
            "MI": information.whole,
            "KL": float(terms.kl["z"].mean()),
            "-ELBO": float(-terms.elbo.mean()),
            "spread of the model's means": float(space.model.std()),
            "spread of the guide's means": float(space.guide.std()),
            "distance of the two": float(space.lag[0]),
        }
        print(step, self.alone, self.leads, self.found[step], flush=True)


def draw(watched: dict[str, Watch]) -> None:
    """The figure: a row for each way to train."""
    columns = max(len(watch.spaces) for watch in watched.values())
    figure = Figure(figsize=(2.7 * columns, 2.9 * len(watched)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(watched), columns, squeeze=False)
    for line, (name, watch) in zip(axes, watched.items(), strict=True):
        for axis, (step, space) in zip(line, watch.spaces.items(), strict=True):
            paint_mean_space(axis, space, 0, size=5)
            axis.set(xlim=(-3, 3), ylim=(-3, 3))
            axis.set_title(f"{name}, step {step:,}", fontsize=9)
        line[0].set_ylabel("mean of q(z | x)")
    for axis in axes[-1]:
        axis.set_xlabel("mean of p(z | x)")
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, dpi=110)


def told(watched: dict[str, Watch], described: dict[str, Any]) -> list[Row]:
    """The rows of the results file."""
    rows = []
    for name, watch in watched.items():
        for step, found in watch.found.items():
            for measure, value in found.items() if step else ():
                unit = "nats" if measure in ("MI", "KL", "-ELBO") else ""
                what = f"{name}: {measure}, step {step:,}"
                rows.append(row(what, round(value, 3), unit, environment=described))
        error = float(watch.nll.std(ddof=1)) / len(watch.nll) ** 0.5
        nll = round(float(watch.nll.mean()), 3)
        rows.append(row(f"{name}: NLL", nll, "nats", standard_error=round(error, 3), environment=described))
    for name in list(watched)[1:]:
        gain = compare(watched[name].nll, watched["plain"].nll)
        value, error = round(gain.mean, 3), round(gain.standard_error, 3)
        rows.append(row(f"{name} minus plain: NLL", value, "nats", standard_error=error, environment=described))
        rows.append(row(f"{name}: steps of the guide alone", watched[name].alone, "", environment=described))
        leads = "yes" if watched[name].leads else "no"
        rows.append(row(f"{name}: still runs ahead in the end", leads, "", environment=described))
    return rows


def main() -> None:
    """Train both ways, and write results/lagging.json and the figure."""
    parser = argparse.ArgumentParser(description="Lagging inference networks and their cure.")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--sentences", type=int, default=8_000, help="to train on")
    options = parser.parse_args()
    tune_allocator()
    corpus = Synthetic(options.sentences)
    described = environment(corpus=corpus.name, fingerprint=corpus.fingerprint, **vars(options))
    watched = {name: Watch(updates, corpus, options.epochs) for name, updates in UPDATES.items()}
    draw(watched)
    save("lagging", told(watched, described))


if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))
    main()
