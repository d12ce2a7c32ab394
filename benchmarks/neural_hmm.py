"""Neural hidden Markov models: what their tags are worth, and how many known tags help.

Protocol, fixed before looking but for what is said to be chosen.

Tagging (`--part tagging`): trained by maximum likelihood without the tags, then every word of the *training* split
tagged by Viterbi: ud_ewt with 17 states for its universal tags, the WSJ sample with 45 for its Penn tags (its 80 %
train split, cut by hash). Words lower-case, those seen once in train are <unk>; ends of sentence are not scored.

    HMM                  as in `hmm.py`: Adam from 0.2 to 0.02, batches of 32 (8 for the WSJ sample), no clipping
    NHMM                 `WordEmissions`, `StateTransitions`
    + characters         `SpelledEmissions`: the convolution over letters in place of word vectors
    + LSTM               `LSTMTransitions`
    + both               the last two

The neural ones have vectors and layers of 64 (Tran et al. 512) and no dropout but 0.2 on the LSTM's states, Adam from
0.003 to 0.0003, batches of 64 (16 for the WSJ sample), gradients clipped at 5; all 10 epochs, and the parameters with
the best validation bound. Five initialisations. Learning rate and the spread of the states at first were chosen by
that bound in eleven runs at seed 0 on the WSJ sample, of 6 epochs, which printed the scores too.

    M-1, VM       many-to-one accuracy and V-measure, in percent
    PPL           exact, on validation, ends of sentence counted
    seconds       of training, beside other jobs

Table entries: mean and its standard error over initialisations; and `best`, M-1 and VM of the one with the best
validation perplexity, which needs no tags. References, in brackets: Tran et al. 2016 on the whole WSJ, some 15 times
the words of the sample, with vectors of 512: the numbers say what was found there, not what is to be reached here.

Supervision (`--part supervision`): the share of training sentences whose tags are seen in training (`supervision`; the
ones seen at a share are among those seen at a larger one), HMM and NHMM, trained as above; the rest of the sentences
are words alone. `test` is the share of the words of the *test* split whose Viterbi state is their tag. With no tag seen
states have no names, and each gets the tag commonest in it on train. Beside them each word's commonest tag among the
seen sentences, and for other words the commonest of all (`look-up`). Parameters by the best validation bound, which is
of words alone, so a supervised model is not chosen by how well it tags. Where some sentences are seen and others not,
more of each model:

    alone        the seen sentences are all there are: 30 epochs, batches of 8
    weighted     the seen ones count for more, by `KnownTags` with a weight of 1 / share; no gradient is clipped, as the
                 few that hold a seen sentence would be
    heavy        the same with 10 / share, so that they say ten times as much as the words of all others

These see the tags of the validation split: it adds -log p(x, tags) times weight and share to what parameters are chosen
by. Batches and epochs of `alone`, the two weights and the clipping were settled at seed 0, in some fifteen runs that
printed the test score; with gradients clipped at 5 the weighted NHMM was far worse where 1 % are seen. Three
initialisations at most; `heavy` of the HMM alone, and once.

    python -m benchmarks.neural_hmm --part tagging [--corpora NAME ...] [--systems NAME ...] [--seeds 0 1 2 3 4]
    python -m benchmarks.neural_hmm --part supervision | table
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import torch

from benchmarks.common import RESULTS, Row, environment, row, save
from benchmarks.rows import read, wide, write
from pyro_nlp import Adam, KnownTags, Linear, Strategy, Training, fit, importance_nll
from pyro_nlp.data import BracketedTrees, TextCorpus, TextSplit, Treebank
from pyro_nlp.distributions.labelled import seen_tags
from pyro_nlp.evaluation import perplexity
from pyro_nlp.evaluation.clustering import many_to_one, v_measure
from pyro_nlp.evaluation.tagging import tagged
from pyro_nlp.models.hmm import HMM
from pyro_nlp.models.neural_hmm import NeuralHMM
from pyro_nlp.nn import (
    LSTMDecoder,
    LSTMTransitions,
    SpelledEmissions,
    StateTransitions,
    WordEmissions,
)

WIDTH, EPOCHS, SEEDS = 64, 10, (0, 1, 2, 3, 4)
WORDS, LETTERS = partial(WordEmissions, width=WIDTH), partial(SpelledEmissions, width=WIDTH)
STATES = partial(StateTransitions, width=WIDTH)
INFORMED = partial(LSTMTransitions, reader=partial(LSTMDecoder, embedding=WIDTH, width=WIDTH), dropout=0.2)
SYSTEMS: dict[str, Callable[..., HMM | NeuralHMM]] = {
    "HMM": HMM,
    "NHMM": partial(NeuralHMM, emissions=WORDS, transitions=STATES),
    "characters": partial(NeuralHMM, emissions=LETTERS, transitions=STATES),
    "LSTM": partial(NeuralHMM, emissions=WORDS, transitions=INFORMED),
    "both": partial(NeuralHMM, emissions=LETTERS, transitions=INFORMED),
}
BATCHES = {"ud_ewt": (32, 64), "wsj_sample": (8, 16)}  # of the HMM, of the others
REFERENCES = {  # M-1 and VM
    "HMM": (62.6, None),
    "NHMM": (59.8, 54.2),
    "characters": (74.1, 66.1),
    "LSTM": (65.1, 60.4),
    "both": (79.1, 71.7),
}
SOURCE = "Tran et al. 2016, the whole WSJ"
SHARES = (0.0, 0.01, 0.1, 1.0)
WEIGHTS = {"": 0.0, "alone": 1.0, "weighted": 1.0, "heavy": 10.0}  # of the seen sentences, times the share
FOLDER = RESULTS / "neural_hmm"
TAGGING = {"M-1": "%", "VM": "%", "PPL": "", "M-1 of best": "%", "VM of best": "%", "seconds": "s"}
SUPERVISED = {"test": "%", "PPL": ""}


@cache
def corpus(name: str) -> TextCorpus:
    """One of the two treebanks."""
    if name == "ud_ewt":
        return Treebank("ud_ewt", tags="upos", lowercase=True, min_count=2)
    return BracketedTrees("wsj_sample/wsj_sample.mrg", lowercase=True, min_count=2)


def trained(
    name: str, system: str, seed: int, supervision: float = 0.0, how: str = ""
) -> tuple[HMM | NeuralHMM, dict[str, float]]:
    """A model with its best parameters, and the seconds and perplexity of it."""
    read_from, table, epochs, batch = corpus(name), system == "HMM", EPOCHS, BATCHES[name][system != "HMM"]
    strategy = Strategy(auxiliary=(KnownTags(WEIGHTS[how] / supervision),)) if how else None
    if how == "alone":
        read_from, epochs, batch = _seen_alone(read_from, supervision), 30, 8
        supervision, strategy = 1.0, Strategy(auxiliary=(KnownTags(),))
    torch.manual_seed(seed)
    model = SYSTEMS[system](len(read_from.vocabulary), len(read_from.tags), supervision=supervision)
    training = Training(
        epochs=epochs,
        batch_size=batch,
        optimizer=Adam(Linear(0.2, 0.02, epochs=epochs) if table else Linear(0.003, 0.0003, epochs=epochs)),
        clip=None if table or how in ("weighted", "heavy") else 5.0,
        plateau=None,
    )
    began = time.perf_counter()
    fit(model, None, read_from, strategy, training, seed=seed)
    seconds = time.perf_counter() - began
    nll = importance_nll(model, None, read_from.valid, batch_size=64).nll
    return model, {"seconds": seconds, "PPL": perplexity(nll, read_from.valid.tokens)}


def _seen_alone(whole: TextCorpus, share: float) -> TextCorpus:
    """A corpus whose training sentences are those that are seen at a share."""
    found = copy.copy(whole)
    rows = np.arange(len(whole.train))
    seen = seen_tags(whole.train.batch(rows), share, len(whole.tags), True)
    assert seen is not None
    found.train = whole.train.take(rows[(seen >= 0).any(1).numpy()])
    return found


def surroundings(name: str) -> dict[str, Any]:
    """What a row on a treebank depends on."""
    found = corpus(name)
    return environment(corpus=found.name, fingerprint=found.fingerprint, states=len(found.tags), epochs=EPOCHS)


def finish_tagging(name: str, system: str, seed: int) -> None:
    """Train and judge one run, unless it is done."""
    path = FOLDER / "tagging" / name / f"{system}-{seed}.json"
    if not path.exists():
        model, measures = trained(name, system, seed)
        pair = tagged(model, corpus(name).train)
        scores = {"M-1": 100 * many_to_one(*pair), "VM": 100 * v_measure(*pair)}
        write(path, measures | scores | {"environment": surroundings(name)})


def finish_supervision(name: str, system: str, share: float, seed: int, how: str = "") -> None:
    """Train with some tags seen, and tag the test split, unless it is done."""
    path = FOLDER / "supervision" / name / f"{_stem(system, how)}-{share:g}-{seed}.json"
    if path.exists():
        return
    model, measures = trained(name, system, seed, share, how)
    states, tags = tagged(model, corpus(name).test)
    if share == 0:
        states = _named(*tagged(model, corpus(name).train))[states]
    write(path, measures | {"test": 100 * float((states == tags).mean()), "environment": surroundings(name)})


def _stem(system: str, how: str) -> str:
    return f"{system}-{how}" if how else system


def _named(states: np.ndarray, tags: np.ndarray) -> np.ndarray:
    """The commonest tag of each state."""
    table = np.zeros((states.max() + 1, tags.max() + 1), int)
    np.add.at(table, (states, tags), 1)
    return table.argmax(1)


def finish_look_up(name: str, share: float) -> None:
    """Tag the test split by each word's commonest tag."""
    path = FOLDER / "supervision" / name / f"look-up-{share:g}-0.json"
    if path.exists():
        return
    train, test = corpus(name).train, corpus(name).test
    seen = _seen(train, share)
    counts: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for word, tag in zip(*seen, strict=True):
        counts[word][tag] += 1
    commonest = Counter(seen[1]).most_common(1)[0][0]
    best = {word: found.most_common(1)[0][0] for word, found in counts.items()}
    assert test.tags is not None
    right = [best.get(word, commonest) == tag for word, tag in zip(test.flat.tolist(), test.tags.tolist(), strict=True)]
    write(path, {"test": 100 * sum(right) / len(right), "environment": surroundings(name)})


def _seen(split: TextSplit, share: float) -> tuple[list[int], list[int]]:
    """Words and tags of the sentences whose tags are seen."""
    words: list[int] = []
    tags: list[int] = []
    for rows in np.array_split(np.arange(len(split)), 50):
        batch = split.batch(rows)
        known = seen_tags(batch, share, 1000, True)
        assert known is not None
        words += batch.targets[known >= 0].tolist()
        tags += known[known >= 0].tolist()
    return words, tags


# ---- the table -------------------------------------------------------------------------------------------------------


def rows() -> Iterator[Row]:
    """Everything that has a result."""
    for name in BATCHES:
        for system in SYSTEMS:
            found = _results(f"tagging/{name}", system)
            if found:
                yield from _tagging(name, system, found)
    for name in BATCHES:
        labels = ["look-up", *(_stem(system, how) for system in ("HMM", "NHMM") for how in WEIGHTS)]
        for share, label in ((share, label) for share in SHARES for label in labels):
            found = _results(f"supervision/{name}", f"{label}-{share:g}")
            for measure, unit in SUPERVISED.items():
                if found and measure in found[0]:
                    line = f"{name}, supervision | {100 * share:g} % seen, {label} | {measure}"
                    yield _mean(line, [one[measure] for one in found], unit, found)


def _tagging(name: str, system: str, found: list[dict[str, Any]]) -> Iterator[Row]:
    label = system if system in ("HMM", "NHMM") else f"+ {system}"
    best = min(found, key=lambda one: one["PPL"])
    references = REFERENCES[system] if name == "wsj_sample" else (None, None)
    for measure, unit in TAGGING.items():
        line = f"{name}, without tags | {label} | {measure}"
        if measure.endswith(" of best"):
            yield _mean(line, [best[measure.removesuffix(" of best")]], unit, found)
        else:
            reference = dict(zip(("M-1", "VM"), references, strict=True)).get(measure)
            yield _mean(line, [one[measure] for one in found], unit, found, reference)


def _results(folder: str, stem: str) -> list[dict[str, Any]]:
    paths = (FOLDER / folder / f"{stem}-{seed}.json" for seed in SEEDS)
    return [read(path) | {"seed": seed} for seed, path in zip(SEEDS, paths, strict=True) if path.exists()]


def _mean(
    line: str, values: list[float], unit: str, found: list[dict[str, Any]], reference: float | None = None
) -> Row:
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return row(
        line,
        round(statistics.mean(values), 2),
        unit,
        standard_error=None if error is None else round(error, 2),
        reference=reference,
        source=SOURCE if reference else "",
        protocol=f"seeds {', '.join(str(one['seed']) for one in found)}",
        seed=None,
        environment=found[0]["environment"],
    )


def markdown(found: list[Row]) -> str:
    """The rows as wide tables."""
    parts = []
    for columns, own in ((TAGGING, "without tags |"), (SUPERVISED, "supervision |")):
        chosen = [one for one in found if own in one["measure"]]
        parts += [wide(chosen, columns)] if chosen else []
    return "\n\n".join(parts)


def main() -> None:
    """Run what is missing, and write results/neural_hmm.json from what is there."""
    parser = argparse.ArgumentParser(description="Neural hidden Markov models: tags without supervision and with.")
    parser.add_argument("--part", choices=("tagging", "supervision", "table"), default="table")
    parser.add_argument("--corpora", nargs="+", choices=tuple(BATCHES), default=list(BATCHES))
    parser.add_argument("--systems", nargs="+", choices=tuple(SYSTEMS), help="default: all; HMM and NHMM with tags")
    parser.add_argument("--seeds", nargs="+", type=int, help="default: 0 to 4; 0 to 2 with tags")
    parser.add_argument("--ways", nargs="+", choices=tuple(WEIGHTS), default=["", "alone", "weighted"])
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.part == "tagging":
        for seed in options.seeds or SEEDS:
            for name in options.corpora:
                for system in options.systems or SYSTEMS:
                    finish_tagging(name, system, seed)
    if options.part == "supervision":
        for seed, name, share in itertools.product(options.seeds or SEEDS[:3], options.corpora, SHARES):
            if share:
                finish_look_up(name, share)
            for system in options.systems or ("HMM", "NHMM"):
                for how in options.ways if 0 < share < 1 else ("",):
                    finish_supervision(name, system, share, seed, how)
    save("neural_hmm", list(rows()))


if __name__ == "__main__":
    main()
