"""Every algorithm of the estimators beside its exact twin, written as loops."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import TextBatch, VectorBatch
from pyro_nlp.distributions.labelled import seen_labels
from pyro_nlp.evaluation import gradient_check
from pyro_nlp.inference import (
    ELBO,
    IWAE,
    KL,
    REBAR,
    Enumerate,
    LocalExpectation,
    Marginalize,
    PyroELBO,
    RunningMean,
    ScoreFunction,
    Strategy,
    Subset,
)
from tests.inference.programs import (
    LEVEL,
    MODELS,
    ON_DISCRETE,
    Chain,
    ChainGuide,
    assert_same,
    compiled,
    evidence_of,
    loss_and_gradients,
    one_hot,
    q_of,
    sentences,
)
from tests.tiny import (
    CLASSES,
    LATENT,
    VARIABLES,
    all_close,
    mixture,
    padded,
    styled,
    text,
    whole,
)

# ---- exact twins -----------------------------------------------------------------------------------------------


def by_classes(model: Any, guide: Any, batch: Any, weight: float = 1.0) -> Tensor:
    """Minus the ELBO of a mixture, class by class."""
    q, log_p, total = q_of(guide, batch, "c"), model.prior.log_softmax(-1), 0.0
    for k in range(CLASSES):
        c = one_hot(k, len(batch))
        log_q = q.log_prob(c)
        total = total + log_q.exp() * (weight * (log_q - log_p[k]) - evidence_of(model, batch, {"c": c}))
    return torch.as_tensor(total).mean()


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0, 2.0])
def test_enumerate_equals_a_loop_over_classes(weight: float) -> None:
    model, guide, batch = pair = MODELS["mixture"]()
    found = loss_and_gradients(compiled(pair, discrete=Enumerate(), kl=KL(weight)), batch)
    if not weight:
        found[1].setdefault("0.prior", torch.zeros(CLASSES))  # untouched, where by hand it is multiplied by zero
    assert_same(found, by_classes(model, guide, batch, weight), model, guide)


def test_enumerate_equals_a_loop_over_all_configurations_of_several_variables() -> None:
    model, guide, batch = pair = MODELS["discrete"]()
    objective = compiled(pair, discrete=Enumerate())
    assert objective.rows == {"z": CLASSES**VARIABLES}
    found, q, total = loss_and_gradients(objective, batch), q_of(guide, batch, "z"), 0.0
    for chosen in product(range(CLASSES), repeat=VARIABLES):
        z = torch.eye(CLASSES)[list(chosen)].expand(len(batch), VARIABLES, CLASSES)
        log_q = q.log_prob(z)
        log_p = -VARIABLES * math.log(CLASSES)
        total = total + log_q.exp() * (log_q - log_p - evidence_of(model, batch, {"z": z}))
    assert_same(found, torch.as_tensor(total).mean(), model, guide)


def log_joint(model: Any, batch: Any) -> Tensor:
    """log p(x, c), `[classes, documents]`."""
    log_p = model.prior.log_softmax(-1)
    return torch.stack([log_p[k] + evidence_of(model, batch, {"c": one_hot(k, len(batch))}) for k in range(CLASSES)])


def test_marginalize_equals_the_logarithm_of_a_sum_over_classes() -> None:
    model, guide, batch = pair = MODELS["mixture"]()
    for objective in (compiled(pair, discrete=Marginalize()), compiled((model, None, batch), discrete=Marginalize())):
        found = loss_and_gradients(objective, batch)
        total = sum((row.exp() for row in log_joint(model, batch)), torch.zeros(()))
        assert_same(found, -total.log().mean(), model, None)
    assert guide is not None


class Fixed(PyroModule):
    """q(c) given as logits `[documents, classes]`."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, batch: TextBatch) -> None:
        with batch.documents():
            pyro.sample("c", dist.OneHotCategorical(logits=self.logits[batch.index]))


def test_marginalize_is_enumerate_at_the_exact_posterior_and_says_what_that_is() -> None:
    model, _, batch = MODELS["mixture"]()
    posterior = log_joint(model, batch).detach().log_softmax(0)
    guide = Fixed(posterior.T.clone())
    summed, enumerated = (compiled((model, guide, batch), discrete=e) for e in (Marginalize(), Enumerate()))
    torch.testing.assert_close(summed(batch), enumerated(batch), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(summed.terms(batch).posterior("c")[0], posterior.T.exp(), rtol=1e-5, atol=1e-6)
    _, by_elbo = loss_and_gradients(enumerated, batch)
    _, by_evidence = loss_and_gradients(summed, batch)
    assert by_elbo.pop("1.logits").abs().max() < 1e-6  # nothing to gain
    all_close(by_elbo, by_evidence, 1e-5)


@pytest.mark.parametrize("weight", [0.3, 1.0, 2.0])
def test_a_weighted_enumeration_equals_trace_enum_elbo_with_scaled_sites(weight: float) -> None:
    model, guide, batch = pair = MODELS["mixture"]()
    ours, theirs = (
        compiled(pair, discrete=Enumerate(), kl=KL(weight), bound=b) for b in (ELBO(), PyroELBO("TraceEnum_ELBO"))
    )
    found = loss_and_gradients(ours, batch)
    assert_same(found, theirs(batch), model, guide)


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_where_a_label_is_known_enumerating_and_summing_out_agree(share: float) -> None:
    model, guide = mixture(supervision=share)
    batch = whole(text(8, seed=1)).replace(labels=torch.arange(8) % CLASSES)
    guide.train()
    labels = seen_labels(batch, share)
    assert labels is not None
    known = labels >= 0
    assert known.any() and known.all() == (share == 1.0)
    enumerated, summed = (compiled((model, guide, batch), discrete=e) for e in (Enumerate(), Marginalize()))
    bound, evidence = enumerated.terms(batch), summed.terms(batch).log_likelihood[0]
    elbo = (bound.log_likelihood - bound.kl["c"])[0]
    joint = log_joint(model, batch)
    torch.testing.assert_close(elbo[known], joint[labels[known], known], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(evidence[known], joint[labels[known], known], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(evidence[~known], joint.logsumexp(0)[~known], rtol=1e-5, atol=1e-5)
    assert (evidence[~known] > elbo[~known]).all()


@pytest.mark.parametrize(
    "name", ["Enumerate", "Marginalize", "LeaveOneOut", "Subset of the likeliest", "REBAR", "wake"]
)
def test_padding_changes_neither_loss_nor_gradient(name: str) -> None:
    model, guide, batch = MODELS["mixture"]()
    runs = [loss_and_gradients(ON_DISCRETE[name].compile(model, guide, b), b) for b in (batch, padded(batch, 3))]
    torch.testing.assert_close(runs[0][0], runs[1][0], rtol=1e-6, atol=1e-5)
    all_close(runs[0][1], runs[1][1], 1e-5)


# ---- two sites, one of which depends on the other --------------------------------------------------------------


def by_two_classes(model: Chain, guide: ChainGuide, batch: VectorBatch, weight: float) -> Tensor:
    q_a, log_p_a, total, n = q_of(guide, batch, "a"), model.prior.log_softmax(-1), 0.0, len(batch)
    for i in range(3):
        a = one_hot(i, n)
        q_b, log_p_b = q_of(guide, batch, "b", a=a), model.step[i].log_softmax(-1)
        for j in range(2):
            b = one_hot(j, n, 2)
            log_q = q_a.log_prob(a) + q_b.log_prob(b)
            kl = log_q - log_p_a[i] - log_p_b[j]
            total = total + log_q.exp() * (weight * kl - evidence_of(model, batch, {"a": a, "b": b}).squeeze(0))
    return torch.as_tensor(total).mean()


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_two_enumerated_sites_of_which_one_depends_on_the_other_equal_two_loops(weight: float) -> None:
    model, guide, batch = pair = MODELS["chain"]()
    found = loss_and_gradients(compiled(pair, discrete=Enumerate(), kl=KL(weight)), batch)
    for name in ("0.prior", "0.step") if not weight else ():
        found[1].setdefault(name, torch.zeros_like(dict(model.named_parameters())[name[2:]]))
    assert_same(found, by_two_classes(model, guide, batch, weight), model, guide)


def test_two_sites_that_are_summed_out_equal_two_loops() -> None:
    model, _, batch = MODELS["chain"]()
    found = loss_and_gradients(compiled((model, None, batch), discrete=Marginalize()), batch)
    total: Any = 0.0
    for i, j in product(range(3), range(2)):
        values = {"a": one_hot(i, len(batch)), "b": one_hot(j, len(batch), 2)}
        log_p = model.prior.log_softmax(-1)[i] + model.step[i].log_softmax(-1)[j]
        total = total + (log_p + evidence_of(model, batch, values)).exp()
    assert_same(found, -total.log().mean(), model, None)


TWO = {
    "the first enumerated, the second drawn": {"a": Enumerate(), "b": ScoreFunction(RunningMean())},
    "the first drawn, the second enumerated": {"a": ScoreFunction(RunningMean()), "b": Enumerate()},
    "the first a subset, the second by local expectation": {"a": Subset(1), "b": LocalExpectation()},
    "the first by REBAR, the second enumerated": {"a": REBAR(), "b": Enumerate()},
    "the first enumerated, the second by REBAR": {"a": Enumerate(), "b": REBAR()},
    "one row at random, and the other enumerated": {"a": Subset(1, "random", renormalise=False), "b": Enumerate()},
    "the first enumerated, the second one row at random": {"a": Enumerate(), "b": Subset(1, "random", False)},
}


@pytest.mark.parametrize("name", TWO)
@pytest.mark.parametrize("weight", [0.4, 1.0])
def test_two_sites_with_estimators_of_their_own_have_the_exact_gradient(name: str, weight: float) -> None:
    strategy = Strategy(sites=dict(TWO[name]), kl={"a": KL(weight)})
    found = gradient_check(*MODELS["chain"](), strategy, draws=4000, copies=100)
    assert found.exact and found.p_value > LEVEL / len(TWO) / 2, found


# ---- tables beside particles, and values that depend on a table ------------------------------------------------


@pytest.mark.parametrize("particles", [2, 5])
def test_what_has_no_draws_is_the_same_with_any_number_of_particles(particles: int) -> None:
    model, guide, batch = pair = MODELS["mixture"]()
    found = loss_and_gradients(compiled(pair, discrete=Enumerate(), bound=ELBO(particles)), batch)
    assert_same(found, by_classes(model, guide, batch), model, guide)


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.0, 0.3)])
def test_an_enumerated_class_with_codes_that_depend_on_it_equals_a_sum_at_the_same_noise(
    joint: bool, particles: int, weights: tuple[float, float]
) -> None:
    model, guide = styled(joint=joint)
    batch = sentences()
    kl = {"c": KL(weights[0]), "z": KL(weights[1])}
    objective = compiled((model, guide, batch), discrete=Enumerate(), bound=ELBO(particles), kl=kl)
    found = loss_and_gradients(objective, batch)
    torch.manual_seed(3)
    codes = objective.terms(batch).sites["z"].value.detach()  # what was drawn, as noise of the right kind
    q_c, log_p, total = q_of(guide, batch, "c"), model.prior.log_softmax(-1), 0.0
    for k in range(CLASSES):
        c = one_hot(k, len(batch))
        q_z = q_of(guide, batch, "z", c=c)
        at = (codes[k] if joint else codes).reshape(particles, len(batch), LATENT)
        noise = (at - q_z.base_dist.loc.detach()) / q_z.base_dist.scale.detach()
        log_q = q_c.log_prob(c)
        p_z = dist.Normal(torch.zeros(LATENT), 1.0).to_event(1).expand([len(batch)])
        kl_z = torch.distributions.kl_divergence(q_z, p_z)
        for s in range(particles):
            z = q_z.base_dist.loc + q_z.base_dist.scale * noise[s]
            x = evidence_of(model, batch, {"c": c, "z": z})
            cost = weights[0] * (log_q - log_p[k]) + weights[1] * kl_z - x
            total = total + log_q.exp() * cost / particles
    if not weights[0]:
        found[1].setdefault("0.prior", torch.zeros(CLASSES))
    assert_same(found, torch.as_tensor(total).mean(), model, guide)


def test_iwae_of_a_model_that_is_summed_out_is_its_evidence_whatever_the_particles() -> None:
    model, guide, batch = pair = MODELS["mixture"]()
    found = loss_and_gradients(compiled(pair, discrete=Marginalize(), bound=IWAE(4)), batch)
    assert_same(found, -log_joint(model, batch).logsumexp(0).mean(), model, None)
    assert guide is not None


def test_iwae_beside_a_class_that_is_summed_out_equals_a_loop() -> None:
    model, guide, batch = MODELS["styled, z apart from c"]()
    objective = compiled((model, guide, batch), discrete=Marginalize(), bound=IWAE(3))
    torch.manual_seed(3)
    found = objective(batch)
    torch.manual_seed(3)
    z = objective.terms(batch).sites["z"].value
    q_z, log_p = q_of(guide, batch, "z"), model.prior.log_softmax(-1)
    p_z = dist.Normal(torch.zeros(LATENT), 1.0).to_event(1)
    weights = []
    for s in range(3):
        rows = [log_p[k] + evidence_of(model, batch, {"c": one_hot(k, 3), "z": z[s]}) for k in range(CLASSES)]
        weights.append((torch.stack(rows).exp().sum(0).log() + p_z.log_prob(z[s]) - q_z.log_prob(z[s])).exp())
    torch.testing.assert_close(found, -(sum(weights) / 3).log().mean(), rtol=1e-5, atol=1e-5)
