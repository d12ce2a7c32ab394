"""How several runs are shown side by side: one table, curves together, whether seeds agree (layer: recipe)."""

from __future__ import annotations

from typing import Any

from pyro_nlp.diagnosis import figures
from pyro_nlp.diagnosis.blocks import Block, Cell, Grid, Pictures, Words, number
from pyro_nlp.diagnosis.diagnoses import Diagnoses, Diagnosis
from pyro_nlp.diagnosis.svg import Picture
from pyro_nlp.evaluation.agreement import SeedAgreement


def compared(found: Diagnoses) -> list[Block]:
    """The comparison of several runs."""
    rows = [run.compared_rows() for run in found.runs]
    measures = list(dict.fromkeys(key for row in rows for key in row))
    body = [[Cell(measure), *(Cell(row.get(measure, "")) for row in rows)] for measure in measures]
    if found.reference is not None:
        paired = {name: str(difference) for name, difference in found.paired.items()}
        label = f"NLL - {found.reference}, paired"
        body.append([Cell(label), *(Cell(paired.get(run.name, "")) for run in found.runs)])
    blocks: list[Block] = [
        Grid("Runs side by side, nats per document", ["measure", *(r.name for r in found.runs)], body)
    ]
    pictures = _curves_together(found.runs)
    if found.reference is not None:
        pictures += [figures.differences(n, found.reference, values) for n, values in found.differences.items()]
    blocks += [Pictures(pictures)] if pictures else []
    for agreement in found.agreements:
        blocks += _agreement(agreement)
    return blocks


def _agreement(found: SeedAgreement) -> list[Block]:
    rows = [[Cell(measure), Cell(value)] for measure, value in found.rows().items()]
    said = (
        f"{', '.join(found.runs)} are one recipe by {len(found.runs)} seeds: what they do not agree on comes of the "
        "seed and not of the data. At a similarity of one answers are equal but for turned axes and numbers of classes."
    )
    blocks: list[Block] = [Words(said), Grid("Agreement between seeds", ["measure", "value"], rows)]
    for site, values in found.similarity.items():
        table = [[Cell(name), *(number(v) for v in row)] for name, row in zip(found.runs, values, strict=True)]
        blocks.append(Grid(f"{found.measure[site]} of {site} between seeds", ["run", *found.runs], table))
    return blocks


def _curves_together(runs: list[Diagnosis]) -> list[Picture]:
    lines: dict[str, dict[str, Any]] = {}
    units = {}
    for run in runs:
        for curve in run.sections.get("curves", ()):
            # without a density there is neither a bound nor a KL that others could be held against
            pointless = run.evaluation.likelihood is None and curve.measure.startswith(("-bound", "KL of "))
            if len(curve.validation) > 1 and not pointless:
                lines.setdefault(curve.measure, {})[run.name] = curve.validation
                units[curve.measure] = curve.unit
    names = [run.name for run in runs]
    return [figures.together(name, units[name], of, names) for name, of in lines.items() if len(of) > 1]
