"""Latents and observations of a batch, drawn from guide, prior and model (layer: evaluation).

Everything is per document: `[S, B, ...]`, S draws of B documents, whatever plates a site has of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.poutine import Trace
from torch import Tensor, nn

from pyro_nlp.data.batches import Batch, PairBatch, TextBatch
from pyro_nlp.data.splits import Split
from pyro_nlp.distributions import WordSequence
from pyro_nlp.inference.sites import Scope, Site, in_documents, is_deterministic, is_latent, is_random, own_plates
from pyro_nlp.inference.support import support
from pyro_nlp.inference.terms import Terms, trace_guide, trace_model


@dataclass(frozen=True)
class Drawn:
    """Latents of a batch, what the model computes from them, and what belongs to them: `[S, B, *event]` and `[S, B]`,
    by name."""

    latents: dict[str, Tensor]
    log_likelihood: dict[str, Tensor]
    stats: dict[str, Tensor]

    @classmethod
    def joined(cls, parts: Sequence[Drawn]) -> Drawn:
        """One after the other along S."""

        def cat(values: list[dict[str, Tensor]]) -> dict[str, Tensor]:
            return {name: torch.cat([v[name] for v in values]) for name in values[0]}

        return cls(
            cat([p.latents for p in parts]), cat([p.log_likelihood for p in parts]), cat([p.stats for p in parts])
        )


def require_documents(split: Split) -> None:
    """Raise ValueError if there is nothing to draw for."""
    if len(split) == 0:
        raise ValueError("the split has no documents")


def portions(total: int, size: int) -> list[int]:
    """`total` in parts of `size` and a rest."""
    return [min(size, total - start) for start in range(0, total, size)]


def scope_of(model: nn.Module, batch: Batch, draws: int) -> Scope:
    """One evaluation of a model with so many draws per document."""
    return Scope(draws, len(batch), batch.population, getattr(model, "plates", 1))


def prior_trace(model: nn.Module, batch: Batch, draws: int = 1) -> Trace:
    """A model run with its latents drawn from their prior."""
    scope = scope_of(model, batch, draws)
    return trace_model(model, batch, scope, trace_guide(None, batch, scope))


def sample_sites(trace: Trace) -> dict[str, Site]:
    """Latent and observed sites by name."""
    return {n: s for n, s in trace.nodes.items() if is_random(s)}


def computed_sites(trace: Trace) -> dict[str, Site]:
    """Deterministic sites of documents by name."""
    return {n: s for n, s in trace.nodes.items() if is_deterministic(s) and in_documents(s)}


def by_document(sites: Mapping[str, Site], scope: Scope) -> dict[str, Tensor]:
    """Values of sites in the plate of documents: `[S, *plates, B, *event]` as `[S, B, *own plates, *event]`."""
    return {name: _by_document(site, scope) for name, site in sites.items() if in_documents(site)}


def _by_document(site: Site, scope: Scope) -> Tensor:
    value: Tensor = site["value"]
    missing = scope.plates + 1 + site["fn"].event_dim - value.dim()
    value = value[(None,) * missing]
    shape = list(value.shape)
    shape[0], shape[scope.plates] = scope.particles, scope.documents
    value = value.expand(shape).movedim(scope.plates, 1)
    return value.squeeze(_others(site, scope))


def _others(site: Site, scope: Scope) -> tuple[int, ...]:
    """Where, in `[S, B, *plates]`, plates stand that a site is not in."""
    own = own_plates(site, scope.plates)
    return tuple(2 + scope.plates + dim for dim in range(-scope.plates, -1) if dim not in own)


def from_guide(found: Terms, prior: Trace) -> Drawn:
    """The draws in `found`; sites that were summed out are drawn given the others. `prior` knows their support."""
    scope = found.scope
    shape = (scope.particles, scope.documents)
    latents = by_document({name: site.guide for name, site in found.sites.items()}, scope)
    latents |= _draw_summed(found, prior)
    # of a site that was summed out there is a value for every configuration, and none to go with the draw
    latents |= by_document({n: s for n, s in found.deterministic.items() if found.joint is None}, scope)
    observed = {name: scope.expect(value).expand(shape) for name, value in found.observed.items()}
    log_q = sum((site.log_q for site in found.sites.values()), torch.zeros(1, 1)).expand(shape)
    return Drawn(latents, observed, {"log_p": found.log_weight + log_q, "log_q": log_q})


def _draw_summed(found: Terms, prior: Trace) -> dict[str, Tensor]:
    """Sites that were summed out, drawn together from their posterior given the other latents."""
    if found.joint is None:
        return {}
    joint, tables = found.joint
    scope, inner = found.scope, tables[0].inner
    joint = joint.squeeze(tuple(dim for dim in range(-scope.plates, -1) if dim not in inner))
    rows, cells = joint.shape[: -2 - len(inner)], joint.shape[-1 - len(inner) : -1]
    joint = joint.expand(*rows, scope.particles, *cells, scope.documents).movedim(-1, -1 - len(inner))
    index = torch.distributions.Categorical(logits=joint.flatten(0, len(rows) - 1).movedim(0, -1)).sample()
    drawn = {}
    for table, row in zip(sorted(tables, key=lambda t: t.dim), torch.unravel_index(index, rows), strict=True):
        fn: Any = prior.nodes[table.site]["fn"]
        drawn[table.site] = support(fn)[row]
    return drawn


def from_values(model: nn.Module, batch: Batch, latents: dict[str, Tensor], prior: Trace) -> Drawn:
    """What a model says of latents that are given, `[S, B, *own plates, *event]`."""
    scope = scope_of(model, batch, len(next(iter(latents.values()))))
    log_p: Tensor = torch.zeros(1, 1)
    observed = {}
    trace = trace_model(model, batch, scope, _holding(latents, prior, scope))
    for name, site in sample_sites(trace).items():
        value = scope.log_prob(site).expand(scope.particles, scope.documents)
        log_p = log_p + value
        if site["is_observed"]:
            observed[name] = value
    return Drawn(latents | by_document(computed_sites(trace), scope), observed, {"log_p": log_p})


def _holding(latents: Mapping[str, Tensor], prior: Trace, scope: Scope) -> Trace:
    """A trace to replay a model against: these latents and nothing else."""
    trace = Trace()
    for name, value in latents.items():
        for place in _others(prior.nodes[name], scope):
            value = value.unsqueeze(place)
        value = value.movedim(1, scope.plates)
        trace.add_node(name, name=name, type="sample", value=value, is_observed=False, infer={})
    return trace


def prior_latents(model: nn.Module, batch: Batch, draws: int, chunk: int) -> dict[str, Tensor]:
    """Latents drawn from their prior, and what the model computes from them, `[draws, B, *event]`; at most `chunk`
    documents x draws at once."""
    parts: list[dict[str, Tensor]] = []
    for count in portions(draws, max(1, chunk // len(batch))):
        trace = prior_trace(model, batch, count)
        latent = {name: site for name, site in sample_sites(trace).items() if is_latent(site)}
        latent |= computed_sites(trace)
        parts.append(by_document(latent, scope_of(model, batch, count)))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def predictions(model: Any, batch: Batch, latents: dict[str, Tensor], prior: Trace) -> dict[str, Tensor]:
    """Observations drawn given latents `[S, B, ...]`; none of text that the model cannot write.

    Unconditioning a decoder that reads the true words would draw each word given the true ones before it. What is not
    drawn, and computed by the model, is computed again.
    """
    known = sample_sites(prior)
    latents = {name: value for name, value in latents.items() if name in known}
    count = len(next(iter(latents.values())))
    observed = [n for n, site in known.items() if not is_latent(site) and in_documents(site)]
    if isinstance(batch, TextBatch):
        if not hasattr(model, "generate") or len(observed) != 1:
            return {}
        flat = {name: value.flatten(0, 1) for name, value in latents.items()}
        written: Tensor = model.generate(flat, method="ancestral")
        return {observed[0]: written.unflatten(0, (count, len(batch)))}
    if isinstance(batch, PairBatch) and any(isinstance(known[name]["fn"], WordSequence) for name in observed):
        return {}
    scope = scope_of(model, batch, count)
    with pyro.plate("particles", count, dim=-1 - scope.plates):
        free = poutine.replay(poutine.uncondition(model), trace=_holding(latents, prior, scope))
        sites = sample_sites(poutine.trace(free).get_trace(batch))
    return by_document({name: sites[name] for name in observed}, scope)
