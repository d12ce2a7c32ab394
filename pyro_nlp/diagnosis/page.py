"""The report: one file that asks the network for nothing (layer: recipe)."""

from __future__ import annotations

import itertools
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from pyro_nlp.diagnosis.diagnoses import Diagnoses
from pyro_nlp.diagnosis.side_by_side import compared
from pyro_nlp.diagnosis.svg import Picture, with_ids
from pyro_nlp.diagnosis.views import shown

TONES = {"in use": "good", "collapsed": "bad", "point": "fair", "none": "fair"}


def page(found: Diagnoses) -> str:
    """The report of one run, or of several side by side, as HTML."""
    numbers = itertools.count(1)
    environment = Environment(
        loader=PackageLoader("pyro_nlp.diagnosis", "template"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["inline"] = lambda picture: _inline(picture, next(numbers))
    environment.filters["kind"] = lambda block: type(block).__name__
    environment.globals["part"] = lambda name: Markup(_text(name))  # files of the package
    names = [run.name for run in found.runs]
    return environment.get_template("report.html").render(
        title=f"Diagnosis of {names[0]}" if len(names) == 1 else f"{len(names)} runs, diagnosed",
        names=names,
        runs=[(run, shown(run)) for run in found.runs],
        comparison=compared(found) if len(names) > 1 else [],
        reference=found.reference,
        tones=TONES,
    )


def _text(name: str) -> str:
    return files("pyro_nlp.diagnosis").joinpath("template", name).read_text(encoding="utf-8")


def _inline(found: Picture, number: int) -> Markup:
    """The drawing, with its description for those who do not see it."""
    svg = with_ids(found.svg, f"f{number}-")
    named = Markup(' role="img" aria-label="{}"').format(found.alt)
    return Markup(svg.replace("<svg", f"<svg{named}", 1))  # matplotlib and `drawings` escape text
