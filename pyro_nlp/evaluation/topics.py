"""How well a model of documents predicts their words, and what shares of topics it gives them (layer: evaluation).

A topic model has `topics()`, `proportions(latents)` and `topics_count`; its documents are a `CountSplit`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from pyro_nlp.data.counts import CountSplit
from pyro_nlp.evaluation.documents import (
    NoDensityError,
    as_float64,
    batches,
    device_of,
    judging,
    require_density,
)
from pyro_nlp.evaluation.likelihood import Likelihood, elbo_terms, importance_nll, perplexity
from pyro_nlp.inference.terms import Terms, terms
from pyro_nlp.inference.training import Precision


def is_topic_model(model: Any) -> bool:
    """Whether a model says what its topics are and what shares of them a document has."""
    return all(hasattr(model, name) for name in ("topics", "proportions", "topics_count"))


def perplexities(nll: np.ndarray, sizes: np.ndarray) -> tuple[float, float]:
    """exp(sum_d nll_d / sum_d N_d) and exp(mean_d nll_d / N_d), per corpus and per document.

    The second, of Miao et al. 2016, gives a short document the weight of a long one. Documents without words are left
    out of both. Infinite where no float is large enough.

    Args:
        nll: -log p(x) of each document or a bound on it, in nats, `[N]`.
        sizes: words of each document, `[N]`.

    Raises:
        ValueError: numbers that do not match, or no document has a word.
    """
    if nll.shape != sizes.shape:
        raise ValueError(f"{len(nll)} losses and {len(sizes)} sizes: give one of each per document")
    nll, sizes = nll[sizes > 0], sizes[sizes > 0]
    if not len(sizes):
        raise ValueError("no document has a word, and perplexity is per word")
    return perplexity(nll, int(sizes.sum())), perplexity(nll / sizes, len(sizes))


@dataclass(frozen=True)
class DocumentPerplexity:
    """The four numbers that are published as the perplexity of a model of documents.

    Papers say seldom which they give, and on the same model they differ by a tenth and more.

    Attributes:
        bound: exp of the negative ELBO by one draw, KL included, per word of the corpus.
        bound_per_document: exp of the mean over documents of that per word of the document (Miao et al. 2016).
        importance: as `bound`, by `samples` importance-weighted draws per document.
        importance_per_document: as `bound_per_document`, by these.
        samples: draws per document; 0 where the likelihood is exact.
        documents: that have words.
        empty: that have none and are left out.
    """

    bound: float
    bound_per_document: float
    importance: float
    importance_per_document: float
    samples: int
    documents: int
    empty: int


def document_perplexity(
    model: nn.Module,
    guide: nn.Module | None,
    split: CountSplit,
    samples: int = 500,
    *,
    seed: int = 0,
    precision: Precision = "float32",
    likelihood: Likelihood | None = None,
) -> DocumentPerplexity:
    """Perplexity per word in its four forms.

    Args:
        model, guide: what is judged.
        split: the documents.
        samples: importance samples per document.
        seed: of all draws.
        precision: of the networks.
        likelihood: of these documents, if `importance_nll` has been asked already; then `samples` is its own.

    Raises:
        NoDensityError: the guide is a point.
        ValueError: no document has a word.
    """
    if likelihood is None:
        likelihood = importance_nll(model, guide, split, samples, seed=seed, precision=precision)
    bound = perplexities(-elbo_terms(model, guide, split, seed=seed, precision=precision).elbo, split.sizes)
    weighted = perplexities(likelihood.nll, split.sizes)
    words = int((split.sizes > 0).sum())
    return DocumentPerplexity(*bound, *weighted, likelihood.samples, words, len(split) - words)


@dataclass(frozen=True)
class Completion:
    """Perplexity of the second half of documents whose first half was read.

    Attributes:
        plug_in: per word of the corpus, by p(x2 | E_q[z | x1]): the latents at their posterior mean given the first
            half. The usual form.
        plug_in_per_document: exp of the mean over documents of the loss per word.
        importance: per word of the corpus, by the mean of p(x2 | z) over draws of q(z | x1), weighted by
            p(x1, z) / q(z | x1): an estimate of p(x2 | x1), which does not depend on the guide as `samples` grows. None
            for a point guide.
        importance_per_document: likewise.
        samples: draws per document.
        documents: that were completed.
        excluded: documents of one word or none, which have no second half.
    """

    plug_in: float
    plug_in_per_document: float
    importance: float | None
    importance_per_document: float | None
    samples: int
    documents: int
    excluded: int


def document_completion(
    model: nn.Module,
    guide: nn.Module,
    split: CountSplit,
    seed: int = 0,
    *,
    samples: int = 100,
    chunk: int = 800,
    own_parameters: bool = False,
) -> Completion:
    """Infer from half of each document's words, predict the others.     Wallach et al. 2009

    Args:
        model, guide: what is judged.
        split: the documents; `split.halves(seed)` divides them.
        seed: of the division and of all draws.
        samples: draws per document.
        chunk: documents x draws taken together; bounds the memory.
        own_parameters: the guide's parameters are each document's own, and were fitted to `split.halves(seed).seen`.

    Raises:
        ValueError: no document has two words; or the guide does not read documents but has parameters for each, which
            may know the second half.
    """
    halves = split.halves(seed)
    if not len(halves.rows):
        raise ValueError("no document has two words: there is no half to complete it from")
    if not own_parameters and not reads_words(model, guide, halves.seen):
        raise ValueError(
            f"{type(guide).__name__} has parameters of its own for each document, which may know the half to be "
            "predicted. Fit one to split.halves(seed).seen with the model frozen, and say own_parameters=True."
        )
    plug_in, weighted = np.zeros(len(halves.rows)), np.zeros(len(halves.rows))
    density = True
    with judging(model, guide, seed):
        for rows, seen in batches(model, halves.seen, max(1, chunk // samples)):
            held_out = halves.held_out.batch(rows).to(device_of(model))
            mean = {name: value[None] for name, value in posterior_means(terms(model, guide, seen)).items()}
            plug_in[rows] = -as_float64(terms(model, guide, held_out, given=mean).log_likelihood[0])
            drawn = terms(model, guide, seen, particles=samples)
            density = density and has_density(drawn)
            if density:
                given = {name: site.value for name, site in drawn.sites.items()}
                later = terms(model, guide, held_out, particles=samples, given=given).log_likelihood.double()
                log_weight = drawn.log_weight.double()
                weighted[rows] = as_float64(log_weight.logsumexp(0) - (log_weight + later).logsumexp(0))
    sizes = halves.held_out.sizes
    importance, per_document = perplexities(weighted, sizes) if density else (None, None)
    return Completion(
        *perplexities(plug_in, sizes), importance, per_document, samples, len(halves.rows), halves.excluded
    )


def has_density(found: Terms) -> bool:
    """Whether no site has a point guide."""
    try:
        require_density(found)
    except NoDensityError:
        return False
    return True


def posterior_means(found: Terms) -> dict[str, Tensor]:
    """E_q of every site, `[B, *event]`."""
    return {name: site.q.mean[0] for name, site in found.sites.items()}


def reads_words(model: nn.Module, guide: nn.Module, split: CountSplit, documents: int = 64) -> bool:
    """Whether a guide's answer depends on what documents say: False if it stays the same when their words are changed,
    and yet differs between documents."""
    batch: Any = split.batch(np.arange(min(documents, len(split)))).to(device_of(model))
    other = batch.replace(counts=batch.counts.flip(-1) + 1)
    with judging(model, guide, 0):
        before, after = (posterior_means(terms(model, guide, b)) for b in (batch, other))
    same = all(bool((after[name] == mean).all()) for name, mean in before.items())
    differ = any(bool((mean != mean[:1]).any()) for mean in before.values())
    return not (same and differ)


def theta(
    model: Any, guide: nn.Module, split: CountSplit, *, draws: int = 0, seed: int = 0, batch_size: int = 128
) -> np.ndarray:
    """Shares of topics of every document in corpus order, `[N, K]`.

    Args:
        model: a topic model.
        guide: its guide.
        split: the documents; one without words has the shares that the guide gives to nothing.
        draws: 0 for the shares at the posterior mean of the latents, as they are published; else the mean of the shares
            at that many draws, which is E_q[theta] and more even. The same for a Dirichlet but for noise.
        seed: of the draws.
        batch_size: documents taken together.

    Raises:
        ValueError: not a topic model.
    """
    if not is_topic_model(model):
        raise ValueError(f"{type(model).__name__} is no topic model: give it topics(), proportions() and topics_count")
    found = np.zeros((len(split), model.topics_count))
    with judging(model, guide, seed):
        for rows, batch in batches(model, split, batch_size):
            here = terms(model, guide, batch, particles=max(draws, 1))
            if draws:
                values = {name: site.value for name, site in here.sites.items()}
                found[rows] = as_float64(model.proportions(values).mean(0))
            else:
                found[rows] = as_float64(model.proportions(posterior_means(here)))
    return found
