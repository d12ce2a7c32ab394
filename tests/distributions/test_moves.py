"""Every kind of transition against all K^T chains, with and without known tags."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_nlp.distributions import HiddenMarkov, chain_emissions, chain_sum, forward_backward, second_derivatives
from pyro_nlp.distributions.chain_emissions import FactoredEmission
from pyro_nlp.distributions.moves import Dense, LowRank, Moves, SecondOrder, Varying

K, V, B, T, R = 3, 5, 4, 4, 2
LENGTHS = (4, 1, 3, 2)
EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}  # float64, some hundred operations
TAGS = torch.tensor([[-1, 2, -1, -1], [-1] * 4, [1, -1, 0, -1], [0, 2, -1, -1]])
"""Known tags of four sentences: one of four, none, two of three, all."""


@dataclass(frozen=True)
class Kind:
    """A kind of moves, the shapes of its logits, and log p(z_t | z_<t) as one would write it down."""

    make: Callable[..., Moves]
    shapes: tuple[tuple[int, ...], ...]
    step: Callable[..., Tensor]


KINDS = {
    "dense": Kind(Dense, ((K, K),), lambda p, n, t, z: p[0].log_softmax(-1)[z[t - 1], z[t]]),
    "varying": Kind(Varying, ((B, T, K, K),), lambda p, n, t, z: p[0][n, t, z[t - 1]].log_softmax(-1)[z[t]]),
    "low rank": Kind(
        LowRank,
        ((K, R), (R, K)),
        lambda p, n, t, z: (p[0].softmax(-1) @ p[1].softmax(-1)).log()[z[t - 1], z[t]],
    ),
    "second order": Kind(
        SecondOrder,
        ((K + 1, K, K),),
        lambda p, n, t, z: p[0].log_softmax(-1)[z[t - 2] if t > 1 else K, z[t - 1], z[t]],
    ),
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
clamps = pytest.mark.parametrize("tags", [None, TAGS], ids=["no tag known", "some tags known"])


def parameters(kind: Kind, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """Logits of the first tag, of emissions, and of the moves."""
    torch.manual_seed(0)
    shapes = [(K,), (K, V), *kind.shapes]
    return [(scale * torch.randn(s, dtype=dtype)).requires_grad_() for s in shapes]


def sentences(extra: int = 0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    mask = torch.arange(T + extra) < torch.tensor(LENGTHS)[:, None]
    return torch.randint(V, (B, T)).repeat(1, 2)[:, : T + extra].masked_fill(~mask, 0), mask


def distribution(kind: Kind, given: list[Tensor], mask: Tensor, tags: Tensor | None = None) -> HiddenMarkov:
    initial, emission, *moves = given
    return HiddenMarkov(initial, kind.make(*moves), emission, mask, tags)


def chains(kind: Kind, given: list[Tensor], words: Tensor, n: int, tags: Tensor | None) -> dict[Any, Tensor]:
    """log p(words, chain) of every chain of sentence n that has the known tags."""
    initial, emission, *moves = given
    found = {}
    for z in itertools.product(range(K), repeat=LENGTHS[n]):
        if tags is not None and any(known not in (-1, tag) for known, tag in zip(tags[n].tolist(), z, strict=False)):
            continue
        total = initial.log_softmax(0)[z[0]]
        for t, tag in enumerate(z):
            total = total + emission[tag].log_softmax(0)[words[n, t]] + (kind.step(moves, n, t, z) if t else 0.0)
        found[z] = total
    return found


@kinds
@clamps
def test_value_and_gradients_are_those_of_all_chains(kind: Kind, tags: Tensor | None) -> None:
    given, (words, mask) = parameters(kind), sentences()
    found = distribution(kind, given, mask, tags).log_prob(words)
    wanted = torch.stack([torch.stack([*chains(kind, given, words, n, tags).values()]).logsumexp(0) for n in range(B)])
    torch.testing.assert_close(found, wanted, **EXACT)
    weight = torch.randn(B, dtype=torch.float64)  # differs between sentences, signs too
    for a, b in zip(torch.autograd.grad(found, given, weight), torch.autograd.grad(wanted, given, weight), strict=True):
        torch.testing.assert_close(a, b, **EXACT)


@kinds
@clamps
def test_log_space_has_the_same_value_and_gradients_and_a_second_derivative(kind: Kind, tags: Tensor | None) -> None:
    given, (words, mask) = parameters(kind), sentences()
    scaled = distribution(kind, given, mask, tags).log_prob(words).sum()
    with second_derivatives():
        logs = distribution(kind, given, mask, tags).log_prob(words).sum()
        torch.testing.assert_close(scaled, logs, **EXACT)
        first = torch.autograd.grad(logs, given, create_graph=True)
        for a, b in zip(torch.autograd.grad(scaled, given), first, strict=True):
            torch.testing.assert_close(a, b, **EXACT)
        assert all(g.isfinite().all() for g in torch.autograd.grad(sum(x.square().sum() for x in first), given))


@kinds
@clamps
def test_marginals_and_the_likeliest_chain_are_those_of_all_chains(kind: Kind, tags: Tensor | None) -> None:
    given, (words, mask) = parameters(kind), sentences()
    x = distribution(kind, given, mask, tags)
    marginals, (path, best) = x.marginals(words), x.viterbi(words)
    for n in range(B):
        every = {z: p.detach() for z, p in chains(kind, given, words, n, tags).items()}
        joint = torch.stack([*every.values()]).softmax(0)
        wanted = torch.zeros(T, K, dtype=torch.float64)
        for z, p in zip(every, joint.tolist(), strict=True):
            wanted[range(len(z)), list(z)] += p
        torch.testing.assert_close(marginals[n], wanted, **EXACT)
        likeliest = max(every, key=lambda z: float(every[z]))
        assert path[n].tolist() == [*likeliest, *[-1] * (T - LENGTHS[n])]
        assert float(best[n]) == pytest.approx(float(every[likeliest]), abs=1e-10)


def assert_frequencies(counts: Tensor, p: Tensor) -> None:
    """Every count within 4.5 standard errors."""
    error = (p * (1 - p) / counts.sum()).sqrt()
    assert ((counts / counts.sum() - p).abs() <= 4.5 * error + 1e-12).all()


@kinds
def test_chains_are_drawn_from_their_posterior(kind: Kind) -> None:
    given, (words, mask), draws = parameters(kind), sentences(), 4000
    x = distribution(kind, given, mask, TAGS)
    drawn = x.posterior_sample(words.expand(draws, B, T))
    for n in range(B):
        every = chains(kind, given, words, n, TAGS)
        place = {z: i for i, z in enumerate(every)}
        seen = torch.tensor([place[tuple(z)] for z in drawn[:, n, : LENGTHS[n]].tolist()])
        p = torch.stack([*every.values()]).softmax(0).detach()
        assert_frequencies(seen.bincount(minlength=len(every)).double(), p)
        assert (drawn[:, n, LENGTHS[n] :] == -1).all()


@kinds
def test_sentences_are_drawn_as_often_as_they_have_probability(kind: Kind) -> None:
    given, (_, mask) = parameters(kind), sentences()
    x = distribution(kind, given, mask)
    drawn = x.sample((6000,))
    assert drawn.shape == (6000, B, T) and not drawn[:, ~mask].any() and x.support.check(drawn).all()
    pairs = torch.cartesian_prod(torch.arange(V), torch.arange(V))
    words = torch.zeros(len(pairs), B, T, dtype=torch.long)
    words[:, 3, :2] = pairs
    p = x.log_prob(words)[:, 3].exp().detach()
    assert float(p.sum()) == pytest.approx(1.0)
    assert_frequencies((drawn[:, 3, 0] * V + drawn[:, 3, 1]).bincount(minlength=V * V).double(), p)


@kinds
def test_padding_changes_nothing(kind: Kind) -> None:
    given, found = parameters(kind, dtype=torch.float32), []
    for extra in (0, 3):
        words, mask = sentences(extra)
        moves = [F if F.dim() < 4 else torch.cat([F, torch.randn(B, extra, K, K)], 1) for F in given[2:]]
        x = distribution(kind, [*given[:2], *moves], mask)
        value = x.log_prob(words.masked_fill(~mask, 4))
        found.append((value, *torch.autograd.grad(value.sum(), given), x.viterbi(words)[0][:, :T]))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@kinds
def test_values_with_more_left_dimensions_are_taken_one_by_one(kind: Kind) -> None:
    given, (_, mask) = parameters(kind), sentences()
    x, words = distribution(kind, given, mask), torch.randint(V, (3, B, T))
    for s in range(3):
        torch.testing.assert_close(x.log_prob(words)[s], x.log_prob(words[s]), **EXACT)
        torch.testing.assert_close(x.marginals(words)[s], x.marginals(words[s]), **EXACT)
        assert torch.equal(x.viterbi(words)[0][s], x.viterbi(words[s])[0])


@kinds
@pytest.mark.parametrize("scale", [1.0, 15.0, 400.0], ids=lambda s: f"logits x {s:g}")
def test_float32_is_enough_for_extreme_logits(kind: Kind, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    words, mask = sentences()
    exact = [p.detach().float().double().requires_grad_() for p in parameters(kind, scale)]
    given = [p.detach().float().requires_grad_() for p in exact]
    types = []
    chosen = chain_sum._dtype
    monkeypatch.setattr(chain_sum, "_dtype", lambda *a: types.append(chosen(*a)) or types[-1])
    found = distribution(kind, given, mask, TAGS).log_prob(words)
    with second_derivatives():
        wanted = distribution(kind, exact, mask, TAGS).log_prob(words)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-4)
    for a, b in zip(torch.autograd.grad(found.sum(), given), torch.autograd.grad(wanted.sum(), exact), strict=True):
        torch.testing.assert_close(a.double(), b, rtol=1e-3, atol=1e-3)
    assert (types[0] is torch.float32) == (scale == 1.0) and (types[0] is None) == (scale == 400.0)


def test_an_impossible_sentence_is_minus_infinity_and_has_no_gradient() -> None:
    emission = torch.zeros(2, 3)
    emission[0, 2] = -math.inf
    emission.requires_grad_()
    logits, words = torch.zeros(2, 2, requires_grad=True), torch.tensor([[0, 2], [1, 1]])
    tags = torch.tensor([[-1, 0], [1, 0]])
    x = HiddenMarkov(torch.zeros(2), Dense(logits), emission, torch.ones(2, 2, dtype=torch.bool), tags)
    value = x.log_prob(words)
    assert value[0] == -math.inf and value[1].isfinite()
    value[1].backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in (logits, emission))


@clamps
def test_two_tables_and_known_tags_take_the_fast_form(tags: Tensor | None, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = KINDS["dense"]
    given, (words, mask) = parameters(kind), sentences()
    wanted = distribution(kind, given, mask, tags).log_prob(words)
    monkeypatch.setattr(forward_backward, "chain_log_prob", None)
    initial, emission, transition = given
    found = HiddenMarkov(initial, transition, emission, mask, tags).log_prob(words)
    torch.testing.assert_close(found, wanted, **EXACT)
    for a, b in zip(torch.autograd.grad(found.sum(), given), torch.autograd.grad(wanted.sum(), given), strict=True):
        torch.testing.assert_close(a, b, **EXACT)


@pytest.mark.parametrize("piece", [4_000_000, 2 * V], ids=["at once", "in pieces"])
def test_factored_emissions_are_those_of_their_table(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_emissions, "_PIECE", piece)
    words, mask = sentences()
    given = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((K, 2), (V, 2), (V,))]
    initial, transition = torch.randn(K, dtype=torch.float64), torch.randn(K, K, dtype=torch.float64)
    states, of_words, bias = given
    table = states @ of_words.t() + bias
    factored = HiddenMarkov(initial, Dense(transition), FactoredEmission(states, of_words, bias), mask, TAGS)
    found = factored.log_prob(words)
    wanted = HiddenMarkov(initial, transition, table, mask, TAGS).log_prob(words)
    torch.testing.assert_close(found, wanted, **EXACT)
    for a, b in zip(torch.autograd.grad(found.sum(), given), torch.autograd.grad(wanted.sum(), given), strict=True):
        torch.testing.assert_close(a, b, **EXACT)
    assert factored.sample().shape == (B, T)


def test_a_low_rank_chain_makes_no_square_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "unused")  # PyTorch sets it when a dispatch mode is first entered
    states, rank = 3000, 4
    given = [torch.randn(s, requires_grad=True) for s in ((states,), (states, rank), (rank, states))]
    sizes: list[int] = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            sizes.extend(x.numel() for x in (out if isinstance(out, tuple | list) else [out]) if isinstance(x, Tensor))
            return out

    words, mask = sentences()
    emission = FactoredEmission(torch.randn(states, 2), torch.randn(V, 2), torch.zeros(V))
    with Sizes():
        HiddenMarkov(given[0], LowRank(*given[1:]), emission, mask).log_prob(words).sum().backward()
    assert max(sizes) <= T * B * states < states**2  # the largest is as the emissions
    assert all(p.grad is not None and p.grad.any() for p in given)


def test_shapes_that_do_not_fit_are_refused() -> None:
    mask = torch.ones(1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"transition \[4, 4\] and emission \[3, 5\] do not fit"):
        HiddenMarkov(torch.zeros(3), LowRank(torch.zeros(4, 2), torch.zeros(2, 4)), torch.zeros(3, 5), mask)
    with pytest.raises(ValueError, match=r"states \[3, 2\], words \[5, 4\] and bias \[5\] do not fit"):
        FactoredEmission(torch.zeros(3, 2), torch.zeros(5, 4), torch.zeros(5))
