"""Models with discrete latents are judged exactly where they can be."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_nlp.evaluation import (
    active_units,
    class_posteriors,
    elbo_terms,
    evaluate,
    importance_nll,
    mutual_information,
    posteriors,
)
from pyro_nlp.evaluation.discrete import ExactGuide, exact_guide, summable
from pyro_nlp.inference import Enumerate, Marginalize, Strategy, Training, fit
from tests.tiny import CLASSES, VARIABLES, Sentences, discrete, mixture, styled, text, whole


def joint(model: Any, batch: Any) -> Tensor:
    """log p(x, c) of every class by a loop over them, `[classes, documents]`."""
    found = []
    for k in range(CLASSES):
        one_hot = torch.eye(CLASSES)[k].expand(len(batch), -1)
        logits = model.head(model.decoder(one_hot @ model.codes, batch.inputs)).log_softmax(-1)
        words = logits.gather(-1, batch.targets[..., None]).squeeze(-1)
        found.append((words * batch.mask).sum(-1) + model.prior.log_softmax(-1)[k])
    return torch.stack(found).detach().double()


def test_the_likelihood_of_a_mixture_is_exact_with_and_without_a_guide() -> None:
    (model, guide), split = mixture(), text(9)
    wanted = -joint(model, whole(split)).logsumexp(0).numpy()
    for who in (guide, None):
        found = importance_nll(model, who, split, 50)
        assert found.samples == 0 and not found.standard_error.any()
        np.testing.assert_allclose(found.nll, wanted, rtol=1e-5)


def test_the_posterior_of_a_class_is_exact() -> None:
    (model, guide), split = mixture(), text(9)
    wanted = joint(model, whole(split)).softmax(0).T.numpy()
    for who in (guide, None):
        np.testing.assert_allclose(class_posteriors(model, who, split)["c"], wanted, atol=1e-5)


def test_the_likelihood_of_a_product_of_variables_is_a_sum_over_all_its_values() -> None:
    (model, guide), split = discrete(), text(5)
    batch, values = whole(split), torch.cartesian_prod(*[torch.arange(CLASSES)] * VARIABLES)
    found = []
    for value in torch.eye(CLASSES)[values]:
        states = model.decoder(value.flatten() @ model.codes.flatten(0, -2), batch.inputs)
        words = model.head(states).log_softmax(-1).gather(-1, batch.targets[..., None]).squeeze(-1)
        found.append((words * batch.mask).sum(-1) - VARIABLES * math.log(CLASSES))
    wanted = -torch.stack(found).detach().double().logsumexp(0).numpy()
    exact = importance_nll(model, guide, split, 50)
    assert exact.samples == 0
    np.testing.assert_allclose(exact.nll, wanted, rtol=1e-5)


def test_where_the_guide_depends_on_a_class_it_is_sampled_and_where_not_summed() -> None:
    split = text(8)
    dependent, independent = styled(), styled(joint=False)
    assert summable(*dependent, split).sites == () and summable(*independent, split).sites == ("c",)
    model, guide = independent
    summed = importance_nll(model, guide, split, 2000)
    sampled = importance_nll(model, dependent[1], split, 2000)
    error = np.hypot(summed.standard_error, sampled.standard_error)
    assert summed.samples == 2000 and (np.abs(summed.nll - sampled.nll) < 5 * error).all()


def test_a_model_without_a_guide_is_judged_with_its_exact_posterior() -> None:
    (model, _), split = mixture(), text(9)
    found = evaluate(model, None, split)
    log_joint = joint(model, whole(split))
    posterior, prior = log_joint.softmax(0), model.prior.detach().double().log_softmax(-1)[:, None]
    kl = (posterior * (posterior.log() - prior)).sum(0).mean()
    assert found.latents["c"].kl == pytest.approx(float(kl), rel=1e-4)
    assert found.latents["c"].dimensions == 1 and found.shuffled_rise is not None
    assert found.likelihood is not None
    assert found.likelihood.mean == pytest.approx(-float(log_joint.logsumexp(0).mean()), rel=1e-5)


def test_with_the_exact_posterior_the_bound_is_the_likelihood() -> None:
    (model, _), split = mixture(), text(9)
    guide = exact_guide(model, split)
    assert isinstance(guide, ExactGuide)
    bound = np.mean([elbo_terms(model, guide, split, seed=s).elbo for s in range(400)], 0)
    spread = np.std([elbo_terms(model, guide, split, seed=s).elbo for s in range(400)], 0)
    assert (np.abs(bound + importance_nll(model, None, split).nll) < 5 * spread / 20 + 1e-4).all()


def test_information_of_a_class_is_a_difference_of_entropies() -> None:
    (model, guide), split = mixture(), text(40)
    posterior = posteriors(model, guide, split)["c"]
    q = posterior.mean
    by_hand = -(q.mean(0) * np.log(q.mean(0))).sum() + (q * np.log(q)).sum(1).mean()
    found = mutual_information(posterior)
    assert found is not None and found.whole == pytest.approx(by_hand) and found.cap == pytest.approx(math.log(CLASSES))
    certain = replace(posterior, mean=np.eye(CLASSES)[np.arange(30) % CLASSES])
    found = mutual_information(certain)
    assert found is not None and found.whole == pytest.approx(math.log(CLASSES))


def test_a_unit_of_one_hot_variables_is_a_variable() -> None:
    (model, guide), split = discrete(), text(20)
    posterior = posteriors(model, guide, split)["z"]
    assert posterior.units == VARIABLES and posterior.mean.shape == (20, VARIABLES * CLASSES)
    frozen = np.concatenate([posterior.mean[:1, :CLASSES].repeat(20, 0), np.eye(CLASSES)[np.arange(20) % CLASSES]], 1)
    assert active_units(replace(posterior, mean=frozen)) == 1
    assert evaluate(model, guide, split, samples=10).latents["z"].dimensions == VARIABLES


def test_a_run_without_use_for_its_guide_has_none() -> None:
    model, guide = mixture()
    run = fit(model, guide, Sentences(), Strategy(discrete=Marginalize()), Training(epochs=1, device="cpu"))
    assert run.guide is None and run.marginal == ("c",)
    model, guide = mixture()
    run = fit(model, guide, Sentences(), Strategy(discrete=Enumerate()), Training(epochs=1, device="cpu"))
    assert run.guide is guide and run.marginal == ()


def test_a_class_that_was_summed_out_beside_a_code_is_not_judged_by_the_guide() -> None:
    model, guide = styled(joint=False)
    strategy = Strategy(discrete=Marginalize())
    run = fit(model, guide, Sentences(), strategy, Training(epochs=1, device="cpu"))
    assert run.guide is guide and run.marginal == ("c",)
    found = evaluate(run.model, run.guide, text(9), samples=20, marginal=run.marginal)
    assert set(found.latents) == {"z"}
