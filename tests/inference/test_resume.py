"""A run that was stopped and resumed is bitwise the run that was not."""

from __future__ import annotations

import io
import os
import signal
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyro_nlp.inference import (
    KL,
    SGD,
    Adam,
    FreeBits,
    Interrupted,
    Joint,
    Linear,
    Plateau,
    RunError,
    RunFolder,
    Strategy,
    StructureError,
    Training,
    Updates,
    fit,
)
from pyro_nlp.inference.loop import Loop
from pyro_nlp.nn import LSTMDecoder, LSTMEncoder
from tests.tiny import WIDTH, Sentences, lm, parameters, same, vae, without_time

EPOCHS, STEPS_PER_EPOCH = 6, 5

TRAINING = Training(
    epochs=EPOCHS,
    batch_size=8,
    optimizer=Adam(Linear(0.3, 0.05, epochs=5)),  # fast enough for the plateau to act
    word_dropout=Linear(0.0, 0.5, epochs=4),
    plateau=Plateau(patience=1, factor=0.5, decays=4),
    device="cpu",
    log_every=1,
)
STRATEGY = Strategy(kl=KL(Linear(0.0, 1.0, epochs=3.5), FreeBits(0.3)))


@dataclass(frozen=True)
class InterruptedAt(Updates):
    """`Joint`, and Ctrl-C in the middle of one step (counted from 1)."""

    stop: int

    def step(self, engine: Any, batch: Any) -> Tensor:
        loss = engine.gradients(batch)
        if int(engine.objective.step) + 1 == self.stop:
            os.kill(os.getpid(), signal.SIGINT)
        engine.apply()
        return loss


def modules(seed: int = 0) -> tuple[nn.Module, nn.Module]:
    """A VAE with every kind of randomness: dropout here, word dropout and draws of z in training."""
    decoder = partial(LSTMDecoder, embedding=WIDTH, width=WIDTH, input_dropout=0.2, output_dropout=0.3)
    return vae(seed, decoder=decoder, encoder=partial(LSTMEncoder, embedding=WIDTH, width=WIDTH, dropout=0.1))


def equal(first: Any, second: Any) -> bool:
    """Bitwise equality of nested states."""
    if isinstance(first, Tensor):
        return isinstance(second, Tensor) and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second)


def train(out: Path, stops: list[int], training: Training = TRAINING) -> tuple[dict[str, Tensor], list[Any], Any]:
    """Parameters, metrics and last checkpoint of a run interrupted at these steps."""
    for i, stop in enumerate([*stops, 0]):
        model, guide = modules(seed=i)  # what a resumed run is given at its start must not matter
        torch.manual_seed(100 + i)  # nor the state of the world
        strategy = Strategy(kl=STRATEGY.kl, updates=InterruptedAt(stop) if stop else Joint())
        try:
            run = fit(model, guide, Sentences(), strategy, training, out=out, resume=i > 0)
            assert not stop, "the run ended before it was interrupted"
        except Interrupted:
            assert stop and RunFolder.open(out).load_checkpoint()["step"] == stop
    assert run.history == RunFolder(out).metrics()
    return parameters(model, guide), without_time(run.history), RunFolder(out).load_checkpoint()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], list[Any], Any]:
    torch.manual_seed(0)
    result = train(tmp_path_factory.mktemp("run") / "whole", [])
    rates = {row["step"]: row["learning_rate"] for row in result[1] if "learning_rate" in row}
    halved = [s for s, r in rates.items() if r < 0.6 * (0.3 - 0.25 * min(1, (s - 1) / 25))]
    assert halved and 6 <= halved[0] <= 15, "the plateau is to act in the first half, or this shows less than it says"
    return result


@pytest.mark.parametrize(
    "stops",
    [[1], [3], [5], [6], [17], [20], [2, 3, 13, 28], [30]],
    ids=lambda stops: " and ".join(map(str, stops)),
)
def test_a_run_stopped_at_these_steps_and_resumed_is_bitwise_equal(
    stops: list[int], uninterrupted: Any, tmp_path: Path
) -> None:
    found = train(tmp_path / "run", stops)
    assert same(found[0], uninterrupted[0])
    assert found[1] == uninterrupted[1]
    assert equal(found[2], uninterrupted[2])


def test_weights_on_disk_are_bitwise_equal_too(uninterrupted: Any, tmp_path: Path) -> None:
    train(tmp_path, [13])
    for i, name in enumerate(("model", "guide")):
        saved = RunFolder(tmp_path).load_weights(name)
        assert same(
            {f"{i}.{k}": v for k, v in saved.items()}, {k: v for k, v in uninterrupted[0].items() if k[0] == str(i)}
        )


def test_a_kill_between_checkpoints_costs_the_steps_since_the_last_and_nothing_else(
    uninterrupted: Any, tmp_path: Path
) -> None:
    @dataclass(frozen=True)
    class Killed(Updates):
        def step(self, engine: Any, batch: Any) -> Tensor:
            if int(engine.objective.step) == 13:
                raise MemoryError  # nothing is saved on the way out
            return Joint().step(engine, batch)

    model, guide = modules()
    with pytest.raises(MemoryError):
        fit(model, guide, Sentences(), Strategy(kl=STRATEGY.kl, updates=Killed()), TRAINING, out=tmp_path)
    folder = RunFolder.open(tmp_path)
    assert folder.load_checkpoint()["step"] == 10  # the end of the second epoch
    assert folder.metrics()[-1]["step"] == 13
    model, guide = modules(seed=3)
    run = fit(model, guide, Sentences(), STRATEGY, TRAINING, out=tmp_path, resume=True)
    assert same(parameters(model, guide), uninterrupted[0])
    assert without_time(run.history) == uninterrupted[1]


def test_checkpoints_by_the_clock_change_nothing(uninterrupted: Any, tmp_path: Path) -> None:
    every_step = Training(**{**vars(TRAINING), "checkpoint_minutes": 0.0})
    found = train(tmp_path, [7], every_step)
    assert same(found[0], uninterrupted[0]) and found[1] == uninterrupted[1]


def test_a_finished_run_resumes_to_itself(uninterrupted: Any, tmp_path: Path) -> None:
    first = train(tmp_path, [])
    model, guide = modules(seed=9)
    run = fit(model, guide, Sentences(), STRATEGY, TRAINING, out=tmp_path, resume=True)
    assert same(parameters(model, guide), first[0]) and without_time(run.history) == first[1]


def test_more_epochs_can_be_asked_for_when_resuming(tmp_path: Path) -> None:
    settings = {**vars(TRAINING), "plateau": None}
    model, guide = modules()
    run = fit(model, guide, Sentences(), STRATEGY, Training(**settings), out=tmp_path / "whole")
    model_2, guide_2 = modules()
    fit(model_2, guide_2, Sentences(), STRATEGY, Training(**{**settings, "epochs": 2}), out=tmp_path / "parts")
    model_2, guide_2 = modules(seed=4)
    again = fit(model_2, guide_2, Sentences(), STRATEGY, Training(**settings), out=tmp_path / "parts", resume=True)
    assert same(parameters(model, guide), parameters(model_2, guide_2))
    assert without_time(run.history) == without_time(again.history)


def test_momentum_is_part_of_the_state(tmp_path: Path) -> None:
    training = Training(**{**vars(TRAINING), "optimizer": SGD(0.5, momentum=0.9)})
    first, second = train(tmp_path / "a", [], training), train(tmp_path / "b", [8], training)
    assert same(first[0], second[0]) and equal(first[2], second[2])


@pytest.mark.parametrize("stop", [13, 18])
def test_the_count_of_stalled_epochs_is_part_of_the_state(stop: int, tmp_path: Path) -> None:
    plateau = Plateau(patience=3, factor=0.1, decays=1)
    training = Training(**{**vars(TRAINING), "epochs": 10, "optimizer": SGD(8.0), "plateau": plateau})
    first, second = train(tmp_path / "a", [], training), train(tmp_path / "b", [stop], training)
    assert any(not row["best"] for row in first[1] if "best" in row)
    assert same(first[0], second[0]) and equal(first[2], second[2])


def test_an_interruption_from_outside_is_resumed_too(uninterrupted: Any, tmp_path: Path) -> None:
    model, guide = modules()
    begun = threading.Event()

    def interrupt() -> None:
        begun.wait(30)
        time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    @dataclass(frozen=True)
    class Slow(Updates):
        def step(self, engine: Any, batch: Any) -> Tensor:
            begun.set()
            time.sleep(0.01)
            return Joint().step(engine, batch)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Interrupted):
        fit(model, guide, Sentences(), Strategy(kl=STRATEGY.kl, updates=Slow()), TRAINING, out=tmp_path)
    thread.join()
    model, guide = modules(seed=2)
    fit(model, guide, Sentences(), STRATEGY, TRAINING, out=tmp_path, resume=True)
    assert same(parameters(model, guide), uninterrupted[0])


def test_a_loop_continues_bitwise_from_its_state_after_any_step() -> None:
    def loop(seed: int) -> Loop:
        corpus = Sentences()
        model, guide = modules(seed)
        objective = STRATEGY.compile(model, guide, corpus.train.batch(torch.arange(4).numpy()))
        return Loop(objective, corpus, TRAINING, seed=0)

    def steps(loop: Loop, count: int) -> list[float]:
        losses = []
        for loss, _ in loop.steps():
            losses.append(float(loss))
            if len(losses) == count:
                break
        return losses

    torch.manual_seed(0)
    first = loop(0)
    before = steps(first, 2)
    state = first.state_dict()
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    after = steps(first, 3)
    second = loop(1)
    second.load_state_dict(torch.load(buffer, weights_only=True))
    assert steps(second, 3) == after and len(before) == 2
    assert equal(first.state_dict(), second.state_dict())


# ---- what cannot be resumed --------------------------------------------------------------------------------------


def test_a_changed_corpus_is_refused(tmp_path: Path) -> None:
    short = Training(**{**vars(TRAINING), "epochs": 1})
    fit(*modules(), Sentences(), STRATEGY, short, out=tmp_path)
    with pytest.raises(StructureError, match=r"the corpus has changed since the run began \(fingerprint .*, was "):
        fit(*modules(), Sentences(seed=1), STRATEGY, TRAINING, out=tmp_path, resume=True)


def test_a_damaged_checkpoint_is_an_error_and_stays_where_it_is(tmp_path: Path) -> None:
    short = Training(**{**vars(TRAINING), "epochs": 1})
    fit(*modules(), Sentences(), STRATEGY, short, out=tmp_path)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:1000])
    metrics = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(RunError, match=r"is damaged: checkpoint.pt cannot be read"):
        fit(*modules(), Sentences(), STRATEGY, TRAINING, out=tmp_path, resume=True)
    assert len(path.read_bytes()) == 1000 and (tmp_path / "metrics.jsonl").read_bytes() == metrics


def test_the_checkpoint_of_another_model_is_an_error_that_says_so(tmp_path: Path) -> None:
    short = Training(**{**vars(TRAINING), "epochs": 1})
    fit(*modules(), Sentences(), STRATEGY, short, out=tmp_path)
    with pytest.raises(RunError, match=r"was trained with another model, guide or optimiser"):
        fit(lm(), None, Sentences(), Strategy(), TRAINING, out=tmp_path, resume=True)


def test_nothing_to_resume_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="there is no run folder"):
        fit(*modules(), Sentences(), out=tmp_path / "nowhere", resume=True)
