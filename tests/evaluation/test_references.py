"""Reference posteriors against closed forms, quadrature and importance sampling."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import Tensor

from pyro_nlp.data.splits import VectorSplit
from pyro_nlp.data.toy import Ring as RingCorpus
from pyro_nlp.evaluation import importance_nll
from pyro_nlp.evaluation.references import grid_posterior, nuts_posterior
from pyro_nlp.guides.gaussian import GaussianGuide
from pyro_nlp.guides.styled import StyledGuide
from pyro_nlp.inference import StructureError
from pyro_nlp.models.ring import Ring
from pyro_nlp.models.sentence_vae import SentenceVAE
from pyro_nlp.models.styled_sentence import StyledSentence
from tests.tiny import (
    CLASSES,
    CODE,
    VOCABULARY,
    decoder,
    discrete,
    encoder,
    lm,
    mixture,
    sharpen,
    text,
    vae,
    whole,
)


class LinearGaussian(PyroModule):
    """p(z) N(x | W z, noise^2 I), z ~ N(0, I_2): everything about it is known in closed form."""

    plates = 1

    def __init__(self, weight: Any = ((1.0, 0.3), (-0.5, 0.8), (0.2, 0.6)), noise: float = 0.7) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(weight))
        self.noise = noise

    def forward(self, batch: Any) -> None:
        zero = torch.zeros(self.weight.shape[1])
        with batch.documents():
            z = pyro.sample("z", dist.Normal(zero, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z @ self.weight.T, self.noise).to_event(1), obs=batch.values)

    @property
    def precision(self) -> Tensor:
        """Of z given any x."""
        weight = self.weight.detach()
        return torch.eye(weight.shape[1]) + weight.T @ weight / self.noise**2

    def posterior(self, x: Tensor) -> Any:
        weight = self.weight.detach()
        loc = torch.linalg.solve(self.precision, (x @ weight / self.noise**2).mT).mT
        return dist.MultivariateNormal(loc, precision_matrix=self.precision)

    def log_evidence(self, x: Tensor) -> Tensor:
        weight = self.weight.detach()
        covariance = weight @ weight.T + self.noise**2 * torch.eye(len(weight))
        return dist.MultivariateNormal(torch.zeros(len(weight)), covariance).log_prob(x)

    def split(self, count: int, seed: int = 0) -> VectorSplit:
        """Documents that it writes."""
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(count, self.weight.shape[1], generator=generator)
        noise = torch.randn(count, len(self.weight), generator=generator)
        return VectorSplit(z @ self.weight.detach().T + self.noise * noise)


class GaussianFor(PyroModule):
    """The exact posterior of a linear-Gaussian model, or what became of it."""

    def __init__(
        self,
        model: LinearGaussian,
        diagonal: bool = False,
        stretch: float = 1.0,
        shift: float = 0.0,
        prior: bool = False,
    ) -> None:
        super().__init__()
        self.known = [model]  # in a list it is no part of this module
        self.diagonal, self.stretch, self.shift, self.prior = diagonal, stretch, shift, prior

    def posterior(self, x: Tensor) -> Any:
        exact = self.known[0].posterior(x)
        if self.prior:
            return dist.Normal(torch.zeros_like(exact.mean), 1.0).to_event(1)
        loc = exact.mean + self.shift
        if self.diagonal:  # the best there is
            scale = self.known[0].precision.diagonal().rsqrt().expand_as(loc)
            return dist.Normal(loc, self.stretch * scale).to_event(1)
        return dist.MultivariateNormal(loc, scale_tril=self.stretch * exact.scale_tril)

    def forward(self, batch: Any) -> None:
        with batch.documents():
            pyro.sample("z", self.posterior(batch.values))


class Waiting(PyroModule):
    """z ~ Gamma(2, 1), x ~ Exponential(z): the posterior is Gamma(3, 1 + x)."""

    plates = 1

    def forward(self, batch: Any) -> None:
        with batch.documents():
            z = pyro.sample("z", dist.Gamma(torch.tensor([2.0]), 1.0).to_event(1))
            pyro.sample("x", dist.Exponential(z).to_event(1), obs=batch.values)


class Folded(PyroModule):
    """x = z^2 and a little noise: two modes that no chain crosses between."""

    plates = 1

    def forward(self, batch: Any) -> None:
        with batch.documents():
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z.square(), 0.05).to_event(1), obs=batch.values)


class Beside(PyroModule):
    """A latent beside z: a weight of the corpus, or a count of each document."""

    plates = 1

    def __init__(self, counted: bool) -> None:
        super().__init__()
        self.counted = counted

    def forward(self, batch: Any) -> None:
        w = torch.ones(1) if self.counted else pyro.sample("w", dist.Normal(0.0, 1.0))
        with batch.documents():
            z = pyro.sample("z", dist.Normal(torch.zeros(1), 1.0).to_event(1))
            n = pyro.sample("n", dist.Poisson(w).to_event(1)) if self.counted else 0.0
            pyro.sample("x", dist.Normal(w * z + n, 1.0).to_event(1), obs=batch.values)


ONE_DIMENSION = ((1.0,), (-0.5,))


# ---- a grid --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [10**6, 7_000])
def test_the_grid_of_the_ring_is_its_quadrature(chunk: int) -> None:
    split, model = RingCorpus(size=5, noise=0.3).train, Ring(0.3)
    found = grid_posterior(model, whole(split), points=100, chunk=chunk)
    evidence, mean, covariance = model.quadrature(split.values, points=100)
    np.testing.assert_allclose(found.log_evidence, evidence, atol=1e-6)  # float32 densities of order one
    np.testing.assert_allclose(found.mean, mean, atol=1e-6)
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-6)


@pytest.mark.parametrize("model", [LinearGaussian(), LinearGaussian(ONE_DIMENSION)], ids=["two", "one"])
def test_the_grid_of_a_linear_gaussian_model_is_the_closed_form(model: LinearGaussian) -> None:
    split = model.split(6)
    found = grid_posterior(model, whole(split), "z", points=100)
    exact = model.posterior(split.values)
    np.testing.assert_allclose(found.log_evidence, model.log_evidence(split.values), atol=1e-5)
    np.testing.assert_allclose(found.mean, exact.mean, atol=1e-5)
    np.testing.assert_allclose(found.covariance, exact.covariance_matrix, atol=1e-5)
    at_grid = exact.log_prob(torch.from_numpy(found.grid).float())
    near = found.log_density > -10
    np.testing.assert_allclose(found.log_density[near], at_grid.numpy()[near], atol=1e-4)
    assert found.error.max() < 1e-5  # far below a standard deviation, the midpoint rule is exact


def test_the_data_of_a_grid_have_named_dimensions() -> None:
    model = LinearGaussian()
    found = grid_posterior(model, whole(model.split(3)), points=30)
    data = found.to_xarray()
    assert data.sizes == {"document": 3, "latent": 2, "other": 2, "cell": 900} and data.attrs == {"site": "z"}
    mass = np.exp(data["log_density"]) * data["width"].prod("latent")
    np.testing.assert_allclose((mass * data["grid"]).sum("cell").transpose("document", "latent"), found.mean, rtol=1e-6)


def test_draws_from_a_grid_have_its_moments() -> None:
    model = LinearGaussian()
    found = grid_posterior(model, whole(model.split(3)), points=100)
    draws = found.draw(4000, seed=1)
    deviation = np.sqrt(np.diagonal(found.covariance, axis1=1, axis2=2))
    assert (np.abs(draws.mean(0) - found.mean) < 4.5 * deviation / 4000**0.5).all()
    assert (np.abs(draws.std(0) / deviation - 1) < 4.5 / 8000**0.5).all()
    assert (draws == found.draw(4000, seed=1)).all()


def test_the_grid_of_a_sentence_vae_has_the_evidence_of_importance_sampling() -> None:
    torch.manual_seed(0)
    model, split = sharpen(SentenceVAE(VOCABULARY, 2, decoder)), text(6)
    found = grid_posterior(model, whole(split), points=30)
    weighted = importance_nll(model, sharpen(GaussianGuide(VOCABULARY, 2, encoder)), split, 1000)
    assert (np.abs(found.log_evidence + weighted.nll) < 5 * weighted.standard_error + found.error).all()


def test_a_class_beside_z_is_summed_out() -> None:
    torch.manual_seed(0)
    model, split = sharpen(StyledSentence(VOCABULARY, 1, CLASSES, CODE, decoder)), text(6)
    guide = sharpen(StyledGuide(VOCABULARY, 1, CLASSES, encoder, joint=False))
    found = grid_posterior(model, whole(split), points=60)
    weighted = importance_nll(model, guide, split, 1000)
    assert (np.abs(found.log_evidence + weighted.nll) < 5 * weighted.standard_error + found.error).all()
    nuts = nuts_posterior(model, split.batch(np.array([1])), draws=40, chains=2, warmup=40, seed=1, limit=math.inf)
    error = (found.covariance[1, 0, 0] / nuts.ess["z"][0]) ** 0.5
    assert abs(nuts.samples["z"].mean() - found.mean[1, 0]) < 5 * error


def test_a_grid_that_is_too_coarse_or_too_small_is_refused_with_the_document() -> None:
    split = RingCorpus(size=5, noise=0.05).train
    with pytest.raises(ValueError, match=r"document \d: halves of a grid of 20 points differ by .* take more"):
        grid_posterior(Ring(0.05), whole(split), points=20)
    with pytest.raises(
        ValueError, match=r"document \d: .*% of its posterior lie at the edge of the grid: reach beyond 1"
    ):
        grid_posterior(LinearGaussian(), whole(LinearGaussian().split(5)), points=60, reach=1.0)
    with pytest.raises(ValueError, match="points is 31; an even number is wanted"):
        grid_posterior(Ring(), whole(split), points=31)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (vae()[0], r"site 'z' has event shape \[3\]; a grid is for \[1\] or \[2\]: use nuts_posterior"),
        (mixture()[0], "SentenceMixture has no continuous latent to refer to: class_posteriors is exact"),
        (discrete()[0], "DiscreteSentence has no continuous latent to refer to: class_posteriors is exact"),
        (lm(), "SentenceLM has no continuous latent to refer to: importance_nll gives its exact likelihood"),
    ],
)
def test_a_text_model_without_one_small_latent_has_no_grid(model: Any, message: str) -> None:
    with pytest.raises(StructureError, match=message):
        grid_posterior(model, whole(text(3)))


@pytest.mark.parametrize(
    ("model", "site", "message"),
    [
        (Ring(), "y", "must have the continuous latent 'y' alone; its continuous latents are 'z'"),
        (Beside(counted=True), None, r"site 'n' \(.*\) has no finite list of values: fix it in the model"),
        (Beside(counted=False), None, r"site 'w' \(Normal\) belongs to the corpus, not to a document: fix it"),
    ],
)
def test_latents_that_cannot_be_integrated_are_named(model: Any, site: str | None, message: str) -> None:
    with pytest.raises(StructureError, match=message):
        grid_posterior(model, whole(VectorSplit(torch.ones(2, 1 if site is None else 2))), site)


# ---- NUTS ----------------------------------------------------------------------------------------------------------


def test_nuts_draws_from_the_posterior_of_a_linear_gaussian_model() -> None:
    model = LinearGaussian()
    batch = model.split(3).batch(np.array([1]))
    exact = model.posterior(batch.values)
    found = nuts_posterior(model, batch, draws=250, chains=2, warmup=100)
    assert found.samples["z"].shape == (2, 250, 2) and found.divergences == 0
    assert (found.rhat["z"] < 1.05).all()
    deviation = exact.variance[0].sqrt().numpy()
    draws = found.samples["z"].reshape(-1, 2)
    assert (np.abs(draws.mean(0) - exact.mean[0].numpy()) < 4.5 * deviation / found.ess["z"] ** 0.5).all()
    data = found.to_xarray()
    assert data["z"].dims == ("chain", "draw", "z_dim_0") and data.attrs == {"divergences": 0}
    np.testing.assert_array_equal(data["z_rhat"], found.rhat["z"])
    # a standard deviation is known to 1 / sqrt(2 n); squares mix more slowly than draws
    assert (np.abs(draws.std(0) / deviation - 1) < 4.5 / found.ess["z"] ** 0.5).all()


def test_one_document_of_many_counts_once() -> None:
    model = LinearGaussian()
    split = model.split(20)
    options: dict[str, Any] = {"draws": 10, "chains": 2, "warmup": 10, "limit": math.inf}
    of_many = nuts_posterior(model, split.batch(np.array([4])), **options)
    alone = nuts_posterior(model, split.take(np.array([4])).batch(np.array([0])), **options)
    np.testing.assert_allclose(of_many.samples["z"], alone.samples["z"], rtol=1e-3)
    first, second = grid_posterior(model, split.batch(np.array([4]))), grid_posterior(model, whole(split))
    np.testing.assert_allclose(first.log_evidence, second.log_evidence[[4]], rtol=1e-5)


def test_a_positive_latent_is_sampled_on_its_own_scale() -> None:
    found = nuts_posterior(Waiting(), VectorSplit(torch.tensor([[0.5]])).batch(np.array([0])), 200, 2, 60)
    draws, rate = found.samples["z"], 1.5
    assert (draws > 0).all()
    assert abs(draws.mean() - 3 / rate) < 4.5 * (3**0.5 / rate) / float(found.ess["z"][0]) ** 0.5


def test_chains_that_disagree_are_refused() -> None:
    batch = VectorSplit(torch.tensor([[1.0]])).batch(np.array([0]))
    options: dict[str, Any] = {"draws": 30, "chains": 4, "warmup": 30, "seed": 1}
    with pytest.raises(ValueError, match=r"document 0: R-hat of 'z' is \d.* after 30 draws of 4 chains \(limit 1.05\)"):
        nuts_posterior(Folded(), batch, **options)
    assert nuts_posterior(Folded(), batch, **options, limit=math.inf).rhat["z"][0] > 1.05


@pytest.mark.parametrize("options", [{"draws": 1}, {"chains": 1}, {"rows": 2}])
def test_what_cannot_be_judged_is_refused(options: dict[str, int]) -> None:
    rows = np.arange(options.pop("rows", 1))
    with pytest.raises(ValueError, match=r"NUTS takes one, split.batch\(np.array\(\[row\]\)\), 4 draws and 2 chains"):
        nuts_posterior(LinearGaussian(), LinearGaussian().split(3).batch(rows), **options)
