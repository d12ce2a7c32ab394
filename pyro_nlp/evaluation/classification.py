"""What a model says of the classes of documents, and how it compares with their labels (layer: evaluation)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from pyro_nlp.evaluation._arviz import measured
from pyro_nlp.evaluation.binary import BinaryCalibration, binary_calibration
from pyro_nlp.evaluation.intervals import Interval, bootstrap
from pyro_nlp.evaluation.measured import Measured


@dataclass(frozen=True)
class Classification(Measured):
    """What a model says of the class of N documents.

    Attributes:
        log_probability: log p(y | x), `[N, K]`.
        labels: class of each document, -1 where unknown, int64 `[N]`.
        how: how p(y | x) was found.
        names: of the classes, K.
        log_likelihood: log p(x) in nats, `[N]`; None of a discriminative model.
        tokens: words of each document, the end of sentence counted, `[N]`; ones for data that are not text.
        guide: log q(y | x), `[N, K]`; None without a guide for the class.
        unknown: how many of the tokens are `<unk>`, `[N]`; None for data that are not text.
        known_likelihood: log p of all other tokens, each given all before it, `[N]`; None where it was not asked for.
    """

    log_probability: np.ndarray
    labels: np.ndarray
    how: str
    names: tuple[str, ...]
    log_likelihood: np.ndarray | None
    tokens: np.ndarray
    guide: np.ndarray | None = None
    unknown: np.ndarray | None = None
    known_likelihood: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def known(self) -> np.ndarray:
        """Rows of the documents with a label.

        Raises:
            ValueError: there is none, and so nothing to hold the classes against.
        """
        rows = np.flatnonzero(self.labels >= 0)
        if not len(rows):
            raise ValueError(
                f"none of the {len(self):,} documents has a label to hold p(y | x) against: judge a split with labels; "
                "of one without, take predicted and log_probability"
            )
        return rows

    @property
    def unknown_share(self) -> float:
        """Share of `<unk>` among the words, ends of sentence not counted; NaN for data that are not text."""
        if self.unknown is None:
            return math.nan
        return float(self.unknown.sum() / max(1, (self.tokens - 1).sum()))

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
        bounds = bootstrap(values, resamples, seed)
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
            unknown = "" if self.unknown is None else f", {self.unknown_share:.1%} of the words are <unk>"
            rows["log p(x) per word"] = f"{self.log_likelihood.sum() / self.tokens.sum():.4f} nats{unknown}"
        for name, of in self.per_class().items():
            shares = ", ".join(f"{what} {of[what]:.3f}" for what in ("precision", "recall", "F1"))
            rows[f"class {name}"] = f"{shares} ({of['documents']:,.0f} documents)"
        return rows

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
        if self.unknown is not None:
            found["unknown_words"] = self.unknown_share
        return found

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` over `document` and `class`."""
        table: dict[str, Any] = {"log_probability": (("document", "class"), self.log_probability, "nats")}
        table["label"] = (("document",), self.labels, "class")
        if self.guide is not None:
            table["guide"] = (("document", "class"), self.guide, "nats")
        if self.log_likelihood is not None:
            table["log_likelihood"] = (("document",), self.log_likelihood, "nats")
        if self.known_likelihood is not None:
            table["known_likelihood"] = (("document",), self.known_likelihood, "nats")
        return measured(table, {"class": list(self.names)}, {"how": self.how})
