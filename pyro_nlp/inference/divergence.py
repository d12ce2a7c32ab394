"""How the KL term of a latent counts in training (layer: inference). Evaluation never sees any of it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from pyro_nlp.inference.schedules import Now, Schedule, at
from pyro_nlp.inference.sites import SiteTerms
from pyro_nlp.inference.support import base

if TYPE_CHECKING:
    from pyro_nlp.inference.estimators import Estimator

Average = Literal["document", "batch"]


class Shape(ABC):
    """A function of a site's KL that takes its place in the objective."""

    def refuse(self, site: SiteTerms, estimator: Estimator) -> str | None:
        """Why this shape cannot be used for a site under its estimator, or None."""
        return None

    @abstractmethod
    def __call__(self, site: SiteTerms, now: Now) -> Tensor:
        """Shaped KL, `[particles, documents]`; `now` gives the value of a number or schedule."""


@dataclass(frozen=True)
class FreeBits(Shape):
    """The first nats are free:  sum_d max(KL_d, nats / D)  per dimension, or  max(KL, nats)  per site.

    Kingma et al. 2016 (arXiv:1606.04934) threshold the mean over a minibatch (`average="batch"`). The code of
    Li et al. 2019 (EMNLP) thresholds every document (`average="document"`), replacing what is below by zero;
    its gradient is the one here, its value is lower by the nats given for free.

    Args:
        nats: what the whole site may cost for free.
        per: share the allowance equally between the dimensions, or apply it to the site's total.
        average: threshold each document's KL or the minibatch mean.
    """

    nats: float | Schedule
    per: Literal["dimension", "site"] = "dimension"
    average: Average = "document"

    def __post_init__(self) -> None:
        _refuse_negative(self, self.nats)

    def refuse(self, site: SiteTerms, estimator: Estimator) -> str | None:
        if self.per == "dimension" and site.kl_per_dimension is None:
            return "its KL does not split into dimensions: use FreeBits(per='site')"
        return _refuse_unformed(site, self, estimator)

    def __call__(self, site: SiteTerms, now: Now) -> Tensor:
        floor = now(self.nats)
        if self.per == "dimension":
            kl = site.kl_per_dimension
            assert kl is not None
            floor = floor / kl.shape[-1]
        else:
            kl = site.kl[..., None]
        return _averaged(kl, self.average).clamp(min=floor).sum(-1)


@dataclass(frozen=True)
class Capacity(Shape):
    """|KL - nats|: the KL is drawn to a target from both sides.        Burgess et al. 2018 (arXiv:1804.03599), eq. 8

    The KL weight is their gamma; a schedule of nats raises the capacity while training goes on.

    Args:
        nats: the target, C.
        average: hold each document to it or the minibatch mean, as they do.
    """

    nats: float | Schedule
    average: Average = "batch"

    def __post_init__(self) -> None:
        _refuse_negative(self, self.nats)

    def refuse(self, site: SiteTerms, estimator: Estimator) -> str | None:
        return _refuse_unformed(site, self, estimator)

    def __call__(self, site: SiteTerms, now: Now) -> Tensor:
        return (_averaged(site.kl[..., None], self.average)[..., 0] - now(self.nats)).abs()


def _averaged(kl: Tensor, average: Average) -> Tensor:
    """`[particles, documents, D]`, each document's own or the minibatch mean in the place of all."""
    return kl if average == "document" else kl.mean(1, keepdim=True).expand_as(kl)


def _refuse_negative(shape: Shape, nats: float | Schedule) -> None:
    if not isinstance(nats, Schedule) and not 0 <= nats < math.inf:
        raise ValueError(f"{type(shape).__name__}: nats is a KL, a number from 0, not {nats}")


def _refuse_unformed(site: SiteTerms, shape: Shape, estimator: Estimator) -> str | None:
    """A threshold wants a KL whose gradient does not wait for the estimator of the site."""
    if site.closed_form is None and (estimator.sampled or not site.q.has_rsample):
        kind = type(base(site.q)).__name__
        return (
            f"{type(shape).__name__} wants a KL in closed form or a reparameterised draw, and this {kind} under "
            f"{type(estimator).__name__} has neither: "
            "leave the shape out, kl=KL(weight=...)"
        )
    return None


@dataclass(frozen=True)
class KL:
    """weight(step) * shape(KL): annealing, beta and free bits of one site.

    Args:
        weight: a number (beta) or a schedule (annealing); 0 is allowed.
        shape: free bits and the like; None leaves the KL as it is.
    """

    weight: float | Schedule = 1.0
    shape: Shape | None = None

    def weight_at(self, step: int, steps_per_epoch: int | None) -> float:
        """The weight at a step."""
        return at(self.weight, step, steps_per_epoch)

    def __call__(self, site: SiteTerms, now: Now) -> Tensor:
        return site.kl if self.shape is None else self.shape(site, now)
