"""What a diagnosis measures, as data: a function per section (layer: recipe).

Each takes a `Subject`, and raises `LeftOut` with a sentence where it does not apply.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pyro_nlp.diagnosis.subject import LeftOut, Subject
from pyro_nlp.evaluation.importance import ImportanceSummary

ACTIVE = 0.01
"""Variance over documents of a posterior mean above which a dimension is active (Burda et al. 2016)."""


@dataclass(frozen=True)
class Dimensions:
    """One site by dimension: KL in nats, and variance over documents of the posterior mean, `[D]` each."""

    kl: np.ndarray
    variance: np.ndarray
    classes: bool = False

    @property
    def active(self) -> np.ndarray:
        """Which dimensions are used, `[D]`."""
        return self.variance > ACTIVE


def dimensions(subject: Subject) -> dict[str, Dimensions]:
    """KL and spread of every dimension of every site that factorises."""
    _ = subject.dense_guide
    found = {}
    for name, posterior in subject.posteriors.items():
        kl = subject.terms.kl_per_dimension.get(name)
        if kl is None or posterior.classes is not None or len(subject.split) < 2:
            continue
        found[name] = Dimensions(kl.mean(0), posterior.mean.var(0, ddof=1))
    if not found:
        raise LeftOut("no latent is a vector that factorises")
    return found


@dataclass(frozen=True)
class Weights:
    """Importance weights of every document: k-hat and effective draws, `[N]`, and their summary."""

    pareto_k: np.ndarray
    ess: np.ndarray
    draws: int
    summary: ImportanceSummary


def weights(subject: Subject) -> Weights:
    """Whether the NLL can be believed, document by document."""
    _ = subject.dense_guide
    found = subject.weights
    if found is None or not found.draws:
        raise LeftOut("the likelihood is exact: every latent is summed out, and no weight is drawn")
    return Weights(found.pareto_k, found.ess, found.draws, found.summary())


@dataclass(frozen=True)
class Curve:
    """A measure by step: of training, and of validation."""

    measure: str
    unit: str
    training: list[tuple[int, float]]
    validation: list[tuple[int, float]]


def curves(subject: Subject) -> list[Curve]:
    """Training as metrics.jsonl tells it: bound, KL, its weight, gradient norm, learning rate."""
    history = subject.run.history
    rows = {
        "-bound": ("nats per document", "loss", "valid.loss"),
        "reconstruction": ("nats per document", "reconstruction", "valid.reconstruction"),
        "gradient norm": ("before clipping", "gradient_norm", ""),
        "learning rate": ("", "learning_rate", ""),
    }
    sites = dict.fromkeys(key.removeprefix("kl.") for row in history for key in row if key.startswith("kl."))
    for site in sites:
        rows[f"KL of {site}"] = ("nats per document", f"kl.{site}", f"valid.kl.{site}")
        rows[f"KL weight of {site}"] = ("", f"kl_weight.{site}", "")
    found = [Curve(measure, unit, _points(history, a), _points(history, b)) for measure, (unit, a, b) in rows.items()]
    found = [curve for curve in found if curve.training or curve.validation]
    if not found:
        raise LeftOut("metrics.jsonl holds no rows yet")
    order = ("-bound", "reconstruction", "KL of", "KL weight", "gradient", "learning")
    return sorted(found, key=lambda curve: next(i for i, start in enumerate(order) if curve.measure.startswith(start)))


def _points(history: list[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    return [(int(row["step"]), float(row[key])) for row in history if isinstance(row.get(key), int | float)]


@dataclass(frozen=True)
class Projection:
    """Posterior means along their two principal directions.

    Attributes:
        points: `[N, 2]`.
        explained: share of the variance of each direction, `[2]`.
        labels: class of every document, or None.
        names: of the classes.
    """

    points: np.ndarray
    explained: np.ndarray
    labels: np.ndarray | None
    names: tuple[str, ...]


def projection(subject: Subject) -> dict[str, Projection]:
    """The latent space seen from where it is widest."""
    _ = subject.judged_guide
    found = {}
    for name, posterior in subject.posteriors.items():
        if posterior.mean.shape[1] < 2 or len(posterior.mean) < 2:
            continue
        centred = posterior.mean - posterior.mean.mean(0)
        _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
        share = lengths**2 / max(float((lengths**2).sum()), 1e-30)
        points = centred @ directions[:2].T
        found[name] = Projection(points, share[:2], subject.labels, subject.run.corpus.labels)
    if not found:
        raise LeftOut("no latent has two dimensions to look along")
    return found


@dataclass(frozen=True)
class Documents:
    """Every document and what is known of it, in corpus order; None where there is no such number.

    Attributes:
        rows: place in the split.
        lengths: words, the end of sentence counted, `[N]`.
        nll, reconstruction, kl, pareto_k: nats and k-hat, `[N]`.
        texts: as text; None where the documents are none.
    """

    rows: np.ndarray
    lengths: np.ndarray
    nll: np.ndarray | None
    reconstruction: np.ndarray
    kl: np.ndarray | None
    pareto_k: np.ndarray | None
    texts: list[str] | None
    labels: list[str] | None


def documents(subject: Subject) -> Documents:
    """What is known of each document."""
    terms, likelihood, weights_ = subject.terms, subject.likelihood, subject.weights
    names = subject.run.corpus.labels
    try:
        texts: list[str] | None = subject.documents()
    except LeftOut:
        texts = None
    return Documents(
        rows=subject.rows,
        lengths=subject.split.lengths,
        nll=None if likelihood is None else likelihood.nll,
        reconstruction=-terms.log_likelihood,
        kl=sum(terms.kl.values(), np.zeros(len(subject.split))) if terms.kl and likelihood is not None else None,
        pareto_k=weights_.pareto_k if weights_ is not None and weights_.draws else None,
        texts=texts,
        labels=None if subject.labels is None else [names[i] if i >= 0 else "" for i in subject.labels],
    )
