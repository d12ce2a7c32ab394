"""Every estimator against the exact gradient: bias, variance and price; and why one reparameterises.

Protocol, fixed before looking. One thread.

Discrete: `SentenceMixture` with K = 4, 16 and 64 classes (LSTM of width 16, codes of 8) on summary lines of docstrings
of at most 8 words, trained with `Enumerate` for two epochs of 3,000 of them (188 steps), so that classes differ. The
guide stands half-way between its initial and its trained parameters, as at the optimum there is no gradient to find.
Four test sentences. For each estimator the guide's gradient from 20,000 draws a sentence (of exact ones 200) against
the exact one, by `gradient_check` with the model's parameters held: a p value of no bias (the least of 21 directions,
corrected), |mean - exact| / |exact| with its noise floor (what an unbiased estimate would show) as standard error, the
variance of one estimate summed over the guide's parameters, and that over REINFORCE's without a baseline. Estimators
under IWAE and wake-sleep are held against the exact gradient of their own objective (all K^2 pairs of particles), so
their variance is not comparable with the ELBO's beyond an order. Baselines have learnt for 50 steps and are then kept.
Cost is one loss and its gradients for all parameters on 32 documents, estimators taking turns, in units of one plain
sample. `Marginalize` has no guide gradient: its row is the model's.

Continuous: `Ring` (noise 0.1) with a diagonal Gaussian guide after 300 steps of training, four documents, 10,000 draws:
`Pathwise` and `ScoreFunction` (without a baseline) against the gradient of the ELBO by quadrature: a midpoint grid of
400 x 400 values of the guide's standard normal noise, through its reparameterisation, in float64. The same integral by
q's score in place of the path tells how good the grid is. Two dimensions flatter the score: beside it the variances of
both (300 draws) for a `SentenceVAE` of 16 latent dimensions after an epoch of the same sentences.

Not fixed before looking: that the guide stands half-way between its first and its trained parameters was decided after
a trial run, as the trained guide had next to no gradient. Milliseconds are of a machine shared with other jobs.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from scipy import stats
from torch import Tensor, nn

from benchmarks.common import Row, environment, interleave, ratio, row, save
from pyro_nlp import (
    ELBO,
    IWAE,
    REBAR,
    Adam,
    Enumerate,
    LeaveOneOut,
    Marginalize,
    Neural,
    Pathwise,
    Relax,
    RunningMean,
    ScoreFunction,
    Strategy,
    Subset,
    Training,
    WakeSleep,
    fit,
    gradient_check,
    terms,
)
from pyro_nlp.data import Corpus, TextSplit, Vocabulary
from pyro_nlp.data.docstrings import Docstrings
from pyro_nlp.data.splits import VectorSplit
from pyro_nlp.evaluation.gradients import GradientCheck, gradient_variance
from pyro_nlp.guides.categorical import CategoricalGuide
from pyro_nlp.guides.gaussian import GaussianGuide
from pyro_nlp.guides.vector import VectorGuide
from pyro_nlp.models.ring import Ring
from pyro_nlp.models.sentence_mixture import SentenceMixture
from pyro_nlp.models.sentence_vae import SentenceVAE
from pyro_nlp.nn import LSTMDecoder, LSTMEncoder

SEED, WIDTH, CLASSES, DOCUMENTS, DRAWS, COPIES = 0, 16, (4, 16, 64), 4, 20_000, 250
RING_DRAWS = 10_000
PLAIN = "REINFORCE"
EXACT = ("Enumerate", "Marginalize", "Marginalize, IWAE(2)")


class ShortDocstrings(Corpus):
    """Summary lines of docstrings of at most `longest` words, as many as asked for by a fixed permutation."""

    train: TextSplit
    valid: TextSplit
    test: TextSplit
    vocabulary: Vocabulary

    def __init__(self, train: int, test: int = 500, longest: int = 8, min_count: int = 8) -> None:
        whole = Docstrings(max_length=longest, min_count=min_count)
        self.name, self.reference, self.vocabulary = "short docstrings", whole.reference, whole.vocabulary
        self.versions = whole.versions
        rng = np.random.default_rng(SEED)
        for name, size in (("train", train), ("valid", test), ("test", test)):
            split = getattr(whole, name)
            setattr(self, name, split.take(rng.permutation(len(split))[:size]))


def strategies() -> dict[str, Strategy]:
    """The rows of each table."""
    score: dict[str, Strategy] = {
        PLAIN: Strategy(discrete=ScoreFunction()),
        "ScoreFunction(RunningMean)": Strategy(discrete=ScoreFunction(RunningMean())),
        "ScoreFunction(Neural), NVIL": Strategy(discrete=ScoreFunction(Neural())),
        "ScoreFunction(LeaveOneOut), 4 particles": Strategy(discrete=ScoreFunction(LeaveOneOut()), bound=ELBO(4)),
    }
    sums = {
        "Enumerate": Strategy(discrete=Enumerate()),
        "Marginalize": Strategy(discrete=Marginalize()),
        "Subset(1)": Strategy(discrete=Subset(1)),
        "Subset(3)": Strategy(discrete=Subset(3)),
        "Subset(3, random, weighted)": Strategy(discrete=Subset(3, "random", renormalise=False)),
        "Subset(3, random, renormalised)": Strategy(discrete=Subset(3, "random")),
    }
    relaxed = {
        "REBAR": Strategy(discrete=REBAR()),
        "Relax(0.5)": Strategy(discrete=Relax(0.5)),
        "Relax(0.5, hard)": Strategy(discrete=Relax(0.5, hard=True)),
        "Relax(0.5, relaxed KL)": Strategy(discrete=Relax(0.5, kl="relaxed")),
    }
    many = {
        "ScoreFunction, IWAE(2)": Strategy(discrete=ScoreFunction(), bound=IWAE(2)),
        "VIMCO, IWAE(2)": Strategy(discrete=ScoreFunction(LeaveOneOut()), bound=IWAE(2)),
        "Marginalize, IWAE(2)": Strategy(discrete=Marginalize(), bound=IWAE(2)),
        "WakeSleep(2, wake)": Strategy(discrete=ScoreFunction(), bound=WakeSleep(2)),
    }
    return sums | score | relaxed | many


def trained(corpus: ShortDocstrings, classes: int) -> tuple[nn.Module, nn.Module]:
    """A mixture whose classes differ, and a guide that has half learnt to tell them."""
    torch.manual_seed(SEED)
    size = len(corpus.vocabulary)
    model = SentenceMixture(size, classes, 8, partial(LSTMDecoder, embedding=WIDTH, width=WIDTH))
    guide = CategoricalGuide(size, classes, partial(LSTMEncoder, embedding=WIDTH, width=WIDTH))
    training = Training(epochs=2, batch_size=32, optimizer=Adam(0.02), plateau=None, device="cpu")
    begun = copy.deepcopy(guide.state_dict())
    fit(model, guide, corpus, Strategy(discrete=Enumerate()), training, seed=SEED, progress=False)
    guide.load_state_dict({name: (value + begun[name]) / 2 for name, value in guide.state_dict().items()})
    return model, guide


def check(model: nn.Module, guide: nn.Module, batch: Any, name: str, strategy: Strategy) -> GradientCheck:
    """The guide's gradient against the exact one; the model's where the guide has none."""
    alone = name.startswith("Marginalize")
    model.requires_grad_(alone)
    exact = name in EXACT
    found = gradient_check(
        model, guide, batch, strategy, draws=200 if exact else DRAWS, copies=10 if exact else COPIES, seed=SEED
    )
    model.requires_grad_(True)
    return found


def mixture(corpus: ShortDocstrings, classes: int, more: dict[str, Any]) -> list[Row]:
    """The discrete part for one K."""
    model, guide = trained(corpus, classes)
    batch, many = corpus.test.batch(np.arange(DOCUMENTS)), corpus.test.batch(np.arange(32))
    table = strategies()
    checks = {name: check(model, guide, batch, name, strategy) for name, strategy in table.items()}
    objectives = {name: strategy.compile(model, guide, many) for name, strategy in table.items()}
    with pyro.validation_enabled(False):
        steps = {name: partial(_step, objective, many) for name, objective in objectives.items()}
        seconds = interleave(steps, rounds=25)
    base = sum(checks[PLAIN].variance.values())
    rows = []
    for name, found in checks.items():
        what, variance = f"K = {classes}, {name}", sum(found.variance.values())
        price, error = ratio(seconds[name], seconds[PLAIN])
        rows += [
            row(f"{what}: p value of no bias", _short(found.p_value), "", environment=more),
            row(f"{what}: bias", _short(found.bias), "", standard_error=_short(found.noise), environment=more),
            row(f"{what}: variance / {PLAIN}'s", _short(variance / base), "ratio", environment=more),
            row(f"{what}: step / one sample's", _short(price), "ratio", standard_error=_short(error), environment=more),
        ]
        if name == PLAIN:
            milliseconds = round(1000 * float(np.median(seconds[name])), 2)
            rows += [
                row(f"{what}: variance", _short(variance), "nats²", environment=more),
                row(f"{what}: step", milliseconds, "ms", environment=more),
            ]
    return rows


def _step(objective: nn.Module, batch: Any) -> None:
    objective(batch).backward()


def _short(value: float) -> float:
    return float(f"{value:.3g}")


# ---- the ring -------------------------------------------------------------------------------------------------


def quadrature_gradient(model: Ring, guide: nn.Module, batch: Any, path: bool, points: int = 400) -> Tensor:
    """Gradient of the loss for the guide, flat, in float64: by the path through z, or by the score of q."""
    model, guide = copy.deepcopy(model).double(), copy.deepcopy(guide).double()
    batch = batch.replace(values=batch.values.double())
    axis = ((torch.arange(points, dtype=torch.float64) + 0.5) / points - 0.5) * 12
    noise = torch.cartesian_prod(axis, axis)[:, None]  # [G, 1, 2]
    weight = (-0.5 * noise.square().sum(-1)).softmax(0)  # [G, 1]
    site: Any = poutine.trace(guide).get_trace(batch).nodes["z"]
    q = site["fn"].base_dist
    z = q.loc + q.scale * noise
    if not path:
        z = z.detach()
    found = terms(model, guide, batch, particles=len(z), given={"z": z})
    likelihood, log_q = found.log_likelihood, found.sites["z"].log_q
    if not path:
        likelihood = likelihood.detach() * (1 + log_q - log_q.detach())
    loss = found.kl["z"] - likelihood  # the KL in closed form
    total = (weight * loss).sum(0).mean()
    return torch.cat([g.flatten() for g in torch.autograd.grad(total, list(guide.parameters()))])


def ring(more: dict[str, Any]) -> list[Row]:
    """The continuous part."""
    torch.manual_seed(SEED)
    model, guide = Ring(noise=0.1), VectorGuide(width=16, diagonal=True)
    split = VectorSplit(model.bend(torch.randn(500, 2)) + 0.1 * torch.randn(500, 2))
    batch, whole = split.batch(np.arange(DOCUMENTS)), split.batch(np.arange(500))
    learning = Strategy().compile(model, guide, whole)
    optimizer = torch.optim.Adam(guide.parameters(), 0.01)
    for _ in range(300):
        optimizer.zero_grad()
        learning(whole).backward()
        optimizer.step()
    exact, other = (quadrature_gradient(model, guide, batch, path) for path in (True, False))
    agreement = float((exact - other).norm() / exact.norm())
    rows = [row("Ring: quadrature by path and by score, difference", _short(agreement), "", environment=more)]
    variance = {}
    for name, estimator in (("Pathwise", Pathwise()), ("ScoreFunction", ScoreFunction())):
        objective = Strategy(continuous=estimator).compile(model, guide, batch)
        torch.manual_seed(SEED)
        taken = []
        with pyro.validation_enabled(False):
            for _ in range(RING_DRAWS):
                found = torch.autograd.grad(objective(batch), list(guide.parameters()))
                taken.append(torch.cat([g.flatten() for g in found]).double())
        gradients = torch.stack(taken)
        mean, spread = gradients.mean(0), gradients.var(0)
        variance[name] = float(spread.sum())
        noise = float((spread.sum() / RING_DRAWS).sqrt() / exact.norm())
        along = (gradients - exact) @ exact
        p_value = 2 * float(stats.norm.sf(abs(float(along.mean() / (along.std() / RING_DRAWS**0.5)))))
        bias = _short(float((mean - exact).norm() / exact.norm()))
        rows += [
            row(f"Ring, {name}: p value of no bias, along the gradient", _short(p_value), "", environment=more),
            row(f"Ring, {name}: bias", bias, "", standard_error=_short(noise), environment=more),
            row(f"Ring, {name}: variance", _short(variance[name]), "nats²", environment=more),
        ]
    value = _short(variance["ScoreFunction"] / variance["Pathwise"])
    rows.append(row("Ring: variance, ScoreFunction / Pathwise", value, "ratio", environment=more))
    return rows


def sentence_vae(corpus: ShortDocstrings, more: dict[str, Any]) -> list[Row]:
    """The variances of both where the latent has 16 dimensions."""
    torch.manual_seed(SEED)
    size = len(corpus.vocabulary)
    model = SentenceVAE(size, 16, partial(LSTMDecoder, embedding=WIDTH, width=WIDTH))
    guide = GaussianGuide(size, 16, partial(LSTMEncoder, embedding=WIDTH, width=WIDTH))
    training = Training(epochs=1, batch_size=32, optimizer=Adam(0.01), plateau=None, device="cpu")
    fit(model, guide, corpus, Strategy(), training, seed=SEED, progress=False)
    batch = corpus.test.batch(np.arange(DOCUMENTS))
    variance = {}
    for name, estimator in (("Pathwise", Pathwise()), ("ScoreFunction", ScoreFunction())):
        objective = Strategy(continuous=estimator).compile(model, guide, batch)
        variance[name] = gradient_variance(objective, batch, draws=300, seed=SEED)["guide"]
    rows = [row(f"SentenceVAE, {n}: variance", _short(v), "nats²", environment=more) for n, v in variance.items()]
    value = _short(variance["ScoreFunction"] / variance["Pathwise"])
    return [*rows, row("SentenceVAE: variance, ScoreFunction / Pathwise", value, "ratio", environment=more)]


def main() -> None:
    """Measure and write results/estimators.json."""
    torch.set_num_threads(1)
    corpus = ShortDocstrings(train=3000)
    print(repr(corpus), flush=True)
    more = environment(corpus=corpus.name, fingerprint=corpus.fingerprint)
    rows = ring(environment()) + sentence_vae(corpus, more)
    for classes in CLASSES:
        rows += mixture(corpus, classes, more)
        print(f"K = {classes} done", flush=True)
    save("estimators", rows)


if __name__ == "__main__":
    main()
