"""Topic models against loops over words and topics, sticks, priors and moments written out, and Pyro's enumeration."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_nlp.data import CountBatch
from pyro_nlp.data.counts import CountSplit
from pyro_nlp.evaluation import importance_nll
from pyro_nlp.guides.dirichlet import DirichletGuide
from pyro_nlp.inference import Enumerate, Marginalize, PyroELBO, Strategy, terms
from pyro_nlp.inference.terms import StructureError
from pyro_nlp.models.gsm import GSB, GSM, RSB, even_breaks, stick_breaking
from pyro_nlp.models.lda import LDA, EnumeratedLDA, spelled_out
from pyro_nlp.models.prodlda import NVLDA, ProdLDA
from tests.bags import CLOSE, MODELS, TOPICS, VOCABULARY, Bags, encoder, latents, likelihood, make, some
from tests.tiny import gradients, sharpen


def twin(model: Any, counts: Tensor, theta: Tensor, topics: Tensor) -> float:
    """log p(x | theta) of a mixture of topics, by loops."""
    total = 0.0
    for v in range(VOCABULARY):
        p = sum(float(theta[k]) * float(topics[k, v]) for k in range(TOPICS))
        total += float(counts[v]) * math.log(p)
    return total


MIXTURES = ["GSM", "GSB", "RSB", "NVLDA", "ETM", "LDA", "NVLDA, Dirichlet"]


@pytest.mark.parametrize("name", MIXTURES)
def test_a_mixture_is_a_loop_over_words_and_topics(name: str) -> None:
    model, _, corpus = make(name)
    batch = some(corpus)
    values = latents(model, 1, 4)
    found = likelihood(model, batch, values)[0]
    theta, topics = model.proportions(values)[0].detach(), model.topics()
    wanted = [twin(model, batch.counts[d], theta[d], topics) for d in range(4)]
    torch.testing.assert_close(found, torch.tensor(wanted), **CLOSE)


def test_nvdm_is_a_loop_over_words() -> None:
    model, _, corpus = make("NVDM")
    batch, values = some(corpus), latents(make("NVDM")[0], 1, 4)
    W, b, z = model.decoder.weight.detach(), model.decoder.bias.detach(), values["z"][0]
    for d in range(4):
        scores = [sum(float(W[v, k]) * float(z[d, k]) for k in range(TOPICS)) + float(b[v]) for v in range(VOCABULARY)]
        norm = math.log(sum(math.exp(s) for s in scores))
        wanted = sum(float(batch.counts[d, v]) * (scores[v] - norm) for v in range(VOCABULARY))
        assert float(likelihood(model, batch, values)[0, d]) == pytest.approx(wanted, abs=1e-4)


def test_embedded_topics_are_softmaxes_of_inner_products() -> None:
    for model, rho in ((make("ETM")[0], "words"), (make("GSM")[0], "word_vectors")):
        words, found = getattr(model, rho).detach(), model.topics()
        for k in range(TOPICS):
            scores = [float(model.topic_vectors[k].detach() @ words[v]) for v in range(VOCABULARY)]
            wanted = torch.tensor(scores).softmax(-1)
            torch.testing.assert_close(found[k], wanted, **CLOSE)


def test_etm_takes_word_vectors_from_elsewhere_and_leaves_them_alone() -> None:
    model, vectors = MODELS["ETM"](), 10 * torch.randn(VOCABULARY, 4)
    model.embed(vectors)
    assert not model.words.requires_grad
    torch.testing.assert_close(F.cosine_similarity(model.words, vectors), torch.ones(VOCABULARY))
    assert float(model.words.square().sum(-1).mean()) == pytest.approx(1, rel=1e-5)
    model.embed(vectors, train=True)
    assert model.words.requires_grad
    with pytest.raises(ValueError, match=r"ETM: word vectors are \[7, 4\], not \[7, 5\]"):
        model.embed(torch.randn(VOCABULARY, 5))


def test_a_stick_is_broken_piece_by_piece() -> None:
    logits = 3 * torch.randn(5, 4)
    found = stick_breaking(logits)
    for row, eta in zip(found, logits.sigmoid(), strict=True):
        left, wanted = 1.0, []
        for part in eta.tolist():
            wanted.append(left * part)
            left *= 1 - part
        torch.testing.assert_close(row, torch.tensor([*wanted, left]), **CLOSE)
    assert stick_breaking(torch.full((200,), 50.0)).isfinite().all()
    torch.testing.assert_close(stick_breaking(100 * torch.randn(30, 60)).sum(-1), torch.ones(30))


@pytest.mark.parametrize("topics", [2, 3, 50])
def test_even_breaks_give_equal_parts(topics: int) -> None:
    found = stick_breaking(even_breaks(topics))
    torch.testing.assert_close(found, torch.full((topics,), 1 / topics), rtol=1e-4, atol=0)  # a sum of 49 logarithms


@pytest.mark.parametrize("kind", [GSB, RSB])
def test_a_stick_of_one_piece_is_refused(kind: Any) -> None:
    with pytest.raises(ValueError, match=r"a stick is broken into at least 2 topics, latent is 1"):
        kind(VOCABULARY, 1)


def test_recurrent_sticks_are_broken_by_a_loop_over_states() -> None:
    model, _, _ = make("RSB")
    z, h, left, wanted = torch.randn(TOPICS), model.first.detach(), 1.0, []
    for k in range(TOPICS - 1):
        eta = float((h @ z / TOPICS**0.5 - math.log(TOPICS - 1 - k)).sigmoid())
        wanted.append(left * eta)
        left *= 1 - eta
        h = (model.next.weight @ h + model.next.bias).detach().tanh()
    torch.testing.assert_close(model.theta(z).detach(), torch.tensor([*wanted, left]), **CLOSE)


def test_the_laplace_prior_has_the_variance_of_the_formula() -> None:
    a, K = 0.3, 5
    model = ProdLDA(VOCABULARY, K, a)
    wanted = (1 / a) * (1 - 2 / K) + sum(1 / a for _ in range(K)) / K**2
    assert float(model.scale) == pytest.approx(math.sqrt(wanted), rel=1e-6)


def test_the_laplace_prior_is_near_the_dirichlet_in_the_softmax_basis() -> None:
    """E[log theta_1 - log theta_2] is 0 and its variance 2 trigamma(a), of which 2/a is the first term for large a."""
    a = 50.0
    model = ProdLDA(VOCABULARY, 4, a)
    z = dist.Normal(0.0, model.scale).expand([4])
    variance = 2 * float(z.variance[0])
    exact = 2 * float(torch.polygamma(1, torch.tensor(a)))
    # the Laplace approximation drops the covariances, which adds 1/K of the whole, and 1/a^2
    assert variance * (1 / (1 - 1 / 4)) == pytest.approx(exact, rel=2 / a)


@pytest.mark.parametrize(("latent", "concentration"), [(1, 1.0), (3, 0.0)])
@pytest.mark.parametrize("kind", [ProdLDA, NVLDA])
def test_a_prior_without_a_laplace_approximation_is_refused(kind: Any, latent: int, concentration: float) -> None:
    with pytest.raises(ValueError, match="latent is at least 2 and concentration above 0"):
        kind(VOCABULARY, latent, concentration)


# ---- batch normalisation and dropout ---------------------------------------------------------------------------------


def test_prodlda_in_evaluation_is_a_softmax_of_running_moments() -> None:
    model, _, corpus = make("ProdLDA")
    batch, values = some(corpus), latents(model, 1, 4)
    norm, theta = model.norm, model.proportions(values)[0]
    scores = (theta @ model.weights - norm.running_mean) / (norm.running_variance + norm.epsilon).sqrt() + norm.bias
    wanted = (batch.counts * scores.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(likelihood(model, batch, values)[0], wanted, **CLOSE)


def test_prodlda_in_training_takes_the_moments_of_the_batch_and_of_all_particles() -> None:
    model = ProdLDA(VOCABULARY, TOPICS, dropout=0.0).train()
    batch, values = some(Bags()), latents(model, 3, 4)
    scores = model.proportions(values) @ model.weights
    rows = scores.reshape(-1, VOCABULARY)
    normal = (scores - rows.mean(0)) / (rows.var(0, unbiased=False) + 1e-5).sqrt()
    wanted = (batch.counts * normal.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(likelihood(model, batch, values), wanted, rtol=1e-4, atol=1e-4)
    mean = 0.1 * rows.mean(0)  # once, from the pass above
    torch.testing.assert_close(model.norm.running_mean, mean.detach(), **CLOSE)


def test_looking_at_prodlda_in_training_does_not_move_its_running_moments() -> None:
    model, guide, corpus = make("ProdLDA")
    model.train()
    before = model.norm.running_mean.clone()
    with torch.no_grad():
        terms(model, guide, some(corpus))
    assert torch.equal(model.norm.running_mean, before)
    terms(model, guide, some(corpus))
    assert not torch.equal(model.norm.running_mean, before)


def test_nvlda_normalises_each_words_weights_over_topics_in_both_modes() -> None:
    model, _, _ = make("NVLDA")
    weights = model.weights.detach()
    spread = (weights.var(0, unbiased=False) + 1e-5).sqrt()
    wanted = ((weights - weights.mean(0)) / spread + model.bias.detach()).softmax(-1)
    torch.testing.assert_close(model.topics(), wanted, **CLOSE)
    torch.testing.assert_close(model.train().topics(), wanted, **CLOSE)


def test_topics_that_dropout_leaves_to_nvlda_share_the_document() -> None:
    model = NVLDA(VOCABULARY, TOPICS, dropout=0.9).train()
    shares = model.words(torch.randn(500, TOPICS).softmax(-1), torch.ones(500)).theta
    torch.testing.assert_close(shares.sum(-1), torch.ones(500))  # also where all were dropped
    assert (shares == 0).any()


# ---- latent Dirichlet allocation -------------------------------------------------------------------------------------


def test_words_spelled_out_are_the_counts() -> None:
    counts = torch.randint(4, (5, VOCABULARY)).float()
    counts[2] = 0
    words, mask = spelled_out(counts)
    assert words.shape == mask.shape == (int(counts.sum(-1).max()), 5)
    for d in range(5):
        assert torch.equal(words[mask[:, d], d].bincount(minlength=VOCABULARY).float(), counts[d])


def test_enumerating_every_words_topic_is_the_same_as_summing_it_out() -> None:
    """In value and in gradient, at the same theta; Pyro's enumeration is the oracle."""
    batch = some(Bags())
    theta = torch.randn(4, TOPICS).softmax(-1)
    found = []
    plain, enumerated = (sharpen(kind(VOCABULARY, TOPICS, 0.5, True)) for kind in (LDA, EnumeratedLDA))
    enumerated.load_state_dict(plain.state_dict())

    def guide(batch: CountBatch) -> None:
        with batch.documents():
            pyro.sample("theta", dist.Delta(theta, event_dim=1))

    for model in (plain, enumerated):
        elbo = pyro.infer.TraceEnum_ELBO(max_plate_nesting=2, strict_enumeration_warning=False)
        loss = elbo.differentiable_loss(model, guide, batch)
        loss.backward()
        found.append((loss.detach(), *gradients(model).values()))
    for a, b in zip(*found, strict=True):
        # 10 documents' worth (the plate's scale) of six words of 2 nats, summed in two orders
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)


def test_a_strategy_sums_the_topics_of_words_out_by_pyro_or_by_ours() -> None:
    batch = some(Bags())
    plain, enumerated = (sharpen(kind(VOCABULARY, TOPICS, 0.5)) for kind in (LDA, EnumeratedLDA))
    enumerated.load_state_dict(plain.state_dict())
    guide = DirichletGuide(VOCABULARY, TOPICS, encoder)
    summed = Strategy(discrete=Marginalize())
    for one, other in (  # with the KL of theta by its draw, and in closed form
        (Strategy(bound=PyroELBO("Trace_ELBO")), replace(summed, bound=PyroELBO("TraceEnum_ELBO"))),
        (Strategy(), summed),
    ):
        found = []
        for model, strategy in ((plain, one), (enumerated, other)):
            objective = strategy.compile(model, guide, batch)
            torch.manual_seed(0)  # the same theta
            found.append(objective(batch))
        torch.testing.assert_close(*found, rtol=1e-5, atol=0)


def test_a_guide_of_theta_alone_is_told_to_sum_the_topics_of_words_out() -> None:
    model, guide = EnumeratedLDA(VOCABULARY, TOPICS), DirichletGuide(VOCABULARY, TOPICS, encoder)
    message = (
        r"latent site 'k' .* has 'theta'. Add .* to the guide, or sum it out: Strategy\(sites={'k': Marginalize\(\)}\)."
    )
    for strategy in (Strategy(), Strategy(discrete=Enumerate()), Strategy(bound=PyroELBO("TraceEnum_ELBO"))):
        with pytest.raises(StructureError, match=message):
            strategy.compile(model, guide, some(Bags()))
    cured = Strategy(sites={"k": Marginalize()}, bound=PyroELBO("TraceEnum_ELBO"))
    assert cured.compile(model, guide, some(Bags()))(some(Bags())).isfinite()


@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("NVDM")])
def test_shares_of_topics_are_a_site_of_their_own_without_a_density(name: str) -> None:
    model, guide, corpus = make(name)
    found = terms(model, guide, some(corpus), particles=2)
    assert set(found.observed) == {"x"}
    values = {site: value.value for site, value in found.sites.items()}
    if "theta" in values:
        assert not found.deterministic
    else:
        assert set(found.deterministic) == {"theta"}
        torch.testing.assert_close(found.deterministic["theta"]["value"], model.proportions(values))


def test_what_the_model_computes_is_not_drawn_by_the_guide() -> None:
    message = "site 'theta' is drawn by the guide and computed by the model, which has 'z', 'x'. Rename or drop it."
    with pytest.raises(StructureError, match=message):
        Strategy().compile(GSM(VOCABULARY, TOPICS), DirichletGuide(VOCABULARY, TOPICS, encoder), some(Bags()))


def test_the_exact_evidence_of_lda_is_met_by_importance_sampling() -> None:
    """A document of two words: p(x) = sum_{k, l} E[theta_k theta_l] beta_kv beta_lw, with Dirichlet moments."""
    model, guide, _ = make("LDA")
    split = CountSplit.from_pairs(np.array([0, 0, 1]), np.array([1, 4, 2]), np.array([1, 1, 2]), 2, VOCABULARY)
    a, beta = model.log_concentration.detach().exp().double(), model.topics().double()
    total = a.sum()
    moments = (torch.outer(a, a) + torch.diag(a)) / (total * (total + 1))
    wanted = [-math.log(float(beta[:, v] @ moments @ beta[:, w])) for v, w in ((1, 4), (2, 2))]
    found = importance_nll(model, guide, split, samples=4000)
    for i in range(2):
        assert found.nll[i] == pytest.approx(wanted[i], abs=5 * found.standard_error[i])
        assert found.standard_error[i] < 0.05
