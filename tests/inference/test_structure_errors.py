"""Refused programs, and the message each gets: the site, what was found, the cure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

from pyro_nlp.data.splits import VectorSplit
from pyro_nlp.inference import ELBO, KL, FreeBits, Pathwise, PyroELBO, Strategy, StructureError, Training, fit
from tests.tiny import Vectors, ring

DATA = VectorSplit(torch.zeros(4, 2)).batch(torch.arange(3).numpy())


class Program(PyroModule):
    """A model or guide made of named distributions; `obs` names are observed at zero."""

    plates = 1

    def __init__(self, obs: tuple[str, ...] = (), **sites: Callable[[], Any]) -> None:
        super().__init__()
        self.sites, self.obs = sites, obs
        self.loc = nn.Parameter(torch.zeros(2))

    def forward(self, batch: Any) -> None:
        with batch.documents():
            for name, make in self.sites.items():
                fn = make()
                value = torch.zeros(len(batch), *fn.event_shape) if name in self.obs else None
                pyro.sample(name, fn, obs=value)


def normal() -> Any:
    return dist.Normal(torch.zeros(2), 1.0).to_event(1)


def one_hot() -> Any:
    return dist.OneHotCategorical(logits=torch.zeros(3))


def full() -> Any:
    return dist.MultivariateNormal(torch.zeros(2), torch.eye(2))


def observed(**sites: Any) -> Program:
    return Program(("x",), **sites, x=normal)


def sharing() -> tuple[Any, Any]:
    model, guide = observed(z=normal), Program(z=normal)
    guide.loc = model.loc
    return model, guide


class NotAModule:
    def __call__(self, batch: Any) -> None:
        return None


REFUSED: dict[str, tuple[Callable[[], tuple[Any, Any]], Strategy, str]] = {
    "a site of the guide is missing in the model": (
        lambda: (observed(z=normal), Program(z=normal, w=normal)),
        Strategy(),
        r"site 'w' is in the guide and not in the model; the model has 'z', 'x'\. Rename or drop it",
    ),
    "a misspelt site": (
        lambda: (observed(z=normal), Program(Z=normal)),
        Strategy(),
        r"site 'Z' is in the guide and not in the model; the model has 'z', 'x'",
    ),
    "a latent of the model is missing in the guide": (
        lambda: (observed(z=normal, w=normal), Program(z=normal)),
        Strategy(),
        r"latent site 'w' of the model has no counterpart in the guide, which has 'z'\. Add pyro.sample\('w', \.\.\.\)",
    ),
    "no guide for a model with latents": (
        lambda: (observed(z=normal), None),
        Strategy(),
        r"latent site 'z' of the model has no counterpart in the guide, which has no sample site",
    ),
    "a site of the guide is observed in the model": (
        lambda: (Program(("x", "z"), z=normal, x=normal), Program(z=normal)),
        Strategy(),
        "site 'z' is observed in the model: drop it from the guide",
    ),
    "an estimator for an unknown site": (
        lambda: (observed(z=normal), Program(z=normal)),
        Strategy(sites={"label": Pathwise()}),
        "the strategy names the site 'label'; the latents are 'z'",
    ),
    "a KL weight for an unknown site": (
        lambda: (observed(z=normal), Program(z=normal)),
        Strategy(kl={"x": KL(0.5)}),
        "the strategy names the site 'x'; the latents are 'z'",
    ),
    "a site named for a model without latents": (
        lambda: (observed(), None),
        Strategy(sites={"z": Pathwise()}),
        "the strategy names the site 'z'; the latents are none",
    ),
    "a discrete site given to Pathwise": (
        lambda: (observed(c=one_hot), Program(c=one_hot)),
        Strategy(sites={"c": Pathwise()}),
        "site 'c': OneHotCategorical cannot be reparameterised, which Pathwise needs",
    ),
    "a discrete site and no estimator for one": (
        lambda: (observed(c=one_hot), Program(c=one_hot)),
        Strategy(),
        r"site 'c' is discrete \(OneHotCategorical\) and the strategy has no estimator for it: set Strategy\(discrete=",
    ),
    "a class in place of a model": (
        lambda: (Program, Program(z=normal)),
        Strategy(),
        "the model is a class, Program: pass an instance of it",
    ),
    "a class in place of a guide": (
        lambda: (observed(z=normal), Program),
        Strategy(),
        "the guide is a class, Program: pass an instance of it",
    ),
    "a function in place of a model": (
        lambda: (lambda batch: None, None),
        Strategy(),
        "the model is a function: make it a PyroModule, or it cannot be trained",
    ),
    "an object in place of a guide": (
        lambda: (observed(z=normal), NotAModule()),
        Strategy(),
        "the guide is a NotAModule: make it a PyroModule, or it cannot be trained",
    ),
    "a parameter shared by model and guide": (
        sharing,
        Strategy(),
        "model and guide share the parameter 'loc': the guide owns its encoder",
    ),
    "free bits per dimension where the KL does not factorise": (
        lambda: (observed(z=full), Program(z=full)),
        Strategy(kl=KL(shape=FreeBits(2.0))),
        r"site 'z': its KL does not split into dimensions: use FreeBits\(per='site'\)",
    ),
    "one of Pyro's objectives with a KL shape": (
        lambda: (observed(z=normal), Program(z=normal)),
        Strategy(bound=PyroELBO(), kl=KL(shape=FreeBits(2.0))),
        r"PyroELBO: site 'z' has a KL shape, which Trace_ELBO cannot see: use bound=ELBO\(\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_compile_refuses_and_names_site_and_cure(case: str) -> None:
    make, strategy, message = REFUSED[case]
    model, guide = make()
    with pytest.raises(StructureError, match=message) as raised:
        strategy.compile(model, guide, DATA)
    assert "\n" not in str(raised.value)


ACCEPTED: dict[str, tuple[Callable[[], tuple[Any, Any]], Strategy]] = {
    "free bits per site where the KL does not factorise": (
        lambda: (observed(z=full), Program(z=full)),
        Strategy(kl=KL(shape=FreeBits(2.0, per="site"))),
    ),
    "several particles": (lambda: (observed(z=normal), Program(z=normal)), Strategy(bound=ELBO(4))),
    "no latents and no guide": (lambda: (observed(), None), Strategy()),
    "no latents and an empty guide": (lambda: (observed(), Program()), Strategy()),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_compile_accepts(case: str) -> None:
    make, strategy = ACCEPTED[case]
    assert torch.isfinite(strategy.compile(*make(), DATA)(DATA))


def test_a_shared_parameter_is_allowed_where_the_guide_declares_it() -> None:
    model, guide = sharing()
    guide.shares_parameters = True
    Strategy().compile(model, guide, DATA)


# ---- what a dry run cannot see -----------------------------------------------------------------------------------


class Forgotten(PyroModule):
    """A ring with a layer that forward does not use."""

    plates = 1

    def __init__(self, frozen: bool) -> None:
        super().__init__()
        self.ring, _ = ring()
        self.unused = nn.Linear(2, 2).requires_grad_(not frozen)

    def forward(self, batch: Any) -> None:
        self.ring(batch)


def test_a_parameter_that_gets_no_gradient_is_named_after_the_first_step() -> None:
    message = r"no gradient reaches model.unused.weight, model.unused.bias: use them in forward, or freeze them"
    with pytest.raises(StructureError, match=message):
        fit(Forgotten(frozen=False), ring()[1], Vectors(torch.randn(6, 2)), training=Training(epochs=1, device="cpu"))


def test_a_frozen_parameter_needs_no_gradient() -> None:
    model = Forgotten(frozen=True)
    before = model.unused.weight.clone()
    fit(model, ring()[1], Vectors(torch.randn(6, 2)), training=Training(epochs=1, device="cpu"))
    assert torch.equal(model.unused.weight, before)
