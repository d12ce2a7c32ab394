"""How likely documents are: the ELBO's terms, importance-weighted likelihood, perplexity (layer: evaluation).

Every model is judged on its original form: no KL weight, no free bits, no word dropout, whatever it was trained with.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from pyro_nlp.data.batches import Batch
from pyro_nlp.data.counts import CountSplit
from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.data.splits import Split, TextSplit
from pyro_nlp.evaluation.discrete import Summable, summable
from pyro_nlp.evaluation.documents import (
    as_float64,
    batches,
    judging,
    per_document,
    require_density,
)
from pyro_nlp.inference.terms import terms
from pyro_nlp.inference.training import Precision


@dataclass(frozen=True)
class ElboTerms:
    """The parts of the ELBO of every document, in nats and in corpus order.

    Attributes:
        log_likelihood: E_q[log p(x | z)], `[N]`.
        kl: KL(q || p) by site, `[N]`.
        kl_per_dimension: the same by dimension, `[N, D]`, of the sites that factorise.
    """

    log_likelihood: np.ndarray
    kl: dict[str, np.ndarray]
    kl_per_dimension: dict[str, np.ndarray]

    @property
    def elbo(self) -> np.ndarray:
        """log-likelihood minus KL, `[N]`."""
        return self.log_likelihood - sum(self.kl.values(), np.zeros(len(self.log_likelihood)))


def elbo_terms(
    model: nn.Module,
    guide: nn.Module | None,
    split: Split,
    samples: int = 1,
    *,
    seed: int = 0,
    batch_size: int = 64,
    precision: Precision = "float32",
    marginal: Collection[str] = (),
) -> ElboTerms:
    """The ELBO's terms of every document, averaged over `samples` draws; the sites in `marginal` are summed out."""
    count = len(split)
    log_likelihood = np.zeros(count)
    kl: dict[str, np.ndarray] = {}
    dimensions: dict[str, np.ndarray] = {}
    with judging(model, guide, seed, precision):
        for rows, found in per_document(model, guide, split, samples, batch_size, marginal):
            log_likelihood[rows] = as_float64(found.log_likelihood.mean(0))
            for name, value in found.kl.items():
                kl.setdefault(name, np.zeros(count))[rows] = as_float64(value.mean(0))
                by_dimension = found.sites[name].kl_per_dimension
                if by_dimension is not None:
                    here = as_float64(by_dimension.mean(0))
                    dimensions.setdefault(name, np.zeros((count, here.shape[1])))[rows] = here
    return ElboTerms(log_likelihood, kl, dimensions)


@dataclass(frozen=True)
class Likelihood:
    """-log p(x) of every document in nats, in corpus order.

    Attributes:
        nll: estimate, `[N]`. The importance-weighted one is an upper bound in expectation, tighter with more samples.
        standard_error: of each estimate, by the delta method, `[N]`; zero where it is exact.
        samples: draws per document; 0 where it is exact.
    """

    nll: np.ndarray
    standard_error: np.ndarray
    samples: int

    @property
    def mean(self) -> float:
        """Mean over documents."""
        return float(self.nll.mean())

    @property
    def mean_standard_error(self) -> float:
        """Standard error of the mean: how it would vary with other documents of the same kind."""
        return float(self.nll.std(ddof=1) / math.sqrt(len(self.nll))) if len(self.nll) > 1 else math.nan


def importance_nll(
    model: nn.Module,
    guide: nn.Module | None,
    split: Split,
    samples: int = 500,
    *,
    seed: int = 0,
    batch_size: int = 8,
    chunk: int = 800,
    precision: Precision = "float32",
) -> Likelihood:
    """-log (1/S) sum_s p(x, z_s) / q(z_s | x) for every document.     Burda et al. 2016 (arXiv:1509.00519), eq. 8

    Discrete latents are summed out where they can be (`discrete.summable`); exact, with no samples, where nothing else
    is latent.

    Args:
        model, guide: what is judged.
        split: the documents.
        samples: draws per document, S.
        seed: of the draws.
        batch_size: documents taken together.
        chunk: documents x draws x summed values decoded at once; bounds the memory.
        precision: of the networks; log-probabilities are float32 always.

    Raises:
        NoDensityError: the guide is a point.
    """
    nll, error = np.zeros(len(split)), np.zeros(len(split))
    summed = summable(model, guide, split)
    exact = guide is None or summed.all
    with judging(model, guide, seed, precision):
        for rows, _, weights in log_weights(model, guide, split, samples, summed, batch_size, chunk):
            log_weight = weights.double()
            nll[rows] = as_float64(math.log(len(log_weight)) - log_weight.logsumexp(0))
            share = log_weight.softmax(0)
            error[rows] = as_float64((share.square().sum(0) - 1 / len(share)).clamp(min=0).sqrt())
    return Likelihood(nll, error, 0 if exact else samples)


def log_weights(
    model: nn.Module,
    guide: nn.Module | None,
    split: Split,
    draws: int,
    summed: Summable,
    batch_size: int = 8,
    chunk: int = 800,
) -> Iterator[tuple[np.ndarray, Batch, torch.Tensor]]:
    """Rows of a batch, the batch, and log p(x, z) - log q(z | x) of its documents, `[draws, B]`.

    One draw where all latents are summed out, as all would be the same. To be called within `judging`.
    """
    draws = 1 if guide is None or summed.all else draws
    for rows, batch in batches(model, split, max(1, min(batch_size, chunk // summed.configurations))):
        found: list[torch.Tensor] = []
        wanted = draws
        while wanted > 0:
            particles = min(wanted, max(1, chunk // (len(rows) * summed.configurations)))
            drawn = terms(model, guide, batch, particles=particles, marginal=summed.sites)
            require_density(drawn)
            found.append(drawn.log_weight)
            wanted -= particles
        yield rows, batch, torch.cat(found)


def foretold_tokens(model: nn.Module, split: Split) -> int:
    """Words of a split that a model foretells, ends of sentence counted where there are some; 0 where there are none.

    Of pairs without labels they are those of the second texts, or of the first where `model.foretells` is "first"; none
    where that is "labels".
    """
    if getattr(model, "foretells", "") == "labels":
        return 0
    if isinstance(split, TextSplit | CountSplit):
        return split.tokens
    if not isinstance(split, PairSplit) or (split.labels is not None and not hasattr(model, "foretells")):
        return 0
    first = getattr(model, "foretells", "second") == "first"
    return int(split.first.lengths[split.group].sum()) if first else split.tokens


def perplexity(nll: np.ndarray, tokens: int) -> float:
    """exp(total nats / total tokens); `tokens` counts the ends of sentence (`split.tokens`). Infinite where no float is
    large enough."""
    try:
        return math.exp(float(np.sum(nll)) / tokens)
    except OverflowError:
        return math.inf


@dataclass(frozen=True)
class Difference:
    """Mean of a paired difference and its standard error."""

    mean: float
    standard_error: float

    def __str__(self) -> str:
        return f"{self.mean:+.2f} ± {self.standard_error:.2f}"


def compare(first: np.ndarray, second: np.ndarray) -> Difference:
    """first - second, document by document: the spread between documents cancels.

    Raises:
        ValueError: the two were not measured on the same documents.
    """
    if first.shape != second.shape:
        raise ValueError(f"cannot pair {len(first)} documents with {len(second)}: judge both runs on the same split")
    difference = first - second
    error = difference.std(ddof=1) / math.sqrt(len(difference)) if len(difference) > 1 else math.nan
    return Difference(float(difference.mean()), float(error))
