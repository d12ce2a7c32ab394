"""Drawings small enough for a page to hold hundreds: bars of words, shares of topics, the map of them (layer: recipe).

Written out, where matplotlib would take ten times the room. All text goes through `escape`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from markupsafe import escape

from pyro_nlp.diagnosis.svg import Picture
from pyro_nlp.diagnosis.topics import Mixture, Topic, Topics

WIDTH, LINE, LABEL, NUMBER = 360, 22, 128, 52
"""Of a drawing; of its lines of bars the height, and the room for words and numbers."""
LONGEST = 16
"""Letters of a word that has room."""
SEGMENT, MAP, MARGIN, SMALLEST, LARGEST, MOST_NAMES = 26, 300, 34, 4.0, 30.0, 60
"""Height of a stacked bar; of the map the height, its margin, radii of circles, and how many have their number."""
COLORS = 10


def word_bars(topic: Topic) -> Picture:
    """The likeliest words of a topic, as long as they are likely."""
    longest = max(max(topic.probabilities), 1e-30)
    room = WIDTH - LABEL - NUMBER - 16
    lines = []
    for i, (word, p) in enumerate(zip(topic.words, topic.probabilities, strict=True)):
        y, length = i * LINE, max(1.0, room * p / longest)
        lines.append(
            f'<text x="{LABEL}" y="{y + 15}" text-anchor="end">{escape(_short(word))}</text>'
            f'<rect x="{LABEL + 8}" y="{y + 3}" width="{length:.1f}" height="{LINE - 6}" fill="var(--c0)"/>'
            f'<text x="{LABEL + 14 + length:.1f}" y="{y + 15}" class="dim">{_probability(p)}</text>'
        )
    said = ", ".join(f"{word} {_probability(p)}" for word, p in zip(topic.words, topic.probabilities, strict=True))
    alt = f"Bars: probabilities of the likeliest words of topic {topic.number}: {said}."
    return _drawn(lines, LINE * len(topic.words), alt, "")


def _probability(p: float) -> str:
    return f"{p:.3f}" if p >= 0.0005 else f"{p:.0e}"


def _short(word: str) -> str:
    return word if len(word) <= LONGEST else f"{word[: LONGEST - 1]}…"


def stacked(found: Mixture) -> Picture:
    """A document as one bar: a part for each of its largest topics, and the rest."""
    parts, left = [], 0.0
    rest = max(0.0, 1 - sum(found.shares))
    for i, (number, share) in enumerate([*zip(map(str, found.topics), found.shares, strict=True), ("others", rest)]):
        width = WIDTH * share
        if width >= 0.5:
            named = i < len(found.topics)
            color = f"var(--c{i % COLORS})" if named else "var(--line)"
            parts.append(f'<rect x="{left:.1f}" width="{max(width - 1, 0.5):.1f}" height="{SEGMENT}" fill="{color}"/>')
            if width >= (18 if named else 48):
                parts.append(
                    f'<text x="{left + width / 2:.1f}" y="{SEGMENT + 16}" text-anchor="middle">{number}</text>'
                )
        left += width
    said = ", ".join(f"topic {n} {share:.0%}" for n, share in zip(found.topics, found.shares, strict=True))
    return _drawn(parts, SEGMENT + 20, f"A bar of shares of topics: {said}, others {rest:.0%}.", "")


def topic_map(found: Topics) -> Picture:
    """Topics as circles where their distances put them, as large as their share."""
    assert found.places is not None and found.explained is not None
    radii = _radii([topic.share for topic in found.topics])
    across, down = _fitted(found.places)
    marks = []
    order = np.argsort(-radii, kind="stable").tolist()  # the small ones above the large ones
    for i in order:
        topic, x, y, r = found.topics[i], across[i], down[i], radii[i]
        words = escape(f"Topic {topic.number}, {topic.share:.1%}: {', '.join(topic.words[:6])}")
        name = f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle">{topic.number}</text>' if i < MOST_NAMES else ""
        circle = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"/>'
        marks.append(f'<g class="mark" data-step="{i}"><title>{words}</title>{circle}{name}</g>')
    first, second = found.explained
    largest = "; ".join(f"topic {t.number} ({t.share:.0%}: {', '.join(t.words[:3])})" for t in found.topics[:3])
    alt = (
        f"Map of {len(found.topics)} topics by the distances of their words; the two directions show "
        f"{first + second:.0%} of the squared distances. The largest: {largest}."
    )
    caption = (
        f"Circles are as large as a topic's share and as far apart as their words differ (Hellinger); "
        f"{first:.0%} and {second:.0%} of the squared distances can be seen. A click on one shows its words."
    )
    return _drawn(marks, MAP, alt, caption)


def _radii(shares: Sequence[float]) -> np.ndarray:
    """Areas as the shares, the largest circle bounded."""
    root = np.sqrt(np.maximum(shares, 0))
    largest = min(LARGEST, 90 / np.sqrt(len(root)) + 6)
    found: np.ndarray = np.maximum(SMALLEST, largest * root / max(float(root.max()), 1e-30))
    return found


def _fitted(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In the frame, one scale for both directions."""
    low, high = places.min(0), places.max(0)
    extent = np.maximum(high - low, 1e-9)
    scale = min((WIDTH - 2 * MARGIN) / extent[0], (MAP - 2 * MARGIN) / extent[1])
    if float(extent.max()) < 1e-6:
        scale = 0.0  # topics that are all alike
    middle = (places - (low + high) / 2) * scale
    return WIDTH / 2 + middle[:, 0], MAP / 2 - middle[:, 1]


def _drawn(parts: Sequence[str], height: float, alt: str, caption: str) -> Picture:
    body = "\n".join(parts)
    return Picture(f'<svg class="drawn" viewBox="0 0 {WIDTH} {height:g}">\n{body}\n</svg>', alt, caption)
