"""What each of two processes does in test_two_processes.py; run with the variables that `torchrun` sets.

Every scenario leaves `NAME.RANK.pt` in the folder given as the argument.
"""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyro_nlp.data.loading import shard
from pyro_nlp.inference import SGD, Interrupted, Joint, NumericalError, Strategy, Training, Updates, fit
from tests.tiny import Sentences, lm, parameters, vae

ODD = 7
"""Documents in a batch: four for the first process and three for the second."""


@dataclass(frozen=True)
class Gradients(Updates):
    """`Joint`, keeping the gradient and the loss of every step."""

    kept: list[Any]

    def step(self, engine: Any, batch: Any) -> Tensor:
        engine._clip = lambda: None
        loss = engine.gradients(batch)
        self.kept.append(
            ({n: p.grad.clone() for n, p in engine.objective.named_parameters()}, float(loss), batch.index.clone())
        )
        engine.apply()
        return loss


def training(**changes: Any) -> Training:
    return Training(
        **{"epochs": 1, "batch_size": ODD, "device": "cpu", "optimizer": SGD(0.1), "log_every": 1} | changes
    )


def gradients_of(model: nn.Module, guide: nn.Module | None) -> dict[str, Any]:
    kept: list[Any] = []
    run = fit(model, guide, Sentences(train=20, valid=3), Strategy(updates=Gradients(kept)), training(), seed=5)
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
    model, guide = vae()
    keep("vae", gradients_of(model, guide))
    keep("stopped", stopped(rank, folder / "stopped"))
    keep("broken", broken(rank))
    keep("noise", noise(rank, folder / "noise"))
    torch.distributed.destroy_process_group()
    assert list(shard(torch.arange(ODD).numpy(), rank, 2)) == list(range(rank, ODD, 2))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
