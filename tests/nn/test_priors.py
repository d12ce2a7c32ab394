"""Priors: their densities against sums by hand, and a VampPrior that shares nothing with the guide it is made of."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_nlp.evaluation import sample_prior
from pyro_nlp.guides.gaussian import GaussianGuide
from pyro_nlp.guides.point import PointGuide
from pyro_nlp.guides.von_mises_fisher import VonMisesFisherGuide
from pyro_nlp.inference import terms
from pyro_nlp.models.sentence_vae import SentenceVAE
from pyro_nlp.nn import (
    AutoregressivePrior,
    BatchNormHead,
    Encoder,
    MixturePrior,
    StandardNormal,
    UniformSphere,
    VampPrior,
)
from tests.tiny import LATENT, VOCABULARY, WIDTH, decoder, encoder, gradients, sharpen, text, whole

COMPONENTS, LENGTH = 5, 4
PRIORS: dict[str, Any] = {
    "standard normal": StandardNormal,
    "mixture": partial(MixturePrior, components=COMPONENTS),
    "autoregressive": AutoregressivePrior,
    "sphere": UniformSphere,
    "vamp": partial(VampPrior, components=COMPONENTS, length=LENGTH, embedding=WIDTH),
}


def pair(name: str, **options: Any) -> tuple[SentenceVAE, Any]:
    model = sharpen(SentenceVAE(VOCABULARY, LATENT, decoder, PRIORS[name]))
    kind = VonMisesFisherGuide if name == "sphere" else GaussianGuide
    guide = sharpen(kind(VOCABULARY, LATENT, encoder, **options))
    model.meet(guide)
    return model, guide


@pytest.mark.parametrize("name", PRIORS)
def test_a_prior_is_one_vector_without_a_batch_and_writes_sentences(name: str) -> None:
    model, _ = pair(name)
    p = model.prior()
    assert (p.batch_shape, p.event_shape) == ((), (LATENT,))
    assert p.expand([3, 2]).sample().shape == (3, 2, LATENT)
    assert p.expand([3, 2]).log_prob(p.sample()).shape == (3, 2)
    assert torch.equal(sample_prior(model, text(6), 9, max_length=7), sample_prior(model, text(6), 9, max_length=7))
    assert len(sample_prior(model, text(6), 9, max_length=7)) == 9


def test_under_a_standard_normal_the_kl_is_in_closed_form_by_dimension() -> None:
    model, guide = pair("standard normal")
    site = terms(model, guide, whole(text(6)), particles=2).sites["z"]
    assert site.kl_per_dimension is not None and site.closed_form is not None
    torch.testing.assert_close(site.kl_per_dimension.sum(-1), site.closed_form)


def test_under_a_mixture_the_kl_is_the_difference_of_densities_at_the_draw() -> None:
    model, guide = pair("mixture")
    prior: Any = model.prior
    site = terms(model, guide, whole(text(6)), particles=2).sites["z"]
    assert site.closed_form is None and site.kl_per_dimension is None
    by_hand = torch.stack(
        [
            prior.logits.log_softmax(0)[k]
            + dist.Normal(prior.loc[k], prior.log_scale[k].exp()).log_prob(site.value).sum(-1)
            for k in range(COMPONENTS)
        ]
    ).logsumexp(0)
    torch.testing.assert_close(site.kl, site.log_q - by_hand)


def test_a_new_mixture_has_about_the_moments_of_a_standard_normal() -> None:
    prior = MixturePrior(4, 5000)
    p = prior()
    # 5000 means of standard deviation 1/2: 0.5 / sqrt(5000) of the mean, 0.25 sqrt(2 / 5000) of the variance; 5 of each
    torch.testing.assert_close(p.mean, torch.zeros(4), rtol=0, atol=5 * 0.0071)
    torch.testing.assert_close(p.variance, torch.ones(4), rtol=0, atol=5 * 0.005)


def test_the_kl_to_an_autoregressive_prior_is_never_below_its_committed_rate() -> None:
    model, guide = pair("autoregressive")
    site = terms(model, guide, whole(text(20))).sites["z"]
    assert site.closed_form is not None and site.kl_per_dimension is None
    assert (site.kl > model.prior.committed_rate).all()
    assert model.prior.committed_rate > 0


# ---- VampPrior -----------------------------------------------------------------------------------------------------


def test_a_vamp_prior_is_the_mean_of_the_guides_densities_at_its_pseudo_inputs() -> None:
    model, guide = pair("vamp")
    z = torch.randn(7, LATENT)
    densities = []
    for k in range(COMPONENTS):
        states, _ = guide.encoder.network(model.prior.inputs[k : k + 1])
        loc, scale = guide.posterior(states[:, -1])
        densities.append(dist.Normal(loc, scale).log_prob(z).sum(-1).exp())
    torch.testing.assert_close(model.prior().log_prob(z).exp(), sum(densities) / COMPONENTS, rtol=1e-4, atol=1e-7)


def test_model_and_guide_meet_and_own_nothing_together() -> None:
    model, guide = pair("vamp")
    assert not {id(p) for p in model.parameters()} & {id(p) for p in guide.parameters()}
    assert not {id(m) for m in model.modules()} & {id(m) for m in guide.modules()}
    assert [name for name in model.state_dict() if name.startswith("prior")] == ["prior.inputs"]


def test_the_gradient_of_the_kl_reaches_the_guide_on_both_sides() -> None:
    model, guide = pair("vamp")
    site = terms(model, guide, whole(text(6))).sites["z"]
    site.log_p.sum().backward()
    found = gradients(model, guide)
    assert {"0.prior.inputs", "1.encoder.network.weight_ih_l0", "1.posterior.loc.weight"} <= found.keys()
    assert found["0.prior.inputs"].any()


def test_copies_made_together_have_met() -> None:
    model, guide = pair("vamp")
    model_2, guide_2 = copy.deepcopy((model, guide))
    before = model_2.prior().log_prob(torch.zeros(LATENT))
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.zero_()
    assert torch.equal(model_2.prior().log_prob(torch.zeros(LATENT)), before)
    assert model_2.prior._met[0] is guide_2


def test_a_vamp_prior_that_has_met_nobody_says_so() -> None:
    model = SentenceVAE(VOCABULARY, LATENT, decoder, PRIORS["vamp"])
    with pytest.raises(RuntimeError, match=r"has met no guide: call model\.meet\(guide\) first"):
        sample_prior(model, text(6), 3)


class Reader(Encoder):
    """Has its words' ids for all it knows, and nothing that reads vectors."""

    width = 2

    def forward(self, batch: Any) -> torch.Tensor:
        return batch.targets[:, :2].float()


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        (lambda: PointGuide(VOCABULARY, LATENT, encoder), "found a PointGuide, expected a guide with posterior_of"),
        (lambda: GaussianGuide(VOCABULARY, LATENT, lambda v: Reader()), "an encoder with read"),
        (lambda: GaussianGuide(VOCABULARY, LATENT), r"word vectors of 256 .*: VampPrior\(embedding=256\)"),
        (lambda: GaussianGuide(VOCABULARY, LATENT, encoder, BatchNormHead), "choose another head"),
    ],
)
def test_a_guide_without_posteriors_at_pseudo_inputs_is_refused(guide: Any, message: str) -> None:
    model = SentenceVAE(VOCABULARY, LATENT, decoder, PRIORS["vamp"])
    with pytest.raises(ValueError, match=f"^VampPrior: .*{message}"):
        model.meet(guide())


def test_other_priors_take_any_guide_for_what_it_is() -> None:
    SentenceVAE(VOCABULARY, LATENT, decoder).meet(nn.Identity())


def test_a_sphere_without_two_dimensions_is_refused_when_it_is_made() -> None:
    with pytest.raises(ValueError, match="found 1 dimension"):
        UniformSphere(1)
