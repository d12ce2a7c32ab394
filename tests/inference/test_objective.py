"""The compiled objective against closed forms and against Pyro's own ELBOs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import VectorBatch
from pyro_nlp.data.splits import VectorSplit
from pyro_nlp.inference import ELBO, KL, FreeBits, Linear, Objective, PyroELBO, Strategy
from tests.tiny import all_close, gradients, lm, padded, ring, text, vae

BETAS = [0.0, 0.3, 1.0]


def compiled(model: nn.Module, guide: nn.Module | None, data: Any, **strategy: Any) -> Objective:
    return Strategy(**strategy).compile(model, guide, data)


def loss_and_gradients(objective: Objective, data: Any, seed: int = 3) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(seed)
    loss = objective(data)
    loss.backward()
    return loss.detach(), gradients(objective.model, objective.guide)


def assert_equal(ours: Objective, theirs: Objective, data: Any) -> None:
    (a, d_a), (b, d_b) = loss_and_gradients(ours, data), loss_and_gradients(theirs, data)
    # two orders of summing some hundreds of float32 numbers
    torch.testing.assert_close(a, b, rtol=2e-6, atol=1e-5)
    all_close(d_a, d_b, 1e-5)


# ---- against Pyro ----------------------------------------------------------------------------------------------


def ring_pair(diagonal: bool) -> tuple[nn.Module, nn.Module, Any]:
    model, guide = ring(diagonal=diagonal)
    return model, guide, VectorSplit(torch.randn(7, 2)).batch(np.array([6, 0, 3]))


def vae_pair() -> tuple[nn.Module, nn.Module, Any]:
    return *vae(), text(9).batch(np.array([4, 0, 3, 8]))  # row 4 is the empty sentence


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("particles", [1, 3])
@pytest.mark.parametrize("pair", [lambda: ring_pair(True), vae_pair], ids=["ring", "sentence VAE"])
def test_with_a_closed_form_kl_it_equals_trace_mean_field_elbo(pair: Any, particles: int, beta: float) -> None:
    model, guide, data = pair()
    ours, theirs = (
        compiled(model, guide, data, bound=bound, kl=KL(beta))
        for bound in (ELBO(particles), PyroELBO("TraceMeanField_ELBO", particles))
    )
    assert_equal(ours, theirs, data)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("particles", [1, 3])
def test_without_a_closed_form_kl_it_equals_trace_elbo(particles: int, beta: float) -> None:
    model, guide, data = ring_pair(diagonal=False)
    ours, theirs = (
        compiled(model, guide, data, bound=bound, kl=KL(beta))
        for bound in (ELBO(particles), PyroELBO("Trace_ELBO", particles))
    )
    assert_equal(ours, theirs, data)


def test_it_equals_trace_elbo_written_out_by_hand_in_pyro() -> None:
    model, guide, data = ring_pair(diagonal=False)
    torch.manual_seed(3)
    by_hand = pyro.infer.Trace_ELBO(max_plate_nesting=1).differentiable_loss(model, guide, data) / 7
    by_hand.backward()
    wanted = gradients(model, guide)
    loss, found = loss_and_gradients(compiled(model, guide, data), data)
    torch.testing.assert_close(loss, by_hand.detach(), rtol=2e-6, atol=1e-5)
    all_close(found, wanted, 1e-5)


@pytest.mark.parametrize("beta", BETAS)
def test_it_equals_trace_elbo_in_expectation_where_the_kl_has_a_closed_form(beta: float) -> None:
    model, guide, data = ring_pair(diagonal=True)
    ours, theirs = (
        compiled(model, guide, data, bound=bound, kl=KL(beta)) for bound in (ELBO(500), PyroELBO("Trace_ELBO", 500))
    )
    runs = [[loss_and_gradients(o, data, seed) for seed in range(25)] for o in (ours, theirs)]
    a, b = (
        torch.stack([torch.cat([loss[None], *(g.flatten() for g in d.values())]) for loss, d in run]) for run in runs
    )
    error = (a.var(0) / 25 + b.var(0) / 25).sqrt() + 1e-6
    # some 130 numbers of 25 runs each: the largest of so many Student t is below 6 with probability 0.9998
    assert len(error) > 100 and ((a.mean(0) - b.mean(0)).abs() / error).max() < 6


def test_a_model_without_latents_has_one_loss_whatever_the_bound() -> None:
    model, data = lm(), text(9).batch(np.array([4, 0, 3]))
    assert_equal(compiled(model, None, data), compiled(model, None, data, bound=PyroELBO()), data)


class Two(PyroModule):
    """Two latents, a and b, and x around their sum."""

    plates = 1

    def forward(self, batch: VectorBatch) -> None:
        with batch.documents():
            a = pyro.sample("a", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            b = pyro.sample("b", dist.Normal(a, 0.5).to_event(1))
            pyro.sample("x", dist.Normal(a + b, 1.0).to_event(1), obs=batch.values)


class TwoGuide(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 2), nn.Linear(4, 2)

    def forward(self, batch: VectorBatch) -> None:
        with batch.documents():
            a = pyro.sample("a", dist.Normal(self.a(batch.values), 0.7).to_event(1))
            both = torch.cat([a, batch.values.expand_as(a)], -1)
            pyro.sample("b", dist.Normal(self.b(both), 0.4).to_event(1))


@pytest.mark.parametrize("weights", [(0.3, 1.0), (0.0, 0.5), (2.0, 0.0)])
def test_every_latent_has_a_weight_of_its_own(weights: tuple[float, float]) -> None:
    model, guide = Two(), TwoGuide()
    data = VectorSplit(torch.randn(6, 2)).batch(np.arange(4))
    kl = {"a": KL(weights[0]), "b": KL(weights[1])}
    ours, theirs = (
        compiled(model, guide, data, bound=bound, kl=kl) for bound in (ELBO(2), PyroELBO("TraceMeanField_ELBO", 2))
    )
    assert_equal(ours, theirs, data)
    torch.manual_seed(0)
    found = ours.terms(data)
    wanted = (weights[0] * found.kl["a"] + weights[1] * found.kl["b"] - found.log_likelihood).mean()
    torch.manual_seed(0)
    torch.testing.assert_close(ours(data), wanted)


def test_a_latent_that_the_weights_do_not_name_keeps_the_weight_one() -> None:
    data = VectorSplit(torch.randn(6, 2)).batch(np.arange(4))
    objective = compiled(Two(), TwoGuide(), data, kl={"a": KL(0.25)})
    assert (objective.weight("a"), objective.weight("b")) == (0.25, 1.0)


def test_kl_is_reported_by_site_unweighted_and_detached() -> None:
    data = VectorSplit(torch.randn(6, 2)).batch(np.arange(4))
    objective = compiled(Two(), TwoGuide(), data, kl=KL(0.0))
    torch.manual_seed(0)
    objective(data)
    torch.manual_seed(0)
    found = objective.terms(data)
    assert objective.last is not None and objective.last.log_likelihood is not None
    assert set(objective.last.kl) == {"a", "b"}
    for name, kl in objective.last.kl.items():
        assert not kl.requires_grad and kl > 0
        torch.testing.assert_close(kl, found.kl[name].mean().detach())
    torch.testing.assert_close(objective.last.log_likelihood, found.log_likelihood.mean().detach())


# ---- against the closed form -----------------------------------------------------------------------------------


class Linearly(PyroModule):
    """z ~ N(0, I), x ~ N(z, I): every quantity is Gaussian."""

    plates = 1

    def forward(self, batch: VectorBatch) -> None:
        with batch.documents():
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=batch.values)


class LinearGuide(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.slope, self.log_scale = nn.Parameter(torch.tensor(0.8)), nn.Parameter(torch.tensor([-0.5, 0.2]))

    def forward(self, batch: VectorBatch) -> None:
        with batch.documents():
            pyro.sample("z", dist.Normal(self.slope * batch.values, self.log_scale.exp()).to_event(1))


@pytest.mark.parametrize("beta", [*BETAS, 4.0])
def test_the_elbo_and_its_gradient_equal_their_closed_forms(beta: float) -> None:
    values = torch.randn(5, 2)
    data, model, guide = VectorSplit(values).batch(np.arange(5)), Linearly(), LinearGuide()
    loc, variance = guide.slope * values, (2 * guide.log_scale).exp()
    log_x = -0.5 * ((values - loc) ** 2 + variance + np.log(2 * np.pi))
    kl = 0.5 * (variance + loc**2 - 1 - variance.log())
    (beta * kl - log_x).sum(-1).mean().backward()
    wanted = torch.cat([g.flatten() for g in gradients(guide).values()])
    value = (beta * kl - log_x).sum(-1).mean().detach()
    objective = compiled(model, guide, data, bound=ELBO(200), kl=KL(beta))
    runs = [loss_and_gradients(objective, data, seed) for seed in range(40)]
    found = torch.stack([torch.cat([loss[None], *(g.flatten() for g in d.values())]) for loss, d in runs])
    error = found.std(0) / 40**0.5
    assert ((found.mean(0) - torch.cat([value[None], wanted])).abs() < 5 * error).all()


def test_at_the_exact_posterior_every_draw_gives_the_evidence() -> None:
    values = torch.randn(5, 2)
    data, guide = VectorSplit(values).batch(np.arange(5)), LinearGuide()
    with torch.no_grad():
        guide.slope.fill_(0.5)
        guide.log_scale.fill_(0.5 * np.log(0.5))
    found = compiled(Linearly(), guide, data, bound=ELBO(3)).terms(data)
    evidence = dist.Normal(0, 2**0.5).log_prob(values).sum(-1)
    torch.testing.assert_close(found.log_weight, evidence.expand(3, 5), rtol=1e-5, atol=1e-5)


# ---- free bits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per", ["dimension", "site"])
@pytest.mark.parametrize("average", ["document", "batch"])
@pytest.mark.parametrize("nats", [0.0, 0.15, 50.0])
def test_free_bits_equal_a_loop_in_value_and_gradient(per: Any, average: Any, nats: float) -> None:
    model, guide, data = vae_pair()
    weight = 0.7
    objective = compiled(model, guide, data, bound=ELBO(2), kl=KL(weight, FreeBits(nats, per, average)))
    found = loss_and_gradients(objective, data)

    torch.manual_seed(3)
    parts = compiled(model, guide, data, bound=ELBO(2)).terms(data)
    kl = parts.sites["z"].kl_per_dimension
    assert kl is not None
    particles, documents, dimensions = kl.shape
    free: Any = 0.0
    above = below = 0
    for s in range(particles):
        for b in range(documents):
            pieces = [kl[s, b, d] for d in range(dimensions)] if per == "dimension" else [kl[s, b].sum()]
            if average == "batch":
                means = [sum(kl[s, n, d] for n in range(documents)) / documents for d in range(dimensions)]
                pieces = means if per == "dimension" else [sum(means)]
            for piece in pieces:
                floor = nats / dimensions if per == "dimension" else nats
                above, below = above + int(piece > floor), below + int(piece <= floor)
                free = free + (piece if piece > floor else floor)
    loss = (weight * free - parts.log_likelihood.sum()) / (particles * documents)
    loss.backward()
    torch.testing.assert_close(found[0], loss.detach(), rtol=1e-6, atol=1e-5)
    all_close(found[1], gradients(model, guide), 1e-5)
    if average == "document" or nats != 0.15:  # the case is what it is meant to be
        assert (bool(above), bool(below)) == (nats < 50, nats > 0)


def test_the_reported_kl_is_that_without_free_bits() -> None:
    model, guide, data = vae_pair()
    shaped, plain = (compiled(model, guide, data, kl=KL(shape=shape)) for shape in (FreeBits(50.0), None))
    for objective in (shaped, plain):
        loss_and_gradients(objective, data)
    assert shaped.last is not None and plain.last is not None
    assert torch.equal(shaped.last.kl["z"], plain.last.kl["z"])
    assert shaped.last.value > plain.last.value


def test_bits_that_are_free_for_all_leave_no_gradient_of_the_kl() -> None:
    model, guide, data = vae_pair()
    free = loss_and_gradients(compiled(model, guide, data, kl=KL(shape=FreeBits(1e4))), data)
    none = loss_and_gradients(compiled(model, guide, data, kl=KL(0.0)), data)
    all_close(free[1], none[1], 1e-6)
    torch.testing.assert_close(free[0] - none[0], torch.tensor(1e4), rtol=1e-5, atol=0)


# ---- what the objective owns -----------------------------------------------------------------------------------


def test_a_schedule_moves_with_the_steps_of_the_objective_and_is_saved_with_it() -> None:
    model, guide, data = vae_pair()
    objective = compiled(model, guide, data, kl=KL(Linear(0.0, 1.0, epochs=2)))
    objective.steps_per_epoch = 5
    weights = []
    for _ in range(12):
        weights.append(objective.weight("z"))
        objective.advance()
    assert weights == pytest.approx([min(1.0, i / 10) for i in range(12)])
    again = compiled(model, guide, data, kl=KL(Linear(0.0, 1.0, epochs=20)))
    again.steps_per_epoch = 5
    assert again.weight("z") == 0.0
    again.load_state_dict(objective.state_dict())
    assert int(again.step) == 12 and again.weight("z") == pytest.approx(0.12)


def test_its_parameters_are_those_of_model_and_guide() -> None:
    model, guide, data = vae_pair()
    objective = compiled(model, guide, data)
    assert {id(p) for p in objective.parameters()} == {id(p) for m in (model, guide) for p in m.parameters()}
    assert [name for name, _ in objective.named_buffers() if not name.startswith("model.")] == ["step"]


def test_compiling_leaves_the_random_stream_the_gradients_and_the_parameter_store_alone() -> None:
    model, guide, data = vae_pair()
    before = torch.get_rng_state()
    compiled(model, guide, data)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None for m in (model, guide) for p in m.parameters())
    assert len(pyro.get_param_store()) == 0


def test_the_summary_says_how_each_site_is_treated() -> None:
    model, guide, data = vae_pair()
    (row,) = compiled(model, guide, data, kl=KL(0.5, FreeBits(2.0))).summary
    assert row["site"] == "z" and row["guide"] == "Normal" and row["event"] == "[3]"
    assert row["estimator"] == "Pathwise(gradient='plain')" and row["kl"] == "closed form" and row["weight"] == "0.5"
    (row,) = compiled(*ring(diagonal=False), ring_pair(False)[2]).summary
    assert row["kl"] == "log q - log p at the draw" and row["guide"] == "MultivariateNormal"


def test_padding_changes_neither_loss_nor_gradient() -> None:
    model, guide, data = vae_pair()
    longer = padded(data, 4)
    longer = longer.replace(
        targets=longer.targets.masked_fill(~longer.mask, 5), inputs=longer.inputs.masked_fill(longer.inputs == 0, 9)
    )
    objective = compiled(model, guide, data)
    first, second = loss_and_gradients(objective, data), loss_and_gradients(objective, longer)
    torch.testing.assert_close(first[0], second[0], rtol=1e-6, atol=1e-6)
    all_close(first[1], second[1], 1e-6)
