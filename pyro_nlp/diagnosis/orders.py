"""What a controlled writer makes of its orders: a grid of codes and attributes, and transfers (layer: recipe)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from pyro_nlp.diagnosis.blocks import Block, Cell, Grid, Step, Steps
from pyro_nlp.diagnosis.subject import LeftOut, Subject
from pyro_nlp.diagnosis.written import LONGEST, middling
from pyro_nlp.evaluation.controlling import classes_told, names_told, read_attributes, transfer, write_to_order

CODES, MOST, SENTENCES = 8, 12, 12
"""Codes of the grid, combinations of classes at most, sentences that are transferred."""
LEAD = (
    "A row is a code z, a column what was asked for: along a row what is said should stay and how should change, and "
    "down a column the other way round. In brackets what the run itself says of the sentence, by q(c | x); it was "
    "trained with the model and is no judge of it."
)


@dataclass(frozen=True)
class Orders:
    """Sentences written to order.

    Attributes:
        asked: the classes asked for in every column, by name, C columns.
        written: `CODES` rows of C sentences.
        said: what the discriminator says of them, likewise.
        combinations: of classes that could be asked for; the columns are the first of them.
        transfers: sentences of the split and what they become with the first attribute changed, and to which class.
    """

    asked: list[str]
    written: list[list[str]]
    said: list[list[str]]
    combinations: int
    transfers: list[tuple[str, str, str]]


def has_orders(subject: Subject) -> bool:
    """Whether a run writes to order, and from a code."""
    return subject.run.guide is not None and bool(classes_told(subject.model))


def orders(subject: Subject) -> Orders:
    """The grid, from codes of the prior, and some sentences of middling length transferred."""
    if not has_orders(subject):
        raise LeftOut("the model is told no class beside a code")
    model, guide, split = subject.model, subject.own_guide, subject.texts
    names = {site: classes for site, (_, classes) in names_told(subject.run).items()}
    every = list(itertools.product(*(range(k) for k in classes_told(model).values())))
    columns = every[:MOST]
    written, said = [], []
    for classes in columns:
        asked = dict(zip(names, classes, strict=True))
        found = write_to_order(model, CODES, asked, seed=subject.protocol.seed, max_length=LONGEST).split
        log_q = read_attributes(model, guide, found)
        written.append(subject.lines([found.words(i) for i in range(CODES)]))
        best = {name: value.argmax(1) for name, value in log_q.items()}
        said.append([", ".join(names[name][best[name][i]] for name in best) for i in range(CODES)])
    titles = [", ".join(names[a][c] for a, c in zip(names, classes, strict=True)) for classes in columns]
    part = split.take(middling(split, subject.protocol.seed)[:SENTENCES])
    moved = transfer(model, guide, part, seed=subject.protocol.seed, max_length=LONGEST)
    first = next(iter(moved.asked))
    sources = subject.lines([part.words(i) for i in range(len(part))])
    targets = subject.lines([moved.split.words(i) for i in range(len(part))])
    targets_of = [names[first][c] for c in moved.asked[first]]
    rows, read = ([list(row) for row in zip(*cells, strict=True)] for cells in (written, said))
    return Orders(titles, rows, read, len(every), list(zip(sources, targets_of, targets, strict=True)))


def show_orders(found: Orders) -> list[Block]:
    """The grid, and the transfers to step through."""
    rows, left = [], found.combinations - len(found.asked)
    caption = "The same code to different orders" + (
        f"; {left} more combinations of classes are left out" if left else ""
    )
    for i, (sentences, said) in enumerate(zip(found.written, found.said, strict=True)):
        cells = [Cell(f"{sentence} [{read}]", wide=True) for sentence, read in zip(sentences, said, strict=True)]
        rows.append([Cell(f"z {i + 1}"), *cells])
    steps = [Step(f"to {to}", [("sentence", source), (to, written)]) for source, to, written in found.transfers]
    return [Grid(caption, ["", *found.asked], rows), Steps("Transfers", steps)]
