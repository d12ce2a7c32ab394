"""Every topic model with every guide it meets: adding a model is adding a line to `tests/bags.py`."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pyro
import pytest
import torch
import torch.nn.functional as F
from pyro.nn import PyroModule

from pyro_nlp.evaluation import evaluate
from pyro_nlp.inference import ELBO, KL, Adam, FreeBits, PyroELBO, Strategy, Training, fit, terms
from tests.bags import CLOSE, GUIDES, MODELS, TOPICS, VOCABULARY, bags, latents, likelihood, make, some
from tests.tiny import gradients

PAIRS = [pytest.param(name, guide, id=f"{name}-{guide}") for name in MODELS for guide in GUIDES[name]]
pairs = pytest.mark.parametrize(("name", "guide_name"), PAIRS)
models = pytest.mark.parametrize("name", MODELS)


@pairs
def test_it_compiles_and_every_parameter_gets_a_gradient(name: str, guide_name: str) -> None:
    model, guide, corpus = make(name, guide_name)
    model.train(), guide.train()
    batch = corpus.train.batch(np.arange(20))
    objective = Strategy().compile(model, guide, batch)
    loss = objective(batch)
    loss.backward()
    assert loss.dim() == 0 and loss.isfinite()
    found = gradients(model, guide)
    trainable = {f"{i}.{n}" for i, m in enumerate((model, guide)) for n, p in m.named_parameters() if p.requires_grad}
    assert found.keys() == trainable
    assert all(g.isfinite().all() and g.any() for g in found.values())


@pairs
def test_particles_are_one_more_dimension_on_the_left(name: str, guide_name: str) -> None:
    model, guide, corpus = make(name, guide_name)
    batch = some(corpus)
    found = terms(model, guide, batch, particles=3)
    assert found.log_likelihood.shape == found.log_weight.shape == (3, 4)
    for s in range(3):  # each particle is what it is alone
        alone = terms(model, guide, batch, given={n: site.value[s : s + 1] for n, site in found.sites.items()})
        torch.testing.assert_close(alone.log_likelihood[0], found.log_likelihood[s], **CLOSE)
        torch.testing.assert_close(alone.log_weight[0], found.log_weight[s], **CLOSE)
    (values,) = ({n: site.value} for n, site in found.sites.items())
    assert model.proportions(values).shape == (3, 4, TOPICS)


@pairs
def test_a_document_is_judged_alone_as_among_others(name: str, guide_name: str) -> None:
    model, guide, corpus = make(name, guide_name)
    together = terms(model, guide, some(corpus))
    given = {n: s.value for n, s in together.sites.items()}
    for i, row in enumerate((3, 0, 39, 9)):
        alone = terms(model, guide, some(corpus, (row,)), given={n: v[:, i : i + 1] for n, v in given.items()})
        torch.testing.assert_close(alone.log_likelihood[0, 0], together.log_likelihood[0, i], **CLOSE)
        for site, kl in together.kl.items():
            torch.testing.assert_close(alone.kl[site][0, 0], kl[0, i], **CLOSE)


@pairs
def test_its_kl_is_in_closed_form(name: str, guide_name: str) -> None:
    model, guide, corpus = make(name, guide_name)
    (site,) = terms(model, guide, some(corpus)).sites.values()
    assert (site.closed_form is None) == ("mixture" in name)


@pairs
def test_two_epochs_of_training_and_an_evaluation_run_through(name: str, guide_name: str) -> None:
    model, guide, corpus = make(name, guide_name)
    if guide_name == "mean field":  # it has no posterior for other documents
        corpus.valid = corpus.test = corpus.train
    strategy = Strategy(bound=ELBO(2), kl=KL(0.5, FreeBits(0.1, per="site")))
    training = Training(epochs=2, batch_size=13, device="cpu", optimizer=Adam(0.05))
    run = fit(model, guide, corpus, strategy, training)
    assert math.isfinite(run.history[-1]["valid.loss"])
    found = evaluate(model, guide, corpus.test, samples=5)
    assert found.likelihood is not None
    assert len(pyro.get_param_store()) == 0


@models
def test_a_batch_of_one_document_trains(name: str) -> None:
    model, guide, corpus = make(name)
    model.train(), guide.train()
    batch = some(corpus, (3,))
    loss = Strategy().compile(model, guide, batch)(batch)
    loss.backward()
    assert loss.isfinite() and all(g.isfinite().all() for g in gradients(model, guide).values())


@models
def test_topics_and_proportions_are_distributions(name: str) -> None:
    model, _, _ = make(name)
    assert model.topics_count == TOPICS
    topics, theta = model.topics(), model.proportions(latents(model, 2, 4))
    assert topics.shape == (TOPICS, VOCABULARY) and not topics.requires_grad
    assert theta.shape == (2, 4, TOPICS)
    # float32 softmaxes
    torch.testing.assert_close(topics.sum(-1), torch.ones(TOPICS), rtol=0, atol=1e-6)
    torch.testing.assert_close(theta.sum(-1), torch.ones(2, 4), rtol=0, atol=1e-6)
    assert (topics > 0).all() and (theta > 0).all()


@models
def test_given_the_latent_all_texts_of_a_length_sum_to_one(name: str) -> None:
    model, _, _ = make(name)
    texts = torch.tensor(list(itertools.product(range(VOCABULARY), repeat=2)))
    batch = bags(F.one_hot(texts, VOCABULARY).sum(1))
    values = {n: v.expand(2, len(texts), -1) for n, v in latents(model, 2, 1).items()}
    total = likelihood(model, batch, values).double().exp().sum(-1)
    # 49 float32 log-probabilities, each rounded at about 5e-7
    torch.testing.assert_close(total, torch.ones(2).double(), rtol=0, atol=1e-5)


@models
def test_it_is_a_pyro_module_that_names_its_plates_and_draws_from_its_prior(name: str) -> None:
    model, _, corpus = make(name)
    assert isinstance(model, PyroModule) and model.plates == 1
    trace = pyro.poutine.trace(pyro.poutine.uncondition(model)).get_trace(some(corpus))
    drawn = trace.nodes["x"]["value"]
    assert torch.equal(drawn.sum(-1), some(corpus).counts.sum(-1))  # documents as long as those it was shown


@models
def test_under_autocast_only_its_products_are_rounded(name: str) -> None:
    model, _, corpus = make(name)
    values, batch = latents(model, 2, 4), some(corpus)
    wanted = likelihood(model, batch, values)
    with torch.autocast("cpu", torch.bfloat16):
        found = likelihood(model, batch, values)
    assert found.dtype == torch.float32
    # six words, whose logits of size 5 have 8 bits
    torch.testing.assert_close(found, wanted, rtol=0, atol=6 * 5 * 2.0**-8 * 2)


@pytest.mark.parametrize("name", ["NVDM", "LDA"])
@pytest.mark.parametrize("bound", ["Trace_ELBO", "TraceMeanField_ELBO"])
def test_pyros_own_objectives_take_it_too(name: str, bound: Any) -> None:
    model, guide, corpus = make(name)
    objective = Strategy(bound=PyroELBO(bound, 2)).compile(model, guide, some(corpus))
    objective(some(corpus)).backward()
    assert gradients(model, guide)


@models
def test_an_encoder_of_counts_and_its_model_agree_on_the_size_of_the_latent(name: str) -> None:
    """Recipes link the argument `latent` of the model to the guide's."""
    made, kind = MODELS[name], MODELS[name].func  # type: ignore[attr-defined]
    assert made().latent == TOPICS
    assert kind.__init__.__annotations__["latent"] == "int"
