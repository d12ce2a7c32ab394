"""How a section of a diagnosis is shown: a lead that says how to read it, pictures, tables, steps (layer: recipe)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pyro_nlp.diagnosis import compression_views, figures, pair_views, spaces, topic_views
from pyro_nlp.diagnosis.blocks import (
    Block,
    Cell,
    Grid,
    Pictures,
    Shown,
    Step,
    Steps,
    Texts,
    Words,
    number,
    probability,
    whole,
)
from pyro_nlp.diagnosis.diagnoses import SECTIONS, Diagnosis
from pyro_nlp.diagnosis.inferred import Checks
from pyro_nlp.diagnosis.orders import LEAD as ORDERS
from pyro_nlp.diagnosis.orders import show_orders
from pyro_nlp.diagnosis.sections import Curve, Dimensions, Documents, Projection, Weights
from pyro_nlp.diagnosis.spaces import Sensitivity, Traversal
from pyro_nlp.diagnosis.written import Interpolation, Reconstruction
from pyro_nlp.evaluation.calibration import Calibration
from pyro_nlp.evaluation.gaps import InferenceGaps
from pyro_nlp.evaluation.latent import Aggregate, MeanSpace, Probe

MOST_RANKS = 5
"""Histograms of ranks, the least uniform first."""


def _curves(found: list[Curve]) -> list[Block]:
    return [Pictures([figures.curve(curve) for curve in found])]


def _dimensions(found: Mapping[str, Dimensions]) -> list[Block]:
    blocks: list[Block] = [Pictures([figures.kl_bars(name, site) for name, site in found.items()])]
    for name, site in found.items():
        rows = [
            [whole(i), number(site.kl[i], 3), number(site.variance[i], 3), Cell("yes" if site.active[i] else "no")]
            for i in range(len(site.kl))
        ]
        blocks.append(Grid(f"Dimensions of {name}", ["dimension", "KL", "variance of the mean", "active"], rows, True))
    return blocks


def _weights(found: Weights) -> list[Block]:
    rows = [[Cell(a), Cell(b)] for a, b in found.summary.rows().items() if not a.startswith("warning")]
    blocks: list[Block] = [Pictures([figures.khat(found), figures.effective(found)])]
    return [*blocks, Grid("Importance weights over documents", ["measure", "value"], rows)]


def _gaps(found: InferenceGaps) -> list[Block]:
    rows = [[Cell(a), Cell(b)] for a, b in found.rows().items()]
    return [Pictures([figures.gaps(found)]), Grid("Inference gaps, means over documents", ["measure", "nats"], rows)]


def _calibration(found: Calibration) -> list[Block]:
    worst = sorted(found.uniformity, key=lambda name: found.uniformity[name].ecdf)[:MOST_RANKS]
    names = [name for name in found.ranks if name in worst or name.startswith("log p")]
    rows = [
        [Cell(name), probability(test.ecdf), number(test.shift, 3), number(test.spread)]
        for name, test in found.uniformity.items()
    ]
    titles = ["quantity", "p of the ranks", "shift", "spread"]
    blocks: list[Block] = [Pictures([figures.ranks(name, found.uniformity[name], found) for name in names])]
    return [*blocks, Grid("Calibration by quantity", titles, rows, True)]


def _checks(found: Checks) -> list[Block]:
    rows = []
    for source, checks in (("prior", found.prior), ("posterior", found.posterior)):
        for check in checks:
            numbers = number(check.generated, 3), number(check.held_out, 3), probability(check.p_value)
            rows.append([Cell(check.statistic), Cell(source), *numbers])
    return [Grid("Predictive checks", ["statistic", "written from", "written", "held out", "p"], rows)]


def _aggregates(found: Mapping[str, Aggregate]) -> list[Block]:
    blocks: list[Block] = []
    for name, site in found.items():
        blocks.append(Pictures(figures.aggregate(name, site)))
        mean, error = site.divergence.mean, site.divergence.standard_error
        blocks.append(Words(f"KL(q({name}) || p({name})) is {mean:.2f} ± {error:.2f} nats."))
    return blocks


def _heard(found: Sensitivity) -> list[Block]:
    return [Pictures([figures.heard(found)])]


def _probes(found: Mapping[str, Probe]) -> list[Block]:
    rows = [
        [Cell(name), number(p.accuracy, 3), number(p.standard_error, 3), number(p.majority, 3), whole(p.classes)]
        for name, p in found.items()
    ]
    return [Grid("Linear probes", ["site", "accuracy", "±", "commonest label", "labels"], rows)]


def _traversals(found: list[Traversal]) -> list[Block]:
    steps = []
    for item in found:
        places = np.linspace(-spaces.REACH, spaces.REACH, len(item.written))
        lines = [("document", item.text)]
        lines += [(f"{place:+.0f}", line) for place, line in zip(places, item.written, strict=True)]
        steps.append(Step(f"Dimension {item.dimension}, from “{_short(item.text)}”", lines))
    return [Steps("Traversals", steps)]


def _projection(found: Mapping[str, Projection]) -> list[Block]:
    return [Pictures([figures.latent_space(name, site) for name, site in found.items()])]


def _means(found: MeanSpace) -> list[Block]:
    unsure = found.pareto_k > 0.7
    said = f"The model's means are by {'a grid' if found.method == 'grid' else found.method + ' of the guide'}."
    if unsure.any():
        said += (
            f" {unsure.sum():,} of {len(unsure):,} documents have k-hat above 0.7 and are hollow: not to be believed."
        )
    return [Pictures(figures.means(found)), Words(said)]


def _interpolations(found: list[Interpolation]) -> list[Block]:
    steps = []
    for pair in found:
        last = len(pair.written) - 1
        lines = [("from", pair.first)]
        lines += [(f"{i / last:.0%}", line) for i, line in enumerate(pair.written)]
        steps.append(Step(f"{_short(pair.first)} → {_short(pair.last)}", [*lines, ("to", pair.last)]))
    return [Steps("Interpolations", steps)]


def _short(text: str, longest: int = 32) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1].rstrip()}…"


def _reconstructions(found: list[Reconstruction], documents: Documents, nearest: np.ndarray | None) -> list[Block]:
    steps = []
    for item in found:
        i = item.document
        facts = [f"{documents.lengths[i]} words"]
        for label, values in (("NLL", documents.nll), ("KL", documents.kl), ("k-hat", documents.pareto_k)):
            if values is not None:
                facts.append(f"{label} {number(values[i]).text}")
        lines = [("document", item.text), ("written back", item.written), ("numbers", ", ".join(facts))]
        if documents.labels is not None:
            lines.append(("label", documents.labels[i]))
        if nearest is not None and documents.texts is not None:
            lines += [("nearest", documents.texts[j]) for j in nearest[i]]
        steps.append(Step(f"Document {documents.rows[i]:,}: {item.why}", lines))
    return [Steps("Documents", steps)]


def _samples(found: list[str]) -> list[Block]:
    return [Texts("Samples", found)]


def _documents(found: Documents) -> list[Block]:
    columns: dict[str, Callable[[int], Cell]] = {"document": lambda i: whole(int(found.rows[i]))}
    columns["words"] = lambda i: whole(int(found.lengths[i]))
    for title, values in (
        ("NLL", found.nll),
        ("reconstruction", found.reconstruction),
        ("KL", found.kl),
        ("k-hat", found.pareto_k),
    ):
        if values is not None:
            columns[title] = lambda i, values=values: number(values[i])  # type: ignore[misc]
    if found.labels is not None:
        labels = found.labels
        columns["label"] = lambda i: Cell(labels[i])
    if found.texts is not None:
        texts = found.texts
        columns["text"] = lambda i: Cell(_short(texts[i], 160), wide=True)
    order = np.argsort(-(found.reconstruction if found.nll is None else found.nll), kind="stable")
    rows = [[cell(int(i)) for cell in columns.values()] for i in order]
    return [Grid("All documents", list(columns), rows, True)]


VIEWS: dict[str, tuple[str, Callable[..., list[Block]]]] = {
    "topics": (topic_views.TOPICS_LEAD, topic_views.topics),
    "mixtures": (topic_views.MIXTURES_LEAD, topic_views.mixtures),
    "ranking": (pair_views.RANKING_LEAD, pair_views.ranking),
    "questions": (pair_views.QUESTIONS_LEAD, pair_views.questions),
    "label_gap": (pair_views.LABEL_LEAD, pair_views.label_gap),
    "compressions": (compression_views.LEAD, compression_views.compressions),
    "alignments": (pair_views.ALIGNMENTS_LEAD, pair_views.alignments),
    "curves": (
        "The bound is what training minimises, with its KL weight; validation is unweighted, as every later number.",
        _curves,
    ),
    "dimensions": (
        "A dimension whose posterior is the prior for every document costs nothing and says nothing: it is not active.",
        _dimensions,
    ),
    "weights": (
        "The NLL averages weights p(x, z) / q(z | x). Where their tail is too heavy, the guide misses part of the "
        "posterior and the average is off by more than its standard error says.",
        _weights,
    ),
    "gaps": (
        "log p(x) - ELBO in two parts, on a few documents: what one network for all documents loses against parameters "
        "of each document's own (amortisation), and what the guide's family cannot do (approximation; too small where "
        "log p(x) is itself from importance samples).",
        _gaps,
    ),
    "calibration": (
        "Documents are written from latents drawn from the prior, bags of words as long as these; among the guide's "
        "draws given such a document, the true latents should have any rank. Heaped in the middle: the guide is too "
        "wide. At the ends: too narrow. Between the lines lie 99 % of the bins of a right guide.",
        _calibration,
    ),
    "checks": (
        "Simple statistics of as many written sentences as held-out ones, from the prior and from posterior draws. A "
        "small p: the two can be told apart by it. Divergences are beside those of sentences of one kind.",
        _checks,
    ),
    "aggregates": (
        "All posteriors together should fill the prior. Where they do not, samples from the prior fall into holes that "
        "the decoder has not seen.",
        _aggregates,
    ),
    "heard": ("Gradients of log p(x | z) by z at draws from the posterior; none, and the decoder is deaf.", _heard),
    "projection": (
        "Posterior means of all documents, along the two directions in which they differ most.",
        _projection,
    ),
    "means": (
        "Where the model's own posterior has its mean, and where the guide puts it. On the diagonal the guide has kept "
        "up; off it inference lags behind. Where the model's means all are zero, the model itself has collapsed.",
        _means,
    ),
    "probes": (
        "Accuracy of a linear classifier of the labels, fitted to the latents of training documents and judged on "
        "these, beside always saying the commonest label.",
        _probes,
    ),
    "traversals": (
        "What is written while one dimension moves from -3 to 3 standard deviations of the prior and all others stay.",
        _traversals,
    ),
    "orders": (ORDERS, show_orders),
    "interpolations": (
        "What the model writes on the straight line between the codes of two documents. A latent space in use changes "
        "sense by sense; a collapsed one writes one sentence.",
        _interpolations,
    ),
    "reconstructions": (
        "What the model writes back from the posterior mean, for documents that say most.",
        _reconstructions,
    ),
    "samples": ("Written from latents drawn from the prior.", _samples),
    "documents": ("In nats; click a column's title to sort by it.", _documents),
}
"""By key of a section: how to read it, and its blocks."""


def shown(found: Diagnosis) -> list[Shown]:
    """The sections of one run."""
    result = []
    for section in SECTIONS:
        data = found.sections.get(section.key)
        if data is None or section.key not in VIEWS:
            continue
        lead, view = VIEWS[section.key]
        extra: tuple[Any, ...] = ()
        if section.key == "reconstructions":
            extra = found.sections["documents"], found.sections.get("nearest")
        elif section.key == "mixtures":
            extra = found.sections["documents"], found.sections.get("nearest"), found.sections.get("topics")
        result.append(Shown(section.key, section.title, lead, view(data, *extra)))
    return result
