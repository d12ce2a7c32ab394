"""What a model and guide believe of every document, as ArviZ's groups of draws (layer: evaluation).

Draws are independent, so there is one chain. Log-probabilities are those of single documents: the scale N/B of
minibatches is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pyro.poutine import Trace
from torch import Tensor, nn

from pyro_nlp.data.batches import Batch
from pyro_nlp.data.splits import Split
from pyro_nlp.data.vocabulary import Vocabulary
from pyro_nlp.evaluation._drawn import Drawn, from_guide, from_values, portions, sample_sites
from pyro_nlp.evaluation._groups import Options, attributes_of, convert
from pyro_nlp.evaluation.discrete import Summable, summable
from pyro_nlp.evaluation.documents import judging, require_density
from pyro_nlp.inference.sites import is_latent
from pyro_nlp.inference.terms import terms


def posterior_to_arviz(
    model: nn.Module,
    guide: nn.Module | None,
    split: Split,
    draws: int = 100,
    *,
    vocabulary: Vocabulary | None = None,
    labels: Sequence[str] = (),
    seed: int = 0,
    batch_size: int = 16,
    chunk: int = 800,
    prior_draws: int = 100,
    predictive_draws: int = 10,
    marginal: Collection[str] = (),
) -> Any:
    """Draws from the guide and all that belongs to them, as an `InferenceData` (ArviZ 0.x) or `DataTree` (1.x).

    Groups                  variables [dimensions]
    posterior               each latent and, where none is summed out, what the model computes from them by
                            `pyro.deterministic` [chain, draw, document, ...]
    log_likelihood          each observed site [chain, draw, document]: log p(x | z)
    sample_stats            log_p: log p(x, z); log_q: log q(z | x); weight: p / q, summing to one over the draws
                            [chain, draw, document]; pareto_k [document], from 21 draws on
    prior                   the same [chain, draw, document, ...]
    prior_predictive, posterior_predictive
                            each observed site [chain, draw, document, ...] given the first draws of the latents; of
                            text, ids and a string `NAME_text`, by `model.generate`: without it there are none
    observed_data           each observed site [document, ...], of text with its string
    constant_data           label and length of each document, where there are any; of a topic model topic_words
                            [topic], the likeliest ten of each

    A vector latent has the dimension `latent`, a class `class`, several classes `variable` and `class`, shares of
    topics (`theta`) `topic`; text has `token`, other vectors `feature` or `word`. Documents are numbered as in the
    split. Shorter documents are filled with padding, NaN or -1.

    Args:
        model, guide: what is asked; without a guide, the exact posterior of a model whose latents can be summed out.
        split: the documents.
        draws: from the guide, per document.
        vocabulary: words of the ids; None for no strings.
        labels: names of the labels by id. They also name the classes of the model, if these are as many, unless there
            is no guide or its `supervision` is 0: a cluster is not a label.
        seed: of all draws.
        batch_size: documents taken together.
        chunk: documents x draws x summed values decoded at once; bounds the memory beside the result.
        prior_draws: from the prior, per document; 0 leaves out both prior groups.
        predictive_draws: of the observed, per document, prior and posterior alike; 0 leaves these groups out.
        marginal: sites that the guide was not trained for (`Run.marginal`). They are summed out of all
            log-probabilities, and drawn from their exact posterior given the other latents.

    Raises:
        NoDensityError: the guide is a point.
        ValueError: no latents, a latent shared by all documents, or labels without a name.
    """
    if draws < 1:
        raise ValueError(f"{draws} draws are too few: at least 1 is needed")
    summed = Summable(tuple(marginal)) if guide is not None and not marginal else summable(model, guide, split)
    sites = tuple(marginal) or summed.sites

    def draw(batch: Batch, prior: Trace) -> Drawn:
        parts = []
        for count in portions(draws, max(1, chunk // (len(batch) * summed.configurations))):
            found = terms(model, guide, batch, particles=count, marginal=sites)
            require_density(found)
            parts.append(from_guide(found, prior))
        return Drawn.joined(parts)

    supervised = guide is not None and getattr(guide, "supervision", 1) > 0
    options = Options(vocabulary, tuple(labels), supervised, batch_size, chunk, prior_draws, predictive_draws)
    with judging(model, guide, seed):
        return convert(model, split, draw, (1, draws), options, attributes_of(model, guide, seed))


def mcmc_to_arviz(
    model: nn.Module,
    samples: Mapping[str, Tensor | np.ndarray],
    split: Split,
    *,
    vocabulary: Vocabulary | None = None,
    labels: Sequence[str] = (),
    seed: int = 0,
    batch_size: int = 16,
    chunk: int = 800,
    prior_draws: int = 100,
    predictive_draws: int = 10,
) -> Any:
    """The same groups, of draws that MCMC has made of the same model; `sample_stats` holds `log_p` alone.

    Example:
        >>> mcmc = MCMC(NUTS(model), num_samples=500, num_chains=2)
        >>> mcmc.run(split.batch(np.arange(len(split))))
        >>> data = mcmc_to_arviz(model, mcmc.get_samples(group_by_chain=True), split)

    Args:
        samples: by latent site, `[chain, draw, document, *event]`, documents in the order of the split.
        split: all the documents that were given to MCMC.

    The others are those of `posterior_to_arviz`.

    Raises:
        ValueError: the draws are not those of the model's latents or of the split's documents; names the site.
    """
    values = {name: torch.as_tensor(value) for name, value in samples.items()}
    shape = _chains_and_draws(values, len(split))

    def draw(batch: Batch, prior: Trace) -> Drawn:
        latent = {name for name, site in sample_sites(prior).items() if is_latent(site)}
        if different := sorted(latent ^ set(values)):
            where = "a latent of the model, but not among the draws" if different[0] in latent else "no latent"
            raise ValueError(f"site '{different[0]}' is {where}: give the draws of {sorted(latent)}")
        rows = batch.index.cpu()
        own = {name: value.flatten(0, 1)[:, rows].to(batch.index.device) for name, value in values.items()}
        parts, start = [], 0
        for count in portions(shape[0] * shape[1], max(1, chunk // len(batch))):
            part = {name: value[start : start + count] for name, value in own.items()}
            parts.append(from_values(model, batch, part, prior))
            start += count
        return Drawn.joined(parts)

    options = Options(vocabulary, tuple(labels), False, batch_size, chunk, prior_draws, predictive_draws)
    with judging(model, None, seed):
        return convert(model, split, draw, shape, options, attributes_of(model, None, seed))


def _chains_and_draws(values: Mapping[str, Tensor], documents: int) -> tuple[int, int]:
    shape: tuple[int, int] | None = None
    for name, value in values.items():
        if value.dim() < 3 or value.shape[2] != documents:
            raise ValueError(
                f"site '{name}' has shape {list(value.shape)}, expected [chain, draw, document, ...] of {documents} "
                "documents (get_samples(group_by_chain=True) gives that)"
            )
        found = (value.shape[0], value.shape[1])
        if shape is not None and found != shape:
            raise ValueError(f"site '{name}' has {list(found)} chains and draws, another site {list(shape)}")
        shape = found
    if shape is None or 0 in shape:
        raise ValueError("there are no draws: give {site: [chain, draw, document, ...]}")
    return shape
