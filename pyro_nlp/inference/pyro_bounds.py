"""Pyro's own objectives behind the same door: for comparison, as oracles, and for chains (layer: inference)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from pyro import infer, poutine
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_nlp.data.batches import Batch
from pyro_nlp.distributions import second_derivatives
from pyro_nlp.inference.bounds import Bound, Loss
from pyro_nlp.inference.estimators import Enumerate, Estimator, Marginalize, Pathwise, ScoreFunction
from pyro_nlp.inference.support import base, variables

if TYPE_CHECKING:
    from pyro_nlp.inference.strategy import Objective

Name = Literal["Trace_ELBO", "TraceMeanField_ELBO", "TraceGraph_ELBO", "TraceEnum_ELBO"]
_KNOWN: tuple[Estimator, ...] = (Pathwise(), ScoreFunction(), Enumerate(), Marginalize())


@dataclass(frozen=True)
class PyroELBO(Bound):
    """One of Pyro's own objectives.

    A KL weight is put on by scaling the latent sites of model and guide alike, which is exact for latents that stand in
    the guide. KL shapes such as free bits need `ELBO`. `TraceEnum_ELBO` serves `Enumerate` and `Marginalize`, that of
    chains under `pyro.markov` too.

    Args:
        name: the objective in `pyro.infer`.
        particles: draws of the latents per document and step.
    """

    name: Name = "Trace_ELBO"
    particles: int = 1

    def refuse(self, objective: Objective) -> str | None:
        for name, estimator in objective.estimators.items():
            if objective.kl(name).shape is not None:
                return f"site '{name}' has a KL shape, which {self.name} cannot see: use bound=ELBO()"
            if estimator not in _KNOWN:
                return f"site '{name}': {self.name} has no {estimator!r}: use bound=ELBO()"
            latent = objective.latents[name]
            if isinstance(estimator, Enumerate | Marginalize) and variables(latent.fn) > 1:
                return (
                    f"site '{name}' is one event of several variables, which Pyro does not enumerate: use bound=ELBO()"
                )
            if isinstance(estimator, Enumerate | Marginalize) and self.name != "TraceEnum_ELBO":
                return f"site '{name}': {self.name} does not enumerate: use PyroELBO('TraceEnum_ELBO') or ELBO()"
            if isinstance(estimator, ScoreFunction) and self.name == "TraceMeanField_ELBO":
                return f"site '{name}': TraceMeanField_ELBO takes reparameterised latents only: use bound=ELBO()"
            if isinstance(estimator, ScoreFunction) and latent.fn.has_rsample:
                kind = type(base(latent.fn)).__name__
                return (
                    f"site '{name}': {self.name} reparameterises a {kind} whatever it is told, and has no score "
                    "function for it: give it Pathwise(), or use bound=ELBO()"
                )
        return None

    def loss(self, objective: Objective, batch: Batch) -> Loss:
        # A fresh one every time: Pyro's objectives cache the plate depth they first saw.
        elbo: Any = getattr(infer, self.name)(
            num_particles=self.particles, vectorize_particles=True, max_plate_nesting=objective.plates
        )
        weights = {name: objective.weight(name) for name in objective.estimators}
        guide: Any = objective.guide or _nothing
        model: Any = objective.model
        enumerated = [name for name, e in objective.estimators.items() if isinstance(e, Enumerate)]
        if enumerated:
            guide = poutine.infer_config(guide, lambda site: _parallel(site["name"] in enumerated))
        if objective.marginal:
            guide = poutine.block(guide, hide=list(objective.marginal))
            model = infer.config_enumerate(model, "parallel")  # sites replayed from the guide do not heed it
        with _ScaleSites(weights):
            loss = _differentiable(elbo, model, guide, batch)
        return Loss(loss / batch.population)

    def judge(self, objective: Objective, batch: Batch) -> Loss:
        if not objective.marginal:
            return super().judge(objective, batch)
        with torch.enable_grad():  # without a gradient Pyro refuses; and our tables would not sum a chain step by step
            return Loss(self.loss(objective, batch).value.detach())


def _nothing(batch: Batch) -> None:
    """The guide of a model without latents."""


def _parallel(wanted: bool) -> Any:
    return {"enumerate": "parallel"} if wanted else {}


def _differentiable(elbo: Any, model: Any, guide: Any, batch: Batch) -> Tensor:
    if hasattr(elbo, "differentiable_loss"):
        loss: Tensor = elbo.differentiable_loss(model, guide, batch)
        return loss
    # TraceGraph_ELBO keeps its surrogate to itself, and finds what depends on a draw by following tensors: in a custom
    # autograd function it loses track, silently, and with it the gradient
    with second_derivatives():
        value, surrogate = elbo._loss_and_surrogate_loss(model, guide, (batch,), {})
    return surrogate - surrogate.detach() - torch.as_tensor(value).detach()


class _ScaleSites(Messenger):
    """Multiplies the scale of the named sites; unlike `poutine.scale` it takes 0."""

    def __init__(self, weights: dict[str, float]) -> None:
        super().__init__()
        self.weights = {name: weight for name, weight in weights.items() if weight != 1.0}

    def _pyro_sample(self, message: Any) -> None:
        if message["name"] in self.weights:
            message["scale"] = message["scale"] * self.weights[message["name"]]
