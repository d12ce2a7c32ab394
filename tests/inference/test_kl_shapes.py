"""Shapes of the KL beyond free bits, and what a schedule that does not fit a training is told."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pyro_nlp.inference import (
    ELBO,
    KL,
    Alternating,
    Capacity,
    Constant,
    Drawn,
    FreeBits,
    Join,
    LeaveOneOut,
    Linear,
    ScoreFunction,
    Strategy,
    StructureError,
    Training,
    fit,
    terms,
)
from pyro_nlp.models.sentence_vae import SentenceVAE
from pyro_nlp.nn import MixturePrior
from tests.tiny import CLASSES, LATENT, VOCABULARY, Sentences, decoder, gradients, styled, text, vae, whole


@pytest.mark.parametrize("average", ["document", "batch"])
@pytest.mark.parametrize("nats", [0.0, 0.3, 50.0])
def test_a_capacity_draws_the_kl_to_it_from_both_sides(average: str, nats: float) -> None:
    model, guide = vae()
    batch = whole(text(7))
    objective = Strategy(kl=KL(2.0, Capacity(nats, average))).compile(model, guide, batch)  # type: ignore[arg-type]
    torch.manual_seed(0)
    loss = objective(batch)
    loss.backward()
    found = gradients(guide)
    torch.manual_seed(0)
    terms = objective.plain_terms(batch)
    kl = terms.kl["z"][0]
    away = (kl.mean() - nats).abs() if average == "batch" else (kl - nats).abs().mean()
    expected = 2.0 * away - terms.log_likelihood.mean()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    for name, gradient in gradients(guide).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def along_its_mean(loss: Callable[[], Tensor], *modules: nn.Module, directions: Tensor | None = None) -> tuple:
    """The mean gradient of 25 draws along some directions (itself by default), its error, and the directions."""
    torch.manual_seed(0)
    parameters = [p for m in modules for p in m.parameters()]
    rows = []
    for _ in range(25):
        found = torch.autograd.grad(loss(), parameters, allow_unused=True)
        both = zip(found, parameters, strict=True)
        rows.append(torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in both]))
    every = torch.stack(rows)
    if directions is None:
        directions = every.mean(0, keepdim=True)
    along = every @ directions.T
    return along.mean(0), along.std(0) / len(rows) ** 0.5, directions


@pytest.mark.parametrize("shape", [FreeBits(0.4, "site", "batch"), Capacity(1.0)], ids=["free bits", "capacity"])
def test_a_draw_answers_for_the_mean_over_the_batch(shape: FreeBits | Capacity) -> None:
    """Each class moves the KL of z, whose mean over the batch every document pays: all combinations of classes know."""
    model, guide = styled()
    batch = whole(text(2, seed=1, longest=4))
    strategy = Strategy(discrete=ScoreFunction(LeaveOneOut()), kl={"c": KL(0.0), "z": KL(30.0, shape)}, bound=ELBO(400))
    objective = strategy.compile(model, guide, batch)

    def summed_out() -> Tensor:
        total = torch.zeros(())
        for classes in product(range(CLASSES), repeat=len(batch)):
            c = torch.eye(CLASSES)[list(classes)]
            found = terms(model, guide, batch, particles=20, draws={"c": lambda q, c=c: Drawn(c.expand(q.shape()))})
            site = found.sites["z"]
            cost = 30.0 * shape(site, objective.at) - found.log_likelihood
            q = found.sites["c"].log_q.sum(1).exp()
            total = total + (q * cost.mean(1)).mean()
        return total

    exact, error, directions = along_its_mean(summed_out, guide.classifier)
    ours, noise, _ = along_its_mean(lambda: objective(batch), guide.classifier, directions=directions)
    # Student's t with 24 degrees of freedom: beyond 6.5 with probability 1e-6
    assert (ours - exact).abs() < 6.5 * (error**2 + noise**2).sqrt()
    assert noise < 0.1 * exact  # or nothing was told


def test_the_kl_of_a_training_goes_to_its_capacity() -> None:
    model, guide = vae()
    strategy = Strategy(kl=KL(20.0, Capacity(Linear(0.0, 1.5, epochs=5))))
    run = fit(model, guide, Sentences(), strategy, Training(epochs=30, batch_size=8, plateau=None, log_every=5))
    kl = [row["kl.z"] for row in run.history if "kl.z" in row]
    assert np.mean(kl[-5:]) == pytest.approx(1.5, abs=0.3)


def test_free_nats_may_follow_a_schedule() -> None:
    model, guide = vae()
    batch = whole(text(7))
    objective = Strategy(kl=KL(1.0, FreeBits(Linear(0.0, 100.0, steps=10)))).compile(model, guide, batch)
    plain = Strategy().compile(model, guide, batch)
    losses = []
    for module in (objective, plain):
        torch.manual_seed(0)
        losses.append(module(batch).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for _ in range(10):
        objective.advance()
    torch.manual_seed(0)
    terms = objective.plain_terms(batch)
    torch.manual_seed(0)
    assert objective(batch).item() == pytest.approx(100.0 - terms.log_likelihood.mean().item(), rel=1e-5)


def test_a_threshold_wants_a_closed_form_or_a_reparameterised_site() -> None:
    batch = whole(text(6))
    model, guide = styled()
    weighed = {"z": KL(), "c": KL(shape=Capacity(1.0))}
    Strategy(discrete=ScoreFunction(), kl=weighed).compile(model, guide, batch)  # a class has a closed form

    import pyro
    import pyro.distributions as dist
    from pyro.nn import PyroModule
    from torch import nn

    class Side(PyroModule):
        """p(z) and q(z | x) of a mixture whose component is hidden: no closed form, no path."""

        def __init__(self, observe: bool) -> None:
            super().__init__()
            self.loc, self.observe = nn.Parameter(torch.tensor([[-1.0, 0.0], [1.0, 0.5]])), observe

        def forward(self, batch: object) -> None:
            with batch.documents():  # type: ignore[attr-defined]
                parts = dist.Normal(self.loc, 1.0).to_event(1)
                z = pyro.sample("z", dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), parts))
                if self.observe:
                    pyro.sample("x", dist.Normal(z.sum(-1), 1.0), obs=batch.lengths.float())  # type: ignore[attr-defined]

    with pytest.raises(
        StructureError, match=r"'z': FreeBits wants a KL in closed form .* MixtureSameFamily under Score"
    ):
        Strategy(continuous=ScoreFunction(), kl=KL(shape=FreeBits(1.0, per="site"))).compile(
            Side(True), Side(False), batch
        )


@pytest.mark.parametrize(
    ("length", "message"),
    [
        (
            0.5,
            r"strategy\.kl\.weight: Linear\(.*epochs=0\.5\) takes 2 steps, and an epoch has 5: it is over within the",
        ),
        (3.0, r"takes 15 steps, and 2 epochs have 10: it does not come to its end"),
        (2.0, None),
        (1.0, None),
    ],
)
def test_a_schedule_that_does_not_fit_the_training_is_told_so(length: float, message: str | None) -> None:
    model, guide = vae()
    strategy = Strategy(kl=KL(Linear(0.0, 1.0, epochs=length)))
    training = Training(epochs=2, batch_size=8, plateau=None)
    if message is None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fit(model, guide, Sentences(), strategy, training)
        return
    with pytest.warns(UserWarning, match=message):
        fit(model, guide, Sentences(), strategy, training)


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        (
            Strategy(kl=KL(Join([Linear(epochs=2), Constant(1.0)], [1], "epochs"))),
            r"Linear\(.*\) takes 10 steps, and its place has 5: it does not come to its end",
        ),
        (
            Strategy(updates=Alternating(2, 1, "epochs")),
            r"takes 15 steps for a turn of both sides, and 2 epochs have 10",
        ),
    ],
    ids=["inside a join", "turns"],
)
def test_a_part_of_a_join_and_turns_that_do_not_fit_are_told_so(strategy: Strategy, message: str) -> None:
    with pytest.warns(UserWarning, match=message):
        fit(*vae(), Sentences(), strategy, Training(epochs=2, batch_size=8, plateau=None))


@pytest.mark.parametrize("nats", [-1.0, float("nan"), float("inf")])
def test_a_threshold_is_a_kl(nats: float) -> None:
    for shape in (FreeBits, Capacity):
        with pytest.raises(ValueError, match=rf"{shape.__name__}: nats is a KL, a number from 0, not {nats}"):
            shape(nats)


def test_a_threshold_at_a_draw_without_a_path_is_refused() -> None:
    model = SentenceVAE(VOCABULARY, LATENT, decoder, prior=partial(MixturePrior, components=2))
    strategy = Strategy(continuous=ScoreFunction(), kl=KL(shape=FreeBits(1.0, "site")))
    with pytest.raises(StructureError, match=r"FreeBits wants .* and this Normal under ScoreFunction has neither"):
        strategy.compile(model, vae()[1], whole(text(6)))
