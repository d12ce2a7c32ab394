"""The same likelihood of the same hidden Markov model, computed in every way that `hmm.py` times."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import TraceEnum_ELBO
from torch import Tensor

from pyro_nlp import Strategy
from pyro_nlp.data import TextBatch
from pyro_nlp.distributions import HiddenMarkov
from pyro_nlp.models.hmm import HMM, EnumeratedHMM

STATES, VOCABULARY, BATCH, SHORTEST, LONGEST = 45, 10_000, 64, 25, 50
System = Callable[[TextBatch], Tensor]


class NaiveHMM(HMM):
    """The model as a tutorial has it: the emission table is looked up by tag, so `[B, K, V]` is held at every step."""

    def forward(self, batch: TextBatch) -> None:
        tag: Tensor | None = None
        with batch.documents():
            for t in pyro.markov(range(batch.targets.shape[1])):
                logits = self.initial if tag is None else self.transition[tag]
                tag = pyro.sample(f"tag_{t}", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})
                word = dist.Categorical(logits=self.emission[tag]).mask(batch.mask[:, t])
                pyro.sample(f"x_{t}", word, obs=batch.targets[:, t])


def batches(count: int) -> list[TextBatch]:
    """Sentences of random words."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        lengths = rng.integers(SHORTEST, LONGEST + 1, BATCH)
        lengths[0] = LONGEST
        mask = torch.arange(LONGEST) < torch.from_numpy(lengths)[:, None]
        words = torch.from_numpy(rng.integers(4, VOCABULARY, (BATCH, LONGEST))).masked_fill(~mask, 0)
        found.append(TextBatch(torch.arange(BATCH), BATCH, words, words, mask))
    return found


def tables(kind: type[HMM] = HMM, transition_spread: float = 1.0) -> HMM:
    """A model with standard normal logits."""
    torch.manual_seed(0)
    return kind(VOCABULARY, STATES, 1.0, transition_spread)


def enumerated(kind: type[HMM]) -> System:
    """Minus the mean log-likelihood of a model whose tags Pyro enumerates."""
    model = tables(kind)

    def system(batch: TextBatch) -> Tensor:
        bound = TraceEnum_ELBO(max_plate_nesting=1)
        return bound.differentiable_loss(model, lambda batch: None, batch) / batch.population

    return _cleared(model, system)


def as_trained() -> System:
    """Ours, as `fit` calls it."""
    model = tables()
    objective = Strategy().compile(model, None, batches(1)[0])
    return _cleared(model, objective)


def alone(transition_spread: float = 1.0) -> System:
    """Ours without Pyro."""
    model = tables(transition_spread=transition_spread)

    def system(batch: TextBatch) -> Tensor:
        found = HiddenMarkov(model.initial, model.transition, model.emission, batch.mask)
        return -found.log_prob(batch.targets).mean()

    return _cleared(model, system)


def log_loop() -> System:
    """The forward recursion in log space, under autograd."""
    model = tables()

    def system(batch: TextBatch) -> Tensor:
        initial, transition = model.initial.log_softmax(0), model.transition.log_softmax(1)
        emitted = model.emission.log_softmax(1)[:, batch.targets].permute(2, 1, 0)  # [T, B, K]
        alpha = initial + emitted[0]
        for t in range(1, LONGEST):
            step = (alpha[:, :, None] + transition).logsumexp(1) + emitted[t]
            alpha = torch.where(batch.mask[:, t, None], step, alpha)
        return -alpha.logsumexp(1).mean()

    return _cleared(model, system)


def scaled_loop() -> System:
    """The same in probabilities rescaled at every step, under autograd."""
    model = tables()

    def system(batch: TextBatch) -> Tensor:
        initial, transition = model.initial.softmax(0), model.transition.softmax(1)
        emitted = model.emission.log_softmax(1)[:, batch.targets].permute(2, 1, 0)
        shift = emitted.amax(2, keepdim=True).detach()
        real = batch.mask.t()[..., None]
        weight = torch.where(real, (emitted - shift).exp(), 1.0)  # padding: the mass moves on and stays one
        alpha = initial * weight[0]
        norms = []
        for t in range(LONGEST):
            if t:
                alpha = (alpha @ transition) * weight[t]
            norm = alpha.sum(1, keepdim=True)
            norms.append(norm)
            alpha = alpha / norm
        return -((torch.stack(norms).log() + shift) * real).sum() / len(batch)

    return _cleared(model, system)


def jax_scan() -> System:
    """The same as a jitted scan in JAX; its value is not differentiable here, the gradient is taken inside."""
    jax, jnp = importlib.import_module("jax"), importlib.import_module("jax.numpy")

    def loss(parameters: Any, words: Any, mask: Any) -> Any:
        initial, transition, emission = parameters
        emitted = jnp.transpose(jax.nn.log_softmax(emission, 1)[:, words], (2, 1, 0))
        shift = jax.lax.stop_gradient(emitted.max(2, keepdims=True))
        real = mask.T[..., None]
        weight = jnp.where(real, jnp.exp(emitted - shift), 1.0)
        move = jax.nn.softmax(transition, 1)

        def step(alpha: Any, weight: Any) -> Any:
            alpha = (alpha @ move) * weight
            norm = alpha.sum(1, keepdims=True)
            return alpha / norm, norm

        first = jax.nn.softmax(initial) * weight[0]
        norm = first.sum(1, keepdims=True)
        _, norms = jax.lax.scan(step, first / norm, weight[1:])
        norms = jnp.concatenate([norm[None], norms])
        return -((jnp.log(norms) + shift) * real).sum() / BATCH

    model = tables()
    names = ("initial", "transition", "emission")
    parameters = tuple(jnp.asarray(getattr(model, name).detach().numpy()) for name in names)
    compiled = jax.jit(jax.value_and_grad(loss))

    def system(batch: TextBatch) -> Tensor:
        found = compiled(parameters, batch.targets.numpy(), batch.mask.numpy())
        return torch.tensor(float(jax.block_until_ready(found)[0]))

    return system


def _cleared(model: HMM, loss: System) -> System:
    """A call that clears the gradients, takes the loss and its gradients, and returns the loss."""

    def system(batch: TextBatch) -> Tensor:
        for parameter in model.parameters():
            parameter.grad = None
        value = loss(batch)
        value.backward()
        return value.detach()

    return system


SYSTEMS: dict[str, Callable[[], System]] = {
    "ours, as trained": as_trained,
    "Pyro, Categorical(logits=emission[tag])": lambda: enumerated(NaiveHMM),
    "Pyro, emissions looked up first": lambda: enumerated(EnumeratedHMM),
    "ours": alone,
    "ours, sharp transitions": lambda: alone(4.0),
    "loop in log space": log_loop,
    "scaled loop": scaled_loop,
    **({"JAX scan, scaled": jax_scan} if importlib.util.find_spec("jax") else {}),
}
"""By name, what makes each: a function of a batch that takes the loss with its gradients."""
