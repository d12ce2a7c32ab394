"""HiddenMarkov against all K^T chains, and against the recursion written out in log space."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pyro
import pytest
import torch
from torch import Tensor

from pyro_nlp.distributions import HiddenMarkov, second_derivatives
from pyro_nlp.distributions import forward_backward as recursions

STATES, VOCABULARY, BATCH, TIME = 3, 5, 4, 4
EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}  # float64, some hundred operations

Logits = tuple[Tensor, Tensor, Tensor]


def logits(states: int = STATES, words: int = VOCABULARY, dtype: torch.dtype = torch.float64) -> Logits:
    shapes = (states,), (states, states), (states, words)
    initial, transition, emission = (torch.randn(s, dtype=dtype, requires_grad=True) for s in shapes)
    return initial, transition, emission


def sentences(
    lengths: tuple[int, ...] = (4, 1, 3, 2), words: int = VOCABULARY, extra: int = 0
) -> tuple[Tensor, Tensor]:
    """Words and mask, `[B, T]`."""
    time = max(lengths) + extra
    mask = torch.arange(time) < torch.tensor(lengths)[:, None]
    return torch.randint(words, (len(lengths), time)).masked_fill(~mask, 0), mask


def chains(given: Logits, words: Tensor) -> dict[tuple[int, ...], float]:
    """log p(words, chain) of every chain of one sentence without padding."""
    initial, transition, emission = (p.detach().double().log_softmax(-1) for p in given)
    found = {}
    for z in itertools.product(range(len(initial)), repeat=len(words)):
        steps = sum(float(transition[a, b]) for a, b in itertools.pairwise(z))
        emitted = sum(float(emission[k, w]) for k, w in zip(z, words.tolist(), strict=True))
        found[z] = float(initial[z[0]]) + steps + emitted
    return found


def by_hand(given: Logits, words: Tensor, mask: Tensor) -> Tensor:
    """log p of each sentence, by the textbook recursion in log space."""
    initial, transition, emission = (p.log_softmax(-1) for p in given)
    found = []
    for row, here in zip(words, mask, strict=True):
        alpha = None
        for w in row[here]:
            before = initial if alpha is None else (alpha[:, None] + transition).logsumexp(0)
            alpha = before + emission[:, w]
        found.append(initial.new_zeros(()) if alpha is None else alpha.logsumexp(0))
    return torch.stack(found)


def test_the_probability_is_the_sum_over_all_chains() -> None:
    given, (words, mask) = logits(), sentences()
    found = HiddenMarkov(*given, mask).log_prob(words).detach()
    for i in range(BATCH):
        every = torch.tensor(list(chains(given, words[i][mask[i]]).values()), dtype=torch.float64)
        assert float(found[i]) == pytest.approx(float(every.logsumexp(0)), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_value_and_gradients_equal_the_recursion_written_out(dtype: torch.dtype) -> None:
    given, (words, mask) = logits(6, 9, dtype), sentences((9, 0, 4, 9, 1, 30, 17), 9, extra=3)
    weight = torch.randn(len(words), dtype=dtype)  # an upstream gradient that differs between sentences, signs too
    found = HiddenMarkov(*given, mask).log_prob(words)
    exact = tuple(p.detach().double().requires_grad_() for p in given)
    wanted = by_hand(exact, words, mask)  # type: ignore[arg-type]
    close: dict[str, Any] = EXACT if dtype == torch.float64 else {"rtol": 1e-5, "atol": 1e-4}  # values near 60
    torch.testing.assert_close(found.double(), wanted, **close)
    for a, b in zip(
        torch.autograd.grad(found, given, weight), torch.autograd.grad(wanted, exact, weight.double()), strict=True
    ):
        assert a.dtype == dtype
        torch.testing.assert_close(a.double(), b, **close)


def test_gradients_pass_gradcheck() -> None:
    words, mask = sentences()
    assert torch.autograd.gradcheck(lambda *p: HiddenMarkov(*p, mask).log_prob(words), logits())


def test_second_derivatives_are_there_when_asked_for_and_refused_otherwise() -> None:
    given, (words, mask) = logits(), sentences()

    def slope() -> Tensor:
        value = HiddenMarkov(*given, mask).log_prob(words).sum()
        return sum(g.square().sum() for g in torch.autograd.grad(value, given, create_graph=True))  # type: ignore[return-value]

    with second_derivatives():
        slope().backward()
        assert torch.autograd.gradgradcheck(lambda *p: HiddenMarkov(*p, mask).log_prob(words), given)
    assert all(p.grad is not None and p.grad.any() for p in given)
    with pytest.raises(RuntimeError, match="does not require grad"):
        slope().backward()


def test_padding_changes_nothing_to_the_last_bit() -> None:
    given = logits(dtype=torch.float32)
    words, mask = sentences()
    results = []
    for filler, extra in ((0, 0), (4, 7)):
        wide = torch.cat([words.masked_fill(~mask, filler), torch.full((BATCH, extra), filler)], 1)
        real = torch.cat([mask, torch.zeros(BATCH, extra, dtype=torch.bool)], 1)
        x = HiddenMarkov(*given, real)
        value = x.log_prob(wide)
        gradients = torch.autograd.grad(value.sum(), given)
        results.append((value, *gradients, x.marginals(wide)[:, :TIME], *(v[..., :TIME] for v in x.viterbi(wide))))
        assert not x.marginals(wide)[~real].any()
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_sentence_is_the_same_alone_as_among_others() -> None:
    given, (words, mask) = logits(), sentences()
    together = HiddenMarkov(*given, mask).log_prob(words)
    for i in range(BATCH):
        alone = HiddenMarkov(*given, mask[i : i + 1]).log_prob(words[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], **EXACT)


def test_no_real_position_at_all_costs_nothing() -> None:
    given, mask = logits(), torch.zeros(2, 3, dtype=torch.bool)
    value = HiddenMarkov(*given, mask).log_prob(torch.zeros(2, 3, dtype=torch.long))
    value.sum().backward()
    assert value.tolist() == [0.0, 0.0]
    assert all(p.grad is None or not p.grad.any() for p in given)


@pytest.mark.parametrize("scale", [1.0, 8.0, 40.0, 1000.0], ids=lambda s: f"logits x {s:g}")
def test_float32_is_enough_for_extreme_logits_and_five_hundred_words(scale: float) -> None:
    shapes = (7,), (7, 7), (7, 50)
    exact = tuple((scale * torch.randn(s, dtype=torch.float64)).requires_grad_() for s in shapes)
    given = tuple(p.detach().float().requires_grad_() for p in exact)
    exact = tuple(p.detach().double().requires_grad_() for p in given)
    words, mask = sentences((500, 3, 250), 50)
    found, wanted = HiddenMarkov(*given, mask).log_prob(words), by_hand(exact, words, mask)  # type: ignore[arg-type]
    # 500 additions of numbers of size `scale` in float32, each relative to the sum so far
    torch.testing.assert_close(found.double(), wanted, rtol=2e-5, atol=1e-4)
    gradients = torch.autograd.grad(found.sum(), given), torch.autograd.grad(wanted.sum(), exact)
    for a, b in zip(*gradients, strict=True):
        assert a.isfinite().all()
        if scale < 1000:  # there float32 knows sums of size 1e6 to 0.1 only, and ties decide
            torch.testing.assert_close(a.double(), b, rtol=1e-2, atol=2e-2)


def test_two_chains_that_never_meet_are_both_remembered() -> None:
    # One is ahead by 100 nats at first, and behind by 200 in the end: in float32 the other one's share underflows.
    transition = torch.tensor([[0.0, -500.0], [-500.0, 0.0]])
    emission = torch.tensor([[0.0, -200.0, -1.0], [-100.0, -300.0, -0.01]]).log_softmax(-1)
    emission[:, 1] = -1e4
    words = torch.tensor([[0] + [2] * 200])
    given = (torch.zeros(2), transition, emission)
    found = HiddenMarkov(*given, torch.ones_like(words, dtype=torch.bool)).log_prob(words)
    wanted = by_hand(tuple(p.double() for p in given), words, words >= 0)  # type: ignore[arg-type]
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=0)


def test_what_cannot_be_is_minus_infinity_and_has_no_gradient() -> None:
    initial = torch.tensor([0.0, -math.inf], requires_grad=True)
    transition = torch.tensor([[0.0, -math.inf], [0.0, 0.0]], requires_grad=True)  # the second state is never reached
    emission = torch.tensor([[0.0, 0.0, -math.inf], [0.0, 0.0, 0.0]], requires_grad=True)
    words = torch.tensor([[0, 1], [0, 2]])
    value = HiddenMarkov(initial, transition, emission, torch.ones(2, 2, dtype=torch.bool)).log_prob(words)
    assert value.tolist() == [pytest.approx(2 * math.log(0.5)), -math.inf]
    value[0].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in (initial, transition, emission))


def test_parameters_that_are_not_numbers_show_in_the_value() -> None:
    given, (words, mask) = logits(), sentences()
    with torch.no_grad():
        given[1][0, 0] = math.nan
    assert HiddenMarkov(*given, mask).log_prob(words)[0].isnan()


def test_autocast_leaves_it_in_float32() -> None:
    given, (words, mask) = logits(dtype=torch.float32), sentences()
    found = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            value = HiddenMarkov(*given, mask).log_prob(words)
            found.append((value, *torch.autograd.grad(value.sum(), given)))
    assert all(a.dtype == torch.float32 and torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_the_gradient_can_be_taken_twice() -> None:
    given, (words, mask) = logits(), sentences()
    value = HiddenMarkov(*given, mask).log_prob(words).sum()
    first, second = (torch.autograd.grad(value, given, retain_graph=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_fast_form_is_the_one_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    given, (words, mask) = logits(), sentences()
    monkeypatch.setattr(recursions, "chain_log_prob", None)
    assert HiddenMarkov(*given, mask).log_prob(words).isfinite().all()


def test_marginals_and_the_likeliest_chain_are_those_of_all_chains() -> None:
    given, (words, mask) = logits(), sentences()
    x = HiddenMarkov(*given, mask)
    marginals, (path, best) = x.marginals(words), x.viterbi(words)
    for i in range(BATCH):
        length = int(mask[i].sum())
        every = chains(given, words[i, :length])
        joint = torch.tensor(list(every.values()), dtype=torch.float64).softmax(0)
        for t, k in itertools.product(range(length), range(STATES)):
            share = sum(float(p) for z, p in zip(every, joint, strict=True) if z[t] == k)
            assert float(marginals[i, t, k]) == pytest.approx(share, abs=1e-12)
        likeliest = max(every, key=lambda z: every[z])
        assert path[i].tolist() == [*likeliest, *[-1] * (TIME - length)]
        assert float(best[i]) == pytest.approx(every[likeliest], abs=1e-12)


def test_marginals_are_the_gradient_of_the_log_probability() -> None:
    given, (words, mask) = logits(), sentences()
    x = HiddenMarkov(*given, mask)
    counts = torch.zeros(STATES, VOCABULARY, dtype=torch.float64)
    counts.index_add_(1, words[mask], x.marginals(words)[mask].t())
    (gradient,) = torch.autograd.grad(x.log_prob(words).sum(), given[2])
    wanted = counts - counts.sum(1, keepdim=True) * given[2].softmax(1)
    torch.testing.assert_close(gradient, wanted, **EXACT)


def assert_frequencies(counts: Tensor, p: Tensor) -> None:
    """Every count within 4.5 standard errors: for 100 of them, wrong once in 1,500 seeds, and the seed is fixed."""
    draws = counts.sum()
    error = (p * (1 - p) / draws).sqrt()
    assert ((counts / draws - p).abs() <= 4.5 * error + 1e-12).all()


def test_posterior_samples_are_whole_chains_in_proportion() -> None:
    given, (words, mask) = logits(), sentences((3, 1))
    draws = 4000
    drawn = HiddenMarkov(*given, mask.repeat(draws, 1)).posterior_sample(words.repeat(draws, 1)).view(draws, 2, 3)
    for i, length in enumerate((3, 1)):
        every = chains(given, words[i, :length])
        place = {z: j for j, z in enumerate(every)}
        seen = torch.tensor([place[tuple(z)] for z in drawn[:, i, :length].tolist()])
        p = torch.tensor(list(every.values()), dtype=torch.float64).softmax(0)
        assert_frequencies(seen.bincount(minlength=len(every)).double(), p)
    assert (drawn[:, 1, 1:] == -1).all()


def test_samples_are_sentences_in_proportion() -> None:
    given, mask = logits(2, 3), torch.tensor([[True, True, False]])
    x = HiddenMarkov(*given, mask)
    drawn = x.sample((6000,))
    assert drawn.shape == (6000, 1, 3) and not drawn[..., 2].any() and x.support.check(drawn).all()
    every = torch.cartesian_prod(torch.arange(3), torch.arange(3))
    p = HiddenMarkov(*given, torch.ones(9, 2, dtype=torch.bool)).log_prob(every).detach().exp()
    assert float(p.sum()) == pytest.approx(1.0)
    assert_frequencies((drawn[:, 0, 0] * 3 + drawn[:, 0, 1]).bincount(minlength=9).double(), p)


def test_an_expanded_distribution_keeps_the_value_and_draws_each_element_on_its_own() -> None:
    given, (words, mask) = logits(), sentences((20, 20, 20, 20))
    narrow = HiddenMarkov(*given, mask)
    wide = narrow.expand([3, BATCH])
    assert (wide.batch_shape, wide.event_shape) == ((3, BATCH), (20,))
    assert torch.equal(wide.log_prob(words), narrow.log_prob(words).expand(3, BATCH))
    flat = wide.sample((2,)).flatten(0, 2)
    assert len(flat.unique(dim=0)) == len(flat)  # two of 24 agree with a probability below 1e-6


def test_values_with_more_left_dimensions_are_taken_one_by_one() -> None:
    given, (_, mask) = logits(), sentences()
    x, words = HiddenMarkov(*given, mask), torch.randint(VOCABULARY, (3, BATCH, TIME))
    found, marginals, (path, best) = x.log_prob(words), x.marginals(words), x.viterbi(words)
    assert found.shape == best.shape == (3, BATCH)
    assert marginals.shape == (3, BATCH, TIME, STATES)
    assert path.shape == x.posterior_sample(words).shape == (3, BATCH, TIME)
    for s in range(3):
        torch.testing.assert_close(found[s], x.log_prob(words[s]), **EXACT)
        torch.testing.assert_close(marginals[s], x.marginals(words[s]), **EXACT)


def test_a_plate_outside_the_sentences_expands_it() -> None:
    given, (words, mask) = logits(), sentences()

    def model() -> None:
        with pyro.plate("particles", 3, dim=-2), pyro.plate("documents", BATCH, dim=-1):
            pyro.sample("x", HiddenMarkov(*given, mask), obs=words)

    trace = pyro.poutine.trace(model).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["x"]["log_prob"].shape == (3, BATCH)


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"initial \[2\], transition \[3, 3\] and emission \[3, 5\] do not fit"):
        HiddenMarkov(torch.zeros(2), torch.zeros(3, 3), torch.zeros(3, 5), torch.ones(1, 2, dtype=torch.bool))
