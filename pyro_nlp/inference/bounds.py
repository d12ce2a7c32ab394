"""What is climbed: lower bounds on the likelihood, as differentiable losses (layer: inference).

A bound turns the terms of a batch into a loss per document: minus the bound on the corpus, divided by N.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from pyro_nlp.data.batches import Batch
from pyro_nlp.inference.divergence import KL
from pyro_nlp.inference.dreams import dreamt_log_q
from pyro_nlp.inference.estimators import (
    Estimator,
    Marginalize,
    Pathwise,
    Relax,
    Sampled,
    ScoreFunction,
    Signal,
    Subset,
)
from pyro_nlp.inference.terms import Terms

if TYPE_CHECKING:
    from pyro_nlp.inference.strategy import Objective


@dataclass
class Loss:
    """A loss and what it was made of; all but `value` and `terms` are detached means per document, in nats."""

    value: Tensor
    log_likelihood: Tensor | None = None
    kl: dict[str, Tensor] = field(default_factory=dict)
    auxiliary: dict[str, Tensor] = field(default_factory=dict)
    terms: Terms | None = None


class Bound(ABC):
    """A lower bound on log p(x)."""

    particles: int

    @property
    def uneven(self) -> bool:
        """Whether documents' draws weigh differently in the loss."""
        return False

    def refuse(self, objective: Objective) -> str | None:
        """Why this bound cannot be used with the rest of the strategy, with a cure; or None."""
        return None

    def estimator(self, given: Estimator) -> Estimator:
        """The estimator of a site in place of the strategy's, where the bound has gradients of its own."""
        return given

    @abstractmethod
    def loss(self, objective: Objective, batch: Batch) -> Loss:
        """Minus the bound per document, differentiable."""

    def judge(self, objective: Objective, batch: Batch) -> Loss:
        """What validation compares: this bound by plain draws, without weights and shapes; here the ELBO by one."""
        terms = objective.plain_terms(batch)
        return _report(terms, sum((kl for kl in terms.kl.values()), -terms.log_likelihood).mean())

    @property
    def judged_particles(self) -> int:
        """Draws per document that `judge` takes."""
        return 1


class _Importance(Bound):
    """A bound of several particles is judged by their importance weights: the ELBO of a guide that was trained to cover
    the posterior says little."""

    @property
    def judged_particles(self) -> int:
        return self.particles

    def judge(self, objective: Objective, batch: Batch) -> Loss:
        terms = objective.plain_terms(batch, self.particles)
        return _report(terms, -_log_mean(terms.log_weight).mean())


def _report(terms: Terms, value: Tensor) -> Loss:
    with torch.no_grad():
        kl = {name: kl.mean() for name, kl in terms.kl.items()}
        return Loss(value, terms.log_likelihood.mean(), kl, terms=terms)


def _some(objective: Objective, kind: type[Estimator], **having: object) -> str | None:
    """A site whose estimator is of a kind and has some values."""
    for name, estimator in objective.estimators.items():
        if isinstance(estimator, kind) and all(getattr(estimator, k) == v for k, v in having.items()):
            return name
    return None


@dataclass(frozen=True)
class ELBO(Bound):
    """E_q[log p(x | z)] - KL(q(z | x) || p(z)), the KL in closed form where it has one.

    Args:
        particles: draws of the latents per document and step.
    """

    particles: int = 1

    def refuse(self, objective: Objective) -> str | None:
        if site := _some(objective, Pathwise, gradient="dreg"):
            return f"site '{site}': the doubly reparameterised gradient is one of IWAE: use Pathwise(gradient='stl')"
        site = _some(objective, ScoreFunction, per="word")
        if site and (objective.plates > 1 or max(objective.rows.values(), default=1) > 1):
            return f"site '{site}': per='word' goes without tables of other sites: use ScoreFunction(per='site')"
        return None

    def loss(self, objective: Objective, batch: Batch) -> Loss:
        terms = objective.terms(batch)
        paid = {name: objective.weight(name) for name in terms.sites}
        shaped = {n: objective.kl(n)(site, objective.at) for n, site in terms.sites.items() if paid[n]}
        cost = -terms.log_likelihood
        for name, kl in shaped.items():
            cost = cost + paid[name] * kl
        value = cost.mean()
        for name, site in terms.sites.items():
            if not objective.estimators[name].sampled:
                continue
            # what depends on the draw: all but a KL of its own in closed form, which has its gradient already
            scope = terms.scope
            by_word = getattr(objective.estimators[name], "per", "site") == "word"
            parts = [-value for value in terms.observed.values()]
            for other, kl in shaped.items():
                if other == name and (by_word or site.closed_form is not None):
                    continue
                shape = objective.kl(other).shape
                # an average over the batch is every document's: each draw answers for all of it
                times = len(batch) if getattr(shape, "average", "document") == "batch" else 1
                cells = terms.sites[other].kl_by_cell if shape is None else scope.as_cells(times * kl)
                parts.append(paid[other] * cells)
            signal = sum((scope.beside(part.detach(), site.inner) for part in parts), torch.zeros(()))
            if by_word:
                log_q, cost_of_words, written = site.by_word()
                # of this word and the ones after it
                signal = signal + paid[name] * cost_of_words.flip(0).cumsum(0).flip(0)
            else:
                log_q, written = site.score, None
            told = replace(_leave_one_out(signal, -1 - scope.plates), written=written)
            surrogate = objective.surrogate(name, log_q, told, batch)
            surrogate = scope.expect(surrogate) if written is None else (surrogate * written).sum(0)
            value = value + surrogate.expand_as(cost).mean()
        return _report(terms, value)


def _leave_one_out(loss: Tensor, dim: int) -> Signal:
    """The loss of each particle, and the mean of the others', which stand along `dim`."""
    particles = loss.shape[dim]
    if particles == 1:
        return Signal(loss)
    return Signal(loss, lambda: (loss.sum(dim, keepdim=True) - loss) / (particles - 1))


@dataclass(frozen=True)
class IWAE(_Importance):
    """E[log 1/S sum_s p(x, z_s) / q(z_s | x)], tighter with more particles.      Burda et al. 2016 (arXiv:1509.00519)

    A KL weight w tempers the weights: p(x | z) (p(z) / q(z | x))^w; it is a bound on log p(x) at w = 1 only.

    Args:
        particles: draws of the latents per document, S.
    """

    particles: int = 5

    @property
    def uneven(self) -> bool:
        return self.particles > 1

    def refuse(self, objective: Objective) -> str | None:
        for name, estimator in objective.estimators.items():
            weighted = objective.rows[name] > 1 or isinstance(estimator, Subset)
            if weighted and name not in objective.marginal:
                kind = type(estimator).__name__
                return f"site '{name}': {kind} has no importance weights: give it Marginalize() or ScoreFunction()"
            if isinstance(estimator, ScoreFunction) and estimator.per == "word":
                return f"site '{name}': per='word' is of the ELBO, whose terms can be told apart: use bound=ELBO()"
            if isinstance(estimator, Relax) and estimator.kl == "categorical":
                return (
                    f"site '{name}': Relax(kl='categorical') has no density at the draw, which IWAE weighs: "
                    "give it Relax(kl='relaxed')"
                )
            if objective.kl(name).shape is not None:
                return f"site '{name}' has a KL shape, and IWAE has no KL of a site to shape: use bound=ELBO()"
        if (site := _some(objective, Pathwise, gradient="dreg")) and len(objective.estimators) > len(
            objective.marginal
        ) + 1:
            return f"site '{site}': Pathwise(gradient='dreg') is for a single latent: use gradient='stl' or 'plain'"
        return None

    def loss(self, objective: Objective, batch: Batch) -> Loss:
        terms = objective.terms(batch)
        log_weight = terms.log_likelihood
        for name, site in terms.sites.items():
            weight = objective.weight(name)
            if weight:
                log_weight = log_weight + weight * (site.log_p - site.log_q)
        bound = _log_mean(log_weight)
        value = -bound.mean()
        share = log_weight.detach().softmax(0)
        for name, site in terms.sites.items():
            estimator = objective.estimators[name]
            if isinstance(estimator, Pathwise) and estimator.gradient == "dreg":
                value = value.detach() - _zero((share * log_weight).sum(0).mean())
                if site.value.requires_grad:
                    events, by_cell = len(site.q.event_shape), terms.scope.as_cells(share)
                    site.value.register_hook(lambda g, e=events, s=by_cell: g * s.to(g.dtype)[(..., *[None] * e)])
            elif estimator.sampled:
                loss = -bound.detach().expand_as(log_weight)
                without = None if self.particles == 1 else lambda: -_without(log_weight.detach())
                surrogate = objective.surrogate(name, site.log_q, Signal(loss, without), batch)
                value = value + surrogate.expand_as(log_weight).sum(0).mean()
        return _report(terms, value)


def _zero(value: Tensor) -> Tensor:
    """Zero, with the gradient of `value`."""
    return value - value.detach()


def _log_mean(log_weight: Tensor) -> Tensor:
    return log_weight.logsumexp(0) - math.log(len(log_weight))


def _without(log_weight: Tensor) -> Tensor:
    """The bound with each weight replaced by the geometric mean of the others (Mnih and Rezende 2016, eq. 10)."""
    particles = len(log_weight)
    mean = (log_weight.sum(0) - log_weight) / (particles - 1)
    own = torch.eye(particles, dtype=torch.bool, device=log_weight.device)[..., None]
    replaced = torch.where(own, mean[None], log_weight[:, None])  # [S, the one left out, B]
    return _log_mean(replaced)


@dataclass(frozen=True)
class WakeSleep(_Importance):
    """The model climbs IWAE; the guide learns to give high probability to latents, its own or dreamt ones.

    Reweighted wake-sleep, Bornschein and Bengio 2015 (arXiv:1406.2751): `guide="wake"` weighs q's own draws by
    importance, "sleep" draws latents and documents from the model, "both" is their mean. Plain wake-sleep (Hinton et
    al. 1995) is one particle and "sleep". No estimator is needed: nothing is differentiated through a draw.

    Args:
        particles: draws of the latents per document.
        guide: what the guide learns from.
    """

    particles: int = 5
    guide: Literal["wake", "sleep", "both"] = "wake"

    def __post_init__(self) -> None:
        if self.guide not in ("wake", "sleep", "both"):
            raise ValueError(f"WakeSleep: guide is 'wake', 'sleep' or 'both', not {self.guide!r}")

    @property
    def uneven(self) -> bool:
        return True

    def estimator(self, given: Estimator) -> Estimator:
        return given if isinstance(given, Marginalize) else Sampled()

    def refuse(self, objective: Objective) -> str | None:
        if self.particles == 1 and self.guide != "sleep":
            return "one particle has the weight one whatever it is: use two or more, or guide='sleep'"
        for name in objective.estimators:
            if objective.kl(name) != KL():
                return f"site '{name}' has a KL weight or shape, and WakeSleep has no KL to weigh: use bound=ELBO()"
        return None

    def loss(self, objective: Objective, batch: Batch) -> Loss:
        terms = objective.terms(batch)
        log_p = terms.log_likelihood + sum(site.log_p for site in terms.sites.values())
        log_q = sum((site.log_q for site in terms.sites.values()), torch.zeros_like(log_p))
        log_weight = (log_p - log_q).detach()
        share = log_weight.softmax(0)
        value = -_log_mean(log_weight).mean() - _zero((share * log_p).sum(0).mean())
        parts = []
        if self.guide != "sleep":
            parts.append((share * log_q).sum(0).mean())
        if self.guide != "wake":
            parts.append(dreamt_log_q(objective.model, objective.guide, batch).mean())
        return _report(terms, value - _zero(sum(parts, torch.zeros(())) / len(parts)))
