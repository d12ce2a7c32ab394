"""Diagnostics of collapse against brute force and closed forms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

from pyro_nlp.data.batches import VectorBatch
from pyro_nlp.data.splits import VectorSplit
from pyro_nlp.data.toy import Ring as RingCorpus
from pyro_nlp.distributions import VonMisesFisher
from pyro_nlp.evaluation import Posteriors, active_units, mutual_information, posteriors, shuffled_rise
from pyro_nlp.guides.von_mises_fisher import VonMisesFisherGuide
from pyro_nlp.models.ring import Ring
from pyro_nlp.models.sentence_vae import SentenceVAE
from pyro_nlp.nn import UniformSphere
from tests.tiny import LATENT, VOCABULARY, autoencoder, decoder, encoder, ring, sharpen, text, vae, whole


def random_posterior(count: int, dimensions: int, seed: int = 0, spread: float = 1.0) -> Posteriors:
    rng = np.random.default_rng(seed)
    mean = spread * rng.standard_normal((count, dimensions))
    scale = 0.3 + rng.random((count, dimensions))
    return Posteriors(mean, scale, mean + scale * rng.standard_normal((count, dimensions)))


# ---- posteriors and active units -----------------------------------------------------------------------------------


def test_posteriors_are_those_of_the_guide_in_the_order_of_the_corpus() -> None:
    (model, guide), split = vae(), text(20)
    found = posteriors(model, guide, split, batch_size=6)["z"]
    with torch.no_grad():
        loc, scale = guide.posterior(guide.encoder(whole(split)))
    np.testing.assert_allclose(found.mean, loc, atol=1e-6)
    assert found.scale is not None
    np.testing.assert_allclose(found.scale, scale, atol=1e-6)
    standardised = (found.draw - found.mean) / found.scale
    # 60 standard normal numbers: their mean square is 1 with a standard error of sqrt(2 / 60)
    assert abs((standardised**2).mean() - 1) < 4 * (2 / standardised.size) ** 0.5


def test_a_guide_that_is_no_diagonal_gaussian_has_means_and_no_scales() -> None:
    model, guide = ring(diagonal=False)
    found = posteriors(model, guide, VectorSplit(torch.randn(5, 2)))["z"]
    assert found.scale is None and found.mean.shape == (5, 2)
    assert mutual_information(found) is None
    model_2, guide_2 = autoencoder()
    found = posteriors(model_2, guide_2, text(5))["z"]
    assert found.scale is None and np.array_equal(found.mean, found.draw)


def test_active_units_are_the_dimensions_whose_means_vary() -> None:
    rng = np.random.default_rng(0)
    mean = rng.standard_normal((500, 6)) * np.array([1.0, 0.2, 0.12, 0.08, 0.01, 0.0]) + 5.0
    found = active_units(Posteriors(mean, None, mean))
    assert found == 3 == sum(np.var(mean[:, d], ddof=1) > 0.01 for d in range(6))
    assert active_units(Posteriors(mean, None, mean), threshold=0.001) == 4


def test_one_document_has_no_active_unit() -> None:
    assert active_units(random_posterior(1, 3)) == 0


# ---- mutual information --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 7, 512])
def test_mutual_information_equals_a_double_loop_over_documents(chunk: int) -> None:
    posterior = random_posterior(23, 3)
    assert posterior.scale is not None
    total = 0.0
    for n in range(23):
        densities = []
        for m in range(23):
            log_q = 0.0
            for d in range(3):
                z, mean, scale = posterior.draw[n, d], posterior.mean[m, d], posterior.scale[m, d]
                log_q += -0.5 * ((z - mean) / scale) ** 2 - math.log(scale) - 0.5 * math.log(2 * math.pi)
            densities.append(math.exp(log_q))
        total += math.log(densities[n]) - math.log(sum(densities) / 23)
    found = mutual_information(posterior, chunk=chunk)
    assert found is not None and found.documents == 23 and found.cap == math.log(23)
    assert found.whole == pytest.approx(total / 23, rel=1e-10)


def test_the_minibatch_form_equals_the_published_code_written_as_loops() -> None:
    posterior = random_posterior(12, 2)
    assert posterior.scale is not None
    order = np.random.default_rng(3).permutation(12)
    estimates = []
    for rows in (order[:5], order[5:10], order[10:]):
        entropies, aggregates = [], []
        for n in rows:
            log_variance = 2 * np.log(posterior.scale[n])
            entropies.append(-0.5 * 2 * math.log(2 * math.pi) - 0.5 * (1 + log_variance).sum())
            q = [
                np.prod(
                    np.exp(-0.5 * ((posterior.draw[n] - posterior.mean[m]) / posterior.scale[m]) ** 2)
                    / (posterior.scale[m] * math.sqrt(2 * math.pi))
                )
                for m in rows
            ]
            aggregates.append(math.log(sum(q) / len(rows)))
        estimates.append(np.mean(entropies) - np.mean(aggregates))
    found = mutual_information(posterior, minibatch_size=5, seed=3)
    assert found is not None and found.minibatch_size == 5
    assert found.minibatch == pytest.approx(np.mean(estimates), rel=1e-10)


@pytest.mark.parametrize("spread", [0.0, 1.0, 1e3])
def test_mutual_information_never_exceeds_log_n(spread: float) -> None:
    for count in (1, 2, 40):
        found = mutual_information(random_posterior(count, 4, spread=spread))
        assert found is not None
        assert found.whole <= found.cap + 1e-9
        if spread == 1e3:
            assert found.whole == pytest.approx(math.log(count), abs=1e-9)


def channel(count: int, dimensions: int, slope: float, scale: float, seed: int = 0) -> tuple[Posteriors, float]:
    """x ~ N(0, I), z = slope x + scale eps; and the mutual information of x and z."""
    rng = np.random.default_rng(seed)
    mean = slope * rng.standard_normal((count, dimensions))
    draw = mean + scale * rng.standard_normal((count, dimensions))
    return Posteriors(mean, np.full_like(mean, scale), draw), 0.5 * dimensions * math.log1p((slope / scale) ** 2)


@pytest.mark.parametrize(("slope", "scale"), [(0.0, 1.0), (0.5, 0.9), (1.0, 0.5)])
def test_mutual_information_of_a_linear_gaussian_channel_is_the_analytic_one(slope: float, scale: float) -> None:
    runs, wanted = [], 0.0
    for seed in range(6):
        posterior, wanted = channel(2000, 2, slope, scale, seed)
        found = mutual_information(posterior)
        assert found is not None
        runs.append(found.whole)
    error = np.std(runs, ddof=1) / 6**0.5
    # a document is among the N it is compared with: a bias of order (effective number of others)^-1 < 0.01
    assert abs(np.mean(runs) - wanted) < 5 * error + 0.01


def test_inside_minibatches_of_32_the_estimate_is_stuck_near_log_32_where_the_truth_is_much_larger() -> None:
    posterior, truth = channel(4096, 32, 1.0, 0.48)
    assert truth == pytest.approx(26.8, abs=0.1)
    found = mutual_information(posterior)
    assert found is not None and found.minibatch_size == 32
    assert found.minibatch == pytest.approx(math.log(32), abs=0.1)
    assert found.whole == pytest.approx(math.log(4096), abs=0.1)  # the whole split is stuck too, at a cap it prints


def test_identical_posteriors_carry_no_information() -> None:
    mean, scale = np.zeros((50, 2)), np.ones((50, 2))
    found = mutual_information(Posteriors(mean, scale, np.random.default_rng(0).standard_normal((50, 2))))
    assert found is not None and found.whole == pytest.approx(0.0, abs=1e-12)


# ---- shuffled z ----------------------------------------------------------------------------------------------------


class Fixed(PyroModule):
    """z is x itself: what is shuffled is known."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(2))

    def forward(self, batch: VectorBatch) -> None:
        with batch.documents():
            pyro.sample("z", dist.Delta(batch.values + self.shift, event_dim=1))


def test_the_rise_under_shuffled_z_is_that_of_another_documents_z_for_everyone() -> None:
    values = torch.randn(13, 2)
    model, seed = Ring(0.5), 4
    found = shuffled_rise(model, Fixed(), VectorSplit(values), seed=seed, batch_size=5)
    order = np.random.default_rng(seed).permutation(13)
    partner = dict(zip(order, np.roll(order, 1), strict=True))
    assert all(n != m for n, m in partner.items())

    def log_x(n: int, m: int) -> float:
        return float(dist.Normal(Ring.bend(values[m]), 0.5).log_prob(values[n]).sum())

    differences = np.array([log_x(n, n) - log_x(n, partner[n]) for n in range(13)])
    assert found.mean == pytest.approx(differences.mean(), rel=1e-5)
    assert found.standard_error == pytest.approx(differences.std(ddof=1) / 13**0.5, rel=1e-5)
    assert found.mean > 3 * found.standard_error


def test_a_decoder_that_ignores_z_loses_nothing() -> None:
    model, guide = vae()
    with torch.no_grad():
        model.decoder.initial.weight.zero_()
        model.decoder.network.weight_ih_l0[:, -LATENT:] = 0
    found = shuffled_rise(model, guide, text(40))
    assert found.mean == pytest.approx(0.0, abs=1e-5)  # batches of other sizes round differently


def test_a_decoder_that_listens_to_z_loses_much() -> None:
    corpus = RingCorpus(size=60, noise=0.3)
    found = shuffled_rise(Ring(0.3), Fixed(), corpus.train)
    assert found.mean > 1 and found.mean > 5 * found.standard_error


def test_the_rise_depends_on_the_seed_alone_and_leaves_no_trace() -> None:
    (model, guide), split = vae(), text(15)
    state = torch.get_rng_state()
    first = shuffled_rise(model, guide, split, seed=2)
    assert torch.equal(state, torch.get_rng_state())
    assert first == shuffled_rise(model, guide, split, seed=2) != shuffled_rise(model, guide, split, seed=3)


# ---- on the sphere -------------------------------------------------------------------------------------------------


def test_mutual_information_on_the_sphere_equals_a_double_loop_over_documents() -> None:
    torch.manual_seed(0)
    model = sharpen(SentenceVAE(VOCABULARY, LATENT, decoder, UniformSphere))
    guide = sharpen(VonMisesFisherGuide(VOCABULARY, LATENT, encoder, learn_concentration=True))
    split = text(11)
    posterior = posteriors(model, guide, split, batch_size=4)["z"]
    with torch.no_grad():
        q: Any = guide.posterior_of(guide.encoder(whole(split)))
    assert posterior.concentration is not None and posterior.scale is None
    np.testing.assert_allclose(posterior.concentration, q.concentration, rtol=1e-5)
    np.testing.assert_allclose(posterior.mean, q.mean, atol=1e-6)
    each = [VonMisesFisher(q.loc[n].double(), q.concentration[n].double(), validate_args=False) for n in range(11)]
    log_q = np.array([[float(one.log_prob(z)) for one in each] for z in torch.from_numpy(posterior.draw)])
    whole_ = (np.diag(log_q) - np.log(np.exp(log_q).mean(1))).mean()
    for chunk in (1, 4, 512):
        found = mutual_information(posterior, minibatch_size=11, chunk=chunk)
        assert found is not None and 0 < found.whole < found.cap
        # concentrations and directions were float32
        assert found.whole == pytest.approx(whole_, rel=1e-4)
        entropy = np.mean([float(one.entropy()) for one in each])
        assert found.minibatch == pytest.approx(-entropy - np.log(np.exp(log_q).mean(1)).mean(), rel=1e-4)
    assert active_units(posterior) == sum(np.var(posterior.mean[:, d], ddof=1) > 0.01 for d in range(LATENT))


def test_posteriors_apart_on_the_sphere_tell_every_document() -> None:
    mean = np.concatenate([np.eye(4), -np.eye(4)])
    found = mutual_information(Posteriors(mean * 0.99, None, mean, concentration=np.full(8, 1e3)))
    assert found is not None and found.whole == pytest.approx(math.log(8), abs=1e-9)
