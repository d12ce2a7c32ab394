"""`pyro-nlp generate --what rank`: a user's candidates for a question, ranked by a trained model (layer: cli)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.style import Style
from rich.table import Table
from rich.text import Text

from pyro_nlp.commands.options import two_or_more
from pyro_nlp.commands.output import OUT
from pyro_nlp.data.batches import UNK
from pyro_nlp.data.pair_corpus import PairCorpus
from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.data.vocabulary import SPECIAL
from pyro_nlp.evaluation.candidates import DRAWS, Candidates, emphasis, read_candidates
from pyro_nlp.inference.fit import Run

KIND = "rank"
END = SPECIAL[2]
MOST = 3
"""Words that are named as the most looked at."""
FAINT, WEAK, STRONG, INK = 0.1, (150, 122, 106), (255, 140, 0), "rgb(0,0,0)"
"""Strength below which a word has no ground; its colours from weak to strong, to be told apart on dark and on light
terminals, and of the letters on it."""


def rank_options(made: argparse.ArgumentParser) -> None:
    """The options of a ranking."""
    made.add_argument("--question", metavar="TEXT", help="what the candidates are to answer")
    made.add_argument("--candidates", metavar="FILE", help="a candidate a line; - for standard input")
    made.add_argument(
        "--draws",
        type=two_or_more,
        help=f"of the question's reading, by default {DRAWS}; of compressions, by default none",
    )


def asks_for_ranking(options: argparse.Namespace) -> bool:
    """Whether options speak of a ranking."""
    return options.what == KIND or options.question is not None or options.candidates is not None


def is_ranking_run(run: Run) -> bool:
    """Whether a run can rank a user's candidates."""
    return callable(getattr(run.model, "scores", None)) and isinstance(run.corpus, PairCorpus)


@dataclass(frozen=True)
class Ranked:
    """A question, its candidates as words, and what was found of them.

    Attributes:
        question: as given.
        texts: the candidates as given.
        words: of each, as typed but for what the tokeniser does, and the end of sentence.
        unknown: words that the vocabulary does not have, each once.
        found: probabilities and where was looked.
        draws: of the reading; 0 where nothing is drawn.
    """

    question: str
    texts: list[str]
    words: list[list[str]]
    unknown: list[str]
    found: Candidates
    draws: int

    def most(self, candidate: int) -> list[tuple[str, float]]:
        """The words of a candidate that were looked at most, and their weights."""
        assert self.found.where is not None
        weights = self.found.where[candidate]
        order = np.argsort(-weights, kind="stable")[:MOST]
        return [(self.words[candidate][i], float(weights[i])) for i in order]

    def as_dict(self) -> dict[str, Any]:
        """For JSON, the likeliest candidate first."""
        rows = []
        for place, i in enumerate(self.found.order.tolist(), 1):
            row: dict[str, Any] = {"rank": place, "candidate": self.texts[i], "line": i + 1}
            row["probability"] = float(self.found.probability[i])
            if self.found.spread is not None and self.found.first is not None:
                row |= {"standard_deviation": float(self.found.spread[i]), "first": float(self.found.first[i])}
            if self.found.where is not None:
                row |= {"words": self.words[i], "attention": self.found.where[i].tolist()}
            rows.append(row)
        return {"question": self.question, "draws": self.draws, "unknown": self.unknown, "candidates": rows}


def rank(options: argparse.Namespace, run: Run) -> Ranked:
    """Rank the candidates of `--candidates` for `--question`.

    Raises:
        ValueError: the run is no ranker, or there is no question, no candidate, or one without words.
    """
    name, corpus = type(run.model).__name__, run.corpus
    if not is_ranking_run(run) or not isinstance(corpus, PairCorpus):
        raise ValueError(f"{name} ranks no answers: give a run of a model of questions and answers, such as NASM")
    if options.question is None:
        raise ValueError("a ranking wants a question: give --question TEXT")
    if options.candidates is None:
        raise ValueError("a ranking wants candidates: give --candidates FILE, a candidate a line (- is standard input)")
    question = corpus.tokenise(options.question)
    if not question:
        raise ValueError(f"no word in --question {options.question!r}")
    texts = lines(options.candidates)
    words = [corpus.tokenise(text) for text in texts]
    where = "standard input" if options.candidates == "-" else options.candidates
    if empty := [i for i, found in enumerate(words, 1) if not found]:
        raise ValueError(f"{where}: line {empty[0]} has no word: give a candidate on every line, or take the line out")
    if not words:
        raise ValueError(f"{where}: no candidate in it: give a candidate on every line")
    ids = [corpus.vocabulary.encode(found) for found in (question, *words)]
    typed = (word for found in (question, *words) for word in found)
    unknown = [word for word, i in zip(typed, np.concatenate(ids).tolist(), strict=True) if i == UNK]
    split = PairSplit(
        TextSplit.from_sentences(ids[:1]), TextSplit.from_sentences(ids[1:]), np.zeros(len(words), np.int64)
    )
    draws = options.draws or DRAWS
    (found,) = read_candidates(run.model, split, draws, seed=options.seed)
    drawn = 0 if found.spread is None else draws
    shown = [[*row, END] for row in words]
    return Ranked(options.question, texts, shown, list(dict.fromkeys(unknown)), found, drawn)


def lines(path: str) -> list[str]:
    """The lines of a file, or of standard input."""
    if path == "-":
        data, name = sys.stdin.buffer.read(), "standard input"
    else:
        data, name = Path(path).read_bytes(), path
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{name}: line {line} is not UTF-8 (byte {error.start}): convert it") from None
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []


def show(ranked: Ranked) -> None:
    """Print a ranking as a table, the likeliest candidate first."""
    found, coloured = ranked.found, OUT.color_system is not None and not OUT.no_color
    table = Table(title=Text(ranked.question), title_justify="left")
    table.add_column("rank", justify="right")
    table.add_column("p(right)", justify="right")
    if found.spread is not None:
        table.add_column("±", justify="right")
        table.add_column("first", justify="right")
    table.add_column("candidate", overflow="fold")
    if found.where is not None and not coloured:
        table.add_column("looked at", overflow="fold")
    for place, i in enumerate(found.order.tolist(), 1):
        row: list[str | Text] = [str(place), f"{found.probability[i]:.3f}"]
        if found.spread is not None and found.first is not None:
            row += [f"{found.spread[i]:.3f}", f"{found.first[i]:.0%}"]
        if found.where is not None and coloured:
            row.append(shaded(ranked.words[i], found.where[i]))
        else:
            row.append(Text(ranked.texts[i]))
        if found.where is not None and not coloured:
            row.append(Text(", ".join(f"{word} {weight:.2f}" for word, weight in ranked.most(i))))
        table.add_row(*row)
    OUT.print(table)
    if ranked.draws:
        OUT.print(
            f"p(right) and ± are mean and standard deviation over {ranked.draws} draws of the question's reading; "
            "first is how many of them put a candidate first",
            highlight=False,
        )
    if ranked.unknown:
        OUT.print(
            f"not in the vocabulary, and read as {SPECIAL[UNK]}: {', '.join(ranked.unknown)}",
            markup=False,
            highlight=False,
        )


def shaded(words: Sequence[str], weights: np.ndarray) -> Text:
    """Words on a ground as strong as they were looked at (`emphasis`)."""
    made = Text()
    for i, (word, strength) in enumerate(zip(words, emphasis(weights).tolist(), strict=True)):
        ground = ",".join(str(round(p + strength * (m - p))) for p, m in zip(WEAK, STRONG, strict=True))
        made.append("" if i == 0 else " ")
        made.append(word, Style.parse(f"{INK} on rgb({ground})") if strength >= FAINT else None)
    return made
