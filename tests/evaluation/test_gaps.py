"""The two inference gaps against closed forms and quadrature."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_nlp.data.toy import Ring as RingCorpus
from pyro_nlp.evaluation import NoDensityError, importance_nll
from pyro_nlp.evaluation.gaps import FAMILIES, InferenceGaps, OwnPosteriors, Refinement, inference_gaps
from pyro_nlp.evaluation.references import differentiable, nuts_posterior
from pyro_nlp.inference import StructureError
from pyro_nlp.models.ring import Ring
from tests.evaluation.test_references import GaussianFor, LinearGaussian
from tests.tiny import autoencoder, discrete, lm, parameters, ring, same, styled, text, vae

SHORT = Refinement(steps=250)
SETTLED = 0.015
"""Nats that the noise of its draws leaves to a refinement of this length: the most that any of 200 linear-Gaussian
documents was found short of the optimum in closed form; 0.002 in mean."""


def within(found: Any, wanted: Any, errors: float = 5) -> None:
    """Every document within its Monte Carlo error, and what the refinement may fall short."""
    distance = np.abs(found.value - np.asarray(wanted))
    assert (distance < errors * found.error + SETTLED).all(), distance / (found.error + 1e-9)


# ---- a linear-Gaussian model -----------------------------------------------------------------------------------------


def test_the_gaps_of_a_mean_field_guide_are_the_closed_form() -> None:
    model = LinearGaussian()
    split, guide = model.split(10), GaussianFor(model, diagonal=True, stretch=1.5, shift=0.2)
    found = inference_gaps(model, guide, split, how=SHORT, richer="full", samples=2000)
    exact, precision = model.posterior(split.values), model.precision
    q = guide.posterior(split.values)
    total = kl_divergence(dist.MultivariateNormal(q.mean, scale_tril=torch.diag_embed(q.stddev)), exact)
    approximation = float(precision.diagonal().log().sum() - precision.logdet()) / 2
    assert (found.method, found.family, found.richer_family) == ("grid", "mean-field", "full")
    np.testing.assert_allclose(found.log_evidence.value, model.log_evidence(split.values), atol=1e-5)
    within(found.log_evidence - found.amortised, total)
    within(found.approximation, np.full(10, approximation))
    within(found.amortisation, total - approximation)
    assert found.richer_approximation is not None
    within(found.richer_approximation, np.zeros(10))


@pytest.mark.parametrize("stretch", [0.5, 2.0])
def test_the_gap_of_a_guide_of_the_right_family_is_all_amortisation(stretch: float) -> None:
    model = LinearGaussian()
    split, guide = model.split(6), GaussianFor(model, stretch=stretch, shift=-0.3)
    found = inference_gaps(model, guide, split, how=SHORT)
    assert found.family == "full" and found.richer is None and found.richer_approximation is None
    within(found.approximation, np.zeros(6))
    within(found.amortisation, kl_divergence(guide.posterior(split.values), model.posterior(split.values)))


def test_the_exact_posterior_has_no_gaps() -> None:
    model = LinearGaussian()
    found = inference_gaps(model, GaussianFor(model), model.split(5), how=SHORT)
    within(found.amortisation, np.zeros(5))
    within(found.approximation, np.zeros(5))


def test_noise_is_paired_between_guide_and_refinement() -> None:
    model = LinearGaussian()
    found = inference_gaps(model, GaussianFor(model, stretch=1.05), model.split(5), how=SHORT)
    unpaired = np.hypot(found.refined.error, found.amortised.error)
    assert (found.amortisation.error < unpaired / 4).all()
    np.testing.assert_allclose(found.amortisation.value, found.refined.value - found.amortised.value)


def test_documents_are_refined_alike_in_any_batch() -> None:
    model = LinearGaussian()
    guide, split = GaussianFor(model, diagonal=True, stretch=2.0), model.split(7)
    together = inference_gaps(model, guide, split, how=SHORT)
    for options in ({"batch_size": 2}, {"chunk": 50}, {"seed": 3}):
        other = inference_gaps(model, guide, split, how=SHORT, **options)
        within(together.refined - other.refined, np.zeros(7))
    again = inference_gaps(model, guide, split, how=SHORT)
    assert (again.refined.value == together.refined.value).all()


# ---- the ring --------------------------------------------------------------------------------------------------------


def best_mean_field(model: Ring, values: Tensor, start: Any) -> tuple[np.ndarray, np.ndarray]:
    """ELBO of a guide and of the best Gaussian near it, by Gauss-Hermite quadrature in float64, `[B]` each."""
    nodes, weights = (torch.from_numpy(a) for a in np.polynomial.hermite_e.hermegauss(40))
    points, mass = torch.cartesian_prod(nodes, nodes), torch.outer(weights, weights).flatten() / (2 * torch.pi)
    loc, log_scale = (t.double().clone().requires_grad_(True) for t in (start.mean, start.stddev.log()))
    noise = model.log_noise.detach().double().exp()
    prior = dist.Normal(torch.zeros(2).double(), 1.0)

    def elbo() -> Tensor:
        z = loc + log_scale.exp() * points[:, None]
        log_x = dist.Normal(model.bend(z), noise).log_prob(values.double()).sum(-1)
        return mass @ log_x - kl_divergence(dist.Normal(loc, log_scale.exp()), prior).sum(-1)

    first = elbo().detach()
    optimiser = torch.optim.LBFGS([loc, log_scale], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        found = -elbo().sum()
        found.backward()
        return found

    optimiser.step(loss)
    return first.numpy(), elbo().detach().numpy()


def test_the_gaps_of_the_ring_are_those_of_quadrature() -> None:
    model, guide = ring(noise=0.4, learn=False)
    split = RingCorpus(size=5, noise=0.4).train
    with torch.no_grad():
        loc, rest = guide.network(split.values).tensor_split([2], -1)
    amortised, refined = best_mean_field(model, split.values, dist.Normal(loc, rest.exp()))
    evidence = model.quadrature(split.values)[0].numpy()
    found = inference_gaps(model, guide, split, how=Refinement(300), samples=2000)
    within(found.amortised, amortised)
    within(found.refined, refined)
    within(found.approximation, evidence - refined)
    within(found.amortisation, refined - amortised)
    assert (evidence - refined).mean() > 10 * SETTLED  # there is a gap to find


def test_a_bent_gaussian_comes_closer_to_the_ring_than_any_other() -> None:
    model, guide = ring(noise=0.3, learn=False)
    found = inference_gaps(model, guide, RingCorpus(size=8, noise=0.3).train, family="full", richer="planar")
    assert found.richer is not None
    gain = found.richer - found.refined
    assert gain.mean.mean > 0.05 and gain.mean.mean > 4 * gain.mean.standard_error
    assert found.richer_approximation is not None and found.richer_approximation.mean.mean > -0.02


@pytest.mark.parametrize("family", FAMILIES)
def test_a_refinement_begins_where_the_guide_is(family: str) -> None:
    loc = torch.randn(4, 3)
    lower = torch.randn(4, 3, 3).tril(-1) + torch.diag_embed(torch.rand(4, 3) + 0.5)
    means, factors = OwnPosteriors("z", family, loc, lower).gaussian()
    covariance = lower @ lower.mT
    if family == "mean-field":
        covariance = torch.diag_embed(covariance.diagonal(dim1=-2, dim2=-1))
    torch.testing.assert_close(means, loc)
    torch.testing.assert_close(factors @ factors.mT, covariance)


# ---- text ------------------------------------------------------------------------------------------------------------


def text_gaps(**options: Any) -> InferenceGaps:
    return inference_gaps(*vae(), text(6), how=Refinement(60), samples=300, **options)


def test_a_sentence_vae_is_split_by_importance_sampling_and_left_as_it_was() -> None:
    (model, guide), state = vae(), torch.get_rng_state()
    before = parameters(model, guide)
    known = importance_nll(model, guide, text(6), 500)
    found = inference_gaps(model, guide, text(6), log_evidence=known, how=Refinement(60), samples=300)
    assert found.method == "500 importance samples" and text_gaps().method == "300 importance samples"
    assert (found.log_evidence.value == -known.nll).all()
    assert found.amortisation.mean.mean > 4 * found.amortisation.mean.standard_error  # an untrained guide
    assert (found.approximation.value > -5 * found.approximation.error).all()
    assert found.progress.shape == (60,) and found.progress[-20:].mean() > found.progress[:20].mean()
    assert same(before, parameters(model, guide)) and torch.equal(state, torch.get_rng_state())
    assert all(p.requires_grad and p.grad is None for p in [*model.parameters(), *guide.parameters()])
    assert list(found.rows()) == [
        "log p(x), 500 importance samples",
        "ELBO of the guide",
        "amortisation gap",
        "approximation gap, mean-field",
    ]


def test_a_model_is_frozen_only_meanwhile() -> None:
    model, guide = vae()
    model.train()
    model.head.bias.requires_grad_(False)
    before, state = parameters(model, guide), torch.get_rng_state()
    with differentiable(model, guide, 0):
        assert not any(p.requires_grad for p in model.parameters()) and torch.is_grad_enabled()
        assert not model.training
    assert model.training and torch.equal(state, torch.get_rng_state())
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["head.bias"]
    nuts_posterior(model, text(4).batch(np.array([0])), draws=4, chains=2, warmup=4, limit=math.inf)
    assert same(before, parameters(model, guide)) and all(p.grad is None for p in model.parameters())


def test_a_class_beside_z_is_summed_out_if_the_guide_allows_it() -> None:
    found = inference_gaps(*styled(joint=False), text(4), how=Refinement(30), samples=100)
    assert (found.approximation.value > -5 * found.approximation.error).all()
    with pytest.raises(StructureError, match=r"the guide's 'z' depends on a draw of \['c'\]: make it independent"):
        inference_gaps(*styled(), text(4))


def test_the_data_of_gaps_are_over_documents_in_nats() -> None:
    model = LinearGaussian()
    found = inference_gaps(model, GaussianFor(model, diagonal=True), model.split(4), how=Refinement(5), richer="full")
    data = found.to_xarray()
    assert data.sizes == {"document": 4, "step": 5} and data["progress"].dims == ("step",)
    assert data.attrs == {"method": "grid", "family": "mean-field", "richer_family": "full"}
    np.testing.assert_array_equal(data["approximation"], found.approximation.value)
    np.testing.assert_array_equal(data["amortisation_error"], found.amortisation.error)
    assert {variable.attrs["units"] for variable in data.data_vars.values()} == {"nats"}
    assert {"richer", "richer_approximation"} <= set(data.data_vars)


def test_one_document_has_gaps_and_no_error_of_their_mean() -> None:
    found = inference_gaps(*vae(), text(1), how=Refinement(5), samples=20)
    assert np.isfinite(found.amortisation.mean.mean) and np.isnan(found.amortisation.mean.standard_error)


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: (vae()[0], None), {}, "SentenceVAE was given without a guide"),
        (lambda: (lm(), vae()[1]), {}, "SentenceLM has no continuous latent to refer to"),
        (discrete, {}, "DiscreteSentence has no continuous latent to refer to: class_posteriors is exact"),
        (vae, {"samples": 1}, "1 samples of 4 documents: at least 2, and one log p"),
        (vae, {"family": "normal"}, "'normal' is no family; from poor to rich there are mean-field, full, planar"),
        (vae, {"richer": "mean-field"}, "'mean-field' is not richer than 'mean-field'"),
    ],
)
def test_what_has_no_gaps_is_refused_in_a_line(make: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        inference_gaps(*make(), text(4), **options)


def test_a_point_guide_has_no_gaps() -> None:
    with pytest.raises(NoDensityError, match="site 'z' has a point guide"):
        inference_gaps(*autoencoder(), text(4))


def test_no_documents_have_no_gaps() -> None:
    with pytest.raises(ValueError, match="^the split has no documents$"):
        inference_gaps(*vae(), text(3).take(np.array([], int)))


def test_the_evidence_of_other_documents_is_refused() -> None:
    known = importance_nll(*vae(), text(3), 20)
    with pytest.raises(ValueError, match="of 4 documents, log_evidence of 3 documents"):
        inference_gaps(*vae(), text(4), log_evidence=known)
