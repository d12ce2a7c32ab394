"""What a report's page is made of (layer: recipe)."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pyro_nlp.diagnosis.svg import Picture


@dataclass(frozen=True)
class Marked:
    """A word on a ground of some strength, 0 to 1, and what its title says."""

    word: str
    strength: float
    title: str


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what is read, and what it is sorted by where that is a number; perhaps word by word."""

    text: str
    value: float | None = None
    wide: bool = False
    marked: list[Marked] | None = None


@dataclass(frozen=True)
class Grid:
    """A table; `tall` ones scroll. One with numbers can be sorted."""

    caption: str
    titles: list[str]
    rows: list[list[Cell]]
    tall: bool = False

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers."""
        return any(row[column].value is not None for row in self.rows)

    @property
    def sortable(self) -> bool:
        """Whether there is something to sort by."""
        return any(self.numeric(column) for column in range(len(self.titles)))


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Step:
    """One thing to step to: a title, perhaps a picture, lines of a term and a text, perhaps a table."""

    title: str
    lines: list[tuple[str, str]]
    picture: Picture | None = None
    grid: Grid | None = None


@dataclass(frozen=True)
class Steps:
    """Things to step through."""

    caption: str
    steps: list[Step]


@dataclass(frozen=True)
class Beside:
    """A picture beside what is stepped through; what it marks `data-step` is the step of that number."""

    picture: Picture
    steps: Steps


@dataclass(frozen=True)
class Texts:
    """A list of sentences."""

    caption: str
    lines: list[str]


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side where there is room."""

    pictures: list[Picture]


Block = Grid | Words | Steps | Beside | Texts | Pictures


@dataclass(frozen=True)
class Shown:
    """A section as shown: how to read it, and its blocks."""

    key: str
    title: str
    lead: str
    blocks: list[Block] = field(default_factory=list)


def number(value: float, digits: int = 2) -> Cell:
    """A number, sorted as one; what is not finite comes last."""
    text = f"{value:.{digits}f}" if np.isfinite(value) else ("" if np.isnan(value) else "∞" if value > 0 else "-∞")
    return Cell(text, float(value) if np.isfinite(value) else (1e300 if value > 0 else -1e300))


def whole(value: int) -> Cell:
    """A count."""
    return Cell(f"{value:,}", float(value))


def probability(value: float) -> Cell:
    """A p-value, to two digits of its own."""
    return Cell(f"{value:.2g}", value)
