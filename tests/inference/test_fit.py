"""fit: it learns, keeps the best, leaves the world as it was, and says what went wrong."""

from __future__ import annotations

import json
import os
import random
import signal
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import Tensor

from pyro_nlp.data import Vocabulary
from pyro_nlp.data.batches import BOS, EOS, PAD, UNK, drop_words
from pyro_nlp.data.splits import VectorSplit
from pyro_nlp.data.toy import Ring as RingCorpus
from pyro_nlp.evaluation import elbo_terms, importance_nll
from pyro_nlp.inference import (
    IWAE,
    KL,
    SGD,
    Adam,
    Interrupted,
    Joint,
    Linear,
    NumericalError,
    Plateau,
    RunError,
    RunFolder,
    Strategy,
    Training,
    Updates,
    fit,
)
from pyro_nlp.inference.loop import Loop
from pyro_nlp.inference.terms import StructureError
from pyro_nlp.nn import LSTMDecoder
from tests.inference.test_objective import LinearGuide
from tests.tiny import VOCABULARY, WIDTH, Sentences, Vectors, lm, parameters, ring, same, text, vae, whole, without_time

quick = partial(Training, epochs=2, batch_size=8, device="cpu", log_every=1)


@dataclass(frozen=True)
class After(Updates):
    """`Joint`, then an action at one step (counted from 1)."""

    step_number: int
    action: Any

    def step(self, engine: Any, batch: Any) -> Tensor:
        loss = Joint().step(engine, batch)
        if int(engine.objective.step) + 1 == self.step_number:
            self.action(engine)
        return loss


# ---- learning --------------------------------------------------------------------------------------------------


def test_the_loss_goes_down_on_the_ring() -> None:
    corpus = RingCorpus(size=400, noise=0.3)
    model, guide = ring()
    training = quick(epochs=8, batch_size=40, optimizer=Adam(0.01), plateau=None)
    before = -elbo_terms(model, guide, corpus.test, 20).elbo
    run = fit(model, guide, corpus, training=training)
    gain = before + elbo_terms(model, guide, corpus.test, 20).elbo
    assert gain.mean() > 5 * gain.std() / len(gain) ** 0.5  # paired over documents
    valid = [row["valid.loss"] for row in run.history if "valid.loss" in row]
    assert len(valid) == 8 and valid[-1] < valid[0]


def test_the_best_parameters_by_the_validation_bound_are_in_the_model_afterwards() -> None:
    seen: dict[float, dict[str, Tensor]] = {}

    model, guide = vae()
    training = quick(epochs=6, optimizer=Adam(0.5), plateau=None)  # far too fast: it gets worse
    judge = Loop.judge

    def watch(loop: Loop, found: dict[str, float]) -> bool:
        seen[found["loss"]] = parameters(model, guide)
        return judge(loop, found)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "judge", watch)
        run = fit(model, guide, Sentences(), training=training)
    best = min(seen)
    assert list(seen)[-1] != best  # the last is not the best, or this shows nothing
    assert same(parameters(model, guide), seen[best])
    assert not model.training and not guide.training
    rows = [row for row in run.history if "valid.loss" in row]
    assert [row["valid.loss"] for row in rows] == list(seen)
    assert max(row["step"] for row in rows if row["best"]) == rows[list(seen).index(best)]["step"]


def test_two_runs_with_one_seed_are_equal_and_another_seed_differs() -> None:
    results = []
    for seed in (0, 0, 1):
        model, guide = vae()
        run = fit(model, guide, Sentences(), training=quick(word_dropout=0.2), seed=seed)
        results.append((parameters(model, guide), without_time(run.history)))
    assert same(results[0][0], results[1][0]) and results[0][1] == results[1][1]
    assert not same(results[0][0], results[2][0])


def test_the_gradient_is_clipped_to_the_norm_and_its_own_norm_is_logged() -> None:
    norms = []

    def look(engine: Any) -> None:
        norms.append(float(torch.nn.utils.get_total_norm([p.grad for p in engine.parameters])))

    model, guide = vae()
    run = fit(model, guide, Sentences(), Strategy(updates=After(3, look)), quick(epochs=1, clip=0.25))
    assert norms == [pytest.approx(0.25, rel=1e-4)]
    assert run.history[2]["gradient_norm"] > 0.25


def test_the_learning_rate_follows_its_schedule() -> None:
    model, guide = vae()
    run = fit(model, guide, Sentences(), training=quick(optimizer=Adam(Linear(0.01, 0.0, steps=10)), plateau=None))
    rates = [row["learning_rate"] for row in run.history if "learning_rate" in row]
    assert rates == pytest.approx([0.01 * max(0.0, 1 - i / 10) for i in range(len(rates))])


def test_a_plateau_goes_back_to_the_best_slows_down_and_then_stops() -> None:
    model, guide = vae()
    plateau = Plateau(patience=1, factor=0.1, decays=2)
    run = fit(model, guide, Sentences(), training=quick(epochs=40, optimizer=SGD(5.0), plateau=plateau))
    rows = [row for row in run.history if "valid.loss" in row]
    rates = [row["learning_rate"] for row in run.history if "learning_rate" in row]
    assert sorted({round(r, 6) for r in rates}, reverse=True) == [5.0, 0.5, 0.05]
    stalls = sum(not row["best"] for row in rows)
    assert stalls == 3 and not rows[-1]["best"] and len(rows) < 40


def test_a_stall_before_the_start_of_a_plateau_does_not_count() -> None:
    model, guide = vae()
    plateau = Plateau(patience=1, decays=0, start=5)
    run = fit(model, guide, Sentences(), training=quick(epochs=9, optimizer=SGD(5.0), plateau=plateau))
    rows = [row for row in run.history if "valid.loss" in row]
    assert any(not row["best"] for row in rows[:5]) and len(rows) > 5


def test_metrics_hold_loss_reconstruction_kl_weight_and_speed() -> None:
    model, guide = vae()
    strategy = Strategy(kl=KL(Linear(0.0, 1.0, epochs=2)))
    run = fit(model, guide, Sentences(), strategy, quick())
    first, *_ = run.history
    names = {"step", "epoch", "loss", "reconstruction", "kl.z", "kl_weight.z", "gradient_norm", "learning_rate"}
    assert names | {"seconds", "words_per_second", "snr.model", "snr.guide"} == set(first)
    for i, row in enumerate(row for row in run.history if "loss" in row):
        # the weight logged is the one after the step; that of the loss is the one before
        assert row["loss"] == pytest.approx(row["reconstruction"] + i / 10 * row["kl.z"], rel=1e-5)
    assert run.words_per_second > 0


def test_rows_of_metrics_are_means_over_the_steps_since_the_last() -> None:
    runs = []
    for every in (1, 3):
        model, guide = vae()
        runs.append(fit(model, guide, Sentences(), training=quick(epochs=1, log_every=every)).history)
    single, triple = ([row for row in rows if "loss" in row] for rows in runs)
    assert [row["step"] for row in triple] == [3, 5]
    assert triple[0]["loss"] == pytest.approx(np.mean([row["loss"] for row in single[:3]]))
    assert triple[1]["loss"] == pytest.approx(np.mean([row["loss"] for row in single[3:]]))


def test_bf16_trains_to_about_the_same_loss() -> None:
    losses = []
    for precision in ("float32", "bf16"):
        model, guide = vae()
        run = fit(model, guide, Sentences(), training=quick(epochs=3, precision=precision))
        losses.append([row["valid.loss"] for row in run.history if "valid.loss" in row])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=2**-7)  # bf16 has 8 bits


def test_a_language_model_needs_no_guide() -> None:
    model = lm()
    run = fit(model, None, Sentences(), training=quick())
    assert run.guide is None and run.history[-1]["valid.loss"] == run.history[-1]["valid.reconstruction"]


def test_the_validation_bound_is_the_plain_elbo_whatever_the_training_weighs() -> None:
    model, guide = vae()
    corpus = Sentences()
    run = fit(model, guide, corpus, Strategy(kl=KL(0.0)), quick(epochs=1, optimizer=SGD(0.0), word_dropout=0.9))
    row = run.history[-1]
    assert row["valid.kl.z"] > 0
    assert row["valid.loss"] == pytest.approx(row["valid.reconstruction"] + row["valid.kl.z"])
    assert row["valid.kl.z"] == pytest.approx(elbo_terms(model, guide, corpus.valid).kl["z"].mean(), rel=1e-5)


# ---- the world afterwards --------------------------------------------------------------------------------------


def test_random_streams_validation_and_signal_handlers_are_as_before() -> None:
    before = (
        torch.get_rng_state(),
        np.random.get_state()[1].tolist(),  # type: ignore[index]
        random.getstate(),
        [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
        torch.distributions.Distribution._validate_args,
        pyro.settings.get(),
        torch.is_grad_enabled(),
    )
    model, guide = vae()
    torch.set_rng_state(before[0])
    fit(model, guide, Sentences(), training=quick(word_dropout=0.3))
    after = (
        torch.get_rng_state(),
        np.random.get_state()[1].tolist(),  # type: ignore[index]
        random.getstate(),
        [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
        torch.distributions.Distribution._validate_args,
        pyro.settings.get(),
        torch.is_grad_enabled(),
    )
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert len(pyro.get_param_store()) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_in_flight_and_puts_the_handlers_back(number: int, tmp_path: Path) -> None:
    model, guide = vae()
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    state = torch.get_rng_state()
    stop = Strategy(updates=After(3, lambda _: os.kill(os.getpid(), number)))
    with pytest.raises(Interrupted, match=rf"training was interrupted; go on with --resume --out {tmp_path / 'run'}"):
        fit(model, guide, Sentences(), stop, quick(), out=tmp_path / "run")
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before
    assert torch.equal(torch.get_rng_state(), state)
    assert RunFolder.open(tmp_path / "run").load_checkpoint()["step"] == 3


def test_without_a_folder_an_interruption_says_only_that() -> None:
    model, guide = vae()
    stop = Strategy(updates=After(1, lambda _: os.kill(os.getpid(), signal.SIGINT)))
    with pytest.raises(Interrupted) as raised:
        fit(model, guide, Sentences(), stop, quick())
    assert str(raised.value) == "training was interrupted"
    assert isinstance(raised.value, KeyboardInterrupt)


def test_a_second_ctrl_c_stops_at_once() -> None:
    def twice(_: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    model, guide = vae()
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as raised:
        fit(model, guide, Sentences(), Strategy(updates=After(1, twice)), quick())
    assert not isinstance(raised.value, Interrupted)
    assert signal.getsignal(signal.SIGINT) is before


def test_one_measure_may_say_which_epoch_is_best() -> None:
    model, guide = vae()
    training = quick(epochs=4, keep="kl.z", plateau=None)
    run = fit(model, guide, Sentences(), Strategy(kl=KL(0.01)), training, seed=3)
    epochs = [row for row in run.history if "valid.loss" in row]
    kls = [row["valid.kl.z"] for row in epochs]
    assert [row["best"] for row in epochs] == [kl == min(kls[: i + 1]) for i, kl in enumerate(kls)]
    with torch.no_grad():
        found = elbo_terms(run.model, run.guide, Sentences().valid, samples=1)
    assert float(found.kl["z"].mean()) == pytest.approx(min(kls), rel=1e-4)
    assert kls.index(min(kls)) != [row["valid.loss"] for row in epochs].index(min(row["valid.loss"] for row in epochs))


def test_a_measure_that_there_is_not_is_named_before_anything_is_written(tmp_path: Path) -> None:
    model, guide = vae()
    with pytest.raises(StructureError, match="keep is one of best, last, loss, reconstruction, kl.z, not 'kl.c'"):
        fit(model, guide, Sentences(), training=quick(keep="kl.c"), out=tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


# ---- the folder ------------------------------------------------------------------------------------------------


def test_a_run_folder_holds_what_the_run_was(tmp_path: Path) -> None:
    model, guide = vae()
    corpus = Sentences()
    corpus.vocabulary = Vocabulary([f"w{i}" for i in range(VOCABULARY - 4)])
    run = fit(model, guide, corpus, training=quick(), out=tmp_path / "run", recipe="seed: 7\n", seed=7)
    folder = RunFolder.open(tmp_path / "run")
    names = {path.name for path in folder.path.iterdir()}
    assert names == {
        *("checkpoint.pt", "environment.json", "guide.safetensors", "metrics.jsonl", "model.safetensors"),
        *("recipe.yaml", "vocabulary.json"),
    }
    assert Vocabulary.from_json(folder.read_text("vocabulary.json")).words == corpus.vocabulary.words
    assert folder.metrics() == run.history
    assert same(parameters(model), {f"0.{k}": v for k, v in folder.load_weights("model").items()})
    assert same(parameters(guide), {f"0.{k}": v for k, v in folder.load_weights("guide").items()})
    assert folder.read_text("recipe.yaml") == "seed: 7\n"
    environment = json.loads(folder.read_text("environment.json"))
    assert environment["seed"] == 7 and environment["fingerprint"] == corpus.fingerprint
    assert environment["versions"]["torch"] == torch.__version__
    assert run.folder == folder.path


def test_an_existing_run_is_refused_and_nothing_in_it_changes(tmp_path: Path) -> None:
    model, guide = vae()
    fit(model, guide, Sentences(), training=quick(epochs=1), out=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RunError, match="is not overwritten: add --resume"):
        fit(model, guide, Sentences(), training=quick(epochs=1), out=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_resume_without_a_folder_is_refused() -> None:
    model, guide = vae()
    with pytest.raises(RunError, match="resume needs the folder of the run: give out="):
        fit(model, guide, Sentences(), resume=True)


# ---- numbers that are not finite -------------------------------------------------------------------------------


def test_a_parameter_that_becomes_nan_is_named_and_the_earlier_checkpoint_survives(tmp_path: Path) -> None:
    model, guide = vae()

    def break_it(engine: Any) -> None:
        with torch.no_grad():
            model.decoder.words.weight[BOS] = torch.nan

    strategy = Strategy(updates=After(7, break_it))  # five steps an epoch: in the second
    message = r"step 7 \(epoch 1, batch 2\): the loss is not finite because the parameter model.decoder.words.weight"
    with pytest.raises(NumericalError, match=message):
        fit(model, guide, Sentences(), strategy, quick(epochs=3), out=tmp_path)
    checkpoint = RunFolder.open(tmp_path).load_checkpoint()
    assert checkpoint["step"] == 5
    assert all(v.isfinite().all() for v in checkpoint["objective"].values())
    fresh_model, fresh_guide = vae(seed=5)
    run = fit(fresh_model, fresh_guide, Sentences(), training=quick(epochs=3), out=tmp_path, resume=True)
    assert run.history[-1]["step"] == 15


class Careful(LinearGuide):
    """A guide that is not misled by a missing value."""

    def forward(self, batch: Any) -> None:
        super().forward(batch.replace(values=batch.values.nan_to_num()))


def test_the_documents_whose_log_probability_is_not_finite_are_named() -> None:
    values = torch.randn(8, 2)
    values[5, 0] = torch.nan
    corpus = Vectors(values)
    corpus.valid = VectorSplit(torch.randn(3, 2))
    message = r"step 0 \(epoch 0, batch 0\): the log-probability of 'x' is not finite for training documents \[5\]"
    with pytest.raises(NumericalError, match=message):
        fit(ring()[0], Careful(), corpus, training=quick())


def test_a_latent_whose_value_is_not_finite_is_named_before_what_follows_from_it() -> None:
    values = torch.randn(8, 2)
    values[5, 0] = torch.inf  # a posterior mean at infinity
    corpus = Vectors(values)
    with pytest.raises(NumericalError, match=r"the value of 'z' is not finite for training documents \[5\]"):
        fit(ring()[0], LinearGuide(), corpus, training=quick())


class ScalarModel(PyroModule):
    """A latent without event dimensions."""

    plates = 1

    def forward(self, batch: Any) -> None:
        with batch.documents():
            z = pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(z, 1.0), obs=batch.values[:, 0].nan_to_num(posinf=0.0))


class ScalarGuide(PyroModule):
    def __init__(self) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, batch: Any) -> None:
        with batch.documents():
            pyro.sample("z", dist.Normal(self.slope * batch.values[:, 0], 1.0))


def test_a_latent_without_event_dimensions_is_named_too() -> None:
    values = torch.randn(8, 2)
    values[6, 0] = torch.inf
    with pytest.raises(NumericalError, match=r"the value of 'z' is not finite for training documents \[6\]"):
        fit(ScalarModel(), ScalarGuide(), Vectors(values), training=quick())


def test_a_gradient_that_is_not_finite_is_named() -> None:
    model, guide = vae()
    model.head.bias.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(NumericalError, match=r"step 0 .*: the gradient of model.head.bias is not finite"):
        fit(model, guide, Sentences(), training=quick())


def test_a_validation_bound_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    corpus = Vectors(torch.randn(8, 2))
    corpus.valid = VectorSplit(torch.tensor([[torch.nan, 0.0]]))
    with pytest.raises(NumericalError, match=r"step 1 \(epoch 0, batch 1\): the validation bound is not finite"):
        fit(*ring(), corpus, training=quick(), out=tmp_path)


# ---- word dropout ----------------------------------------------------------------------------------------------


def test_word_dropout_replaces_words_by_unk_at_its_rate_and_nothing_else() -> None:
    batch = whole(text(2000, longest=9))
    rate = 0.3
    dropped = drop_words(batch, rate)
    special = (batch.inputs == BOS) | (batch.inputs == PAD)
    assert torch.equal(dropped.inputs[special], batch.inputs[special])
    assert dropped.targets is batch.targets and dropped.mask is batch.mask
    changed = dropped.inputs != batch.inputs
    assert (dropped.inputs[changed] == UNK).all()
    words = int((~special).sum())
    observed = float(changed.sum()) / words
    assert abs(observed - rate) < 4 * (rate * (1 - rate) / words) ** 0.5


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_word_dropout_at_its_ends(rate: float) -> None:
    batch = whole(text(20))
    dropped = drop_words(batch, rate)
    words = (batch.inputs != BOS) & (batch.inputs != PAD)
    assert torch.equal(
        dropped.inputs[words], batch.inputs[words] if rate == 0 else torch.full_like(batch.inputs[words], UNK)
    )


def test_fit_drops_words_of_the_inputs_of_training_batches_by_its_schedule() -> None:
    seen: list[tuple[bool, Any]] = []
    model, guide = vae()
    forward = model.forward

    def watch(batch: Any) -> None:
        seen.append((model.training, batch))
        forward(batch)

    model.forward = watch
    fit(model, guide, Sentences(), training=quick(epochs=2, word_dropout=Linear(0.0, 1.0, steps=5)))
    steps = [b for training, b in seen[1:] if training]
    for number, batch in enumerate(steps):
        words = (batch.inputs != BOS) & (batch.inputs != PAD)
        share = float((batch.inputs[words] == UNK).float().mean())
        assert (share == 0) if number == 0 else (share == 1) if number >= 5 else True
        assert EOS in batch.targets and UNK not in batch.targets
    assert len(steps) == 10
    assert all(UNK not in batch.inputs for training, batch in seen if not training)  # never in validation


def test_dropout_of_the_networks_is_off_in_validation() -> None:
    decoder = partial(LSTMDecoder, embedding=WIDTH, width=WIDTH, output_dropout=0.5)
    bounds = []
    for _ in range(2):
        model, guide = vae(decoder=decoder)
        run = fit(model, guide, Sentences(), training=quick(epochs=2, optimizer=SGD(0.0)))
        bounds += [row["valid.loss"] for row in run.history if "valid.loss" in row]
    assert len(set(bounds)) == 1


@pytest.mark.parametrize("change", [{"epochs": 0}, {"batch_size": 0}, {"log_every": 0}, {"precision": "fp8"}])
def test_settings_that_mean_nothing_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Training: "):
        Training(**change)


def test_an_unknown_device_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="device 'tpux' is not known: use auto, cpu or cuda"):
        fit(lm(), None, Sentences(), training=Training(device="tpux"))


def test_a_bound_of_many_particles_is_validated_by_itself() -> None:
    model, guide = vae()
    corpus = Sentences()
    training = Training(epochs=1, device="cpu")
    run = fit(model, guide, corpus, Strategy(bound=IWAE(50)), training)
    found = importance_nll(run.model, run.guide, corpus.valid, 50)
    # 50 draws a document on both sides; the mean over documents is as far off as their errors together
    error = 2**0.5 * float((found.standard_error**2).sum()) ** 0.5 / len(corpus.valid)
    assert abs(run.history[-1]["valid.loss"] - found.mean) < 5 * error
