"""What the model of a diagnosis writes: reconstructions, interpolations, samples (layer: recipe)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pyro_nlp.data.batches import UNK
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.diagnosis.subject import LeftOut, Subject
from pyro_nlp.evaluation import interpolate, reconstruct, sample_prior

STEPS, PAIRS, SHOWN, SAMPLES, LONGEST = 7, 6, 24, 12, 60
"""Sentences of an interpolation, interpolations, documents to step through, samples, words of a written sentence."""


@dataclass(frozen=True)
class Interpolation:
    """Two documents, and what the model writes on the straight line between their codes, ends included."""

    first: str
    last: str
    written: list[str]


def interpolations(subject: Subject) -> list[Interpolation]:
    """Some pairs of documents of middling length, joined."""
    guide, model, split = subject.own_guide, subject.writer, subject.texts
    rows = middling(split, subject.protocol.seed)[: 2 * PAIRS]
    rows = rows[: len(rows) // 2 * 2]
    if len(rows) < 2:
        raise LeftOut("an interpolation wants two documents")
    part = split.take(rows)
    written = interpolate(model, guide, part.batch(np.arange(len(rows))), STEPS, max_length=LONGEST)
    ends = subject.lines([part.words(i) for i in range(len(rows))])
    return [Interpolation(ends[2 * i], ends[2 * i + 1], subject.lines(written[i])) for i in range(len(rows) // 2)]


def middling(split: TextSplit, seed: int) -> np.ndarray:
    """Documents of 6 to 12 words without an unknown one, if there are such, in an order by chance."""
    rows = np.random.default_rng(seed).permutation(len(split))
    good = [int(r) for r in rows if 7 <= split.lengths[r] <= 13 and UNK not in split.words(int(r))]
    return np.array(good if len(good) >= 2 * PAIRS else rows.tolist())


@dataclass(frozen=True)
class Reconstruction:
    """A document and what the model writes from the mean of its posterior; `why` it is shown."""

    document: int
    why: str
    text: str
    written: str


def reconstructions(subject: Subject) -> list[Reconstruction]:
    """Documents to step through: the worst by weights and by likelihood, the dearest, and some by chance."""
    guide, model, split = subject.own_guide, subject.writer, subject.texts
    chosen: dict[int, str] = {}
    share = SHOWN // 4
    likelihood, weights, kl = subject.likelihood, subject.weights, subject.terms.kl
    ranks: list[tuple[str, np.ndarray]] = []
    if weights is not None and weights.draws:
        ranks.append(("one of the highest k-hat", weights.pareto_k))
    nats = -subject.terms.log_likelihood if likelihood is None else likelihood.nll
    ranks.append(("one of the most nats per word", nats / split.lengths))
    if kl and likelihood is not None:
        ranks.append(("one of the highest KL", sum(kl.values(), np.zeros(len(split)))))
    for why, values in ranks:
        for row in np.argsort(-values, kind="stable")[:share]:
            chosen.setdefault(int(row), why)
    for row in np.random.default_rng(subject.protocol.seed).permutation(len(split)):
        if len(chosen) >= SHOWN:
            break
        chosen.setdefault(int(row), "drawn by chance")
    rows = np.array(list(chosen))
    part = split.take(rows)
    written = subject.lines(reconstruct(model, guide, part.batch(np.arange(len(rows))), max_length=LONGEST))
    texts = subject.lines([part.words(i) for i in range(len(rows))])
    return [
        Reconstruction(row, why, text, line)
        for (row, why), text, line in zip(chosen.items(), texts, written, strict=True)
    ]


def samples(subject: Subject) -> list[str]:
    """Sentences from the prior."""
    model, split = subject.writer, subject.texts
    return subject.lines(sample_prior(model, split, SAMPLES, seed=subject.protocol.seed, max_length=LONGEST))
