"""The guide on the sphere: what its KL is, and what trains it."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch.distributions import kl_divergence

from pyro_nlp.distributions import HypersphericalUniform, VonMisesFisher
from pyro_nlp.guides.gaussian import GaussianGuide
from pyro_nlp.guides.von_mises_fisher import VonMisesFisherGuide
from pyro_nlp.inference import IWAE, Strategy, terms
from pyro_nlp.models.sentence_vae import SentenceVAE
from pyro_nlp.nn import UniformSphere
from tests.tiny import LATENT, VOCABULARY, decoder, encoder, gradients, sharpen, text, whole


def pair(**options: Any) -> tuple[SentenceVAE, VonMisesFisherGuide]:
    model = sharpen(SentenceVAE(VOCABULARY, LATENT, decoder, UniformSphere))
    return model, sharpen(VonMisesFisherGuide(VOCABULARY, LATENT, encoder, **options))


def test_with_a_fixed_concentration_the_kl_is_a_constant_that_no_parameter_moves() -> None:
    model, guide = pair(concentration=35.0)
    kl = terms(model, guide, whole(text(7)), particles=2).kl["z"]
    wanted = kl_divergence(VonMisesFisher(torch.eye(LATENT)[0], 35.0), HypersphericalUniform(LATENT))
    assert torch.equal(kl, wanted.expand(2, 7)) and not kl.requires_grad


def test_a_learnt_concentration_starts_where_it_is_told_and_differs_between_documents() -> None:
    features = torch.randn(5, 8)
    for concentration in (0.5, 20.0, 300.0):
        guide = VonMisesFisherGuide(VOCABULARY, LATENT, encoder, concentration, learn_concentration=True)
        q: Any = guide.posterior_of(features)
        # what keeps it from zero is added
        torch.testing.assert_close(q.concentration, torch.full((5,), concentration + 1e-3), rtol=1e-5, atol=0)
    assert len(sharpen(guide).posterior_of(features).concentration.unique()) == 5  # type: ignore[attr-defined]


def test_a_learnt_concentration_gets_a_gradient_through_the_kl_and_through_the_draw() -> None:
    model, guide = pair(learn_concentration=True)
    batch = whole(text(5))
    for part in ("kl", "log_likelihood"):
        found = terms(model, guide, batch)
        (found.kl["z"] if part == "kl" else found.log_likelihood).sum().backward()
        gradient = gradients(model, guide)["1.spread.weight"]
        assert gradient.isfinite().all() and gradient.any(), part


def test_it_trains_under_importance_weights_and_in_bfloat16() -> None:
    model, guide = pair(learn_concentration=True)
    batch = whole(text(5))
    objective = Strategy(bound=IWAE(4)).compile(model, guide, batch)
    with torch.autocast("cpu", torch.bfloat16):
        q: Any = guide.posterior_of(guide.encoder(batch))
        loss = objective(batch)
    loss.backward()
    assert q.loc.dtype == q.rsample().dtype == torch.float32
    assert all(g.isfinite().all() for g in gradients(model, guide).values())


def test_the_concentration_is_saved() -> None:
    _, guide = pair(concentration=35.0)
    other = copy.deepcopy(guide)
    other.concentration.fill_(1.0)
    other.load_state_dict(guide.state_dict())
    assert float(other.concentration) == 35.0


def test_a_posterior_and_a_prior_on_different_spaces_are_refused_by_compile() -> None:
    batch = whole(text(5))
    model, guide = pair()
    with pytest.raises(ValueError, match="give the model prior=UniformSphere"):
        Strategy().compile(SentenceVAE(VOCABULARY, LATENT, decoder), guide, batch)
    with pytest.raises(ValueError, match="UniformSphere is the prior of a VonMisesFisherGuide"):
        Strategy().compile(model, GaussianGuide(VOCABULARY, LATENT, encoder), batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent": 1}, "a sphere has 2 dimensions or more, not 1: set latent of model and guide"),
        *(({"concentration": x}, f"a number above 0, not {x}") for x in (0.0, math.nan, math.inf)),
    ],
)
def test_it_is_refused_when_it_is_made(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VonMisesFisherGuide(VOCABULARY, **{"latent": LATENT, "encoder": encoder, **options})
