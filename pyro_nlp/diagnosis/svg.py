"""Drawings that belong to the page they stand in: its font, its colours, light and dark (layer: recipe)."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, LINE = "#010101", "#020202", "#030303"
SERIES = tuple(f"#0400{i:02x}" for i in range(10))
"""Stand-ins, which become the page's own colours: text, secondary text, hairlines, and ten series."""
_COLORS = {INK: "currentColor", MUTED: "var(--muted)", LINE: "var(--line)"} | {
    color: f"var(--c{i})" for i, color in enumerate(SERIES)
}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pyro-nlp",
    "text.parse_math": False,
    "text.usetex": False,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.4,
    "path.simplify_threshold": 0.3,
}
WIDTH, HEIGHT = 4.2, 2.7


@dataclass(frozen=True)
class Picture:
    """An inline SVG, what it shows in words for those who do not see it, and its caption."""

    svg: str
    alt: str
    caption: str


def picture(
    paint: Callable[[Axes], None], alt: str, caption: str, width: float = WIDTH, height: float = HEIGHT
) -> Picture:
    """Draw on one pair of axes."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of characters that matplotlib's font lacks: the page's font draws them
        figure = Figure(figsize=(width, height), layout="constrained")
        axis = figure.subplots()
        paint(axis)
        content = io.StringIO()
        figure.savefig(content, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Picture(_own(content.getvalue()), alt, caption)


def _own(svg: str) -> str:
    """Without what a file needs and a page does not, in the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.S)  # it would hold for the whole page
    svg = re.sub(r' xmlns(?::\w+)?="[^"]*"', "", svg)  # a page knows them
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"'DejaVu Sans'[^\";]*", "var(--sans)", svg)
    for stand_in, color in _COLORS.items():
        svg = svg.replace(stand_in, color)
    svg = re.sub(r'\b(?:d|x|y|transform|width|height)="[^"]*"', _shorter, svg)
    return re.sub(r"\n\s*", "\n", svg)


def _shorter(attribute: re.Match[str]) -> str:
    """Hundredths of a point are enough."""
    return re.sub(r"(\d\.\d\d)\d+", r"\1", attribute[0])


def with_ids(svg: str, prefix: str) -> str:
    """Ids that no other drawing of the page has, and no ids that nothing refers to."""
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', svg))

    def renamed(match: re.Match[str]) -> str:
        return f' id="{prefix}{match[1]}"' if match[1] in used else ""

    svg = re.sub(r' id="([^"]*)"', renamed, svg)
    return re.sub(r'(url\(#|href="#)', rf"\1{prefix}", svg)
