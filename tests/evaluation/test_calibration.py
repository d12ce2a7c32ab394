"""Calibration: the exact posterior passes, what is not fails, and the tests have the level they say."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from pyro_nlp.data.batches import BOS, EOS, PAD, Batch
from pyro_nlp.data.counts import CountSplit
from pyro_nlp.data.splits import TextSplit, VectorSplit
from pyro_nlp.data.toy import Ring as RingCorpus
from pyro_nlp.diagnosis.verdict import UNLIKELY
from pyro_nlp.evaluation import NoDensityError, as_split, calibration, sample_prior
from pyro_nlp.evaluation.calibration import (
    Calibration,
    _distances_of_uniform,
    checks_to_xarray,
    predictive_checks,
    simulation_based_calibration,
)
from pyro_nlp.evaluation.references import grid_posterior
from pyro_nlp.inference import terms
from pyro_nlp.models.lda import LDA
from pyro_nlp.models.ring import Ring
from tests import bags
from tests.evaluation.test_references import GaussianFor, LinearGaussian
from tests.tiny import autoencoder, lm, mixture, styled, text, vae, whole

LEVEL = 1e-3
"""At which a right posterior fails: once in a thousand seeds."""


def calibrate(simulations: int = 400, **options: float) -> Calibration:
    model = LinearGaussian()
    guide = GaussianFor(model, **options)  # type: ignore[arg-type]
    return simulation_based_calibration(model, guide, model.split(10), simulations)


# ---- simulation-based calibration ------------------------------------------------------------------------------------


def test_the_exact_posterior_is_calibrated() -> None:
    found = calibrate()
    assert list(found.ranks) == ["z[0]", "z[1]", "log p(x | z)"]
    assert all(len(ranks) == 400 and ranks.min() >= 0 and ranks.max() <= 99 for ranks in found.ranks.values())
    assert found.p_value > LEVEL
    for test in found.uniformity.values():
        assert test.chi_square > LEVEL
        assert abs(test.shift) < 4 * (1 / 12 / 400) ** 0.5
        # the square of a uniform number about its mean varies by sqrt(4 / 5) of its own mean
        assert abs(test.spread - 1) < 4 * (0.8 / 400) ** 0.5


@pytest.mark.parametrize(("stretch", "wide"), [(0.5, False), (2.0, True)])
def test_a_guide_of_the_wrong_width_is_caught(stretch: float, wide: bool) -> None:
    found = calibrate(stretch=stretch)
    assert found.p_value < LEVEL
    for name in ("z[0]", "z[1]"):
        assert (found.uniformity[name].spread < 1) == wide and found.uniformity[name].chi_square < LEVEL


def test_a_guide_that_leaves_out_correlations_is_caught_by_the_likelihood() -> None:
    model = LinearGaussian(((2.0, 1.9), (0.1, 0.2)), noise=0.5)
    found = simulation_based_calibration(model, GaussianFor(model, diagonal=True), model.split(10), 400)
    assert found.p_value < LEVEL


def test_a_guide_that_answers_too_high_has_low_ranks() -> None:
    found = calibrate(shift=0.3)
    assert found.p_value < LEVEL and found.uniformity["z[0]"].shift < -0.05


def test_the_prior_in_place_of_the_posterior_is_caught_by_the_likelihood_alone() -> None:
    found = calibrate(prior=True)
    assert min(found.uniformity[name].ecdf for name in ("z[0]", "z[1]")) > LEVEL
    likelihood = found.uniformity["log p(x | z)"]
    assert likelihood.ecdf < LEVEL and likelihood.shift > 0.05  # z fits its document better than others do


@pytest.mark.parametrize("stretch", [1.0, 0.5])
def test_the_ring_is_calibrated_by_its_quadrature_and_not_by_half_of_it(stretch: float) -> None:
    model = Ring(0.4)

    def sample(batch: Batch, draws: int) -> dict[str, Tensor]:
        found = grid_posterior(model, batch, points=80)
        drawn = found.draw(draws, seed=int(torch.randint(10**6, ())))
        return {"z": torch.from_numpy(found.mean + stretch * (drawn - found.mean)).float()}

    found = simulation_based_calibration(model, sample, RingCorpus(size=4, noise=0.4).train, 200, draws=39, bins=10)
    assert (found.p_value > LEVEL) == (stretch == 1.0)


def writer(ending: float = 2.0) -> Any:
    """A mixture that has words and ends only, and ends soon: `generate` then draws from p(x | c) exactly."""
    model, guide = mixture()
    with torch.no_grad():
        model.head.bias[[PAD, BOS]] = -50.0
        model.head.bias[EOS] = ending
        model.prior.copy_(torch.tensor([0.5, -0.5, 0.0]))
        model.codes.mul_(3)
    return model, guide


def test_a_class_of_sentences_is_calibrated_by_its_exact_posterior_and_not_by_its_prior() -> None:
    model, _ = writer()

    def posterior(batch: Batch, draws: int) -> dict[str, Tensor]:
        exact = terms(model, None, batch, marginal=("c",)).posterior("c")[0]
        return {"c": dist.OneHotCategorical(exact).sample(torch.Size([draws]))}

    def prior(batch: Batch, draws: int) -> dict[str, Tensor]:
        return {"c": dist.OneHotCategorical(logits=model.prior).sample(torch.Size([draws, len(batch)]))}

    right, wrong = (
        simulation_based_calibration(model, sample, text(10), 400, draws=19, bins=10) for sample in (posterior, prior)
    )
    assert list(right.ranks) == ["log p(x | z)"]
    assert right.p_value > LEVEL and wrong.p_value < LEVEL


def test_rounding_decides_nothing_where_the_decoder_does_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    model, guide = vae()
    with torch.no_grad():
        model.decoder.initial.weight.zero_()
        model.decoder.network.weight_ih_l0[:, -model.latent :] = 0.0
        for head in (guide.posterior.loc, guide.posterior.log_variance):
            head.weight.zero_(), head.bias.zero_()  # the prior, which is the posterior here
    monkeypatch.setattr(calibration, "terms", lambda *a, **k: jittered(terms(*a, **k)))
    found = simulation_based_calibration(model, guide, text(5), 200, draws=19, bins=10)
    assert found.p_value > LEVEL and found.uniformity["log p(x | z)"].chi_square > LEVEL


def jittered(found: Any) -> Any:
    """Likelihoods that differ in their last digits by how many are decoded at once."""
    shift = 1e-6 * math.log(found.scope.particles + 1)
    return replace(found, observed={name: value * (1 + shift) for name, value in found.observed.items()})


def test_any_model_of_sentences_and_its_guide_can_be_tried() -> None:
    found = simulation_based_calibration(*styled(), text(5), simulations=30, draws=9, bins=5, chunk=100)
    assert list(found.ranks) == ["z[0]", "z[1]", "z[2]", "log p(x | z)"]
    assert list(found.rows()) == [*found.ranks, "all"]


class ConjugateBags(nn.Module):
    """p(theta | x) = Dirichlet(a + n) where topics are single words; with `heed` other than 1, a + heed n."""

    def __init__(self, model: LDA, heed: float = 1.0) -> None:
        super().__init__()
        self.model, self.heed = model, heed

    def forward(self, batch: Any) -> None:
        with batch.documents():
            concentration = self.model.log_concentration.exp() + self.heed * batch.counts
            pyro.sample("theta", dist.Dirichlet(concentration))


def of_bags(heed: float, simulations: int = 400, concentration: float = 0.3) -> Calibration:
    model = LDA(4, 4, concentration)
    with torch.no_grad():
        model.weights.copy_(60 * torch.eye(4))
    sizes = np.array([0, 1, 3, 10, 30])
    split = CountSplit.from_pairs(np.arange(1, 5), np.zeros(4, int), sizes[1:], 5, 4)
    return simulation_based_calibration(model, ConjugateBags(model, heed), split, simulations, draws=39, bins=10)


def test_bags_are_calibrated_by_their_conjugate_posterior() -> None:
    found = of_bags(1.0)
    assert list(found.ranks) == [f"theta[{k}]" for k in range(4)] + ["log p(x | z)"]
    assert found.p_value > LEVEL
    assert all(test.chi_square > LEVEL for test in found.uniformity.values())
    # shares of next to nothing, which only their order of magnitude tells apart
    assert of_bags(1.0, concentration=0.01).p_value > LEVEL


@pytest.mark.parametrize(("heed", "wide"), [(0.3, True), (3.0, False)])
def test_a_posterior_that_heeds_words_too_little_or_too_much_is_caught(heed: float, wide: bool) -> None:
    found = of_bags(heed)
    assert found.p_value < LEVEL
    assert all((found.uniformity[f"theta[{k}]"].spread < 1) == wide for k in range(4))


def test_the_prior_of_bags_in_place_of_their_posterior_is_caught_by_the_likelihood_alone() -> None:
    found = of_bags(0.0)
    assert min(found.uniformity[f"theta[{k}]"].ecdf for k in range(4)) > LEVEL
    assert found.uniformity["log p(x | z)"].ecdf < LEVEL and found.uniformity["log p(x | z)"].shift > 0.05


@pytest.mark.parametrize("name", bags.MODELS)
def test_any_model_of_bags_and_its_guide_can_be_tried(name: str) -> None:
    model, guide, corpus = bags.make(name)
    found = simulation_based_calibration(model, guide, corpus.test, simulations=30, draws=9, bins=5, chunk=100)
    assert len(found.ranks) == bags.TOPICS + 1 and "log p(x | z)" in found.ranks


def test_many_quantities_can_still_be_doubted() -> None:
    """Of the 201 quantities of 200 topics the smallest p-value that there is counts 201 times."""
    assert 201 / (1 + len(_distances_of_uniform(100, 19))) < UNLIKELY


def test_the_cumulative_test_has_its_level_for_discrete_ranks() -> None:
    rng = np.random.default_rng(0)
    p = np.array([Calibration({"z": rng.integers(0, 20, 300)}, 19, 5).uniformity["z"].ecdf for _ in range(600)])
    for level in (0.05, 0.2, 0.5):
        assert abs((p <= level).mean() - level) < 4 * (level * (1 - level) / 600) ** 0.5
    # Kolmogorov's own distribution, for continuous numbers, takes these ranks for more uniform than they are
    continuous = stats.kstwo.sf(np.quantile(_distances_of_uniform(300, 19), 0.95), 300)
    assert continuous > 0.06


def test_the_band_is_binomial_and_bins_hold_all_ranks() -> None:
    found = Calibration({"z": np.arange(100).repeat(3)}, 99, 20).uniformity["z"]
    assert (found.histogram == 15).all() and found.chi_square == 1.0 and found.shift == 0.0
    assert found.spread == pytest.approx(1.0) and found.ecdf > 0.99
    low, high = found.band
    assert stats.binom.cdf(low - 1, 300, 0.05) < 0.005 < stats.binom.cdf(low, 300, 0.05)
    assert stats.binom.sf(high, 300, 0.05) <= 0.005 < stats.binom.sf(high - 1, 300, 0.05)


def test_the_data_of_calibration_are_by_quantity_and_simulation() -> None:
    found = Calibration({"z[0]": np.arange(100).repeat(3), "log p(x | z)": np.zeros(300, int)}, 99, 20)
    data = found.to_xarray()
    assert data["rank"].dims == ("quantity", "simulation") and data.sizes["bin"] == 20
    np.testing.assert_array_equal(data["rank"].sel(quantity="z[0]"), found.ranks["z[0]"])
    np.testing.assert_array_equal(data["histogram"].sum("bin"), [300, 300])
    assert float(data["ecdf"].sel(quantity="log p(x | z)")) == found.uniformity["log p(x | z)"].ecdf
    assert data.attrs["draws"] == 99 and data.attrs["p_value"] == found.p_value


def test_calibration_depends_on_the_seed_alone_and_leaves_no_trace() -> None:
    model, guide = vae()
    state = torch.get_rng_state()
    runs = [
        simulation_based_calibration(model, guide, text(n), 20, draws=7, bins=4, seed=seed)
        for n, seed in ((5, 1), (8, 1), (5, 2))
    ]
    assert torch.equal(state, torch.get_rng_state()) and model.training
    assert (runs[0].ranks["z[0]"] == runs[1].ranks["z[0]"]).all()  # the split only lends documents to stand in for
    assert (runs[0].ranks["z[0]"] != runs[2].ranks["z[0]"]).any()


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: (vae()[0], None), {}, "SentenceVAE was given without a guide: there is nothing to calibrate"),
        (lambda: (lm(), vae()[1]), {}, "SentenceLM has no latents to calibrate"),
        (autoencoder, {}, "site 'z' has a point guide"),
        (vae, {"draws": 1}, r"1 draws, 20 bins, .*: draws \+ 1 must be a multiple of 2 bins or more"),
        (vae, {"draws": 100}, r"100 draws, 20 bins, 500 simulations: draws \+ 1 must be a multiple"),
        (vae, {"simulations": 50}, "50 simulations: .* and simulations 5 times the bins"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_in_a_line(make: Any, options: dict[str, int], message: str) -> None:
    with pytest.raises((ValueError, NoDensityError), match=message):
        simulation_based_calibration(*make(), text(4), **options)


def test_nothing_can_be_dreamt_in_place_of_no_documents() -> None:
    with pytest.raises(ValueError, match="^the split has no documents$"):
        simulation_based_calibration(*vae(), text(3).take(np.array([], int)))


# ---- predictive checks -----------------------------------------------------------------------------------------------


def p_values(*arguments: Any, **options: Any) -> dict[str, float]:
    return {check.statistic: check.p_value for check in predictive_checks(*arguments, **options)}


NAMES = ["length", "types per token", "repeated bigrams", "word divergence", "bigram divergence"]


def test_sentences_of_the_model_itself_are_not_told_from_what_it_writes() -> None:
    model, _ = writer()
    split = as_split(sample_prior(model, text(5), 200, seed=11))
    found = p_values(model, split, 200, seed=1)
    assert list(found) == NAMES and min(found.values()) > LEVEL / len(NAMES)


def test_sentences_of_another_kind_are_told_by_what_differs() -> None:
    model, _ = writer()
    own = as_split(sample_prior(model, text(5), 150, seed=11))
    doubled = TextSplit.from_sentences([2 * own.words(i) for i in range(len(own))])
    found = p_values(model, doubled, 150)
    assert found["length"] == 1 / 1000 and found["repeated bigrams"] == 1 / 1000  # the least of 999 permutations
    shuffled = TextSplit.from_sentences([np.random.default_rng(i).permutation(own.words(i)) for i in range(len(own))])
    assert p_values(model, shuffled, 150)["word divergence"] > LEVEL  # the same words in another order


def test_statistics_are_those_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = mixture()
    written = torch.tensor([[4, 5, 4, 5, EOS], [4, EOS, PAD, PAD, PAD]])
    monkeypatch.setattr(model, "generate", lambda *_, **__: written)
    split = TextSplit.from_sentences([[7, 8, 9], [7]])
    found = {c.statistic: c for c in predictive_checks(model, split, 2, permutations=20)}
    assert (found["length"].generated, found["length"].held_out) == (3.5, 3.0)
    assert found["types per token"].generated == pytest.approx(3 / 7)  # 4, 5 and the end
    assert found["types per token"].held_out == pytest.approx(4 / 6)
    assert found["repeated bigrams"].generated == pytest.approx(1 / 7)  # the second 4 5
    assert found["repeated bigrams"].held_out == 0
    p, q = (torch.tensor(x) / sum(x) for x in ([3.0, 2, 0, 0, 0, 2], [0.0, 0, 2, 1, 1, 2]))
    m = (p + q) / 2
    divergence = 0.5 * sum(float(torch.xlogy(x, x / m).sum()) for x in (p, q))
    assert found["word divergence"].generated == pytest.approx(divergence, rel=1e-6)
    assert found["bigram divergence"].generated == pytest.approx(math.log(2), rel=1e-6)  # they share none
    assert "word divergence: 0." in str(found["word divergence"])


def test_sentences_written_from_their_documents_are_exchanged_in_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    model, guide = vae()
    split = text(20)
    options = {"count": 20, "guide": guide, "permutations": 50}
    seen: list[Tensor] = []

    def copy(latents: dict[str, Tensor], **_: Any) -> Tensor:
        seen.append(latents["z"])
        order = np.random.default_rng(0).permutation(20)
        return whole(split.take(order)).targets

    monkeypatch.setattr(model, "generate", copy)
    assert set(p_values(model, split, **options).values()) == {1.0}  # every exchange changes nothing
    assert seen[0].shape == (20, 3)
    monkeypatch.undo()
    assert list(p_values(model, split, **options)) == NAMES


def test_the_data_of_checks_are_by_statistic() -> None:
    checks = predictive_checks(mixture()[0], text(20), 20, permutations=10)
    data = checks_to_xarray(checks)
    assert data["statistic"].values.tolist() == NAMES
    assert float(data["held_out"].sel(statistic="length")) == checks[0].held_out


def test_checks_depend_on_the_seed_alone() -> None:
    model, guide = vae()
    state = torch.get_rng_state()
    first, second, third = (predictive_checks(model, text(20), 20, seed, guide, permutations=30) for seed in (1, 1, 2))
    assert first == second != third and torch.equal(state, torch.get_rng_state())


class Silent(torch.nn.Module):
    """A model of sentences without `generate`."""

    def forward(self, batch: Any) -> None:
        with batch.documents():
            pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))


@pytest.mark.parametrize(
    ("model", "split", "guide", "message"),
    [
        (
            Ring(),
            VectorSplit(torch.ones(4, 2)),
            None,
            "Ring cannot write text: predictive checks want sentences",
        ),
        (Silent(), text(4), None, r"Silent cannot write text: predictive checks want sentences and generate\(\)"),
        (vae()[0], text(1), None, "1 document cannot be compared: take at least 2, better 500"),
        (lm(), text(4), vae()[1], "site 'z' is in the guide and not in the model"),
    ],
)
def test_what_cannot_be_checked_is_refused_in_a_line(model: Any, split: Any, guide: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predictive_checks(model, split, guide=guide)
