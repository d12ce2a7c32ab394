"""What a decoder costs: words learnt from in a second, and sentences judged in a second.

Protocol, fixed before looking: two threads, bf16, glibc's allocator as it comes; long jobs were stopped for the time,
short ones beside it cannot be excluded (and show in the errors of the second part). Sentence VAEs that differ in the
decoder alone: Penn Treebank, vocabulary 10,002, embeddings and width 256, z 32, an LSTM as the encoder, no dropout,
everything else of a decoder as it is by default (the Transformer: 3 blocks, 8 heads, feed-forward 1,024). Without
PYRO_NLP_DATA the sentences are made up, of like lengths and vocabulary; the rows name the corpus.

- training: real words per second of the loop of `fit` (its own loader, batches of 32, clipping at 5, Adam 1e-3), 120
  batches after 20 that are not counted. All decoders get the same batches in the same order, in blocks of ten that take
  turns.
- judging: `importance_nll` of 60 test sentences by a fixed permutation, 100 samples each, after that training; blocks
  of 10 that take turns, after one that is not counted.
- ratio: speed over that of the LSTM in the same run; the median over blocks, each beside the LSTM's own time of it.

Vocabulary layer and encoder are in every row, so that these are the speeds a user sees, and not those of the decoders
alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pyro
import torch

from benchmarks.common import Row, environment, ratio, row, save
from pyro_nlp import Adam, Strategy, Training, importance_nll
from pyro_nlp.data import PTB, Corpus, TextBatch, Vocabulary
from pyro_nlp.data.files import CorpusError
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.guides.gaussian import GaussianGuide
from pyro_nlp.inference.loop import Loop
from pyro_nlp.models.sentence_vae import SentenceVAE
from pyro_nlp.nn import (
    Decoder,
    DilatedCNNDecoder,
    GRUDecoder,
    InputlessDecoder,
    LSTMDecoder,
    TransformerDecoder,
)

STEPS, WARMUP, TURN, BATCH, LATENT = 120, 20, 10, 32, 32
SENTENCES, SAMPLES = 60, 100
REFERENCE = "LSTM"
DECODERS: dict[str, Callable[[int, int], Decoder]] = {
    REFERENCE: LSTMDecoder,
    "LSTM with z beside its states": partial(LSTMDecoder, skip=True),
    "GRU": GRUDecoder,
    "inputless LSTM": InputlessDecoder,
    "CNN, small": partial(DilatedCNNDecoder, size="small"),
    "CNN, medium": partial(DilatedCNNDecoder, size="medium"),
    "CNN, large": partial(DilatedCNNDecoder, size="large"),
    "Transformer, z as a memory": partial(TransformerDecoder, dropout=0.0, latent_as="memory"),
    "Transformer, z in the embeddings": partial(TransformerDecoder, dropout=0.0, latent_as="embedding"),
}


class MadeUp(Corpus):
    """Words by Zipf's law in sentences of about the lengths of the Penn Treebank's (21 words, 10 more or less)."""

    def __init__(self, size: int = 10_000, vocabulary: int = 10_002, seed: int = 0) -> None:
        self.name, self.reference = "made up", "none"
        self.vocabulary = Vocabulary(f"word {i}" for i in range(4, vocabulary))
        rng = np.random.default_rng(seed)
        share = 1 / np.arange(1, vocabulary - 3)
        share /= share.sum()
        self.train, self.valid, self.test = (
            TextSplit.from_sentences(
                [
                    rng.choice(len(share), n, p=share) + 4
                    for n in rng.normal(21, 10, count).round().clip(1, 80).astype(int)
                ]
            )
            for count in (size, size // 10, size // 10)
        )


def corpus() -> Corpus:
    """The Penn Treebank where it is to be found."""
    try:
        return PTB()
    except CorpusError as error:
        print(f"made-up sentences in place of the Penn Treebank: {error}", flush=True)
        return MadeUp()


class System:
    """A sentence VAE with a decoder, and the loop that trains it."""

    def __init__(self, corpus: Corpus, decoder: Callable[[int, int], Decoder]) -> None:
        torch.manual_seed(0)
        size = len(corpus.vocabulary or ())
        self.model, self.guide = SentenceVAE(size, LATENT, decoder), GaussianGuide(size, LATENT)
        objective = Strategy().compile(self.model, self.guide, corpus.train.batch(np.arange(4)))
        training = Training(batch_size=BATCH, optimizer=Adam(1e-3), clip=5.0, precision="bf16")
        self.loop = Loop(objective, corpus, training, seed=0)

    def learn(self) -> Iterator[int]:
        """Real words of each batch, after learning from it."""
        for _, batch in self.loop.steps():
            assert isinstance(batch, TextBatch)
            yield int(batch.mask.sum()) - len(batch)

    def judge(self, part: TextSplit) -> int:
        """Sentences judged."""
        return len(importance_nll(self.model, self.guide, part, SAMPLES, precision="bf16").nll)


def turns(work: Mapping[str, Callable[[int], int]], blocks: int) -> tuple[dict[str, int], dict[str, list[float]]]:
    """What each system got done in all, and its seconds by block; a system is given the number of the block."""
    done = dict.fromkeys(work, 0)
    seconds: dict[str, list[float]] = {name: [] for name in work}
    for block in range(blocks):
        for name, go in work.items():
            began = time.perf_counter()
            done[name] += go(block)
            seconds[name].append(time.perf_counter() - began)
    return done, seconds


def rows(
    what: str, unit: str, done: dict[str, int], seconds: dict[str, list[float]], more: dict[str, Any]
) -> list[Row]:
    """Speed of every decoder, and its ratio to the LSTM's."""
    found = []
    for name in done:
        speed = done[name] / sum(seconds[name])
        digits = 0 if speed > 100 else 2
        found.append(row(f"{what}, {name}", round(speed, digits), unit, environment=more))
    for name in done:
        if name != REFERENCE:
            value, error = ratio(seconds[REFERENCE], seconds[name])
            shown = round(error, 3) if len(seconds[name]) > 1 else None
            label = f"{what}: speed of {name} / {REFERENCE}"
            found.append(row(label, round(value, 3), "ratio", standard_error=shown, environment=more))
    return found


def main() -> None:
    """Measure everything and write results/decoders.json."""
    parser = argparse.ArgumentParser(description="What a decoder costs.")
    parser.add_argument(
        "--steps", type=int, default=STEPS, help="batches counted; other than the default: no results file"
    )
    options = parser.parse_args()
    torch.set_num_threads(2)
    text = corpus()
    assert isinstance(text.test, TextSplit)
    more = environment(corpus=text.name, fingerprint=text.fingerprint)
    systems = {name: System(text, decoder) for name, decoder in DECODERS.items()}
    whole = options.steps == STEPS
    turn = TURN if whole else min(TURN, options.steps)
    with pyro.validation_enabled(False):
        streams = {name: system.learn() for name, system in systems.items()}
        for stream in streams.values():
            for _ in range(WARMUP if whole else 1):
                next(stream)
        learn = {name: partial(_take, stream, turn) for name, stream in streams.items()}
        results = rows("training", "words/s", *turns(learn, options.steps // turn), more)
        order = np.random.default_rng(0).permutation(len(text.test))[: SENTENCES if whole else 4]
        parts = [text.test.take(part) for part in np.array_split(order, len(order) // (TURN if whole else 2))]
        for system in systems.values():
            system.judge(parts[0])
        judge = {name: partial(_judge, system, parts) for name, system in systems.items()}
        results += rows("judging", "sentences/s", *turns(judge, len(parts)), more)
    if whole:
        save("decoders", results)
    else:
        for each in results:
            print(f"{each['measure']}: {each['value']} {each['unit']}", flush=True)


def _take(stream: Iterator[int], count: int, block: int) -> int:
    return sum(next(stream) for _ in range(count))


def _judge(system: System, parts: list[TextSplit], block: int) -> int:
    return system.judge(parts[block])


if __name__ == "__main__":
    main()
