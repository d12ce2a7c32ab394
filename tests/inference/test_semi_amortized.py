"""Refined posteriors: the chain rule through the refinement against autograd, and what comes out of it."""

from __future__ import annotations

import copy
import gc
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_nlp.distributions import second_derivatives
from pyro_nlp.evaluation import elbo_terms, importance_nll
from pyro_nlp.guides.gaussian import GaussianGuide
from pyro_nlp.guides.mean_field import MeanFieldGuide
from pyro_nlp.inference import KL, PyroELBO, Refined, SemiAmortized, Strategy, StructureError, Training, fit, terms
from pyro_nlp.inference.semi_amortized import _Climb, _norm, _sample
from pyro_nlp.models.sentence_vae import SentenceVAE
from pyro_nlp.nn import VampPrior
from tests.tiny import (
    LATENT,
    VOCABULARY,
    WIDTH,
    Sentences,
    autoencoder,
    decoder,
    encoder,
    gradients,
    lm,
    sharpen,
    text,
    vae,
    whole,
)

HOW = SemiAmortized(steps=4, rate=0.1, clip=1e9, difference=1e-4)


def through_autograd(
    model: Any, names: list[str], at: tuple[Tensor, ...], batch: Any, how: SemiAmortized, seeds: list[int]
) -> tuple[Tensor, ...]:
    """The same steps with every gradient kept differentiable."""
    speed: Any = tuple(torch.zeros_like(part) for part in at)
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            found = terms(model, lambda batch, at=at: _sample(batch, names, at), batch)
        loss = sum(found.kl.values(), -found.log_likelihood)
        gradient = torch.autograd.grad(loss.sum(), at, create_graph=True)
        factor = (how.clip / (_norm(gradient).detach() + 1e-6)).clamp(max=1.0)[:, None]
        speed = tuple(how.momentum * v + factor * g for v, g in zip(speed, gradient, strict=True))
        at = tuple(part - how.rate * v for part, v in zip(at, speed, strict=True))
    return at


@pytest.mark.parametrize("clip", [1e9, 2.0], ids=["free", "clipped"])
def test_the_gradient_through_the_refinement_is_that_of_autograd(clip: float) -> None:
    how = SemiAmortized(steps=4, rate=0.1, clip=clip, difference=1e-4)
    torch.manual_seed(0)
    model, guide = vae()[0].double(), sharpen(MeanFieldGuide(5, LATENT)).double()
    batch = whole(text(5))
    found: dict[str, Any] = {}
    for way in ("differences", "autograd"):
        refined = Refined(how, model, guide).train()
        with second_derivatives():
            torch.manual_seed(1)
            if way == "autograd":
                names, start = refined._begin(batch)
                seeds = torch.randint(2**31, (how.steps,)).tolist()
                final = through_autograd(model, names, start, batch, how, seeds)
                answer: Any = lambda batch, n=names, f=final: _sample(batch, n, f)  # noqa: E731
            else:
                answer = refined.at(batch)
            torch.manual_seed(2)
            judged = terms(model, answer, batch)
            sum(judged.kl.values(), -judged.log_likelihood).mean().backward()
        found[way] = gradients(model, guide)
    assert found["differences"].keys() == found["autograd"].keys()
    for name, exact in found["autograd"].items():
        scale = exact.abs().max().clamp(min=1e-3)
        # central differences of length h are off by h^2 times a third derivative
        assert (found["differences"][name] - exact).abs().max() < 1e-5 * scale, name


def test_refinement_raises_the_elbo_and_leaves_log_p_where_it_was() -> None:
    model, guide = vae()
    split = text(20)
    refined = SemiAmortized(steps=40, rate=0.05).refine(model, guide)
    assert refined is not None
    before, after = (elbo_terms(model, g, split, 200).elbo.mean() for g in (guide, refined))
    assert after > before + 0.05
    first, second = (importance_nll(model, g, split, 2000) for g in (guide, refined))
    error = np.hypot(first.standard_error, second.standard_error)
    assert (np.abs(first.nll - second.nll) < 5 * error + 1e-3).all()


def test_outside_training_the_same_batch_gets_the_same_answer() -> None:
    model, guide = vae()
    refined = Refined(HOW, model, guide.eval())
    batch = whole(text(6))
    with torch.no_grad():
        first, second = (terms(model, refined, batch) for _ in range(2))
    assert torch.equal(first.sites["z"].q.mean, second.sites["z"].q.mean)


def test_the_refined_guide_does_not_own_the_model() -> None:
    model, guide = vae()
    refined = Refined(HOW, model, guide)
    assert {id(p) for p in refined.parameters()} == {id(p) for p in guide.parameters()}


def test_the_kl_weight_counts_in_the_refinement_too() -> None:
    model, guide = vae()
    batch = whole(text(6))
    free, paid = (Refined(HOW, model, guide.eval(), lambda site, w=w: w) for w in (0.0, 5.0))
    with torch.no_grad():
        one, two = (terms(model, r, batch).kl["z"].mean() for r in (free, paid))
    assert one > two


def test_training_lowers_the_bound_and_the_run_answers_by_refined_posteriors() -> None:
    model, guide = vae()
    began = copy.deepcopy((model, guide))
    how = SemiAmortized(steps=3, rate=0.05)
    strategy = Strategy(updates=how, kl=KL(0.5))
    run = fit(model, guide, Sentences(), strategy, Training(epochs=3, batch_size=8, log_every=1, plateau=None))
    assert isinstance(run.guide, Refined)
    split = Sentences().valid
    after = elbo_terms(run.model, run.guide, split, 20).elbo.mean()
    before = elbo_terms(began[0], how.refine(*began), split, 20).elbo.mean()
    assert after > before


def test_what_it_cannot_refine_is_refused() -> None:
    batch = whole(text(6))
    model, guide = autoencoder()
    with pytest.raises(StructureError, match=r"SemiAmortized: it refines vectors that are Normal .* 'z' is Delta"):
        Strategy(updates=HOW).compile(model, guide, batch)
    with pytest.raises(StructureError, match=r"SemiAmortized: there is no latent to refine"):
        Strategy(updates=HOW).compile(lm(), None, batch)
    with pytest.raises(ValueError, match=r"steps is at least 1"):
        SemiAmortized(steps=0)


def test_a_step_leaves_nothing_behind() -> None:
    model, guide = vae()
    batch = whole(text(6))
    objective = Strategy(updates=HOW).compile(model, guide, batch).train()
    for _ in range(3):
        objective(batch).backward()
    gc.collect()
    assert not [1 for found in gc.get_objects() if type(found) is _Climb]


def test_the_gradient_reaches_a_prior_that_is_made_of_the_guide() -> None:
    torch.manual_seed(0)
    model = SentenceVAE(VOCABULARY, LATENT, decoder, partial(VampPrior, components=2, length=2, embedding=WIDTH))
    guide = GaussianGuide(VOCABULARY, LATENT, encoder)
    model.meet(guide)
    refined = Refined(HOW, model, guide).train()
    names, start = refined._begin(whole(text(6)))
    climb = _Climb(refined, whole(text(6)), names, [0, 1, 2, 3])
    owned = list(guide.parameters())
    path = climb.up(tuple(part.detach() for part in start))
    _, found = climb.back(path, tuple(torch.ones_like(part) for part in path[-1]), owned)
    assert any(float(part.abs().max()) > 0 for part in found)


def test_models_and_bounds_that_it_would_get_wrong_are_refused() -> None:
    batch = whole(text(6))
    with pytest.raises(StructureError, match=r"SemiAmortized: PyroELBO draws from the guide itself"):
        Strategy(updates=HOW, bound=PyroELBO("TraceMeanField_ELBO")).compile(*vae(), batch)
    model, guide = vae()
    model.norm = torch.nn.BatchNorm1d(3)
    with pytest.raises(StructureError, match=r"SemiAmortized: the model normalises over the batch"):
        Strategy(updates=HOW).compile(model, guide, batch)


def test_a_climb_ends_where_its_steps_add_up_to() -> None:
    model, guide = vae()
    batch = whole(text(6))
    names, start = Refined(HOW, model, guide.eval())._begin(batch)
    climb = _Climb(Refined(HOW, model, guide), batch, names, [0, 1, 2, 3])
    start = tuple(part.detach() for part in start)
    path = climb.up(start)
    assert len(path) == HOW.steps + 1
    assert torch.allclose(path[1][0], start[0] - HOW.rate * climb.gradient(0, start)[0][0])
