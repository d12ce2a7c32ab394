"""What a distribution's parameters say of the batch that it stands in."""

from __future__ import annotations

import pyro.distributions as dist
import pytest
import torch

from pyro_nlp.inference.support import constant

LOGITS, ROWS = torch.randn(3), torch.randn(5, 3)


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (dist.OneHotCategorical(logits=LOGITS).expand([2, 5]), True),
        (dist.OneHotCategorical(probs=LOGITS.softmax(-1)).expand([2, 5]), True),
        (dist.OneHotCategorical(logits=ROWS), False),
        (dist.OneHotCategorical(logits=ROWS).expand([2, 5]), False),
        (dist.Normal(torch.zeros(()), 1.0).expand([3]).to_event(1).expand([5]), True),
        (dist.Normal(LOGITS, 1.0).to_event(1).expand([5]), True),
        (dist.Normal(ROWS, 1.0).to_event(1), False),
        (dist.Normal(torch.zeros(5, 3), LOGITS.exp()).to_event(1), False),
        (dist.Dirichlet(LOGITS.exp()).expand([5]), True),
        (dist.Delta(LOGITS, event_dim=1).expand([4, 5]), True),
        (dist.Normal(LOGITS, 1.0).to_event(1).mask(torch.ones(5, dtype=torch.bool)), False),
    ],
)
def test_a_prior_is_the_same_in_its_whole_batch(fn: dist.TorchDistribution, expected: bool) -> None:
    assert constant(fn) is expected
