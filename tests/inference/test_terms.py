"""terms(): both sides of every site, per particle and document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.distributions import kl_divergence

from pyro_nlp.data.batches import VectorBatch
from pyro_nlp.data.splits import VectorSplit
from pyro_nlp.inference import ELBO, PyroELBO, Strategy, terms
from tests.tiny import all_close, gradients, lm, ring, text, whole

# sums of some tens of float32 numbers of size 10
CLOSE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}

POPULATION = 6


def batch(values: Tensor | None = None, rows: Any = None) -> VectorBatch:
    split = VectorSplit(torch.randn(POPULATION, 2) if values is None else values)
    return split.batch(np.arange(len(split)) if rows is None else np.asarray(rows))


# ---- one latent per document ---------------------------------------------------------------------------------


@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("diagonal", [True, False])
def test_terms_of_a_document_equal_its_densities_by_hand(particles: int, diagonal: bool) -> None:
    model, guide = ring(diagonal=diagonal)
    data = batch(rows=[4, 1, 2])
    found = terms(model, guide, data, particles=particles)
    z = found.sites["z"].value
    assert z.shape == (particles, 3, 2)
    loc, rest = guide.network(data.values).tensor_split([2], -1)
    if diagonal:
        q: Any = torch.distributions.Independent(torch.distributions.Normal(loc, rest.exp()), 1)
        covariance = torch.diag_embed((2 * rest).exp())
    else:
        square = rest.unflatten(-1, (2, 2))
        lower = square.tril(-1) + torch.diag_embed(square.diagonal(dim1=-2, dim2=-1).exp())
        q, covariance = torch.distributions.MultivariateNormal(loc, scale_tril=lower), lower @ lower.mT
    trace = covariance.diagonal(dim1=-2, dim2=-1).sum(-1)
    kl = 0.5 * (trace + loc.square().sum(-1) - 2 - torch.logdet(covariance))
    log_p = -0.5 * z.square().sum(-1) - np.log(2 * np.pi)
    noise = model.log_noise.exp()
    residual = (data.values - model.bend(z)) / noise
    log_x = -0.5 * residual.square().sum(-1) - 2 * noise.log() - np.log(2 * np.pi)

    assert found.log_likelihood.shape == (particles, 3)
    torch.testing.assert_close(found.log_likelihood, log_x, **CLOSE)
    torch.testing.assert_close(found.sites["z"].log_p, log_p, **CLOSE)
    torch.testing.assert_close(found.sites["z"].log_q, q.log_prob(z), **CLOSE)
    torch.testing.assert_close(found.log_weight, log_x + log_p - q.log_prob(z), **CLOSE)
    per_dimension = found.sites["z"].kl_per_dimension
    if diagonal:
        torch.testing.assert_close(found.kl["z"], kl.expand(particles, 3), **CLOSE)
        by_hand = 0.5 * ((2 * rest).exp() + loc.square() - 1 - 2 * rest)
        assert per_dimension is not None
        torch.testing.assert_close(per_dimension, by_hand.expand(particles, 3, 2), **CLOSE)
    else:
        assert per_dimension is None


def test_without_a_closed_form_the_kl_is_its_estimate_at_the_draw() -> None:
    model, guide = ring(diagonal=False)
    site = terms(model, guide, batch(), particles=4).sites["z"]
    try:
        kl_divergence(site.q, site.p)
    except NotImplementedError:
        assert torch.equal(site.kl, site.log_q - site.log_p)
    else:
        pytest.fail("this pair has a closed form now: choose another for this test")


def test_the_estimated_kl_is_unbiased_for_the_closed_form() -> None:
    model, guide = ring()
    site = terms(model, guide, batch(), particles=20_000).sites["z"]
    estimate = site.log_q - site.log_p
    error = estimate.std(0) / 20_000**0.5
    assert ((estimate.mean(0) - site.kl[0]).abs() < 5 * error).all()  # six documents, five standard errors


def test_a_given_value_takes_the_place_of_the_draw_and_stays_latent() -> None:
    model, guide = ring()
    data, z = batch(), torch.randn(2, POPULATION, 2)
    found = terms(model, guide, data, particles=2, given={"z": z})
    assert torch.equal(found.sites["z"].value, z)
    torch.testing.assert_close(found.sites["z"].log_p, dist.Normal(0, 1).log_prob(z).sum(-1), **CLOSE)


def test_a_model_without_latents_needs_no_guide() -> None:
    found = terms(lm(), None, whole(text(5)), particles=3)
    assert found.sites == {} and found.kl == {}
    assert found.log_likelihood.shape == (3, 5)
    assert torch.equal(found.log_weight, found.log_likelihood)
    assert torch.equal(found.log_likelihood[0], found.log_likelihood[2])


def test_particles_average_to_the_same_elbo() -> None:
    model, guide = ring()
    data = batch(rows=[0, 3])
    one = torch.stack([terms(model, guide, data).log_likelihood[0] for _ in range(400)])
    many = terms(model, guide, data, particles=400).log_likelihood
    error = (one.var(0) / 400 + many.var(0) / 400).sqrt()
    assert ((one.mean(0) - many.mean(0)).abs() < 5 * error).all()


# ---- minibatches ---------------------------------------------------------------------------------------------


class Deterministic(PyroModule):
    """z is a point, so that nothing is random: what remains is how documents are weighed."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(2, 2)

    def forward(self, batch: VectorBatch) -> None:
        with batch.documents():
            pyro.sample("z", dist.Delta(self.map(batch.values), event_dim=1))


def test_minibatch_losses_average_to_the_loss_of_the_corpus_in_value_and_gradient() -> None:
    (model, _), guide = ring(), Deterministic()
    values = torch.randn(POPULATION, 2)
    objective = Strategy().compile(model, guide, batch(values))
    objective(batch(values)).backward()
    wanted = gradients(model, guide)
    total = objective(batch(values)).detach()
    parts = [[0, 3], [5, 1], [2, 4]]
    losses = [objective(batch(values, rows)) for rows in parts]
    (sum(losses) / 3).backward()
    torch.testing.assert_close(sum(losses).detach() / 3, total, **CLOSE)
    all_close(gradients(model, guide), wanted, 1e-5)


def test_minibatches_of_different_sizes_count_by_their_documents() -> None:
    (model, _), guide = ring(), Deterministic()
    values = torch.randn(POPULATION, 2)
    objective = Strategy().compile(model, guide, batch(values))
    parts = [[0], [5, 1, 3], [2, 4]]
    mean = sum(len(rows) * objective(batch(values, rows)) for rows in parts) / POPULATION
    torch.testing.assert_close(mean, objective(batch(values)), **CLOSE)


def test_a_sampled_minibatch_loss_is_unbiased_for_the_loss_of_the_corpus() -> None:
    model, guide = ring()
    values = torch.randn(POPULATION, 2)
    objective = Strategy(bound=ELBO(particles=50)).compile(model, guide, batch(values))
    with torch.no_grad():
        full = torch.stack([objective(batch(values)) for _ in range(200)])
        rng = np.random.default_rng(0)
        parts = [rng.choice(POPULATION, 2, replace=False) for _ in range(600)]
        mini = torch.stack([objective(batch(values, rows)) for rows in parts])
    error = (full.var() / len(full) + mini.var() / len(mini)).sqrt()
    assert (full.mean() - mini.mean()).abs() < 4 * error


# ---- a latent of the corpus ----------------------------------------------------------------------------------


class Shared(PyroModule):
    """mu ~ N(0, 1), x_n ~ N(mu, 1): the evidence and the posterior are Gaussian."""

    plates = 1

    def forward(self, batch: VectorBatch) -> None:
        mu = pyro.sample("mu", dist.Normal(torch.zeros(()), 1.0))
        with batch.documents():
            pyro.sample("x", dist.Normal(mu[..., None] if mu.dim() > 2 else mu, 1.0), obs=batch.values[:, 0])


class SharedGuide(PyroModule):
    def __init__(self, loc: float, scale: float) -> None:
        super().__init__()
        self.loc, self.scale = nn.Parameter(torch.tensor(loc)), scale

    def forward(self, batch: VectorBatch) -> None:
        pyro.sample("mu", dist.Normal(self.loc, self.scale))


def shared() -> tuple[Tensor, float, float, float]:
    """Values, posterior mean and standard deviation, log evidence."""
    values = torch.tensor([0.3, -1.2, 2.0, 0.7, 0.1])
    n = len(values)
    covariance = torch.eye(n) + torch.ones(n, n)
    evidence = dist.MultivariateNormal(torch.zeros(n), covariance).log_prob(values)
    return values, float(values.sum() / (n + 1)), (n + 1) ** -0.5, float(evidence)


def test_a_latent_of_the_corpus_counts_one_nth_in_every_document() -> None:
    values, mean, deviation, evidence = shared()
    data = batch(torch.stack([values, values], 1))
    found = terms(Shared(), SharedGuide(mean, deviation), data, particles=3)
    # at the exact posterior every draw's log weight is the evidence
    torch.testing.assert_close(found.log_weight.sum(1), torch.full((3,), evidence), **CLOSE)
    kl = 0.5 * (deviation**2 + mean**2 - 1) - np.log(deviation)
    torch.testing.assert_close(found.kl["mu"], torch.full((3, 5), kl / 5), **CLOSE)


def test_the_elbo_of_a_corpus_level_latent_is_exact_and_minibatches_are_unbiased_for_it() -> None:
    values, mean, deviation, evidence = shared()
    both = torch.stack([values, values], 1)
    model, guide = Shared(), SharedGuide(mean, deviation)
    objective = Strategy(bound=ELBO(particles=2000)).compile(model, guide, batch(both))
    with torch.no_grad():
        full = torch.stack([objective(batch(both)) for _ in range(20)])
        singles = torch.stack([objective(batch(both, [i % 5])) for i in range(100)])
    wanted = -evidence / 5
    assert (full.mean() - wanted).abs() < 4 * full.std() / 20**0.5
    by_document = singles.view(20, 5).mean(1)
    assert (by_document.mean() - wanted).abs() < 4 * by_document.std() / 20**0.5


# ---- more plates, scales and masks ---------------------------------------------------------------------------


class Words(PyroModule):
    """z_n per document, w_nt per word in a plate at dim -2."""

    plates = 2
    words = 3

    def __init__(self) -> None:
        super().__init__()
        self.loc, self.word = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(-0.2))

    def forward(self, batch: VectorBatch) -> None:
        with batch.documents():
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            with pyro.plate("words", self.words, dim=-2):
                w = pyro.sample("w", dist.Normal(z, 1.0))
                pyro.sample("x", dist.Normal(w, 1.0), obs=batch.values.T)


class WordsGuide(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.loc, self.word = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(-0.2))

    def forward(self, batch: VectorBatch) -> None:
        with batch.documents():
            pyro.sample("z", dist.Normal(self.loc, 0.7))
            with pyro.plate("words", Words.words, dim=-2):
                pyro.sample("w", dist.Normal(self.word, 0.5))


@pytest.mark.parametrize("particles", [1, 4])
def test_a_plate_of_words_is_summed_within_each_document(particles: int) -> None:
    values = torch.randn(POPULATION, Words.words)
    found = terms(Words(), WordsGuide(), batch(values, [5, 0]), particles=particles)
    z, w = found.sites["z"].value, found.sites["w"].value
    assert z.shape == (particles, 1, 2) and w.shape == (particles, 3, 2)
    log = lambda x, loc, scale: torch.distributions.Normal(loc, scale).log_prob(x)  # noqa: E731
    torch.testing.assert_close(found.log_likelihood, log(values[[5, 0]].T, w, 1.0).sum(1), **CLOSE)
    torch.testing.assert_close(found.sites["w"].log_p, log(w, z, 1.0).sum(1), **CLOSE)
    torch.testing.assert_close(found.sites["w"].log_q, log(w, -0.2, torch.tensor(0.5)).sum(1), **CLOSE)
    torch.testing.assert_close(found.sites["z"].log_p, log(z, 0.0, 1.0)[:, 0], **CLOSE)
    kl_w = kl_divergence(torch.distributions.Normal(-0.2, 0.5), torch.distributions.Normal(z, 1.0))
    torch.testing.assert_close(found.kl["w"], 3 * kl_w[:, 0].expand(particles, 2), **CLOSE)
    assert found.sites["w"].kl_per_dimension is None


def altered(inner: Callable[[], Any], site: str) -> tuple[Any, Any]:
    """A model and a guide whose `site` is under a user's own handler."""

    class Model(PyroModule):
        plates = 1

        def forward(self, batch: VectorBatch) -> None:
            with batch.documents():
                with inner() if site in ("z", "both") else poutine.scale(scale=1.0):
                    z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
                with inner() if site == "x" else poutine.scale(scale=1.0):
                    pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=batch.values)

    class Guide(PyroModule):
        def __init__(self) -> None:
            super().__init__()
            self.loc = nn.Parameter(torch.tensor([0.3, -0.4]))

        def forward(self, batch: VectorBatch) -> None:
            with batch.documents(), inner() if site in ("guide", "both") else poutine.scale(scale=1.0):
                pyro.sample("z", dist.Normal(self.loc, 0.8).to_event(1))

    return Model(), Guide()


MASK = torch.tensor([True, False, True])
HANDLERS = {
    "scale": (lambda: poutine.scale(scale=2.5), torch.full((3,), 2.5)),
    "scale by document": (lambda: poutine.scale(scale=torch.tensor([1.0, 2.0, 0.5])), torch.tensor([1.0, 2.0, 0.5])),
    "mask": (lambda: poutine.mask(mask=MASK), MASK.float()),
}


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("site", ["x", "z", "guide", "both"])
def test_a_scale_or_mask_of_the_users_own_is_respected(handler: str, site: str) -> None:
    inner, factor = HANDLERS[handler]
    model, guide = altered(inner, site)
    data, z = batch(rows=[0, 4, 2]), torch.randn(1, 3, 2)
    found = terms(model, guide, data, given={"z": z})
    plain = terms(*altered(inner, "nowhere"), data, given={"z": z})
    one = torch.ones(3)
    f_x, f_p, f_q = (factor if site in sites else one for sites in (("x",), ("z", "both"), ("guide", "both")))
    torch.testing.assert_close(found.log_likelihood, plain.log_likelihood * f_x, **CLOSE)
    torch.testing.assert_close(found.sites["z"].log_p, plain.sites["z"].log_p * f_p, **CLOSE)
    torch.testing.assert_close(found.sites["z"].log_q, plain.sites["z"].log_q * f_q, **CLOSE)
    if site in ("x", "both"):  # both sides alike: the closed form stays
        torch.testing.assert_close(found.kl["z"], plain.kl["z"] * f_q, **CLOSE)
    else:  # E_q[f_q log q - f_p log p] has no closed form here
        torch.testing.assert_close(found.kl["z"], found.sites["z"].log_q - found.sites["z"].log_p, **CLOSE)


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("site", ["x", "both"])
def test_with_a_users_handler_the_loss_equals_that_of_pyro(handler: str, site: str) -> None:
    model, guide = altered(HANDLERS[handler][0], site)
    data = batch(rows=[0, 4, 2])
    losses = []
    for bound in (ELBO(), PyroELBO("TraceMeanField_ELBO")):
        objective = Strategy(bound=bound).compile(model, guide, data)
        torch.manual_seed(1)
        losses.append(objective(data).detach())
    torch.testing.assert_close(*losses, **CLOSE)


@pytest.mark.parametrize("particles", [1, 2])
def test_the_kl_of_a_site_below_a_draw_for_the_corpus_is_taken_at_the_draw(particles: int) -> None:
    """q(a) q(b | a) and p(b) p(a | b): a b for the whole corpus makes p(a | b) the same for all documents."""
    batch = whole(text(4))

    def model(batch: Any) -> None:
        b = pyro.sample("b", dist.Normal(0.0, 1.0))
        with batch.documents():
            a = pyro.sample("a", dist.Normal(b, 1.0))
            pyro.sample("x", dist.Normal(a, 1.0), obs=torch.zeros(len(batch)))

    def guide(batch: Any) -> None:
        with batch.documents():
            a = pyro.sample("a", dist.Normal(torch.zeros(len(batch)), 1.0))
        pyro.sample("b", dist.Normal(a.sum(-1, keepdim=True), 0.1))

    site = terms(model, guide, batch, particles=particles).sites["a"]
    assert site.closed_form is None
    assert torch.equal(site.kl, site.log_q - site.log_p)
