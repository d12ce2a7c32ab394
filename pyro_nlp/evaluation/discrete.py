"""Latents that can be summed exactly, and what documents say of them (layer: evaluation)."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pyro
import torch
from pyro.distributions import OneHotCategorical
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import Batch
from pyro_nlp.data.splits import Split
from pyro_nlp.evaluation.documents import as_float64, batches, device_of, judging
from pyro_nlp.inference import Marginalize, ScoreFunction, Strategy, StructureError
from pyro_nlp.inference.sites import own_plates
from pyro_nlp.inference.support import one_hot
from pyro_nlp.inference.terms import terms

DRAWS = 20
"""Of the continuous latents, to average the posterior of a class over."""


@dataclass(frozen=True)
class Summable:
    """Latents that can be summed out of p(x).

    Attributes:
        sites: their names.
        configurations: of all of them together, per document.
        all: whether there are no others: then p(x) is exact.
    """

    sites: tuple[str, ...] = ()
    configurations: int = 1
    all: bool = False


def summable(model: nn.Module, guide: nn.Module | None, split: Split) -> Summable:
    """The discrete latents of a model, if they can be summed out together.

    None where they have too many configurations together, or where the rest of the guide or of the model's latents
    depends on them.
    """
    batch = split.batch(np.arange(min(2, len(split)))).to(device_of(model))
    try:
        with judging(model, guide, 0):
            found = Strategy(continuous=ScoreFunction(), discrete=Marginalize()).compile(model, guide, batch)
    except StructureError:
        return Summable()
    return Summable(found.marginal, math.prod(found.rows.values()), len(found.marginal) == len(found.latents))


def class_posteriors(
    model: nn.Module, guide: nn.Module | None, split: Split, *, seed: int = 0, batch_size: int = 32
) -> dict[str, np.ndarray]:
    """p(c | x) of every one-hot class of a document, `[N, K]` by site: exact where c can be summed, else the guide's.

    Beside continuous latents it is the mean over draws of these from the guide.
    """
    summed = summable(model, guide, split).sites
    found: dict[str, np.ndarray] = {}
    with judging(model, guide, seed):
        for rows, batch in batches(model, split, batch_size):
            for name, value in _posteriors(model, guide, batch, summed).items():
                store = found.setdefault(name, np.zeros((len(split), value.shape[-1])))
                store[rows] = as_float64(value)
    return found


def _posteriors(model: nn.Module, guide: nn.Module | None, batch: Batch, summed: Collection[str]) -> dict[str, Tensor]:
    if not summed:
        sites = terms(model, guide, batch).sites.items()
        classes = {n: s for n, s in sites if one_hot(s.q) and len(s.q.event_shape) == 1}
        return {n: s.q.mean[0] for n, s in classes.items() if not own_plates(s.guide, s.scope.plates)}
    found = terms(model, guide, batch, marginal=summed)
    if found.sites:
        found = terms(model, guide, batch, particles=DRAWS, marginal=summed)
    assert found.joint is not None
    of_documents = [table.site for table in found.joint[1] if not table.inner]
    return {name: found.posterior(name).mean(0).expand(len(batch), -1) for name in of_documents}


class ExactGuide(PyroModule):
    """q(c | x) = p(c | x), known for every document of a split: what a model trained without a guide is judged with.

    Args:
        site: the name of c.
        probabilities: `[N, K]`.
    """

    def __init__(self, site: str, probabilities: np.ndarray) -> None:
        super().__init__()
        self.site = site
        self.register_buffer("probabilities", torch.from_numpy(probabilities).float())

    def forward(self, batch: Batch) -> None:
        with batch.documents():
            pyro.sample(self.site, OneHotCategorical(probs=self.probabilities[batch.index]))


def exact_guide(model: nn.Module, split: Split) -> ExactGuide | None:
    """The exact posterior of a model with one class per document and no other latent; None for any other."""
    found = class_posteriors(model, None, split) if summable(model, None, split).sites else {}
    if len(found) != 1:
        return None
    ((site, probabilities),) = found.items()
    return ExactGuide(site, probabilities).to(device_of(model))
