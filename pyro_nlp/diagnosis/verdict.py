"""What a diagnosis says in words, its evidence, and the cure (layer: recipe)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pyro_nlp.data.counts import CountSplit
from pyro_nlp.diagnosis.subject import Subject
from pyro_nlp.evaluation import Difference, Evaluation
from pyro_nlp.evaluation.topic_report import DISTINCT, USED

State = Literal["in use", "collapsed", "point", "none"]


@dataclass(frozen=True)
class Verdict:
    """What is to be believed of a run.

    Attributes:
        state: whether the latents are used.
        headline: the same as a sentence.
        evidence: what speaks for it, a sentence each.
        doubts: what speaks against believing the numbers, a sentence each.
        cure: lines of a recipe that usually help a collapsed one; else None.
    """

    state: State
    headline: str
    evidence: list[str]
    doubts: list[str]
    cure: str | None = None


LOST, UNLIKELY = 0.5, 0.01
"""Nats of the bound, and a p-value, from which on a doubt is raised."""
ENOUGH = 5
"""Documents to each topic, from which on one that is never the largest is idle."""
HEADLINES: dict[State, str] = {
    "in use": "The latents are in use.",
    "collapsed": "Collapsed: the decoder does not listen to its latents.",
    "point": "The latents are in use, as points: there is no density to judge.",
    "none": "No latent variables: there is nothing to infer.",
}
SUMMED_OUT = "The latents are summed out exactly: there is nothing to infer."


def verdict(subject: Subject, sections: Mapping[str, Any]) -> Verdict:
    """Read the evaluation and the sections together."""
    found = subject.evaluation
    state: State = "none"
    if found.latents:
        state = "collapsed" if found.collapsed else "point" if found.likelihood is None else "in use"
    cure = _cure(subject) if state == "collapsed" and subject.run.guide is not None and found.likelihood else None
    evidence = [*_evidence(found), *_of_topics(sections)]
    headline = SUMMED_OUT if state == "none" and subject.marginal else HEADLINES[state]
    return Verdict(state, headline, evidence, [*_doubts(sections), *_idle(sections)], cure)


def _evidence(found: Evaluation) -> list[str]:
    lines = []
    if found.shuffled_rise is not None:
        rise = found.shuffled_rise
        lines.append(f"Predicted from another document's latents, a document costs {_unsigned(rise)} nats more.")
    for name, site in found.latents.items():
        if found.likelihood is not None:
            lines.append(f"The KL of {name} is {site.kl:.2f} nats per document.")
        what = "dimensions" if site.mutual_information is None or site.dimensions > 1 else "variables"
        if site.dimensions:
            lines.append(f"{site.active_units} of {site.dimensions} {what} of {name} vary between documents.")
        if site.mutual_information is not None and found.likelihood is not None:
            mi = site.mutual_information
            lines.append(
                f"{name} holds {mi.whole:.2f} nats of information on which document it is of; "
                f"{mi.documents:,} documents allow {mi.cap:.2f}."
            )
    if not found.latents and found.likelihood is not None and not found.likelihood.samples:
        lines.append("The likelihood is exact.")
    return lines


def _of_topics(sections: Mapping[str, Any]) -> list[str]:
    if (found := sections.get("topics")) is None:
        return []
    count = len(found.topics)
    return [f"{found.distinct} of {count} topics are distinct, and {found.used} are the largest of some document."]


def _idle(sections: Mapping[str, Any]) -> list[str]:
    """Whether there are fewer topics than there seem."""
    doubts: list[str] = []
    if (found := sections.get("topics")) is not None:
        count = len(found.topics)
        if found.distinct < DISTINCT * count:
            doubts.append(f"Topics repeat each other: {found.distinct} of {count} distinct.")
        if found.used < USED * count and found.documents >= ENOUGH * count:
            doubts.append(f"Topics are idle: {found.used} of {count} are the largest of some document.")
    return doubts


def _doubts(sections: Mapping[str, Any]) -> list[str]:
    doubts: list[str] = []
    if (weights := sections.get("weights")) is not None:
        doubts += [_sentence(warning) for warning in weights.summary.warnings]
    if (gaps := sections.get("gaps")) is not None:
        amortisation, approximation = gaps.amortisation.mean, gaps.approximation.mean
        for name, gap, cure in (
            ("one network for all documents", amortisation, "train the guide longer, or give it a larger encoder"),
            (f"the guide's family ({gaps.family})", approximation, "a richer family is worth trying"),
        ):
            if gap.mean > max(LOST, 3 * gap.standard_error):
                doubts.append(f"The bound loses {_unsigned(gap)} nats by {name}: {cure}.")
    if (ranks := sections.get("calibration")) is not None and ranks.p_value < UNLIKELY:
        worst = min(ranks.uniformity, key=lambda name: ranks.uniformity[name].ecdf)
        doubts.append(
            f"The guide is not calibrated on documents that the model writes itself "
            f"(p {ranks.p_value:.1g}, the worst in {worst})."
        )
    return doubts


def _unsigned(difference: Difference) -> str:
    return f"{difference.mean:.2f} ± {difference.standard_error:.2f}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}"


def _cure(subject: Subject) -> str:
    """Annealing over the first third of what was trained, a quarter of a nat free per dimension, word dropout."""
    epochs = max((int(row.get("epoch", 0)) for row in subject.run.history), default=0) + 1
    units = max(site.dimensions for site in subject.evaluation.latents.values())
    per = "dimension" if subject.terms.kl_per_dimension else "site"
    dropped = "" if isinstance(subject.split, CountSplit) else "  word_dropout: 0.1\n"  # bags have none to drop
    return (
        "strategy:\n"
        "  kl:\n"
        f"    weight: {{class_path: Linear, init_args: {{start: 0.0, end: 1.0, epochs: {max(1, epochs // 3)}}}}}\n"
        f"    shape: {{class_path: FreeBits, init_args: {{nats: {max(1.0, units / 4):g}, per: {per}}}}}\n"
        "training:\n"
        f"  epochs: {max(3, epochs)}\n"
        f"{dropped}"
        "  plateau: null\n"
    )
