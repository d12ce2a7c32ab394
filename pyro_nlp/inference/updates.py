"""Who steps when: the inside of one training step (layer: inference)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from pyro_nlp.data.batches import Batch, PairBatch, TextBatch
from pyro_nlp.inference.information import minibatch_information
from pyro_nlp.inference.schedules import Unit

if TYPE_CHECKING:
    from pyro_nlp.inference.strategy import Objective

Weight = Callable[[str], float]
"""The KL weight of a site."""


class Engine(Protocol):
    """What `fit` offers to an `Updates`."""

    objective: Objective
    epoch: int
    row: int

    def gradients(self, batch: Batch) -> Tensor:
        """Clear all gradients, take those of the loss on `batch`, clip them; the detached loss."""

    def apply(self, who: str = "both") -> None:
        """Let the optimiser of `model`, `guide` or `both` step."""

    def draw(self) -> Batch:
        """Another training batch, uniformly at random."""

    def total(self, value: float) -> float:
        """The sum of a number over all processes."""

    def validation(self) -> Iterator[Batch]:
        """The validation split in batches, without gradients or dropout."""

    def restart(self, module: nn.Module) -> None:
        """Forget what the optimisers remember of a module, and which parameters were the best."""


class Updates(ABC):
    """The order in which model and guide learn from a batch."""

    def length(self, steps_per_epoch: int) -> float:
        """Steps after which both sides have had their turn; 0 where each step is one of both."""
        return 0.0

    def refuse(self, objective: Objective) -> str | None:
        """Why it cannot be used with a model and a guide, with a cure; or None."""
        return None

    def state(self, model: nn.Module) -> nn.Module | None:
        """What it has to remember between steps, as a module with buffers; saved with every checkpoint and found again
        as `engine.objective.turns`."""
        return None

    @property
    def first(self) -> int:
        """Epochs that only prepare: no stall of the validation bound counts in them, and training lasts longer."""
        return 0

    def evaluations(self, once: int) -> int:
        """Evaluations of the model per document and step, at most, where a loss takes `once`."""
        return once

    def refine(self, model: nn.Module, guide: nn.Module | None, weight: Weight | None = None) -> nn.Module | None:
        """The guide that latents are drawn from, in training and ever after: `guide` itself, or made of it.

        Args:
            model, guide: what is trained.
            weight: of the KL of a site, in training; 1 afterwards.
        """
        return guide

    @abstractmethod
    def step(self, engine: Engine, batch: Batch) -> Tensor:
        """Learn from `batch`; the loss reported for it."""

    def after_epoch(self, engine: Engine) -> None:  # noqa: B027 (most have nothing to do)
        """Look at what an epoch has done; called before it is validated."""


@dataclass(frozen=True)
class Joint(Updates):
    """Model and guide step together on every batch."""

    def step(self, engine: Engine, batch: Batch) -> Tensor:
        loss = engine.gradients(batch)
        engine.apply()
        return loss


@dataclass(frozen=True)
class Alternating(Updates):
    """The model alone for some time, then the guide alone, and so on; `Alternating(10, 10, "epochs")` trained NVDM.

    Miao et al. 2016 (arXiv:1511.06038). Gradients are those of `Joint`; whose turn it is not stays as it is.

    Args:
        model: length of the model's turn, which is the first.
        guide: length of the guide's turn.
        unit: of both.
    """

    model: int = 1
    guide: int = 1
    unit: Unit = "steps"

    def __post_init__(self) -> None:
        if self.model < 1 or self.guide < 1:
            raise ValueError("Alternating: the turns of model and guide are 1 step or epoch at least")
        if self.unit not in ("steps", "epochs"):
            raise ValueError(f"Alternating: unit is 'steps' or 'epochs', not {self.unit!r}")

    def length(self, steps_per_epoch: int) -> float:
        """One turn of each side."""
        return (self.model + self.guide) * (steps_per_epoch if self.unit == "epochs" else 1)

    def refuse(self, objective: Objective) -> str | None:
        return _refuse_one_sided(objective)

    def step(self, engine: Engine, batch: Batch) -> Tensor:
        loss = engine.gradients(batch)
        done = int(engine.objective.step)
        if self.unit == "epochs":
            done //= engine.objective.steps_per_epoch or 1
        engine.apply("model" if done % (self.model + self.guide) < self.model else "guide")
        return loss


@dataclass(frozen=True)
class Aggressive(Updates):
    """The guide runs after the model: many steps of its own before each step of the model, until that stops paying.

    He et al. 2019 (arXiv:1901.05534), algorithm 1 as in their code. Before each of the model's steps the guide steps on
    the batch and then on random ones, until the loss per word over the last `check` of them is worse than over the
    `check` before, or `limit` is reached. After an epoch in which the mutual information of the validation split
    (`minibatch_information`) has fallen, both step together for good.

    Args:
        check: steps between two looks at the loss; 15 in their code, 10 in their text.
        limit: most steps of the guide before one of the model, counted from 1: it takes one fewer.
    """

    check: int = 15
    limit: int = 100

    def __post_init__(self) -> None:
        if self.check < 1 or self.limit < 2:
            raise ValueError("Aggressive: check is at least 1 and limit at least 2")

    def refuse(self, objective: Objective) -> str | None:
        if objective.plates > 1:
            return (
                "the information that ends its lead is that of latents of a whole document, and the model has plates "
                "inside: use updates=Joint()"
            )
        return _refuse_one_sided(objective)

    def evaluations(self, once: int) -> int:
        return self.limit * once

    def state(self, model: nn.Module) -> nn.Module:
        return _Lead()

    def step(self, engine: Engine, batch: Batch) -> Tensor:
        lead: Any = engine.objective.turns
        if not lead.on:
            return Joint().step(engine, batch)
        here, before, loss, words = batch, float("inf"), 0.0, 0.0
        for taken in range(1, self.limit):
            found = engine.gradients(here)
            engine.apply("guide")
            loss, words = loss + float(found) * len(here), words + _words(here)
            here = engine.draw()
            if taken % self.check == 0:
                now = engine.total(loss) / engine.total(words)
                if now > before:
                    break
                before, loss, words = now, 0.0, 0.0
        lead.steps += taken
        found = engine.gradients(batch)
        engine.apply("model")
        return found

    def after_epoch(self, engine: Engine) -> None:
        lead: Any = engine.objective.turns
        if lead.on:
            count = engine.total(1.0)
            now = engine.total(minibatch_information(engine.objective, engine.validation())) / count
            lead.on.fill_(now >= float(lead.information))
            lead.information.fill_(now)


class _Lead(nn.Module):
    """Whether the guide still runs ahead, the information after the last epoch, and the guide's own steps so far."""

    on: Tensor
    information: Tensor
    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("on", torch.tensor(True))
        self.register_buffer("information", torch.tensor(0.0))
        self.register_buffer("steps", torch.tensor(0))


@dataclass(frozen=True)
class ResetModel(Updates):
    """Train together, then once put the model back to where it began and keep the guide.   Li et al. 2019 (EMNLP)

    With a KL weight of 0 until then the first part trains an autoencoder, whose encoder the rest starts from:
    `kl=KL(weight=Join([Constant(0.0), Linear(0.0, 1.0, epochs=10)], [5], unit="epochs"))` beside `ResetModel(5)`. What
    was best before does not count afterwards.

    Args:
        epochs: before the model starts anew.
    """

    epochs: int

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError("ResetModel: epochs is at least 1")

    @property
    def first(self) -> int:
        return self.epochs

    def refuse(self, objective: Objective) -> str | None:
        return _refuse_one_sided(objective)

    def state(self, model: nn.Module) -> nn.Module:
        return _Beginning(model)

    def step(self, engine: Engine, batch: Batch) -> Tensor:
        return Joint().step(engine, batch)

    def after_epoch(self, engine: Engine) -> None:
        if engine.epoch + 1 == self.epochs:
            model, beginning = engine.objective.model, engine.objective.turns
            assert beginning is not None
            with torch.no_grad():
                for value, start in zip(model.state_dict().values(), beginning.buffers(), strict=True):
                    value.copy_(start)
            engine.restart(model)


class _Beginning(nn.Module):
    """A model as it is now."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        for position, value in enumerate(model.state_dict().values()):
            self.register_buffer(str(position), value.detach().clone())


@dataclass(frozen=True)
class WakeSleepPhases(Updates):
    """At every batch a step on what the model writes (sleep), then one on the documents (wake): the bound.

    Hu et al. 2017 (arXiv:1703.00955), algorithm 1. The auxiliary losses `Control` and `Dreams` are those of sleep.
    Under `Joint` both make one step together.

    Args:
        base: epochs before the first sleep, in which the model learns to write. What was best in them does not count
            afterwards.
    """

    base: int = 0

    def __post_init__(self) -> None:
        if self.base < 0:
            raise ValueError(f"WakeSleepPhases: base is a number of epochs, not {self.base}")

    @property
    def first(self) -> int:
        return self.base

    def refuse(self, objective: Objective) -> str | None:
        if any(auxiliary.phase == "sleep" for auxiliary in objective.strategy.auxiliary):
            return None
        return "there is nothing to sleep on: give auxiliary=(Control(...), Dreams(...)), or use updates=Joint()"

    def step(self, engine: Engine, batch: Batch) -> Tensor:
        objective = engine.objective
        dreamt: dict[str, Tensor] = {}
        if self.base and (engine.epoch, engine.row) == (self.base, 0):
            engine.restart(nn.Module())  # nothing of it, but for which parameters were the best
        try:
            if engine.epoch >= self.base:
                objective.phase = "sleep"
                engine.gradients(batch)
                engine.apply()
                assert objective.last is not None
                dreamt = objective.last.auxiliary
            objective.phase = "wake"
            loss = engine.gradients(batch)
            engine.apply()
        finally:
            objective.phase = None
        assert objective.last is not None
        objective.last.auxiliary.update(dreamt)
        return loss


def _refuse_one_sided(objective: Objective) -> str | None:
    """Turns want two sides, each with parameters of its own."""
    guide = objective.guide
    if guide is None:
        return "there is no guide to take turns with: use updates=Joint()"
    if not any(p.requires_grad for p in guide.parameters()):
        return "the guide has no parameters of its own to step with: use updates=Joint()"
    if not any(p.requires_grad for p in objective.model.parameters()):
        return "the model has no parameters of its own to step with: use updates=Joint()"
    if getattr(guide, "shares_parameters", False):
        return "the guide shares parameters with the model, so that neither can step alone: use updates=Joint()"
    return None


def _words(batch: Batch) -> int:
    """Targets of a text, ends of sentence counted; documents of anything else."""
    if isinstance(batch, PairBatch):
        return int(batch.second.mask.sum())
    return int(batch.mask.sum()) if isinstance(batch, TextBatch) else len(batch)
