"""KL weights, schedules and baselines: what each does to the loss, by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from pyro import poutine
from torch import Tensor, nn
from torch.distributions.relaxed_categorical import ExpRelaxedCategorical

from pyro_nlp.evaluation import gradient_check
from pyro_nlp.inference import (
    ELBO,
    IWAE,
    KL,
    REBAR,
    Baseline,
    DisARM,
    Enumerate,
    Estimator,
    Linear,
    LocalExpectation,
    Neural,
    Objective,
    Relax,
    RunningMean,
    ScoreFunction,
    Signal,
    Subset,
)
from pyro_nlp.inference.support import support
from tests.inference.programs import (
    MODELS,
    ON_DISCRETE,
    compiled,
    evidence_of,
    loss_and_gradients,
    q_of,
)
from tests.tiny import (
    CLASSES,
    all_close,
)

# ---- weights, baselines, schedules -----------------------------------------------------------------------------


WEIGHED: dict[str, tuple[str, Estimator]] = {
    "Enumerate": ("mixture", Enumerate()),
    "ScoreFunction": ("mixture", ScoreFunction()),
    "RunningMean": ("mixture", ScoreFunction(RunningMean())),
    "Neural": ("mixture", ScoreFunction(Neural())),
    "Subset of the likeliest": ("mixture", Subset(2)),
    "Subset at random": ("mixture", Subset(2, "random")),
    "Subset at random, weighted": ("mixture", Subset(2, "random", renormalise=False)),
    "Subset of one": ("mixture", Subset(1, "random", renormalise=False)),
    "LocalExpectation": ("discrete", LocalExpectation()),
    "REBAR": ("mixture", REBAR()),
    "DisARM": ("bits", DisARM()),
    "Relax": ("mixture", Relax(0.7)),
    "Relax, hard": ("mixture", Relax(0.7, hard=True)),
}


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", WEIGHED)
def test_a_kl_weight_weighs_the_kl_alone(name: str, weight: float) -> None:
    """The likelihood is that of the values that were put in the site's place, each by its weight."""
    kind, estimator = WEIGHED[name]
    model, guide, batch = pair = MODELS[kind]()
    objective = compiled(pair, discrete=estimator, kl=KL(weight))
    torch.manual_seed(3)
    found = objective(batch).detach()
    torch.manual_seed(3)
    (site,) = objective.terms(batch).sites.values()
    drawn = site.drawn
    assert drawn is not None
    event = site.q.event_shape
    shares = torch.ones(1, 1, len(batch)) if drawn.weight is None else drawn.weight
    rows = drawn.value.expand(len(shares), 1, len(batch), *event).squeeze(1)
    shares = shares.expand(-1, 1, len(batch)).squeeze(1)
    assert len(rows) == objective.rows[site.name]
    cost: Any = 0.0
    for row, share in zip(rows, shares, strict=True):
        cost = cost - share * evidence_of(model, batch, {site.name: row}).reshape(-1)
    q = q_of(guide, batch, site.name)
    torch.testing.assert_close(
        found, (cost + weight * exact_kl(model, q, site.name, batch)).mean(), rtol=1e-5, atol=1e-5
    )


def exact_kl(model: Any, q: Any, name: str, batch: Any) -> Tensor:
    """KL of a discrete site by a loop over its values, `[documents]`."""
    p: Any = poutine.trace(model).get_trace(batch).nodes[name]["fn"]
    total: Any = 0.0
    for value in support(q):
        log_q, log_p = q.log_prob(value), p.log_prob(value)
        total = total + log_q.exp() * (log_q - log_p)
    return total.reshape(-1)


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_kl_of_relaxed_densities_is_weighed_at_the_draw(weight: float) -> None:
    model, guide, batch = pair = MODELS["mixture"]()
    objective = compiled(pair, discrete=Relax(0.7, kl="relaxed"), kl=KL(weight))
    torch.manual_seed(3)
    found = objective(batch).detach()
    torch.manual_seed(3)
    y = objective.terms(batch).sites["c"].value.reshape(len(batch), CLASSES)
    temperature = torch.tensor(0.7)
    densities = [
        ExpRelaxedCategorical(temperature, logits=logits).log_prob(y.log())
        for logits in (q_of(guide, batch, "c").logits, model.prior.expand(len(batch), -1))
    ]
    wanted = weight * (densities[0] - densities[1]) - evidence_of(model, batch, {"c": y})
    torch.testing.assert_close(found, wanted.mean(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["Enumerate", "ScoreFunction", "Subset of the likeliest", "REBAR", "Relax"])
def test_a_schedule_counts_as_its_number_at_the_step(name: str) -> None:
    kind, estimator = WEIGHED[name]
    _, _, batch = pair = MODELS[kind]()
    rising, still = (compiled(pair, discrete=estimator, kl=KL(w)) for w in (Linear(0.0, 1.0, steps=10), 0.4))
    for _ in range(4):
        rising.advance()
    first, second = loss_and_gradients(rising, batch), loss_and_gradients(still, batch)
    torch.testing.assert_close(first[0], second[0])
    all_close(first[1], second[1], 1e-6)


def test_a_temperature_may_follow_a_schedule() -> None:
    _, _, batch = pair = MODELS["mixture"]()
    falling, still = (compiled(pair, discrete=Relax(t)) for t in (Linear(1.0, 0.5, steps=10), 0.75))
    for _ in range(5):
        falling.advance()
    first, second = loss_and_gradients(falling, batch), loss_and_gradients(still, batch)
    torch.testing.assert_close(first[0], second[0])
    all_close(first[1], second[1], 1e-6)


@dataclass(frozen=True)
class Spy(Baseline):
    """Takes nothing off, and tells what it was shown."""

    seen: list[tuple[Tensor, Tensor]]

    def __call__(self, signal: Signal, state: nn.Module | None, batch: Any) -> tuple[Tensor, Tensor | None]:
        assert signal.without is not None
        self.seen.append((signal.value, signal.without()))
        return signal.value, None


@pytest.mark.parametrize("particles", [2, 4])
@pytest.mark.parametrize("weight", [0.5, 1.0])
def test_what_the_other_particles_lost_under_iwae_equals_a_loop(particles: int, weight: float) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    _, _, batch = pair = MODELS["mixture"]()
    objective = compiled(pair, discrete=ScoreFunction(Spy(seen)), bound=IWAE(particles), kl=KL(weight))
    torch.manual_seed(3)
    objective(batch)
    torch.manual_seed(3)
    found = objective.terms(batch)
    site = found.sites["c"]
    log_weight = (found.log_likelihood + weight * (site.log_p - site.log_q)).detach()
    value, without = seen[-1]
    for b in range(len(batch)):
        w = log_weight[:, b].double()
        assert value[0, b] == pytest.approx(-float(w.exp().mean().log()), rel=1e-5)
        for s in range(particles):
            others = [float(w[i]) for i in range(particles) if i != s]
            geometric = sum(others) / len(others)
            mean = (sum(math.exp(o) for o in others) + math.exp(geometric)) / particles
            assert without[s, b] == pytest.approx(-math.log(mean), rel=1e-5)


def test_what_the_other_particles_lost_under_the_elbo_is_their_mean() -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    _, _, batch = pair = MODELS["mixture"]()
    objective = compiled(pair, discrete=ScoreFunction(Spy(seen)), bound=ELBO(3))
    torch.manual_seed(3)
    objective(batch)
    torch.manual_seed(3)
    lost = -objective.terms(batch).log_likelihood.detach()  # the KL has a closed form, and its gradient with it
    value, without = seen[-1]
    torch.testing.assert_close(value, lost)
    for s in range(3):
        others = [lost[i] for i in range(3) if i != s]
        torch.testing.assert_close(without[s], sum(others) / torch.tensor(2.0))


def test_a_running_mean_forgets_at_its_rate_and_learns_from_training_alone() -> None:
    _, _, batch = pair = MODELS["mixture"]()
    objective = compiled(pair, discrete=ScoreFunction(RunningMean(decay=0.8)))
    mean: Any = objective.state["c"]
    first = second = 0.0
    for step in range(1, 6):
        loss = _loss(objective, batch, step)
        first, second = 0.8 * first + 0.2 * loss[0], 0.8 * second + 0.2 * loss[1]
        now, spread = mean.now()
        assert float(now) == pytest.approx(first / (1 - 0.8**step), rel=1e-5)
        variance = second / (1 - 0.8**step) - float(now) ** 2
        assert float(spread) == pytest.approx(max(variance, 1e-6) ** 0.5, rel=1e-2)
    objective.eval()
    before = {k: v.clone() for k, v in objective.state_dict().items()}
    objective(batch)
    assert all(torch.equal(v, before[k]) for k, v in objective.state_dict().items())


def _loss(objective: Objective, batch: Any, seed: int) -> tuple[float, float]:
    """Mean and mean square of what a baseline sees in a step, which is taken."""
    torch.manual_seed(seed)
    lost = -objective.terms(batch).log_likelihood.detach()
    torch.manual_seed(seed)
    objective(batch)
    return float(lost.mean()), float(lost.square().mean())


def test_baselines_take_variance_away() -> None:
    variance = {}
    for name in ("ScoreFunction", "RunningMean", "Neural", "LeaveOneOut", "REBAR", "Subset of the likeliest"):
        found = gradient_check(*MODELS["mixture"](), ON_DISCRETE[name], draws=2000, copies=50)
        variance[name] = sum(v for group, v in found.variance.items() if group.startswith("guide"))
    assert variance["LeaveOneOut"] < variance["Neural"] < variance["RunningMean"] < variance["ScoreFunction"]
    assert variance["Subset of the likeliest"] < variance["ScoreFunction"]
    assert variance["REBAR"] < variance["RunningMean"]
