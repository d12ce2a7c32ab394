"""`pyro-nlp generate --what compress`: a user's sentences, or those of test, compressed by a trained model
(layer: cli)."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from pyro_nlp.commands.output import OUT
from pyro_nlp.commands.rank import lines
from pyro_nlp.data.batches import UNK
from pyro_nlp.data.compression import CompressionCorpus, source_split
from pyro_nlp.data.pair_corpus import PairCorpus
from pyro_nlp.data.tokenise import detokenise
from pyro_nlp.data.vocabulary import SPECIAL
from pyro_nlp.evaluation.compressing import Compressions, Search, compress, is_compressor
from pyro_nlp.evaluation.surface import source_words, surface
from pyro_nlp.inference.fit import Run

KIND = "compress"
SHOWN = 5
"""Sources of test, where nobody gives a sentence."""
FEWEST = 2
"""Words of a sentence: of one, nothing can be left out."""


def compress_options(made: argparse.ArgumentParser) -> None:
    """The options of a compression that no other kind has."""
    made.add_argument("--sentences", metavar="FILE", help="a sentence a line to compress; - for standard input")


def asks_for_compression(options: argparse.Namespace) -> bool:
    """Whether options speak of a compression."""
    return options.what == KIND or options.sentences is not None


def is_compressing_run(run: Run) -> bool:
    """Whether a run can compress a user's sentences."""
    return isinstance(run.corpus, PairCorpus) and is_compressor(run.model, run.guide, run.corpus.test)


@dataclass(frozen=True)
class Compressed:
    """One compression of a sentence.

    Attributes:
        text: as printed.
        words: how many.
        log_q, log_prior, log_likelihood: log q(c | s), log p(c) and log p(s | c), nats.
        share: of the draws that gave it; None where it was searched for.
        posterior: p(c | s) among the draws; None likewise.
    """

    text: str
    words: int
    log_q: float
    log_prior: float
    log_likelihood: float
    share: float | None = None
    posterior: float | None = None


@dataclass(frozen=True)
class Source:
    """A sentence and what was found for it.

    Attributes:
        text: as given.
        words: as the model reads it.
        reference: of a sentence of test.
        best: the compression that was searched for.
        drawn: different ones that were drawn, the likeliest a posteriori first.
    """

    text: str
    words: list[str]
    reference: str | None
    best: Compressed
    drawn: list[Compressed]


@dataclass(frozen=True)
class Answer:
    """All sentences, and how they were compressed.

    Attributes:
        method: greedy or beam.
        draws: of each; 0 for none.
        unknown: words that the vocabulary does not have, each once.
    """

    sources: list[Source]
    method: str
    draws: int
    unknown: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON, in the order of the sentences."""
        rows = []
        for source in self.sources:
            row: dict[str, Any] = {"source": source.text, "words": source.words}
            if source.reference is not None:
                row["reference"] = source.reference
            row["compression"] = _numbers(source.best, len(source.words))
            if self.draws:
                row["draws"] = [_numbers(one, len(source.words)) for one in source.drawn]
            rows.append(row)
        return {"method": self.method, "draws": self.draws, "unknown": self.unknown, "sentences": rows}


def _numbers(one: Compressed, words: int) -> dict[str, Any]:
    found = {name: value for name, value in vars(one).items() if value is not None}
    return found | {"rate": one.words / words, "probability": math.exp(one.log_q)}


def compressions(options: argparse.Namespace, run: Run) -> Answer:
    """Compress the sentences of `--sentence` and `--sentences`, or some of test.

    Raises:
        ValueError: the run compresses nothing, an unknown method, or a sentence that cannot be compressed.
    """
    if not is_compressing_run(run):
        raise ValueError(
            f"{type(run.model).__name__} compresses nothing: give a run of a model with a compression for a latent, "
            "such as SentenceCompression"
        )
    corpus, guide = run.corpus, run.guide
    assert isinstance(corpus, PairCorpus) and guide is not None
    _refuse_unread(options)
    texts, words, references = _asked(options, corpus)
    split = source_split(words, corpus.vocabulary)
    method: Search = options.method or "beam"
    draws = options.draws or 0
    best = compress(run.model, guide, split, method, beam=options.beam)
    drawn = compress(run.model, guide, split, "sample", draws=draws, seed=options.seed) if draws else None
    made = []
    for i, text in enumerate(texts):
        several = []
        for one in drawn.distinct(i) if drawn is not None else ():
            assert drawn is not None
            several.append(_compressed(drawn, i, one.row, words[i], corpus, one.share, one.posterior))
        made.append(Source(text, words[i], references[i], _compressed(best, i, 0, words[i], corpus), several))
    ids = corpus.vocabulary.encode([word for row in words for word in row]).tolist()
    unknown = [word for word, i in zip((w for row in words for w in row), ids, strict=True) if i == UNK]
    return Answer(made, method, draws, list(dict.fromkeys(unknown)))


def _refuse_unread(options: argparse.Namespace) -> None:
    """Refuse options of other kinds that would do nothing here."""
    if options.method == "ancestral":
        raise ValueError("compressions are searched for, --method greedy or beam; --draws N draws some beside")
    if options.temperature != 1:
        raise ValueError(
            "--temperature is of ancestral sampling: compressions are searched for, --method greedy or beam, and those "
            "of --draws N come from q as it is, whose probabilities are shown; leave it out"
        )
    if options.count is not None and (options.sentence or options.sentences is not None):
        raise ValueError(
            "--count is how many sentences of test are compressed: leave it out beside sentences of your own; "
            "--draws N shows several compressions of each"
        )
    if options.attribute:
        raise ValueError("--attribute is of samples and transfers: compressions are not written to order")


def _compressed(
    found: Compressions, source: int, row: int, words: list[str], corpus: PairCorpus, *drawn: float
) -> Compressed:
    ids, at = found.words(source, row), (source, row)
    text = detokenise(surface(words, ids, corpus.vocabulary))
    numbers = (float(found.log_q[at]), float(found.log_prior[at]), float(found.log_likelihood[at]))
    return Compressed(text, len(ids), *numbers, *drawn)


def _asked(options: argparse.Namespace, corpus: PairCorpus) -> tuple[list[str], list[list[str]], list[str | None]]:
    """Sentences as given, their words, and the references of those of test."""
    typed: list[tuple[str, str]] = [(text, f"--sentence {text!r}") for text in options.sentence]
    if options.sentences is not None:
        where = "standard input" if options.sentences == "-" else options.sentences
        read = lines(options.sentences)
        if not read:
            raise ValueError(f"{where}: no sentence in it: give a sentence on every line")
        typed += [(text, f"{where}: line {i}") for i, text in enumerate(read, 1)]
    if not typed:
        return _of_test(corpus, options.count or SHOWN, options.seed)
    words = [corpus.tokenise(text) for text, _ in typed]
    for found, (_, place) in zip(words, typed, strict=True):
        if len(found) < FEWEST:
            have = f"the one word {found[0]!r}" if found else "no word"
            raise ValueError(f"{place} has {have}: there is nothing to leave out; a sentence has at least {FEWEST}")
    return [text for text, _ in typed], words, [None] * len(typed)


def _of_test(corpus: PairCorpus, count: int, seed: int) -> tuple[list[str], list[list[str]], list[str | None]]:
    """Some pairs of test, drawn by the seed."""
    split = corpus.test
    rows = np.random.default_rng(seed).permutation(len(split))[:count].tolist()
    if isinstance(corpus, CompressionCorpus):
        every, given = source_words(corpus, "test"), [corpus.texts["test"][row] for row in rows]
        references = [next(iter(one.references), None) for one in given]
        return [one.source for one in given], [every[row] for row in rows], references
    words, second = (
        [corpus.vocabulary.decode(part.words(i)) for i in at]
        for part, at in ((split.first, split.group[rows].tolist()), (split.second, rows))
    )
    return [detokenise(row) for row in words], words, [detokenise(row) for row in second]


def show(found: Answer) -> None:
    """Print every sentence over a table of its compressions."""
    for source in found.sources:
        OUT.print(_table(source, found.method))
    said = "q is the guide's probability of a compression"
    if found.draws:
        said += f"; p is its posterior probability among {found.draws} draws of q, and drawn the share that gave it"
    OUT.print(said, highlight=False)
    if found.unknown:
        OUT.print(
            f"not in the vocabulary, read as {SPECIAL[UNK]} and written as they stand: {', '.join(found.unknown)}",
            markup=False,
            highlight=False,
        )


def _table(source: Source, method: str) -> Table:
    table = Table(title=Text(source.text), title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("q(c | s)", justify="right")
    if source.drawn:
        table.add_column("p(c | s)", justify="right")
        table.add_column("drawn", justify="right")
    table.add_column("words", justify="right")
    table.add_column("compression", overflow="fold")
    several = len(source.words)
    for name, one in ((method, source.best), *(("draw", one) for one in source.drawn)):
        row = [name, f"{math.exp(one.log_q):.2g}"]
        if source.drawn:
            row += ["" if value is None else f"{value:.3f}" for value in (one.posterior, one.share)]
        table.add_row(*row, f"{one.words} of {several}, {one.words / several:.0%}", Text(one.text))
    if source.reference is not None:
        table.add_section()
        table.add_row("reference", *[""] * (4 if source.drawn else 2), Text(source.reference))
    return table
