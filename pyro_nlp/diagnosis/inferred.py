"""Whether the guide and the model of a diagnosis are right: gaps, calibration, predictive checks (layer: recipe)."""

from __future__ import annotations

from dataclasses import dataclass

from pyro_nlp.data.counts import CountSplit
from pyro_nlp.diagnosis.subject import LeftOut, Subject, asked
from pyro_nlp.evaluation.calibration import (
    Calibration,
    PredictiveCheck,
    predictive_checks,
    simulation_based_calibration,
)
from pyro_nlp.evaluation.gaps import InferenceGaps, Refinement, inference_gaps
from pyro_nlp.evaluation.topics import reads_words

REFINEMENT, SAMPLES = Refinement(steps=100, rate=0.1, particles=2), 200
"""Of the gaps: how each document's parameters are refined, and draws that ELBOs are judged by."""
SIMULATIONS, DRAWS, BINS = 100, 19, 10
"""Of calibration: documents dreamt, draws of the guide for each, bins of the histograms."""
PERMUTATIONS = 499


def gaps(subject: Subject) -> InferenceGaps:
    """What parameters of each document's own would gain, and what the guide's family cannot: on some documents."""
    guide, seed = subject.dense_guide, subject.protocol.seed
    few = subject.few(max(8, min(32, len(subject.split) // 10)))
    return asked(
        lambda: inference_gaps(
            subject.model,
            guide,
            few.split,
            log_evidence=few.likelihood,
            how=REFINEMENT,
            samples=SAMPLES,
            seed=seed,
        )
    )


def calibration(subject: Subject) -> Calibration:
    """Ranks of the latents that documents were written from, among the guide's draws given these documents."""
    guide, split, seed = subject.dense_guide, subject.split, subject.protocol.seed
    if isinstance(split, CountSplit) and not reads_words(subject.model, guide, split):
        raise LeftOut(f"{type(guide).__name__} has parameters of each document's own and does not read what is written")
    return asked(lambda: simulation_based_calibration(subject.model, guide, split, SIMULATIONS, DRAWS, BINS, seed))


@dataclass(frozen=True)
class Checks:
    """Statistics of written sentences beside held-out ones: written from the prior, and from posterior draws."""

    prior: list[PredictiveCheck]
    posterior: list[PredictiveCheck]


def checks(subject: Subject) -> Checks:
    """Whether what the model writes could be told from what it is to model."""
    model, split, seed = subject.writer, subject.texts, subject.protocol.seed
    guide = None if subject.marginal else subject.run.guide

    def of(guide_: object) -> list[PredictiveCheck]:
        return asked(
            lambda: predictive_checks(model, split, len(split), seed, guide_, permutations=PERMUTATIONS)  # type: ignore[arg-type]
        )

    return Checks(of(None), of(guide) if guide is not None else [])
