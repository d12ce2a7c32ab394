"""The posterior-collapse laboratory: every remedy on one network, one corpus, one protocol.

Protocol: the recipes of `pyro_nlp/recipes/collapse`, each of which is the sentence VAE of `collapse/linear` (Penn
Treebank, LSTM and embeddings of 256, z of 32, dropout 0.5 on the decoder's inputs and outputs, Adam at 1e-3, clipping
at 5, batches of 32, at most 100 epochs, the learning rate halved and the best parameters taken back after two epochs
without a better validation bound, and the end where that would be for the fifth time; bf16) but for what it says. The
state is reset at every sentence, ends of sentence count. Everything is judged by the parameters with the best
validation bound of the unweighted model (of the five-draw bound for `importance`), on the test split, likelihoods in
bf16 and all else in float32:

    -ELBO        one draw
    NLL          importance-weighted, or exact for the language model
    PPL          exp(NLL / tokens), and of the -ELBO
    KL, MI, AU   MI by one draw against all the sentences judged; AU by variance 0.01 of the means. MI is at most the
                 log of the number of sentences, 8.2 in `full` and 6.9 in `small`; the autoencoder, whose code is a
                 point, has no KL and no MI, and a flow no closed form to take it by
    shuffled     how much the NLL given z rises with another sentence's z
    BLEU         of greedy reconstructions from posterior means, 1,000 sentences
    PPL of samples, of interpolants
                 of 1,000 prior samples, and of the five sentences between the ends of 200 pairs (greedy), under the
                 language model of the same table and seed 0
    minus LM     the NLL minus that of the language model of the same table and seed, paired by sentence

`full`: all 42,068 training sentences, NLL by 500 draws on all 3,761 test sentences; seed 0, and the eight recipes first
named below unless others are asked for. `small`: the first 10,000 training sentences with the same vocabulary, seeds 0,
1 and 2, NLL by 100 draws on 1,000 test sentences (a fixed permutation, on which KL, MI, AU and the rest are measured
too). Means are over the seeds that are finished. Standard errors are those between sentences, for -ELBO, minus LM and
shuffled, and those between seeds, where there are several, added in squares.

Rows are trained and judged one at a time, in the order below, by `pyro-nlp train` into --runs; what is finished is not
repeated, what was stopped goes on from its last checkpoint. A row's file in results/collapse/ appears when it is done
and the table is made of what is there: a recipe that is missing has not been run. Seconds are of training to the best
epoch, on a machine that did other work meanwhile.

References are texar-pytorch's README (LSTM, PTB: -ELBO 101.92 and perplexity 104.61 of it; Transformer: 101.72 and
103.68). They publish no KL.

    python -m benchmarks.collapse [--table full|small] [--rows NAME ...] [--seeds 0 1 2] [--runs DIR] [--only-table]
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import RESULTS, Row, environment, row, save
from benchmarks.rows import learnt, read, standard_error, train, wide, write
from pyro_nlp.data import TextSplit
from pyro_nlp.evaluation import (
    as_split,
    elbo_terms,
    evaluate,
    forward_perplexity,
    interpolant_perplexity,
    perplexity,
    reconstruction_bleu,
    sample_prior,
)
from pyro_nlp.recipe import open_run

FULL = (
    "language_model",
    "linear",
    "plain",
    "free_bits",
    "batch_norm",
    "cyclical",
    "pretrained",
    "aggressive_linear",
)
SMALL = (
    "language_model",
    "linear",
    "plain",
    "autoencoder",
    "logistic",
    "cyclical",
    "beta",
    "free_bits",
    "free_bits_batch",
    "free_bits_site",
    "capacity",
    "bag_of_words",
    "batch_norm",
    "committed",
    "delta",
    "von_mises_fisher",
    "pretrained",
    "aggressive",
    "aggressive_linear",
    "word_dropout",
    "fraternal",
    "inputless",
    "skip",
    "max_pooling",
    "importance",
    "mixture_prior",
    "vamp",
    "flow",
    "gru",
    "cnn_small",
    "cnn_medium",
    "cnn_large",
    "transformer",
    "transformer_embedding",
    "semi_amortized",
)
DEFAULTS = {"full": FULL, "small": SMALL}
SEEDS = {"full": (0,), "small": (0, 1, 2)}
SENTENCES = {"full": None, "small": 10_000}
SAMPLES = {"full": 500, "small": 100}
FOLDER = RESULTS / "collapse"
REFERENCES = {"linear": (101.92, 104.61), "transformer": (101.72, 103.68)}

COLUMNS = {
    "-ELBO": "nats",
    "NLL": "nats",
    "minus LM": "nats",
    "PPL of -ELBO": "",
    "PPL": "",
    "KL": "nats",
    "MI": "nats",
    "AU": "of 32",
    "shuffled": "nats",
    "BLEU": "",
    "PPL of samples": "",
    "PPL of interpolants": "",
    "epochs to best": "",
    "seconds to best": "s",
}


def judge(table: str, name: str, seed: int, runs: Path) -> tuple[dict[str, Any], np.ndarray | None]:
    """The measures of one row, and its NLL by sentence; None where there is no density."""
    run, recipe = open_run(runs / f"{name}-{table}-{seed}")
    test = recipe.corpus.test
    assert isinstance(test, TextSplit)
    order = np.random.default_rng(0).permutation(len(test))
    part = test if table == "full" else test.take(order[:1000])
    found = evaluate(run.model, run.guide, part, samples=SAMPLES[table], precision="bf16")
    measures: dict[str, Any] = {"seed": seed}
    if found.likelihood is not None:
        bound = -elbo_terms(run.model, run.guide, part, precision="bf16").elbo
        measures |= {
            "-ELBO": float(bound.mean()),
            "-ELBO standard error": float(bound.std(ddof=1) / len(bound) ** 0.5),
            "PPL of -ELBO": perplexity(bound, part.tokens),
            "NLL": found.likelihood.mean,
            "PPL": found.perplexity,
        }
    for latent in found.latents.values():
        measures["AU"] = latent.active_units
        if found.likelihood is not None:
            measures["KL"] = latent.kl
        if latent.mutual_information is not None:
            measures |= {"MI": latent.mutual_information.whole, "MI cap": latent.mutual_information.cap}
    if found.shuffled_rise is not None:
        measures |= {"shuffled": found.shuffled_rise.mean, "shuffled error": found.shuffled_rise.standard_error}
    if found.latents:
        measures["BLEU"] = reconstruction_bleu(run.model, run.guide, test.take(order[:1000]))
    lm, _ = open_run(runs / f"language_model-{table}-0")
    if found.likelihood is not None:
        written = as_split(sample_prior(run.model, test, 1000, seed=seed))
        measures["PPL of samples"] = forward_perplexity(lm.model, written)
    if found.latents and run.guide is not None:
        measures["PPL of interpolants"] = interpolant_perplexity(run.model, run.guide, lm.model, test.take(order[:400]))
    measures |= learnt(run.history)
    measures["words per second"] = run.words_per_second
    described = json.loads((runs / f"{name}-{table}-{seed}" / "environment.json").read_text(encoding="utf-8"))
    measures["environment"] = environment(corpus=recipe.corpus.name, fingerprint=described["fingerprint"])
    return measures, None if found.likelihood is None else found.likelihood.nll


def file(table: str, name: str, seed: int) -> Path:
    """Where the result of one row is."""
    return FOLDER / table / f"{name}-{seed}.json"


def finish(table: str, name: str, seed: int, runs: Path) -> None:
    """Train and judge one row, and write its result down, unless that is done."""
    path = file(table, name, seed)
    if path.exists():
        return
    if (name, seed) != ("language_model", 0):
        reader = runs / f"language_model-{table}-0"  # of what the others write
        finish(table, "language_model", 0, runs)
        if not reader.exists():
            sys.exit(f"{file(table, 'language_model', 0)} is there, but its run {reader} is not: delete the file")
    sentences = SENTENCES[table]
    cut = [] if sentences is None else [f"--corpus.sentences={sentences}"]
    train(f"collapse/{name}", runs / f"{name}-{table}-{seed}", [f"--seed={seed}", *cut])
    measures, nll = judge(table, name, seed, runs)
    if nll is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp.npz")
        np.savez_compressed(temporary, nll=nll.astype(np.float32))
        os.replace(temporary, path.with_suffix(".npz"))
    write(path, measures)


def rows(table: str) -> Iterator[Row]:
    """The measures of all recipes that have a result, averaged over seeds."""
    for name in SMALL:  # which has every recipe
        paths = sorted(path for path in (FOLDER / table).glob(f"{name}-*.json") if path.stem[len(name) + 1 :].isdigit())
        if not paths:
            continue
        seeds = [int(path.stem.rpartition("-")[2]) for path in paths]
        found = [read(path) for path in paths]
        apart = against_language_model(table, name, seeds)
        for measure, unit in COLUMNS.items():
            if measure == "minus LM":
                values = list(apart.mean(1))
                between_sentences = [float(apart.mean(0).std(ddof=1) / apart.shape[1] ** 0.5)] if len(apart) else []
            else:
                values = [one[measure] for one in found if one.get(measure) is not None]
                its_error = {"-ELBO": "-ELBO standard error", "shuffled": "shuffled error"}.get(measure)
                between_sentences = [one[its_error] for one in found if its_error in one]
            if not values:
                continue
            error = standard_error(values, between_sentences)
            reference = dict(zip(("-ELBO", "PPL of -ELBO"), REFERENCES.get(name, ()), strict=False)).get(measure)
            yield row(
                f"{table} | {name} | {measure}",
                round(float(np.mean(values)), 3),
                unit,
                standard_error=None if error is None else round(error, 3),
                reference=reference if table == "full" else None,
                source="texar-pytorch README" if reference and table == "full" else "",
                protocol=f"seeds {', '.join(map(str, seeds))}",
                seed=seeds[0] if len(seeds) == 1 else None,
                environment=found[0]["environment"],
            )


def against_language_model(table: str, name: str, seeds: Sequence[int]) -> np.ndarray:
    """The NLL minus that of the language model of the same seed, `[seeds, sentences]`; those seeds that have both."""
    found = []
    for seed in seeds if name != "language_model" else ():
        ours, lm = (file(table, n, seed).with_suffix(".npz") for n in (name, "language_model"))
        if ours.exists() and lm.exists():
            with np.load(ours) as first, np.load(lm) as second:
                found.append(first["nll"].astype(float) - second["nll"].astype(float))
    return np.array(found) if found else np.zeros((0, 1))


def markdown(found: list[Row]) -> str:
    """The rows as wide tables: a recipe a line."""
    return wide(found, COLUMNS)


def main() -> None:
    """Run what is missing, and write results/collapse.json from what is there."""
    parser = argparse.ArgumentParser(description="The posterior-collapse laboratory.")
    parser.add_argument("--table", choices=tuple(DEFAULTS), action="append", help="by default both")
    parser.add_argument("--rows", nargs="+", choices=SMALL, metavar="RECIPE", help="by default those of the table")
    parser.add_argument("--seeds", nargs="+", type=int, help="by default those of the table")
    parser.add_argument("--runs", type=Path, default=Path("runs/collapse"))
    parser.add_argument("--only-table", action="store_true", help="train nothing")
    options = parser.parse_args()
    for table in (options.table or DEFAULTS) if not options.only_table else ():
        for seed in options.seeds or SEEDS[table]:
            for name in options.rows or DEFAULTS[table]:
                finish(table, name, seed, options.runs)
    save("collapse", [one for table in DEFAULTS for one in rows(table)])


if __name__ == "__main__":
    torch.set_num_threads(min(2, torch.get_num_threads()))
    main()
