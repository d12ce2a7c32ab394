"""How long, how fast and in what precision to train: values, no work (layer: inference)."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from pyro_nlp.inference.schedules import Schedule

Precision = Literal["float32", "bf16", "auto"]
"""Of products: `auto` is bf16 where this machine multiplies in it at least half as fast again."""


class Optimizer(ABC):
    """A torch optimiser to be built once the parameters exist."""

    learning_rate: float | Schedule

    @abstractmethod
    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser; `fit` sets its learning rate before every step."""


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma and Ba 2015) in PyTorch's fused form.

    Args:
        learning_rate: a number or a schedule.
        beta1: decay of the mean of gradients.
        beta2: decay of the mean of squared gradients.
        weight_decay: L2 penalty.
    """

    learning_rate: float | Schedule = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.0

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.Adam(
            parameters, lr=1.0, betas=(self.beta1, self.beta2), weight_decay=self.weight_decay, fused=True
        )


def signal_to_noise(optimizer: torch.optim.Optimizer) -> float | None:
    """Norm of the mean gradient over that of its standard deviation, as Adam's moments remember them; None for others.

    The mean is of some 1 / (1 - beta1) steps, so that noise alone gives sqrt((1 - beta1) / (1 + beta1)): 0.23 at 0.9.
    """
    if not isinstance(optimizer, torch.optim.Adam):
        return None
    signal, noise = 0.0, 0.0
    for group in optimizer.param_groups:
        beta1, beta2 = group["betas"]
        for parameter in group["params"]:
            if found := optimizer.state.get(parameter):
                steps = float(found["step"])
                mean = found["exp_avg"] / (1 - beta1**steps)
                square = found["exp_avg_sq"] / (1 - beta2**steps)
                signal += float(mean.square().sum())
                noise += float((square - mean.square()).clamp(min=0).sum())
    return (signal / noise) ** 0.5 if noise else None


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent.

    Args:
        learning_rate: a number or a schedule.
        momentum: of the classical kind.
        weight_decay: L2 penalty.
    """

    learning_rate: float | Schedule = 1.0
    momentum: float = 0.0
    weight_decay: float = 0.0

    def build(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=1.0, momentum=self.momentum, weight_decay=self.weight_decay, fused=True)


@dataclass(frozen=True)
class Plateau:
    """Go back to the best and slow down when the validation bound stalls; stop after some times.

    Args:
        patience: epochs without a better bound before it acts.
        factor: the learning rate is multiplied by this ...
        decays: ... at most this often; the next stall ends training. 0 is plain early stopping.
        start: epochs before which a stall does not count (while the KL weight still rises, say).
    """

    patience: int = 2
    factor: float = 0.5
    decays: int = 5
    start: int = 0


@dataclass(frozen=True)
class Training:
    """The training loop's settings.

    Args:
        epochs: passes over the training split at most.
        batch_size: documents per step, over all processes.
        optimizer: Adam or SGD.
        clip: largest norm of the gradient of all parameters together; None does not clip.
        word_dropout: probability that an input word of the decoder becomes `<unk>` (Bowman et al. 2016); a
            schedule may change it.
        plateau: what to do when the validation bound stalls; None trains all epochs.
        keep: the parameters of the `best` epoch by the validation bound, or of the `last`: where auxiliary losses buy
            what is wanted at the bound's expense, the first epochs have the best bound. `last` wants no plateau. Any
            measure of metrics.jsonl's validation rows, without its `valid.`, may take the bound's place, there and in
            the plateau: `auxiliary.KnownSequences`, say, where only the guide's log q of known sequences matters.
        precision: `float32`; `bf16` for autocast with log-probabilities and KL in float32; `auto` for bf16 where this
            machine multiplies in it at least half as fast again.
        device: `auto`, `cpu`, `cuda` ...
        vectors: file of word vectors in the text format of word2vec or GloVe, from which every embedding of the model
            and the guide that is as wide starts. None starts from random ones.
        keep_vectors: do not train those embeddings on: words without a vector keep what they began with.
        start: parts that begin with the parameters of another run's model or guide, whichever has the same ones, as in
            `{model.prior: runs/lm}`; the run has the same vocabulary.
        fixed: parts that are not trained, as in `[model.prior]`; they stay so, and their dropout is that of training.
        log_every: steps between rows of metrics.jsonl.
        checkpoint_minutes: longest time without a checkpoint; one is also written after every epoch and on Ctrl-C.
    """

    epochs: int = 20
    batch_size: int = 32
    optimizer: Optimizer = Adam()
    clip: float | None = 5.0
    word_dropout: float | Schedule = 0.0
    plateau: Plateau | None = Plateau()
    keep: str = "best"
    precision: Precision = "float32"
    device: str = "auto"
    vectors: str | None = None
    keep_vectors: bool = False
    start: dict[str, str] = field(default_factory=dict)
    fixed: tuple[str, ...] = ()
    log_every: int = 50
    checkpoint_minutes: float = 5.0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1 or self.log_every < 1:
            raise ValueError("Training: epochs, batch_size and log_every must be at least 1")
        if self.precision not in ("float32", "bf16", "auto"):
            raise ValueError(f"Training: precision is 'float32', 'bf16' or 'auto', not {self.precision!r}")
        if self.keep == "last" and self.plateau is not None:
            raise ValueError(
                "Training: a plateau goes back to the best parameters: with keep='last' set plateau to None"
            )
        if isinstance(self.fixed, str):  # type: ignore[unreachable]
            raise ValueError(f"Training: fixed is a list of parts: ({self.fixed!r},)")
        if self.keep_vectors and self.vectors is None:
            raise ValueError("Training: keep_vectors keeps the word vectors of a file: give it as vectors")


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device {name!r} is not known: use auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device 'cuda' was asked for and PyTorch finds none: use --training.device cpu")
    return device


def choose_precision(name: Precision, device: torch.device) -> torch.dtype:
    """The type that products are taken in; `auto` times one of each."""
    if name != "auto":
        return torch.bfloat16 if name == "bf16" else torch.float32
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.ones(512, 512, dtype=dtype, device=device)
        trials = []
        for _ in range(10):
            began = time.perf_counter()
            (a @ a)[0, 0].item()  # waits for the result on any device
            trials.append(time.perf_counter() - began)
        seconds[dtype] = min(trials)
    return torch.bfloat16 if 1.5 * seconds[torch.bfloat16] < seconds[torch.float32] else torch.float32
