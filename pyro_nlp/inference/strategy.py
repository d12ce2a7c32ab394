"""Inference as a value, and the module it compiles to (layer: inference)."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from pyro_nlp.data.batches import Batch
from pyro_nlp.distributions import uneven_rows
from pyro_nlp.inference.auxiliary import Auxiliary, called
from pyro_nlp.inference.bounds import ELBO, Bound, Loss
from pyro_nlp.inference.compiling import Latent, describe, latents, meet, refuse, refuse_modules, refuse_turns
from pyro_nlp.inference.divergence import KL
from pyro_nlp.inference.estimators import Estimator, Marginalize, Pathwise, ScoreFunction, Signal
from pyro_nlp.inference.pyro_bounds import PyroELBO
from pyro_nlp.inference.schedules import Schedule, at
from pyro_nlp.inference.terms import StructureError, Terms, terms
from pyro_nlp.inference.updates import Joint, Updates, Weight


@dataclass(frozen=True)
class Strategy:
    """How to infer: an estimator per latent, a bound, a weight and shape for each KL, and who steps when.

    Example:
        >>> Strategy(discrete=Enumerate(), kl=KL(weight=Linear(0.0, 1.0, epochs=10), shape=FreeBits(8.0)))

    Args:
        continuous: estimator of latents with a continuous support.
        discrete: estimator of latents with a discrete support.
        sites: estimators by site name, where one differs.
        bound: what is climbed.
        kl: weight and shape of the KL of every latent, or by site name.
        updates: who steps when.
        auxiliary: losses beside the bound's, which no evaluation sees.
    """

    continuous: Estimator = Pathwise()
    discrete: Estimator | None = None
    sites: dict[str, Estimator] = field(default_factory=dict)
    bound: Bound = ELBO()
    kl: KL | dict[str, KL] = KL()
    updates: Updates = Joint()
    auxiliary: tuple[Auxiliary, ...] = ()

    def compile(self, model: nn.Module, guide: nn.Module | None, batch: Batch, data: str = "the corpus") -> Objective:
        """The differentiable loss of this strategy for a model and a guide, after one dry run on `batch`.

        Args:
            model, guide: what is trained.
            batch: of the corpus.
            data: what errors call the corpus.

        Raises:
            StructureError: model and guide do not fit each other or the strategy; the message names site and cure.
        """
        refuse_modules(model, guide)
        meet(model, guide)
        with torch.random.fork_rng(devices=[]):
            found = latents(model, guide, batch, self.discrete, self.sites, data)
            estimators = {name: self._estimator(latent, model) for name, latent in found.items()}
            named = (*self.sites, *(self.kl if isinstance(self.kl, dict) else ()))
            unknown = next((name for name in named if name not in estimators), None)
            if unknown:
                known = ", ".join(f"'{n}'" for n in estimators) or "none"
                raise StructureError(f"the strategy names the site '{unknown}'; the latents are {known}")
            objective = Objective(model, guide, self, estimators, found, batch)
            refuse_turns(objective)
            objective.help_with(batch)
            refuse(objective, batch)
        return objective

    def _estimator(self, latent: Latent, model: nn.Module) -> Estimator:
        estimator = self.sites.get(latent.name) or (self.discrete if latent.discrete else self.continuous)
        if estimator is None:
            raise StructureError(
                f"site '{latent.name}' is discrete ({type(latent.fn).__name__}) and the strategy has no "
                "estimator for it: set Strategy(discrete=...)"
            )
        reason = estimator.refuse(latent.fn)
        if reason:
            raise StructureError(f"site '{latent.name}': {reason}")
        if isinstance(estimator, ScoreFunction) and estimator.baseline:
            estimator = replace(estimator, baseline=estimator.baseline.of(model))
        return self.bound.estimator(estimator)


class Objective(nn.Module):
    """A compiled strategy: `objective(batch)` is a differentiable loss per document (minus corpus bound / N).

    It owns everything about inference that changes with training, so that all of it is trained, saved and synchronised.

    Attributes:
        model, guide: the two modules; the guide is None where all its sites are summed out in the model.
        estimators: estimator of every latent site.
        marginal: the sites that are summed out in the model.
        rows: by site, the values it takes at once.
        state: what estimators learn, as modules by site.
        helpers: the networks of auxiliary losses, by position.
        turns: what the updates remember.
        step: optimiser steps taken (a buffer); `steps_per_epoch` is set by `fit`.
        last: what the latest loss was made of.
        phase: which part of the loss is asked for: with `wake` the bound and the auxiliary losses of documents, with
            `sleep` those of what the model writes; None for all.
    """

    step: Tensor

    def __init__(
        self,
        model: nn.Module,
        guide: nn.Module | None,
        strategy: Strategy,
        estimators: dict[str, Estimator],
        found: dict[str, Latent],
        batch: Batch,
    ) -> None:
        super().__init__()
        self.marginal = tuple(name for name, e in estimators.items() if isinstance(e, Marginalize))
        # with all its sites summed out a guide has nothing to say, but for labels that it has seen
        idle = estimators and all(name in self.marginal and not hasattr(found[name].fn, "known") for name in estimators)
        self.model, self.guide = model, None if idle else guide
        self.strategy, self.estimators, self.latents = strategy, estimators, found
        self.rows = {name: e.rows(found[name].fn) for name, e in estimators.items()}
        self.plates = getattr(model, "plates", 1)
        self.steps_per_epoch: int | None = None
        self.last: Loss | None = None
        self.phase: Literal["wake", "sleep"] | None = None
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self._now = 0  # the buffer as a Python number, read by schedules
        states = {name: e.state(batch) for name, e in estimators.items()}
        self.state = nn.ModuleDict({_key(name): state for name, state in states.items() if state is not None})
        self.helpers = nn.ModuleDict()
        self.called = called(strategy.auxiliary)
        self.turns = strategy.updates.state(model)
        self.summary = [describe(found[name], e, self.kl(name), self.rows[name]) for name, e in estimators.items()]

    def help_with(self, batch: Batch) -> None:
        """Build the networks of the auxiliary losses."""
        if not self.strategy.auxiliary:
            return
        with torch.no_grad():
            found = self.plain_terms(batch)
        for position, auxiliary in enumerate(self.strategy.auxiliary):
            reason = auxiliary.refuse(self, found, batch)
            if isinstance(self.strategy.bound, PyroELBO):
                reason = f"{self.strategy.bound.name} keeps its terms to itself: use bound=ELBO()"
            if any(getattr(e, "gradient", "") == "dreg" for e in self.estimators.values()):
                reason = "Pathwise(gradient='dreg') would reweigh its gradient too: use gradient='stl' or 'plain'"
            if reason:
                raise StructureError(f"{type(auxiliary).__name__}: {reason}")
            helper = auxiliary.state(self.model, found, batch)
            if helper is not None:
                self.helpers[str(position)] = helper.to(self.step.device)

    def forward(self, batch: Batch) -> Tensor:
        asleep = Loss(torch.zeros((), device=self.step.device))
        found = asleep if self.phase == "sleep" else self.strategy.bound.loss(self, batch)
        value = found.value
        for position, auxiliary in enumerate(self.strategy.auxiliary):
            if self.phase not in (None, auxiliary.phase):
                continue
            helper = self.helpers[str(position)] if str(position) in self.helpers else None  # noqa: SIM401
            loss = auxiliary.loss(self, cast(Terms, found.terms), batch, helper)  # what sleeps reads no terms
            found.auxiliary[self.called[position]] = loss.detach()
            value = value + loss
        self.last = replace(found, value=value.detach(), terms=None)
        return value

    def terms(self, batch: Batch) -> Terms:
        """Both sides of every site, drawn as the estimators ask."""
        draws = {
            n: partial(e.draw, now=self.at) for n, e in self.estimators.items() if type(e).draw is not Estimator.draw
        }
        uneven = self.strategy.bound.uneven or max(self.rows.values(), default=1) > 1
        with uneven_rows() if uneven else nullcontext():
            return self._terms(batch, self.strategy.bound.particles, draws, self.weight)

    def plain_terms(self, batch: Batch, particles: int = 1) -> Terms:
        """Both sides of every site by plain draws, whatever the estimators: what a model is judged by."""
        return self._terms(batch, particles, {})

    def _terms(self, batch: Batch, particles: int, draws: dict[str, Any], weight: Weight | None = None) -> Terms:
        return terms(
            self.model,
            self.strategy.updates.refine(self.model, self.guide, weight),
            batch,
            particles=particles,
            plates=self.plates,
            draws=draws,
            marginal=self.marginal,
        )

    def surrogate(self, site: str, log_q: Tensor, signal: Signal, batch: Batch) -> Tensor:
        """The part of a site's gradient that does not come through its draw, as a term of value zero."""
        key = _key(site)
        state = self.state[key] if key in self.state else None  # noqa: SIM401 (a ModuleDict has no get)
        found = self.estimators[site].surrogate(log_q, signal, state, batch)
        assert found is not None
        return found

    def kl(self, site: str) -> KL:
        """Weight and shape of a site's KL."""
        kl = self.strategy.kl
        return kl if isinstance(kl, KL) else kl.get(site, KL())

    def weight(self, site: str) -> float:
        """KL weight of a site at this step."""
        return self.kl(site).weight_at(self._now, self.steps_per_epoch)

    def at(self, value: float | Schedule) -> float:
        """A number or schedule at this step."""
        return at(value, self._now, self.steps_per_epoch)

    def advance(self) -> None:
        """Count one optimiser step."""
        self.step += 1
        self._now += 1

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._now = int(self.step)


def _key(site: str) -> str:
    """A site's name as that of a module, which may not hold dots."""
    return site.replace(".", "_")
