"""What `Strategy.compile` finds out about a model and a guide, and what it refuses (layer: inference)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, get_type_hints

import torch
from pyro.distributions import TorchDistribution
from pyro.poutine import Trace
from torch import Tensor, nn

from pyro_nlp.data.batches import Batch, CountBatch, PairBatch, TextBatch, VectorBatch
from pyro_nlp.distributions import Written
from pyro_nlp.inference.baselines import LeaveOneOut
from pyro_nlp.inference.divergence import KL
from pyro_nlp.inference.estimators import Estimator, Marginalize, Relax, ScoreFunction
from pyro_nlp.inference.pyro_bounds import PyroELBO
from pyro_nlp.inference.sites import Scope, Site, SiteTerms, StructureError, exact_kl, is_latent
from pyro_nlp.inference.support import LIMIT, base, one_hot
from pyro_nlp.inference.terms import Terms, collect, not_finite, trace_guide, trace_model

if TYPE_CHECKING:
    from pyro_nlp.inference.strategy import Objective


@dataclass(frozen=True)
class Latent:
    """A latent site as the dry run saw it.

    Attributes:
        fn: its distribution in the guide; in the model where the guide has none.
        pair: both sides of it; None where the guide has none.
    """

    name: str
    fn: TorchDistribution
    pair: SiteTerms | None

    @property
    def discrete(self) -> bool:
        """Whether its support is."""
        support = self.fn.support
        return bool(support is not None and support.is_discrete)


def refuse_modules(model: Any, guide: Any) -> None:
    """Refuse what is no module, and parameters that both sides own."""
    for role, module in (("model", model), ("guide", guide)):
        if isinstance(module, type):
            raise StructureError(f"the {role} is a class, {module.__name__}: pass an instance of it")
        if module is not None and not isinstance(module, nn.Module):
            raise StructureError(
                f"the {role} is a {type(module).__name__}: make it a PyroModule, or it cannot be trained"
            )
    if guide is None or getattr(guide, "shares_parameters", False):
        return
    owned = {id(p) for p in model.parameters()}
    shared = next((name for name, p in guide.named_parameters() if id(p) in owned), None)
    if shared:
        raise StructureError(f"model and guide share the parameter '{shared}': the guide owns its encoder")


KINDS: dict[type[Batch], tuple[str, str]] = {
    TextBatch: ("sentences", "TextFile"),
    PairBatch: ("pairs of texts", "PairFile"),
    CountBatch: ("bags of words", "TextDocuments"),
    VectorBatch: ("vectors", "Ring"),
}
"""What a batch holds, and a corpus that gives such."""


@contextmanager
def reading(module: Any, batch: Batch, data: str) -> Iterator[None]:
    """Refuse a batch that a model or guide does not read: one that asks it for what another kind has.

    Only what was really asked for counts, as a guide may read whatever the encoder in it does.
    """
    try:
        yield
    except AttributeError as error:
        asked = [kind for kind in KINDS if any(part.name == error.name for part in fields(kind))]
        if not isinstance(error.obj, Batch) or not asked or isinstance(error.obj, tuple(asked)):
            raise
        wanted = next((kind for kind in asked if kind is _said(module)), asked[0])
        name, found = type(module).__name__, type(error.obj)
        assert issubclass(found, Batch)
        if found is not type(batch):  # a part of the batch
            raise StructureError(
                f"a network of {name} reads {_kind(wanted)}, and is given {_kind(found)}: give it another network"
            ) from error
        (what, cure), given = KINDS[wanted], KINDS[found][0] if found in KINDS else "those"
        raise StructureError(
            f"{name} reads {_kind(wanted)}, and {data} gives {_kind(found)}: choose a corpus of {what}, such as "
            f"{cure}, or a model (with its guide) of {given}"
        ) from error


def _said(module: Any) -> Any:
    """What a module says that it reads: the annotation of what its `forward` takes, if there is one."""
    try:
        hints = get_type_hints(type(module).forward)
    except (AttributeError, NameError, TypeError):  # or it has names that only a type checker sees
        return None
    return next(iter(hints.values()), None)


def _kind(of: type[Batch]) -> str:
    return f"{KINDS[of][0]} ({of.__name__})" if of in KINDS else of.__name__


def meet(model: Any, guide: Any) -> None:
    """Let a model see the guide whose answers its prior is made of, if it is of that kind (a VampPrior)."""
    if guide is not None and hasattr(model, "meet"):
        model.meet(getattr(guide, "amortised", guide))  # of a refined guide, where it begins


def refuse_turns(objective: Objective) -> None:
    """Refuse what the updates cannot do with a model and a guide."""
    updates = objective.strategy.updates
    reason = updates.refuse(objective)
    if reason:
        raise StructureError(f"{type(updates).__name__}: {reason}")


def latents(
    model: nn.Module,
    guide: nn.Module | None,
    batch: Batch,
    discrete: Estimator | None,
    sites: Mapping[str, Estimator],
    data: str = "the corpus",
) -> dict[str, Latent]:
    """The latent sites of a model and a guide, by plain samples; a site that is summed out needs no guide.

    `data` is what errors call that which the batch is of.
    """
    scope = Scope(1, len(batch), batch.population, getattr(model, "plates", 1))
    with torch.no_grad():
        try:
            with reading(guide, batch, data):
                guide_trace = trace_guide(guide, batch, scope)
            with reading(model, batch, data):
                model_trace = trace_model(model, batch, scope, guide_trace)
        except StructureError:
            raise
        except (ValueError, RuntimeError):  # Pyro and PyTorch have a page to say of a number that is not finite
            found = not_finite(model, guide, batch)
            if found is None:
                raise
            raise StructureError(f"{found} before any training: look at the initial weights, and at the data") from None
    alone: dict[str, Latent] = {}
    nodes: dict[str, Site] = dict(model_trace.nodes)
    for name, site in nodes.items():
        if is_latent(site) and name not in guide_trace:
            latent = Latent(name, site["fn"], None)
            if isinstance(sites.get(name) or (discrete if latent.discrete else None), Marginalize):
                alone[name] = latent
                model_trace.remove_node(name)
    pairs = collect(guide_trace, model_trace, scope).sites
    return {name: Latent(name, pair.q, pair) for name, pair in pairs.items()} | alone


def refuse(objective: Objective, batch: Batch) -> None:
    """Refuse what a strategy cannot do with a model and a guide, and run it once."""
    bound = objective.strategy.bound
    if bound.particles < 1:
        raise StructureError(f"{bound!r} draws nothing: particles is at least 1")
    for name, latent in objective.latents.items():
        _refuse_kl(objective, name, latent)
        _refuse_lengths(name, latent)
    if objective.marginal and objective.guide is not None:
        _refuse_consumers(objective, batch)
    reason = bound.refuse(objective)
    if reason:
        raise StructureError(f"{type(bound).__name__}: {reason}")
    _refuse_alone(objective)
    total = math.prod(objective.rows.values())
    if total > LIMIT and not isinstance(bound, PyroELBO):  # which sums chains step by step
        each = ", ".join(f"'{name}' {rows:,}" for name, rows in objective.rows.items() if rows > 1)
        raise StructureError(
            f"{total:,} configurations per document ({each}), and the limit is {LIMIT:,}: give a site of many "
            "variables LocalExpectation() or ScoreFunction(baseline=LeaveOneOut())"
        )
    training = objective.training
    with torch.enable_grad():  # Pyro's objectives refuse a loss without a gradient
        objective.eval()
        objective.steps_per_epoch = objective.steps_per_epoch or 1
        try:
            objective(batch)
            relaxed = [name for name, e in objective.estimators.items() if isinstance(e, Relax)]
            if relaxed:
                _refuse_index(objective, relaxed, batch)
        finally:
            objective.steps_per_epoch = None
            objective.train(training)
            objective.last = None


def _refuse_lengths(name: str, latent: Latent) -> None:
    """Model and guide must agree on how long a latent sequence may be."""
    if latent.pair is None:
        return
    q, p = base(latent.pair.q), base(latent.pair.p)
    if not isinstance(q, Written) or not isinstance(p, Written):
        return
    same = q.lengths is p.lengths if q.lengths is None or p.lengths is None else torch.equal(q.lengths, p.lengths)
    if not same or q.longest != p.longest:
        raise StructureError(
            f"site '{name}': model and guide give its sequences other lengths: give both the same ratio and longest"
        )


def _refuse_kl(objective: Objective, name: str, latent: Latent) -> None:
    kl = objective.kl(name)
    if name in objective.marginal:
        if kl != KL():
            raise StructureError(
                f"site '{name}' is summed out and has no KL to weigh or shape: name the other latents, as in "
                "kl={'z': KL(...)}"
            )
        return
    assert latent.pair is not None
    reason = kl.shape.refuse(latent.pair, objective.estimators[name]) if kl.shape is not None else None
    if reason:
        raise StructureError(f"site '{name}': {reason}")


def _refuse_alone(objective: Objective) -> None:
    """A baseline made of the other particles needs some."""
    bound = objective.strategy.bound
    for name, estimator in objective.estimators.items():
        if isinstance(estimator, ScoreFunction) and isinstance(estimator.baseline, LeaveOneOut) and bound.particles < 2:
            raise StructureError(
                f"site '{name}': LeaveOneOut needs two particles or more: bound={type(bound).__name__}(particles=4)"
            )


def _refuse_consumers(objective: Objective, batch: Batch) -> None:
    """A site that is summed out must not steer the rest of the guide: its value there means nothing."""
    scope = Scope(1, len(batch), batch.population, objective.plates)
    guide = objective.guide
    assert guide is not None
    for name in objective.marginal:
        pair = objective.latents[name].pair
        if pair is None:
            continue
        one, other = _two_values(pair.value, one_hot(pair.q))
        first, second = (_guide_trace(guide, batch, scope, {name: value}) for value in (one, other))
        for site in first.nodes:
            if site != name and is_latent(first.nodes[site]) and not _same(first.nodes[site], second.nodes[site]):
                raise StructureError(
                    f"site '{site}' of the guide depends on '{name}', which is summed out in the model: make it "
                    f"independent of it, or give '{name}' another estimator, as Enumerate()"
                )


def _two_values(value: Tensor, hot: bool) -> tuple[Tensor, Tensor]:
    """A value of a discrete site, and another: the one-hot beside it, the next index, the opposite."""
    if hot:
        return value, value.roll(1, -1)
    return value, 1 - value if bool((value <= 1).all()) else (value - 1).clamp(min=0)


def _guide_trace(guide: nn.Module, batch: Batch, scope: Scope, given: dict[str, Tensor]) -> Trace:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        return trace_guide(guide, batch, scope, given)


def _same(first: Site, second: Site) -> bool:
    """Whether two sites have one distribution, by draws from the same state of the generator and their densities."""
    same = torch.equal(first["value"], second["value"])
    return same and torch.equal(first["fn"].log_prob(first["value"]), second["fn"].log_prob(second["value"]))


def _reached(terms: Terms, name: str) -> Tensor | None:
    """The gradient at a site's value of what the model says of all the others; None where it depends on none of it."""
    total = terms.log_likelihood.sum() + sum(_prior(site) for other, site in terms.sites.items() if other != name)
    if not total.requires_grad:
        return None
    return torch.autograd.grad(total, terms.sites[name].value, allow_unused=True, retain_graph=True)[0]


def _prior(site: SiteTerms) -> Tensor:
    """log p of a site's value, of a relaxed one at the class that it is nearest to."""
    if not one_hot(site.p):
        return site.log_p.sum()
    nearest = torch.zeros_like(site.value).scatter(-1, site.value.argmax(-1, keepdim=True), 1.0)
    return site.p.log_prob(nearest).sum()


def _refuse_index(objective: Objective, relaxed: list[str], batch: Batch) -> None:
    """A relaxed sample has to be used in a way that lets a gradient through."""
    with torch.enable_grad():
        terms = objective.terms(batch)
        live = [name for name in relaxed if terms.sites[name].value.requires_grad]
        reached = [_reached(terms, name) for name in live]
    for name, gradient in zip(live, reached, strict=True):
        if gradient is None:
            raise StructureError(
                f"site '{name}': no gradient of the likelihood reaches its relaxed sample: the model uses it as an "
                "index (argmax, a table look-up) or not at all; use it linearly, as in c @ W"
            )


def describe(latent: Latent, estimator: Estimator, kl: KL, rows: int) -> dict[str, str]:
    """A row of the report of `compile`."""
    summed = isinstance(estimator, Marginalize)
    return {
        "site": latent.name,
        "guide": "-" if summed else type(getattr(latent.fn, "base_dist", latent.fn)).__name__,
        "event": str(list(latent.fn.event_shape)),
        "estimator": repr(estimator),
        "rows": str(rows),
        "kl": "-" if summed else _kl_form(latent),
        "weight": "-" if summed else repr(kl.weight),
        "shape": repr(kl.shape) if kl.shape is not None else "",
    }


def _kl_form(latent: Latent) -> str:
    assert latent.pair is not None
    at_draw = "log q - log p at the draw"
    try:
        exact_kl(latent.pair.q, latent.pair.p)
    except NotImplementedError:
        return at_draw
    return at_draw if latent.pair.entangled else "closed form"
