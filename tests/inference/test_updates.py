"""Who steps when: each `Updates` by itself on a real training loop."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pyro_nlp.guides.flow import FlowGuide
from pyro_nlp.inference import (
    KL,
    Adam,
    Aggressive,
    Alternating,
    Constant,
    Join,
    Linear,
    Plateau,
    ResetModel,
    RunFolder,
    SemiAmortized,
    Strategy,
    StructureError,
    Training,
    Updates,
    fit,
)
from pyro_nlp.inference.information import minibatch_information
from pyro_nlp.inference.loop import Loop
from pyro_nlp.models.sentence_vae import SentenceVAE
from tests.tiny import (
    LATENT,
    VOCABULARY,
    Sentences,
    decoder,
    encoder,
    lm,
    parameters,
    ring,
    same,
    text,
    vae,
    whole,
    without_time,
)

TRAINING = Training(epochs=4, batch_size=8, optimizer=Adam(0.03), plateau=None, device="cpu", log_every=1)
EVERY: list[Updates] = [
    Aggressive(check=2, limit=5),
    Alternating(2, 1),
    Alternating(1, 1, "epochs"),
    ResetModel(2),
    SemiAmortized(steps=2),
]


def loop(updates: Updates, seed: int = 0, **strategy: Any) -> Loop:
    model, guide = vae(seed)
    corpus = Sentences()
    objective = Strategy(updates=updates, **strategy).compile(model, guide, corpus.train.batch(np.arange(4)))
    return Loop(objective, corpus, TRAINING, 0)


@dataclass
class Watched:
    """A training loop that keeps what its updates asked of it."""

    inner: Loop
    calls: list[tuple[str, Any]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def gradients(self, batch: Any) -> Tensor:
        loss = self.inner.gradients(batch)
        words = int(batch.mask.sum())
        self.calls.append(("gradients", (float(loss) * len(batch), words, batch.index.tolist())))
        return loss

    def apply(self, who: str = "both") -> None:
        self.calls.append(("apply", who))
        self.inner.apply(who)


def test_the_guide_runs_ahead_until_its_loss_per_word_rises_and_then_the_model_steps_once() -> None:
    check, limit, stopped = 3, 20, set()
    watched = Watched(loop(Aggressive(check, limit)))
    first = watched.inner.corpus.train.batch(np.arange(8))
    for _ in range(12):
        watched.calls.clear()
        Aggressive(check, limit).step(watched, first)
        steps = [who for kind, who in watched.calls if kind == "apply"]
        seen = [what for kind, what in watched.calls if kind == "gradients"]
        assert steps == ["guide"] * (len(steps) - 1) + ["model"]
        assert seen[0][2] == seen[-1][2] == first.index.tolist()  # it begins with the batch, the model ends with it
        taken = len(steps) - 1
        blocks = [seen[i : i + check] for i in range(0, taken - taken % check, check)]
        rates = [sum(loss for loss, _, _ in block) / sum(words for _, words, _ in block) for block in blocks]
        rises = [i for i in range(1, len(rates)) if rates[i] > rates[i - 1]]
        if taken < limit - 1:
            assert rises == [len(rates) - 1] and taken % check == 0
        else:
            assert not rises[:-1]
        stopped.add(taken)
    assert len(stopped) > 1, "it always stopped at the same place: this shows little"


def test_while_the_guide_runs_ahead_the_model_waits_and_the_other_way_round() -> None:
    running = loop(Aggressive(2, 5))
    model, guide = running.objective.model, running.objective.guide
    before = parameters(model), parameters(guide)
    running.gradients(running.draw())
    running.apply("guide")
    assert same(parameters(model), before[0]) and not same(parameters(guide), before[1])
    between = parameters(guide)
    running.gradients(running.draw())
    running.apply("model")
    assert same(parameters(guide), between) and not same(parameters(model), before[0])


def test_the_lead_ends_for_good_when_the_information_has_fallen() -> None:
    running = loop(Aggressive(2, 5))
    turns: Any = running.objective.turns
    updates = running.objective.strategy.updates
    assert turns.on and float(turns.information) == 0.0
    turns.information.fill_(-10.0)
    updates.after_epoch(running)
    assert turns.on and -1 < float(turns.information) < math.log(8) + 1
    turns.information.fill_(10.0)  # more than any minibatch of 8 can hold
    updates.after_epoch(running)
    assert not turns.on
    turns.information.fill_(-10.0)
    updates.after_epoch(running)
    assert not turns.on
    watched = Watched(running)
    updates.step(watched, running.draw())
    assert [who for kind, who in watched.calls if kind == "apply"] == ["both"]


def test_going_back_to_the_best_parameters_does_not_bring_the_lead_back() -> None:
    running = loop(Aggressive(2, 5))
    running.judge({"loss": 1.0})
    turns: Any = running.objective.turns
    turns.on.fill_(False)
    assert running.best is not None
    running._load_parameters(running.best)
    assert not turns.on


def test_the_information_is_that_of_gaussians_written_out() -> None:
    model, guide = vae()
    batch = whole(text(7))
    objective = Strategy().compile(model, guide, batch)
    objective.eval()
    with torch.no_grad():
        torch.manual_seed(3)
        found = minibatch_information(objective, [batch])
        torch.manual_seed(3)
        site = objective.plain_terms(batch).sites["z"]
    mean, scale, draw = (v[0].double().numpy() for v in (site.q.mean, site.q.stddev, site.value))
    log_q = np.array(
        [
            [
                sum(
                    -0.5 * ((z - m) / s) ** 2 - math.log(s) - 0.5 * math.log(2 * math.pi)
                    for z, m, s in np.stack(row, 1)
                )
                for row in ((draw[i], mean[j], scale[j]) for j in range(7))
            ]
            for i in range(7)
        ]
    )
    entropy = (np.log(scale) + 0.5 * (1 + math.log(2 * math.pi))).sum(1)
    expected = np.mean(-entropy) - np.mean(np.log(np.exp(log_q).mean(1)))
    assert found == pytest.approx(expected, abs=1e-5)
    assert found < math.log(7) + 1  # its cap is log 7 up to the noise of one draw each


@pytest.mark.parametrize(("unit", "length"), [("steps", 1), ("epochs", 5)])
def test_turns_alternate_and_begin_with_the_model(unit: Any, length: int) -> None:
    updates = Alternating(2, 1, unit)
    watched = Watched(loop(updates))
    assert watched.objective.steps_per_epoch == 5
    for _ in range(6 * length):
        updates.step(watched, watched.draw())
        watched.objective.advance()
    turns = [who for kind, who in watched.calls if kind == "apply"]
    assert turns == (["model"] * 2 * length + ["guide"] * length) * 2


def test_the_model_starts_anew_and_the_guide_goes_on() -> None:
    running = loop(ResetModel(2))
    model, guide = running.objective.model, running.objective.guide
    start = parameters(model)
    for epoch in range(2):
        for _ in running.steps():
            pass
        running.judge({"loss": float(epoch)})
        trained = parameters(model), parameters(guide)
        running.objective.strategy.updates.after_epoch(running)
        if epoch == 0:
            assert same(parameters(model), trained[0]) and running.best is not None
        running.next_epoch()
    assert same(parameters(model), start) and not same(trained[0], start)
    assert same(parameters(guide), trained[1])
    assert running.best is None
    assert not running.optimizers["model"].state and running.optimizers["guide"].state


def test_an_autoencoder_first_then_a_vae_with_a_new_decoder() -> None:
    weight = Join([Constant(0.0), Linear(0.0, 1.0, epochs=1)], [2], unit="epochs")
    model, guide = vae()
    run = fit(model, guide, Sentences(), Strategy(kl=KL(weight), updates=ResetModel(2)), TRAINING)
    weights = [row["kl_weight.z"] for row in run.history if "kl_weight.z" in row]
    assert weights[:9] == [0.0] * 9 and weights[-1] == 1.0  # a row says the weight of the next step
    best = [row["epoch"] for row in run.history if row.get("best")]
    assert any(epoch >= 2 for epoch in best)


@pytest.mark.parametrize("updates", EVERY, ids=lambda u: repr(u).partition("(")[0])
def test_a_run_of_two_sittings_is_bitwise_the_run_of_one(updates: Updates, tmp_path: Path) -> None:
    found = []
    for sittings in ([4], [3, 4]):
        out = tmp_path / str(len(sittings))
        for i, epochs in enumerate(sittings):
            model, guide = vae(seed=i if i else 0)
            training = copy.copy(TRAINING)
            object.__setattr__(training, "epochs", epochs)
            torch.manual_seed(50 + i)
            run = fit(model, guide, Sentences(), Strategy(updates=updates), training, out=out, resume=i > 0)
        found.append((parameters(model, guide), without_time(run.history), RunFolder(out).load_checkpoint()["step"]))
    assert same(found[0][0], found[1][0])
    assert found[0][1:] == found[1][1:]


def test_a_model_that_would_never_be_trained_again_is_refused() -> None:
    model, guide = vae()
    with pytest.raises(StructureError, match=r"ResetModel\(epochs=4\) prepares for 4 epochs, and training has 4: give"):
        fit(model, guide, Sentences(), Strategy(updates=ResetModel(4)), TRAINING)


def test_no_stall_counts_before_the_model_starts_anew() -> None:
    running = loop(ResetModel(3))
    object.__setattr__(running, "training", Training(epochs=9, batch_size=8, plateau=Plateau(1, 0.5, 0)))
    for epoch, bound in enumerate([1.0, 2.0, 3.0]):
        running.epoch = epoch
        running.judge({"loss": bound})
    assert not running.finished and running.slowdown == 1.0 and running.stalled == 0
    running.finished, running.slowdown, running.decays = True, 0.25, 2
    running.restart(running.objective.model)
    assert (running.finished, running.slowdown, running.decays, running.best) == (False, 1.0, 0, None)


def test_information_is_taken_of_a_flow_too() -> None:
    model, guide = SentenceVAE(VOCABULARY, LATENT, decoder), FlowGuide(VOCABULARY, LATENT, encoder)
    batch = whole(text(6))
    objective = Strategy().compile(model, guide, batch)
    objective.eval()
    with torch.no_grad():
        assert math.isfinite(minibatch_information(objective, [batch]))


@pytest.mark.parametrize("updates", EVERY[:2] + EVERY[3:4], ids=lambda u: type(u).__name__)
def test_turns_want_a_guide_with_parameters_of_its_own(updates: Updates) -> None:
    batch = whole(text(6))
    with pytest.raises(StructureError, match=rf"{type(updates).__name__}: there is no guide to take turns with"):
        Strategy(updates=updates).compile(lm(), None, batch)
    model, guide = vae()
    with pytest.raises(StructureError, match=r"the guide has no parameters of its own to step with: use updates=Joint"):
        Strategy(updates=updates).compile(model, guide.requires_grad_(False), batch)
    model, guide = vae()
    with pytest.raises(StructureError, match=r"the model has no parameters of its own to step with"):
        Strategy(updates=updates).compile(model.requires_grad_(False), guide, batch)
    model, guide = vae()
    guide.shares_parameters = True
    with pytest.raises(StructureError, match=r"the guide shares parameters with the model"):
        Strategy(updates=updates).compile(model, guide, batch)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Aggressive(check=0), "check is at least 1"),
        (lambda: Aggressive(limit=1), "limit at least 2"),
        (lambda: Alternating(0, 1), "1 step or epoch at least"),
        (lambda: Alternating(1, 1, "minutes"), "unit is 'steps' or 'epochs'"),  # type: ignore[arg-type]
        (lambda: ResetModel(0), "epochs is at least 1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("updates", [u for u in EVERY if not isinstance(u, ResetModel)], ids=lambda u: repr(u))
def test_any_model_of_the_zoo_can_be_trained_so(updates: Updates) -> None:
    from pyro_nlp.data.toy import Ring as RingCorpus

    model, guide = ring()
    training = Training(epochs=2, batch_size=16, plateau=Plateau(), device="cpu")
    run = fit(model, guide, RingCorpus(60, 0.3), Strategy(updates=updates), training)
    assert all(math.isfinite(row["loss"]) for row in run.history if "loss" in row)
