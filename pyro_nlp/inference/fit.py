"""`fit`: a model, a guide, a corpus, a strategy and settings in; a run out (layer: inference)."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyro
import torch
import torch.distributed as distributed
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from torch import nn

from pyro_nlp.data.corpus import Corpus
from pyro_nlp.inference.beginning import begin
from pyro_nlp.inference.folder import RunError, RunFolder
from pyro_nlp.inference.loop import Interrupted, Loop
from pyro_nlp.inference.schedules import Join, schedules
from pyro_nlp.inference.strategy import Strategy
from pyro_nlp.inference.terms import StructureError
from pyro_nlp.inference.training import Training, choose_device, signal_to_noise
from pyro_nlp.nn import meet_corpus


@dataclass
class Run:
    """A trained model and guide, and how they came to be.

    Attributes:
        model, guide: with what `Training.keep` names, in evaluation mode; no guide where it had nothing to learn.
        corpus: what they were trained on.
        history: the rows of metrics.jsonl.
        folder: where the run lives; None when it was not saved.
        marginal: latents that were summed out in the model, of which the guide learnt nothing.
    """

    model: nn.Module
    guide: nn.Module | None
    corpus: Corpus
    history: list[dict[str, Any]] = field(default_factory=list)
    folder: Path | None = None
    marginal: tuple[str, ...] = ()

    @property
    def words_per_second(self) -> float:
        """Median training speed in real words (ends of sentence not counted)."""
        speeds = sorted(row["words_per_second"] for row in self.history if "words_per_second" in row)
        return speeds[len(speeds) // 2] if speeds else float("nan")


def fit(
    model: nn.Module,
    guide: nn.Module | None,
    corpus: Corpus,
    strategy: Strategy | None = None,
    training: Training | None = None,
    *,
    seed: int = 0,
    out: str | Path | None = None,
    resume: bool = False,
    recipe: str | None = None,
    progress: bool | None = None,
) -> Run:
    """Train a model and a guide; what `Training.keep` names is in them afterwards, by default the best parameters.

    Under `torchrun` every process calls it alike: the batch is divided between them and the gradients averaged.

    Args:
        model, guide: PyroModules that meet through site names; no guide for a model without latents.
        corpus: where batches come from.
        strategy: how to infer; by default the ELBO with pathwise gradients.
        training: how long, how fast, in what precision.
        seed: of the order of batches, the draws of latents and dropout.
        out: folder to keep the run in; an existing run is refused unless `resume`.
        resume: continue the run in `out` from its checkpoint: bitwise as if it had not stopped, on one CPU process.
        recipe: text of the recipe, kept with the run.
        progress: show a bar; by default when standard error is a terminal.

    Raises:
        StructureError: model, guide and strategy do not fit.
        NumericalError: a number is not finite; the last checkpoint on disk is the last good one.
        Interrupted: Ctrl-C or SIGTERM; with `out`, the state was saved first.
        RunError: the folder exists, is damaged or cannot be written.
    """
    strategy, training = strategy or Strategy(), training or Training()
    rank, world = _processes()
    device = choose_device(training.device)
    folder = _folder(out, resume, rank)
    if world > 1:
        distributed.barrier()
    with torch.random.fork_rng([device] if device.type == "cuda" else []), _stop_request() as stop:
        torch.manual_seed(seed + rank)
        for module in (model, guide):
            if isinstance(module, nn.Module):
                module.to(device).train()
        meet_corpus(corpus, model, guide)
        begin(model, guide, corpus, training, resume)
        first = corpus.train.batch(_first_rows(corpus, training)).to(device)
        objective = strategy.compile(model, guide, first, corpus.called)
        loop = Loop(objective, corpus, training, seed, rank, world)
        if training.epochs <= strategy.updates.first:
            raise StructureError(
                f"{strategy.updates} prepares for {strategy.updates.first} epochs, and training has {training.epochs}: "
                "give it more"
            )
        if rank == 0:
            for misfit in misfits(strategy, training, len(loop.order)):
                warnings.warn(misfit, stacklevel=2)
        if folder and resume:
            _restore(loop, folder)
            if world > 1:  # the state is that of the first process, and each needs draws of its own
                torch.manual_seed(seed + rank + world * int(objective.step))
            if rank == 0:
                folder.forget_metrics_after(int(objective.step))
        elif folder and rank == 0:
            _describe(folder, corpus, strategy, training, seed, world, recipe)
            _save(loop, folder)  # from here on a kill leaves something to resume
        writer = folder if rank == 0 else None
        if progress is None:
            progress = rank == 0 and sys.stderr.isatty()
        history = list(writer.metrics()) if writer else []
        _train(loop, writer, history, progress, stop)
    if loop.best is not None:
        objective.load_state_dict(loop.best["objective"])
    objective.eval()
    trained = strategy.updates.refine(model, objective.guide)
    return Run(model, trained, corpus, history, Path(out) if out else None, objective.marginal)


def misfits(strategy: Strategy, training: Training, steps_per_epoch: int) -> Iterator[str]:
    """What is over before an epoch is, or does not come to its end in this training, a sentence each."""
    whole, epochs = training.epochs * steps_per_epoch, f"{training.epochs} epochs have"
    for where, schedule in [*schedules(strategy, "strategy"), *schedules(training, "training")]:
        length = schedule.length(steps_per_epoch)
        told = f"{where}: {schedule} takes {length:,.0f} steps, and"
        if 0 < length < steps_per_epoch:
            yield f"{told} an epoch has {steps_per_epoch:,}: it is over within the first"
        elif length > whole:
            yield f"{told} {epochs} {whole:,}: it does not come to its end"
        for part, room in schedule.places(steps_per_epoch) if isinstance(schedule, Join) else ():
            if (length := part.length(steps_per_epoch)) > room:
                told = f"{where}: {part} takes {length:,.0f} steps, and its place"
                yield f"{told} has {room:,.0f}: it does not come to its end"
    turns = strategy.updates.length(steps_per_epoch)
    if turns > whole:
        told = f"strategy.updates: {strategy.updates} takes {turns:,.0f} steps for a turn of both sides"
        yield f"{told}, and {epochs} {whole:,}: it does not come to its end"


def _train(
    loop: Loop, folder: RunFolder | None, history: list[dict[str, Any]], progress: bool, stop: threading.Event
) -> None:
    training = loop.training
    saved = time.monotonic()
    with _Bar(progress, training.epochs * len(loop.order)) as bar:
        while loop.epoch < training.epochs and not loop.finished:
            meter = _Meter()
            first = int(loop.objective.step) == 0
            with pyro.validation_enabled(first):
                for loss, batch in loop.steps():
                    loop.check_gradients()
                    if first:
                        pyro.enable_validation(False)  # the shapes have been seen to fit; the block restores it
                        first = False
                    meter.add(loss, batch, loop)
                    stopping = loop.anywhere(stop.is_set())
                    due = time.monotonic() - saved > 60 * training.checkpoint_minutes
                    if meter.steps >= training.log_every or stopping or due or loop.row == len(loop.order):
                        row = meter.row(loop)
                        bar.show(row)
                        _record(row, folder, history)
                        meter = _Meter()
                    bar.advance()
                    if stopping or due:
                        _save(loop, folder)
                        saved = time.monotonic()
                    if stopping:
                        raise Interrupted(
                            "training was interrupted"
                            + (f"; go on with --resume --out {folder.path}" if folder else "")
                        )
                loop.objective.strategy.updates.after_epoch(loop)
                bound = loop.validate()
            best = loop.judge(bound)
            row = {"step": int(loop.objective.step), "epoch": loop.epoch, "best": best}
            _record(row | {f"valid.{name}": value for name, value in bound.items()}, folder, history)
            loop.next_epoch()
            if folder and best and loop.best:
                _save_best(loop, folder)
            _save(loop, folder)
            saved = time.monotonic()


def _record(row: dict[str, Any], folder: RunFolder | None, history: list[dict[str, Any]]) -> None:
    history.append(row)
    if folder:
        folder.log(row)


def _restore(loop: Loop, folder: RunFolder) -> None:
    state = folder.load_checkpoint()
    try:
        loop.load_state_dict(state)
    except StructureError:
        raise
    except (RuntimeError, KeyError, ValueError):  # how torch's state dicts disagree
        raise RunError(
            f"{folder.path} was trained with another model, guide or optimiser: resume it with its own"
        ) from None


def _save(loop: Loop, folder: RunFolder | None) -> None:
    if folder:
        folder.save_checkpoint(loop.state_dict())


def _save_best(loop: Loop, folder: RunFolder) -> None:
    for name, module in (("model", loop.objective.model), ("guide", loop.objective.guide)):
        if module is not None:
            folder.save_weights(name, module.state_dict(), int(loop.objective.step))


class _Meter:
    """Means over the steps since the last row of metrics."""

    def __init__(self) -> None:
        self.steps, self.words, self.began = 0, 0, time.perf_counter()
        self.sums: dict[str, float] = {}

    def add(self, loss: torch.Tensor, batch: Any, loop: Loop) -> None:
        self.steps += 1
        self.words += batch.words * loop.world
        values = {"loss": float(loss), "gradient_norm": loop.gradient_norm}
        parts = loop.objective.last
        if parts is not None and parts.log_likelihood is not None:
            values["reconstruction"] = -float(parts.log_likelihood)
            values |= {f"kl.{name}": float(kl) for name, kl in parts.kl.items()}
            values |= {f"auxiliary.{name}": float(value) for name, value in parts.auxiliary.items()}
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def row(self, loop: Loop) -> dict[str, Any]:
        objective, seconds = loop.objective, time.perf_counter() - self.began
        row: dict[str, Any] = {"step": int(objective.step), "epoch": loop.epoch}
        row |= {name: value / self.steps for name, value in self.sums.items()}
        row |= {f"kl_weight.{name}": objective.weight(name) for name in objective.estimators}
        snr = {name: signal_to_noise(optimizer) for name, optimizer in loop.optimizers.items()}
        row |= {f"snr.{name}": value for name, value in snr.items() if value is not None and name != "baselines"}
        row["learning_rate"] = next(iter(loop.optimizers.values())).param_groups[0]["lr"]
        row["seconds"] = seconds
        if self.words:
            row["words_per_second"] = self.words / seconds
        return row


class _Bar:
    """A progress bar on standard error, or nothing."""

    def __init__(self, shown: bool, total: int) -> None:
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
        self.progress = Progress(*columns, console=Console(stderr=True)) if shown else None
        self.total = total

    def __enter__(self) -> _Bar:
        if self.progress:
            self.progress.start()
            self.task = self.progress.add_task("", total=self.total)
        return self

    def __exit__(self, *exc: object) -> None:
        if self.progress:
            self.progress.stop()

    def advance(self) -> None:
        if self.progress:
            self.progress.advance(self.task)

    def show(self, row: dict[str, Any]) -> None:
        if self.progress:
            kl = sum(value for name, value in row.items() if name.startswith("kl."))
            speed = f" {row['words_per_second']:,.0f} words/s" if "words_per_second" in row else ""
            text = f"epoch {row['epoch']} loss {row['loss']:.2f} KL {kl:.2f}{speed}"
            self.progress.update(self.task, description=text, completed=row["step"])


@contextlib.contextmanager
def _stop_request() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM ask for a stop after the step in flight; a second one stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: Any) -> None:
        event.set()
        for which, handler in before.items():
            signal.signal(which, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _processes() -> tuple[int, int]:
    """Rank and number of processes under `torchrun`; joins them if nobody has."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and distributed.is_available() and not distributed.is_initialized():
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _folder(out: str | Path | None, resume: bool, rank: int) -> RunFolder | None:
    if out is None:
        if resume:
            raise RunError("resume needs the folder of the run: give out=...")
        return None
    if resume:
        return RunFolder.open(out)
    return RunFolder.create(out) if rank == 0 else RunFolder(out)


def _first_rows(corpus: Corpus, training: Training) -> Any:
    import numpy as np

    return np.arange(min(4, training.batch_size, len(corpus.train)))


def environment(corpus: Corpus, world: int = 1) -> dict[str, Any]:
    """What a number depends on besides the code: versions, threads, data."""
    packages = ("pyro-nlp", "torch", "pyro-ppl", "numpy")
    versions = {}
    for name in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "versions": versions,
        "threads": torch.get_num_threads(),
        "processes": world,
        "corpus": corpus.name,
        "fingerprint": corpus.fingerprint,
        "corpus_versions": dict(corpus.versions),
    }


def _describe(
    folder: RunFolder,
    corpus: Corpus,
    strategy: Strategy,
    training: Training,
    seed: int,
    world: int,
    recipe: str | None,
) -> None:
    values = {"seed": seed, "strategy": repr(strategy), "training": repr(training)}
    folder.write("environment.json", json.dumps(environment(corpus, world) | values, indent=2) + "\n")
    if corpus.vocabulary is not None:
        folder.write("vocabulary.json", corpus.vocabulary.to_json())
    if recipe is not None:
        folder.write("recipe.yaml", recipe)
