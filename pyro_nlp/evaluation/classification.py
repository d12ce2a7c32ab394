"""Classes of documents by any model, discriminative or generative, judged alike (layer: evaluation).

How p(y | x) is found depends on the model, and is recorded with it (`Classification.how`):

- a discriminative model says it (`class_log_probs`);
- a generative one by Bayes' rule, p(y | x) = p(x, y) / sum_y p(x, y), exact where p(x, y) is (`class_log_joint`, or a
  latent class beside no other latent that cannot be summed);
- beside other latents z, p(x, y) is an importance-weighted estimate for every class, with draws of q(z | x, y); what
  the guide itself says, q(y | x), is kept beside it.

A class that is latent is taken for the label where the guide has seen labels (`supervision` above 0).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor, nn

from pyro_nlp.data.batches import Batch
from pyro_nlp.data.splits import Split, TextSplit
from pyro_nlp.evaluation._arviz import measured
from pyro_nlp.evaluation.binary import BinaryCalibration, binary_calibration
from pyro_nlp.evaluation.discrete import summable
from pyro_nlp.evaluation.documents import as_float64, batches, device_of, judging
from pyro_nlp.evaluation.ranking import Interval, _bootstrap
from pyro_nlp.inference.support import one_hot
from pyro_nlp.inference.terms import terms
from pyro_nlp.inference.training import Precision

DRAWS = 50
"""Of latents beside the class, that p(x, y) is estimated by."""


@dataclass(frozen=True)
class Classification:
    """What a model says of the class of N documents.

    Attributes:
        log_probability: log p(y | x), `[N, K]`.
        labels: class of each document, -1 where unknown, int64 `[N]`.
        how: how p(y | x) was found.
        names: of the classes, K.
        log_likelihood: log p(x) in nats, `[N]`; None of a discriminative model.
        tokens: words of each document, the end of sentence counted, `[N]`; ones for data that are not text.
        guide: log q(y | x), `[N, K]`; None without a guide for the class.
    """

    log_probability: np.ndarray
    labels: np.ndarray
    how: str
    names: tuple[str, ...]
    log_likelihood: np.ndarray | None
    tokens: np.ndarray
    guide: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def known(self) -> np.ndarray:
        """Rows of the documents with a label."""
        return np.flatnonzero(self.labels >= 0)

    @property
    def predicted(self) -> np.ndarray:
        """The likeliest class of each document, the first of equals, `[N]`."""
        return self.log_probability.argmax(1)

    @property
    def correct(self) -> np.ndarray:
        """Whether it is the label, of the documents with one."""
        return self.predicted[self.known] == self.labels[self.known]

    @property
    def losses(self) -> np.ndarray:
        """-log p(label | x) in nats, of the documents with a label."""
        found: np.ndarray = -self.log_probability[self.known, self.labels[self.known]]
        return found

    @property
    def accuracy(self) -> float:
        """Share of the documents with a label whose likeliest class it is."""
        return float(self.correct.mean())

    @property
    def log_loss(self) -> float:
        """Mean of -log p(label | x), in nats."""
        return float(self.losses.mean())

    @property
    def majority(self) -> float:
        """Share of the commonest label: the accuracy of naming it always."""
        return float(np.bincount(self.labels[self.known]).max() / len(self.known))

    def by_guide(self) -> Classification:
        """The same documents by q(y | x).

        Raises:
            ValueError: no guide says anything of the class.
        """
        if self.guide is None:
            raise ValueError(f"there is no q(y | x) beside {self.how}: only a model with a guide for the class has one")
        return replace(self, log_probability=self.guide, how="the guide's q(y | x)", log_likelihood=None, guide=None)

    def calibration(self, bins: int = 10) -> BinaryCalibration:
        """Whether, of the documents given their likeliest class with probability p, a share p is of it.

        That of the likeliest class is the usual one (Guo et al. 2017, arXiv:1706.04599), here in bins of equal numbers.
        """
        top = np.exp(np.minimum(self.log_probability[self.known].max(1), 0.0))
        return binary_calibration(top, self.correct.astype(int), bins)

    def intervals(self, resamples: int = 10_000, seed: int = 0) -> dict[str, Interval]:
        """Accuracy and log loss with percentile bootstrap intervals over documents."""
        values = np.stack([self.correct.astype(np.float64), self.losses], 1)
        bounds = _bootstrap(values, resamples, seed)
        names = ("accuracy", "log loss")
        return {
            name: Interval(float(value.mean()), *map(float, bound))
            for name, value, bound in zip(names, values.T, bounds, strict=True)
        }

    def per_class(self) -> dict[str, dict[str, float]]:
        """Documents, precision, recall and F1 of every class; NaN where there is nothing to take a share of."""
        predicted, labels = self.predicted[self.known], self.labels[self.known]
        found = {}
        for k, name in enumerate(self.names):
            right, said, there = ((predicted == k) & (labels == k)).sum(), (predicted == k).sum(), (labels == k).sum()
            precision, recall = (float(right / n) if n else math.nan for n in (said, there))
            f1 = float(2 * right / (said + there)) if said + there else math.nan
            found[name] = {"documents": int(there), "precision": precision, "recall": recall, "F1": f1}
        return found

    def rows(self) -> dict[str, str]:
        """Measure and value, as printed."""
        calibration = self.calibration()
        rows = {"p(y | x)": self.how, "documents with a label": f"{len(self.known):,}"}
        rows |= {name: str(interval) for name, interval in self.intervals().items()}
        rows["accuracy of the commonest class"] = f"{self.majority:.4f}"
        error = f"{calibration.expected_error:.4f} in {len(calibration.curve)} bins"
        rows["expected calibration error"] = error + ", of the likeliest class"
        if self.guide is not None:
            guide = self.by_guide()
            rows["accuracy by the guide's q(y | x)"] = f"{guide.accuracy:.4f}, log loss {guide.log_loss:.4f}"
        if self.log_likelihood is not None:
            rows["log p(x) per word"] = f"{self.log_likelihood.sum() / self.tokens.sum():.4f} nats"
        for name, of in self.per_class().items():
            shares = ", ".join(f"{what} {of[what]:.3f}" for what in ("precision", "recall", "F1"))
            rows[f"class {name}"] = f"{shares} ({of['documents']:,.0f} documents)"
        return rows

    def table(self, title: str = "") -> Table:
        """The rows for a terminal."""
        table = Table("measure", "value", title=title, title_justify="left")
        for measure, value in self.rows().items():
            table.add_row(measure, value)
        return table

    def as_dict(self) -> dict[str, Any]:
        """Numbers for JSON; document by document they are left out."""
        calibration = self.calibration()
        found: dict[str, Any] = {"how": self.how, "documents": len(self.known), "majority": self.majority}
        found |= {name: asdict(value) for name, value in self.intervals().items()}
        found["calibration"] = {"error": calibration.expected_error, "bins": len(calibration.curve)}
        found["classes"] = {
            name: {key: None if math.isnan(value) else value for key, value in of.items()}
            for name, of in self.per_class().items()
        }
        if self.guide is not None:
            guide = self.by_guide()
            found["guide"] = {"accuracy": guide.accuracy, "log loss": guide.log_loss}
        if self.log_likelihood is not None:
            found["log_likelihood_per_word"] = float(self.log_likelihood.sum() / self.tokens.sum())
        return found

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` over `document` and `class`."""
        table: dict[str, Any] = {"log_probability": (("document", "class"), self.log_probability, "nats")}
        table["label"] = (("document",), self.labels, "class")
        if self.guide is not None:
            table["guide"] = (("document", "class"), self.guide, "nats")
        if self.log_likelihood is not None:
            table["log_likelihood"] = (("document",), self.log_likelihood, "nats")
        return measured(table, {"class": list(self.names)}, {"how": self.how})


def judges_classes(model: Any, guide: nn.Module | None, split: Split) -> bool:
    """Whether a model says what class a document is of, and there are labels to hold it against."""
    labels = getattr(split, "labels", None)
    if labels is None or not (np.asarray(labels) >= 0).any():
        return False
    return _says_classes(model) or (getattr(guide, "supervision", 0.0) > 0 and _class_site(model, guide, split) != "")


def classify(
    model: nn.Module,
    guide: nn.Module | None,
    split: Split,
    *,
    names: Sequence[str] = (),
    samples: int = DRAWS,
    site: str | None = None,
    seed: int = 0,
    batch_size: int = 32,
    chunk: int = 800,
    precision: Precision = "float32",
) -> Classification:
    """log p(y | x) of every document, however the model comes by it (see above).

    Example:
        >>> found = classify(run.model, run.guide, corpus.test, names=corpus.labels)  # doctest: +SKIP
        >>> print(found.accuracy, found.calibration().expected_error)  # doctest: +SKIP
        0.81 0.04

    Args:
        model, guide: what is judged.
        split: the documents.
        names: of the classes; numbers where there are none.
        samples: draws per class and document of latents beside the class.
        site: the latent that is the class; None for the only one-hot latent of a document.
        seed: of the draws.
        batch_size: documents taken together.
        chunk: documents x draws at once; bounds the memory.
        precision: of the networks.

    Raises:
        TypeError: the model has no class.
        ValueError: the split has labels that the model does not know.
    """
    if samples < 1:
        raise ValueError(f"samples is {samples}; take at least 1")
    scores: list[tuple[np.ndarray, Tensor, Tensor | None]] = []
    with judging(model, guide, seed, precision):
        if _says_classes(model):
            how = "by the model" if _discriminative(model) else "Bayes' rule, exact"
            scores.extend(_said(model, split, batch_size))
        else:
            site = site or _class_site(model, guide, split)
            if not site:
                raise TypeError(
                    f"{type(model).__name__} has no class of a document: give a model with class_log_probs or "
                    "class_log_joint, or with a one-hot latent"
                )
            summed = summable(model, guide, split)
            exact = summed.all and summed.sites == (site,)
            how = "Bayes' rule, exact" if exact else f"Bayes' rule, {samples} importance samples per class"
            scores.extend(_weighted(model, guide, split, site, exact, samples, batch_size, chunk))
    return _collected(model, split, scores, how, names)


def _discriminative(model: Any) -> bool:
    return callable(getattr(model, "class_log_probs", None))


def _says_classes(model: Any) -> bool:
    return _discriminative(model) or callable(getattr(model, "class_log_joint", None))


def _class_site(model: Any, guide: nn.Module | None, split: Split) -> str:
    """The only one-hot latent of a document; "" where there is none, or several."""
    summed = summable(model, guide, split)
    if len(summed.sites) == 1:
        return summed.sites[0]
    if guide is None:
        return ""
    batch = split.batch(np.arange(min(2, len(split)))).to(device_of(model))
    with judging(model, guide, 0):
        found = terms(model, guide, batch).sites.items()
    classes = [name for name, of in found if one_hot(of.q) and len(of.q.event_shape) == 1]
    return classes[0] if len(classes) == 1 else ""


def _said(model: Any, split: Split, batch_size: int) -> Iterator[tuple[np.ndarray, Tensor, Tensor | None]]:
    """Rows, and what the model says of their classes, `[B, K]`."""
    for rows, batch in batches(model, split, batch_size):
        says = model.class_log_probs if _discriminative(model) else model.class_log_joint
        yield rows, says(batch), None


def _weighted(
    model: nn.Module,
    guide: nn.Module | None,
    split: Split,
    site: str,
    exact: bool,
    samples: int,
    batch_size: int,
    chunk: int,
) -> Iterator[tuple[np.ndarray, Tensor, Tensor | None]]:
    """Rows, log p(x, y) by class and log q(y | x), `[B, K]`."""
    for rows, batch in batches(model, split, max(1, min(batch_size, chunk))):
        said = None
        if guide is not None:
            q: Any = terms(model, guide, batch).sites[site].q
            said = q.logits.log_softmax(-1).expand(1, len(rows), -1)[0]
        if exact:
            joint = terms(model, None, batch, marginal=(site,)).joint
            assert joint is not None
            yield rows, joint[0].reshape(-1, len(rows)).T, said
            continue
        assert said is not None
        of_class = [_joint(model, guide, batch, site, k, said.shape[-1], samples, chunk) for k in range(said.shape[-1])]
        yield rows, torch.stack(of_class, -1), said


def _joint(
    model: nn.Module, guide: nn.Module | None, batch: Batch, site: str, k: int, classes: int, samples: int, chunk: int
) -> Tensor:
    """log of the mean of p(x, y = k, z) / q(z | x, y = k) over draws of z, `[B]`."""
    found, wanted = [], samples
    while wanted > 0:
        particles = min(wanted, max(1, chunk // len(batch)))
        given = torch.zeros(particles, len(batch), classes, device=batch.index.device)
        given[..., k] = 1.0
        drawn = terms(model, guide, batch, particles=particles, given={site: given})
        found.append(drawn.log_weight + drawn.sites[site].log_q)
        wanted -= particles
    return torch.cat(found).double().logsumexp(0) - math.log(samples)


def _collected(
    model: Any, split: Split, scores: list[tuple[np.ndarray, Tensor, Tensor | None]], how: str, names: Sequence[str]
) -> Classification:
    classes = scores[0][1].shape[-1]
    joint = np.zeros((len(split), classes))
    guide = None if scores[0][2] is None else np.zeros((len(split), classes))
    for rows, score, said in scores:
        joint[rows] = as_float64(score)
        if guide is not None and said is not None:
            guide[rows] = as_float64(said)
    given = getattr(split, "labels", None)
    labels = np.full(len(split), -1) if given is None else np.asarray(given, np.int64)
    if labels.max(initial=-1) >= classes:
        raise ValueError(
            f"{type(model).__name__} has {classes} classes, and the split the label {labels.max()}: judge it on the "
            f"labels that it was trained with"
        )
    evidence = np.logaddexp.reduce(joint, 1)
    # a class that the corpus has no name for is one of a model with more classes than the corpus
    called = (*names, *map(str, range(len(names), classes)))[:classes]
    tokens = split.lengths if isinstance(split, TextSplit) else np.ones(len(split), np.int64)
    likelihood = None if _discriminative(model) else evidence
    return Classification(joint - evidence[:, None], labels, how, called, likelihood, tokens, guide)
