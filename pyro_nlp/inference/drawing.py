"""How values get into a guide's sites in place of plain samples (layer: inference)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from pyro.poutine.messenger import Messenger
from torch import Tensor

from pyro_nlp.inference.sites import Drawn, StructureError, Table, in_documents, is_subsample, own_plates
from pyro_nlp.inference.support import support

Draw = Callable[[TorchDistribution], Drawn | None]
"""Given the guide's distribution of a site, expanded to particles and plates: what to draw; None for a sample."""


class Draws(Messenger):
    """Draws the sites of a guide as told, and makes a table of the support of those to be summed out in the model.

    The outermost handler around guide and model: by the time it sees a site, plates have expanded its distribution.

    Args:
        draws: by site of the guide.
        marginal: sites to be summed out: tables in the model, plain samples in the guide, for whoever reads them there.
        plates: the model's plate dimensions; tables stand left of these and of the particles.

    Attributes:
        in_model: set when the guide has run.
        tables: those made so far, the guide's first.
    """

    def __init__(self, draws: Mapping[str, Draw], marginal: Collection[str], plates: int) -> None:
        super().__init__()
        self.draws, self.marginal, self.plates = draws, marginal, plates
        self.in_model = False
        self.tables: list[Table] = []
        self._labels: dict[str, Tensor] = {}

    def _pyro_sample(self, message: Any) -> None:
        name, fn = message["name"], message["fn"]
        if message["is_observed"] or message["done"] or is_subsample(message):
            return
        if name in self.marginal:
            if self.in_model:
                values = support(fn)
                self._draw(message, Drawn(values.view(len(values), *[1] * len(fn.batch_shape), *fn.event_shape)), True)
                message["infer"]["labels"] = self._labels.get(name)
            elif isinstance(known := getattr(fn, "known", None), Tensor):
                self._labels[name] = known
        elif not self.in_model and name in self.draws:
            drawn = self.draws[name](fn)
            if drawn is not None:
                self._draw(message, drawn, drawn.weight is not None)

    def _draw(self, message: Any, drawn: Drawn, table: bool) -> None:
        value = drawn.value
        if table:
            if not in_documents(message):
                raise StructureError(
                    f"site '{message['name']}' stands outside the plate of documents, and belongs to all of them: its "
                    "values cannot be summed; sample it, with ScoreFunction()"
                )
            dim, events = -2 - self.plates - len(self.tables), len(message["fn"].event_shape)
            value = _at(value, dim - events)
            weight = None if drawn.weight is None else _at(drawn.weight, dim)
            if (
                len(value) == 1 and weight is not None
            ):  # told by its size from what does not depend on it: a second row of no weight
                value = torch.cat([value, value])
                weight = torch.cat([weight, torch.zeros_like(weight)])
            inner = tuple(sorted(own_plates(message, self.plates)))
            self.tables.append(Table(message["name"], dim, weight, inner))
        message["value"], message["done"] = value, True
        message["infer"] = {**message["infer"], "drawn": drawn}


def _at(value: Tensor, dim: int) -> Tensor:
    """Move the first dimension of a tensor to `dim` from the right, with ones between."""
    return value.reshape(len(value), *[1] * (-dim - value.dim()), *value.shape[1:])
