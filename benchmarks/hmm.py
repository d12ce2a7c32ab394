"""Hidden Markov models: the marginal likelihood with its gradient, timed; and what the tags are worth.

Protocol; that of the speed fixed before looking.

Speed (`--part speed`): nothing else on the machine, medians of calls that take turns, ratios paired by round. 45
states, vocabulary 10,000, batches of 64 sentences with lengths uniform in 25..50 and words uniform, padded to 50;
tables of standard normal logits; float32. A call clears the gradients, takes the mean over sentences of -log p(x) and
its gradient by all three tables of logits: softmax and look-up of the emissions are inside on every side.

- ours, as trained: the zoo's HMM under the compiled strategy, as `fit` calls it; against Pyro's straightforward model
  (`pyro.markov`, `Categorical(logits=emission[tag])`, `TraceEnum_ELBO`) and the zoo's EnumeratedHMM, which looks
  emissions up first.
- ours, the distribution alone, against the loops one would write: forward in log space and in scaled probabilities
  under autograd, and a jitted JAX scan of the scaled form where `jax` can be imported. The sharp row has transitions
  of less than e^-20 among them, as after training, where probabilities have to be rescaled at every step.
- values of all of them on the same batch agree; peak memory is of a process that runs one system once.

Tagging (`--part tagging`): an HMM with as many states as there are tags, trained by maximum likelihood without the
tags, then every word of the *training* split tagged, as is usual for unsupervised tagging: ud_ewt with 17 universal
tags, and the WSJ sample with 45 Penn tags (its 80 % train split, cut by hash). Words lower-case, those seen once in
train are <unk>; ends of sentence are not scored. Adam, its rate falling from 0.2 to 0.02 over 10 epochs, batch 32 (8
for the WSJ sample, a third of the words), no clipping; the parameters with the best validation bound. Learning rate and
batch were chosen by that bound in some twenty trial runs, nearly all at seed 0, which printed the scores too; the first
logits are the model's default. Five initialisations, seed 0 among them: mean, its standard error, and the standard
deviation over them. Tags by Viterbi, and by the largest marginal of each word. Beside them, all words given one tag
(the commonest).

In the run at hand other light jobs were not excluded from the speed; training seconds are of a shared machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version

import numpy as np
import pyro
import torch
from torch import Tensor

from benchmarks.chains import BATCH, LONGEST, STATES, SYSTEMS, VOCABULARY, System, batches
from benchmarks.common import RESULTS, Row, environment, interleave, peak_memory, ratio, report_peak, row, save
from pyro_nlp import Adam, Linear, Training, fit, importance_nll
from pyro_nlp.data import BracketedTrees, TextBatch, TextCorpus, Treebank
from pyro_nlp.evaluation import perplexity
from pyro_nlp.evaluation.clustering import many_to_one, v_measure
from pyro_nlp.evaluation.tagging import tagged
from pyro_nlp.models.hmm import HMM

SEEDS = range(5)
GROUPS = {  # what takes turns with what, and the share of the rounds each group gets
    ("ours, as trained", "Pyro, Categorical(logits=emission[tag])"): 0.02,
    ("ours, as trained", "Pyro, emissions looked up first"): 0.1,
    tuple(name for name in SYSTEMS if name not in list(SYSTEMS)[:3]): 1.0,
}
TARGETS = {  # how many times ours should be faster
    "Pyro, Categorical(logits=emission[tag])": ">= 200",
    "Pyro, emissions looked up first": ">= 10",
}
EARLIER = {"JAX scan, scaled": 1.2, "scaled loop": 3.6, "loop in log space": 10.0}  # ms
EARLIER_SOURCE = "measured before this was written, two quiet vCPU (AMD EPYC, AVX-512)"


def measure_speed(rounds: int) -> list[Row]:
    """Every group of systems in turn."""
    more, examples = environment(states=STATES, vocabulary=VOCABULARY, batch=BATCH, length=LONGEST), batches(8)
    if "JAX scan, scaled" in SYSTEMS:
        more["jax"] = version("jax")
    made = {name: make() for name, make in SYSTEMS.items()}
    rows, timed = [], set()
    with pyro.validation_enabled(False):
        values = {name: float(made[name](examples[0])) for name in made if "sharp" not in name}
        for names, share in GROUPS.items():
            turns: dict[str, Iterator[TextBatch]] = {name: itertools.cycle(examples) for name in names}
            calls = {name: _call(made[name], turns[name]) for name in names}
            count = max(5, round(share * rounds))
            seconds = interleave(calls, count, warmup=1 if share < 0.1 else 10)
            for name in names:
                if name not in timed:
                    median = round(1e3 * statistics.median(seconds[name]), 3)
                    earlier, source = EARLIER.get(name), EARLIER_SOURCE if name in EARLIER else ""
                    rows.append(row(f"speed: {name}", median, "ms", reference=earlier, source=source, environment=more))
                timed.add(name)
                if name != names[0] and "sharp" not in name:
                    value, error = ratio(seconds[name], seconds[names[0]])
                    what, digits = f"speed: {name} / {names[0]}", round(value, 2)
                    rows.append(
                        row(
                            what,
                            digits,
                            "times",
                            standard_error=round(error, 2),
                            reference=TARGETS.get(name),
                            environment=more,
                        )
                    )
    worst = max(abs(value / values["loop in log space"] - 1) for value in values.values())
    what = "speed: largest relative difference between two values"
    rows.append(row(what, float(f"{worst:.1g}"), "", reference="< 1e-5", environment=more))
    for name in list(SYSTEMS)[:3]:
        rows.append(row(f"speed: peak memory, {name}", round(peak_memory("hmm", name)), "MiB", environment=more))
    return rows


def _call(system: System, turns: Iterator[TextBatch]) -> Callable[[], Tensor]:
    return lambda: system(next(turns))


def measure_tagging() -> list[Row]:
    """Both treebanks."""
    ud = Treebank("ud_ewt", tags="upos", lowercase=True, min_count=2)
    wsj = BracketedTrees("wsj_sample/wsj_sample.mrg", lowercase=True, min_count=2)
    return _tagging(ud, 32) + _tagging(wsj, 8)


def _tagging(corpus: TextCorpus, batch_size: int) -> list[Row]:
    training = Training(
        epochs=10, batch_size=batch_size, optimizer=Adam(Linear(0.2, 0.02, epochs=10)), clip=None, plateau=None
    )
    found: dict[str, list[float]] = {}
    for seed in SEEDS:
        torch.manual_seed(seed)
        model = HMM(len(corpus.vocabulary), len(corpus.tags))
        began = time.perf_counter()
        fit(model, None, corpus, None, training, seed=seed)
        of_run = {"training, s": time.perf_counter() - began}
        nll = importance_nll(model, None, corpus.valid, batch_size=64).nll
        of_run["perplexity, validation"] = perplexity(nll, corpus.valid.tokens)
        for name, viterbi in (("Viterbi", True), ("largest marginal", False)):
            pair = tagged(model, corpus.train, viterbi)
            of_run[f"many-to-one, {name}, %"] = 100 * many_to_one(*pair)
            of_run[f"V-measure, {name}, %"] = 100 * v_measure(*pair)
        for name, value in of_run.items():
            found.setdefault(name, []).append(value)
        print(corpus.name, seed, {name: round(value, 2) for name, value in of_run.items()}, flush=True)
    return _tagging_rows(corpus, training, found)


REFERENCE = {
    ("wsj_sample", "many-to-one, Viterbi, %"): 59.8,
    ("wsj_sample", "V-measure, Viterbi, %"): 54.2,
}
SOURCE = "Tran et al. 2016: a neural HMM without context, 45 states, on the whole WSJ (some 15 times the words)"


def _tagging_rows(corpus: TextCorpus, training: Training, found: dict[str, list[float]]) -> list[Row]:
    assert corpus.train.tags is not None
    tags = len(corpus.tags)
    more = environment(corpus=corpus.name, fingerprint=corpus.fingerprint, states=tags, epochs=training.epochs)
    where = f"tagging: {corpus.name}"
    commonest = 100 * many_to_one(np.zeros(len(corpus.train.tags), int), corpus.train.tags)
    rows = [
        row(f"{where}: words tagged", len(corpus.train.tags), "", environment=more),
        row(f"{where}: many-to-one, one tag for all", round(commonest, 1), "%", environment=more),
    ]
    for name, values in found.items():
        what, _, unit = name.rpartition(", ") if name.endswith((", s", ", %")) else (name, "", "")
        deviation = statistics.stdev(values)
        reference = REFERENCE.get((corpus.name, name))
        mean = round(statistics.mean(values), 1)
        rows.append(
            row(
                f"{where}: {what}, mean of {len(values)}",
                mean,
                unit,
                standard_error=round(deviation / math.sqrt(len(values)), 1),
                reference=reference,
                source=SOURCE if reference else "",
                environment=more,
            )
        )
        rows.append(row(f"{where}: {what}, standard deviation", round(deviation, 1), unit, environment=more))
    best = int(np.argmin(found["perplexity, validation"]))
    for name in ("many-to-one, Viterbi, %", "V-measure, Viterbi, %"):
        what = f"{where}: {name[:-3]}, the run with the best validation perplexity"
        rows.append(row(what, round(found[name][best], 1), "%", seed=best, environment=more))
    return rows


def kept(part: str) -> list[Row]:
    """What an earlier run said of the other part."""
    path = RESULTS / "hmm.json"
    rows: list[Row] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return [found for found in rows if part != "all" and not found["measure"].startswith(f"{part}: ")]


def main() -> None:
    """Measure, and write results/hmm.json; one part leaves the other's rows as they are."""
    parser = argparse.ArgumentParser(description="Hidden Markov models: speed and unsupervised tagging.")
    parser.add_argument("--part", choices=("speed", "tagging", "all"), default="all")
    parser.add_argument("--rounds", type=int, default=300, help="of the fast systems; the slow ones get fewer")
    parser.add_argument("--only", choices=list(SYSTEMS), help="(internal) peak memory of one system")
    parser.add_argument("--threads", type=int, default=2, help="of PyTorch; one where the machine is shared")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.only:
        with pyro.validation_enabled(False):
            SYSTEMS[options.only]()(batches(1)[0])
        report_peak()
        return
    rows = kept(options.part)
    if options.part in ("speed", "all"):
        rows = measure_speed(options.rounds) + rows
    if options.part in ("tagging", "all"):
        rows = rows + measure_tagging()
    save("hmm", rows)


if __name__ == "__main__":
    main()
