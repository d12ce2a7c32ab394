"""Hidden Markov models of thousands of states: time and memory of a training step, dense, of low rank and by blocks.

Protocol, fixed before looking: loss and gradient by all parameters of one batch of 16 sentences of random words
(lengths 25..50, vocabulary 10,000), float32, one thread, no step of an optimiser.

    tables       the plain `HMM`: a table of transitions and a table of emissions
    dense        `NeuralHMM` with `WordEmissions` of width 64 and `TableTransitions`
    low rank     the same with `LowRankTransitions`; the rank is an eighth of the states, and 8 at least
    blocks       as dense with `BlockEmissions`, 64 states a block (9 where there are 45): each word has one block of
                 states, words dealt out by their number. It is another model, whose likelihood is not compared here

The four take turns in one process: median of --rounds (a quarter as many above 1,000 states), and the ratio to `dense`
paired by round, with its standard error. Peak memory is that of a process that makes the model and does it once;
`imports` is that of one that only imports. In the run at hand other jobs kept both cores busy: the ratios are of the
same minutes, the milliseconds are of that machine in that hour.

    python -m benchmarks.many_states [--sizes 45 256 1024 4096] [--rounds 20] [--only-table]
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch

from benchmarks.chains import VOCABULARY, batches
from benchmarks.common import RESULTS, Row, environment, interleave, peak_memory, ratio, report_peak, row, save
from benchmarks.rows import read, wide, write
from pyro_nlp.data import TextBatch
from pyro_nlp.inference import terms
from pyro_nlp.models.hmm import HMM
from pyro_nlp.models.neural_hmm import NeuralHMM
from pyro_nlp.nn import BlockEmissions, Emissions, LowRankTransitions, TableTransitions, Transitions, WordEmissions

SIZES, BATCH = (45, 256, 1024, 4096), 16
KINDS = ("tables", "dense", "low rank", "blocks")
FOLDER = RESULTS / "many_states"
COLUMNS = {"step": "ms", "dense / this": "times", "peak memory": "MiB"}


def rank(states: int) -> int:
    """Of the low-rank transitions."""
    return max(8, states // 8)


def blocks(states: int) -> int:
    """Of the block-sparse emissions."""
    return states // 64 or 5


def model(kind: str, states: int) -> HMM | NeuralHMM:
    """What is timed."""
    torch.manual_seed(0)
    if kind == "tables":
        return HMM(VOCABULARY, states)
    low: Callable[[int, int], Transitions] = partial(LowRankTransitions, rank=rank(states))
    by_block: Callable[[int, int], Emissions] = partial(BlockEmissions, blocks=blocks(states), width=64)
    emissions = by_block if kind == "blocks" else partial(WordEmissions, width=64)
    return NeuralHMM(VOCABULARY, states, emissions, low if kind == "low rank" else TableTransitions)


def step(kind: str, states: int) -> Callable[[], object]:
    """A call that takes the loss of a batch and its gradient."""
    whole, made = batches(1)[0], model(kind, states)
    words, mask = whole.targets[:BATCH], whole.mask[:BATCH]
    batch = TextBatch(whole.index[:BATCH], BATCH, words, words, mask)

    def call() -> None:
        for parameter in made.parameters():
            parameter.grad = None
        (-terms(made, None, batch).log_likelihood.mean()).backward()

    return call


def finish(states: int, rounds: int) -> None:
    """Time all kinds in turns, unless it is done."""
    path = FOLDER / f"{states}.json"
    if path.exists():
        return
    made = {kind: step(kind, states) for kind in KINDS}
    seconds = interleave(made, max(3, rounds // (1 if states <= 1000 else 4)), warmup=1)
    around = environment(
        states=states,
        rank=rank(states),
        blocks=blocks(states),
        vocabulary=VOCABULARY,
        batch=BATCH,
        rounds=len(seconds["dense"]),
    )
    found: dict[str, Any] = {"environment": around}
    for kind in KINDS:
        times, error = ratio(seconds["dense"], seconds[kind])
        found[kind] = {"step": 1e3 * statistics.median(seconds[kind]), "dense / this": times}
        found[kind] |= {"dense / this error": error, "peak memory": peak_memory("many_states", f"{kind} {states}")}
    found["imports"] = {"peak memory": peak_memory("many_states", "imports 0")}
    write(path, found)


def rows() -> Iterator[Row]:
    """Every size that has a result."""
    for states in SIZES:
        path = FOLDER / f"{states}.json"
        found = read(path) if path.exists() else {}
        for kind in (*KINDS, "imports"):
            measures = found.get(kind, {})
            for measure, unit in COLUMNS.items():
                if measure in measures:
                    error = measures.get(f"{measure} error")
                    yield row(
                        f"{states:,} states | {kind} | {measure}",
                        round(measures[measure], 2),
                        unit,
                        standard_error=round(error, 2) if error else None,
                        protocol="seeds 0",
                        environment=found["environment"],
                    )


def markdown(found: list[Row]) -> str:
    """The rows as wide tables: a size each."""
    return wide(found, COLUMNS)


def main() -> None:
    """Run what is missing, and write results/many_states.json from what is there."""
    parser = argparse.ArgumentParser(description="Hidden Markov models of thousands of states: time and memory.")
    parser.add_argument("--sizes", nargs="+", type=int, choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--only-table", action="store_true", help="make the table of what is there")
    parser.add_argument("--only", help="(internal) peak memory of a kind of a size")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.only:
        kind, _, states = options.only.rpartition(" ")
        if kind != "imports":
            step(kind, int(states))()
        report_peak()
        return
    for states in [] if options.only_table else options.sizes:
        finish(states, options.rounds)
    save("many_states", list(rows()))


if __name__ == "__main__":
    main()
