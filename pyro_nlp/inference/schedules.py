"""Numbers that change with training: KL weights, temperatures, learning rates (layer: inference.schedules).

A schedule is a small frozen value called with the step. Lengths are given in steps or in epochs; epochs become steps
when the length of an epoch is known.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass


class Schedule(ABC):
    """A number for every step: `schedule(step, steps_per_epoch)`."""

    @abstractmethod
    def __call__(self, step: int, steps_per_epoch: int | None = None) -> float:
        """The value at `step`, counted from 0."""


def at(value: float | Schedule, step: int, steps_per_epoch: int | None = None) -> float:
    """A plain number stands for itself at every step."""
    return value(step, steps_per_epoch) if isinstance(value, Schedule) else float(value)


def _length(owner: object, steps: float | None, epochs: float | None, steps_per_epoch: int | None) -> float:
    if epochs is None:
        assert steps is not None
        return steps
    if steps_per_epoch is None:
        raise ValueError(f"{owner} counts in epochs, and the length of an epoch is not known here; give steps")
    return epochs * steps_per_epoch


def _one_of(owner: object, steps: float | None, epochs: float | None) -> None:
    if (steps is None) == (epochs is None):
        raise ValueError(f"{type(owner).__name__} wants either steps or epochs")
    if (steps if epochs is None else epochs) <= 0:  # type: ignore[operator]
        raise ValueError(f"{type(owner).__name__}: a length must be positive")


@dataclass(frozen=True)
class Constant(Schedule):
    """`value` at every step.

    Args:
        value: the value.
    """

    value: float = 1.0

    def __call__(self, step: int, steps_per_epoch: int | None = None) -> float:
        return self.value


@dataclass(frozen=True)
class Linear(Schedule):
    """A straight line from `start` to `end`, then `end`:  start + (end - start) min(1, step / length).

    Args:
        start: value at step 0.
        end: value from `steps` (or `epochs`) on.
        steps: length in steps.
        epochs: length in epochs.
    """

    start: float = 0.0
    end: float = 1.0
    steps: float | None = None
    epochs: float | None = None

    def __post_init__(self) -> None:
        _one_of(self, self.steps, self.epochs)

    def __call__(self, step: int, steps_per_epoch: int | None = None) -> float:
        done = min(1.0, step / _length(self, self.steps, self.epochs, steps_per_epoch))
        return self.start + (self.end - self.start) * done


@dataclass(frozen=True)
class Logistic(Schedule):
    """sigmoid(slope (step - midpoint)), Bowman et al. 2016: rises from about 0 to 1, half way at `midpoint`.

    Args:
        slope: per step.
        midpoint: in steps.
    """

    slope: float = 0.0025
    midpoint: float = 2500.0

    def __call__(self, step: int, steps_per_epoch: int | None = None) -> float:
        x = self.slope * (step - self.midpoint)
        return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))  # neither overflows


@dataclass(frozen=True)
class Cyclical(Schedule):
    """Fu et al. 2019 (arXiv:1903.10145): in every cycle a line from `start` to `end`, then `end` for the rest.

    Args:
        start: value at the beginning of each cycle.
        end: value after the rise.
        rise: part of a cycle spent rising, R in the paper.
        cycles: how many; afterwards `end`. None: for ever.
        steps: length of one cycle in steps.
        epochs: length of one cycle in epochs.
    """

    start: float = 0.0
    end: float = 1.0
    rise: float = 0.5
    cycles: int | None = None
    steps: float | None = None
    epochs: float | None = None

    def __post_init__(self) -> None:
        _one_of(self, self.steps, self.epochs)
        if not 0 < self.rise <= 1:
            raise ValueError(f"Cyclical: rise is a part of a cycle, in (0, 1], not {self.rise}")

    def __call__(self, step: int, steps_per_epoch: int | None = None) -> float:
        cycle, done = divmod(step / _length(self, self.steps, self.epochs, steps_per_epoch), 1.0)
        if self.cycles is not None and cycle >= self.cycles:
            return self.end
        return self.start + (self.end - self.start) * min(1.0, done / self.rise)


@dataclass(frozen=True)
class Exponential(Schedule):
    """Geometric decay from `start` to `end`, then `end`:  start (end / start) ** min(1, step / length).

    Args:
        start: value at step 0, positive.
        end: value from `steps` (or `epochs`) on, positive.
        steps: length in steps.
        epochs: length in epochs.
    """

    start: float = 1.0
    end: float = 0.1
    steps: float | None = None
    epochs: float | None = None

    def __post_init__(self) -> None:
        _one_of(self, self.steps, self.epochs)
        if self.start <= 0 or self.end <= 0:
            raise ValueError("Exponential: start and end must be positive")

    def __call__(self, step: int, steps_per_epoch: int | None = None) -> float:
        done = min(1.0, step / _length(self, self.steps, self.epochs, steps_per_epoch))
        return float(self.start * (self.end / self.start) ** done)


@dataclass(frozen=True)
class Join(Schedule):
    """One schedule after another, each seeing steps counted from its own beginning.

    Args:
        parts: the schedules, in order.
        boundaries: first step of every part but the first, rising.
    """

    parts: list[Schedule]
    boundaries: list[int]

    def __post_init__(self) -> None:
        if len(self.boundaries) != len(self.parts) - 1 or sorted(self.boundaries) != list(self.boundaries):
            raise ValueError("Join wants one rising boundary between every two parts")

    def __call__(self, step: int, steps_per_epoch: int | None = None) -> float:
        part = sum(step >= b for b in self.boundaries)
        return self.parts[part](step - (self.boundaries[part - 1] if part else 0), steps_per_epoch)
