"""What a diagnosis measures, as data: a function per section (layer: recipe).

Each takes a `Subject`, and raises `LeftOut` with a sentence where it does not apply.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pyro_nlp.data.counts import CountSplit
from pyro_nlp.diagnosis.subject import LeftOut, Subject, asked
from pyro_nlp.evaluation.history import NATS, training_history
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


SEVERAL = (
    ("KL of", NATS, "site", "kl", "valid_kl"),
    ("KL weight of", "", "site", "kl_weight", ""),
    ("auxiliary loss", NATS, "term", "auxiliary", ""),
    ("signal to noise of the gradient,", "", "module", "snr", ""),
)
"""Title, unit, dimension, and variables of `training_history`: of training and of validation."""


def curves(subject: Subject) -> list[Curve]:
    """Training as metrics.jsonl tells it, by `training_history`."""
    data = asked(lambda: training_history(subject.run.history))
    found = [
        Curve("-bound", NATS, _points(data, "bound", sign=-1), _points(data, "valid_bound", sign=-1)),
        Curve("reconstruction", NATS, _points(data, "reconstruction"), _points(data, "valid_reconstruction")),
    ]
    for title, unit, dim, training, validation in SEVERAL:
        for name in data[dim].values.tolist() if dim in data.coords else ():
            at = {dim: name}
            found.append(Curve(f"{title} {name}", unit, _points(data, training, at), _points(data, validation, at)))
    found.append(Curve("gradient norm", "before clipping", _points(data, "gradient_norm"), []))
    found.append(Curve("learning rate", "", _points(data, "learning_rate"), []))
    return [curve for curve in found if curve.training or curve.validation]


def _points(data: Any, name: str, at: Mapping[str, str] | None = None, sign: int = 1) -> list[tuple[int, float]]:
    """Steps and values of a variable where it was measured; none of one that never was."""
    if name not in data:
        return []
    values = data[name].sel(at or {})
    pairs = zip(values["step"].values.tolist(), values.values.tolist(), strict=True)
    return [(step, sign * value) for step, value in pairs if np.isfinite(value)]


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
        lengths: words, of a sentence its end counted, `[N]`.
        nll, reconstruction, kl, pareto_k: nats and k-hat, `[N]`.
        texts: as text, bags of words as their most frequent ones; None where the documents are neither.
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
        lengths=subject.split.sizes if isinstance(subject.split, CountSplit) else subject.split.lengths,
        nll=None if likelihood is None else likelihood.nll,
        reconstruction=-terms.log_likelihood,
        kl=sum(terms.kl.values(), np.zeros(len(subject.split))) if terms.kl and likelihood is not None else None,
        pareto_k=weights_.pareto_k if weights_ is not None and weights_.draws else None,
        texts=texts,
        labels=None if subject.labels is None else [names[i] if i >= 0 else "" for i in subject.labels],
    )
