"""The fused vocabulary layer against plain autograd over log_softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_nlp.distributions import fused, second_derivatives, target_log_prob, uneven_rows

ROWS, WIDTH, VOCABULARY = 200, 8, 30

EPSILON = torch.finfo(torch.float32).eps


def problem(rows: int = ROWS, dtype: torch.dtype = torch.float32, bias: bool = True) -> list[Tensor | None]:
    states, weight, offset = (
        torch.randn(*shape, dtype=dtype, requires_grad=True)
        for shape in ((rows, WIDTH), (VOCABULARY, WIDTH), (VOCABULARY,))
    )
    return [states, weight, offset if bias else None]


def reference(states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    logits = states @ weight.T + (0.0 if bias is None else bias)
    return logits.log_softmax(-1)[torch.arange(len(targets)), targets]


def value_and_gradients(
    function: Callable[..., Tensor], inputs: list[Tensor | None], targets: Tensor, upstream: Tensor
) -> list[Tensor]:
    value = function(*inputs, targets)
    wanted = [i for i in inputs if i is not None]
    return [value.detach(), *torch.autograd.grad(value, wanted, upstream.to(value.dtype))]


def assert_close(found: list[Tensor], wanted: list[Tensor], terms: int) -> None:
    """Sums of `terms` numbers in float32: an error of a few sqrt(terms) roundings of the largest element."""
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        scale = max(1.0, float(b.abs().max()))
        torch.testing.assert_close(a.double(), b.double(), rtol=0, atol=8 * terms**0.5 * EPSILON * scale)


UPSTREAM = {
    "the same in every row": lambda rows: torch.full((rows,), -0.37),
    "different in every row": torch.randn,
    "zero in some rows": lambda rows: (torch.arange(rows) % 3 == 0).float(),
    "zero in every row": torch.zeros,
}


@pytest.mark.parametrize("chunk", [1, 64 * VOCABULARY, 10**9], ids=["many chunks", "a few", "one"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("upstream", UPSTREAM)
def test_value_and_gradients_equal_autograd(
    upstream: str, bias: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "_CHUNK_ELEMENTS", chunk)
    inputs, targets = problem(bias=bias), torch.randint(VOCABULARY, (ROWS,))
    weight = UPSTREAM[upstream](ROWS)
    wanted = value_and_gradients(reference, [i if i is None else i.double() for i in inputs], targets, weight)
    assert_close(value_and_gradients(target_log_prob, inputs, targets, weight), wanted, ROWS)


@pytest.mark.parametrize("upstream", UPSTREAM)
def test_rows_said_to_be_uneven_have_their_gradient_taken_once_and_it_is_the_same(
    upstream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs, targets, weight = problem(), torch.randint(VOCABULARY, (ROWS,)), UPSTREAM[upstream](ROWS)
    wanted = value_and_gradients(target_log_prob, inputs, targets, weight)
    by_chunks, passes = fused._by_chunks, []
    monkeypatch.setattr(fused, "_by_chunks", lambda *a: passes.append(a[-1]) or by_chunks(*a))

    def uneven(*arguments: Any) -> Tensor:
        with uneven_rows():
            return target_log_prob(*arguments)

    assert_close(value_and_gradients(uneven, inputs, targets, weight), wanted, ROWS)
    assert passes == [False, True]


def test_chunks_are_really_more_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    products = []
    addmm = torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda *a, **k: products.append(len(a[1])) or addmm(*a, **k))
    monkeypatch.setattr(fused, "_CHUNK_ELEMENTS", 64 * VOCABULARY)
    inputs = problem()
    target_log_prob(*inputs, torch.zeros(ROWS, dtype=torch.long))
    assert products == [50, 50, 50, 50]  # equal ones


def test_float64_keeps_its_precision() -> None:
    inputs, targets = problem(dtype=torch.float64), torch.randint(VOCABULARY, (ROWS,))
    weight = torch.randn(ROWS)
    found = value_and_gradients(target_log_prob, inputs, targets, weight)
    wanted = value_and_gradients(reference, inputs, targets, weight)
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == torch.float64
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("upstream", UPSTREAM)
def test_a_second_backward_pass_over_a_retained_graph_gives_the_same_gradient(upstream: str) -> None:
    inputs, targets, weight = problem(), torch.randint(VOCABULARY, (ROWS,)), UPSTREAM[upstream](ROWS)
    value = target_log_prob(*inputs, targets)
    first, second = (torch.autograd.grad(value, inputs, weight, retain_graph=True) for _ in range(2))
    assert_close(list(second), list(first), ROWS)


def test_the_gradient_given_first_is_not_changed_by_the_second_backward_pass() -> None:
    inputs, targets = problem(), torch.randint(VOCABULARY, (ROWS,))
    value = target_log_prob(*inputs, targets)
    first = torch.autograd.grad(value, inputs, torch.ones(ROWS), retain_graph=True)
    kept = [g.clone() for g in first]
    torch.autograd.grad(value, inputs, 2 * torch.ones(ROWS))
    assert all(torch.equal(a, b) for a, b in zip(first, kept, strict=True))


def test_the_backward_pass_refuses_to_be_differentiated() -> None:
    inputs = problem(rows=3)
    value = target_log_prob(*inputs, torch.zeros(3, dtype=torch.long)).sum()
    (gradient, *_) = torch.autograd.grad(value, inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable|does not require grad"):
        gradient.sum().backward()


def test_second_derivatives_are_right_where_they_are_asked_for() -> None:
    inputs, targets = problem(rows=4, dtype=torch.float64), torch.randint(VOCABULARY, (4,))
    with second_derivatives():
        assert torch.autograd.gradcheck(lambda *i: target_log_prob(*i, targets), inputs)
        assert torch.autograd.gradgradcheck(lambda *i: target_log_prob(*i, targets), inputs)


def test_the_switch_for_second_derivatives_is_put_back_after_an_error() -> None:
    with pytest.raises(KeyError), second_derivatives():
        raise KeyError
    value = target_log_prob(*problem(rows=2), torch.zeros(2, dtype=torch.long))
    assert "TargetLogProb" in type(value.grad_fn).__name__


@pytest.mark.parametrize("upstream", UPSTREAM)
def test_autocast_to_bf16_is_close_and_returns_float32(upstream: str) -> None:
    inputs, targets, weight = problem(), torch.randint(VOCABULARY, (ROWS,)), UPSTREAM[upstream](ROWS)
    wanted = value_and_gradients(reference, inputs, targets, weight)
    with torch.autocast("cpu", torch.bfloat16):
        found = value_and_gradients(target_log_prob, inputs, targets, weight)
    assert found[0].dtype == torch.float32
    # 8 bits of mantissa in states, weights and logits of size |h||w| ~ 8: absolute errors of a few 2**-8 * 8
    torch.testing.assert_close(found[0], wanted[0], rtol=0, atol=0.25)
    assert (found[0] - wanted[0]).mean().abs() < 4 * 0.25 / ROWS**0.5  # and they cancel
    for a, b in zip(found[1:], wanted[1:], strict=True):
        assert a.dtype == torch.float32
        assert float((a - b).norm()) <= 0.02 * float(b.norm())


@pytest.mark.parametrize("bias", [True, False])
def test_no_rows_give_an_empty_value_and_zero_gradients(bias: bool) -> None:
    inputs = problem(rows=0, bias=bias)
    value = target_log_prob(*inputs, torch.zeros(0, dtype=torch.long))
    assert value.shape == (0,)
    value.sum().backward()
    for tensor in inputs:
        if tensor is not None:
            assert tensor.grad is not None and torch.equal(tensor.grad, torch.zeros_like(tensor))


def test_without_gradients_none_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    by_chunks = fused._by_chunks
    monkeypatch.setattr(fused, "_by_chunks", lambda *a: asked.append(a[-1]) or by_chunks(*a))
    inputs, targets = problem(), torch.randint(VOCABULARY, (ROWS,))
    with torch.no_grad():
        value = target_log_prob(*inputs, targets)
    assert asked == [False]
    torch.testing.assert_close(value, target_log_prob(*inputs, targets).detach())  # float32: two ways of rounding


def test_huge_logits_do_not_overflow() -> None:
    states = torch.full((2, 1), 1e4, requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0]], requires_grad=True)
    value = target_log_prob(states, weight, None, torch.tensor([0, 1]))
    assert value.tolist() == [0.0, -2e4]
    value.sum().backward()
    assert states.grad is not None and states.grad.isfinite().all()


def test_only_the_inputs_that_want_a_gradient_get_one() -> None:
    states, weight, bias = problem()
    assert states is not None and weight is not None
    frozen = weight.detach()
    target_log_prob(states, frozen, None, torch.zeros(ROWS, dtype=torch.long)).sum().backward()
    assert states.grad is not None and frozen.grad is None and bias is not None and bias.grad is None
