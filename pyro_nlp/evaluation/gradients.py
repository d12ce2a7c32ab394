"""Whether an estimator's gradient is right, and how noisy it is: against the exact one (layer: evaluation).

Models whose latents are all finite have an exact gradient, by enumeration; for the others the reference is itself a
mean of draws, with the discrete latents enumerated, and its error is counted.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pyro
import torch
from rich.table import Table
from torch import Tensor, nn

from pyro_nlp.data.batches import Batch
from pyro_nlp.inference import (
    ELBO,
    IWAE,
    Enumerate,
    Objective,
    Pathwise,
    PyroELBO,
    Strategy,
    StructureError,
    WakeSleep,
)
from pyro_nlp.inference.estimators import Estimator
from pyro_nlp.inference.support import LIMIT

PROJECTIONS = 20


@dataclass(frozen=True)
class GradientCheck:
    """The mean and the spread of a gradient estimate, against a reference.

    Attributes:
        draws: estimates taken, each from one draw of the latents of every document (or of `bound.particles`).
        p_value: of the hypothesis that the mean is the reference: the smallest of those along the reference, along
            the guide's part of it and along 20 random directions, times their number.
        bias: |mean - reference| / |reference|.
        noise: what `bias` would be for an unbiased estimate, from the standard errors.
        cosine: between mean and reference.
        variance: of one estimate, summed over parameters, by group of parameters.
        norm: |reference| by group.
        exact: whether the reference is exact, and not a mean of draws.
        seconds: a forward and backward pass on the batch, without copies.
    """

    draws: int
    p_value: float
    bias: float
    noise: float
    cosine: float
    variance: dict[str, float]
    norm: dict[str, float]
    exact: bool
    seconds: float

    @property
    def signal_to_noise(self) -> dict[str, float]:
        """|reference| / standard deviation of one estimate, by group."""
        return {name: self.norm[name] / max(v, 1e-30) ** 0.5 for name, v in self.variance.items()}

    def table(self, title: str = "") -> Table:
        """For a terminal."""
        made = Table(
            "parameters", "|exact|" if self.exact else "|reference|", "variance", "signal / noise", title=title
        )
        for name, value in self.variance.items():
            made.add_row(name, f"{self.norm[name]:.3g}", f"{value:.3g}", f"{self.signal_to_noise[name]:.3g}")
        made.caption = (
            f"bias {self.bias:.2%} of the gradient ({self.noise:.2%} is noise), cosine {self.cosine:.4f}, "
            f"p = {self.p_value:.2g} over {self.draws:,} draws"
        )
        return made


def gradient_check(
    model: nn.Module,
    guide: nn.Module | None,
    batch: Batch,
    strategy: Strategy,
    *,
    draws: int = 10_000,
    copies: int = 100,
    step: int = 0,
    seed: int = 0,
) -> GradientCheck:
    """Compare the gradient that a strategy estimates with the exact gradient of what it climbs.

    An unbiased estimator has a `p_value` above 1e-4, in all but one of ten thousand checks. Dropout is off.

    Args:
        model, guide: with latents of finite support, or else a reference of as many draws is taken.
        batch: a few documents.
        strategy: what is checked. KL weights and temperatures are those of `step`; epochs count as one step.
        draws: estimates of the gradient.
        copies: of the batch in one pass, so that `draws / copies` passes are taken.
        step: at which schedules are read.
        seed: of the draws.
    """
    objective = _compiled(model, guide, batch, strategy, step)
    parameters = {n: p for n, p in objective.named_parameters() if p.requires_grad and not n.startswith("state.")}
    sizes = [p.numel() for p in parameters.values()]
    with torch.random.fork_rng(devices=[]), pyro.validation_enabled(False):
        torch.manual_seed(seed)
        passes, repeated = max(2, draws // copies), _repeat(batch, copies)
        exact = exact_gradient(model, guide, batch, strategy, step=step)
        reference, error = exact, torch.zeros(()).double()
        if reference is None:
            other = _compiled(model, guide, batch, _smoothest(objective), step)
            found = _estimates(other, parameters, repeated, passes)
            reference, error = found.mean, found.variance / passes
        directions = _directions(reference, _of_guide(parameters), seed)
        warm(objective, batch)
        taken = _estimates(objective, parameters, repeated, passes, directions)
        began = time.perf_counter()
        _estimates(objective, parameters, batch, 5)
        seconds = (time.perf_counter() - began) / 5
    spread = [v.sum() * copies for v in taken.variance.split(sizes)]
    norms = [r.square().sum() for r in reference.split(sizes)]
    groups = [_group(name) for name in parameters]
    scale = float(reference.norm())
    return GradientCheck(
        draws=passes * copies,
        p_value=_p_value(taken, reference, error, directions),
        bias=float((taken.mean - reference).norm()) / scale,
        noise=float((taken.variance / passes + error).sum().sqrt()) / scale,
        cosine=float(nn.functional.cosine_similarity(taken.mean, reference, dim=0)),
        variance=_by_group(groups, spread),
        norm={name: value**0.5 for name, value in _by_group(groups, norms).items()},
        exact=exact is not None,
        seconds=seconds,
    )


def exact_gradient(
    model: nn.Module, guide: nn.Module | None, batch: Batch, strategy: Strategy, *, step: int = 0
) -> Tensor | None:
    """The gradient of the expected loss for all trainable parameters, flat in float64; None where it has no finite sum.

    For `ELBO` a sum over all configurations of the latents; for `IWAE` and `WakeSleep(guide="wake")` over those of all
    particles.
    """
    own = _compiled(model, guide, batch, strategy, step)
    bound = strategy.bound
    finite = all(latent.discrete or name in own.marginal for name, latent in own.latents.items())
    if not finite or (isinstance(bound, WakeSleep) and bound.guide != "wake"):
        return None
    parameters = [p for n, p in own.named_parameters() if p.requires_grad and not n.startswith("state.")]
    if not set(own.latents) - set(own.marginal):
        return _flat(own(batch), parameters)
    enumerated = _compiled(model, guide, batch, _enumerating(own, strategy), step)
    if isinstance(bound, IWAE | WakeSleep):
        return _flat(_particle_loss(enumerated, bound, batch), parameters)
    return _flat(enumerated(batch), parameters)


def gradient_variance(objective: Objective, batch: Batch, draws: int = 30, seed: int = 0) -> dict[str, float]:
    """Variance of one gradient estimate on a batch, summed over the parameters of `model` and of `guide`.

    Dropout is off; the objective is left as it was.
    """
    parameters = {n: p for n, p in objective.named_parameters() if p.requires_grad and not n.startswith("state.")}
    training, kept = objective.training, [p.grad for p in objective.parameters()]
    objective.eval()
    with torch.random.fork_rng(devices=[]), pyro.validation_enabled(False):
        torch.manual_seed(seed)
        taken = _estimates(objective, parameters, batch, draws)
    objective.train(training)
    for parameter, gradient in zip(objective.parameters(), kept, strict=True):
        parameter.grad = gradient
    spread = [v.sum() for v in taken.variance.split([p.numel() for p in parameters.values()])]
    return _by_group([name.split(".")[0] for name in parameters], spread)


# ---- references -----------------------------------------------------------------------------------------------


def _compiled(model: nn.Module, guide: nn.Module | None, batch: Batch, strategy: Strategy, step: int) -> Objective:
    objective = strategy.compile(model, guide, batch)
    objective.load_state_dict({"step": torch.tensor(step)}, strict=False)
    objective.steps_per_epoch = 1
    objective.eval()
    return objective


def _enumerating(objective: Objective, strategy: Strategy) -> Strategy:
    sites: dict[str, Estimator] = {name: Enumerate() for name in objective.latents if name not in objective.marginal}
    return replace(strategy, sites={**strategy.sites, **sites}, bound=ELBO())


def _smoothest(objective: Objective) -> Strategy:
    """The same bound with discrete sites enumerated and continuous ones reparameterised."""
    strategy = objective.strategy
    if isinstance(strategy.bound, WakeSleep):
        raise StructureError("WakeSleep has no reference but by enumeration: use latents of finite support")
    if isinstance(strategy.bound, IWAE) and any(
        latent.discrete and name not in objective.marginal for name, latent in objective.latents.items()
    ):
        raise StructureError("IWAE of continuous and discrete latents together has no reference here: use bound=ELBO()")
    sites: dict[str, Estimator] = {
        name: Enumerate() if latent.discrete else Pathwise()
        for name, latent in objective.latents.items()
        if name not in objective.marginal
    }
    bound = ELBO() if isinstance(strategy.bound, PyroELBO) else strategy.bound
    return replace(strategy, sites={**strategy.sites, **sites}, bound=bound)


def _particle_loss(objective: Objective, bound: IWAE | WakeSleep, batch: Batch) -> Tensor:
    """The expectation of a many-particle loss, by enumeration of what all particles draw."""
    terms = objective.terms(batch)
    inside = next((t.site for t in terms.scope.tables if t.inner), None)
    if inside:
        raise StructureError(
            f"site '{inside}' stands in a plate inside the document, and has no reference under a bound of many "
            "particles: use bound=ELBO()"
        )
    rows = np.prod([objective.rows[name] for name in terms.sites])
    if rows**bound.particles > LIMIT:
        raise StructureError(
            f"{rows} values of {bound.particles} particles are more than {LIMIT:,}: use fewer particles"
        )
    shape = torch.broadcast_shapes(terms.log_likelihood_by_row.shape, *(s.log_q.shape for s in terms.sites.values()))
    log_p = terms.log_likelihood_by_row.expand(shape)
    log_q = torch.zeros(shape)
    tempered = log_p
    for name, site in terms.sites.items():
        tempered = tempered + objective.weight(name) * (site.log_p - site.log_q)
        log_p, log_q = log_p + site.log_p, log_q + site.log_q
    flat = [t.flatten(0, -2) for t in (log_p, log_q, tempered)]  # [rows, documents]
    index = torch.arange(len(flat[0]))
    each = torch.cartesian_prod(*[index] * bound.particles).view(-1, bound.particles)
    log_p, log_q, tempered = (t[each] for t in flat)  # [tuples, particles, documents]
    probability = log_q.sum(1).exp()
    if isinstance(bound, IWAE):
        value = tempered.logsumexp(1) - np.log(bound.particles)
        return -(probability * value).sum(0).mean()
    share = (log_p - log_q).softmax(1)
    learnt = (share.detach() * (log_p + log_q)).sum(1)
    return -(probability.detach() * learnt).sum(0).mean()


# ---- draws ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Estimates:
    """Mean and variance of some gradients `[parameters]`, and each of them along some directions `[gradients, D]`."""

    mean: Tensor
    variance: Tensor
    along: Tensor


def _estimates(
    objective: Objective,
    parameters: Mapping[str, nn.Parameter],
    batch: Batch,
    count: int,
    directions: Tensor | None = None,
) -> _Estimates:
    """`count` gradients of the loss, in float64, none of them kept."""
    mean, squares, along = torch.zeros(()).double(), torch.zeros(()).double(), []
    for i in range(count):
        gradient = _flat(objective(batch), list(parameters.values()))
        off = gradient - mean
        mean = mean + off / (i + 1)
        squares = squares + off * (gradient - mean)
        if directions is not None:
            along.append(directions @ gradient)
    return _Estimates(mean, squares / (count - 1), torch.stack(along) if along else torch.empty(0))


def warm(objective: Objective, batch: Batch, steps: int = 50) -> None:
    """Let baselines learn from some steps, and then keep them as they are: none at all would be judged by no other."""
    if not len(objective.state):
        return
    learnt = list(objective.state.parameters())
    optimizer = torch.optim.Adam(learnt, 0.01) if learnt else None
    objective.state.train()
    for _ in range(steps):
        loss = objective(batch)
        if optimizer:
            for parameter, gradient in zip(learnt, torch.autograd.grad(loss, learnt), strict=True):
                parameter.grad = gradient
            optimizer.step()
    objective.state.eval()


def _flat(loss: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    both = zip(gradients, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten().double() for g, p in both])


def _repeat(batch: Batch, copies: int) -> Batch:
    """`copies` of a batch in one, as documents of a corpus that is as much larger."""
    changes: dict[str, Any] = {"population": batch.population * copies}
    for field in fields(batch):
        value = getattr(batch, field.name)
        if isinstance(value, Tensor):
            changes[field.name] = value.repeat(copies, *[1] * (value.dim() - 1))
        elif isinstance(value, Batch) and len(value) == len(batch):  # first texts of pairs are held once
            changes[field.name] = _repeat(value, copies)
    return batch.replace(**changes)


def _directions(reference: Tensor, of_guide: Tensor, seed: int) -> Tensor:
    """The reference, the guide's part of it (the model's would drown it) and random ones, `[D, parameters]`."""
    generator = torch.Generator().manual_seed(seed)
    random = torch.randn(PROJECTIONS, len(reference), generator=generator, dtype=reference.dtype)
    part = reference * of_guide
    return torch.cat([reference[None], *([part[None]] if part.any() else []), random])


def _of_guide(parameters: Mapping[str, nn.Parameter]) -> Tensor:
    """One for every parameter of the guide, zero for the others, flat."""
    return torch.cat([torch.full((p.numel(),), float(n.startswith("guide."))).double() for n, p in parameters.items()])


def _p_value(taken: _Estimates, reference: Tensor, error: Tensor, directions: Tensor) -> float:
    """Of equal means along the directions, by Student's t, Bonferroni-corrected."""
    from scipy import stats  # here, as importing it changes the filters of warnings

    count = len(taken.along)
    off = taken.along - directions @ reference
    variance = off.var(0, unbiased=True) / count + directions.square() @ error.expand_as(reference)
    # float32 arithmetic is no bias: allow for its rounding
    rounding = 1e-5 * directions.norm(dim=1) * reference.norm()
    t = (off.mean(0).abs() - rounding).clamp(min=0) / variance.sqrt().clamp(min=1e-300)
    return min(1.0, float(2 * stats.t.sf(t.numpy(), count - 1).min() * len(directions)))


def _group(name: str) -> str:
    """`guide.encoder.network.weight_ih_l0` belongs to `guide.encoder`."""
    return ".".join(name.split(".")[:2])


def _by_group(groups: list[str], values: list[Tensor]) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in zip(groups, values, strict=True):
        found[name] = found.get(name, 0.0) + float(value)
    return found
