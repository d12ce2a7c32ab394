"""What Pyro does that our code is built around: if one of these fails, Pyro has changed and so can we."""

from __future__ import annotations

import contextlib
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule
from torch import nn

from pyro_nlp.data.splits import VectorSplit
from pyro_nlp.inference import ELBO, PyroELBO, Strategy
from pyro_nlp.inference.pyro_bounds import _ScaleSites
from tests.inference.test_terms import Words, WordsGuide
from tests.tiny import gradients, ring


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
