"""The latent space: aggregate posterior, neighbours, probes, traversals, sensitivity, and means beside the model's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from scipy import optimize
from torch import Tensor

from pyro_nlp.data.toy import Ring as RingCorpus
from pyro_nlp.evaluation import Posteriors, codes, mutual_information, posteriors, reconstruct
from pyro_nlp.evaluation.latent import (
    MeanSpace,
    _logistic,
    aggregate,
    linear_probe,
    mean_space,
    neighbours,
    sensitivity,
    traverse,
)
from pyro_nlp.evaluation.references import Given, posterior_of
from pyro_nlp.inference import StructureError, terms
from pyro_nlp.models.ring import Ring
from tests.evaluation.test_references import GaussianFor, LinearGaussian
from tests.tiny import lm, mixture, parameters, ring, same, styled, text, vae, whole

# ---- the aggregate posterior -----------------------------------------------------------------------------------------


def drawn(mean: np.ndarray, scale: np.ndarray, seed: int = 1) -> Posteriors:
    return Posteriors(mean, scale, mean + scale * np.random.default_rng(seed).standard_normal(mean.shape))


def test_information_and_divergence_make_up_the_kl_of_the_elbo() -> None:
    posterior = posteriors(*vae(), text(40))["z"]
    information = mutual_information(posterior)
    assert information is not None and posterior.scale is not None
    found = aggregate(posterior, chunk=7)
    q, p = torch.distributions.Normal(*map(torch.from_numpy, (posterior.mean, posterior.scale))), (0.0, 1.0)
    z = torch.from_numpy(posterior.draw)
    kl = (q.log_prob(z) - torch.distributions.Normal(*p).log_prob(z)).sum(-1).mean()
    assert found.divergence.mean + information.whole == pytest.approx(float(kl), abs=1e-9)


@pytest.mark.parametrize("between", [0.0, 0.6, 1.5])
def test_the_divergence_of_a_gaussian_aggregate_is_the_closed_form(between: float) -> None:
    count, within = 4000, 0.5
    mean = between**0.5 * np.random.default_rng(0).standard_normal((count, 1))
    found = aggregate(drawn(mean, np.full((count, 1), within**0.5)))
    variance = between + within
    wanted = 0.5 * (variance - 1 - np.log(variance))
    # moments of 4000 documents are off by 4 / sqrt(4000), and so is the density that they make up
    assert found.divergence.mean == pytest.approx(wanted, abs=4 * found.divergence.standard_error + 0.01)
    assert found.variance[0] == pytest.approx(variance, rel=4 * (2 / count) ** 0.5)
    assert abs(found.mean[0]) < 4 * (variance / count) ** 0.5


# ---- neighbours ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_neighbours_are_those_of_brute_force(metric: Any) -> None:
    rng = np.random.default_rng(0)
    points, queries = rng.standard_normal((30, 3)), rng.standard_normal((7, 3))
    rows, distances = neighbours(points, queries, 4, metric, chunk=3)
    if metric == "euclidean":
        table = np.linalg.norm(queries[:, None] - points, axis=-1)
    else:
        unit = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in (queries, points)]
        table = 1 - unit[0] @ unit[1].T
    assert (rows == table.argsort(1)[:, :4]).all()
    np.testing.assert_allclose(distances, np.sort(table, 1)[:, :4], atol=1e-7)


def test_nobody_is_a_neighbour_of_its_own() -> None:
    points = np.random.default_rng(0).standard_normal((10, 2))
    rows, distances = neighbours(points, count=50, chunk=4)
    assert rows.shape == (10, 9) and (rows != np.arange(10)[:, None]).all() and np.isfinite(distances).all()


# ---- probes ----------------------------------------------------------------------------------------------------------


def labelled(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.choice([3, 5, 8], count, p=[0.5, 0.3, 0.2])
    centres = np.array([[0, 0], [4, 0], [0, 4]])[np.searchsorted([3, 5, 8], labels)]
    return rng.standard_normal((count, 2)) + centres, labels


def test_a_probe_is_as_good_as_the_best_there_is() -> None:
    train, test = labelled(600, 0), labelled(600, 1)
    found = linear_probe(*train, *test)
    # of Gaussians with one covariance the best classifier is linear, and known
    centres, log_prior = np.array([[0, 0], [4, 0], [0, 4]]), np.log([0.5, 0.3, 0.2])
    best = np.array([3, 5, 8])[(test[0] @ centres.T - (centres**2).sum(1) / 2 + log_prior).argmax(1)]
    assert found.accuracy == pytest.approx((best == test[1]).mean(), abs=2 * found.standard_error)
    assert found.majority == pytest.approx((test[1] == 3).mean())
    assert (found.classes, found.documents) == (3, 600)
    assert found.standard_error == pytest.approx((found.accuracy * (1 - found.accuracy) / 600) ** 0.5)
    assert str(found).endswith(f"majority {found.majority:.3f}")


def test_a_probe_of_noise_finds_nothing() -> None:
    rng = np.random.default_rng(0)
    train, test = (rng.standard_normal((500, 4)) for _ in range(2))
    labels = rng.integers(0, 2, (2, 500))
    found = linear_probe(train, labels[0], test, labels[1])
    assert abs(found.accuracy - 0.5) < 4 * found.standard_error


def test_the_probe_is_at_the_minimum_of_its_loss() -> None:
    x, labels = labelled(80, 0)
    y = np.searchsorted([3, 5, 8], labels)

    def loss(flat: np.ndarray) -> float:
        score = x @ flat[:6].reshape(2, 3) + flat[6:]
        return float((np.logaddexp.reduce(score, 1) - score[np.arange(80), y]).sum() + (flat[:6] ** 2).sum())

    weight, bias = _logistic(torch.from_numpy(x), torch.from_numpy(y), 3, 2.0)
    here = np.concatenate([weight.numpy().ravel(), bias.numpy()])
    assert loss(here) == pytest.approx(optimize.minimize(loss, np.zeros(9)).fun, rel=1e-7)


def test_documents_without_a_label_are_left_out_of_a_probe() -> None:
    train, test = labelled(100, 0), labelled(50, 1)
    unlabelled = np.concatenate([train[0], 100 + train[0]]), np.concatenate([train[1], np.full(100, -1)])
    assert linear_probe(*unlabelled, *test) == linear_probe(*train, *test)


# ---- traversals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [vae, styled], ids=["vae", "styled"])
def test_one_dimension_is_moved_and_all_else_kept(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, guide = make()
    batch = whole(text(3))
    seen: list[dict[str, Tensor]] = []
    with monkeypatch.context() as patch:
        patch.setattr(model, "generate", lambda z, **_: seen.append(z) or torch.zeros(len(z["z"]), 1))
        assert traverse(model, guide, batch, 1, reach=2.0, steps=5).shape == (3, 5, 1)
    for name, value in codes(model, guide, batch).items():
        moved = seen[0][name].unflatten(0, (3, 5))
        for dimension in range(value.shape[-1]):
            at = value[:, None, dimension].expand(3, 5)
            if (name, dimension) == ("z", 1):
                at = torch.tensor([-2.0, -1, 0, 1, 2]).expand(3, 5)
            torch.testing.assert_close(moved[..., dimension], at)


def test_a_traversal_passes_through_the_reconstruction() -> None:
    model, guide = vae()
    batch = whole(text(2)).to("cpu")
    here = float(codes(model, guide, batch)["z"][0, 2])
    written = traverse(model, guide, batch, 2, reach=abs(here), steps=2, max_length=8)
    again = reconstruct(model, guide, batch, max_length=8)
    width = min(written.shape[-1], again.shape[-1])
    assert torch.equal(written[0, int(here > 0), :width], again[0, :width])


# ---- sensitivity -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dreams", [True, False], ids=["its own documents", "those of the exact posterior"])
def test_the_sensitivity_of_a_linear_gaussian_model_is_its_fisher_information(dreams: bool) -> None:
    model = LinearGaussian(((1.0, 0.0), (-0.5, 0.0), (0.2, 0.0)))  # z[1] is not heard
    found = sensitivity(model, None if dreams else GaussianFor(model), model.split(2000), batch_size=300)
    squares = found**2
    wanted = (model.weight.detach().T @ model.weight.detach()).diagonal().numpy() / model.noise**2
    assert found.shape == (2000, 2) and (squares[:, 1] == 0).all()
    assert abs(squares[:, 0].mean() - wanted[0]) < 4 * squares[:, 0].std() / 2000**0.5


def test_the_sensitivity_of_a_sentence_vae_is_a_difference_of_likelihoods() -> None:
    (model, guide), split = vae(), text(5)
    before = parameters(model, guide)
    found = sensitivity(model, guide, split, seed=3)
    assert same(before, parameters(model, guide)) and all(p.requires_grad for p in model.parameters())
    torch.manual_seed(3)
    given, step = Given({"z": torch.Size([3])}), 1e-4
    with torch.no_grad():
        posterior_of(model, whole(split))  # draws from the prior before the guide is asked
        z = terms(model, guide, whole(split)).sites["z"].value.double()
        model.double()
        for d in range(3):
            ends = [z + sign * step * torch.eye(3).double()[d] for sign in (1, -1)]
            up, down = (terms(model, given, whole(split), given={"z": end}).log_likelihood[0] for end in ends)
            np.testing.assert_allclose(found[:, d], (up - down) / (2 * step), atol=1e-4)  # float32 of some tens


def test_a_model_of_text_is_judged_on_what_it_writes() -> None:
    found = sensitivity(vae()[0], None, text(6))
    assert found.shape == (6, 3) and np.isfinite(found).all() and (found != 0).any(0).all()
    assert sensitivity(*styled(), text(4)).shape == (4, 3)


class Deaf(PyroModule):
    """A model that does not listen to z."""

    plates = 1

    def forward(self, batch: Any) -> None:
        with batch.documents():
            pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1), obs=batch.values)


# ---- mean space ------------------------------------------------------------------------------------------------------


def test_mean_space_has_the_means_of_quadrature_and_of_the_guide() -> None:
    model, guide = ring(noise=0.4, learn=False)
    split = RingCorpus(size=11, noise=0.4).train
    found = mean_space(model, guide, split, points=100)
    np.testing.assert_allclose(found.model, model.quadrature(split.values, points=100)[1], atol=1e-5)
    with torch.no_grad():
        np.testing.assert_allclose(found.guide, guide.network(split.values)[:, :2], atol=1e-6)
    np.testing.assert_allclose(found.lag, np.sqrt(((found.guide - found.model) ** 2).mean(0)))


def test_the_exact_posterior_does_not_lag() -> None:
    model = LinearGaussian()
    assert (mean_space(model, GaussianFor(model), model.split(9)).lag < 1e-5).all()


def test_weighted_draws_have_the_means_of_the_closed_form() -> None:
    model = LinearGaussian()
    split = model.split(12)
    found = mean_space(model, GaussianFor(model, stretch=1.3, shift=0.2), split, draws=2000, chunk=10**4)
    exact = model.posterior(split.values).mean.numpy()
    assert (np.abs(found.model - exact) < 5 * found.error).all() and (found.error > 0).all()
    np.testing.assert_allclose(found.guide, exact + 0.2, atol=1e-6)
    np.testing.assert_allclose(found.lag, 0.2, atol=5 * found.error.max())
    assert found.method == "2000 weighted draws" and (found.pareto_k < 0.7).all()


def test_many_dimensions_are_projected_on_the_one_that_differs_most() -> None:
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0]
    along = np.linspace(-1, 2, 9)[:, None]
    guide = along * turn[0] * [1.0]
    found = MeanSpace(0.5 * guide, guide, np.full((9, 4), 0.1), np.zeros(9), "40 weighted draws").projected()
    sign = np.sign(turn[0][np.abs(turn[0]).argmax()])
    np.testing.assert_allclose(found.guide, sign * along, atol=1e-12)
    np.testing.assert_allclose(found.model, 0.5 * sign * along, atol=1e-12)
    np.testing.assert_allclose(found.error, 0.1, atol=1e-12)  # of a unit vector


def test_text_of_three_dimensions_has_a_mean_space_by_draws() -> None:
    found = mean_space(*vae(), text(6), draws=60, batch_size=4, chunk=100)
    assert found.model.shape == found.guide.shape == found.error.shape == (6, 3) and found.pareto_k.shape == (6,)
    again = mean_space(*vae(), text(6), draws=60, batch_size=4, chunk=100)
    np.testing.assert_array_equal(found.model, again.model)
    with pytest.raises(ValueError, match="^1 draws are too few to fit a tail"):
        mean_space(*vae(), text(6), draws=1)


def test_the_data_of_the_latent_space_have_named_dimensions() -> None:
    found = mean_space(*vae(), text(6), draws=30).to_xarray()
    assert found["model"].dims == ("document", "latent") and found.sizes == {"document": 6, "latent": 3}
    assert found["lag"].dims == ("latent",) and found.attrs["method"] == "30 weighted draws"
    whole_space = aggregate(drawn(np.zeros((5, 2)), np.ones((5, 2)))).to_xarray()
    assert whole_space["variance"].dims == ("latent",) and whole_space["divergence"].attrs["units"] == "nats"
    probe = linear_probe(*labelled(50, 0), *labelled(20, 1))
    assert float(probe.to_xarray()["accuracy"]) == probe.accuracy and probe.to_xarray().attrs["documents"] == 20


NOTHING = text(2).take(np.array([], int))


# ---- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: aggregate(Posteriors(np.zeros((3, 2)), None, np.zeros((3, 2)))), "no diagonal Gaussians"),
        (lambda: aggregate(drawn(np.zeros((1, 2)), np.ones((1, 2)))), "1 document has no neighbours and no spread"),
        (lambda: neighbours(np.zeros((1, 2))), "1 document has no neighbours and no spread: take at least 2"),
        (lambda: neighbours(np.zeros((4, 2)), metric="dot"), "metric is 'dot'; it is 'euclidean' or 'cosine'"),
        (lambda: linear_probe(np.zeros((3, 2)), np.zeros(2), *labelled(5, 0)), "3 train documents and 2 labels"),
        (lambda: linear_probe(np.zeros((3, 2)), np.ones(3), *labelled(5, 0)), "1 classes to learn, 5 documents"),
        (lambda: linear_probe(*labelled(5, 0), np.zeros((1, 2)), -np.ones(1)), "classes to learn, 0 documents"),
        (lambda: traverse(*vae(), whole(text(2)), 3), "'z' has 3 dimensions: there is no number 3 to move along"),
        (lambda: traverse(*mixture(), whole(text(2)), 0), "'z' has 0 dimensions"),
        (lambda: traverse(lm(), None, whole(text(2)), 0), "'z' has 0 dimensions"),
        (lambda: traverse(*ring(), whole(RingCorpus(3).train), 0), r"Ring cannot write text: give it generate\(\)"),
        (lambda: sensitivity(*vae(), NOTHING), "^the split has no documents$"),
        (lambda: mean_space(*vae(), NOTHING, draws=30), "^the split has no documents$"),
        (lambda: sensitivity(lm(), None, text(2)), "SentenceLM has no continuous latent"),
        (lambda: mean_space(*vae(), text(2)), r"site 'z' has event shape \[3\]; a grid is for \[1\] or \[2\]"),
        (lambda: mean_space(Ring(0.5), None, RingCorpus(2, 0.5).train), "Ring was given without a guide"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_line(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_decoder_that_does_not_listen_has_no_gradient() -> None:
    with pytest.raises(StructureError, match=r"log p\(x \| z\) of Deaf has no gradient in 'z'"):
        sensitivity(Deaf(), ring()[1], RingCorpus(3).train)
