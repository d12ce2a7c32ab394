"""What each of two processes does in test_two_processes.py; run with the variables that `torchrun` sets.

Every scenario leaves `NAME.RANK.pt` in the folder given as the argument.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyro_nlp.data.loading import shard
from pyro_nlp.inference import (
    IWAE,
    SGD,
    Enumerate,
    Interrupted,
    Joint,
    Marginalize,
    Neural,
    NumericalError,
    RunningMean,
    ScoreFunction,
    Strategy,
    Training,
    Updates,
    fit,
)
from tests.tiny import Sentences, lm, mixture, parameters, styled, vae

ODD = 7
"""Documents in a batch: four for the first process and three for the second."""


EXACT: dict[str, tuple[Callable[[], tuple[Any, Any]], Strategy]] = {
    "enumerated": (mixture, Strategy(discrete=Enumerate())),
    "summed out": (mixture, Strategy(discrete=Marginalize())),
    "summed out under IWAE": (mixture, Strategy(discrete=Marginalize(), bound=IWAE(3))),
}
"""What draws nothing, and so has one gradient however many processes there are."""
DRAWN: dict[str, tuple[Callable[[], tuple[Any, Any]], Strategy]] = {
    "vae": (vae, Strategy()),
    "iwae": (vae, Strategy(bound=IWAE(3))),
    "styled": (styled, Strategy(discrete=Enumerate())),
}
"""What draws a code."""
LEARNT: dict[str, tuple[Callable[[], tuple[Any, Any]], Strategy]] = {
    "running mean": (mixture, Strategy(discrete=ScoreFunction(RunningMean()))),
    "neural": (mixture, Strategy(discrete=ScoreFunction(Neural(width=4, buckets=16)))),
}
"""What has a baseline."""


@dataclass(frozen=True)
class Gradients(Updates):
    """`Joint`, keeping the gradient and the loss of every step."""

    kept: list[Any]

    def step(self, engine: Any, batch: Any) -> Tensor:
        engine._clip = lambda: None
        loss = engine.gradients(batch)
        own = engine.objective
        taken = {n: p.grad.clone() for n, p in own.named_parameters() if p.grad is not None}
        self.kept.append((taken, float(loss), batch.index.clone()))
        engine.apply()
        return loss


def training(**changes: Any) -> Training:
    return Training(
        **{"epochs": 1, "batch_size": ODD, "device": "cpu", "optimizer": SGD(0.1), "log_every": 1} | changes
    )


def gradients_of(model: nn.Module, guide: nn.Module | None, strategy: Strategy | None = None) -> dict[str, Any]:
    kept: list[Any] = []
    strategy = replace(strategy or Strategy(), updates=Gradients(kept))
    run = fit(model, guide, Sentences(train=20, valid=3), strategy, training(), seed=5)
    return {"steps": kept, "parameters": parameters(model, guide), "valid": run.history[-1:]}


def stopped(rank: int, out: Path) -> dict[str, Any]:
    """Only the second process hears Ctrl-C; both stop, and go on."""

    @dataclass(frozen=True)
    class Stop(Updates):
        def step(self, engine: Any, batch: Any) -> Tensor:
            if rank == 1 and int(engine.objective.step) == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return Joint().step(engine, batch)

    message, corpus = "", Sentences(train=40)
    try:
        fit(lm(), None, corpus, Strategy(updates=Stop()), training(epochs=2), out=out)
    except Interrupted as interrupted:
        message = str(interrupted)
    torch.distributed.barrier()  # the first process has written
    step = torch.load(out / "checkpoint.pt", weights_only=True)["step"]
    model = lm(seed=rank)  # different on purpose: the checkpoint and DDP make them one
    fit(model, None, corpus, Strategy(), training(epochs=2), out=out, resume=True)
    return {"message": message, "step": step, "parameters": parameters(model)}


def broken(rank: int) -> dict[str, Any]:
    """Only the second process meets a number that is not finite."""

    @dataclass(frozen=True)
    class Break(Updates):
        def step(self, engine: Any, batch: Any) -> Tensor:
            if rank == 1 and int(engine.objective.step) == 2:
                compute = engine.compute
                engine.compute = lambda batch: compute(batch) + torch.nan
            return Joint().step(engine, batch)

    try:
        fit(lm(), None, Sentences(train=40), Strategy(updates=Break()), training())
    except NumericalError as error:
        return {"message": str(error)}
    return {"message": "no error"}


def unsampled(rank: int) -> dict[str, Any]:
    """Only the second process meets a class that cannot be drawn, which is an error of PyTorch's own."""

    @dataclass(frozen=True)
    class Break(Updates):
        def step(self, engine: Any, batch: Any) -> Tensor:
            if rank == 1 and int(engine.objective.step) == 2:
                with torch.no_grad():
                    list(engine.objective.guide.parameters())[-1].fill_(torch.nan)
            return Joint().step(engine, batch)

    try:
        fit(*mixture(), Sentences(train=40), Strategy(discrete=ScoreFunction(), updates=Break()), training())
    except NumericalError as error:
        return {"message": str(error)}
    return {"message": "no error"}


def noise(rank: int, out: Path) -> dict[str, Any]:
    """The first random number of each process in a fresh and in a resumed run."""

    @dataclass(frozen=True)
    class Look(Updates):
        def step(self, engine: Any, batch: Any) -> Tensor:
            drawn.append(torch.get_rng_state())
            return Joint().step(engine, batch)

    drawn: list[Tensor] = []
    for epochs, resume in ((1, False), (2, True)):
        model, guide = vae()
        if resume:
            torch.distributed.barrier()
        fit(model, guide, Sentences(), Strategy(updates=Look()), training(epochs=epochs), out=out, resume=resume)
    return {"fresh": drawn[0], "resumed": drawn[len(drawn) // 2]}


def main(folder: Path) -> None:
    rank = int(os.environ["RANK"])
    torch.set_num_threads(1)

    def keep(name: str, found: dict[str, Any]) -> None:
        torch.save(found, folder / f"{name}.{rank}.pt")

    keep("lm", gradients_of(lm(), None))
    for name, (make, strategy) in (EXACT | DRAWN | LEARNT).items():
        keep(name, gradients_of(*make(), strategy))
    keep("stopped", stopped(rank, folder / "stopped"))
    keep("broken", broken(rank))
    keep("unsampled", unsampled(rank))
    keep("noise", noise(rank, folder / "noise"))
    torch.distributed.destroy_process_group()
    assert list(shard(torch.arange(ODD).numpy(), rank, 2)) == list(range(rank, ODD, 2))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
