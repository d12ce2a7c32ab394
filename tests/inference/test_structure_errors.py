"""Refused programs, and the message each gets: the site, what was found, the cure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

from pyro_nlp.data.batches import Batch
from pyro_nlp.data.splits import VectorSplit
from pyro_nlp.inference import (
    ELBO,
    IWAE,
    KL,
    REBAR,
    DisARM,
    Enumerate,
    Estimator,
    FreeBits,
    LeaveOneOut,
    Linear,
    LocalExpectation,
    Marginalize,
    Neural,
    Pathwise,
    PyroELBO,
    Relax,
    RunningMean,
    ScoreFunction,
    Strategy,
    StructureError,
    Subset,
    WakeSleep,
)
from tests.tiny import styled, text, whole

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


def index() -> Any:
    return dist.Categorical(logits=torch.zeros(3))


def bit() -> Any:
    return dist.Bernoulli(logits=torch.zeros(()))


def many() -> Any:
    return dist.OneHotCategorical(logits=torch.zeros(3)).expand([12]).to_event(1)


def observed(**sites: Any) -> Program:
    return Program(("x",), **sites, x=normal)


def sharing() -> tuple[Any, Any]:
    model, guide = observed(z=normal), Program(z=normal)
    guide.loc = model.loc
    return model, guide


class Reading(PyroModule):
    """A guide whose z depends on its class."""

    def __init__(self) -> None:
        super().__init__()
        self.loc = nn.Parameter(torch.randn(3, 2))

    def forward(self, batch: Any) -> None:
        with batch.documents():
            c = pyro.sample("c", one_hot())
            pyro.sample("z", dist.Normal(c @ self.loc, 1.0).to_event(1))


class Depending(Reading):
    """A model whose z does, and what is seen of it."""

    def forward(self, batch: Any) -> None:
        with batch.documents():
            c = pyro.sample("c", one_hot())
            z = pyro.sample("z", dist.Normal(c @ self.loc, 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z, 1.0).to_event(1), obs=batch.values)


class Outside(Program):
    """A model or guide with a class of the whole corpus."""

    def forward(self, batch: Any) -> None:
        pyro.sample("c", one_hot())
        with batch.documents():
            if self.obs:
                pyro.sample("x", normal(), obs=batch.values)


class Learning(PyroModule):
    """A guide with logits of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(3))

    def forward(self, batch: Any) -> None:
        with batch.documents():
            pyro.sample("c", dist.OneHotCategorical(logits=self.logits))


class Picking(PyroModule):
    """A model that looks its class up in a table."""

    plates = 1

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(3, 2))

    def forward(self, batch: Any) -> None:
        with batch.documents():
            c = pyro.sample("c", one_hot())
            pyro.sample("x", dist.Normal(self.table[c.argmax(-1)], 1.0).to_event(1), obs=batch.values)


class NotAModule:
    def __call__(self, batch: Any) -> None:
        return None


EIGHT: dict[str, Any] = {f"c{i}": one_hot for i in range(8)}
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
    "a continuous site given to Relax": (
        lambda: (observed(z=normal), Program(z=normal)),
        Strategy(sites={"z": Relax()}),
        "site 'z': Normal is not one-hot: Relax needs a OneHotCategorical, used linearly",
    ),
    "a continuous site given to Enumerate": (
        lambda: (observed(z=normal), Program(z=normal)),
        Strategy(continuous=Enumerate()),
        r"site 'z': Normal has no finite support, which Enumerate sums over: give it Pathwise\(\) or ScoreFunction\(\)",
    ),
    "a continuous site given to Marginalize": (
        lambda: (observed(z=normal), Program(z=normal)),
        Strategy(continuous=Marginalize()),
        "site 'z': Normal has no finite support, which Marginalize sums over",
    ),
    "a continuous site given to Subset": (
        lambda: (observed(z=normal), Program(z=normal)),
        Strategy(continuous=Subset()),
        "site 'z': Normal has no finite support, which Subset sums over",
    ),
    "a continuous site given to LocalExpectation": (
        lambda: (observed(z=normal), Program(z=normal)),
        Strategy(continuous=LocalExpectation()),
        "site 'z': Normal has no finite support, which LocalExpectation sums over",
    ),
    "an index given to Relax": (
        lambda: (observed(c=index), Program(c=index)),
        Strategy(discrete=Relax()),
        "site 'c': Categorical is an index, and a relaxed sample cannot be one: Relax needs a OneHotCategorical, used",
    ),
    "a bit given to REBAR": (
        lambda: (observed(c=bit), Program(c=bit)),
        Strategy(discrete=REBAR()),
        "site 'c': Bernoulli is not one-hot: REBAR needs a OneHotCategorical, used linearly",
    ),
    "a one-hot site given to DisARM": (
        lambda: (observed(c=one_hot), Program(c=one_hot)),
        Strategy(discrete=DisARM()),
        r"site 'c': DisARM is for Bernoulli sites, not OneHotCategorical: give it LeaveOneOut\(\)",
    ),
    "an index given to LocalExpectation": (
        lambda: (observed(c=index), Program(c=index)),
        Strategy(discrete=LocalExpectation()),
        "site 'c': Categorical is not one-hot, which LocalExpectation needs: make it OneHotCategorical",
    ),
    "a subset of all values": (
        lambda: (observed(c=one_hot), Program(c=one_hot)),
        Strategy(discrete=Subset(3)),
        r"site 'c': Subset\(k=3\) of 3 values leaves none to sample: give it Enumerate\(\)",
    ),
    "a subset of too many values": (
        lambda: (observed(c=many), Program(c=many)),
        Strategy(discrete=Subset(3)),
        r"site 'c': Subset ranks all 531,441 configurations, and the limit is 4,096: give it LocalExpectation\(\)",
    ),
    "too many configurations of one site": (
        lambda: (observed(c=many), Program(c=many)),
        Strategy(discrete=Enumerate()),
        r"531,441 configurations per document \('c' 531,441\), and the limit is 4,096: give a site of many variables "
        r"LocalExpectation\(\) or ScoreFunction\(baseline=LeaveOneOut\(\)\)",
    ),
    "too many configurations to sum out": (
        lambda: (observed(c=many), Program(c=many)),
        Strategy(discrete=Marginalize()),
        r"531,441 configurations per document \('c' 531,441\), and the limit is 4,096",
    ),
    "too many configurations of all sites together": (
        lambda: (observed(**EIGHT), Program(**EIGHT)),
        Strategy(discrete=Enumerate()),
        r"6,561 configurations per document \('c0' 3, 'c1' 3, .*'c7' 3\), and the limit is 4,096",
    ),
    "a discrete latent that the guide lacks": (
        lambda: (observed(c=one_hot), Program()),
        Strategy(discrete=Enumerate()),
        "latent site 'c' of the model has no counterpart in the guide, which has no sample site",
    ),
    "a guide that reads a site that is summed out": (
        lambda: (observed(c=one_hot, z=normal), Reading()),
        Strategy(discrete=Marginalize()),
        r"site 'z' of the guide depends on 'c', which is summed out in the model: make it independent of it, or give "
        r"'c' another estimator, as Enumerate\(\)",
    ),
    "a latent of the model that depends on a site that is summed out": (
        lambda: (Depending(), Program(c=one_hot, z=normal)),
        Strategy(discrete=Marginalize()),
        r"site 'z' of the model depends on 'c', which is summed out, so that its KL has no terms of its own: give 'c' "
        r"another estimator, as Enumerate\(\)",
    ),
    "a table in no plate": (
        lambda: (Outside(("x",)), Outside()),
        Strategy(discrete=Enumerate()),
        r"site 'c' stands outside the plate of documents, and belongs to all of them: its values cannot be summed",
    ),
    "a KL weight for a site that is summed out": (
        lambda: (observed(c=one_hot), Program(c=one_hot)),
        Strategy(discrete=Marginalize(), kl=KL(0.5)),
        r"site 'c' is summed out and has no KL to weigh or shape: name the other latents, as in kl=\{'z': KL",
    ),
    "a schedule for a site that is summed out": (
        lambda: (observed(c=one_hot, z=normal), Program(c=one_hot, z=normal)),
        Strategy(discrete=Marginalize(), kl=KL(Linear(0.0, 1.0, epochs=2))),
        "site 'c' is summed out and has no KL to weigh or shape",
    ),
    "free bits per dimension of a class": (
        lambda: (observed(c=one_hot), Program(c=one_hot)),
        Strategy(discrete=Enumerate(), kl=KL(shape=FreeBits(1.0))),
        r"site 'c': its KL does not split into dimensions: use FreeBits\(per='site'\)",
    ),
    "a baseline of the other particles, and no others": (
        lambda: (observed(c=one_hot), Program(c=one_hot)),
        Strategy(discrete=ScoreFunction(LeaveOneOut())),
        r"site 'c': LeaveOneOut needs two particles or more: bound=ELBO\(particles=4\)",
    ),
    "the same under IWAE": (
        lambda: (observed(c=one_hot), Program(c=one_hot)),
        Strategy(discrete=ScoreFunction(LeaveOneOut()), bound=IWAE(1)),
        r"site 'c': LeaveOneOut needs two particles or more: bound=IWAE\(particles=4\)",
    ),
    "no particles": (
        lambda: (observed(z=normal), Program(z=normal)),
        Strategy(bound=IWAE(0)),
        r"IWAE\(particles=0\) draws nothing: particles is at least 1",
    ),
    "IWAE of a relaxed sample without a density": (
        lambda: (observed(c=one_hot), Program(c=one_hot)),
        Strategy(discrete=Relax(), bound=IWAE(2)),
        r"IWAE: site 'c': Relax\(kl='categorical'\) has no density at the draw, which IWAE weighs: give it Relax\(kl=",
    ),
    "IWAE of free bits": (
        lambda: (observed(z=normal), Program(z=normal)),
        Strategy(bound=IWAE(2), kl=KL(shape=FreeBits(2.0))),
        r"IWAE: site 'z' has a KL shape, and IWAE has no KL of a site to shape: use bound=ELBO\(\)",
    ),
    "the doubly reparameterised gradient under the ELBO": (
        lambda: (observed(z=normal), Program(z=normal)),
        Strategy(continuous=Pathwise("dreg")),
        r"ELBO: site 'z': the doubly reparameterised gradient is one of IWAE: use Pathwise\(gradient='stl'\)",
    ),
    "the doubly reparameterised gradient of two latents": (
        lambda: (observed(z=normal, w=normal), Program(z=normal, w=normal)),
        Strategy(continuous=Pathwise("dreg"), bound=IWAE(2)),
        r"IWAE: site 'z': Pathwise\(gradient='dreg'\) is for a single latent: use gradient='stl' or 'plain'",
    ),
    "a relaxed sample made an index": (
        lambda: (Picking(), Learning()),
        Strategy(discrete=Relax()),
        "site 'c': no gradient of the likelihood reaches its relaxed sample: the model uses it as an index "
        r"\(argmax, a table look-up\) or not at all; use it linearly, as in c @ W",
    ),
    "a relaxed sample that the model does not use": (
        lambda: (observed(c=one_hot), Learning()),
        Strategy(discrete=Relax(hard=True)),
        "site 'c': no gradient of the likelihood reaches its relaxed sample: the model uses it as an index",
    ),
    "a KL weight under wake-sleep": (
        lambda: (observed(z=normal), Program(z=normal)),
        Strategy(bound=WakeSleep(), kl=KL(0.5)),
        r"WakeSleep: site 'z' has a KL weight or shape, and WakeSleep has no KL to weigh: use bound=ELBO\(\)",
    ),
    "one particle that is to be weighed": (
        lambda: (observed(z=normal), Program(z=normal)),
        Strategy(bound=WakeSleep(1, "wake")),
        "WakeSleep: one particle has the weight one whatever it is: use two or more, or guide='sleep'",
    ),
    "one of Pyro's objectives with a KL shape": (
        lambda: (observed(z=normal), Program(z=normal)),
        Strategy(bound=PyroELBO(), kl=KL(shape=FreeBits(2.0))),
        r"PyroELBO: site 'z' has a KL shape, which Trace_ELBO cannot see: use bound=ELBO\(\)",
    ),
    "one of Pyro's objectives with sticking the landing": (
        lambda: (observed(z=normal), Program(z=normal)),
        Strategy(continuous=Pathwise("stl"), bound=PyroELBO()),
        r"PyroELBO: site 'z': Trace_ELBO has no Pathwise\(gradient='stl'\): use bound=ELBO\(\)",
    ),
    "one of Pyro's objectives with our baselines": (
        lambda: (observed(c=one_hot), Program(c=one_hot)),
        Strategy(discrete=ScoreFunction(RunningMean()), bound=PyroELBO("TraceGraph_ELBO")),
        r"PyroELBO: site 'c': TraceGraph_ELBO has no ScoreFunction\(baseline=RunningMean\(decay=0.9\), per='site'\)",
    ),
    "enumeration by an objective that does not": (
        lambda: (observed(c=one_hot), Program(c=one_hot)),
        Strategy(discrete=Enumerate(), bound=PyroELBO()),
        r"PyroELBO: site 'c': Trace_ELBO does not enumerate: use PyroELBO\('TraceEnum_ELBO'\) or ELBO\(\)",
    ),
    "enumeration of several variables by Pyro": (
        lambda: (observed(c=many), Program(c=many)),
        Strategy(discrete=Enumerate(), bound=PyroELBO("TraceEnum_ELBO")),
        "PyroELBO: site 'c' is one event of several variables, which Pyro does not enumerate: use bound=ELBO",
    ),
    "a score function by mean field": (
        lambda: (observed(c=one_hot), Program(c=one_hot)),
        Strategy(discrete=ScoreFunction(), bound=PyroELBO("TraceMeanField_ELBO")),
        "PyroELBO: site 'c': TraceMeanField_ELBO takes reparameterised latents only: use bound=ELBO",
    ),
    "a score function of what Pyro reparameterises": (
        lambda: (observed(z=normal), Program(z=normal)),
        Strategy(continuous=ScoreFunction(), bound=PyroELBO()),
        "PyroELBO: site 'z': Trace_ELBO reparameterises a Normal whatever it is told, and has no score function for it",
    ),
    "a distribution that is not finite": (
        lambda: (observed(z=normal), Program(z=lambda: dist.Normal(torch.full((2,), torch.nan), 1.0).to_event(1))),
        Strategy(),
        "the distribution of 'z' has parameters that are not finite before any training: look at the initial weights",
    ),
}
WEIGHTLESS: list[Estimator] = [
    Enumerate(),
    LocalExpectation(),
    REBAR(),
    Subset(2),
    Subset(2, "random"),
    Subset(1, "random", renormalise=False),
]
"""What stands for a site by several values, or by one with a weight, and so has no density at a draw."""
REFUSED |= {
    f"IWAE of {estimator!r}": (
        lambda: (observed(c=one_hot), Program(c=one_hot)),
        Strategy(discrete=estimator, bound=IWAE(2)),
        rf"IWAE: site 'c': {type(estimator).__name__} has no importance weights: give it Marginalize\(\) or ScoreFunct",
    )
    for estimator in WEIGHTLESS
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
    "free bits per site of a class": (
        lambda: (observed(c=one_hot), Program(c=one_hot)),
        Strategy(discrete=Enumerate(), kl=KL(shape=FreeBits(1.0, per="site"))),
    ),
    "a class summed out that the guide lacks": (
        lambda: (observed(c=one_hot, z=normal), Program(z=normal)),
        Strategy(discrete=Marginalize()),
    ),
    "many configurations by local expectation": (
        lambda: (observed(c=many), Program(c=many)),
        Strategy(discrete=LocalExpectation()),
    ),
    "an index by argmax, drawn": (lambda: (Picking(), Learning()), Strategy(discrete=ScoreFunction())),
    "wake-sleep by dreams alone": (
        lambda: (observed(z=normal), Program(z=normal)),
        Strategy(bound=WakeSleep(1, "sleep")),
    ),
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


@dataclass(frozen=True)
class Unreadable(Batch):
    """Documents of a user's own kind."""

    values: torch.Tensor


def test_a_neural_baseline_says_what_it_cannot_read() -> None:
    batch = Unreadable(DATA.index, DATA.population, DATA.values)
    message = r"the Neural baseline cannot read a Unreadable: use RunningMean\(\) or LeaveOneOut\(\)"
    with pytest.raises(StructureError, match=message):
        Strategy(discrete=ScoreFunction(Neural())).compile(observed(c=one_hot), Learning(), batch)


def test_a_model_that_cannot_write_cannot_be_slept_on() -> None:
    batch = Unreadable(DATA.index, DATA.population, DATA.values)
    message = r"Program cannot write a Unreadable to sleep on: give it generate\(\), or use WakeSleep\(guide='wake'\)"
    with pytest.raises(StructureError, match=message):
        Strategy(bound=WakeSleep(2, "sleep")).compile(observed(z=normal), Program(z=normal), batch)


def test_the_styled_model_names_the_site_that_reads_its_class() -> None:
    message = "site 'z' of the guide depends on 'c', which is summed out in the model"
    with pytest.raises(StructureError, match=message):
        Strategy(discrete=Marginalize()).compile(*styled(), whole(text(3)))
    Strategy(discrete=Marginalize()).compile(*styled(joint=False), whole(text(3)))


VALUES: dict[str, tuple[Callable[[], Any], str]] = {
    "gradient": (lambda: Pathwise("dregs"), "Pathwise: gradient is 'plain', 'stl' or 'dreg', not 'dregs'"),  # type: ignore[arg-type]
    "k": (lambda: Subset(0), "Subset: k is at least 1, and choose is 'top' or 'random'"),
    "choose": (lambda: Subset(1, "best"), "Subset: k is at least 1, and choose is 'top' or 'random'"),  # type: ignore[arg-type]
    "kl": (lambda: Relax(kl="discrete"), "Relax: kl is 'categorical' or 'relaxed', not 'discrete'"),  # type: ignore[arg-type]
    "temperature": (lambda: Relax(0.0), "Relax: temperature is above 0, not 0.0"),
    "temperature of REBAR": (lambda: REBAR(-1.0), "REBAR: temperature is above 0, not -1.0"),
    "guide": (lambda: WakeSleep(2, "awake"), "WakeSleep: guide is 'wake', 'sleep' or 'both', not 'awake'"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("case", VALUES)
def test_a_value_that_cannot_be_is_refused_where_it_is_made(case: str) -> None:
    make, message = VALUES[case]
    with pytest.raises(ValueError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)
