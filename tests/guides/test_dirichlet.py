"""Dirichlet guides: their KL, their gradient, and where they are refused."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.distributions import Dirichlet, kl_divergence

from pyro_nlp.data import CountBatch
from pyro_nlp.distributions import TopicMixture
from pyro_nlp.guides.dirichlet import DirichletGuide, MeanFieldDirichletGuide
from pyro_nlp.inference import Strategy, terms
from pyro_nlp.inference.sites import exact_kl
from pyro_nlp.models.lda import LDA
from pyro_nlp.nn import CountEncoder
from tests.tiny import gradients

VOCABULARY, TOPICS, DOCUMENTS = 6, 3, 5


def batch(rows: int = DOCUMENTS, population: int = DOCUMENTS) -> CountBatch:
    return CountBatch(
        index=torch.arange(rows), population=population, counts=torch.randint(3, (rows, VOCABULARY)).float()
    )


def guided() -> tuple[LDA, DirichletGuide]:
    return LDA(VOCABULARY, TOPICS, 0.4), DirichletGuide(VOCABULARY, TOPICS, partial(CountEncoder, width=8))


def test_the_kl_from_the_prior_is_in_closed_form_and_right() -> None:
    model, guide = guided()
    found = terms(model, guide, batch())
    site = found.sites["theta"]
    prior, q = Dirichlet(torch.full((TOPICS,), 0.4)), Dirichlet(site.q.concentration)
    assert site.closed_form is not None
    torch.testing.assert_close(found.kl["theta"], kl_divergence(q, prior))
    draws = q.sample((20_000,))
    sampled = q.log_prob(draws) - prior.log_prob(draws)
    error = sampled.std(0) / 20_000**0.5
    assert ((sampled.mean(0) - site.kl).abs() < 5 * error).all()


def test_the_kl_of_dirichlets_broadcasts_over_particles() -> None:
    q = Dirichlet(torch.rand(4, 5, TOPICS) + 0.1)
    p = Dirichlet(torch.rand(TOPICS) + 0.1)
    assert exact_kl(q, p).shape == (4, 5)
    torch.testing.assert_close(exact_kl(q, p)[2, 3], kl_divergence(Dirichlet(q.concentration[2, 3]), p))


def test_the_pathwise_gradient_is_that_of_the_expectation() -> None:
    """Of E[log sum_k theta_k b_k], against differences of the same integral by quadrature over two topics."""
    b = torch.tensor([0.2, 0.9]).double()

    def expectation(concentration: torch.Tensor) -> float:
        # midpoints; the density is zero at both ends
        theta = (torch.arange(400_000, dtype=torch.float64) + 0.5) / 400_000
        x = torch.stack([theta, 1 - theta], -1)
        density = Dirichlet(concentration).log_prob(x).exp()
        return float((density * (x @ b).log()).sum() / density.sum())

    a, step = torch.tensor([1.5, 2.5]).double(), 1e-4
    wanted = []
    for k in range(2):
        e = step * torch.eye(2).double()[k]
        wanted.append((expectation(a + e) - expectation(a - e)) / (2 * step))
    concentration = a.expand(40_000, 2).clone().requires_grad_()
    value = (Dirichlet(concentration).rsample() @ b).log()
    (gradient,) = torch.autograd.grad(value.sum(), concentration)
    error = gradient.std(0) / 200
    assert ((gradient.mean(0) - torch.tensor(wanted)).abs() < 4.5 * error).all()


def test_concentrations_stay_above_the_floor_in_float32() -> None:
    _, guide = guided()
    with torch.no_grad():
        guide.posterior.bias.fill_(-200.0)
    with torch.autocast("cpu", torch.bfloat16):
        found = guide.concentration(guide.encoder(batch()))
    assert found.dtype == torch.float32
    assert torch.equal(found, torch.full((DOCUMENTS, TOPICS), 0.01))
    loss = Strategy().compile(LDA(VOCABULARY, TOPICS), guide, batch())(batch())
    loss.backward()
    assert loss.isfinite() and all(g.isfinite().all() for g in gradients(guide).values())


def test_a_guide_per_document_starts_where_it_is_told_and_learns_the_batch_only() -> None:
    model, guide = LDA(VOCABULARY, TOPICS), MeanFieldDirichletGuide(9, TOPICS, concentration=2.0)
    found = terms(model, guide, batch(population=9)).sites["theta"].q.concentration
    torch.testing.assert_close(found, torch.full_like(found, 2.0))
    Strategy().compile(model, guide, batch(3, 9))(batch(3, 9)).backward()
    assert guide.gamma.grad.abs().sum(-1).nonzero().flatten().tolist() == [0, 1, 2]


def test_what_cannot_be_is_refused_with_the_cure() -> None:
    with pytest.raises(
        ValueError, match=r"made for 4 documents, given a corpus of 5\. Make MeanFieldDirichletGuide\(5"
    ):
        Strategy().compile(LDA(VOCABULARY, TOPICS), MeanFieldDirichletGuide(4, TOPICS), batch())
    with pytest.raises(ValueError, match="DirichletGuide: floor is above 0, not 0"):
        DirichletGuide(VOCABULARY, TOPICS, floor=0)
    with pytest.raises(ValueError, match="floor is above 0 and below concentration, not 0.5 and 0.5"):
        MeanFieldDirichletGuide(4, TOPICS, concentration=0.5, floor=0.5)


def test_per_document_posteriors_of_lda_come_near_the_exact_evidence() -> None:
    """One document of one word: the posterior of theta is a mixture of Dirichlets, the evidence mean_k beta_kv."""
    model, guide = LDA(VOCABULARY, TOPICS, 1.0), MeanFieldDirichletGuide(1, TOPICS)
    model.requires_grad_(False)
    one = CountBatch(index=torch.zeros(1, dtype=torch.long), population=1, counts=torch.eye(VOCABULARY)[:1])
    objective = Strategy().compile(model, guide, one)
    optimizer = torch.optim.Adam(guide.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        objective(one).backward()
        optimizer.step()
    with torch.no_grad():
        weight = terms(model, guide, one, particles=4000).log_weight
    exact = float(model.topics()[:, 0].mean().log())
    estimate = float(weight.logsumexp(0) - torch.tensor(4000.0).log())
    share = weight.softmax(0).square().sum().sub(1 / 4000).clamp(min=0).sqrt()
    assert abs(estimate - exact) < 5 * float(share)
    bound, error = float(weight.mean()), float(weight.std() / 4000**0.5)
    assert bound < exact + 5 * error
    # The gap of the best Dirichlet is at most that of the prior, q = p: log E[b] - E[log b] with b = theta . beta_v,
    # and the fit, of 300 noisy steps, lands within the noise of that bound
    with torch.no_grad():
        prior = TopicMixture(Dirichlet(torch.ones(TOPICS)).sample((4000,)), model.log_topics()).log_prob(one.counts)
    assert bound > float(prior.mean()) - 5 * float(prior.std()) / 4000**0.5
