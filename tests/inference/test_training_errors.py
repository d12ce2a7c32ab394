"""What a dry run cannot see: parameters without a gradient, logits that stop being numbers while training."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import nn

from pyro_nlp.inference import (
    REBAR,
    Enumerate,
    Estimator,
    Marginalize,
    NumericalError,
    Relax,
    ScoreFunction,
    Strategy,
    StructureError,
    Subset,
    Training,
    fit,
)
from tests.tiny import CLASSES, Sentences, Vectors, mixture, ring


class Forgotten(PyroModule):
    """A ring with a layer that forward does not use."""

    plates = 1

    def __init__(self, frozen: bool) -> None:
        super().__init__()
        self.ring, _ = ring()
        self.unused = nn.Linear(2, 2).requires_grad_(not frozen)

    def forward(self, batch: Any) -> None:
        self.ring(batch)


def test_a_parameter_that_gets_no_gradient_is_named_after_the_first_step() -> None:
    message = r"no gradient reaches model.unused.weight, model.unused.bias: use them in forward, or freeze them"
    with pytest.raises(StructureError, match=message):
        fit(Forgotten(frozen=False), ring()[1], Vectors(torch.randn(6, 2)), training=Training(epochs=1, device="cpu"))


def test_a_frozen_parameter_needs_no_gradient() -> None:
    model = Forgotten(frozen=True)
    before = model.unused.weight.clone()
    fit(model, ring()[1], Vectors(torch.randn(6, 2)), training=Training(epochs=1, device="cpu"))
    assert torch.equal(model.unused.weight, before)


class Failing(PyroModule):
    """A guide whose logits stop being numbers at some call."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.map, self.left = nn.Linear(1, CLASSES), calls

    def forward(self, batch: Any) -> None:
        self.left -= 1
        logits = self.map(batch.lengths[:, None].float()) + (torch.nan if self.left < 0 else 0.0)
        with batch.documents():
            pyro.sample("c", dist.OneHotCategorical(logits=logits))


@pytest.mark.parametrize("calls", [0, 4, 6], ids=["at once", "in the first step", "later"])
@pytest.mark.parametrize("estimator", [Enumerate(), ScoreFunction(), Subset(1), Relax(), REBAR(), Marginalize()])
def test_logits_that_are_not_finite_end_training_in_one_line_that_names_the_site(
    estimator: Estimator, calls: int
) -> None:
    model, training = mixture()[0], Training(epochs=1, batch_size=8, device="cpu")
    if isinstance(estimator, Marginalize) and calls:
        fit(model, Failing(calls), Sentences(), Strategy(discrete=estimator), training)  # which does without the guide
        return
    with pytest.raises((StructureError, NumericalError)) as raised:
        fit(model, Failing(calls), Sentences(), Strategy(discrete=estimator), training)
    message = str(raised.value)
    assert "\n" not in message and "'c'" in message and "not finite" in message
    assert isinstance(raised.value, StructureError) == (calls == 0)
