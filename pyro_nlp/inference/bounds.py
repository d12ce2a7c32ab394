"""What is climbed: lower bounds on the likelihood, as differentiable losses (layer: inference).

A bound turns the terms of a batch into a loss per document: minus the bound on the corpus, divided by N.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from pyro import infer
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_nlp.data.batches import Batch

if TYPE_CHECKING:
    from pyro_nlp.inference.strategy import Objective


@dataclass
class Loss:
    """A loss and what it was made of; all but `value` are detached means per document, in nats."""

    value: Tensor
    log_likelihood: Tensor | None = None
    kl: dict[str, Tensor] = field(default_factory=dict)


class Bound(ABC):
    """A lower bound on log p(x)."""

    particles: int

    def refuse(self, objective: Objective) -> str | None:
        """Why this bound cannot be used with the rest of the strategy, with a cure; or None."""
        return None

    @abstractmethod
    def loss(self, objective: Objective, batch: Batch) -> Loss:
        """Minus the bound per document, differentiable."""


@dataclass(frozen=True)
class ELBO(Bound):
    """E_q[log p(x | z)] - KL(q(z | x) || p(z)), the KL in closed form where it has one.

    Args:
        particles: draws of the latents per document and step.
    """

    particles: int = 1

    def loss(self, objective: Objective, batch: Batch) -> Loss:
        terms = objective.terms(batch)
        cost = -terms.log_likelihood
        for name, site in terms.sites.items():
            kl = objective.kl(name)
            weight = objective.weight(name)
            if weight:
                cost = cost + weight * kl(site)
        value = cost.mean()
        for name, site in terms.sites.items():
            surrogate = objective.estimators[name].surrogate(site, cost.detach())
            if surrogate is not None:
                value = value + surrogate.mean()
        with torch.no_grad():
            divergences = {name: kl.mean() for name, kl in terms.kl.items()}
        return Loss(value, terms.log_likelihood.detach().mean(), divergences)


@dataclass(frozen=True)
class PyroELBO(Bound):
    """One of Pyro's own objectives, for comparison and as an oracle.

    A KL weight is put on by scaling the latent sites of model and guide alike, which is exact for these two objectives.
    KL shapes such as free bits need `ELBO`.

    Args:
        name: the objective in `pyro.infer`.
        particles: draws of the latents per document and step.
    """

    name: Literal["Trace_ELBO", "TraceMeanField_ELBO"] = "Trace_ELBO"
    particles: int = 1

    def refuse(self, objective: Objective) -> str | None:
        shaped = [name for name in objective.estimators if objective.kl(name).shape is not None]
        if shaped:
            return f"site '{shaped[0]}' has a KL shape, which {self.name} cannot see: use bound=ELBO()"
        return None

    def loss(self, objective: Objective, batch: Batch) -> Loss:
        # A fresh one every time: Pyro's objectives cache the plate depth they first saw.
        elbo: Any = getattr(infer, self.name)(
            num_particles=self.particles, vectorize_particles=True, max_plate_nesting=objective.plates
        )
        weights = {name: objective.weight(name) for name in objective.estimators}
        with _ScaleSites(weights):
            loss = elbo.differentiable_loss(objective.model, objective.guide or (lambda batch: None), batch)
        return Loss(loss / batch.population)


class _ScaleSites(Messenger):
    """Multiplies the scale of the named sites; unlike `poutine.scale` it takes 0."""

    def __init__(self, weights: dict[str, float]) -> None:
        super().__init__()
        self.weights = weights

    def _pyro_sample(self, message: Any) -> None:
        message["scale"] = message["scale"] * self.weights.get(message["name"], 1.0)
