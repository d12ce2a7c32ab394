"""Who steps when: the inside of one training step (layer: inference)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from pyro_nlp.data.batches import Batch


class Engine(Protocol):
    """What `fit` offers to an `Updates`."""

    def gradients(self, batch: Batch) -> Tensor:
        """Clear all gradients, take those of the loss on `batch`, clip them; the detached loss."""

    def apply(self, who: str = "both") -> None:
        """Let the optimiser of `model`, `guide` or `both` step."""

    def draw(self) -> Batch:
        """Another training batch, uniformly at random."""


class Updates(ABC):
    """The order in which model and guide learn from a batch."""

    @abstractmethod
    def step(self, engine: Engine, batch: Batch) -> Tensor:
        """Learn from `batch`; the loss reported for it."""


@dataclass(frozen=True)
class Joint(Updates):
    """Model and guide step together on every batch."""

    def step(self, engine: Engine, batch: Batch) -> Tensor:
        loss = engine.gradients(batch)
        engine.apply()
        return loss
