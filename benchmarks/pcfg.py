"""Grammars induced from words alone: trees against a treebank's, perplexity, and the speed of the inside algorithm.

Protocol: the recipes `neural_pcfg` and `compound_pcfg` (30 nonterminals, 60 preterminals, width 256, z of 64; Adam at
0.001, ten epochs, the best by the validation bound), on the constituency trees of GUM (7,189 / 969 / 898; words seen
twice, punctuation taken out by its tag, sentences of up to 30 words). Seeds 0, 1 and 2; a row or seed that is not in
the table has not been run. On test sentences of up to 30 words:

    F1           unlabelled, mean over sentences, of the likeliest tree (at the posterior mean of z), by the protocol of
                 `evaluation.parsing`; the standard error is that between sentences, of the mean over seeds, and that
                 between seeds, where there are several, added in squares
    with gold    the same without the sentences that have no gold span
    corpus F1    of all spans together
    NLL, PPL     nats a sentence: exact, or by 100 importance samples; PPL divides by words and ends of sentence, and a
                 grammar gives the end no probability of its own, as Kim et al. count
    KL           of z
    seconds      of training, beside other jobs

`right`, `left`, `random` (a seed) and `oracle` (the best binary tree) have no training. In brackets: Kim et al. 2019 on
the Wall Street Journal, whole and ten times as long, means of several seeds [from memory]: another treebank, not a
target.

Speed: log p(x) of 16 sentences of 10, 20 and 30 words under random grammars of their own, and with its gradient,
against torch-struct's `SentCFG` where that is installed, taking turns, one thread, beside other jobs; ratios of its
time to ours.

    python -m benchmarks.pcfg [--rows NAME ...] [--seeds 0 1 2] [--runs DIR] [--only-table]
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import RESULTS, Row, environment, interleave, ratio, row, save
from benchmarks.rows import learnt, read, standard_error, train, wide, write
from pyro_nlp.data import ParsedTrees
from pyro_nlp.distributions.pcfg import PCFG
from pyro_nlp.evaluation import elbo_terms, importance_nll, perplexity
from pyro_nlp.evaluation.parsing import (
    ParsingScores,
    binarise,
    left_branching,
    parses,
    random_tree,
    right_branching,
    score_parses,
)
from pyro_nlp.recipe import open_run

ROWS = ("neural_pcfg", "compound_pcfg")
PLAIN: dict[str, Callable[[Any, int, np.random.Generator], Any]] = {
    "right": lambda gold, length, rng: right_branching(length),
    "left": lambda gold, length, rng: left_branching(length),
    "random": lambda gold, length, rng: random_tree(length, rng),
    "oracle": lambda gold, length, rng: binarise(gold, length),
}
FOLDER = RESULTS / "pcfg"
REFERENCES = {
    ("neural_pcfg", "F1"): 50.8,
    ("compound_pcfg", "F1"): 55.2,
    ("neural_pcfg", "PPL"): 252.6,
    ("compound_pcfg", "PPL"): 196.3,
}
COLUMNS = {
    "F1": "%",
    "with gold": "%",
    "corpus F1": "%",
    "NLL": "nats",
    "PPL": "",
    "KL": "nats",
    "epochs": "",
    "seconds to best": "s",
}
NONTERMINALS, PRETERMINALS, BATCH, LENGTHS = 30, 60, 16, (10, 20, 30)


def agreement(scores: ParsingScores) -> dict[str, float]:
    """The three forms of F1, in per cent."""
    return {
        "F1": 100 * scores.f1,
        "with gold": 100 * scores.f1_with_gold,
        "corpus F1": 100 * scores.corpus_f1,
    }


def judge(folder: Path) -> tuple[dict[str, Any], np.ndarray]:
    """The measures of one run, and F1 by sentence."""
    run, recipe = open_run(folder)
    corpus = recipe.corpus
    assert isinstance(corpus, ParsedTrees)
    test: Any = corpus.test
    scores = score_parses(parses(run.model, run.guide, test), test.gold, (test.lengths - 1).tolist())
    found = importance_nll(run.model, run.guide, test, samples=100, batch_size=8)
    measures: dict[str, Any] = {
        **agreement(scores),
        "NLL": found.mean,
        "PPL": perplexity(found.nll, test.tokens),
        "recall": scores.recall,
        **learnt(run.history),
    }
    if run.guide is not None:
        measures["KL"] = float(elbo_terms(run.model, run.guide, test).kl["z"].mean())
    measures["environment"] = environment(corpus=corpus.name, fingerprint=corpus.fingerprint)
    return measures, scores.sentences


def finish(name: str, seed: int, runs: Path) -> None:
    """Train and judge one row, and write its result down, unless that is done."""
    path = FOLDER / f"{name}-{seed}.json"
    if path.exists():
        return
    train(name, runs / path.stem, [f"--seed={seed}"])
    measures, sentences = judge(runs / path.stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, f1=sentences.astype(np.float32))
    os.replace(temporary, path.with_suffix(".npz"))
    write(path, measures | {"seed": seed})


def plain() -> None:
    """The trees that need no training."""
    if (FOLDER / "plain.json").exists():
        return
    corpus = ParsedTrees("gum_const", min_count=2, max_length=30)
    test: Any = corpus.test
    lengths = (test.lengths - 1).tolist()
    found: dict[str, Any] = {"environment": environment(corpus=corpus.name, fingerprint=corpus.fingerprint)}
    for name, make in PLAIN.items():
        rng = np.random.default_rng(0)
        trees = [make(gold, length, rng) for gold, length in zip(test.gold, lengths, strict=True)]
        found[name] = agreement(score_parses(trees, test.gold, lengths))
    write(FOLDER / "plain.json", found)


def speed() -> None:
    """Ours against torch-struct's, for the likelihood alone and with its gradient."""
    path = FOLDER / "speed.json"
    if path.exists() or importlib.util.find_spec("torch_struct") is None:
        return
    struct = importlib.import_module("torch_struct")
    found: dict[str, Any] = {"environment": environment()}
    torch.manual_seed(0)
    for length in LENGTHS:
        parts, words = _grammars(length), torch.arange(length).expand(BATCH, length)
        mask = torch.ones(BATCH, length, dtype=torch.bool)
        systems = {"ours": partial(_ours, parts, words, mask), "theirs": partial(_theirs, struct.SentCFG, parts, words)}
        for name, gradient in (("log p(x)", False), ("with its gradient", True)):
            timed = {who: partial(_timed, system, parts, gradient) for who, system in systems.items()}
            seconds = interleave(timed, rounds=8, warmup=1)
            value, error = ratio(seconds["theirs"], seconds["ours"])
            rate = BATCH / float(np.median(seconds["ours"]))
            found[f"{length} words, {name}"] = {"ratio": value, "error": error, "sentences per second": rate}
        apart = (systems["ours"]() - systems["theirs"]()).abs().max()
        assert apart < 1e-2, f"they differ by {apart} nats"
    write(path, found)


def _grammars(length: int) -> tuple[torch.Tensor, ...]:
    """Logits of grammars as the compound PCFG makes them: root, rules, shift of rules, emissions."""
    symbols = NONTERMINALS + PRETERMINALS
    shapes = ((BATCH, NONTERMINALS), (NONTERMINALS, symbols**2), (BATCH, symbols**2), (BATCH, PRETERMINALS, 1000))
    return tuple(torch.randn(shape).requires_grad_() for shape in shapes)


def _ours(parts: Sequence[torch.Tensor], words: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    root, rules, shift, emitted = parts
    found: torch.Tensor = PCFG(root, rules, emitted, mask, shift).log_prob(words)
    return found


def _theirs(distribution: Any, parts: Sequence[torch.Tensor], words: torch.Tensor) -> torch.Tensor:
    root, rules, shift, emitted = parts
    symbols = NONTERMINALS + PRETERMINALS
    pairs = (rules + shift[:, None]).log_softmax(-1).view(BATCH, NONTERMINALS, symbols, symbols)
    seen = emitted.log_softmax(-1).gather(2, words[:, None].expand(-1, PRETERMINALS, -1)).mT.contiguous()
    found: torch.Tensor = distribution((seen, pairs, root.log_softmax(-1))).partition
    return found


def _timed(system: Callable[[], torch.Tensor], parts: Sequence[torch.Tensor], gradient: bool) -> None:
    with torch.set_grad_enabled(gradient):
        total = system().sum()
    if gradient:
        torch.autograd.grad(total, list(parts))


def rows() -> Iterator[Row]:
    """All measures that there are, averaged over seeds."""
    if (FOLDER / "plain.json").exists():
        found = read(FOLDER / "plain.json")
        for name in PLAIN:
            for measure, value in found[name].items():
                yield row(f"gum | {name} | {measure}", round(value, 2), "%", environment=found["environment"])
    for name in ROWS:
        seeds = [seed for seed in range(3) if (FOLDER / f"{name}-{seed}.json").exists()]
        if not seeds:
            continue
        each = [read(FOLDER / f"{name}-{seed}.json") for seed in seeds]
        sentences = np.mean([np.load(FOLDER / f"{name}-{seed}.npz")["f1"] for seed in seeds], 0)
        for measure, unit in COLUMNS.items():
            values = [one[measure] for one in each if one.get(measure) is not None]
            if not values:
                continue
            between_sentences = 100 * float(sentences.std(ddof=1)) / len(sentences) ** 0.5
            error = standard_error(values, [between_sentences]) if measure == "F1" else None
            yield row(
                f"gum | {name} | {measure}",
                round(float(np.mean(values)), 2),
                unit,
                standard_error=None if error is None else round(error, 2),
                reference=REFERENCES.get((name, measure)),
                source="Kim et al. 2019, WSJ [from memory]" if (name, measure) in REFERENCES else "",
                protocol=f"seeds {', '.join(map(str, seeds))}",
                seed=seeds[0] if len(seeds) == 1 else None,
                environment=each[0]["environment"],
            )
    if (FOLDER / "speed.json").exists():
        found = read(FOLDER / "speed.json")
        for name, one in found.items():
            if name != "environment":
                what = f"inside algorithm | {name} | "
                value, error = round(one["ratio"], 2), round(one["error"], 2)
                more = found["environment"]
                yield row(f"{what}torch-struct / ours", value, "", standard_error=error, environment=more)
                yield row(f"{what}sentences per second", round(one["sentences per second"], 1), "", environment=more)


def markdown(found: list[Row]) -> str:
    """The rows as wide tables."""
    trees = [one for one in found if one["measure"].startswith("gum")]
    fast = [one for one in found if not one["measure"].startswith("gum")]
    return "\n\n".join(filter(None, (wide(trees, COLUMNS), wide(fast, SPEED) if fast else "")))


SPEED = {"torch-struct / ours": "", "sentences per second": ""}


def main() -> None:
    """Run what is missing, and write results/pcfg.json from what is there."""
    parser = argparse.ArgumentParser(description="Grammars induced from words alone.")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs/pcfg"))
    parser.add_argument("--only-table", action="store_true", help="make the table of what is there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if not options.only_table:
        plain()
        speed()
        for seed in options.seeds:
            for name in options.rows:
                finish(name, seed, options.runs)
    save("pcfg", list(rows()))


if __name__ == "__main__":
    main()
