"""The drawing of where a decoder looks: words of a source by words of a target (layer: recipe).

All text goes through `escape`.
"""

from __future__ import annotations

import numpy as np
from markupsafe import escape

from pyro_nlp.diagnosis.drawings import WIDTH
from pyro_nlp.diagnosis.pairs import Alignment
from pyro_nlp.diagnosis.svg import Picture

CELL, LABEL, TOP, GAP, LEAST, LONGEST, FAINT, BROAD = 22, 96, 80, 24, 100, 13, 0.02, 700
"""A cell; room for words at the left and at the top; between the panels, and for a panel's name; letters that have
room; weights too small to be seen; the width of a drawing that wants more of the page."""


def alignment(found: Alignment) -> Picture:
    """The prior, and beside it the exact posterior."""
    panels = [("soft attention" if found.posterior is None else "prior", found.prior)]
    if found.posterior is not None:
        panels.append(("exact posterior", found.posterior))
    last = panels[-1]
    said = "; ".join(
        f"{word}: {found.source[int(row.argmax())]} {row.max():.2f}"
        for word, row in zip(found.target, last[1], strict=True)
    )
    alt = f"Heat map of attention; by the {last[0]} most looked at for every word: {said}."
    return heat_map(found.source, found.target, panels, alt)


def heat_map(source: list[str], target: list[str], panels: list[tuple[str, np.ndarray]], alt: str) -> Picture:
    """Weights of words of a source (across) for every word of a target (down), `[T, S]` by the name of a panel."""
    wide, tall = len(source) * CELL, len(target) * CELL
    parts = [
        f'<text x="{LABEL - 6}" y="{TOP + CELL * t + 15}" text-anchor="end">{escape(_short(word))}</text>'
        for t, word in enumerate(target)
    ]
    for place, (name, weights) in enumerate(panels):
        left = LABEL + place * (max(wide, LEAST) + GAP)
        parts.append(f'<text x="{left}" y="{TOP + tall + 18}" class="dim">{name}</text>')
        parts += [_above(left + CELL * s, word) for s, word in enumerate(source)]
        parts += _cells(source, target, weights, left)
        parts.append(f'<rect x="{left}" y="{TOP}" width="{wide}" height="{tall}" fill="none" stroke="var(--line)"/>')
    width = max(LABEL + len(panels) * (max(wide, LEAST) + GAP) + 24, WIDTH)
    body = "\n".join(parts)
    kind = "drawn broad" if width > BROAD else "drawn"
    svg = f'<svg class="{kind}" viewBox="0 0 {width} {TOP + tall + 24}">\n{body}\n</svg>'
    return Picture(svg, alt, "")


def _cells(source: list[str], target: list[str], weights: np.ndarray, left: int) -> list[str]:
    made = []
    for t, row in enumerate(weights):
        for s, weight in enumerate(row.tolist()):
            if weight < FAINT:
                continue
            title = escape(f"{target[t]} ← {source[s]}: {weight:.2f}")
            made.append(
                f'<rect x="{left + CELL * s}" y="{TOP + CELL * t}" width="{CELL}" height="{CELL}" fill="var(--c0)" '
                f'fill-opacity="{weight:.2f}"><title>{title}</title></rect>'
            )
    return made


def _above(x: int, word: str) -> str:
    return f'<text transform="translate({x + 14},{TOP - 6}) rotate(-50)">{escape(_short(word))}</text>'


def _short(word: str) -> str:
    return word if len(word) <= LONGEST else f"{word[: LONGEST - 1]}…"
