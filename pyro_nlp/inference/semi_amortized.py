"""Posteriors that begin where the guide puts them and are refined for every document (layer: inference)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from pyro_nlp.data.batches import Batch
from pyro_nlp.distributions import uneven_rows
from pyro_nlp.inference.bounds import WakeSleep
from pyro_nlp.inference.pyro_bounds import PyroELBO
from pyro_nlp.inference.sites import Scope, is_latent
from pyro_nlp.inference.support import base
from pyro_nlp.inference.terms import terms, trace_guide
from pyro_nlp.inference.updates import Engine, Joint, Updates, Weight

if TYPE_CHECKING:
    from pyro_nlp.inference.strategy import Objective

Parameters = tuple[Tensor, ...]
"""Mean and log variance of every site in turn, each `[B, D]`."""


@dataclass(frozen=True)
class SemiAmortized(Updates):
    """The guide begins each document's posterior, and gradient steps on its own ELBO finish it.

    Kim et al. 2018 (arXiv:1802.02550). Model and guide learn from the loss at the refined posterior, the guide through
    the refinement: its Hessian-vector products are central differences of gradients. Latents are judged, diagnosed and
    decoded from the refined posterior too. A training step costs 1 + 3 `steps` evaluations of the model.

    Each document is refined by itself, so that neither rate nor clip depends on the batch size: a rate of 1 / 32 here
    is their 1 on the mean of a batch of 32, and their clip of that mean's gradient at 5 is at about 5 sqrt(32) = 28 of
    one document's. They clip means and log variances apart, and one document here is clipped where a batch is there.

    Args:
        steps: of refinement, K.
        rate: of a step.
        momentum: of the steps.
        clip: largest norm of one document's gradient; where it clips, its size counts as constant.
        difference: half the distance of the central differences, in units of mean and log variance.
    """

    steps: int = 20
    rate: float = 0.03
    momentum: float = 0.5
    clip: float = 28.0
    difference: float = 1e-2

    def __post_init__(self) -> None:
        if self.steps < 1 or self.rate <= 0 or self.difference <= 0:
            raise ValueError("SemiAmortized: steps is at least 1, and rate and difference are positive")

    def refuse(self, objective: Objective) -> str | None:
        for name, latent in objective.latents.items():
            fn: Any = latent.fn
            if not (isinstance(fn, Independent) and isinstance(fn.base_dist, Normal) and len(fn.event_shape) == 1):
                kind = type(base(fn)).__name__
                return f"it refines vectors that are Normal in the guide, and '{name}' is {kind}: use updates=Joint()"
        if objective.plates > 1:
            return "it refines latents of a whole document, and the model has plates inside: use updates=Joint()"
        if any(hasattr(module, "running_mean") for module in objective.model.modules()):
            return "the model normalises over the batch, and each document is refined by itself: use updates=Joint()"
        if isinstance(objective.strategy.bound, PyroELBO | WakeSleep):
            kind = type(objective.strategy.bound).__name__
            return f"{kind} draws from the guide itself, which is not refined: use bound=ELBO()"
        return None if objective.latents else "there is no latent to refine: use updates=Joint()"

    def evaluations(self, once: int) -> int:
        return once + 3 * self.steps  # one on the way up, two on the way back

    def refine(self, model: nn.Module, guide: nn.Module | None, weight: Weight | None = None) -> nn.Module | None:
        return None if guide is None else Refined(self, model, guide, weight)

    def step(self, engine: Engine, batch: Batch) -> Tensor:
        return Joint().step(engine, batch)


class Refined(nn.Module):
    """A guide whose answers are refined for each document under a model.

    Outside training the noise of the refinement is fixed, so that the same batch gets the same answer.

    Args:
        how: the settings.
        model: whose ELBO is climbed; it stays its owner's.
        guide: where the refinement begins; its sites are diagonal Gaussians.
        weight: of the KL of a site; None for 1.
    """

    model: nn.Module

    def __init__(self, how: SemiAmortized, model: nn.Module, guide: nn.Module, weight: Weight | None = None) -> None:
        super().__init__()
        self.how, self.amortised, self.weight = how, guide, weight or (lambda site: 1.0)
        self.training = guide.training
        object.__setattr__(self, "model", model)  # unregistered

    def forward(self, batch: Batch) -> None:
        self.at(batch)(batch)

    def at(self, batch: Batch) -> Callable[[Batch], None]:
        """The guide of one batch: the refined posteriors. `trace_guide` asks for it before it opens any plate."""
        with poutine.block():  # no handler around us is to see the way there
            names, start = self._begin(batch)
            seeds = torch.randint(2**31, (self.how.steps,)) if self.training else torch.arange(self.how.steps)
            climb = _Climb(self, batch, names, seeds.tolist())
            if torch.is_grad_enabled():
                # the guide's too: the prior may be made of them (VampPrior)
                both = {id(p): p for m in (self.model, self.amortised) for p in m.parameters() if p.requires_grad}
                owned = list(both.values())
                final = _Refinement.apply(climb, len(start), *start, *owned)
            else:
                final = climb.up(start)[-1]
        return lambda batch: _sample(batch, names, final)

    def _begin(self, batch: Batch) -> tuple[list[str], Parameters]:
        scope = Scope(1, len(batch), batch.population, getattr(self.model, "plates", 1))
        names, start = [], []
        for name, site in trace_guide(self.amortised, batch, scope).nodes.items():
            if is_latent(site):
                q: Any = site["fn"]
                whole = (*q.batch_shape, *q.event_shape)
                names.append(name)
                start += [
                    v.expand(whole).reshape(len(batch), -1) for v in (q.base_dist.loc, 2 * q.base_dist.scale.log())
                ]
        return names, tuple(start)


def _sample(batch: Batch, names: Sequence[str], at: Parameters) -> None:
    """A guide with the given means and log variances."""
    with batch.documents():
        for name, loc, log_variance in zip(names, at[::2], at[1::2], strict=True):
            pyro.sample(name, dist.Normal(loc, (0.5 * log_variance).exp()).to_event(1))


class _Climb:
    """The refinement of one batch: noisy gradients, the steps up, and the way back by the chain rule."""

    def __init__(self, guide: Refined, batch: Batch, names: list[str], seeds: list[int]) -> None:
        self.guide, self.how, self.batch, self.names, self.seeds = guide, guide.how, batch, names, seeds
        self.clips: list[Tensor] = []

    def gradient(
        self, k: int, at: Parameters, importance: Tensor | None = None, owned: Sequence[Tensor] = ()
    ) -> tuple[Parameters, Parameters]:
        """Of the sum of the documents' losses, each times its `importance`, with the noise of step k: by the
        posteriors' parameters, and by those of the model that are given."""
        devices = [at[0].device] if at[0].device.type == "cuda" else []
        # cuDNN's recurrent networks have no gradient outside training
        cudnn = torch.backends.cudnn.flags(enabled=self.guide.model.training)
        with torch.random.fork_rng(devices), torch.enable_grad(), cudnn:
            torch.manual_seed(self.seeds[k])
            at = tuple(part.detach().requires_grad_() for part in at)
            with nullcontext() if importance is None else uneven_rows():
                found = terms(self.guide.model, lambda batch: _sample(batch, self.names, at), self.batch)
            loss = -found.log_likelihood
            for name, kl in found.kl.items():
                if weight := self.guide.weight(name):
                    loss = loss + weight * kl
            loss = loss[0] if importance is None else loss[0] * importance
            both = torch.autograd.grad(loss.sum(), [*at, *owned], allow_unused=True)
        filled = tuple(torch.zeros_like(v) if g is None else g for g, v in zip(both, [*at, *owned], strict=True))
        return filled[: len(at)], filled[len(at) :]

    def up(self, start: Parameters) -> list[Parameters]:
        """The parameters before, between and after the steps; and, kept, how much each gradient was clipped."""
        path, speed = [start], tuple(torch.zeros_like(part) for part in start)
        for k in range(self.how.steps):
            gradient, _ = self.gradient(k, path[-1])
            self.clips.append((self.how.clip / (_norm(gradient) + 1e-6)).clamp(max=1.0))
            speed = tuple(
                self.how.momentum * v + _times(self.clips[-1], g) for v, g in zip(speed, gradient, strict=True)
            )
            path.append(tuple(part - self.how.rate * v for part, v in zip(path[-1], speed, strict=True)))
        return path

    def back(
        self, path: list[Parameters], gradient: Parameters, owned: Sequence[Tensor]
    ) -> tuple[Parameters, list[Tensor]]:
        """From the gradient by the last parameters to those by the first and by the model's."""
        speed = tuple(torch.zeros_like(part) for part in gradient)
        model = [torch.zeros_like(p) for p in owned]
        for k in reversed(range(self.how.steps)):
            speed = tuple(v - self.how.rate * g for v, g in zip(speed, gradient, strict=True))
            along = tuple(_times(self.clips[k], v) for v in speed)
            size = _norm(along)
            step = tuple(_times(self.how.difference / size.clamp(min=1e-30), v) for v in along)
            importance = size / (2 * self.how.difference)
            for sign in (1, -1):
                there = tuple(part + sign * s for part, s in zip(path[k], step, strict=True))
                by_at, by_model = self.gradient(k, there, importance, owned)
                gradient = tuple(g + sign * h for g, h in zip(gradient, by_at, strict=True))
                for total, part in zip(model, by_model, strict=True):
                    total.add_(part, alpha=sign)
            speed = tuple(self.how.momentum * v for v in speed)
        return gradient, model


class _Refinement(torch.autograd.Function):
    """The refined parameters as a function of where they began and of the model."""

    @staticmethod
    def forward(ctx: Any, climb: _Climb, count: int, *values: Tensor) -> Parameters:
        *path, last = climb.up(values[:count])
        ctx.climb, ctx.path, ctx.owned = climb, path, values[count:]  # what is returned must not be kept: a cycle
        return last

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradient: Tensor) -> Any:
        device = gradient[0].device.type
        with torch.autocast(device, enabled=False):  # a difference of two gradients leaves nothing of 8 bits
            start, owned = ctx.climb.back(ctx.path, gradient, ctx.owned)
        return None, None, *start, *owned


def _norm(parts: Parameters) -> Tensor:
    """The norm of each document's parts together, `[B]`."""
    return sum((part.square().sum(-1) for part in parts), parts[0].new_zeros(len(parts[0]))).sqrt()


def _times(factor: Tensor, part: Tensor) -> Tensor:
    """A number for each document times `[B, D]`."""
    return factor[:, None] * part
