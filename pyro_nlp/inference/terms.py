"""The one objective's raw material: what a model and a guide say of each document (layer: inference).

`terms` runs the guide, replays the model against it and keeps, per particle and document, the log-likelihood and for
every latent site the log-probabilities and the KL. Estimators may draw a site as a table of weighted values, and sites
may be summed out in the model. Bounds combine the terms, `KL` weighs them, evaluation reports them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.nn import PyroModule
from pyro.poutine import Trace
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_nlp.data.batches import Batch
from pyro_nlp.inference.drawing import Draw, Draws
from pyro_nlp.inference.sites import (
    Scope,
    Site,
    SiteTerms,
    StructureError,
    Table,
    in_documents,
    is_deterministic,
    is_latent,
    is_random,
    is_subsample,
)
from pyro_nlp.inference.support import base, categories, constant

__all__ = [
    "Scope",
    "Site",
    "SiteTerms",
    "StructureError",
    "Terms",
    "collect",
    "not_finite",
    "terms",
    "trace_guide",
    "trace_model",
]


@dataclass(frozen=True)
class Terms:
    """What a model and a guide say of a batch.

    Attributes:
        observed: log-probability of each observed site by cell, `[*tables, particles, *inner, documents]`; where sites
            are summed out, that of all the observations that depend on them is one entry.
        sites: the latent sites by name.
        likelihoods: the distribution of each observed site, as the model has it.
        deterministic: what the model computes from its latents and names, by `pyro.deterministic`; of no weight.
        joint: log p(x, c) of the sites c that were summed out, before they were, by cell, and their tables.
    """

    observed: dict[str, Tensor]
    sites: dict[str, SiteTerms]
    scope: Scope
    joint: tuple[Tensor, tuple[Table, ...]] | None = None
    likelihoods: dict[str, Any] = field(default_factory=dict)
    deterministic: dict[str, Site] = field(default_factory=dict)

    def _sum(self, values: Iterable[Tensor]) -> Tensor:
        return sum(values, torch.zeros(())).expand(self.scope.particles, self.scope.documents)

    @property
    def log_likelihood_by_row(self) -> Tensor:
        """log p(x | z) before tables are summed out, `[*tables, particles, documents]`."""
        return sum((self.scope.sum_cells(value) for value in self.observed.values()), torch.zeros(1, 1))

    @cached_property
    def log_likelihood(self) -> Tensor:
        """log p(x | z), `[particles, documents]`."""
        return self._sum([self.scope.expect(value) for value in self.observed.values()])

    @property
    def kl(self) -> dict[str, Tensor]:
        """KL of every latent site, `[particles, documents]`."""
        return {name: self._sum([site.kl]) for name, site in self.sites.items()}

    @cached_property
    def log_weight(self) -> Tensor:
        """log p(x, z) - log q(z | x), `[particles, documents]`."""
        return self._sum([self.log_likelihood, *(s.log_p - s.log_q for s in self.sites.values())])

    def posterior(self, site: str) -> Tensor:
        """p(c | x, other latents) of a site that was summed out, `[particles, *own plates, documents, K]`."""
        assert self.joint is not None, "no site was summed out"
        joint, tables = self.joint
        own = next(table for table in tables if table.site == site)
        others = [table.dim for table in tables if table is not own]
        share = joint.logsumexp(others, keepdim=True) if others else joint
        posterior = share.softmax(own.dim).movedim(own.dim, -1)
        posterior = posterior[(0,) * (posterior.dim() - 2 - self.scope.plates)]
        return posterior.squeeze(tuple(dim - 1 for dim in range(-self.scope.plates, -1) if dim not in own.inner))


def terms(
    model: Callable[[Batch], Any],
    guide: Callable[[Batch], Any] | None,
    batch: Batch,
    *,
    particles: int = 1,
    plates: int | None = None,
    given: dict[str, Tensor] | None = None,
    draws: Mapping[str, Draw] | None = None,
    marginal: Collection[str] = (),
) -> Terms:
    """Run the guide, replay the model, and collect both sides of every site.

    Args:
        model: called with the batch; `model.plates` says how many plate dimensions it uses.
        guide: called with the batch; None for a model without latents.
        batch: the documents.
        particles: draws per document, at dim -1 - plates.
        plates: in place of `model.plates`.
        given: latent values `[particles, documents, *event]` to use in place of the guide's draws.
        draws: by site, what to draw in place of a sample of the guide's distribution.
        marginal: discrete sites to sum out in the model, whatever the guide says of them.

    Raises:
        StructureError: the guide and the model do not name the same latents.
    """
    plates = getattr(model, "plates", 1) if plates is None else plates
    scope = Scope(particles, len(batch), batch.population, plates)
    drawing = Draws(draws or {}, marginal, plates) if draws or marginal else None
    try:
        with drawing or nullcontext():
            guide_trace = trace_guide(guide, batch, scope, given or {}, marginal)
            if drawing:
                drawing.in_model = True
            model_trace = trace_model(model, batch, scope, guide_trace)
    except StructureError as error:  # to which Pyro has added the shapes of all sites
        raise StructureError(str(error).partition("\n")[0]) from None
    tables = drawing.tables if drawing else []
    scope = replace(scope, tables=tuple(t for t in tables if t.weight is not None))
    return collect(guide_trace, model_trace, scope, tuple(t for t in tables if t.weight is None))


def trace_guide(
    guide: Callable[[Batch], Any] | None,
    batch: Batch,
    scope: Scope,
    given: dict[str, Tensor] | None = None,
    without: Collection[str] = (),
) -> Trace:
    """Run a guide, and forget the sites named in `without`.

    One that makes its answer for a batch with the model's help, as a refined guide does, is asked for it first.
    """
    guide = getattr(guide, "at", lambda _: guide)(batch)
    with pyro.plate("particles", scope.particles, dim=-1 - scope.plates), _Given(given or {}):
        trace = poutine.trace(_plain(guide or _nothing)).get_trace(batch)
    for name in without:
        if name in trace:
            trace.remove_node(name)
    return trace


def trace_model(model: Callable[[Batch], Any], batch: Batch, scope: Scope, guide_trace: Trace) -> Trace:
    """Run a model on the guide's values."""
    with pyro.plate("particles", scope.particles, dim=-1 - scope.plates):
        return poutine.trace(poutine.replay(_plain(model), trace=guide_trace)).get_trace(batch)


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


class _Look(Messenger):
    """Finds the first site whose distribution has a parameter that is not finite, before anything is drawn from it."""

    found: str | None = None

    def _pyro_sample(self, message: Any) -> None:
        if self.found or is_subsample(message):
            return
        fn = base(message["fn"])
        for name in fn.arg_constraints:
            value = getattr(fn, name, None)
            # a logit of minus infinity is a probability of zero
            if isinstance(value, Tensor) and (value.isnan().any() or (name != "logits" and value.isinf().any())):
                self.found = f"the distribution of '{message['name']}' has parameters that are not finite"
                return


def not_finite(model: Callable[[Batch], Any], guide: Callable[[Batch], Any] | None, batch: Batch) -> str | None:
    """What is wrong with the first distribution of a guide or model that cannot be drawn from, naming the site."""
    scope = Scope(1, len(batch), batch.population, getattr(model, "plates", 1))
    look = _Look()
    # what such a distribution makes of a draw is PyTorch's own error, or none
    with torch.no_grad(), pyro.validation_enabled(False), look, suppress(RuntimeError, ValueError):
        trace_model(model, batch, scope, trace_guide(guide, batch, scope))
    return look.found


def collect(guide_trace: Trace, model_trace: Trace, scope: Scope, summed: tuple[Table, ...] = ()) -> Terms:
    """Pair the sites of two traces, and sum out those of the model that have a table of their own."""
    latent = {name: site for name, site in guide_trace.nodes.items() if is_latent(site)}
    sites = {}
    for name, site in latent.items():
        partner = model_trace.nodes.get(name)
        if partner is None or partner["type"] != "sample":
            raise StructureError(
                f"site '{name}' is in the guide and not in the model; the model has "
                f"{names(model_trace)}. Rename or drop it."
            )
        if is_deterministic(partner):
            raise StructureError(
                f"site '{name}' is drawn by the guide and computed by the model, which has {names(model_trace)}. "
                "Rename or drop it."
            )
        if partner["is_observed"]:
            raise StructureError(f"site '{name}' is observed in the model: drop it from the guide.")
        sites[name] = SiteTerms(name, site, partner, scope, _entangled(name, latent, model_trace))
    marginal = {table.site for table in summed}
    observed, likelihoods = {}, {}
    nodes: dict[str, Site] = dict(model_trace.nodes)
    for name, site in nodes.items():
        if is_latent(site) and name not in latent and name not in marginal:
            finite = categories(site["fn"]) is not None
            raise StructureError(
                f"latent site '{name}' of the model has no counterpart in the guide, which has "
                f"{names(guide_trace)}. Add pyro.sample('{name}', ...) to the guide"
                + (f", or sum it out: Strategy(sites={{'{name}': Marginalize()}})." if finite else ".")
            )
        if is_random(site) and site["is_observed"]:
            observed[name] = scope.by_cell(site["fn"].log_prob(site["value"]), site)
            likelihoods[name] = site["fn"]
    computed = {name: site for name, site in nodes.items() if is_deterministic(site)}
    found = Terms(observed, sites, scope, likelihoods=likelihoods, deterministic=computed)
    return _sum_out(found, model_trace, summed) if summed else found


def _entangled(name: str, latent: Iterable[str], model_trace: Trace) -> bool:
    """Whether the guide draws after this site one that the model draws before it: q(a) q(b | a) and p(b) p(a | b).

    Then p(a | b) is asked at a b that depends on a, and E_q[log q(a) - log p(a | b)] is no mean of closed forms. What
    the sites really depend on is not known, so that their order decides, as in Pyro's TraceMeanField_ELBO; but a p that
    is the same for all documents and draws, where there are several, depends on nothing.
    """
    place = {node: i for i, node in enumerate(model_trace.nodes)}
    guide = list(latent)
    later = [other for other in guide[guide.index(name) + 1 :] if place.get(other, len(place)) < place[name]]
    apart = all(in_documents(model_trace.nodes[other]) for other in later)  # a draw for the corpus is the same for all
    p: Any = model_trace.nodes[name]["fn"]
    return bool(later) and not (apart and p.batch_shape.numel() > 1 and constant(p))


def _sum_out(found: Terms, model_trace: Trace, summed: tuple[Table, ...]) -> Terms:
    """log sum_c p(c) p(x | c) in the place of the observations that depend on the sites c."""
    for name, site in found.sites.items():
        depends = next((t.site for t in summed if _depends(site.log_p_by_cell, t)), None)
        if depends:
            raise StructureError(
                f"site '{name}' of the model depends on '{depends}', which is summed out, so that its KL has no terms "
                f"of its own: give '{depends}' another estimator, as Enumerate()"
            )
    scope, inner = found.scope, summed[0].inner
    other = next((t.site for t in summed if t.inner != inner), None)
    if other:
        raise StructureError(
            f"sites '{summed[0].site}' and '{other}' stand in different plates and are both summed out: give one of "
            "them another estimator, as Enumerate()"
        )
    joint, whole = torch.zeros(1, 1), scope.factor(model_trace.nodes[summed[0].site])
    for table in summed:
        node: Any = model_trace.nodes[table.site]
        # where it is masked, as in padding, nothing depends on it and its probabilities sum to one
        log_p = scope.by_cell(node["fn"].log_prob(node["value"]), {**node, "mask": None}) / whole
        labels = node["infer"]["labels"]
        if labels is not None:
            excluded = _excluded(labels, log_p.shape[table.dim])
            log_p = log_p + excluded.view(-1, *[1] * (-table.dim - 1 - labels.dim()), *labels.shape)
        joint = joint + log_p
    dependent = [name for name, value in found.observed.items() if any(_depends(value, t) for t in summed)]
    for name in dependent:
        value = found.observed[name]
        if any(value.shape[dim] == 1 and joint.shape[dim] > 1 for dim in inner):
            raise StructureError(
                f"site '{name}' stands outside the plate of '{summed[0].site}' and depends on it, so that its values "
                "cannot be summed out one by one: sample it, with ScoreFunction()"
            )
        inside = next((t.site for t in scope.tables if set(t.inner) - set(inner) and _depends(value, t)), None)
        if inside:
            raise StructureError(
                f"sites '{summed[0].site}' and '{inside}' stand in different plates, and the first is summed out where "
                f"the second is a table of values: give '{summed[0].site}' Enumerate(), or sample '{inside}'"
            )
        joint = joint + scope.beside(value, inner) / whole
    evidence = whole * joint.logsumexp([t.dim for t in summed], keepdim=True)
    rest = {name: value for name, value in found.observed.items() if name not in dependent}
    observed = ({" and ".join(dependent): evidence} if dependent else {}) | rest
    return replace(found, observed=observed, joint=(joint, summed))


def _excluded(labels: Tensor, classes: int) -> Tensor:
    """0 for every class that a document may have, -1e30 for the others, `[classes, ..., documents]`."""
    other = labels != torch.arange(classes, device=labels.device).view(-1, *[1] * labels.dim())
    return torch.where(other & (labels >= 0), -1e30, 0.0)


def _depends(value: Tensor, table: Table) -> bool:
    return value.dim() >= -table.dim and value.shape[table.dim] > 1


def names(trace: Trace) -> str:
    """The sites of a trace, for an error."""
    found = [f"'{name}'" for name, site in trace.nodes.items() if is_random(site)]
    return ", ".join(found) or "no sample site"
