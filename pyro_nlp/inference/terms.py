"""The one objective's raw material: what a model and a guide say of each document (layer: inference).

`terms` runs the guide, replays the model against it and keeps, per particle and document, the log-likelihood and for
every latent site the log-probabilities and the KL. Bounds combine them, `KL` weighs them, evaluation reports them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import Independent, TorchDistribution
from pyro.distributions.util import scale_and_mask
from pyro.nn import PyroModule
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_nlp.data.batches import Batch

Site = Any
"""A node of a Pyro trace."""


class StructureError(ValueError):
    """A model and a guide that do not belong together, or a strategy that does not fit them."""


@dataclass(frozen=True)
class Scope:
    """The shape of one evaluation of a model: how batch dimensions map to particles and documents.

    Attributes:
        particles: draws per document, S; they sit at dim -1 - plates.
        documents: documents in the batch, B, at dim -1.
        population: documents in the corpus, N.
        plates: the model's own plate dimensions, documents included.
    """

    particles: int
    documents: int
    population: int
    plates: int

    def log_prob(self, site: Site) -> Tensor:
        """Masked, unscaled log-probability of a site, `[particles, documents]` (or 1 in place of either)."""
        return self.per_document(site["fn"].log_prob(site["value"]), site)

    def per_document(self, value: Tensor, site: Site) -> Tensor:
        """Reduce a tensor of the site's batch shape to `[particles, documents]`.

        The plate's scale N/B is left out and any other scale is kept. A site outside the documents plate belongs to
        the corpus: every document carries 1/N of it.
        """
        value = scale_and_mask(value, self.factor(site), site["mask"])
        if value.dim() < self.plates + 1:
            value = value[(None,) * (self.plates + 1 - value.dim())]
        if self.plates > 1:
            value = value.sum(tuple(range(-self.plates, -1)))
        return value if _in_documents(site) else value.sum(-1, keepdim=True) / self.population

    def factor(self, site: Site) -> float | Tensor:
        """The site's scale without the documents plate's N/B."""
        factor = site["scale"]
        if _in_documents(site):
            factor = factor * (self.documents / self.population)
        return factor if isinstance(factor, Tensor) or abs(factor - 1) > 1e-6 else 1.0


class SiteTerms:
    """One latent site, seen from the guide (q) and from the model (p). Everything is computed when asked for."""

    def __init__(self, name: str, guide: Site, model: Site, scope: Scope) -> None:
        self.name, self.guide, self.model, self.scope = name, guide, model, scope

    @property
    def q(self) -> TorchDistribution:
        """The guide's distribution."""
        return self.guide["fn"]

    @property
    def p(self) -> TorchDistribution:
        """The model's distribution."""
        return self.model["fn"]

    @property
    def value(self) -> Tensor:
        """What was drawn, `[particles, documents, *event]`."""
        return self.guide["value"]

    @cached_property
    def log_q(self) -> Tensor:
        """log q(z | x), `[particles, documents]`."""
        return self.scope.log_prob(self.guide)

    @cached_property
    def log_p(self) -> Tensor:
        """log p(z), `[particles, documents]`."""
        return self.scope.log_prob(self.model)

    @cached_property
    def kl_per_dimension(self) -> Tensor | None:
        """Analytic KL by dimension, `[particles, documents, D]`; None where the site does not factorise."""
        q, p = self.q, self.p
        vectors = isinstance(q, Independent) and isinstance(p, Independent) and len(q.event_shape) == 1
        if not vectors or not self._alike or self.guide["mask"] is not None:
            return None
        if self.scope.plates > 1 or not _in_documents(self.guide):
            return None
        try:
            kl = kl_divergence(q.base_dist, p.base_dist)
        except NotImplementedError:
            return None
        return kl.expand(self.scope.particles, self.scope.documents, -1) * self.scope.factor(self.guide)

    @cached_property
    def _alike(self) -> bool:
        """Whether both sides have the same scale and mask; where not, the KL has no closed form."""
        return all(_equal(self.guide[what], self.model[what]) for what in ("scale", "mask"))

    @cached_property
    def _closed_form(self) -> Tensor | None:
        if not self._alike:
            return None
        try:
            return self.scope.per_document(kl_divergence(self.q, self.p), self.guide)
        except NotImplementedError:
            return None

    @cached_property
    def kl(self) -> Tensor:
        """KL(q || p) in closed form where there is one, else log q - log p at the draw, `[particles, documents]`."""
        closed = self._closed_form
        return self.log_q - self.log_p if closed is None else closed


@dataclass(frozen=True)
class Terms:
    """What a model and a guide say of a batch.

    Attributes:
        observed: log-probability of each observed site, `[particles, documents]`.
        sites: the latent sites by name.
    """

    observed: dict[str, Tensor]
    sites: dict[str, SiteTerms]
    scope: Scope

    def _sum(self, values: Iterable[Tensor]) -> Tensor:
        return sum(values, torch.zeros(())).expand(self.scope.particles, self.scope.documents)

    @cached_property
    def log_likelihood(self) -> Tensor:
        """log p(x | z), `[particles, documents]`."""
        return self._sum(self.observed.values())

    @property
    def kl(self) -> dict[str, Tensor]:
        """KL of every latent site, `[particles, documents]`."""
        return {name: self._sum([site.kl]) for name, site in self.sites.items()}

    @cached_property
    def log_weight(self) -> Tensor:
        """log p(x, z) - log q(z | x), `[particles, documents]`."""
        return self._sum([self.log_likelihood, *(s.log_p - s.log_q for s in self.sites.values())])


def terms(
    model: Callable[[Batch], Any],
    guide: Callable[[Batch], Any] | None,
    batch: Batch,
    *,
    particles: int = 1,
    plates: int | None = None,
    given: dict[str, Tensor] | None = None,
) -> Terms:
    """Run the guide, replay the model, and collect both sides of every site.

    Args:
        model: called with the batch; `model.plates` says how many plate dimensions it uses.
        guide: called with the batch; None for a model without latents.
        batch: the documents.
        particles: draws per document, at dim -1 - plates.
        plates: in place of `model.plates`.
        given: latent values `[particles, documents, *event]` to use in place of the guide's draws.

    Raises:
        StructureError: the guide and the model do not name the same latents.
    """
    plates = getattr(model, "plates", 1) if plates is None else plates
    scope = Scope(particles, len(batch), batch.population, plates)
    with pyro.plate("particles", particles, dim=-1 - plates):
        with _Given(given or {}):
            guide_trace = poutine.trace(_plain(guide or _nothing)).get_trace(batch)
        model_trace = poutine.trace(poutine.replay(_plain(model), trace=guide_trace)).get_trace(batch)
    return collect(guide_trace, model_trace, scope)


def _plain(module: Callable[[Batch], Any]) -> Callable[[Batch], Any]:
    """`forward` itself, where nothing needs a PyroModule's context: it would announce every parameter at every step."""
    if not isinstance(module, PyroModule) or module._forward_hooks or module._forward_pre_hooks:
        return module
    bayesian = any(m._pyro_samples or m._pyro_params for m in module.modules() if isinstance(m, PyroModule))
    return module if bayesian else module.forward


class _Given(Messenger):
    """Fixes latent values without marking them observed."""

    def __init__(self, values: dict[str, Tensor]) -> None:
        super().__init__()
        self.values = values

    def _pyro_sample(self, message: Any) -> None:
        if message["name"] in self.values:
            message["value"], message["done"] = self.values[message["name"]], True


def _nothing(batch: Batch) -> None:
    """The guide of a model without latents."""


def collect(guide_trace: Trace, model_trace: Trace, scope: Scope) -> Terms:
    """Pair the sites of two traces."""
    latent = {name: site for name, site in guide_trace.nodes.items() if _is_latent(site)}
    sites = {}
    for name, site in latent.items():
        partner = model_trace.nodes.get(name)
        if partner is None or partner["type"] != "sample":
            raise StructureError(
                f"site '{name}' is in the guide and not in the model; the model has "
                f"{_names(model_trace)}. Rename or drop it."
            )
        if partner["is_observed"]:
            raise StructureError(f"site '{name}' is observed in the model: drop it from the guide.")
        sites[name] = SiteTerms(name, site, partner, scope)
    observed = {}
    for name, site in model_trace.nodes.items():
        if _is_latent(site) and name not in latent:
            raise StructureError(
                f"latent site '{name}' of the model has no counterpart in the guide, which has "
                f"{_names(guide_trace)}. Add pyro.sample('{name}', ...) to the guide."
            )
        if site["type"] == "sample" and site["is_observed"] and not _is_subsample(site):
            observed[name] = scope.log_prob(site)
    return Terms(observed, sites, scope)


def _equal(first: object, second: object) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first is second or torch.equal(first, second)
    return not isinstance(first, Tensor) and not isinstance(second, Tensor) and first == second


def _in_documents(site: Site) -> bool:
    return any(frame.name == "documents" for frame in site["cond_indep_stack"])


def _is_subsample(site: Site) -> bool:
    return type(site["fn"]).__name__ == "_Subsample"


def _is_latent(site: Site) -> bool:
    return site["type"] == "sample" and not site["is_observed"] and not _is_subsample(site)


def _names(trace: Trace) -> str:
    names = [f"'{name}'" for name, site in trace.nodes.items() if site["type"] == "sample" and not _is_subsample(site)]
    return ", ".join(names) or "no sample site"
