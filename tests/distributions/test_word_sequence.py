"""WordSequence against log_softmax, position by position, and inside Pyro."""

from __future__ import annotations

import math
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor, nn

from pyro_nlp.distributions import WordSequence

BATCH, TIME, WIDTH, VOCABULARY = 4, 5, 6, 9
# float32 sums of TIME numbers of size 10 computed in two orders
CLOSE: dict[str, Any] = {"rtol": 0, "atol": 1e-5}


@pytest.fixture
def head() -> nn.Linear:
    return nn.Linear(WIDTH, VOCABULARY)


@pytest.fixture
def mask() -> Tensor:
    return torch.arange(TIME) < torch.tensor([5, 1, 3, 2])[:, None]


def by_hand(states: Tensor, head: nn.Linear, mask: Tensor, words: Tensor) -> Tensor:
    """log p of each sentence, `[..., B]`, from a loop over positions."""
    left = torch.broadcast_shapes(states.shape[:-2], words.shape[:-1], mask.shape[:-1])
    states, words = states.expand(*left, TIME, WIDTH), words.expand(*left, TIME)
    log_p = head(states).log_softmax(-1)
    total = torch.zeros(left)
    for t in range(TIME):
        chosen = log_p[..., t, :].gather(-1, words[..., t, None]).squeeze(-1)
        total = total + torch.where(mask[..., t], chosen, torch.zeros(()))
    return total


SHAPES = {
    "a batch": ((BATCH,), (BATCH,)),
    "particles": ((3, BATCH), (BATCH,)),
    "enumerated values of a latent, and particles": ((2, 3, BATCH), (BATCH,)),
    "an enumerated dimension of one": ((2, 1, BATCH), (BATCH,)),
    "more left dimensions in the value": ((BATCH,), (3, BATCH)),
    "different ones in both": ((2, 1, BATCH), (3, BATCH)),
    "one document's states for all": ((1,), (BATCH,)),
}


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("uniform", [True, False], ids=["mean loss", "weighted loss"])
def test_value_and_gradients_equal_a_loop_over_positions(
    shapes: tuple[tuple[int, ...], ...], uniform: bool, head: nn.Linear, mask: Tensor
) -> None:
    states = torch.randn(*shapes[0], TIME, WIDTH, requires_grad=True)
    words = torch.randint(VOCABULARY, (*shapes[1], TIME))
    found, wanted = WordSequence(states, head, mask).log_prob(words), by_hand(states, head, mask, words)
    assert found.shape == wanted.shape == torch.broadcast_shapes(*shapes, (BATCH,))
    torch.testing.assert_close(found, wanted, **CLOSE)
    weight = torch.ones_like(wanted) if uniform else torch.randn(wanted.shape)
    inputs = [states, head.weight, head.bias]
    gradients = (torch.autograd.grad(value, inputs, weight) for value in (found, wanted))
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


def test_without_a_bias_it_is_the_same() -> None:
    head = nn.Linear(WIDTH, VOCABULARY, bias=False)
    states, words = torch.randn(BATCH, TIME, WIDTH), torch.randint(VOCABULARY, (BATCH, TIME))
    mask = torch.ones(BATCH, TIME, dtype=torch.bool)
    found = WordSequence(states, head, mask).log_prob(words)
    torch.testing.assert_close(found, by_hand(states, head, mask, words), **CLOSE)


def test_padding_changes_neither_value_nor_gradient_even_where_its_states_are_nan(
    head: nn.Linear, mask: Tensor
) -> None:
    states = torch.randn(BATCH, TIME, WIDTH)
    words = torch.randint(VOCABULARY, (BATCH, TIME))
    weight = torch.randn(BATCH)  # an upstream gradient that differs between sentences

    def run(states: Tensor, words: Tensor, mask: Tensor) -> tuple[Tensor, list[Tensor]]:
        states = states.clone().requires_grad_()
        value = WordSequence(states, head, mask).log_prob(words)
        return value.detach(), list(torch.autograd.grad(value, [states, head.weight, head.bias], weight))

    value, (d_states, d_weight, d_bias) = run(states, words, mask)
    longer = torch.cat([states.masked_fill(~mask[..., None], math.nan), torch.full((BATCH, 3, WIDTH), math.nan)], 1)
    more = torch.zeros(BATCH, 3, dtype=torch.long)
    value_2, (d_states_2, d_weight_2, d_bias_2) = run(
        longer, torch.cat([words, more], 1), torch.cat([mask, more.bool()], 1)
    )
    assert torch.equal(value, value_2)
    assert torch.equal(d_weight, d_weight_2) and torch.equal(d_bias, d_bias_2)
    assert torch.equal(d_states, d_states_2[:, :TIME])
    assert torch.equal(d_states_2[:, TIME:], torch.zeros(BATCH, 3, WIDTH))
    assert torch.equal(d_states_2[:, :TIME][~mask], torch.zeros(int((~mask).sum()), WIDTH))


def test_a_document_without_a_real_position_costs_nothing(head: nn.Linear) -> None:
    states = torch.randn(2, TIME, WIDTH, requires_grad=True)
    value = WordSequence(states, head, torch.zeros(2, TIME, dtype=torch.bool)).log_prob(
        torch.zeros(2, TIME, dtype=torch.long)
    )
    assert value.tolist() == [0.0, 0.0]
    value.sum().backward()
    assert states.grad is not None and torch.equal(states.grad, torch.zeros_like(states))


def test_expand_adds_batch_dimensions_and_keeps_the_value(head: nn.Linear, mask: Tensor) -> None:
    states, words = torch.randn(BATCH, TIME, WIDTH), torch.randint(VOCABULARY, (BATCH, TIME))
    narrow = WordSequence(states, head, mask)
    wide = narrow.expand([3, BATCH])
    assert (wide.batch_shape, wide.event_shape) == ((3, BATCH), (TIME,))
    assert torch.equal(wide.log_prob(words), narrow.log_prob(words).expand(3, BATCH))
    assert wide.shape() == (3, BATCH, TIME)


def test_a_plate_outside_the_states_expands_it(head: nn.Linear, mask: Tensor) -> None:
    words = torch.randint(VOCABULARY, (BATCH, TIME))

    def model() -> None:
        with pyro.plate("particles", 3, dim=-2), pyro.plate("documents", BATCH, dim=-1):
            pyro.sample("x", WordSequence(torch.zeros(BATCH, TIME, WIDTH), head, mask), obs=words)

    trace = pyro.poutine.trace(model).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["x"]["log_prob"].shape == (3, BATCH)


def test_samples_are_ids_of_the_vocabulary_with_padding_outside_the_mask(head: nn.Linear, mask: Tensor) -> None:
    distribution = WordSequence(torch.randn(BATCH, TIME, WIDTH), head, mask)
    drawn = distribution.sample((7,))
    assert drawn.shape == (7, BATCH, TIME) and drawn.dtype == torch.long
    assert ((drawn >= 0) & (drawn < VOCABULARY)).all()
    assert not drawn[:, ~mask].any()
    assert distribution.support.check(drawn).all()
    assert not drawn.requires_grad


def test_an_expanded_distribution_draws_every_element_on_its_own(head: nn.Linear, mask: Tensor) -> None:
    distribution = WordSequence(torch.zeros(BATCH, TIME, WIDTH), head, mask).expand([3, BATCH])
    drawn = distribution.sample((2,))
    assert drawn.shape == (2, 3, BATCH, TIME)
    flat = drawn.flatten(0, 1)
    # two of six copies of eleven nearly uniform words agree with probability 15 * 9**-11
    assert all(not torch.equal(flat[i], flat[j]) for i in range(6) for j in range(i))


def test_samples_follow_the_probabilities() -> None:
    head = nn.Linear(WIDTH, VOCABULARY)
    states = torch.randn(1, 1, WIDTH)
    distribution = WordSequence(states, head, torch.ones(1, 1, dtype=torch.bool))
    draws = 20_000
    counts = distribution.sample((draws,)).flatten().bincount(minlength=VOCABULARY)
    expected = distribution.logits.detach().softmax(-1).flatten() * draws
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 36.4  # 8 degrees of freedom, level 1.5e-5


def test_logits_are_those_of_the_vocabulary_layer(head: nn.Linear, mask: Tensor) -> None:
    states = torch.randn(2, BATCH, TIME, WIDTH)
    assert torch.equal(WordSequence(states, head, mask).logits, head(states))
