"""How the KL term of a latent counts in training (layer: inference). Evaluation never sees any of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from pyro_nlp.inference.schedules import Schedule, at
from pyro_nlp.inference.sites import SiteTerms


class Shape(ABC):
    """A function of a site's KL that takes its place in the objective."""

    def refuse(self, site: SiteTerms) -> str | None:
        """Why this shape cannot be used for the site, or None."""
        return None

    @abstractmethod
    def __call__(self, site: SiteTerms) -> Tensor:
        """Shaped KL, `[particles, documents]`."""


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

    nats: float
    per: Literal["dimension", "site"] = "dimension"
    average: Literal["document", "batch"] = "document"

    def refuse(self, site: SiteTerms) -> str | None:
        if self.per == "dimension" and site.kl_per_dimension is None:
            return "its KL does not split into dimensions: use FreeBits(per='site')"
        return None

    def __call__(self, site: SiteTerms) -> Tensor:
        if self.per == "dimension":
            kl = site.kl_per_dimension
            assert kl is not None
            floor = self.nats / kl.shape[-1]
        else:
            kl, floor = site.kl[..., None], self.nats
        if self.average == "batch":
            documents = kl.shape[1]
            kl = kl.mean(1, keepdim=True).expand(-1, documents, -1)
        return kl.clamp(min=floor).sum(-1)


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

    def __call__(self, site: SiteTerms) -> Tensor:
        return site.kl if self.shape is None else self.shape(site)
