"""How the gradient of an expectation over one latent reaches the guide (layer: inference).

An estimator is a frozen value that a `Strategy` gives to a site. It may refuse the site, may change how the
site is drawn in the guide, and may add a surrogate to the loss whose value is zero and whose gradient is the
missing part.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pyro_nlp.inference.terms import SiteTerms


class Estimator(ABC):
    """What to do with one latent site."""

    @abstractmethod
    def refuse(self, site: SiteTerms) -> str | None:
        """Why this estimator cannot be used for the site, with a cure; or None."""

    def draw(self, message: Any) -> None:  # noqa: B027 (most estimators change nothing)
        """Change how the site is drawn: called with the Pyro message before the guide samples it."""

    def surrogate(self, site: SiteTerms, signal: Tensor) -> Tensor | None:
        """What to add to the loss, `[particles, documents]`.

        Args:
            site: both sides of the site.
            signal: the loss of each particle and document, detached.
        """
        return None

    @property
    def summary(self) -> str:
        """A phrase for the report of `compile`."""
        return (type(self).__doc__ or "").strip().splitlines()[0].rstrip(".")


@dataclass(frozen=True)
class Pathwise(Estimator):
    """Gradient through the sample: z = mu(x) + sigma(x) eps, the reparameterisation trick.

    For sites whose distribution has `rsample`. Kingma and Welling 2014 (arXiv:1312.6114, section 2.4).
    """

    def refuse(self, site: SiteTerms) -> str | None:
        if site.q.has_rsample:
            return None
        return f"{type(site.q).__name__} cannot be reparameterised, which Pathwise needs"
