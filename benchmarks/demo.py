"""Four models of one corpus, one table: `make demo`.

A language model, an autoencoder, a VAE trained plainly and a VAE with annealing, free bits and word dropout, on the
docstrings of the installed libraries; the same network (LSTM, width 128, 16 latent dimensions) everywhere.

Protocol: one seed; the first 500 test sentences by a fixed permutation; NLL by 100 importance samples, exact
for the language model; perplexity of prior samples (500) and of interpolants (100 pairs, 5 points between)
under the language model, which therefore judges itself in its own row. The report that ends it is of the first 100
of these sentences.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Column, Table
from torch import nn

from pyro_nlp import KL, Adam, FreeBits, Linear, Plateau, Run, Strategy, Training, evaluate, fit
from pyro_nlp.cli import tune_allocator
from pyro_nlp.data import UNK
from pyro_nlp.data.docstrings import Docstrings
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.data.tokenise import detokenise
from pyro_nlp.diagnosis import diagnose_runs, save
from pyro_nlp.evaluation import (
    Evaluation,
    as_split,
    compare,
    importance_nll,
    interpolate,
    perplexity,
    plots,
    posteriors,
    sample_prior,
)
from pyro_nlp.guides.gaussian import GaussianGuide
from pyro_nlp.guides.point import PointGuide
from pyro_nlp.inference.training import Precision
from pyro_nlp.models.sentence_autoencoder import SentenceAutoencoder
from pyro_nlp.models.sentence_lm import SentenceLM
from pyro_nlp.models.sentence_vae import SentenceVAE
from pyro_nlp.nn import LSTMDecoder, LSTMEncoder

SEED, LATENT, WIDTH, SENTENCES, SAMPLES, DIAGNOSED = 0, 16, 128, 500, 100, 100
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


def systems(epochs: int, precision: Precision) -> dict[str, System]:
    """The rows. Only `strategy` and `training` differ between the two VAEs."""
    plain = Training(
        epochs=epochs,
        batch_size=72,
        optimizer=Adam(Linear(0.005, 0.0005, epochs=epochs)),
        plateau=Plateau(patience=1, decays=0),
        precision=precision,
    )
    careful = Training(**(vars(plain) | {"word_dropout": 0.02, "plateau": None}))
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
        CURED: System(vae, gaussian, Strategy(kl=KL(Linear(0.0, 1.0, epochs=epochs / 3), FreeBits(5.0))), careful),
    }


def train(name: str, system: System, corpus: Docstrings, out: Path) -> Run:
    """One run, from its seed."""
    torch.manual_seed(SEED)
    model, guide = system.model(len(corpus.vocabulary)), system.guide(len(corpus.vocabulary))
    return fit(model, guide, corpus, system.strategy, system.training, seed=SEED, out=out / _slug(name))


@dataclass(frozen=True)
class Judged:
    """One column of the table."""

    evaluation: Evaluation
    samples: float
    """Perplexity of prior samples under the language model."""
    between: float | None
    """The same of sentences between two test sentences."""


def judge(run: Run, split: TextSplit, lm: Run, precision: Precision) -> Judged:
    """Everything the table says of a run."""
    found = evaluate(run.model, run.guide, split, samples=SAMPLES, seed=SEED, precision=precision)
    samples = _judged(sample_prior(run.model, split, 500, seed=SEED, max_length=40), lm)
    if run.guide is None:
        return Judged(found, samples, None)
    line = interpolate(run.model, run.guide, split.batch(np.arange(200)), 7, max_length=40)
    return Judged(found, samples, _judged(line[:, 1:-1].flatten(0, 1), lm))


def _judged(ids: torch.Tensor, lm: Run) -> float:
    written = as_split(ids)
    return perplexity(importance_nll(lm.model, None, written, batch_size=128).nll, written.tokens)


def table(judged: dict[str, Judged], runs: dict[str, Run]) -> Table:
    """The table that the README shows: measures down, systems across."""
    columns = [_column(found, judged[LM], runs[name]) for name, found in judged.items()]
    title = f"docstrings, {SENTENCES:,} test sentences, nats per sentence"
    made = Table(Column("", min_width=len("reconstruction")), *judged, title=title, title_justify="left")
    for measure in columns[0]:
        made.add_row(measure, *(column[measure] for column in columns))
    return made


def _column(judged: Judged, lm: Judged, run: Run) -> dict[str, str]:
    found = judged.evaluation
    nll, base, site = found.likelihood, lm.evaluation.likelihood, found.latents.get("z")
    mi = site.mutual_information if site else None
    assert base is not None
    behind = "" if nll is None or nll is base else str(compare(nll.nll, base.nll))
    return {
        f"NLL ({SAMPLES} samples)": f"{nll.mean:.2f} ± {nll.mean_standard_error:.2f}" if nll else "no density",
        "- language model, paired": behind,
        "perplexity": f"{found.perplexity:.1f}" if found.perplexity else "",
        "reconstruction": f"{found.reconstruction:.2f}",
        "KL": f"{site.kl:.2f}" if site and nll else "",
        "active units": f"{site.active_units} of {site.dimensions}" if site else "",
        "NLL rise, shuffled z": str(found.shuffled_rise) if found.shuffled_rise else "",
        "mutual information": f"{mi.whole:.2f}, cap {mi.cap:.2f}" if mi else "",
        "PPL of prior samples": f"{judged.samples:.1f}",
        "PPL of interpolants": f"{judged.between:.1f}" if judged.between else "",
        "training, words/s": f"{run.words_per_second:,.0f}",
    }


def interpolations(runs: dict[str, Run], corpus: Docstrings) -> dict[str, list[str]]:
    """The same two test sentences joined by the autoencoder and by the cured VAE."""
    lengths = corpus.test.lengths
    known = np.array([UNK not in corpus.test.words(row) for row in range(len(corpus.test))])
    middling = np.flatnonzero((lengths >= 7) & (lengths <= 10) & known)
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
    results: dict[str, Judged] = {}
    for name, system in systems(options.epochs, options.precision).items():
        console.print(f"{name} ...", highlight=False)
        runs[name] = train(name, system, corpus, options.out)
        results[name] = judge(runs[name], split, runs[LM], options.precision)
    console.print(table(results, runs))
    for name, judged in results.items():
        if judged.evaluation.latents:
            console.print(f"{name}: {judged.evaluation.verdict}.", highlight=False)
    lines = interpolations(runs, corpus)
    console.print(f"\nfrom  {lines['from'][0]}\nto    {lines['to'][0]}", markup=False, highlight=False)
    for name in (AE, CURED):
        console.print(f"\nby the {name}:", highlight=False)
        console.print("\n".join(f"  {line}" for line in lines[name]), markup=False, highlight=False)
    draw(runs, corpus, split, options.out)
    rows = {
        name: {"evaluation": found.evaluation.as_dict(), "ppl_samples": found.samples, "ppl_between": found.between}
        for name, found in results.items()
    }
    (options.out / "table.json").write_text(
        json.dumps({"rows": rows, "interpolations": lines}, indent=2), encoding="utf-8"
    )
    found = diagnose_runs(runs, documents=DIAGNOSED, draws=SAMPLES, seed=SEED)
    console.print(f"\nreport: {save(found, options.out)}", markup=False, highlight=False)
    console.print(f"pictures and runs in {options.out}; {time.perf_counter() - began:.0f} seconds", highlight=False)


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
