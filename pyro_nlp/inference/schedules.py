"""Numbers that change with training: KL weights, temperatures, learning rates (layer: inference.schedules).

A schedule is a small frozen value called with the step. Lengths are given in steps or in epochs; epochs become steps
when the length of an epoch is known.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from itertools import pairwise
from typing import Literal

Unit = Literal["steps", "epochs"]


class Schedule(ABC):
    """A number for every step: `schedule(step, steps_per_epoch)`."""

    @abstractmethod
    def __call__(self, step: int, steps_per_epoch: int | None = None) -> float:
        """The value at `step`, counted from 0."""

    def length(self, steps_per_epoch: int) -> float:
        """Steps after which the value stays as it is; 0 for one that never changes."""
        return 0.0


def at(value: float | Schedule, step: int, steps_per_epoch: int | None = None) -> float:
    """A plain number stands for itself at every step."""
    return value(step, steps_per_epoch) if isinstance(value, Schedule) else float(value)


def schedules(value: object, where: str = "") -> Iterator[tuple[str, Schedule]]:
    """The schedules inside a value, such as a strategy, and where they are; not the parts of another schedule."""
    if isinstance(value, Schedule):
        yield where, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from schedules(inner, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for position, inner in enumerate(value):
            yield from schedules(inner, f"{where}.{position}")
    elif is_dataclass(value):
        for field in fields(value):
            yield from schedules(getattr(value, field.name), f"{where}.{field.name}")


Now = Callable[[float | Schedule], float]
"""A number or schedule at the step in hand."""


def _length(owner: object, steps: float | None, epochs: float | None, steps_per_epoch: int | None) -> float:
    if epochs is None:
        assert steps is not None
        return steps
    if steps_per_epoch is None:
        raise ValueError(f"{owner} counts in epochs, and the length of an epoch is not known here; give steps")
    return epochs * steps_per_epoch


def _steps(owner: object, value: float, unit: Unit, steps_per_epoch: int | None) -> float:
    """A number of steps or epochs in steps."""
    return value if unit == "steps" else _length(owner, None, value, steps_per_epoch)


def _refuse_unit(owner: object, unit: str) -> None:
    if unit not in ("steps", "epochs"):
        raise ValueError(f"{type(owner).__name__}: unit is 'steps' or 'epochs', not {unit!r}")


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

    def length(self, steps_per_epoch: int) -> float:
        return _length(self, self.steps, self.epochs, steps_per_epoch)


@dataclass(frozen=True)
class Logistic(Schedule):
    """sigmoid(slope (step - midpoint)), Bowman et al. 2016: rises from about 0 to 1, half way at `midpoint`.

    Args:
        slope: per step, or per epoch.
        midpoint: in steps, or in epochs.
        unit: of both.
    """

    slope: float = 0.0025
    midpoint: float = 2500.0
    unit: Unit = "steps"

    def __post_init__(self) -> None:
        _refuse_unit(self, self.unit)

    def __call__(self, step: int, steps_per_epoch: int | None = None) -> float:
        return _sigmoid(self.slope * (step / _steps(self, 1.0, self.unit, steps_per_epoch) - self.midpoint))

    def length(self, steps_per_epoch: int) -> float:
        """Where it has come within 1 % of 1."""
        return _steps(self, self.midpoint + math.log(99) / abs(self.slope or 1.0), self.unit, steps_per_epoch)


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))  # neither overflows


@dataclass(frozen=True)
class Cyclical(Schedule):
    """Fu et al. 2019 (arXiv:1903.10145): in every cycle a rise from `start` to `end`, then `end` for the rest.

    Args:
        start: value at the beginning of each cycle.
        end: value after the rise.
        rise: part of a cycle spent rising, R in the paper.
        flat: part of a cycle spent at `start` before the rise (Li et al. 2020, Optimus).
        form: of the rise: `linear`, `cosine` 0.5 - 0.5 cos(pi t), or `sigmoid` of 12 t - 6, for t from 0 to 1.
        cycles: how many; afterwards `end`. None: for ever.
        steps: length of one cycle in steps.
        epochs: length of one cycle in epochs.
    """

    start: float = 0.0
    end: float = 1.0
    rise: float = 0.5
    flat: float = 0.0
    form: Literal["linear", "cosine", "sigmoid"] = "linear"
    cycles: int | None = None
    steps: float | None = None
    epochs: float | None = None

    def __post_init__(self) -> None:
        _one_of(self, self.steps, self.epochs)
        if not 0 < self.rise <= 1:
            raise ValueError(f"Cyclical: rise is a part of a cycle, in (0, 1], not {self.rise}")
        if not 0 <= self.flat <= 1 - self.rise:
            raise ValueError(f"Cyclical: flat and rise share one cycle: {self.flat} + {self.rise} is more than 1")
        if self.form not in ("linear", "cosine", "sigmoid"):
            raise ValueError(f"Cyclical: form is 'linear', 'cosine' or 'sigmoid', not {self.form!r}")

    def __call__(self, step: int, steps_per_epoch: int | None = None) -> float:
        cycle, done = divmod(step / _length(self, self.steps, self.epochs, steps_per_epoch), 1.0)
        if self.cycles is not None and cycle >= self.cycles:
            return self.end
        risen = (done - self.flat) / self.rise
        if risen <= 0 or risen >= 1:
            return self.start if risen <= 0 else self.end
        form = {"linear": risen, "cosine": 0.5 - 0.5 * math.cos(math.pi * risen), "sigmoid": _sigmoid(12 * risen - 6)}
        return self.start + (self.end - self.start) * form[self.form]

    def length(self, steps_per_epoch: int) -> float:
        """Of its cycles; of the first where they go on for ever."""
        return (self.cycles or 1) * _length(self, self.steps, self.epochs, steps_per_epoch)


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

    def length(self, steps_per_epoch: int) -> float:
        return _length(self, self.steps, self.epochs, steps_per_epoch)


@dataclass(frozen=True)
class Join(Schedule):
    """One schedule after another, each seeing steps counted from its own beginning.

    Args:
        parts: the schedules, in order.
        boundaries: where every part but the first begins, rising.
        unit: of the boundaries.
    """

    parts: list[Schedule]
    boundaries: list[float]
    unit: Unit = "steps"

    def __post_init__(self) -> None:
        _refuse_unit(self, self.unit)
        if len(self.boundaries) != len(self.parts) - 1 or sorted(self.boundaries) != list(self.boundaries):
            raise ValueError("Join wants one rising boundary between every two parts")

    def __call__(self, step: int, steps_per_epoch: int | None = None) -> float:
        begins = [0, *(round(_steps(self, b, self.unit, steps_per_epoch)) for b in self.boundaries)]
        part = sum(step >= b for b in begins[1:])
        return self.parts[part](step - begins[part], steps_per_epoch)

    def places(self, steps_per_epoch: int) -> Iterator[tuple[Schedule, float]]:
        """Every part but the last, and the steps until the next one begins."""
        begins = [0.0, *(_steps(self, b, self.unit, steps_per_epoch) for b in self.boundaries)]
        yield from zip(self.parts, (after - before for before, after in pairwise(begins)), strict=False)

    def length(self, steps_per_epoch: int) -> float:
        last = _steps(self, self.boundaries[-1], self.unit, steps_per_epoch) if self.boundaries else 0.0
        return last + self.parts[-1].length(steps_per_epoch)
