"""Small programs that the tests of estimators share: one for every kind of latent, each with its guide and a batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import TextBatch, VectorBatch
from pyro_nlp.data.splits import VectorSplit
from pyro_nlp.guides.categorical import CategoricalGuide
from pyro_nlp.guides.flow import FlowGuide
from pyro_nlp.inference import (
    ELBO,
    IWAE,
    KL,
    REBAR,
    Bound,
    DisARM,
    Enumerate,
    Estimator,
    LeaveOneOut,
    LocalExpectation,
    Marginalize,
    Neural,
    Objective,
    Pathwise,
    PyroELBO,
    RunningMean,
    ScoreFunction,
    Strategy,
    Subset,
    WakeSleep,
)
from pyro_nlp.models.sentence_mixture import SentenceMixture
from tests.tiny import (
    CLASSES,
    CODE,
    LATENT,
    VOCABULARY,
    all_close,
    decoder,
    discrete,
    encoder,
    gradients,
    mixture,
    ring,
    sharpen,
    styled,
    text,
    vae,
    whole,
)

LEVEL = 1e-4
"""Chance that the whole table of unbiased estimators fails although nothing is wrong."""
Pair = tuple[Any, Any, Any]
"""Model, guide, batch."""


class Bits(PyroModule):
    """Three independent bits, x around a map of them."""

    plates = 1

    def __init__(self) -> None:
        super().__init__()
        self.logits, self.map = nn.Parameter(torch.tensor([0.5, -0.3, 0.1])), nn.Linear(3, 2)

    def forward(self, batch: VectorBatch) -> None:
        with batch.documents():
            b = pyro.sample("b", dist.Bernoulli(logits=self.logits).to_event(1))
            pyro.sample("x", dist.Normal(self.map(b), 0.7).to_event(1), obs=batch.values)


class BitsGuide(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(2, 3)

    def forward(self, batch: VectorBatch) -> None:
        with batch.documents():
            pyro.sample("b", dist.Bernoulli(logits=self.map(batch.values)).to_event(1))


class Index(PyroModule):
    """A class given as a number, which picks the mean of x."""

    plates = 1

    def __init__(self) -> None:
        super().__init__()
        self.prior, self.means = nn.Parameter(torch.tensor([0.2, 0.0, -0.4])), nn.Parameter(torch.randn(3, 2))

    def forward(self, batch: VectorBatch) -> None:
        with batch.documents():
            c = pyro.sample("c", dist.Categorical(logits=self.prior))
            pyro.sample("x", dist.Normal(self.means[c], 0.7).to_event(1), obs=batch.values)


class IndexGuide(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(2, 3)

    def forward(self, batch: VectorBatch) -> None:
        with batch.documents():
            pyro.sample("c", dist.Categorical(logits=self.map(batch.values)))


class Chain(PyroModule):
    """p(a) p(b | a) p(x | a, b), with one-hot a and b."""

    plates = 1

    def __init__(self) -> None:
        super().__init__()
        self.prior, self.step = nn.Parameter(torch.tensor([0.3, 0.0, -0.5])), nn.Parameter(torch.randn(3, 2))
        self.from_a, self.from_b = nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(2, 2))

    def forward(self, batch: VectorBatch) -> None:
        with batch.documents():
            a = pyro.sample("a", dist.OneHotCategorical(logits=self.prior))
            b = pyro.sample("b", dist.OneHotCategorical(logits=a @ self.step))
            pyro.sample("x", dist.Normal(a @ self.from_a + b @ self.from_b, 0.7).to_event(1), obs=batch.values)


class ChainGuide(PyroModule):
    """q(a | x) q(b | x, a)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.step = nn.Linear(2, 3), nn.Linear(2, 2), nn.Parameter(torch.randn(3, 2))

    def forward(self, batch: VectorBatch) -> None:
        with batch.documents():
            a = pyro.sample("a", dist.OneHotCategorical(logits=self.first(batch.values)))
            pyro.sample("b", dist.OneHotCategorical(logits=self.second(batch.values) + a @ self.step))


class Words(PyroModule):
    """A class c of the document, one w of every word by c, in a plate of words of which the last document lacks one."""

    plates = 2

    def __init__(self) -> None:
        super().__init__()
        self.prior, self.step = nn.Parameter(torch.tensor([0.3, -0.3])), nn.Parameter(torch.randn(2, 3))
        self.of_c, self.of_w = nn.Parameter(torch.randn(2)), nn.Parameter(torch.randn(3))

    def forward(self, batch: VectorBatch) -> None:
        with batch.documents():
            c = pyro.sample("c", dist.OneHotCategorical(logits=self.prior))
            with pyro.plate("words", 2, dim=-2), poutine.mask(mask=present(batch)):
                w = pyro.sample("w", dist.OneHotCategorical(logits=c @ self.step))
                pyro.sample("x", dist.Normal(c @ self.of_c + w @ self.of_w, 0.7), obs=batch.values.T)


class WordsGuide(PyroModule):
    """q(c | x) prod_t q(w_t | x_t), or q(w_t | x_t, c)."""

    def __init__(self, joint: bool = False) -> None:
        super().__init__()
        self.first, self.each = nn.Linear(2, 2), nn.Linear(1, 3)
        self.step = nn.Parameter(torch.randn(2, 3)) if joint else None

    def forward(self, batch: VectorBatch) -> None:
        with batch.documents():
            c = pyro.sample("c", dist.OneHotCategorical(logits=self.first(batch.values)))
            with pyro.plate("words", 2, dim=-2), poutine.mask(mask=present(batch)):
                logits = self.each(batch.values.T[..., None])
                pyro.sample("w", dist.OneHotCategorical(logits=logits if self.step is None else logits + c @ self.step))


class Flat(Words):
    """The same model with the words of a document as one site of many configurations, its padding drawn as well."""

    plates = 1

    def forward(self, batch: VectorBatch) -> None:
        with batch.documents():
            c = pyro.sample("c", dist.OneHotCategorical(logits=self.prior))
            logits = (c @ self.step)[..., None, :].expand(*torch.broadcast_shapes(c.shape[:-1], (len(batch),)), 2, 3)
            absent = ~present(batch).T[..., None]  # uniform on both sides, and so without a KL
            w = pyro.sample("w", dist.OneHotCategorical(logits=logits.masked_fill(absent, 0.0)).to_event(1))
            x = dist.Normal((c @ self.of_c)[..., None] + w @ self.of_w, 0.7)
            pyro.sample("x", x.mask(present(batch).T).to_event(1), obs=batch.values)


class FlatGuide(WordsGuide):
    def forward(self, batch: VectorBatch) -> None:
        with batch.documents():
            c = pyro.sample("c", dist.OneHotCategorical(logits=self.first(batch.values)))
            logits = self.each(batch.values[..., None])
            if self.step is not None:
                logits = logits + (c @ self.step)[..., None, :]
            absent = ~present(batch).T[..., None]
            pyro.sample("w", dist.OneHotCategorical(logits=logits.masked_fill(absent, 0.0)).to_event(1))


def present(batch: VectorBatch) -> Tensor:
    """The mask of words, `[T, B]`."""
    return torch.stack([torch.ones(len(batch), dtype=torch.bool), batch.index != 2])


def sentences() -> TextBatch:
    found: TextBatch = whole(text(3, seed=1, longest=4))
    return found


def vectors() -> VectorBatch:
    values = torch.randn(3, 2, generator=torch.Generator().manual_seed(1))
    return VectorSplit(values).batch(np.arange(3))


def tiny(model: Callable[[], Any], guide: Callable[[], Any]) -> tuple[Any, Any]:
    torch.manual_seed(0)
    return model(), guide()


def flow(kind: Literal["iaf", "planar"]) -> tuple[Any, Any]:
    model, _ = vae()
    torch.manual_seed(1)
    return model, sharpen(FlowGuide(VOCABULARY, LATENT, encoder, flow=kind, layers=1, hidden=4))


def many_classes(classes: int = 16) -> tuple[Any, Any]:
    torch.manual_seed(0)
    return (
        sharpen(SentenceMixture(VOCABULARY, classes, CODE, decoder)),
        sharpen(CategoricalGuide(VOCABULARY, classes, encoder)),
    )


MODELS: dict[str, Callable[[], Pair]] = {
    "mixture": lambda: (*mixture(), sentences()),
    "discrete": lambda: (*discrete(), sentences()),
    "styled": lambda: (*styled(), sentences()),
    "styled, z apart from c": lambda: (*styled(joint=False), sentences()),
    "bits": lambda: (*tiny(Bits, BitsGuide), vectors()),
    "index": lambda: (*tiny(Index, IndexGuide), vectors()),
    "chain": lambda: (*tiny(Chain, ChainGuide), vectors()),
    "words": lambda: (*tiny(Words, WordsGuide), vectors()),
    "words, by class": lambda: (*tiny(Words, partial(WordsGuide, True)), vectors()),
    "ring": lambda: (*ring(), vectors()),
    "ring, full covariance": lambda: (*ring(diagonal=False), vectors()),
    "sentence VAE": lambda: (*vae(), sentences()),
    "sentence VAE, planar flow": lambda: (*flow("planar"), sentences()),
    "sentence VAE, autoregressive flow": lambda: (*flow("iaf"), sentences()),
}
FLOWS = ("sentence VAE, planar flow", "sentence VAE, autoregressive flow")
OF_WORDS = ("words", "words, by class")
DISCRETE = ("mixture", "discrete", "styled", "styled, z apart from c", "bits", "index", "chain", *OF_WORDS)
CONTINUOUS = ("ring", "ring, full covariance", "sentence VAE", *FLOWS)


def of_discrete(estimator: Estimator, bound: Bound | None = None, **options: Any) -> Strategy:
    return Strategy(discrete=estimator, bound=bound or ELBO(), **options)


def of_continuous(estimator: Estimator, bound: Bound | None = None) -> Strategy:
    return Strategy(continuous=estimator, bound=bound or ELBO())


ON_DISCRETE: dict[str, Strategy] = {
    "Enumerate": of_discrete(Enumerate()),
    "Enumerate, 2 particles": of_discrete(Enumerate(), ELBO(2)),
    "Marginalize": of_discrete(Marginalize()),
    "Marginalize, IWAE": of_discrete(Marginalize(), IWAE(3)),
    "ScoreFunction": of_discrete(ScoreFunction()),
    "ScoreFunction, KL weight 0.3": of_discrete(ScoreFunction(), kl=KL(0.3)),
    "RunningMean": of_discrete(ScoreFunction(RunningMean())),
    "RunningMean, KL weight 0": of_discrete(ScoreFunction(RunningMean()), kl=KL(0.0)),
    "Neural": of_discrete(ScoreFunction(Neural())),
    "LeaveOneOut": of_discrete(ScoreFunction(LeaveOneOut()), ELBO(3)),
    "ScoreFunction, IWAE": of_discrete(ScoreFunction(), IWAE(3)),
    "RunningMean, IWAE": of_discrete(ScoreFunction(RunningMean()), IWAE(3)),
    "Neural, IWAE": of_discrete(ScoreFunction(Neural()), IWAE(3)),
    "VIMCO": of_discrete(ScoreFunction(LeaveOneOut()), IWAE(3)),
    "VIMCO, KL weight 0.5": of_discrete(ScoreFunction(LeaveOneOut()), IWAE(3), kl=KL(0.5)),
    "Subset of the likeliest": of_discrete(Subset(1)),
    "Subset of the likeliest, 2 particles": of_discrete(Subset(1), ELBO(2)),
    "Subset at random, weighted": of_discrete(Subset(1, "random", renormalise=False)),
    "Two at random, weighted": of_discrete(Subset(2, "random", renormalise=False)),
    "LocalExpectation": of_discrete(LocalExpectation()),
    "LocalExpectation, KL weight 0.3": of_discrete(LocalExpectation(), kl=KL(0.3)),
    "REBAR": of_discrete(REBAR()),
    "REBAR, half, 2 particles": of_discrete(REBAR(temperature=1.0, eta=0.5), ELBO(2)),
    "DisARM": of_discrete(DisARM()),
    "DisARM, 2 particles": of_discrete(DisARM(), ELBO(2)),
    "wake": of_discrete(ScoreFunction(), WakeSleep(3)),
    "Trace_ELBO": of_discrete(ScoreFunction(), PyroELBO()),
    "TraceGraph_ELBO": of_discrete(ScoreFunction(), PyroELBO("TraceGraph_ELBO")),
    "TraceEnum_ELBO": of_discrete(Enumerate(), PyroELBO("TraceEnum_ELBO")),
    "TraceEnum_ELBO, Marginalize": of_discrete(Marginalize(), PyroELBO("TraceEnum_ELBO")),
}
ON_CONTINUOUS: dict[str, Strategy] = {
    "Pathwise": of_continuous(Pathwise()),
    "stl": of_continuous(Pathwise("stl")),
    "dreg": of_continuous(Pathwise("dreg")),
    "ScoreFunction": of_continuous(ScoreFunction()),
    "RunningMean": of_continuous(ScoreFunction(RunningMean())),
    "Neural": of_continuous(ScoreFunction(Neural())),
    "LeaveOneOut": of_continuous(ScoreFunction(LeaveOneOut()), ELBO(3)),
    "Pathwise, IWAE": of_continuous(Pathwise(), IWAE(3)),
    "dreg, IWAE": of_continuous(Pathwise("dreg"), IWAE(3)),
    "ScoreFunction, IWAE": of_continuous(ScoreFunction(), IWAE(3)),
    "VIMCO": of_continuous(ScoreFunction(LeaveOneOut()), IWAE(3)),
    "Trace_ELBO": of_continuous(Pathwise(), PyroELBO()),
    "TraceMeanField_ELBO": of_continuous(Pathwise(), PyroELBO("TraceMeanField_ELBO")),
    "TraceGraph_ELBO": of_continuous(Pathwise(), PyroELBO("TraceGraph_ELBO")),
    "TraceGraph_ELBO, ScoreFunction": of_continuous(ScoreFunction(), PyroELBO("TraceGraph_ELBO")),
}


def compiled(pair: Pair, **strategy: Any) -> Objective:
    return Strategy(**strategy).compile(*pair)


def loss_and_gradients(objective: Objective, batch: Any, seed: int = 3) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(seed)
    loss = objective(batch)
    loss.backward()
    return loss.detach(), gradients(objective.model, objective.guide)


def assert_same(found: tuple[Tensor, dict[str, Tensor]], loss: Tensor, *modules: nn.Module | None) -> None:
    """That a loss and its gradients are those of a loss written by hand, up to the order of float32 sums."""
    loss.backward()
    torch.testing.assert_close(found[0], loss.detach(), rtol=1e-5, atol=1e-5)
    all_close(found[1], gradients(*modules), 1e-5)


def evidence_of(model: Any, batch: Any, values: dict[str, Tensor]) -> Tensor:
    """log p(x | values), `[documents]`."""
    x: Any = poutine.trace(poutine.condition(model, values)).get_trace(batch).nodes["x"]
    found: Tensor = x["fn"].log_prob(x["value"])
    return found


def q_of(guide: Any, batch: Any, site: str, **given: Tensor) -> Any:
    return poutine.trace(poutine.condition(guide, given)).get_trace(batch).nodes[site]["fn"]


def one_hot(k: int, documents: int, classes: int = CLASSES) -> Tensor:
    return torch.eye(classes)[k].expand(documents, classes)
