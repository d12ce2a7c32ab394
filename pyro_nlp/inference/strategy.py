"""Inference as a value, and the module it compiles to (layer: inference)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from pyro.poutine.messenger import Messenger
from torch import Tensor, nn

from pyro_nlp.data.batches import Batch
from pyro_nlp.inference.bounds import ELBO, Bound, Loss
from pyro_nlp.inference.divergence import KL
from pyro_nlp.inference.estimators import Estimator, Pathwise
from pyro_nlp.inference.terms import SiteTerms, StructureError, Terms, terms
from pyro_nlp.inference.updates import Joint, Updates


@dataclass(frozen=True)
class Strategy:
    """How to infer: an estimator per latent, a bound, a weight and shape for each KL, and who steps when.

    Example:
        >>> Strategy(kl=KL(weight=Linear(0.0, 1.0, epochs=10), shape=FreeBits(8.0)))

    Args:
        continuous: estimator of latents with a continuous support.
        discrete: estimator of latents with a discrete support.
        sites: estimators by site name, where one differs.
        bound: what is climbed.
        kl: weight and shape of the KL of every latent, or by site name.
        updates: who steps when.
    """

    continuous: Estimator = Pathwise()
    discrete: Estimator | None = None
    sites: dict[str, Estimator] = field(default_factory=dict)
    bound: Bound = ELBO()
    kl: KL | dict[str, KL] = KL()
    updates: Updates = Joint()

    def compile(self, model: nn.Module, guide: nn.Module | None, batch: Batch) -> Objective:
        """The differentiable loss of this strategy for a model and a guide, after one dry run on `batch`.

        Raises:
            StructureError: model and guide do not fit each other or the strategy; the message names site and cure.
        """
        for role, module in (("model", model), ("guide", guide)):
            if isinstance(module, type):
                raise StructureError(f"the {role} is a class, {module.__name__}: pass an instance of it")
            if module is not None and not isinstance(module, nn.Module):
                raise StructureError(
                    f"the {role} is a {type(module).__name__}: make it a PyroModule, or it cannot be trained"
                )
        shared = _shared_parameters(model, guide)
        if shared:
            raise StructureError(f"model and guide share the parameter '{shared}': the guide owns its encoder")
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            dry = terms(model, guide, batch, particles=self.bound.particles)
        estimators = {name: self._estimator(site) for name, site in dry.sites.items()}
        for name in (*self.sites, *(self.kl if isinstance(self.kl, dict) else ())):
            if name not in estimators:
                known = ", ".join(f"'{n}'" for n in estimators) or "none"
                raise StructureError(f"the strategy names the site '{name}'; the latents are {known}")
        objective = Objective(model, guide, self, estimators, dry)
        for name, site in dry.sites.items():
            shape = objective.kl(name).shape
            reason = shape.refuse(site) if shape is not None else None
            if reason:
                raise StructureError(f"site '{name}': {reason}")
        reason = self.bound.refuse(objective)
        if reason:
            raise StructureError(f"{type(self.bound).__name__}: {reason}")
        return objective

    def _estimator(self, site: SiteTerms) -> Estimator:
        discrete = site.q.support.is_discrete if site.q.support is not None else False
        estimator = self.sites.get(site.name) or (self.discrete if discrete else self.continuous)
        if estimator is None:
            raise StructureError(
                f"site '{site.name}' is discrete ({type(site.q).__name__}) and the strategy has no "
                "estimator for it: set Strategy(discrete=...)"
            )
        reason = estimator.refuse(site)
        if reason:
            raise StructureError(f"site '{site.name}': {reason}")
        return estimator


class Objective(nn.Module):
    """A compiled strategy: `objective(batch)` is a differentiable loss per document (minus corpus bound / N).

    It owns everything about inference that changes with training, so that all of it is trained, saved and synchronised.

    Attributes:
        model, guide: the two modules.
        estimators: estimator of every latent site.
        step: optimiser steps taken (a buffer); `steps_per_epoch` is set by `fit`.
        last: what the latest loss was made of.
    """

    step: Tensor

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module | None,
        strategy: Strategy,
        estimators: dict[str, Estimator],
        dry: Terms,
    ) -> None:
        super().__init__()
        self.model, self.guide = model, guide
        self.strategy, self.estimators = strategy, estimators
        self.plates = dry.scope.plates
        self.steps_per_epoch: int | None = None
        self.last: Loss | None = None
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self._now = 0  # the buffer as a Python number, read by schedules
        self._draws = _Draw({n: e for n, e in estimators.items() if type(e).draw is not Estimator.draw})
        self.summary = [_describe(site, estimators[name], self.kl(name)) for name, site in dry.sites.items()]

    def forward(self, batch: Batch) -> Tensor:
        self.last = self.strategy.bound.loss(self, batch)
        return self.last.value

    def terms(self, batch: Batch) -> Terms:
        """Both sides of every site, drawn as the estimators ask."""
        with self._draws:
            return terms(self.model, self.guide, batch, particles=self.strategy.bound.particles, plates=self.plates)

    def kl(self, site: str) -> KL:
        """Weight and shape of a site's KL."""
        kl = self.strategy.kl
        return kl if isinstance(kl, KL) else kl.get(site, KL())

    def weight(self, site: str) -> float:
        """KL weight of a site at this step."""
        return self.kl(site).weight_at(self._now, self.steps_per_epoch)

    def advance(self) -> None:
        """Count one optimiser step."""
        self.step += 1
        self._now += 1

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._now = int(self.step)


class _Draw(Messenger):
    """Lets estimators change how their sites are drawn."""

    def __init__(self, estimators: dict[str, Estimator]) -> None:
        super().__init__()
        self.estimators = estimators

    def _pyro_sample(self, message: Any) -> None:
        estimator = self.estimators.get(message["name"])
        if estimator is not None and not message["is_observed"] and not message["done"]:
            estimator.draw(message)


def _describe(site: SiteTerms, estimator: Estimator, kl: KL) -> dict[str, str]:
    return {
        "site": site.name,
        "guide": type(getattr(site.q, "base_dist", site.q)).__name__,
        "event": str(list(site.q.event_shape)),
        "estimator": repr(estimator),
        "kl": "closed form" if site._closed_form is not None else "log q - log p at the draw",
        "weight": repr(kl.weight),
        "shape": repr(kl.shape) if kl.shape is not None else "",
    }


def _shared_parameters(model: nn.Module, guide: nn.Module | None) -> str | None:
    if guide is None or getattr(guide, "shares_parameters", False):
        return None
    owned = {id(p) for p in model.parameters()}
    return next((name for name, p in guide.named_parameters() if id(p) in owned), None)
