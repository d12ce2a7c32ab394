"""What pyro-nlp costs over hand-written PyTorch, and what its loop gains: one step, one epoch, one tiny model.

Protocol, fixed before looking: two threads, nothing else on the machine, medians of paired ratios of calls that take
turns, glibc's allocator as it comes on both sides (and, in rows that say so, tuned on both). Penn Treebank, vocabulary
10,002, embeddings and LSTM 256, z 32, batch 32, no dropout, clipping at 5, Adam 1e-3.

- step: the training step of `sentence_vae` (ELBO, one particle) against `handwritten.PlainSentenceVAE` (cross-entropy
  over all positions, default Adam) on the same 40 length-bucketed batches; again with fused Adam on both sides.
- epoch: real words per second of 120 batches drawn by each side's own loader: ours bucketed, in float32 and in bf16;
  theirs shuffled and padded, as published code has it, in float32 with default Adam.
- peak: floating-point operations of the network's products (each real position counted once, backward twice forward)
  per second of our step, against a 2048 x 2048 float32 product timed in the same run.
- tiny: a bag-of-words VAE, vocabulary 2,000, hidden 500, batch 64, the same batches, fused Adam on both sides.

In the run at hand other light jobs were not excluded.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from benchmarks.common import environment, interleave, peak_memory, ratio, report_peak, row, save
from benchmarks.handwritten import PlainBagVAE, PlainSentenceVAE
from pyro_nlp import Adam, Strategy, Training
from pyro_nlp.cli import tune_allocator
from pyro_nlp.data import PTB, CountBatch, TextBatch, plan
from pyro_nlp.distributions import BagOfWords
from pyro_nlp.guides.gaussian import GaussianGuide
from pyro_nlp.inference.loop import Loop
from pyro_nlp.models.sentence_vae import SentenceVAE
from pyro_nlp.nn import GaussianHead

BATCH, ROUNDS, EPOCH = 32, 40, 120


class BagVAE(PyroModule):
    """NVDM as a pyro-nlp model."""

    plates = 1

    def __init__(self, vocabulary: int = 2000, latent: int = 50) -> None:
        super().__init__()
        self.decoder = nn.Linear(latent, vocabulary)
        self.register_buffer("zero", torch.zeros(latent))

    def forward(self, batch: CountBatch) -> None:
        with batch.documents():
            z = pyro.sample("z", dist.Normal(self.zero, 1.0).to_event(1))
            pyro.sample("x", BagOfWords(self.decoder(z)), obs=batch.counts)


class BagGuide(PyroModule):
    """Its inference network."""

    def __init__(self, vocabulary: int = 2000, hidden: int = 500, latent: int = 50) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(vocabulary, hidden), nn.Tanh())
        self.posterior = GaussianHead(hidden, latent)

    def forward(self, batch: CountBatch) -> None:
        loc, scale = self.posterior(self.encoder(batch.counts))
        with batch.documents():
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))


class Ours:
    """The loop of `fit`, stepped by hand over given batches."""

    def __init__(self, corpus: PTB, precision: Any = "float32") -> None:
        torch.manual_seed(0)
        size = len(corpus.vocabulary)
        first = corpus.train.batch(np.arange(4))
        objective = Strategy().compile(SentenceVAE(size), GaussianGuide(size), first)
        training = Training(batch_size=BATCH, optimizer=Adam(1e-3), clip=5.0, precision=precision)
        self.loop = Loop(objective, corpus, training, seed=0)

    def step(self, batch: TextBatch) -> None:
        self.loop.objective.strategy.updates.step(self.loop, batch)
        self.loop.objective.advance()

    def epoch(self) -> Iterator[int]:
        """Real words of each batch, after learning from it."""
        for _, batch in self.loop.steps():
            assert isinstance(batch, TextBatch)
            yield int(batch.mask.sum()) - len(batch)


class Theirs:
    """A hand-written loop."""

    def __init__(self, corpus: PTB, fused: bool = False) -> None:
        torch.manual_seed(0)
        self.corpus = corpus
        self.network = PlainSentenceVAE(len(corpus.vocabulary))
        self.optimizer = torch.optim.Adam(self.network.parameters(), 1e-3, fused=fused)

    def step(self, batch: TextBatch) -> None:
        self.learn(batch.inputs, batch.targets, batch.lengths)

    def learn(self, inputs: torch.Tensor, targets: torch.Tensor, lengths: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        self.network(inputs, targets, lengths).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()

    def epoch(self) -> Iterator[int]:
        """Shuffled batches padded to their longest sentence."""
        sentences = [torch.tensor([1, *self.corpus.train.words(i), 2]) for i in range(len(self.corpus.train))]
        order = torch.randperm(len(sentences), generator=torch.Generator().manual_seed(0))
        for rows in order.split(BATCH):
            text = [sentences[i] for i in rows]
            lengths = torch.tensor([len(s) - 1 for s in text])
            inputs = pad_sequence([s[:-1] for s in text], batch_first=True)
            targets = pad_sequence([s[1:] for s in text], batch_first=True)
            self.learn(inputs, targets, lengths)
            yield int(lengths.sum()) - len(rows)


def steps(corpus: PTB) -> tuple[list[TextBatch], dict[str, Ours | Theirs]]:
    """Bucketed batches spread over the lengths, and the systems that learn from them."""
    order = plan(corpus.train.lengths, BATCH, seed=0, epoch=0)
    batches = [corpus.train.batch(rows) for rows in order[:ROUNDS]]
    systems: dict[str, Ours | Theirs] = {
        "ours": Ours(corpus),
        "default": Theirs(corpus),
        "fused": Theirs(corpus, fused=True),
    }
    return batches, systems


def measure_steps(corpus: PTB, more: dict[str, Any]) -> list[dict[str, Any]]:
    """Step ratios, and the share of the float32 peak."""
    batches, systems = steps(corpus)
    turns = {name: itertools.cycle(batches) for name in systems}
    with pyro.validation_enabled(False):
        calls = {name: _bind(system.step, turns[name]) for name, system in systems.items()}
        seconds = interleave(calls, ROUNDS, warmup=ROUNDS // 4)
    rows = []
    for other, name in (("default", "default Adam"), ("fused", "fused Adam on both sides")):
        value, error = ratio(seconds["ours"], seconds[other])
        rows.append(
            row(
                f"step, ours / hand-written ({name})",
                round(value, 3),
                "ratio",
                standard_error=round(error, 4),
                reference="<= 1.0" if other == "default" else None,
                protocol="identical length-bucketed batches, float32",
                environment=more,
            )
        )
    # the warm-up shifted the cycle: ours saw batch i of the cycle at round i
    used = [batches[(i + ROUNDS // 4) % len(batches)] for i in range(ROUNDS)]
    rate = statistics.median(
        _operations(b, len(corpus.vocabulary)) / s for b, s in zip(used, seconds["ours"], strict=True)
    )
    rows.append(
        row("step, share of float32 peak", round(rate / _peak(), 3), "ratio", reference=">= 0.65", environment=more)
    )
    for name in ("ours", "default"):
        label = "ours" if name == "ours" else "hand-written"
        rows.append(row(f"step, {label}", round(1e3 * statistics.median(seconds[name]), 1), "ms", environment=more))
    return rows


def measure_epoch(corpus: PTB, more: dict[str, Any], label: str) -> list[dict[str, Any]]:
    """Words per second of both loops."""
    runs: dict[str, Ours | Theirs] = {"theirs": Theirs(corpus), "float32": Ours(corpus), "bf16": Ours(corpus, "bf16")}
    with pyro.validation_enabled(False):
        streams = {name: system.epoch() for name, system in runs.items()}
        words: dict[str, int] = dict.fromkeys(runs, 0)
        spent: dict[str, float] = dict.fromkeys(runs, 0.0)
        for stream in streams.values():
            for _ in range(20):
                next(stream)
        for _ in range(EPOCH // 10):  # blocks of ten take turns
            for name, stream in streams.items():
                began = time.perf_counter()
                words[name] += sum(next(stream) for _ in range(10))
                spent[name] += time.perf_counter() - began
    speed = {name: words[name] / spent[name] for name in runs}
    rows = [row(f"epoch, {name}{label}", round(value), "words/s", environment=more) for name, value in speed.items()]
    for name, wanted in (("float32", ">= 2.4"), ("bf16", ">= 4.0")):
        value = round(speed[name] / speed["theirs"], 2)
        what = f"epoch, ours in {name} / hand-written, shuffled and padded{label}"
        rows.append(row(what, value, "ratio", reference=None if label else wanted, environment=more))
    return rows


def measure_tiny(more: dict[str, Any]) -> list[dict[str, Any]]:
    """A model whose step is mostly overhead."""
    torch.manual_seed(0)
    batches = []
    for i in range(20):
        counts = torch.poisson(torch.full((64, 2000), 0.05))
        batches.append(CountBatch(torch.arange(64) + 64 * i, 11268, counts))
    objective = Strategy().compile(BagVAE(), BagGuide(), batches[0])
    plain = PlainBagVAE()
    optimizers = {
        "ours": torch.optim.Adam(objective.parameters(), 1e-3, fused=True),
        "theirs": torch.optim.Adam(plain.parameters(), 1e-3, fused=True),
    }

    def ours(batch: CountBatch) -> None:
        optimizers["ours"].zero_grad()
        objective(batch).backward()
        optimizers["ours"].step()

    def theirs(batch: CountBatch) -> None:
        optimizers["theirs"].zero_grad()
        plain(batch.counts).backward()
        optimizers["theirs"].step()

    with pyro.validation_enabled(False):
        calls = {"ours": _bind(ours, itertools.cycle(batches)), "theirs": _bind(theirs, itertools.cycle(batches))}
        seconds = interleave(calls, 300, warmup=30)
    value, error = ratio(seconds["ours"], seconds["theirs"])
    what = "tiny step, ours / hand-written (fused Adam on both sides)"
    rows = [row(what, round(value, 3), "ratio", standard_error=round(error, 4), reference="<= 1.4", environment=more)]
    for name, values in seconds.items():
        rows.append(row(f"tiny step, {name}", round(1e3 * statistics.median(values), 2), "ms", environment=more))
    return rows


def _bind(learn: Callable[[Any], None], batches: Iterator[Any]) -> Callable[[], None]:
    return lambda: learn(next(batches))


def _operations(batch: TextBatch, vocabulary: int, width: int = 256, latent: int = 32) -> float:
    """Multiplications and additions of the network's products at real positions, forward and backward."""
    positions = int(batch.mask.sum())
    head = width * vocabulary
    decoder, encoder = 4 * width * (width + latent + width), 4 * width * (width + width)
    return 3 * 2 * positions * (head + decoder + encoder)


def _peak() -> float:
    a, b = torch.randn(2, 2048, 2048)
    seconds = interleave({"product": lambda: a @ b}, 20)["product"]
    return 2 * 2048**3 / statistics.median(seconds)


def main() -> None:
    """Measure everything and write results/overhead.json."""
    parser = argparse.ArgumentParser(description="What pyro-nlp costs over hand-written PyTorch.")
    parser.add_argument("--only", choices=("ours", "default"), help="(internal) peak memory of one system")
    options = parser.parse_args()
    torch.set_num_threads(2)
    corpus = PTB()
    if options.only:
        order = plan(corpus.train.lengths, BATCH, seed=0, epoch=0)
        system = Ours(corpus) if options.only == "ours" else Theirs(corpus)
        with pyro.validation_enabled(False):
            for part in order[:ROUNDS]:
                system.step(corpus.train.batch(part))
        report_peak()
        return
    more = environment(corpus=corpus.name, fingerprint=corpus.fingerprint)
    rows = measure_steps(corpus, more) + measure_epoch(corpus, more, "") + measure_tiny(more)
    for name, label in (("ours", "ours"), ("default", "hand-written")):
        rows.append(row(f"step, peak memory, {label}", round(peak_memory("overhead", name)), "MiB", environment=more))
    tune_allocator()
    rows += measure_epoch(corpus, more | {"allocator": "tuned"}, ", tuned allocator")
    save("overhead", rows)


if __name__ == "__main__":
    main()
