"""The quiz of attention: which variables of a sequence-to-sequence model are latent, and what inferring them costs.

Two tasks on the built-in corpus: from the words of a function's name to its summary line, and back. One pair of models
with the same networks: attention as a mean (`SoftAttention`: everything is observed or deterministic) and as a variable
(`LatentAttention`: the position is latent and random at every word), the latter under every way to infer it. The answer
to the quiz is the table's first columns.

Protocol: the recipes `soft_attention` and `latent_attention`, embeddings, LSTM and layers of 128, dropout 0.2, batches
of 64, Adam at 0.002, at most 5 epochs, the rate halved and the best parameters taken back after an epoch without a
better validation bound, twice; summaries of at most 12 words; bf16 where this machine is faster in it. Seeds 0, 1, 2;
a row, task or seed that is not in the table has not been run. On the test split:

    NLL           exact, positions summed out, in nats per target; its standard error is between targets
    PPL           exp(total NLL / total words), ends of sentence counted
    minus soft    paired by target, mean over seeds
    KL            of q from the prior, one draw, per target
    prior         entropy of p(a | x, y_<t), mean over words, in nats
    posterior     entropy of the exact p(a | x, y)
    information   KL of that posterior from the prior, mean over words: what a word tells of where it was read
    q to exact    KL of the guide's answer from the exact posterior, mean over words
    seconds       to the best epoch, beside other jobs; the run of `marginalised` stood still for most of its time

Summed out, the model is a mixture over positions where soft attention is one of its means; neither contains the other.

    python -m benchmarks.attention [--tasks summary name] [--rows NAME ...] [--seeds 0 1 2] [--runs DIR] [--only-table]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import RESULTS, Row, environment, row, save
from benchmarks.rows import learnt, read, train, wide, write
from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.evaluation import elbo_terms, importance_nll, perplexity
from pyro_nlp.evaluation.documents import batches, judging
from pyro_nlp.inference.fit import Run
from pyro_nlp.inference.terms import terms
from pyro_nlp.models.latent_attention import LatentAttention
from pyro_nlp.recipe import open_run

TASKS = {"summary": False, "name": True}
"""What is written: the summary line by the name, or the name by the summary line (the corpus reversed)."""
ROWS = {
    "soft": ("soft_attention", None),
    "marginalised": ("latent_attention", "marginalize"),
    "enumerated": ("latent_attention", "enumerate"),
    "subset": ("latent_attention", "subset"),
    "rloo": ("latent_attention", "rloo"),
    "nvil": ("latent_attention", "nvil"),
    "vimco": ("latent_attention", "vimco"),
    "rebar": ("latent_attention", "rebar"),
    "relaxed": ("latent_attention", "relax"),
    "straight through": ("latent_attention", "straight_through"),
}
OVERRIDES = ("--corpus.max_length=12", "--training.epochs=5", "--training.precision=auto")
QUIZ = {
    "soft": ("deterministic", "-"),
    "marginalised": ("latent, random", "summed in the model"),
    "enumerated": ("latent, random", "summed under q"),
    "subset": ("latent, random", "2 summed, 1 drawn"),
    "rloo": ("latent, random", "drawn, score function"),
    "nvil": ("latent, random", "drawn, score function"),
    "vimco": ("latent, random", "drawn, importance-weighted"),
    "rebar": ("latent, random", "drawn, control variate"),
    "relaxed": ("latent, random", "drawn from the simplex"),
    "straight through": ("latent, random", "drawn, gradient of the simplex"),
}
FOLDER = RESULTS / "attention"
COLUMNS = {
    "NLL": "nats",
    "minus soft": "nats",
    "PPL": "",
    "KL": "nats",
    "prior": "nats",
    "posterior": "nats",
    "information": "nats",
    "q to exact": "nats",
    "epochs to best": "",
    "seconds to best": "s",
}


def looks(run: Run, split: PairSplit) -> dict[str, float]:
    """Entropies of where a model looks, by word, and how far from its exact posterior the guide is."""
    sums = dict.fromkeys(("prior", "posterior", "information", "q to exact"), 0.0)
    words = 0
    with judging(run.model, run.guide, 0):
        for _, batch in batches(run.model, split, 64):
            model: Any = run.model
            mask = batch.second.mask.T  # type: ignore[attr-defined]
            prior = model.read(batch)[2].log_softmax(-1)
            words += int(mask.sum())
            if not isinstance(model, LatentAttention):
                sums["prior"] += float(_entropy(prior)[mask].sum())
                continue
            exact = terms(model, None, batch, marginal=("a",)).posterior("a")[0].clamp(min=1e-30).log()
            sums["prior"] += float(_entropy(prior)[mask].sum())
            sums["posterior"] += float(_entropy(exact)[mask].sum())
            sums["information"] += float((exact.exp() * (exact - prior)).sum(-1)[mask].sum())
            if run.guide is not None:
                q: Any = terms(model, run.guide, batch).sites["a"].q
                log_q = q.logits[0] if q.logits.dim() == 4 else q.logits
                sums["q to exact"] += float((log_q.exp() * (log_q - exact)).sum(-1)[mask].sum())
    return {name: value / words for name, value in sums.items() if value or name == "prior"}


def _entropy(log_p: torch.Tensor) -> torch.Tensor:
    return -(log_p.exp() * log_p).sum(-1)


def judge(folder: Path) -> tuple[dict[str, Any], np.ndarray]:
    """The measures of one run, and its NLL by target."""
    run, recipe = open_run(folder)
    split = recipe.corpus.test
    assert isinstance(split, PairSplit)
    found = importance_nll(run.model, None, split, batch_size=32)
    assert not found.samples
    measures: dict[str, Any] = {
        "NLL": found.mean,
        "NLL standard error": found.mean_standard_error,
        "PPL": perplexity(found.nll, split.tokens),
        **looks(run, split),
        **learnt(run.history),
    }
    if run.guide is not None:
        measures["KL"] = float(elbo_terms(run.model, run.guide, split).kl["a"].mean())
    measures["environment"] = environment(corpus=recipe.corpus.name, fingerprint=recipe.corpus.fingerprint)
    return measures, found.nll


def file(task: str, name: str, seed: int) -> Path:
    """Where the result of one row is."""
    return FOLDER / task / f"{name.replace(' ', '_')}-{seed}.json"


def finish(task: str, name: str, seed: int, runs: Path) -> None:
    """Train and judge one row, and write its result down, unless that is done."""
    path = file(task, name, seed)
    if path.exists():
        return
    recipe, strategy = ROWS[name]
    out = runs / f"{task}-{name.replace(' ', '_')}-{seed}"
    options = [*OVERRIDES, f"--seed={seed}", f"--corpus.reverse={str(TASKS[task]).lower()}"]
    if strategy:
        options.append(f"--strategy={strategy}")
    if name == "subset":  # of three there may be none left: names of two words have three positions
        options.append("--strategy.discrete.k=2")
    train(recipe, out, options)
    measures, nll = judge(out)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, nll=nll.astype(np.float32))
    os.replace(temporary, path.with_suffix(".npz"))
    write(path, measures | {"seed": seed})


def rows() -> Iterator[Row]:
    """The measures of all rows that have a result, averaged over seeds."""
    for task in TASKS:
        for name in ROWS:
            seeds = [seed for seed in range(3) if file(task, name, seed).exists()]
            if not seeds:
                continue
            found = [read(file(task, name, seed)) for seed in seeds]
            paired = [p for seed in seeds if name != "soft" and (p := against_soft(task, name, seed)) is not None]
            for measure, unit in COLUMNS.items():
                values = [one[measure] for one in found if one.get(measure) is not None]
                single = found[0].get(f"{measure} standard error")
                if measure == "minus soft":
                    values, single = [mean for mean, _ in paired], paired[0][1] if paired else None
                if not values:
                    continue
                error = float(np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else single
                yield row(
                    f"{task} | {name}: a is {', '.join(QUIZ[name])} | {measure}",
                    round(float(np.mean(values)), 3),
                    unit,
                    standard_error=None if error is None else round(error, 3),
                    protocol=f"seeds {', '.join(map(str, seeds))}",
                    seed=seeds[0] if len(seeds) == 1 else None,
                    environment=found[0]["environment"],
                )


def against_soft(task: str, name: str, seed: int) -> tuple[float, float] | None:
    """Mean and standard error of the NLL minus that of soft attention at the same seed, paired by target."""
    ours, soft = (file(task, n, seed).with_suffix(".npz") for n in (name, "soft"))
    if not ours.exists() or not soft.exists():
        return None
    with np.load(ours) as first, np.load(soft) as second:
        difference = first["nll"].astype(float) - second["nll"].astype(float)
    return float(difference.mean()), float(difference.std(ddof=1) / len(difference) ** 0.5)


def markdown(found: list[Row]) -> str:
    """The rows as wide tables: a way to infer a line."""
    return wide(found, COLUMNS)


def main() -> None:
    """Run what is missing, and write results/attention.json from what is there."""
    parser = argparse.ArgumentParser(description="Attention as a latent variable, under every way to infer it.")
    parser.add_argument("--tasks", nargs="+", choices=tuple(TASKS), default=list(TASKS), help="what is written")
    parser.add_argument("--rows", nargs="+", choices=tuple(ROWS), default=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/attention"))
    parser.add_argument("--only-table", action="store_true", help="make the table of what is there")
    options = parser.parse_args()
    if not options.only_table:
        for seed in options.seeds:
            for task in options.tasks:
                for name in options.rows:
                    finish(task, name, seed, options.runs)
    save("attention", list(rows()))


if __name__ == "__main__":
    main()
