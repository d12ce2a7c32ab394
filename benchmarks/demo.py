"""Four models of one corpus, one table: `make demo`.

A language model, an autoencoder, a VAE trained plainly and a VAE with annealing, free bits and word dropout, on the
docstrings of the installed libraries; the same network (LSTM, width 128, 16 latent dimensions) everywhere.

Protocol: one seed; the first 1,000 test sentences by a fixed permutation; NLL by 100 importance samples, exact
for the language model; perplexity of prior samples (1,000) and of interpolants (200 pairs, 5 points between)
under the language model, which therefore judges itself in its own row.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from pyro_nlp import KL, Adam, FreeBits, Linear, Plateau, Run, Strategy, Training, evaluate, fit
from pyro_nlp.cli import tune_allocator
from pyro_nlp.data.docstrings import Docstrings
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.data.tokenise import detokenise
from pyro_nlp.evaluation import (
    Evaluation,
    as_split,
    importance_nll,
    interpolate,
    perplexity,
    plots,
    posteriors,
    sample_prior,
)
from pyro_nlp.guides.gaussian import GaussianGuide
from pyro_nlp.guides.point import PointGuide
from pyro_nlp.models.sentence_autoencoder import SentenceAutoencoder
from pyro_nlp.models.sentence_lm import SentenceLM
from pyro_nlp.models.sentence_vae import SentenceVAE
from pyro_nlp.nn import LSTMDecoder, LSTMEncoder

SEED, LATENT, WIDTH, SENTENCES, SAMPLES = 0, 16, 128, 1000, 100
LM, AE, PLAIN, CURED = "language model", "autoencoder", "VAE, plain", "VAE, cured"
decoder = partial(LSTMDecoder, embedding=WIDTH, width=WIDTH)
encoder = partial(LSTMEncoder, embedding=WIDTH, width=WIDTH)


@dataclass(frozen=True)
class System:
    """One row of the table: what is built, and how it is inferred and trained."""

    model: Callable[[int], nn.Module]
    guide: Callable[[int], nn.Module | None]
    strategy: Strategy
    training: Training


def systems(epochs: int, precision: Literal["float32", "bf16", "auto"]) -> dict[str, System]:
    """The rows. Only `strategy` and `training` differ between the two VAEs."""
    plain = Training(
        epochs=epochs,
        batch_size=64,
        optimizer=Adam(Linear(0.005, 0.0005, epochs=epochs)),
        plateau=Plateau(patience=1, decays=0),
        precision=precision,
    )
    careful = Training(**(vars(plain) | {"word_dropout": 0.1, "plateau": None}))
    vae: Any = partial(SentenceVAE, latent=LATENT, decoder=decoder)
    gaussian: Any = partial(GaussianGuide, latent=LATENT, encoder=encoder)
    return {
        LM: System(partial(SentenceLM, decoder=decoder), lambda v: None, Strategy(), plain),
        AE: System(
            partial(SentenceAutoencoder, latent=LATENT, decoder=decoder),
            partial(PointGuide, latent=LATENT, encoder=encoder),
            Strategy(),
            plain,
        ),
        PLAIN: System(vae, gaussian, Strategy(), plain),
        CURED: System(vae, gaussian, Strategy(kl=KL(Linear(0.0, 1.0, epochs=epochs / 2), FreeBits(6.0))), careful),
    }


def train(name: str, system: System, corpus: Docstrings, out: Path) -> Run:
    """One run, from its seed."""
    torch.manual_seed(SEED)
    model, guide = system.model(len(corpus.vocabulary)), system.guide(len(corpus.vocabulary))
    return fit(model, guide, corpus, system.strategy, system.training, seed=SEED, out=out / _slug(name))


def judge(run: Run, split: TextSplit, lm: Run) -> tuple[Evaluation, float, float]:
    """The evaluation, and the language model's perplexity of what the run writes: prior samples, interpolants."""
    found = evaluate(run.model, run.guide, split, samples=SAMPLES, seed=SEED)
    samples = sample_prior(run.model, split, 1000, seed=SEED, max_length=40)
    between = math.nan
    if run.guide is not None:
        batch = split.batch(np.arange(400))
        between = _judged(interpolate(run.model, run.guide, batch, 7, max_length=40)[:, 1:-1].flatten(0, 1), lm)
    return found, _judged(samples, lm), between


def _judged(ids: torch.Tensor, lm: Run) -> float:
    written = as_split(ids)
    return perplexity(importance_nll(lm.model, None, written, batch_size=128).nll, written.tokens)


def table(results: dict[str, tuple[Evaluation, float, float]], runs: dict[str, Run]) -> Table:
    """The table that the README shows."""
    columns = [
        "",
        "NLL",
        "PPL",
        "reconstruction",
        "KL",
        "active",
        "shuffled z",
        "MI",
        "PPL samples",
        "PPL between",
        "words/s",
    ]
    made = Table(*columns, title=f"docstrings, {SENTENCES:,} test sentences, nats per sentence", title_justify="left")
    for name, (found, sampled, between) in results.items():
        site = found.latents.get("z")
        mi = site.mutual_information if site else None
        nll = found.likelihood
        made.add_row(
            name,
            f"{nll.mean:.2f} ± {nll.mean_standard_error:.2f}" if nll else "no density",
            f"{found.perplexity:.1f}" if found.perplexity else "",
            f"{found.reconstruction:.2f}",
            f"{site.kl:.2f}" if site and nll else "",
            f"{site.active_units}/{site.dimensions}" if site else "",
            str(found.shuffled_rise) if found.shuffled_rise else "",
            f"{mi.whole:.2f} (cap {mi.cap:.2f})" if mi else "",
            f"{sampled:.1f}",
            "" if math.isnan(between) else f"{between:.1f}",
            f"{runs[name].words_per_second:,.0f}",
        )
    return made


def interpolations(runs: dict[str, Run], corpus: Docstrings) -> dict[str, list[str]]:
    """The same two test sentences joined by the autoencoder and by the cured VAE."""
    middling = np.flatnonzero((corpus.test.lengths >= 7) & (corpus.test.lengths <= 10))
    rows = np.random.default_rng(SEED).choice(middling, 2, replace=False)
    ends = [detokenise(corpus.vocabulary.decode(corpus.test.words(int(row)))) for row in rows]
    lines = {"from": [ends[0]], "to": [ends[1]]}
    for name in (AE, CURED):
        run = runs[name]
        assert run.guide is not None
        written = interpolate(run.model, run.guide, corpus.test.batch(rows), 7, method="beam")[0]
        lines[name] = [detokenise(corpus.vocabulary.decode(row)) for row in written.tolist()]
    return lines


def main() -> None:
    """Train, judge, print, and draw."""
    parser = argparse.ArgumentParser(description="Four models of one corpus, one table.")
    parser.add_argument("--out", type=Path, default=Path("runs") / time.strftime("demo-%Y%m%d-%H%M%S"))
    parser.add_argument("--epochs", type=int, default=3, help="of every model")
    parser.add_argument("--precision", choices=("float32", "bf16", "auto"), default="auto")
    options = parser.parse_args()
    tune_allocator()
    console, began = Console(soft_wrap=True), time.perf_counter()
    corpus = Docstrings()
    console.print(repr(corpus), markup=False, highlight=False)
    split = corpus.test.take(np.random.default_rng(SEED).permutation(len(corpus.test))[:SENTENCES])
    runs: dict[str, Run] = {}
    results: dict[str, tuple[Evaluation, float, float]] = {}
    for name, system in systems(options.epochs, options.precision).items():
        console.print(f"{name} ...", highlight=False)
        runs[name] = train(name, system, corpus, options.out)
        results[name] = judge(runs[name], split, runs[LM])
    console.print(table(results, runs))
    for name, (found, _, _) in results.items():
        if found.latents:
            console.print(f"{name}: {found.verdict}.", highlight=False)
    lines = interpolations(runs, corpus)
    console.print(f"\nfrom  {lines['from'][0]}\nto    {lines['to'][0]}", markup=False, highlight=False)
    for name in (AE, CURED):
        console.print(f"\nby the {name}:", highlight=False)
        console.print("\n".join(f"  {line}" for line in lines[name]), markup=False, highlight=False)
    draw(runs, corpus, split, options.out)
    rows = {n: {"evaluation": e.as_dict(), "ppl_samples": s, "ppl_between": b} for n, (e, s, b) in results.items()}
    (options.out / "table.json").write_text(
        json.dumps({"rows": rows, "interpolations": lines}, indent=2), encoding="utf-8"
    )
    console.print(f"\npictures and runs in {options.out}; {time.perf_counter() - began:.0f} seconds", highlight=False)


def draw(runs: dict[str, Run], corpus: Docstrings, split: TextSplit, out: Path) -> None:
    """Training curves of all runs, the latent space of each."""
    plots.curves({name: run.history for name, run in runs.items()}, out / "curves.png")
    for name, run in runs.items():
        if run.guide is not None:
            posterior = posteriors(run.model, run.guide, split)["z"]
            plots.latent_space(posterior, out / f"latent_{_slug(name)}.png", split.labels, corpus.labels, name)


def _slug(name: str) -> str:
    return name.replace(",", "").replace(" ", "_").lower()


if __name__ == "__main__":
    main()
