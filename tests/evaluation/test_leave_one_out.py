"""Leaving a document out: against closed forms for shared and for local latents, and against ArviZ's own."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from pyro_nlp.evaluation import NoDensityError, importance_diagnostics
from pyro_nlp.evaluation._arviz import has_inference_data, load, to_arviz
from pyro_nlp.evaluation.leave_one_out import Loo, loo, loo_of_draws
from tests.evaluation.test_references import GaussianFor, LinearGaussian
from tests.tiny import autoencoder, lm, mixture, styled, text, vae

# ---- a latent that all documents share -------------------------------------------------------------------------------

PRIOR, NOISE = 2.0, 1.0


class SharedMean:
    """x_n ~ N(mu, 1), mu ~ N(0, 4): the posterior, and what the others say of each, in closed form."""

    def __init__(self, count: int = 12) -> None:
        self.x = np.random.default_rng(5).normal(0.7, NOISE, count)

    def posterior(self, x: np.ndarray) -> tuple[float, float]:
        """Mean and standard deviation of mu."""
        precision = PRIOR**-2 + len(x) * NOISE**-2
        return float(x.sum() / NOISE**2 / precision), precision**-0.5

    def exact(self) -> np.ndarray:
        """log p(x_n | the others)."""
        parts = []
        for n, value in enumerate(self.x):
            mean, deviation = self.posterior(np.delete(self.x, n))
            parts.append(stats.norm(mean, math.hypot(deviation, NOISE)).logpdf(value))
        return np.array(parts)

    def draws(self, count: int, rng: Any, shift: float = 0.0, stretch: float = 1.0) -> Any:
        """Log-likelihoods, log p and log q of draws of a Gaussian that may not be the posterior."""
        mean, deviation = self.posterior(self.x)
        q = stats.norm(mean + shift, stretch * deviation)
        mu = q.rvs(count, random_state=rng)
        log_likelihood = stats.norm(mu[:, None], NOISE).logpdf(self.x)
        return log_likelihood, stats.norm(0, PRIOR).logpdf(mu) + log_likelihood.sum(1), q.logpdf(mu)


@pytest.mark.parametrize(("shift", "stretch"), [(0.0, 1.0), (0.15, 1.3), (-0.1, 0.9)])
def test_a_shared_latent_leaves_out_what_the_closed_form_leaves_out(shift: float, stretch: float) -> None:
    model, rng = SharedMean(), np.random.default_rng(1)
    runs = [loo_of_draws(*model.draws(1000, rng, shift, stretch)) for _ in range(60)]
    found = np.stack([run.elpd for run in runs])
    error = found.std(0, ddof=1)
    # a ratio of means of S draws is off by the order of its variance
    assert (np.abs(found.mean(0) - model.exact()) < 4.5 * error / math.sqrt(60) + error**2).all()
    assert np.mean([run.pareto_k for run in runs], 0).max() < 0.7


def test_without_a_correction_the_draws_of_a_wrong_guide_answer_wrongly() -> None:
    model = SharedMean()
    log_likelihood, log_p, log_q = model.draws(4000, np.random.default_rng(1), shift=0.5)
    wrong, right = loo_of_draws(log_likelihood), loo_of_draws(log_likelihood, log_p, log_q)
    assert np.abs(right.elpd - model.exact()).max() < np.abs(wrong.elpd - model.exact()).max() / 4


@pytest.mark.parametrize("draws", [400, 900])
def test_draws_of_the_posterior_give_what_arviz_gives(draws: int) -> None:
    log_likelihood = SharedMean().draws(draws, np.random.default_rng(2))[0]
    given = to_arviz({"posterior": {"mu": np.zeros((1, draws))}, "log_likelihood": {"x": log_likelihood[None]}})
    wanted, found = load().loo(given, pointwise=True), loo_of_draws(log_likelihood)
    np.testing.assert_allclose(found.pareto_k, wanted.pareto_k, atol=1e-9)
    if not hasattr(wanted, "loo_i"):
        pytest.skip("ArviZ 1.x names its numbers otherwise")
    np.testing.assert_allclose(found.elpd, wanted.loo_i, atol=1e-9)
    ours = found.to_arviz()
    for name in ("elpd_loo", "se", "p_loo", "good_k"):
        assert ours[name] == pytest.approx(wanted[name], rel=1e-9)
    assert list(ours.index) == list(wanted.index) and str(ours) == str(wanted)


# ---- latents of the documents themselves -----------------------------------------------------------------------------


def test_without_a_document_there_is_the_prior_of_its_latent() -> None:
    model = LinearGaussian()
    split, guide = model.split(8), GaussianFor(model, stretch=1.2)
    found = loo(model, guide, split, 4000, chunk=10**5)
    known = importance_diagnostics(model, guide, split, 4000, chunk=10**5)
    exact = model.log_evidence(split.values).numpy()
    assert (np.abs(found.elpd - exact) < 5 * known.standard_error).all()
    np.testing.assert_allclose(found.elpd, -known.nll_smoothed, rtol=1e-9)  # draw for draw
    np.testing.assert_array_equal(found.pareto_k, known.pareto_k)


def test_what_draws_that_saw_the_document_say_of_it_is_the_closed_form() -> None:
    model = LinearGaussian()
    split, guide = model.split(8), GaussianFor(model)
    q, weight = guide.posterior(split.values), model.weight.detach()
    spread = weight @ q.covariance_matrix @ weight.T + model.noise**2 * torch.eye(3)
    seen = torch.distributions.MultivariateNormal(q.mean @ weight.T, spread).log_prob(split.values).numpy()
    runs = [loo(model, guide, split, 400, seed=seed, chunk=10**5) for seed in range(40)]
    lpd = np.stack([run.lpd for run in runs])
    error = lpd.std(0, ddof=1)
    assert (np.abs(lpd.mean(0) - seen) < 4.5 * error / math.sqrt(40) + error**2).all()
    # under the exact posterior every weight is p(x), and p_loo is what a document says of itself
    np.testing.assert_allclose(runs[0].elpd, model.log_evidence(split.values), atol=1e-4)
    assert runs[0].p_loo == pytest.approx(float((lpd[0] - runs[0].elpd).sum()), rel=1e-9) and runs[0].p_loo > 0


def test_a_class_beside_a_code_is_summed_out() -> None:
    (model, guide), split = styled(), text(6)
    found = loo(model, guide, split, 60)
    np.testing.assert_allclose(found.elpd, -importance_diagnostics(model, guide, split, 60).nll_smoothed, rtol=1e-9)
    assert np.isfinite(found.lpd).all() and found.draws == 60


def test_arviz_compares_models_by_it() -> None:
    model = LinearGaussian()
    split = model.split(30)
    found = {
        name: loo(model, GaussianFor(model, stretch=stretch), split, 300, chunk=10**5)
        for name, stretch in (("right", 1.0), ("wide", 1.5))
    }
    found["other"] = loo(LinearGaussian(noise=3.0), GaussianFor(model, stretch=3.0), split, 300, chunk=10**5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of ArviZ, on its own next version
        table = load().compare({name: one.to_arviz() for name, one in found.items()})
    assert table.index[-1] == "other"
    if has_inference_data():  # 1.x rounds what it prints
        for name, one in found.items():
            assert table.loc[name, "elpd_loo"] == pytest.approx(one.elpd_loo, rel=1e-9)
            assert table.loc[name, "p_loo"] == pytest.approx(one.p_loo, rel=1e-9)


def test_the_data_say_their_dimensions_and_units() -> None:
    found = Loo(np.array([-1.0, -2.0]), np.array([-0.5, -1.0]), np.array([0.1, 0.9]), 100)
    data = found.to_xarray()
    assert data["elpd"].dims == ("document",) and data["elpd"].attrs["units"] == "nats"
    assert data.attrs == {"elpd_loo": -3.0, "se": 2**0.5 * 0.5, "p_loo": 1.5, "draws": 100, "good_k": 0.5}
    assert found.rows() == {"elpd_loo": "-3.00 ± 0.71", "p_loo": "1.50", "k-hat above 0.50": "50.0% of documents"}


# ---- refused ---------------------------------------------------------------------------------------------------------


def test_one_document_has_an_elpd_and_no_error() -> None:
    found = loo(*vae(), text(1), 30)
    assert np.isfinite(found.elpd_loo) and math.isnan(found.se)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: loo(*vae(), text(3), 1), "^1 draws are too few to fit a tail: k-hat needs at least 21"),
        (lambda: loo(lm(), None, text(3)), "^SentenceLM draws no latent of a guide: importance_nll"),
        (lambda: loo(*mixture(), text(3)), "^SentenceMixture draws no latent of a guide: importance_nll"),
        (lambda: loo(*vae(), text(3).take(np.array([], int))), "^the split has no documents$"),
        (lambda: loo_of_draws(np.zeros(30)), r"^log_likelihood has shape \(30,\): give \[draws, documents\]"),
        (
            lambda: loo_of_draws(np.zeros((30, 2)), np.zeros(30)),
            r"shape \(30, 2\): give .*, and both densities or none$",
        ),
        (
            lambda: loo_of_draws(np.zeros((30, 2)), np.zeros(3), np.zeros(30)),
            r"^log_p \(3,\) and log_q \(30,\): one of",
        ),
        (lambda: loo_of_draws(np.full((30, 2), np.nan)), "^document 0: 30 of 30 importance weights are NaN$"),
        (lambda: loo_of_draws(np.zeros((1, 2))), "^1 draws are too few"),
    ],
)
def test_what_cannot_be_left_out_is_refused_in_a_line(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_point_guide_is_refused() -> None:
    with pytest.raises(NoDensityError, match="site 'z' has a point guide"):
        loo(*autoencoder(), text(3), 30)


def test_nan_names_the_document_and_what_made_it() -> None:
    model = LinearGaussian()
    split = model.split(4)
    split.values[2] = torch.nan
    with pytest.raises(ValueError, match="^document 2: 30 of 30 importance weights are NaN"):
        loo(model, GaussianFor(model), split, 30)
