"""A chain whose tags Pyro sums out step by step trains through the same door."""

from __future__ import annotations

import pytest
import torch

from pyro_nlp.inference import Marginalize, PyroELBO, Strategy, StructureError, Training, fit
from pyro_nlp.models.hmm import HMM, EnumeratedHMM
from tests.tiny import VOCABULARY, Sentences, gradients, text, whole

CHAIN = Strategy(discrete=Marginalize(), bound=PyroELBO("TraceEnum_ELBO"))


def pair() -> tuple[HMM, EnumeratedHMM]:
    torch.manual_seed(0)
    model = HMM(VOCABULARY, states=3)
    other = EnumeratedHMM(VOCABULARY, states=3)
    other.load_state_dict(model.state_dict())
    return model, other


def test_summed_by_pyro_a_chain_has_the_loss_and_gradient_of_the_distribution_that_sums_inside() -> None:
    (model, other), batch = pair(), whole(text(6))
    inside, outside = Strategy().compile(model, None, batch)(batch), CHAIN.compile(other, None, batch)(batch)
    torch.testing.assert_close(inside, outside, rtol=1e-5, atol=1e-5)
    (inside + outside).backward()
    one, two = gradients(model), gradients(other)
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5)


def test_both_forms_train_to_the_same_bound() -> None:
    bounds = [
        fit(model, None, Sentences(), strategy, Training(epochs=2, device="cpu")).history[-1]["valid.loss"]
        for model, strategy in zip(pair(), (Strategy(), CHAIN), strict=True)
    ]
    assert bounds[0] == pytest.approx(bounds[1], rel=1e-4)


def test_a_long_chain_is_refused_where_every_configuration_would_be_a_row() -> None:
    _, model = pair()
    with pytest.raises(StructureError, match=r"configurations per document .* the limit is 4,096"):
        Strategy(discrete=Marginalize()).compile(model, None, whole(text(6, longest=30)))
