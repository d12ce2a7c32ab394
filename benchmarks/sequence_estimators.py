"""Estimators of a latent sentence: against the exact gradient at toy size, and their variance at real size.

Protocol, fixed before looking. One thread.

Toy: `SentenceCompression` (LSTMs of 8) with a vocabulary of 5 words and compressions of one to 3 of them, 155 in all,
of learnt length and by pointer and softmax, so that q covers them all. 200 sources of 3 to 6 words in which a word is
likely to be followed by itself or the next. Trained with `Enumerate` for 300 steps of 32; the guide stands half-way
between its first and its trained parameters. Four sources. The guide's gradient from 20,000 draws a source against that
of the sum over all 155, as in `estimators`: a p value of no bias (the least of 21 directions, corrected), |mean -
exact| / |exact| with its noise floor as standard error, and the variance of one estimate over that of REINFORCE's.
Estimates of several particles are the mean over them: their variance per model evaluation is that many times as large.

Real: the run `10-0` of `benchmarks.compression` (Google's sentences, a vocabulary of 8,000, 8 to 20 words to be
written), as trained; 32 sentences of test, all compressions latent. The variance of one estimate of the guide's
gradient, summed over its parameters, from 40 draws, over that of REINFORCE's, after baselines have learnt for 50 steps
on them. Without that run the part is left out. Learning curves are those of the rows of `benchmarks.compression`: the
validation bound after every epoch.

    python -m benchmarks.sequence_estimators [--runs DIR]
"""

from __future__ import annotations

import argparse
import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import Row, environment, row, save
from pyro_nlp import (
    ELBO,
    Enumerate,
    LeaveOneOut,
    Neural,
    Relax,
    RunningMean,
    ScoreFunction,
    Strategy,
    Subset,
    gradient_check,
)
from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.evaluation.gradients import gradient_variance, warm
from pyro_nlp.guides.pointer import PointerGuide
from pyro_nlp.models.compression import SentenceCompression
from pyro_nlp.nn import LSTMDecoder, LSTMEncoder
from pyro_nlp.recipe import open_run

WORDS, LONGEST, SEED, DRAWS, COPIES = 5, 3, 0, 20_000, 250
PLAIN = "REINFORCE"
VARIANCE = f"variance / {PLAIN}'s"
CURVES = ("10", "10_site_by_site", "10_NVIL", "10_straight_through")


def strategies(toy: bool) -> dict[str, Strategy]:
    """The rows; sums over sequences where there are few."""
    score: dict[str, Strategy] = {
        PLAIN: Strategy(discrete=ScoreFunction()),
        "REINFORCE, word by word": Strategy(discrete=ScoreFunction(per="word")),
        "running mean": Strategy(discrete=ScoreFunction(RunningMean())),
        "running mean, word by word": Strategy(discrete=ScoreFunction(RunningMean(), per="word")),
        "NVIL": Strategy(discrete=ScoreFunction(Neural(reads="first"))),
        "NVIL, word by word": Strategy(discrete=ScoreFunction(Neural(reads="first"), per="word")),
        "leave one out, 2 particles": Strategy(discrete=ScoreFunction(LeaveOneOut()), bound=ELBO(2)),
        "leave one out, 2 particles, word by word": Strategy(
            discrete=ScoreFunction(LeaveOneOut(), per="word"), bound=ELBO(2)
        ),
    }
    relaxed = {
        "relaxed (0.5)": Strategy(discrete=Relax(0.5)),
        "straight through (0.5)": Strategy(discrete=Relax(0.5, hard=True)),
        "straight through (1)": Strategy(discrete=Relax(1.0, hard=True)),
    }
    sums = {"Enumerate": Strategy(discrete=Enumerate()), "Subset(3)": Strategy(discrete=Subset(3))}
    return score | relaxed | (sums if toy else {})


def toy_split() -> PairSplit:
    """Sources in which the next word is likely to be the same one or its successor."""
    rng = np.random.default_rng(SEED)
    sources = []
    for length in rng.integers(3, 7, 200):
        words = [int(rng.integers(WORDS))]
        while len(words) < length:
            near = rng.random() < 0.7
            words.append((words[-1] + int(rng.integers(2))) % WORDS if near else int(rng.integers(WORDS)))
        sources.append(np.array(words) + 3)  # <unk> is one of the five
    nothing = TextSplit.from_sentences([np.array([3])] * 200)
    return PairSplit(TextSplit.from_sentences(sources), nothing, np.arange(200), np.full(200, -1))


def toy() -> list[Row]:
    """Every estimator against the sum over 155 sequences."""
    torch.manual_seed(SEED)
    encoder, decoder = partial(LSTMEncoder, embedding=8, width=8), partial(LSTMDecoder, embedding=8, width=8)
    model = SentenceCompression(WORDS + 3, decoder, encoder, decoder, 8, None, LONGEST)
    guide = PointerGuide(WORDS + 3, encoder, decoder, True, None, LONGEST)
    split, begun = toy_split(), copy.deepcopy(guide.state_dict())
    objective = Strategy(discrete=Enumerate()).compile(model, guide, split.batch(np.arange(4)))
    optimizer = torch.optim.Adam(objective.parameters(), 0.01)
    for rows in np.random.default_rng(SEED).integers(len(split), size=(300, 32)):
        optimizer.zero_grad()
        objective(split.batch(rows)).backward()
        optimizer.step()
    guide.load_state_dict({name: (value + begun[name]) / 2 for name, value in guide.state_dict().items()})
    model.requires_grad_(False)
    batch, found = split.batch(np.arange(4)), {}
    for name, strategy in strategies(toy=True).items():
        few = name == "Enumerate"
        draws, copies = (20, 2) if few else (DRAWS, COPIES)
        found[name] = gradient_check(model, guide, batch, strategy, draws=draws, copies=copies, seed=SEED)
        print(name, found[name].p_value, found[name].bias, flush=True)
    base, more = sum(found[PLAIN].variance.values()), environment()
    made = []
    for name, one in found.items():
        made += [
            row(f"toy | {name} | p value of no bias", _short(one.p_value), "", environment=more),
            row(f"toy | {name} | bias", _short(one.bias), "", standard_error=_short(one.noise), environment=more),
            row(
                f"toy | {name} | variance / {PLAIN}'s", _short(sum(one.variance.values()) / base), "", environment=more
            ),
        ]
    return made


def real(folder: Path) -> list[Row]:
    """The variance of every estimator for a trained guide."""
    run, recipe = open_run(folder)
    assert run.guide is not None
    run.model.requires_grad_(False)
    batch, variance = recipe.corpus.test.batch(np.arange(32)), {}
    for name, strategy in strategies(toy=False).items():
        torch.manual_seed(SEED)
        objective = strategy.compile(run.model, run.guide, batch).eval()
        warm(objective, batch)
        variance[name] = gradient_variance(objective, batch, draws=40, seed=SEED)["guide"]
        print(name, variance[name], flush=True)
    more = environment(corpus=recipe.corpus.name, fingerprint=recipe.corpus.fingerprint)
    return [
        row(f"real | {name} | {VARIANCE}", _short(v / variance[PLAIN]), "", environment=more)
        for name, v in variance.items()
    ]


def curves(runs: Path) -> list[Row]:
    """The validation bound after every epoch of the rows of `benchmarks.compression` that were trained."""
    made = []
    for name in CURVES:
        file = runs / f"{name}-0" / "metrics.jsonl"
        if not file.exists():
            continue
        entries = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for entry in entries:
            if "valid.loss" in entry:
                what = f"curve | {name.replace('_', ' ')} | epoch {entry['epoch'] + 1}"
                made.append(row(what, round(entry["valid.loss"], 2), "nats", environment=environment()))
    return made


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def main() -> None:
    """Measure and write results/sequence_estimators.json."""
    parser = argparse.ArgumentParser(description="Estimators of a latent sentence.")
    parser.add_argument("--runs", type=Path, default=Path("runs/compression"), help="of benchmarks.compression")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: list[Any] = toy()
    if (options.runs / "10-0" / "model.safetensors").exists():
        found += real(options.runs / "10-0")
    save("sequence_estimators", found + curves(options.runs))


if __name__ == "__main__":
    main()
