"""What Pyro does that our code is built around: if one of these fails, Pyro has changed and so can we."""

from __future__ import annotations

import contextlib
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, RenyiELBO, Trace_ELBO, TraceGraph_ELBO
from pyro.nn import PyroModule
from torch import nn

from pyro_nlp.data.splits import VectorSplit
from pyro_nlp.distributions import second_derivatives
from pyro_nlp.inference import ELBO, IWAE, LeaveOneOut, PyroELBO, ScoreFunction, Strategy, StructureError
from pyro_nlp.inference.pyro_bounds import _ScaleSites
from pyro_nlp.inference.sites import exact_kl
from tests.inference.test_terms import Words, WordsGuide
from tests.tiny import all_close, gradients, mixture, ring, text, whole


@pytest.fixture
def data() -> Any:
    return VectorSplit(torch.randn(5, 2)).batch(torch.arange(3).numpy())


def test_poutine_scale_refuses_zero_and_our_scale_takes_it() -> None:
    with pytest.raises(ValueError, match="scale"):
        poutine.scale(scale=0.0)
    with poutine.trace() as trace, _ScaleSites({"z": 0.0}):
        pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("w", dist.Normal(0.0, 1.0))
    assert trace.trace.nodes["z"]["scale"] == 0.0
    assert trace.trace.nodes["w"]["scale"] == 1.0


def test_the_scale_of_a_site_multiplies_that_of_its_plate() -> None:
    with poutine.trace() as trace, _ScaleSites({"z": 0.5}), pyro.plate("documents", 10, subsample_size=2):
        pyro.sample("z", dist.Normal(0.0, 1.0))
    assert trace.trace.nodes["z"]["scale"] == 2.5


def test_importing_the_package_makes_parameters_local_to_modules() -> None:
    assert pyro.settings.get("module_local_params") is True


def test_a_param_inside_a_pyro_module_raises_under_this_setting() -> None:
    class Model(PyroModule):
        def forward(self) -> None:
            pyro.param("theta", torch.zeros(()))

    with pytest.raises(NotImplementedError, match=r"global pyro.param statements in PyroModules with local param"):
        Model()()


def test_svi_does_not_work_under_this_setting(data: Any) -> None:
    model, guide = ring()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO(max_plate_nesting=1))
    with pytest.raises(AttributeError, match="unconstrained"):
        svi.step(data)


class PlainModel(nn.Module):
    """A model that is no PyroModule."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(2, 2)

    def forward(self, batch: Any) -> None:
        with batch.documents():
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(self.map(z), 1.0).to_event(1), obs=batch.values)


class Plain(nn.Module):
    """A guide that is no PyroModule."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Linear(2, 2)

    def forward(self, batch: Any) -> None:
        with batch.documents():
            pyro.sample("z", dist.Normal(self.loc(batch.values), 0.5).to_event(1))


def test_pyro_gives_a_plain_module_a_loss_and_no_gradient_and_ours_gives_both(data: Any) -> None:
    model, guide = PlainModel(), Plain()
    assert Trace_ELBO(max_plate_nesting=1).loss_and_grads(model, guide, data) > 0
    assert gradients(model, guide) == {}  # silently
    for bound in (ELBO(), PyroELBO()):
        Strategy(bound=bound).compile(model, guide, data)(data).backward()
        assert set(gradients(model, guide)) == {"0.map.weight", "0.map.bias", "1.loc.weight", "1.loc.bias"}


def test_pyros_objectives_keep_the_plate_depth_they_first_saw_and_ours_are_made_anew(data: Any) -> None:
    words = VectorSplit(torch.randn(5, 3)).batch(torch.arange(4).numpy())
    elbo, fresh = (Trace_ELBO(num_particles=2, vectorize_particles=True) for _ in range(2))
    elbo.differentiable_loss(*ring(), data)
    guessed = elbo.max_plate_nesting
    with contextlib.suppress(ValueError):
        elbo.differentiable_loss(Words(), WordsGuide(), words)
    fresh.differentiable_loss(Words(), WordsGuide(), words)
    assert elbo.max_plate_nesting == guessed < fresh.max_plate_nesting
    ours = Strategy(bound=PyroELBO(particles=2)).compile(Words(), WordsGuide(), words)
    assert torch.isfinite(ours(words))


def test_a_plate_with_given_documents_is_no_latent(data: Any) -> None:
    model, _ = ring()
    trace = poutine.trace(model).get_trace(data)
    assert {n for n, s in trace.nodes.items() if s["type"] == "sample"} - {"documents"} == {"z", "x"}
    assert trace.nodes["x"]["scale"] == pytest.approx(5 / 3)


def test_the_scale_of_the_documents_plate_is_the_corpus_over_the_batch(data: Any) -> None:
    assert data.scale == pytest.approx(5 / 3)
    assert data.documents().size == 5 and data.documents().subsample_size == 3


def guide_gradient(model: Any, guide: Any, batch: Any, elbo: Any, seed: int = 0) -> dict[str, torch.Tensor]:
    """What one of Pyro's objectives that keep their surrogate to themselves teaches a guide."""
    torch.manual_seed(seed)
    _, surrogate = elbo._loss_and_surrogate_loss(model, guide, (batch,), {})
    surrogate.backward()
    return {name: g for name, g in gradients(model, guide).items() if name.startswith("1.")}


def test_renyi_elbo_teaches_a_discrete_guide_nothing_and_our_iwae_does() -> None:
    model, guide = mixture()
    batch = whole(text(3, seed=1, longest=4))
    renyi = RenyiELBO(alpha=0, num_particles=4, vectorize_particles=True, max_plate_nesting=1)
    torch.manual_seed(0)
    assert renyi.loss_and_grads(model, guide, batch) > 0
    taught = gradients(model, guide)
    assert any(g.any() for name, g in taught.items() if name.startswith("0."))  # the model learns
    for seed in range(20):
        torch.manual_seed(seed)
        renyi.loss_and_grads(model, guide, batch)
        found = gradients(model, guide)
        assert not any(g.any() for name, g in found.items() if name.startswith("1."))  # silently
    Strategy(discrete=ScoreFunction(LeaveOneOut()), bound=IWAE(4)).compile(model, guide, batch)(batch).backward()
    assert any(g.any() for name, g in gradients(model, guide).items() if name.startswith("1."))


def test_trace_graph_elbo_does_not_see_a_likelihood_that_comes_out_of_a_custom_function() -> None:
    batch = whole(text(3, seed=1, longest=4))
    graph, trace = TraceGraph_ELBO(max_plate_nesting=1), Trace_ELBO(max_plate_nesting=1)
    model, guide = mixture()
    first = guide_gradient(model, guide, batch, graph)
    torch.manual_seed(0)
    trace.differentiable_loss(model, guide, batch).backward()
    right = {name: g for name, g in gradients(model, guide).items() if name.startswith("1.")}
    with second_derivatives():  # plain autograd
        seen = guide_gradient(model, guide, batch, graph)
    all_close(seen, right, 1e-5)
    with torch.no_grad():
        model.codes.mul_(-1.0)  # now every class writes something else
    second = guide_gradient(model, guide, batch, graph)
    assert all(torch.equal(first[name], second[name]) for name in first)  # and the guide is told the same
    with second_derivatives():
        other = guide_gradient(model, guide, batch, graph)
    assert any((other[name] - seen[name]).abs().max() > 1e-2 for name in seen)
    ours = Strategy(discrete=ScoreFunction(), bound=PyroELBO("TraceGraph_ELBO")).compile(model, guide, batch)
    torch.manual_seed(0)
    (ours(batch) * batch.population).backward()  # ours is per document
    all_close({n: g for n, g in gradients(model, guide).items() if n.startswith("1.")}, other, 1e-5)


def test_pyro_reparameterises_a_normal_whatever_the_strategy_says_and_so_we_refuse(data: Any) -> None:
    model, guide = ring()
    torch.manual_seed(0)
    Trace_ELBO(max_plate_nesting=1).differentiable_loss(model, guide, data).backward()
    by_default = gradients(model, guide)
    torch.manual_seed(0)
    (Strategy(bound=PyroELBO()).compile(model, guide, data)(data) * data.population).backward()
    all_close(gradients(model, guide), by_default, 1e-5)
    for name in ("Trace_ELBO", "TraceGraph_ELBO", "TraceEnum_ELBO"):
        with pytest.raises(StructureError, match=f"{name} reparameterises a Normal whatever it is told"):
            Strategy(continuous=ScoreFunction(), bound=PyroELBO(name)).compile(model, guide, data)


def test_pytorch_has_no_closed_form_of_bernoullis_of_two_shapes_and_ours_broadcasts() -> None:
    q, p = dist.Bernoulli(logits=torch.randn(4)), dist.Bernoulli(logits=torch.randn(3, 1, 4))
    with pytest.raises(IndexError, match="shape of the mask"):
        torch.distributions.kl_divergence(q, p)
    wanted = torch.distributions.kl_divergence(q.expand((3, 1, 4)), p)
    torch.testing.assert_close(exact_kl(q, p), wanted)
    torch.testing.assert_close(exact_kl(q.to_event(1), p.to_event(1)), wanted.sum(-1))
