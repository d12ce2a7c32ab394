"""Models of documents: how fast they learn beside Pyro's tutorial and scikit-learn, and how much memory counts take.

Protocol, fixed before the final run: two threads on either side, both sides in one run in turns, wall-clock time.
Speeds are ratios within a round (or a seed), their median given with its standard error, or with the range over seeds.

- prodlda: training documents per second on 20 Newsgroups (`20news_prodlda`, 10,758 documents, 1,995 words), an epoch a
  turn. Ours is the recipe `prodlda` as shipped (K = 50, two hidden layers of 100, batches of 200, Adam) in the loop of
  `fit`: shuffling, making batches of the sparse store, clipping and the tests for numbers that are not finite are in
  its time; `fit` is the call itself for one epoch, with its validation and copy of the best parameters. The alternative
  is `Tutorial`, the model and guide of Pyro's tutorial (pyro.ai/examples/prodlda.html) in our words: dense counts,
  `Multinomial`, BatchNorm without scale, dropout of 0.2, a plate over documents, `TraceMeanField_ELBO`, Adam at 1e-3,
  `SVI.step`; with the sizes of the recipe, batches cut from a dense matrix made beforehand. Pyro's validation is on, as
  it is by default and in the tutorial, and, in rows that say so, off, as it is in `fit` after the first step.
- lda: seconds of learning until topics are as good as scikit-learn's online LDA
  (`LatentDirichletAllocation(learning_method="online")`, K = 50) on the same training documents. What is judged is
  topics alone, of both sides by the same function (`completion`): each document is halved at random; theta is inferred
  from the first half given beta by the fixed point of Blei et al. 2003 (section 5.2: gamma = a + sum_v n_v phi_v,
  a = 0.1, 50 iterations from words spread evenly over topics; theta is q's mean); and the perplexity of the second
  halves is exp(-sum_v n_v log sum_k theta_k beta_kv / words). Beta is the model's `topics()` on our side, and
  scikit-learn's `components_` normalised on the other. Judging is off the clock; so is everything before the first
  step.
  The target is a perplexity within half a percent of the best that scikit-learn reaches in 12 passes: exactly its best
  would charge it for passes that gain next to nothing. Time is to the end of the first pass at or below the target.
  scikit-learn learns a shuffled pass by `partial_fit`, which leaves out the bound over all documents with which its
  `fit` ends; its prior of theta is 0.1 too, all else as by default but for batch size (128, its default, 1,024, 2,048,
  4,096 or all) and `n_jobs` (1 or 2), which are chosen for it on validation documents, the first by 6 passes. Ours:
  the candidates of `OURS`, each with the number of epochs (over which its learning rate falls) that was quickest to the
  target on validation documents, and the recipe `lda` as shipped, one seed. Guides, batch sizes and learning rates of
  the candidates were found on validation documents before. Rows are of 2,000 test documents by a fixed permutation,
  seeds 0, 1 and 2.
- memory: bytes of a `CountSplit` of made-up documents (50 different words each) and growth of the peak resident memory,
  in a fresh process each, first by making the split of pairs, then by training: `ProdLDA` of 10 topics and a guide of
  width 16 in batches of 100, for an epoch, or where documents x words is above a thousand million, as many batches
  as stay below (all batches are alike: more of them do not take more). At a fixed number of non-zero counts with 2,000,
  20,000 and 200,000 words, and with 1, 2 and 4 times as many counts at 2,000. The alternative is the size of
  the dense float32 matrix. Parameters, their moments and one batch do grow with the vocabulary, not with documents.

In the run at hand `prodlda` and `lda` were alone on the machine, `memory` was not (the environment of the rows has the
load before each part). What was tuned for `lda`, scikit-learn's batch size and processes too, was tuned before beside
other jobs, with 100 iterations of the fixed point; ours takes two threads, scikit-learn's one process.

    python -m benchmarks.throughput [--only prodlda lda memory] [--tuned BATCH JOBS EPOCHS EPOCHS]

What is not asked for keeps its rows.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import math
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.optim import PyroOptim
from scipy import sparse
from torch import Tensor, nn

from benchmarks.common import RESULTS, Row, environment, interleave, ratio, row, save
from pyro_nlp import Adam, Linear, Strategy, Training, fit
from pyro_nlp.data.corpus import Corpus
from pyro_nlp.data.counts import CountCorpus, CountSplit, Halves
from pyro_nlp.guides.dirichlet import MeanFieldDirichletGuide
from pyro_nlp.guides.gaussian import GaussianGuide
from pyro_nlp.inference.loop import Loop
from pyro_nlp.models.lda import LDA
from pyro_nlp.models.prodlda import NVLDA, ProdLDA
from pyro_nlp.nn import CountEncoder, NormalisedHead
from pyro_nlp.process import peak_memory
from pyro_nlp.recipe import Recipe, load

TOPICS, ALPHA = 50, 0.1
ROUNDS = 15
PASSES, TRIED, SEEDS, SLACK, JUDGED = 12, 6, (0, 1, 2), 1.005, 2_000
BATCHES = (128, 1024, 2048, 4096, 2**20)
WORDS, CELLS = 50, 1e9
DOCUMENTS, VOCABULARIES, TIMES = 32_000, (2_000, 20_000, 200_000), (1, 2, 4)


def say(text: str) -> None:
    """A line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def described(**more: Any) -> dict[str, Any]:
    """What a timing depends on, the load of the machine before it among that."""
    policy = os.environ.get("OMP_WAIT_POLICY")
    more |= {"OMP_WAIT_POLICY": policy} if policy else {}
    return environment(**more) | ({"load": round(os.getloadavg()[0], 1)} if hasattr(os, "getloadavg") else {})


# ---- prodlda ------------------------------------------------------------------------------------------------------


class Tutorial(nn.Module):
    """ProdLDA in the structure of Pyro's tutorial: `model` and `guide` take a dense matrix of counts."""

    def __init__(self, vocabulary: int, latent: int = TOPICS, width: int = 100, dropout: float = 0.2) -> None:
        super().__init__()
        self.latent = latent
        self.encoder = nn.Sequential(
            nn.Linear(vocabulary, width), nn.Softplus(), nn.Linear(width, width), nn.Softplus(), nn.Dropout(dropout)
        )
        self.loc, self.log_variance = (
            nn.Sequential(nn.Linear(width, latent), nn.BatchNorm1d(latent, affine=False)) for _ in range(2)
        )
        self.decoder = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(latent, vocabulary, bias=False), nn.BatchNorm1d(vocabulary, affine=False)
        )

    def model(self, counts: Tensor) -> None:
        pyro.module("decoder", self.decoder)
        with pyro.plate("documents", len(counts)):
            zero = counts.new_zeros(len(counts), self.latent)
            z = pyro.sample("z", dist.Normal(zero, torch.ones_like(zero)).to_event(1))
            probs = self.decoder(z.softmax(-1)).softmax(-1)
            # documents differ in length and Multinomial takes one: the longest
            pyro.sample("x", dist.Multinomial(int(counts.sum(-1).max()), probs), obs=counts)

    def guide(self, counts: Tensor) -> None:
        for name in ("encoder", "loc", "log_variance"):
            pyro.module(name, getattr(self, name))
        with pyro.plate("documents", len(counts)):
            hidden = self.encoder(counts)
            scale = (0.5 * self.log_variance(hidden)).exp()
            pyro.sample("z", dist.Normal(self.loc(hidden), scale).to_event(1))


class Theirs:
    """SVI on the tutorial's model, in batches cut from a dense matrix."""

    def __init__(self, split: CountSplit, batch_size: int) -> None:
        torch.manual_seed(0)
        pyro.clear_param_store()
        self.network, self.batch_size = Tutorial(split.vocabulary).train(), batch_size
        self.counts = split.batch(np.arange(len(split))).counts
        optimizer, loss = PyroOptim(torch.optim.Adam, {"lr": 1e-3}), pyro.infer.TraceMeanField_ELBO()
        self.svi = pyro.infer.SVI(self.network.model, self.network.guide, optimizer, loss)

    def epoch(self, validate: bool = True) -> None:
        with pyro.validation_enabled(validate):
            for counts in self.counts.split(self.batch_size):
                self.svi.step(counts)


class Ours:
    """The loop of `fit` on a model and a guide, an epoch at a time."""

    def __init__(self, model: Any, guide: nn.Module, corpus: Corpus, training: Training, seed: int = 0) -> None:
        self.model = model
        objective = Strategy().compile(model, guide, corpus.train.batch(np.arange(4)))
        self.loop = Loop(objective, corpus, training, seed)

    def learn(self) -> None:
        """One pass over the training documents."""
        with pyro.validation_enabled(False):
            for _ in self.loop.steps():
                pass
            self.loop.next_epoch()

    def topics(self) -> Tensor:
        found: Tensor = self.model.topics()
        return found


def of(recipe: Recipe, **changes: Any) -> Ours:
    """A recipe's training with some settings changed."""
    assert recipe.guide is not None
    return Ours(recipe.model, recipe.guide, recipe.corpus, replace(recipe.training, **changes))


def prodlda(rounds: int = ROUNDS) -> list[Row]:
    """Documents per second of the recipe and of the tutorial."""
    say("prodlda: reading")
    recipe = load("prodlda")
    corpus, batch_size = recipe.corpus, recipe.training.batch_size
    assert isinstance(corpus, CountCorpus)
    more = described(corpus=corpus.name, fingerprint=corpus.fingerprint)
    theirs = Theirs(corpus.train, batch_size)
    whole = load("prodlda")
    once = replace(whole.training, epochs=1)
    systems: dict[str, Callable[[], object]] = {
        "ours": of(recipe).learn,
        "tutorial": theirs.epoch,
        "tutorial, validation off": partial(theirs.epoch, False),
        "ours, bf16": of(load("prodlda"), precision="bf16").learn,
        "`fit`": lambda: fit(whole.model, whole.guide, corpus, whole.strategy, once, progress=False),
    }
    say(f"prodlda: {rounds} rounds of {len(systems)} epochs")
    seconds = interleave(_told(systems, "prodlda"), rounds, warmup=1)
    pyro.clear_param_store()
    return speeds(seconds, len(corpus.train), more)


def speeds(seconds: Mapping[str, Sequence[float]], documents: int, more: Mapping[str, Any]) -> list[Row]:
    """Documents per second of every system, and what ours are to the tutorial's."""
    found = [
        row(f"prodlda: {name}", round(documents / median(spent)), "documents/s", environment=more)
        for name, spent in seconds.items()
    ]
    pairs = [(name, "tutorial") for name in seconds if "tutorial" not in name]
    pairs.append(("ours", "tutorial, validation off"))
    for ours, other in pairs:
        value, error = ratio(seconds[other], seconds[ours])
        each = [b / a for a, b in zip(seconds[ours], seconds[other], strict=True)]
        found.append(
            row(
                f"prodlda: speed of {ours} / {other}",
                round(value, 2),
                "ratio",
                standard_error=round(error, 3) if len(each) > 1 else None,
                reference=">= 3" if (ours, other) == ("ours", "tutorial") else None,
                protocol=f"{len(each)} rounds, {min(each):.2f} to {max(each):.2f}",
                environment=more,
            )
        )
    return found


def _told(systems: Mapping[str, Callable[[], object]], part: str) -> dict[str, Callable[[], object]]:
    """The same, the last of them telling of every round."""
    told, last, count = dict(systems), list(systems)[-1], itertools.count()

    def tell() -> None:
        systems[last]()
        say(f"{part}: round {next(count)}")

    return told | {last: tell}


# ---- lda ----------------------------------------------------------------------------------------------------------


class Learner(Protocol):
    """What learns topics pass by pass."""

    def learn(self) -> None:
        """One pass over the training documents."""

    def topics(self) -> Tensor:
        """beta, `[K, V]`."""


class Scikit:
    """scikit-learn's online LDA, one shuffled pass at a time."""

    def __init__(self, train: CountSplit, batch_size: int = 128, jobs: int = 1, seed: int = 0, latent: int = TOPICS):
        self.counts = sparse.csr_matrix(
            (train.counts.astype(np.float64), train.words, train.offsets), (len(train), train.vocabulary)
        )
        self.random = np.random.default_rng(seed)
        self.model = importlib.import_module("sklearn.decomposition").LatentDirichletAllocation(
            latent,
            doc_topic_prior=ALPHA,
            learning_method="online",
            batch_size=min(batch_size, len(train)),
            total_samples=len(train),
            n_jobs=jobs,
            random_state=seed,
        )

    def learn(self) -> None:
        self.model.partial_fit(self.counts[self.random.permutation(self.counts.shape[0])])

    def topics(self) -> Tensor:
        beta = torch.from_numpy(self.model.components_).float()
        return beta / beta.sum(-1, keepdim=True)


@dataclass(frozen=True)
class Candidate:
    """A model, a guide and a learning rate to train them with, once the number of epochs is known."""

    model: Callable[[int], nn.Module]
    guide: Callable[[CountSplit], nn.Module]
    batch_size: int
    rates: tuple[float, float]
    epochs: tuple[int, ...]

    def build(self, corpus: CountCorpus, epochs: int, seed: int = 0) -> Ours:
        torch.manual_seed(seed)
        rate = Linear(*self.rates, epochs=epochs)
        training = Training(epochs=epochs, batch_size=self.batch_size, optimizer=Adam(rate), plateau=None)
        return Ours(self.model(corpus.train.vocabulary), self.guide(corpus.train), corpus, training, seed)


OURS = {
    "LDA, mean-field Dirichlet guide": Candidate(
        lambda vocabulary: LDA(vocabulary, TOPICS, ALPHA),
        lambda train: MeanFieldDirichletGuide(len(train), TOPICS),
        batch_size=256,
        rates=(0.4, 0.02),
        epochs=(12, 16, 24),
    ),
    "NVLDA, logistic-normal guide": Candidate(
        lambda vocabulary: NVLDA(vocabulary, TOPICS),
        lambda train: GaussianGuide(
            train.vocabulary,
            TOPICS,
            partial(CountEncoder, width=100, activation="softplus", reads="log"),
            NormalisedHead,
        ),
        batch_size=200,
        rates=(0.03, 0.001),
        epochs=(4, 6, 8, 12),
    ),
}
SHIPPED = "LDA, the recipe as shipped"


@torch.no_grad()
def completion(beta: Tensor, halves: Halves, concentration: float = ALPHA, iterations: int = 50) -> float:
    """Perplexity of second halves, theta inferred from the first by mean-field variational inference given topics.

    Args:
        beta: probabilities of words in each topic, `[K, V]`.
        halves: documents, divided.
        concentration: a, of the symmetric Dirichlet prior of theta.
        iterations: of the fixed point.
    """
    beta, loss = beta.float(), 0.0
    for rows in np.array_split(np.arange(len(halves.rows)), math.ceil(len(halves.rows) / 500)):
        seen, held_out = halves.seen.batch(rows).counts, halves.held_out.batch(rows).counts
        theta = infer(beta, seen, concentration, iterations)
        loss -= float((held_out * (theta @ beta + 1e-30).log()).sum(dtype=torch.float64))
    return math.exp(loss / halves.held_out.tokens)


def infer(beta: Tensor, counts: Tensor, concentration: float, iterations: int) -> Tensor:
    """Mean of q(theta) by the fixed point of gamma, `[B, K]`, from words spread evenly over topics."""
    gamma = concentration + counts.sum(-1, keepdim=True).expand(-1, len(beta)) / len(beta)
    for _ in range(iterations):
        weight = (gamma.digamma() - gamma.sum(-1, keepdim=True).digamma()).exp()
        gamma = concentration + weight * ((counts / (weight @ beta + 1e-30)) @ beta.T)
    return gamma / gamma.sum(-1, keepdim=True)


Curve = list[tuple[float, float]]


def curves(systems: Mapping[str, tuple[Learner, int]], halves: Halves, label: str) -> dict[str, Curve]:
    """Seconds of learning and perplexity after every pass; systems take turns until each has made its passes."""
    found: dict[str, Curve] = {name: [(0.0, math.inf)] for name in systems}
    for turn in range(max(passes for _, passes in systems.values())):
        for name, (system, passes) in systems.items():
            if turn < passes:
                began = time.perf_counter()
                system.learn()
                spent = found[name][-1][0] + time.perf_counter() - began
                found[name].append((spent, completion(system.topics(), halves)))
        now = ", ".join(f"{n} {c[-1][1]:.0f}" for n, c in found.items() if len(c) == turn + 2)
        say(f"{label}: pass {turn + 1}: {now}")
    return {name: curve[1:] for name, curve in found.items()}


def best(curve: Iterable[tuple[float, float]]) -> float:
    """The lowest perplexity of a curve."""
    return min(perplexity for _, perplexity in curve)


def reach(curve: Curve, target: float) -> float:
    """Seconds until a perplexity at or below the target; infinite where it is not reached."""
    return next((seconds for seconds, perplexity in curve if perplexity <= target), math.inf)


def tune(corpus: CountCorpus) -> tuple[int, int, dict[str, int]]:
    """On validation documents: scikit-learn's batch size and jobs, and our numbers of epochs."""
    halves = corpus.valid.halves(0)
    tried = {str(size): (Scikit(corpus.train, size), TRIED) for size in BATCHES}
    judged = curves(tried, halves, "lda: tuning scikit-learn")
    size = min(BATCHES, key=lambda b: best(judged[str(b)]))
    target = SLACK * best(judged[str(size)])
    jobs = {n: Scikit(corpus.train, size, n) for n in (1, 2)}
    seconds = interleave({str(n): system.learn for n, system in jobs.items()}, 2, warmup=1)
    count = min(jobs, key=lambda n: median(seconds[str(n)]))
    say(f"lda: scikit-learn's batch size {size}, jobs {count}, target {target:.1f}")
    chosen = {}
    for name, candidate in OURS.items():
        tried_ours = {str(e): (candidate.build(corpus, e), e) for e in candidate.epochs}
        found = curves(tried_ours, halves, f"lda: tuning {name}")
        # the quickest to the target; the best where none gets there
        chosen[name] = min(candidate.epochs, key=lambda e: (reach(found[str(e)], target), best(found[str(e)])))
        say(f"lda: {name}: {chosen[name]} epochs")
    return size, count, chosen


def lda(tuned: Sequence[int] = ()) -> list[Row]:
    """Seconds until topics are as good as scikit-learn's; `tuned` is what `tune` has found before."""
    say("lda: reading")
    recipe = load("lda", ["--corpus.preparation=prodlda"])
    corpus = recipe.corpus
    assert isinstance(corpus, CountCorpus)
    version = importlib.import_module("sklearn").__version__
    more = described(corpus=corpus.name, fingerprint=corpus.fingerprint) | {"scikit-learn": version}
    size, jobs, chosen = (tuned[0], tuned[1], dict(zip(OURS, tuned[2:], strict=True))) if tuned else tune(corpus)
    say(f"lda: --tuned {size} {jobs} {' '.join(map(str, chosen.values()))} leaves out what was tuned")
    halves = corpus.test.take(np.random.default_rng(0).permutation(len(corpus.test))[:JUDGED]).halves(0)
    found: list[dict[str, Curve]] = []
    for seed in SEEDS:
        systems: dict[str, tuple[Learner, int]] = {"scikit-learn": (Scikit(corpus.train, size, jobs, seed), PASSES)}
        for name, candidate in OURS.items():
            systems[name] = candidate.build(corpus, chosen[name], seed), chosen[name]
        if seed == SEEDS[0]:
            systems[SHIPPED] = of(recipe), recipe.training.epochs
        found.append(curves(systems, halves, f"lda: seed {seed}"))
    settings = {name: f"{epochs} epochs" for name, epochs in chosen.items()}
    settings["scikit-learn"] = f"batch size {size}, n_jobs {jobs}, {PASSES} passes"
    return times(found, settings, more)


def times(found: Sequence[Mapping[str, Curve]], settings: Mapping[str, str], more: Mapping[str, Any]) -> list[Row]:
    """Best perplexity, seconds to the target and ratio to scikit-learn's, of every system over the seeds it has."""
    rows: list[Row] = []
    for name in found[0]:
        own = [seed for seed in found if name in seed]
        targets = [SLACK * best(seed["scikit-learn"]) for seed in own]
        bests = [best(seed[name]) for seed in own]
        spent = [reach(seed[name], target) for seed, target in zip(own, targets, strict=True)]
        note = f"{len(own)} seed{'s' * (len(own) > 1)}" + (f"; {settings[name]}" if name in settings else "")
        line = partial(row, seed=None if len(own) > 1 else 0, environment=more)
        span = f"{note}; {min(bests):.1f} to {max(bests):.1f}"
        rows.append(line(f"lda: {name}: best test perplexity", round(median(bests), 1), "", protocol=span))
        label = f"lda: {name}: seconds to the target"
        if not math.isfinite(max(spent)):
            missed = sum(not math.isfinite(s) for s in spent)
            rows.append(line(label, f"not reached ({missed} of {len(own)})", "", protocol=note))
            continue
        span = f"{note}; {min(spent):.1f} to {max(spent):.1f}"
        rows.append(line(label, round(median(spent), 2), "s", protocol=span))
        if name != "scikit-learn":
            each = [reach(s["scikit-learn"], t) / x for s, t, x in zip(own, targets, spent, strict=True)]
            label = f"lda: speed of {name} / scikit-learn"
            span = f"{note}; {min(each):.2f} to {max(each):.2f}"
            value, error = ratio(each, [1.0] * len(each))
            shown = round(error, 2) if len(each) > 1 else None
            line = partial(line, standard_error=shown, reference=">= 1", protocol=span)
            rows.append(line(label, round(value, 2), "ratio"))
    return rows


# ---- memory -------------------------------------------------------------------------------------------------------


def pairs(
    documents: int, vocabulary: int, words: int = WORDS, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Documents of so many different words, spread over the vocabulary: document, word and count of each pair."""
    random = np.random.default_rng(seed)
    stride = vocabulary // words
    ids = random.integers(0, stride, (documents, words), dtype=np.int32) + stride * np.arange(words, dtype=np.int32)
    rows = np.repeat(np.arange(documents, dtype=np.int32), words)
    return rows, ids.ravel(), random.integers(1, 5, documents * words, dtype=np.int32)


class MadeUp(CountCorpus):
    """A corpus of such documents."""

    def __init__(self, split: CountSplit) -> None:
        self.name, self.reference = "made up", "none"
        self.train, self.valid = split, split.take(np.arange(min(100, len(split))))
        self.test = self.valid


def stored(split: CountSplit) -> int:
    """Bytes of the arrays of a split."""
    return sum(array.nbytes for array in (split.offsets, split.words, split.counts))


def point(documents: int, vocabulary: int) -> dict[str, float]:
    """Called in a fresh process: bytes of the split, and growth of the peak by making it and by training on it."""
    given = pairs(documents, vocabulary)
    begin = _forget_peak()
    split = CountSplit.from_pairs(*given, documents, vocabulary)
    loaded = (peak_memory() or 0) - begin
    del given
    begin = _forget_peak()
    encoder = partial(CountEncoder, width=16, reads="log")
    guide = GaussianGuide(vocabulary, 10, encoder, NormalisedHead)
    training = Training(epochs=1, batch_size=100, plateau=None)
    system = Ours(ProdLDA(vocabulary, 10), guide, MadeUp(split), training)
    batches = max(3, int(CELLS / (training.batch_size * vocabulary)))
    with pyro.validation_enabled(False):
        done = sum(1 for _ in itertools.islice(system.loop.steps(), batches))
    trained = (peak_memory() or 0) - begin
    return {"bytes": stored(split), "loaded": loaded, "trained": trained, "batches": done}


def _forget_peak() -> int:
    """The peak, in bytes, after letting it begin again from what is resident now where the system can (Linux)."""
    control = Path("/proc/self/clear_refs")
    if control.exists():
        control.write_text("5")
    return peak_memory() or 0


def memory() -> list[Row]:
    """What splits take beside a dense matrix."""
    points = [(DOCUMENTS, vocabulary) for vocabulary in VOCABULARIES]
    points += [(times * DOCUMENTS, VOCABULARIES[0]) for times in TIMES[1:]]
    more, found = described(), []
    for documents, vocabulary in points:
        say(f"memory: {documents:,} documents, {vocabulary:,} words")
        command = [sys.executable, "-m", "benchmarks.throughput", "--point", str(documents), str(vocabulary)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        measured = json.loads(done.stdout.splitlines()[-1])
        where = f"memory: {vocabulary:,} words, {documents * WORDS / 1e6:.1f} million non-zero counts"
        dense = round(4 * documents * vocabulary / 2**20)
        labels = {"bytes": "the split", "loaded": "peak growth, making it", "trained": "peak growth, training"}
        for measure, label in labels.items():
            source = f"dense float32 matrix of {documents:,} x {vocabulary:,}, MiB"
            note = f"{measured['batches']} batches" if measure == "trained" else ""
            value = round(measured[measure] / 2**20, 1)
            line = partial(row, reference=dense, source=source, protocol=note, environment=more)
            found.append(line(f"{where}: {label}", value, "MiB"))
    return found


PARTS: dict[str, Callable[[], list[Row]]] = {"prodlda": prodlda, "lda": lda, "memory": memory}


def markdown(found: Sequence[Row]) -> str:
    """The rows as a table, with their spread."""
    lines = ["| measure | obtained | unit | reference | of what, range |", "|---|---|---|---|---|"]
    for one in found:
        error = f" ± {one['standard_error']:g}" if one["standard_error"] else ""
        said = "; ".join(text for text in (one["source"], one["protocol"]) if text)
        cells = [one["measure"], f"{one['value']}{error}", one["unit"], one["reference"] or "", said]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def merged(old: Sequence[Row], new: Mapping[str, Sequence[Row]]) -> list[Row]:
    """The rows of all parts in their order, those measured anew in place of the old."""
    kept = {part: [r for r in old if r["measure"].startswith(f"{part}: ")] for part in PARTS}
    return [r for part in PARTS for r in new.get(part, kept[part])]


def main() -> None:
    """Measure what is asked for, and write results/throughput.json."""
    parser = argparse.ArgumentParser(description="Models of documents: speed and memory.")
    parser.add_argument("--only", nargs="+", choices=tuple(PARTS), default=tuple(PARTS), help="by default all")
    parser.add_argument("--tuned", nargs=2 + len(OURS), type=int, default=(), help="what a run of `lda` said it chose")
    parser.add_argument("--threads", type=int, default=2, help="of either side; the rows tell")
    parser.add_argument("--point", nargs=2, type=int, help="(internal) memory of one point: documents and words")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.simplefilter("ignore", UserWarning)  # of the empty document, which the reader tells of
    if options.point:
        print(json.dumps(point(*options.point)))
        return
    path = RESULTS / "throughput.json"
    for part in options.only:  # saved after each: the parts take minutes
        new = lda(options.tuned) if part == "lda" else PARTS[part]()
        old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        save("throughput", merged(old, {part: new}))


if __name__ == "__main__":
    main()
