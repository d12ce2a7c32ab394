"""Two classifications of the same documents, and documents of another kind (layer: evaluation)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy

from pyro_nlp.evaluation.classification import Classification
from pyro_nlp.evaluation.intervals import Interval, PairedInterval, bootstrap, sign_flips


@dataclass(frozen=True)
class ClassificationDifference:
    """The first classification less the second, document by document.

    Attributes:
        accuracy, log_loss: mean differences, with bootstrap intervals and randomisation tests over documents.
        first_right, second_right: documents that one alone classifies rightly.
        mcnemar: two-sided p-value of the exact test that these are equally likely      McNemar 1947 (Psychometrika 12)
        documents: how many have a label.
    """

    accuracy: PairedInterval
    log_loss: PairedInterval
    first_right: int
    second_right: int
    mcnemar: float
    documents: int

    def rows(self) -> dict[str, str]:
        """Measure and difference, as printed."""
        alone = f"{self.first_right} and {self.second_right} of {self.documents:,}"
        return {
            "accuracy": str(self.accuracy),
            "log loss": str(self.log_loss),
            "right alone": f"{alone}, McNemar's p {self.mcnemar:.3g}",
        }


def compare_classifications(
    first: Classification, second: Classification, *, resamples: int = 10_000, permutations: int = 9_999, seed: int = 0
) -> ClassificationDifference:
    """first - second, document by document: what makes a document hard cancels.

    Raises:
        ValueError: the two are not of the same documents.
    """
    if not np.array_equal(first.labels, second.labels) or not np.array_equal(first.tokens, second.tokens):
        raise ValueError(
            f"cannot pair classifications of {len(first)} and {len(second)} documents with other labels or lengths: "
            "judge both on the same split"
        )
    right = first.correct.astype(np.float64) - second.correct
    values = np.stack([right, first.losses - second.losses], 1)
    bounds, p_values = bootstrap(values, resamples, seed), sign_flips(values, permutations, seed)
    accuracy, loss = (
        PairedInterval(float(mean), float(low), float(high), float(p))
        for mean, (low, high), p in zip(values.mean(0), bounds, p_values, strict=True)
    )
    one, two = int((right > 0).sum()), int((right < 0).sum())
    p = float(scipy.stats.binomtest(one, one + two).pvalue) if one + two else 1.0
    return ClassificationDifference(accuracy, loss, one, two, p, len(right))


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """Chance that a score from inside is above one from outside, ties counted half: the area under the ROC curve."""
    ranks = scipy.stats.rankdata(np.concatenate([inside, outside]))
    above = ranks[: len(inside)].sum() - len(inside) * (len(inside) + 1) / 2
    return float(above / (len(inside) * len(outside)))


def out_of_domain(
    inside: Classification, outside: Classification, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Interval]:
    """How well a model tells documents of its own kind from others: AUROC, with bootstrap intervals over documents.

    `likelihood` ranks by log p(x) per word, and `known words` by that of the words that are not `<unk>`, if both were
    classified with `known_words`; of generative models only. `<unk>` is a likely word, so that the first may say no
    more than how many there are: `unknown words` ranks by their share, few of them as a sign of the own kind.
    `confidence` ranks by the probability of the likeliest class, which any classifier has (Hendrycks and Gimpel 2017,
    arXiv:1610.02136). 0.5 is chance. A model may find foreign text likelier than its own (Nalisnick et al. 2019,
    arXiv:1810.09136): then it is below.

    Args:
        inside: of documents of the kind that was trained on, held out.
        outside: of others, read by the same vocabulary (`data.reread`, `data.recode`).
        resamples: of the documents of both.
        seed: of these.
    """
    scores = {
        "likelihood": tuple(_per_word(of.log_likelihood, of.tokens) for of in (inside, outside)),
        "known words": tuple(_per_word(of.known_likelihood, of.tokens, of.unknown) for of in (inside, outside)),
        "unknown words": tuple(None if of.unknown is None else -of.unknown / of.tokens for of in (inside, outside)),
        "confidence": tuple(of.log_probability.max(1) for of in (inside, outside)),
    }
    rng, found = np.random.default_rng(seed), {}
    for name, (own, other) in scores.items():
        if own is None or other is None:
            continue
        drawn = [auroc(rng.choice(own, len(own)), rng.choice(other, len(other))) for _ in range(resamples)]
        low, high = np.quantile(drawn, [0.025, 0.975])
        found[name] = Interval(auroc(own, other), float(low), float(high))
    return found


def _per_word(log_p: np.ndarray | None, tokens: np.ndarray, unknown: np.ndarray | None = None) -> np.ndarray | None:
    """log p of a document by the number of its tokens, those left out that are not known."""
    if log_p is None:
        return None
    found: np.ndarray = log_p / (tokens if unknown is None else tokens - unknown)
    return found
