"""Models with discrete latents: one line of model takes draws, tables and points of the simplex alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.distributions import OneHotCategorical
from torch import Tensor
from torch.nn.functional import one_hot

from pyro_nlp.data.batches import EOS, TextBatch
from pyro_nlp.inference.terms import terms
from pyro_nlp.models.discrete_sentence import DiscreteSentence
from pyro_nlp.models.sentence_mixture import SentenceMixture
from pyro_nlp.models.styled_sentence import StyledSentence
from pyro_nlp.nn import CategoricalHead, cat
from tests.tiny import (
    CLASSES,
    CODE,
    LATENT,
    VARIABLES,
    VOCABULARY,
    WIDTH,
    decoder,
    discrete,
    gradients,
    mixture,
    padded,
    sharpen,
    styled,
    text,
    whole,
)

DOCUMENTS = 5
ZOO: dict[str, Callable[..., tuple[Any, Any]]] = {
    "mixture": mixture,
    "discrete": discrete,
    "styled, z given c": styled,
    "styled, z apart from c": partial(styled, joint=False),
}
SITE = {"mixture": "c", "discrete": "z"}
zoo = pytest.mark.parametrize("name", ZOO)


def sentences() -> TextBatch:
    batch: TextBatch = whole(text(DOCUMENTS))
    return batch


def discrete_site(name: str) -> str:
    return SITE.get(name, "c")


def one_hots(name: str) -> Tensor:
    """All values of a model's discrete latent, `[values, *event]`."""
    eye = torch.eye(CLASSES)
    if name == "discrete":
        return torch.stack([torch.stack(choice) for choice in product(eye, repeat=VARIABLES)])
    return eye


def latents(name: str, *left: int) -> dict[str, Tensor]:
    """One-hot values of the discrete latent, and normal ones of the continuous, if the model has one."""
    table = one_hots(name)
    found = {discrete_site(name): table[torch.randint(len(table), left)]}
    return found | {"z": torch.randn(*left, LATENT)} if "styled" in name else found


def log_likelihood(model: Any, values: dict[str, Tensor], batch: TextBatch) -> Tensor:
    """log p(x | latents), shaped by whatever left dimensions the latents have."""
    x: Any = poutine.trace(poutine.condition(model, values)).get_trace(batch).nodes["x"]
    log_prob: Tensor = x["fn"].log_prob(x["value"])
    return log_prob


@zoo
def test_terms_take_a_drawn_one_hot_and_every_parameter_gets_a_gradient(name: str) -> None:
    model, guide = ZOO[name]()
    found = terms(model, guide, sentences(), particles=2)
    assert found.log_likelihood.shape == found.log_weight.shape == (2, DOCUMENTS)
    drawn = found.sites[discrete_site(name)]
    assert ((drawn.value == 0) | (drawn.value == 1)).all() and (drawn.value.sum(-1) == 1).all()
    kl = drawn.kl
    (-found.log_likelihood.mean() + sum(each.mean() for each in found.kl.values()) + drawn.log_q.mean()).backward()
    assert kl.shape == (2, DOCUMENTS) and (kl >= 0).all()
    missing = {f"{i}.{n}" for i, m in enumerate((model, guide)) for n, _ in m.named_parameters()}
    for parameter, gradient in gradients(model, guide).items():
        assert gradient.isfinite().all() and gradient.any(), parameter
        missing.discard(parameter)
    assert missing == set()


@zoo
def test_the_kl_is_that_of_all_values_summed(name: str) -> None:
    model, guide = ZOO[name]()
    found, site = terms(model, guide, sentences()), discrete_site(name)
    q, p = found.sites[site].q, found.sites[site].p
    table = one_hots(name)[:, None, None]
    log_q, log_p = q.log_prob(table), p.log_prob(table)
    exact = (log_q.exp() * (log_q - log_p)).sum(0)
    torch.testing.assert_close(found.kl[site], exact, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(log_p.exp().sum(0), torch.ones_like(log_p[0]))


@zoo
def test_a_table_of_all_values_equals_a_loop_over_them(name: str) -> None:
    model, _ = ZOO[name]()
    batch, values, site = sentences(), latents(name, DOCUMENTS), discrete_site(name)
    table = one_hots(name)
    found = log_likelihood(model, values | {site: table[:, None, None]}, batch)
    assert found.shape == (len(table), 1, DOCUMENTS)
    for value, row in zip(table, found, strict=True):
        alone = log_likelihood(model, values | {site: value.expand(DOCUMENTS, *value.shape)}, batch)
        torch.testing.assert_close(row[0], alone, rtol=1e-5, atol=1e-5)
    assert (found[:, 0].std(0) > 1e-3).all()  # the value matters


@zoo
def test_a_table_beside_particles_equals_every_particle_alone(name: str) -> None:
    model, _ = ZOO[name]()
    batch, site = sentences(), discrete_site(name)
    others = {n: v for n, v in latents(name, 2, DOCUMENTS).items() if n != site}
    table = one_hots(name)[:, None, None].expand(-1, 2, DOCUMENTS, *one_hots(name).shape[1:])
    found = log_likelihood(model, others | {site: table}, batch)
    assert found.shape == (len(table), 2, DOCUMENTS)
    for s in range(2):
        alone = log_likelihood(model, {n: v[s] for n, v in others.items()} | {site: table[:, s, None]}, batch)
        torch.testing.assert_close(found[:, s], alone[:, 0], rtol=1e-5, atol=1e-5)


@zoo
def test_a_point_of_the_simplex_mixes_codes_and_lets_a_gradient_through(name: str) -> None:
    model, _ = ZOO[name]()
    values, site = latents(name, DOCUMENTS), discrete_site(name)
    at_corner = log_likelihood(model, values, sentences())
    logits = (100 * values[site]).requires_grad_()
    near_corner = log_likelihood(model, values | {site: logits.softmax(-1)}, sentences())
    torch.testing.assert_close(near_corner, at_corner)
    inside = torch.randn_like(values[site]).requires_grad_()
    log_likelihood(model, values | {site: inside.softmax(-1)}, sentences()).sum().backward()
    assert inside.grad is not None and inside.grad.isfinite().all() and inside.grad.any()


@zoo
def test_a_straight_through_draw_has_the_value_of_a_one_hot_and_the_gradient_of_a_weight(name: str) -> None:
    model, _ = ZOO[name]()
    values, site = latents(name, DOCUMENTS), discrete_site(name)
    weights = torch.randn_like(values[site]).softmax(-1).requires_grad_()
    through = values[site] + weights - weights.detach()
    found = log_likelihood(model, values | {site: through}, sentences())
    torch.testing.assert_close(found, log_likelihood(model, values, sentences()))
    found.sum().backward()
    assert weights.grad is not None and weights.grad.any()


@zoo
def test_padding_changes_nothing(name: str) -> None:
    model, guide = ZOO[name]()
    found = []
    for batch in (sentences(), padded(sentences(), 4)):
        torch.manual_seed(0)
        found.append(terms(model, guide, batch).log_weight)
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-5)


@zoo
@pytest.mark.parametrize("kind", ["one-hot", "weights"])
def test_it_writes_from_classes_and_from_weights(name: str, kind: str) -> None:
    model, _ = ZOO[name]()
    values, site = latents(name, 4), discrete_site(name)
    if kind == "weights":
        values[site] = torch.randn_like(values[site]).softmax(-1)
    for method in ("ancestral", "greedy", "beam"):
        written = model.generate(values, method=method, max_length=6, beam=2)
        assert written.shape[0] == 4 and written.shape[1] <= 6 and not written.is_floating_point()
        assert ((written >= 0) & (written < VOCABULARY)).all()
        assert all(EOS in row for row in written)


@zoo
def test_the_decoder_that_writes_is_the_one_that_is_scored(name: str) -> None:
    """The greedy sentence's first word is the likeliest under the model's own distribution of x."""
    model, _ = ZOO[name]()
    values, batch = latents(name, DOCUMENTS), sentences()
    x: Any = poutine.trace(poutine.condition(model, values)).get_trace(batch).nodes["x"]["fn"]
    logits = x.logits[:, 0]
    logits[:, :2] = -torch.inf  # padding and the beginning of a sentence are never written
    assert torch.equal(model.generate(values, max_length=6)[:, 0], logits.argmax(-1))


@zoo
def test_it_draws_from_its_prior(name: str) -> None:
    model, _ = ZOO[name]()
    trace = poutine.trace(poutine.uncondition(model)).get_trace(sentences())
    assert trace.nodes["x"]["value"].shape[0] == DOCUMENTS and not trace.nodes["x"]["is_observed"]
    assert trace.nodes[discrete_site(name)]["value"].shape == (DOCUMENTS, *one_hots(name).shape[1:])
    assert len(pyro.get_param_store()) == 0


@zoo
def test_autocast_leaves_the_posterior_in_float32(name: str) -> None:
    model, guide = ZOO[name]()
    with torch.autocast("cpu", torch.bfloat16):
        found = terms(model, guide, sentences())
    for site in found.sites.values():
        assert site.value.dtype == site.kl.dtype == torch.float32
    assert found.log_likelihood.dtype == torch.float32 and found.log_likelihood.isfinite().all()


def test_the_exact_evidence_of_a_mixture_bounds_its_elbo_and_meets_it_at_the_posterior() -> None:
    model, guide = mixture()
    batch, eye = sentences(), torch.eye(CLASSES)[:, None, None]
    log_joint = log_likelihood(model, {"c": eye}, batch) + model.prior.log_softmax(-1)[:, None, None]
    evidence = log_joint.logsumexp(0)

    def bound(q: Any) -> Tensor:
        log_q = q.log_prob(eye)
        return (log_q.exp() * (log_joint - log_q)).sum(0)

    posterior = OneHotCategorical(logits=log_joint.movedim(0, -1))
    torch.testing.assert_close(bound(posterior), evidence, rtol=1e-5, atol=1e-5)
    assert (bound(terms(model, guide, batch).sites["c"].q) < evidence).all()


def test_the_code_of_several_variables_is_the_sum_of_their_codes() -> None:
    model, _ = discrete()
    chosen = torch.randint(CLASSES, (4, 5, VARIABLES))
    wanted = torch.stack([model.codes[m][chosen[..., m]] for m in range(VARIABLES)]).sum(0)
    torch.testing.assert_close(model.code(one_hot(chosen, CLASSES).float()), wanted)


@pytest.mark.parametrize("kind", [SentenceMixture, StyledSentence, DiscreteSentence])
def test_classes_start_apart_under_a_uniform_prior(kind: Any) -> None:
    model = kind(VOCABULARY, classes=CLASSES, code=CODE, decoder=decoder)
    codes = model.codes.flatten(0, -2)
    assert torch.pdist(codes).min() > 0
    if kind is not DiscreteSentence:
        assert not model.prior.any() and model.prior.requires_grad


def test_in_a_joint_guide_z_depends_on_c_and_otherwise_not() -> None:
    table = torch.eye(CLASSES)[:, None, None]
    for joint in (True, False):
        _, guide = styled(joint=joint)
        trace: Any = poutine.trace(poutine.condition(guide, {"c": table})).get_trace(sentences())
        loc = trace.nodes["z"]["fn"].mean
        if joint:
            assert loc.shape == (CLASSES, 1, DOCUMENTS, LATENT)
            # linear: the differences between classes are the same in every document
            torch.testing.assert_close(loc - loc[:1], (loc - loc[:1])[:, :, :1].expand_as(loc), rtol=1e-5, atol=1e-5)
            assert (loc[1] != loc[0]).all()
        else:
            assert loc.shape == (DOCUMENTS, LATENT)


def test_a_categorical_head_starts_near_uniform_and_lets_a_gradient_through() -> None:
    features = torch.randn(50, WIDTH, requires_grad=True)
    log_q = CategoricalHead(WIDTH, CLASSES)(features).log_softmax(-1)
    assert 0 < (log_q.exp() - 1 / CLASSES).abs().max() < 0.2
    log_q[:, 0].sum().backward()
    assert features.grad is not None and features.grad.any()


def test_a_categorical_head_works_in_float32_under_autocast() -> None:
    head, features = sharpen(CategoricalHead(WIDTH, CLASSES)), torch.randn(2, 5, WIDTH)
    with torch.autocast("cpu", torch.bfloat16):
        found, from_bf16 = head(features), head(features.bfloat16())
    assert found.dtype == from_bf16.dtype == torch.float32
    assert torch.equal(found, head(features))


def test_cat_broadcasts_everything_but_the_last_dimension() -> None:
    table, drawn, vector = torch.randn(3, 1, 1, 3), torch.randn(2, 5, 4), torch.randn(2)
    joined = cat(drawn, table, vector)
    assert joined.shape == (3, 2, 5, 9)
    for k, s, b in product(range(3), range(2), range(5)):
        assert torch.equal(joined[k, s, b], torch.cat([drawn[s, b], table[k, 0, 0], vector]))
    assert torch.equal(cat(drawn), drawn)
    assert torch.equal(cat(drawn, drawn), torch.cat([drawn, drawn], -1))


def test_cat_refuses_left_dimensions_that_do_not_broadcast() -> None:
    with pytest.raises(RuntimeError):
        cat(torch.zeros(2, 1), torch.zeros(3, 1))
