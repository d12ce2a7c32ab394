"""Importance diagnostics: against ArviZ's own smoothing, known tails, and quadrature on the ring."""

from __future__ import annotations

import math
import warnings
from functools import cache
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from scipy import stats
from torch import Tensor

from pyro_nlp.data.splits import VectorSplit
from pyro_nlp.data.toy import Ring as RingCorpus
from pyro_nlp.evaluation import NoDensityError, importance_nll
from pyro_nlp.evaluation._arviz import has_inference_data, load
from pyro_nlp.evaluation.importance import (
    SMALLEST,
    ImportanceDiagnostics,
    effective_draws,
    importance_diagnostics,
    log_mean,
    pareto_smooth,
)
from pyro_nlp.models.ring import Ring
from tests.evaluation.test_references import GaussianFor, LinearGaussian
from tests.tiny import autoencoder, discrete, lm, mixture, parameters, same, styled, text, vae

# ---- the smoothing -------------------------------------------------------------------------------------------------


def arviz_psislw(log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normalised smoothed log-weights `[S, N]` and k `[N]` by ArviZ, one document after the other.

    ArviZ 0.x takes log-weights. `arviz_stats` 1.x takes log-likelihoods and negates them; it is not exercised on
    Python 3.11, which it does not run on.
    """
    arviz = load()
    if has_inference_data():
        smoothed, k = arviz.psislw(log_weights.T.copy())
    else:
        from arviz_stats.base import array_stats

        smoothed, k = array_stats.psislw(-log_weights.T, axis=-1)
    return np.asarray(smoothed).T, np.asarray(k)


def weights(kind: str, draws: int, documents: int = 40) -> np.ndarray:
    rng = np.random.default_rng(draws)
    normal = rng.standard_normal((draws, documents))
    return {
        "of many spreads": normal * np.geomspace(0.01, 8, documents),
        "heavy": rng.standard_t(3, (draws, documents)) * 3,
        "far from zero": normal - 1e4,
        "that underflow": normal * 150,
        "in float32": (normal * 2).astype(np.float32),
        "with zeros": np.where(rng.random((draws, documents)) < 0.3, -np.inf, normal),
    }[kind]


KINDS = ("of many spreads", "heavy", "far from zero", "that underflow", "in float32", "with zeros")


@pytest.mark.parametrize("draws", [100, 400, 900])  # tails on which the versions of ArviZ agree: 20, 60, 90
@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_smoothed_as_by_arviz(kind: str, draws: int) -> None:
    given = weights(kind, draws)
    before = given.copy()
    with np.errstate(divide="ignore"):
        smoothed, k = arviz_psislw(given.astype(np.float64))
    found = pareto_smooth(given)
    np.testing.assert_array_equal(given, before)
    np.testing.assert_allclose(found.pareto_k, k, atol=1e-11)
    normalised = found.log_weights - log_mean(found.log_weights) - math.log(draws)
    np.testing.assert_allclose(normalised, smoothed, atol=1e-10)


@pytest.mark.parametrize("draws", [21, 22, 57, 500, 1001])
def test_tails_of_any_size_are_those_of_arviz(draws: int) -> None:
    if not has_inference_data():
        pytest.skip("ArviZ 1.x rounds the size of the tail the other way")
    given = weights("heavy", draws)
    np.testing.assert_allclose(pareto_smooth(given).pareto_k, arviz_psislw(given)[1], atol=1e-11)


def test_tied_weights_make_the_tail_shorter_as_in_arviz() -> None:
    given = np.round(weights("heavy", 400), 1)
    assert all(len(np.unique(column)) < 300 for column in given.T)
    smoothed, k = arviz_psislw(given)
    found = pareto_smooth(given)
    np.testing.assert_allclose(found.pareto_k, k, atol=1e-11)
    mine = found.log_weights - log_mean(found.log_weights) - math.log(400)
    np.testing.assert_allclose(np.sort(mine, 0), np.sort(smoothed, 0), atol=1e-10)  # equal weights in any order


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.7, 1.0, 1.5])
def test_the_shape_of_pareto_weights_is_found(shape: float) -> None:
    draws, documents = 2000, 400
    uniform = np.random.default_rng(7).random((draws, documents))
    found = pareto_smooth(-shape * np.log(uniform)).pareto_k  # P(w > t) = t^(-1 / shape)
    tail = math.ceil(3 * math.sqrt(draws))
    prior = (tail * shape + 10 * 0.5) / (tail + 10)  # what ten observations of 1/2 make of it
    error = (1 + shape) / math.sqrt(tail)  # asymptotic, of the maximum likelihood estimate
    assert found.mean() == pytest.approx(prior, abs=0.2 * error + 4 * error / math.sqrt(documents))
    assert found.std() == pytest.approx(error * tail / (tail + 10), rel=0.25)


# ---- Gaussians -------------------------------------------------------------------------------------------------------
#
# Draws z of N(0, s^2) for a target N(0, 1) in one dimension have the weight exp(c u^2 / 2), u = z / s, c = 1 - s^2.
# P(w > t) = P(|u| > sqrt(2 log(t) / c)), which falls like t^(-1 / c) but for a root of log(t): the tail has k = c.
# Where q is wider than the target, c < 0 and the weights are bounded. In two dimensions u^2 / 2 is exponential, and the
# tail is exactly Pareto. With several scales the widest mismatch decides: a product's tail is that of its heaviest.


def local_shape(c: float, share: float) -> float:
    """k of the excesses above the threshold that `share` of the weights exceed: the slope of the reciprocal hazard.

    With x the threshold of |u|, and m its hazard rate phi / Q: (1 / h) = c t x / m(x), by t.
    """
    x = stats.norm.isf(share / 2)
    m = stats.norm.pdf(x) / stats.norm.sf(x)
    return float(c * x / m + (1 / m) * (1 - x * (m - x)) / x)


@pytest.mark.parametrize("scale", [0.45, 0.6, 0.8])
def test_k_hat_of_a_narrow_gaussian_is_what_its_tail_has(scale: float) -> None:
    draws, documents = 20_000, 60
    u = np.random.default_rng(3).standard_normal((draws, documents))
    c = 1 - scale**2
    found = pareto_smooth(c * u**2 / 2).pareto_k
    tail = math.ceil(3 * math.sqrt(draws))
    error = (1 + c) / math.sqrt(tail * documents)
    shrink = 10 * abs(0.5 - c) / (tail + 10)  # of the prior on k
    # above the threshold the local shape rises from its value there to the limit c
    assert local_shape(c, tail / draws) - 4 * error - shrink < found.mean() < c + 4 * error + shrink
    assert local_shape(c, tail / draws) > 0.75 * c


@pytest.mark.parametrize("scales", [(0.5, 0.5), (0.5, 0.95), (0.95, 0.5), (0.5, 3.0)])
def test_the_narrowest_dimension_decides_the_tail(scales: tuple[float, float]) -> None:
    u = np.random.default_rng(3).standard_normal((20_000, 60, 2))
    log_weights = ((1 - np.array(scales) ** 2) * u**2 / 2).sum(-1)
    one = pareto_smooth((1 - 0.25) * u[..., 0] ** 2 / 2).pareto_k.mean()
    found = pareto_smooth(log_weights).pareto_k.mean()
    error = 1.75 / math.sqrt(math.ceil(3 * math.sqrt(20_000)) * 60)
    # a second dimension as narrow makes the tail exactly Pareto; another only changes the threshold that is passed
    assert one - 6 * error < found < 0.75 + 6 * error if scales[1] < 1 else found < 0.75 + 6 * error


@pytest.mark.parametrize("stretch", [0.5, 0.7, 0.9])
def test_k_hat_of_a_model_whose_guide_is_narrow_all_round_is_one_less_its_share_of_the_variance(stretch: float) -> None:
    model = LinearGaussian()
    split, draws = model.split(40), 2000
    found = importance_diagnostics(model, GaussianFor(model, stretch=stretch), split, draws, chunk=10**5).pareto_k
    k, tail = 1 - stretch**2, math.ceil(3 * math.sqrt(draws))
    wanted = (tail * k + 10 * 0.5) / (tail + 10)
    error = (1 + k) / math.sqrt(tail)
    # as for Pareto weights: the fit's own bias is below a fifth of its error
    assert found.mean() == pytest.approx(wanted, abs=0.2 * error + 4 * error / math.sqrt(len(split)))


def test_a_guide_that_is_too_wide_has_bounded_weights_and_a_negative_k_hat() -> None:
    model = LinearGaussian()
    found = importance_diagnostics(model, GaussianFor(model, stretch=1.5), model.split(20), 1000, chunk=10**5)
    assert (found.pareto_k < 0).all() and not found.summary().warnings


def test_a_guide_that_reaches_one_draw_of_the_posterior_says_so_and_not_a_number() -> None:
    model = LinearGaussian(noise=1e-3)
    found = importance_diagnostics(model, GaussianFor(model, prior=True), model.split(5), 200)
    lost = np.isinf(found.pareto_k) & (found.ess < 5)
    assert lost.all()  # weights e^-1000 and less beside the largest are zero
    assert "5 of 5 documents (the first is 0) have fewer than 5 weights that count among 200" in str(found.summary())


def test_smoothing_trades_a_little_bias_for_most_of_the_noise() -> None:
    # w = exp(u^2 / 3), u normal: k = 2/3, the variance is infinite, and the mean is sqrt(3)
    u = np.random.default_rng(0).standard_normal((500, 2000))
    raw, smooth = (np.exp(log_mean(w)) - math.sqrt(3) for w in (u**2 / 3, pareto_smooth(u**2 / 3).log_weights))
    assert np.square(smooth).mean() < 0.5 * np.square(raw).mean()
    assert -0.05 * math.sqrt(3) < smooth.mean() < 0


def test_no_smoothed_weight_is_above_the_largest_and_none_below_the_tail_changes() -> None:
    given = weights("heavy", 400)
    found = pareto_smooth(given).log_weights
    assert (found.max(0) <= given.max(0) + 1e-12).all()
    changed = (np.abs(found - given) > 1e-9).sum(0)
    assert (changed <= 60).all() and (changed > 50).all()
    body = given <= np.sort(given, 0)[-61]
    np.testing.assert_array_equal(found[body], given[body])


def test_chunks_and_neighbours_change_nothing() -> None:
    given = np.concatenate([weights(kind, 100, 10) for kind in KINDS], 1)
    whole = pareto_smooth(given)
    for other in (pareto_smooth(given, chunk=1), pareto_smooth(given, chunk=10**4)):
        np.testing.assert_array_equal(other.pareto_k, whole.pareto_k)
        np.testing.assert_array_equal(other.log_weights, whole.log_weights)
    alone = pareto_smooth(given[:, 17:18])
    np.testing.assert_array_equal(alone.pareto_k, whole.pareto_k[17:18])


def test_equal_weights_have_no_tail() -> None:
    noise = np.random.default_rng(0).standard_normal((100, 3)) * 1e-7
    given = np.stack([np.full(100, -3.0), *(-50 * (1 + noise)).T], 1)  # and equal but for float32
    found = pareto_smooth(given)
    np.testing.assert_array_equal(found.pareto_k, -np.inf)
    np.testing.assert_allclose(found.log_weights, given)
    np.testing.assert_allclose(effective_draws(given), 100)


def test_weights_all_but_one_zero_have_no_tail_that_can_be_fitted() -> None:
    given = np.full((100, 3), -np.inf)
    given[3, 0] = -4.0
    given[:, 1] = -1000.0  # underflows beside
    given[5, 1] = 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = pareto_smooth(given)
    np.testing.assert_array_equal(found.pareto_k, np.inf)
    np.testing.assert_array_equal(found.log_weights, given)
    np.testing.assert_allclose(effective_draws(given), [1, 1, 0])
    np.testing.assert_allclose(log_mean(given), [-4 - math.log(100), -math.log(100), -np.inf])


@pytest.mark.parametrize(("value", "what"), [(np.nan, "NaN"), (np.inf, "infinite")])
def test_a_weight_that_is_no_number_is_refused_by_its_document(value: float, what: str) -> None:
    given = weights("heavy", 100)
    given[3:5, 7] = value
    with pytest.raises(ValueError, match=rf"^document 7: 2 of 100 importance weights are {what}$"):
        pareto_smooth(given)


def test_too_few_draws_are_refused_with_the_least_number() -> None:
    with pytest.raises(ValueError, match="^20 draws are too few to fit a tail: k-hat needs at least 21, better 500$"):
        pareto_smooth(np.zeros((20, 2)))
    assert SMALLEST == 21 and np.isfinite(pareto_smooth(weights("heavy", 21)).pareto_k).all()


# ---- the ring ------------------------------------------------------------------------------------------------------

NOISE = 0.1


class ByHand(PyroModule):
    """A Gaussian for every document, set and not learnt."""

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        super().__init__()
        self.mean, self.lower = mean.float(), torch.linalg.cholesky(covariance).float()

    def forward(self, batch: Any) -> None:
        with batch.documents():
            lower = self.lower[batch.index]
            pyro.sample("z", dist.MultivariateNormal(self.mean[batch.index], scale_tril=lower))


@cache
def exact() -> tuple[VectorSplit, np.ndarray, Tensor, Tensor]:
    split = RingCorpus(size=24, noise=NOISE).train
    evidence, mean, covariance = Ring(NOISE).quadrature(split.values, points=400, reach=5.0)
    return split, evidence.numpy(), mean, covariance


@cache
def judged(guide: str, draws: int = 1000) -> ImportanceDiagnostics:
    split, _, mean, covariance = exact()
    covariances = {
        "full": covariance,
        # what the ELBO makes of a mean-field guide: the precisions of the posterior
        "mean-field": torch.diag_embed(1 / torch.linalg.inv(covariance).diagonal(dim1=1, dim2=2)),
        "narrow": 0.09 * covariance,
    }
    model = Ring(NOISE)
    return importance_diagnostics(model, ByHand(mean, covariances[guide]), split, draws, batch_size=24, chunk=10**5)


def test_k_hat_tells_a_guide_that_fits_the_ring_from_a_mean_field_one() -> None:
    good, poor = judged("full"), judged("mean-field")
    assert (good.pareto_k < 0.7).all() and (good.pareto_k > 0.7).mean() == 0
    assert (poor.pareto_k > 0.7).mean() > 0.3  # a posterior along an axis is fitted by either
    assert np.median(poor.pareto_k) > np.median(good.pareto_k) + 0.3
    assert good.ess.mean() > 2 * poor.ess.mean()
    assert not good.summary().warnings
    assert "documents (the first is" in poor.summary().warnings[0]


def test_the_smoothed_nll_is_within_its_error_of_quadrature_where_k_hat_is_low() -> None:
    _, evidence, _, _ = exact()
    found = judged("full")
    for nll in (found.nll, found.nll_smoothed):
        error = nll + evidence
        assert (np.abs(error) < 5 * found.standard_error).all()  # each of 24 documents
        assert abs(error.mean()) < 4 * np.sqrt((found.standard_error**2).sum()) / len(error)


def test_a_narrow_guide_is_off_by_more_than_its_error_and_k_hat_says_so() -> None:
    _, evidence, _, _ = exact()
    found = judged("narrow")
    assert (found.pareto_k > 0.6).all()
    assert (np.abs(found.nll + evidence) > 2 * found.standard_error).mean() > 0.5
    summary = found.summary()
    assert summary.above > 0.7 and summary.above_threshold >= summary.above
    assert "widen the guide or draw more" in str(summary)


def test_smoothing_is_closer_to_the_truth_where_the_tail_is_heavy() -> None:
    _, evidence, _, _ = exact()
    found = judged("narrow")
    raw, smooth = (np.abs(nll + evidence).mean() for nll in (found.nll, found.nll_smoothed))
    assert smooth <= raw * 1.02


# ---- whole models --------------------------------------------------------------------------------------------------


def test_the_nll_is_that_of_importance_nll_draw_for_draw() -> None:
    (model, guide), split = vae(), text(12)
    for options in ({}, {"batch_size": 5, "chunk": 60}, {"seed": 3}):
        found = importance_diagnostics(model, guide, split, 40, **options)
        wanted = importance_nll(model, guide, split, 40, **options)
        np.testing.assert_allclose(found.nll, wanted.nll, rtol=1e-12)
        np.testing.assert_allclose(found.standard_error, wanted.standard_error, rtol=1e-9)
        assert found.draws == 40


def test_everything_is_per_document_and_in_the_order_of_the_corpus() -> None:
    (model, guide), split = vae(), text(12)
    state, before = torch.get_rng_state(), parameters(model, guide)
    model.train()
    found = importance_diagnostics(model, guide, split, 50, batch_size=12, chunk=10**6)
    assert model.training and torch.equal(torch.get_rng_state(), state) and same(before, parameters(model, guide))
    for name in ("pareto_k", "ess", "ess_smoothed", "nll", "nll_smoothed", "standard_error"):
        assert getattr(found, name).shape == (12,) and np.isfinite(getattr(found, name)).all()
    assert (found.ess >= 1).all() and (found.ess <= 50).all()
    np.testing.assert_allclose(found.standard_error**2, 1 / found.ess - 1 / 50, rtol=1e-9)
    backwards = split.take(np.arange(12)[::-1])
    other = importance_diagnostics(model, guide, backwards, 50, batch_size=12)
    error = np.hypot(found.standard_error, other.standard_error[::-1])
    assert (np.abs(other.nll[::-1] - found.nll) < 5 * error).all()


def test_one_document_is_enough() -> None:
    model, guide = vae()
    summary = importance_diagnostics(model, guide, text(12).take(np.array([4])), 30).summary()
    assert summary.documents == 1 and len(set(summary.pareto_k.values())) == 1


@pytest.mark.parametrize("made", [mixture, discrete])
def test_a_model_whose_latents_are_summed_out_has_exact_weights(made: Any) -> None:
    (model, guide), split = made(), text(8)
    for given in (guide, None):
        found = importance_diagnostics(model, given, split, 1)  # however few: none are drawn
        assert found.draws == 0
        np.testing.assert_array_equal(found.pareto_k, -np.inf)
        np.testing.assert_array_equal(found.ess, np.inf)
        np.testing.assert_allclose(found.nll, importance_nll(model, given, split).nll, rtol=1e-12)
        np.testing.assert_array_equal(found.nll, found.nll_smoothed)
        assert not found.standard_error.any() and not found.summary().warnings
        assert str(found.summary()) == "importance weights: exact, of 8 documents (k-hat -inf)"


def test_the_data_say_their_dimensions_and_units() -> None:
    found = importance_diagnostics(*vae(), text(5), 30)
    data = found.to_xarray()
    assert data.sizes == {"document": 5} and data.attrs == {"draws": 30}
    assert {name: data[name].attrs["units"] for name in ("nll", "ess", "pareto_k")} == {
        "nll": "nats",
        "ess": "draws",
        "pareto_k": "1",
    }
    np.testing.assert_array_equal(data["nll_smoothed"], found.nll_smoothed)


def test_a_class_beside_a_code_is_summed_out() -> None:
    (model, guide), split = styled(), text(8)
    found = importance_diagnostics(model, guide, split, 60)
    assert found.draws == 60 and np.isfinite(found.pareto_k).all()
    np.testing.assert_allclose(found.nll, importance_nll(model, guide, split, 60).nll, rtol=1e-12)


def test_a_point_guide_is_refused() -> None:
    model, guide = autoencoder()
    with pytest.raises(NoDensityError, match=r"site 'z' has a point guide \(Delta\): it has no density"):
        importance_diagnostics(model, guide, text(5), 30)


@pytest.mark.parametrize("draws", [0, 1, 20])
def test_few_draws_are_refused_before_any_is_taken(draws: int) -> None:
    with pytest.raises(ValueError, match=f"^{draws} draws are too few to fit a tail: k-hat needs at least 21"):
        importance_diagnostics(*vae(), text(5), draws)


def test_a_model_without_latents_is_refused() -> None:
    with pytest.raises(ValueError, match="^SentenceLM has no latents, so there is no guide to judge: importance_nll"):
        importance_diagnostics(lm(), None, text(5))


def test_no_documents_are_refused() -> None:
    with pytest.raises(ValueError, match="the split has no documents"):
        importance_diagnostics(*vae(), text(5).take(np.array([], int)))


def test_nan_names_the_document() -> None:
    split, _, mean, covariance = exact()
    mean = mean.clone()
    mean[5] = torch.nan
    with pytest.raises(ValueError, match=r"^document 5: 30 of 30 importance weights are NaN: the distribution of 'z'"):
        importance_diagnostics(Ring(NOISE), ByHand(mean, covariance), split, 30)


def test_a_guide_that_misses_the_posterior_is_told_in_the_summary_and_not_by_a_number() -> None:
    found = ImportanceDiagnostics(
        pareto_k=np.array([0.2, np.inf, np.inf, 0.9]),
        ess=np.array([90.0, 1.0, 60.0, 5.0]),
        ess_smoothed=np.array([90.0, 1.0, 60.0, 6.0]),
        nll=np.ones(4),
        nll_smoothed=np.ones(4),
        standard_error=np.ones(4),
        draws=100,
    )
    summary = found.summary()
    missed, ties, high = summary.warnings
    assert missed.startswith("1 of 4 documents (the first is 1) have fewer than 5 weights that count among 100")
    assert ties.startswith("1 of 4 documents (the first is 2) have fewer than 5 weights above many equal ones")
    assert high.startswith("1 of 4 documents (the first is 3) have k-hat above 0.50: 100 draws are too few")
    assert summary.above == 0.75 and summary.threshold == 0.5
    assert summary.pareto_k[0.5] == 0.9 and summary.pareto_k[1.0] == np.inf  # no NaN between infinities
    assert list(summary.rows())[-3:] == ["warning 1", "warning 2", "warning 3"]


def test_the_threshold_follows_the_draws() -> None:
    limits = {draws: judged("full", draws).summary().threshold for draws in (100, 1000)}
    assert limits[100] == pytest.approx(0.5) and limits[1000] == pytest.approx(2 / 3)
    found = judged("full")
    assert ImportanceDiagnostics(**(vars(found) | {"draws": 10**5})).summary().threshold == 0.7
