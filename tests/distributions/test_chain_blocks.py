"""Emissions by blocks against the dense chain whose other emissions are impossible."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_nlp.distributions import HiddenMarkov, chain_blocks, second_derivatives
from pyro_nlp.distributions.chain_blocks import BlockEmission
from pyro_nlp.distributions.moves import Dense

BLOCKS = torch.tensor([1, 0, 2, 0, 1, 0, 2])  # of seven words: three, two and two
K, M, W = 6, 3, 3
LENGTHS = (5, 1, 0, 3, 4)
EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}  # float64, some hundred operations


def parameters(scale: float = 1.0) -> list[Tensor]:
    """Logits of the first state, of transitions, and of emissions by blocks."""
    torch.manual_seed(0)
    shapes: tuple[tuple[int, ...], ...] = ((K,), (K, K), (M, W, K // M))
    return [(scale * torch.randn(s, dtype=torch.float64)).requires_grad_() for s in shapes]


def sentences(extra: int = 0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    mask = torch.arange(max(LENGTHS) + extra) < torch.tensor(LENGTHS)[:, None]
    words = torch.randint(len(BLOCKS), (len(LENGTHS), max(LENGTHS))).repeat(1, 2)[:, : mask.shape[1]]
    return words.masked_fill(~mask, 0), mask


def both(given: list[Tensor], mask: Tensor) -> tuple[HiddenMarkov, HiddenMarkov]:
    """By blocks, and the dense one that says the same."""
    initial, transition, logits = given
    ours, dense = BlockEmission(logits, BLOCKS), BlockEmission(logits, BLOCKS).table()
    return HiddenMarkov(initial, transition, ours, mask), HiddenMarkov(initial, transition, dense, mask)


def test_its_table_is_minus_infinity_outside_the_blocks_and_what_it_looks_up_is_that_of_the_table() -> None:
    emission = BlockEmission(parameters()[-1].detach(), BLOCKS)
    table, words = emission.table(), sentences()[0]
    for state in range(K):
        for word, block in enumerate(BLOCKS.tolist()):
            place = BLOCKS[:word].tolist().count(block)
            wanted = emission.logits[block, place, state % 2] if block == state // 2 else -math.inf
            assert float(table[state, word]) == float(wanted)
    torch.testing.assert_close(emission.look_up(words), table.log_softmax(1).t()[words], **EXACT)
    torch.testing.assert_close(emission.rows(torch.tensor([4, 1])), table[[4, 1]])


@pytest.mark.parametrize("scale", [1.0, 30.0], ids=["mild", "extreme"])
def test_value_and_gradients_are_those_of_the_dense_chain(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_blocks, "_ROWS", 4)  # so that the table is taken in pieces
    given, (words, mask) = parameters(scale), sentences()
    found, wanted = (x.log_prob(words) for x in both(given, mask))
    torch.testing.assert_close(found, wanted, **EXACT)
    weight = torch.randn(len(LENGTHS), dtype=torch.float64)  # differs between sentences, signs too
    for a, b in zip(torch.autograd.grad(found, given, weight), torch.autograd.grad(wanted, given, weight), strict=True):
        torch.testing.assert_close(a, b, **EXACT)


def test_log_space_has_the_same_value_and_gradients_and_a_second_derivative() -> None:
    given, (words, mask) = parameters(), sentences()
    scaled = both(given, mask)[0].log_prob(words).sum()
    with second_derivatives():
        logs = both(given, mask)[0].log_prob(words).sum()
        torch.testing.assert_close(scaled, logs, **EXACT)
        first = torch.autograd.grad(logs, given, create_graph=True)
        for a, b in zip(torch.autograd.grad(scaled, given), first, strict=True):
            torch.testing.assert_close(a, b, **EXACT)
        assert all(
            g.isfinite().all()
            for g in torch.autograd.grad(torch.cat([x.flatten() for x in first]).square().sum(), given)
        )


def test_marginals_likeliest_chain_and_draws_are_those_of_the_dense_chain() -> None:
    given, (words, mask) = parameters(), sentences()
    ours, dense = both(given, mask)
    marginals = dense.marginals(words)
    torch.testing.assert_close(ours.marginals(words), marginals, **EXACT)
    torch.testing.assert_close(ours.viterbi(words), dense.viterbi(words), **EXACT)
    draws = 4000
    drawn = ours.posterior_sample(words.expand(draws, *words.shape))
    assert (drawn[:, ~mask] == -1).all()
    seen = torch.nn.functional.one_hot(drawn[:, mask], K).double().mean(0)
    error = (marginals[mask] * (1 - marginals[mask]) / draws).sqrt()
    assert ((seen - marginals[mask]).abs() <= 4.5 * error + 1e-9).all()


def test_padding_and_more_left_dimensions_change_nothing() -> None:
    given = parameters()
    plain, more = (both(given, mask)[0].log_prob(words) for words, mask in (sentences(), sentences(3)))
    torch.testing.assert_close(plain, more, **EXACT)
    words, mask = sentences()
    torch.testing.assert_close(both(given, mask)[0].log_prob(words.expand(2, 3, -1, -1)), plain.expand(2, 3, -1))


def test_words_are_written_by_the_states_of_their_block_alone() -> None:
    given, (_, mask) = parameters(), sentences()
    written = both(given, mask)[0].sample((200,))
    impossible = both(given, mask)[1].log_prob(written).isinf()
    assert not impossible.any() and (written[:, ~mask] == 0).all()


def test_what_does_not_fit_is_refused() -> None:
    (initial, transition, logits), (_, mask) = parameters(), sentences()
    with pytest.raises(ValueError, match="block 1 of 3 has no word: its states could emit nothing"):
        BlockEmission(logits, torch.tensor([0, 0, 0, 2]))
    with pytest.raises(ValueError, match="blocks are numbered from 0 to 2, one for each word"):
        BlockEmission(logits, torch.tensor([0, 1, 2, 3]))
    with pytest.raises(ValueError, match=r"logits \[3, 3, 2\] do not fit: the largest block has 1 words"):
        BlockEmission(logits, torch.tensor([0, 1, 2]))
    emission = BlockEmission(logits, BLOCKS)
    with pytest.raises(ValueError, match="emissions by blocks go with a table of transitions, and Dense is none"):
        HiddenMarkov(initial, Dense(transition), emission, mask)
    with pytest.raises(ValueError, match="known tags want other emissions"):
        HiddenMarkov(initial, transition, emission, mask, torch.full(mask.shape, -1))
