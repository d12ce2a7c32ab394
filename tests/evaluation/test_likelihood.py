"""Likelihood: against quadrature on the ring, by hand on a language model, and the arithmetic of perplexity."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.ptb import PTB
from pyro_nlp.data.splits import VectorSplit
from pyro_nlp.data.toy import Ring as RingCorpus
from pyro_nlp.evaluation import NoDensityError, compare, elbo_terms, importance_nll, likelihood, perplexity
from pyro_nlp.guides.mean_field import MeanFieldGuide
from pyro_nlp.inference import terms
from pyro_nlp.models.ring import Ring
from tests.tiny import LATENT, autoencoder, lm, parameters, same, text, vae, whole

NOISE = 0.3
DOCUMENTS = 24


class Towards(PyroModule):
    """A guide set by hand: a Gaussian around the point of the ring nearest to x, with a correlation."""

    def __init__(self, diagonal: bool) -> None:
        super().__init__()
        lower = torch.tensor([[0.9, 0.0], [0.2, 0.7]])
        self.lower = nn.Parameter(torch.diag(torch.tensor([0.9, 0.7])) if diagonal else lower)
        self.diagonal = diagonal

    def posterior(self, values: Tensor) -> Any:
        if self.diagonal:
            return dist.Normal(values, self.lower.diagonal()).to_event(1)
        return dist.MultivariateNormal(values, scale_tril=self.lower)

    def forward(self, batch: Any) -> None:
        with batch.documents():
            pyro.sample("z", self.posterior(batch.values))


@pytest.fixture(scope="module")
def split() -> VectorSplit:
    return RingCorpus(size=DOCUMENTS, noise=NOISE).train


@pytest.fixture(scope="module")
def exact(split: VectorSplit) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log p(x), E[z | x] and Cov[z | x] by quadrature."""
    return tuple(t.numpy() for t in Ring(NOISE).quadrature(split.values, points=300))  # type: ignore[return-value]


def integrated_elbo(guide: Towards, values: Tensor) -> np.ndarray:
    """E_q[log p(x, z) - log q(z)] on a grid, `[B]`."""
    axis = torch.linspace(-5, 5, 301, dtype=torch.float64)
    z = torch.cartesian_prod(axis, axis)
    log_prior = dist.Normal(0.0, 1.0).log_prob(z).sum(-1)
    found = []
    for x in values.double():
        # the guide in float64
        lower = guide.lower.detach().double()
        log_q = torch.distributions.MultivariateNormal(x, scale_tril=lower).log_prob(z)
        log_x = dist.Normal(Ring.bend(z), NOISE).log_prob(x).sum(-1)
        q = log_q.softmax(0)
        found.append(float((q * (log_x + log_prior - log_q)).sum()))
    return np.array(found)


# ---- the ring ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("diagonal", [True, False], ids=["diagonal", "full covariance"])
def test_importance_nll_is_within_its_error_of_the_exact_likelihood(split: Any, exact: Any, diagonal: bool) -> None:
    found = importance_nll(Ring(NOISE), Towards(diagonal), split, 2000)
    error = found.nll + exact[0]
    assert found.samples == 2000 and (found.standard_error > 0).all() and found.standard_error.max() < 0.1
    assert (np.abs(error) < 5 * found.standard_error).all()  # each of 24 documents
    assert abs(error.mean()) < 4 * np.sqrt((found.standard_error**2).sum()) / DOCUMENTS
    assert found.mean == pytest.approx(found.nll.mean())
    assert found.mean_standard_error == pytest.approx(found.nll.std(ddof=1) / DOCUMENTS**0.5)


@pytest.mark.parametrize("diagonal", [True, False], ids=["diagonal", "full covariance"])
def test_the_elbo_equals_its_integral_and_is_below_the_evidence(split: Any, exact: Any, diagonal: bool) -> None:
    guide = Towards(diagonal)
    wanted = integrated_elbo(guide, split.values)
    assert (wanted < exact[0]).all()
    runs = np.stack([elbo_terms(Ring(NOISE), guide, split, 250, seed=s).elbo for s in range(20)])
    error = runs.std(0, ddof=1) / 20**0.5
    assert (np.abs(runs.mean(0) - wanted) < 5 * error).all()  # Student t of 19 degrees, 24 documents


def test_the_posterior_mean_and_covariance_by_importance_sampling_are_those_of_quadrature(
    split: Any, exact: Any
) -> None:
    with torch.no_grad():
        found = terms(Ring(NOISE), Towards(False), whole(split), particles=20_000)
    share = found.log_weight.double().softmax(0)[..., None]
    z = found.sites["z"].value.double()
    mean = (share * z).sum(0)
    error = (share.square() * (z - mean).square()).sum(0).sqrt()
    assert ((mean - torch.tensor(exact[1])).abs() < 5 * error).all()
    outer = (z - mean)[..., :, None] * (z - mean)[..., None, :]
    covariance = (share[..., None] * outer).sum(0)
    error = (share[..., None].square() * (outer - covariance).square()).sum(0).sqrt()
    assert ((covariance - torch.tensor(exact[2])).abs() < 5 * error).all()


def test_more_samples_tighten_the_bound(split: Any, exact: Any) -> None:
    guide = Towards(True)
    gaps = []
    for samples in (1, 10, 100):
        runs = np.stack([importance_nll(Ring(NOISE), guide, split, samples, seed=s).mean for s in range(10)])
        gaps.append(runs.mean() + exact[0].mean())
    assert gaps[0] > gaps[1] > gaps[2] > -0.01
    assert gaps[0] == pytest.approx(exact[0].mean() - integrated_elbo(guide, split.values).mean(), abs=0.3)


def test_its_standard_error_is_the_spread_over_seeds(split: Any) -> None:
    runs = [importance_nll(Ring(NOISE), Towards(False), split, 300, seed=s) for s in range(60)]
    spread = np.stack([r.nll for r in runs]).std(0, ddof=1)
    reported = np.stack([r.standard_error for r in runs]).mean(0)
    # a standard deviation of 60 runs is known to 9 %: 1.5 is more than four of that
    ratio = spread / reported
    assert (ratio < 1.5).all() and (ratio > 1 / 1.5).all()


# ---- the language model ------------------------------------------------------------------------------------------


def by_hand(model: Any, split: Any) -> np.ndarray:
    found = []
    for row in range(len(split)):
        words = [*split.words(row), 2]
        inputs = torch.tensor([[1, *words[:-1]]])
        with torch.no_grad():
            log_p = model.head(model.decoder(torch.zeros(1, 0), inputs)).log_softmax(-1)[0]
        found.append(-float(log_p[torch.arange(len(words)), torch.tensor(words)].double().sum()))
    return np.array(found)


@pytest.mark.parametrize(
    "options", [{}, {"batch_size": 1}, {"batch_size": 7, "chunk": 1}, {"samples": 1, "chunk": 10**6}]
)
def test_a_language_model_is_judged_exactly_whatever_the_batches(options: dict[str, int]) -> None:
    model, split = lm(), text(30)
    found = importance_nll(model, None, split, **options)
    assert found.samples == 0
    assert not found.standard_error.any()
    np.testing.assert_allclose(found.nll, by_hand(model, split), rtol=2e-6)  # and in the order of the corpus


def test_the_elbo_of_a_language_model_is_its_log_likelihood() -> None:
    model, split = lm(), text(30)
    found = elbo_terms(model, None, split)
    assert found.kl == {} and found.kl_per_dimension == {}
    np.testing.assert_allclose(found.elbo, -by_hand(model, split), rtol=2e-6)


# ---- the sentence VAE --------------------------------------------------------------------------------------------


def test_batches_and_chunks_change_the_draws_and_not_their_distribution() -> None:
    (model, guide), split = vae(), text(20)
    reference = importance_nll(model, guide, split, 400)
    for options in ({"batch_size": 3}, {"chunk": 50}, {"batch_size": 20, "chunk": 10**6}):
        other = importance_nll(model, guide, split, 400, seed=1, **options)
        error = np.hypot(reference.standard_error, other.standard_error)
        assert (np.abs(reference.nll - other.nll) < 5 * error).all(), options


def test_a_chunk_that_does_not_divide_the_samples_still_takes_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(
        likelihood, "terms", lambda *a, particles, **k: taken.append(particles) or terms(*a, particles=particles)
    )
    model, guide = vae()
    importance_nll(model, guide, text(8), 100, batch_size=8, chunk=8 * 30)
    assert taken == [30, 30, 30, 10]


def test_results_are_in_the_order_of_the_corpus() -> None:
    (model, guide), split = vae(), text(12)
    together = elbo_terms(model, guide, split)
    for row in (0, 5, 11):
        alone = elbo_terms(model, guide, split.take(np.array([row])))
        np.testing.assert_allclose(alone.kl["z"], together.kl["z"][[row]], rtol=1e-5)
    np.testing.assert_allclose(together.kl_per_dimension["z"].sum(1), together.kl["z"], rtol=1e-5)
    assert together.kl_per_dimension["z"].shape == (12, LATENT)
    np.testing.assert_allclose(together.elbo, together.log_likelihood - together.kl["z"])


def test_draws_depend_on_the_seed_alone_and_nothing_is_left_changed() -> None:
    (model, guide), split = vae(), text(10)
    model.train()
    guide.eval()
    before, state = parameters(model, guide), torch.get_rng_state()
    first = importance_nll(model, guide, split, 20, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    second, third = (importance_nll(model, guide, split, 20, seed=s) for s in (3, 4))
    assert (first.nll == second.nll).all() and not (first.nll == third.nll).any()
    assert same(before, parameters(model, guide))
    assert model.training and not guide.training
    assert all(p.grad is None for p in model.parameters())


def test_dropout_is_off_in_evaluation() -> None:
    (model, guide), split = vae(), text(10)
    model.decoder.output_dropout.p = 0.5
    wet = elbo_terms(model, guide, split)
    model.decoder.output_dropout.p = 0.0
    np.testing.assert_array_equal(wet.elbo, elbo_terms(model, guide, split).elbo)


def test_bf16_equals_float32_to_four_digits_on_the_mean() -> None:
    (model, guide), split = vae(), text(200)
    for judge in (
        lambda precision: importance_nll(model, guide, split, 20, precision=precision).mean,
        lambda precision: importance_nll(lm(), None, split, precision=precision).mean,
        lambda precision: elbo_terms(model, guide, split, precision=precision).elbo.mean(),
    ):
        assert judge("bf16") == pytest.approx(judge("float32"), rel=5e-4)
        assert judge("bf16") != judge("float32")


def test_a_point_guide_has_no_density() -> None:
    model, guide = autoencoder()
    with pytest.raises(NoDensityError, match=r"site 'z' has a point guide \(Delta\): it has no density"):
        importance_nll(model, guide, text(5), 10)


def test_a_mean_field_guide_judges_its_own_documents() -> None:
    (model, _), split = vae(), text(6)
    found = importance_nll(model, MeanFieldGuide(6, LATENT), split, 500)
    amortised = importance_nll(model, vae()[1], split, 500)
    error = np.hypot(found.standard_error, amortised.standard_error)
    assert (np.abs(found.nll - amortised.nll) < 5 * error).all()  # one likelihood, two proposals


# ---- perplexity and comparison -----------------------------------------------------------------------------------


def test_perplexity_has_the_arithmetic_of_the_published_ptb_numbers() -> None:
    sentences, tokens = 3761, 78_669 + 3_761
    assert tokens / sentences == pytest.approx(21.917, abs=5e-4)
    assert round(perplexity(np.full(sentences, 101.92), tokens), 1) == 104.6


def test_the_test_split_of_ptb_has_as_many_tokens_as_published_numbers_divide_by(corpora: Any) -> None:
    test = PTB().test
    assert (len(test), test.tokens) == (3761, 82_430)
    assert perplexity(np.full(len(test), 101.92), test.tokens) == pytest.approx(104.6, abs=0.05)


def test_perplexity_is_over_tokens_and_not_over_sentences() -> None:
    nll = np.array([10.0, 2.0])
    assert perplexity(nll, 8) == pytest.approx(math.exp(12 / 8))


def test_a_uniform_model_has_the_vocabulary_as_its_perplexity() -> None:
    model, split = lm(), text(20)
    with torch.no_grad():
        model.head.weight.zero_()
        model.head.bias.zero_()
    assert perplexity(importance_nll(model, None, split).nll, split.tokens) == pytest.approx(30, rel=1e-5)


def test_comparison_is_the_paired_t_statistic() -> None:
    rng = np.random.default_rng(0)
    difficulty = 50 * rng.random(100)
    first, second = difficulty + rng.standard_normal(100), difficulty + rng.standard_normal(100) + 0.2
    found = compare(first, second)
    assert found.mean == pytest.approx((first - second).mean())
    assert found.standard_error == pytest.approx(np.std(first - second, ddof=1) / 10)
    stats = pytest.importorskip("scipy.stats")
    assert found.mean / found.standard_error == pytest.approx(stats.ttest_rel(first, second).statistic)
    unpaired = np.hypot(first.std(), second.std()) / 10
    assert found.standard_error < unpaired / 5  # the spread between documents cancels
    assert str(found) == f"{found.mean:+.2f} ± {found.standard_error:.2f}"


def test_comparison_of_different_documents_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot pair 3 documents with 4: judge both runs on the same split"):
        compare(np.zeros(3), np.zeros(4))


def test_one_document_has_a_difference_and_no_error_of_it() -> None:
    found = compare(np.ones(1), np.zeros(1))
    assert found.mean == 1.0 and math.isnan(found.standard_error)
