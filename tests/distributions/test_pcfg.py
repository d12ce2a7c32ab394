"""The inside algorithm against all trees one by one, and what is read off its chart."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from pyro_nlp.distributions import emissions as emissions_module
from pyro_nlp.distributions import pcfg as pcfg_module
from pyro_nlp.distributions import second_derivatives
from pyro_nlp.distributions.charts import Span
from pyro_nlp.distributions.emissions import Emissions, log_total
from pyro_nlp.distributions.grammars import BLANK
from pyro_nlp.distributions.pcfg import PCFG

N, P, V = 2, 3, 4
S = N + P
LENGTHS = (6, 2, 3, 1, 4, 5)
B, T = len(LENGTHS), max(LENGTHS)
KINDS = ("shared", "shifted", "own", "layer")


class Made(NamedTuple):
    grammar: PCFG
    words: Tensor
    parameters: list[Tensor]
    tables: Callable[[int], tuple[Tensor, Tensor, Tensor]]


def make(kind: str, n: int = N, p: int = P, lengths: tuple[int, ...] = LENGTHS, spread: float = 1.0) -> Made:
    """A random grammar, sentences, its parameters, and log tables of row i: root, rules `[n, s, s]`, emissions."""
    rows, s, v = len(lengths), n + p, V

    def draw(*shape: int) -> Tensor:
        return (spread * torch.randn(*shape)).requires_grad_()

    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    words = torch.randint(v, mask.shape)
    root = draw(rows, s)
    rules = draw(rows, n, s * s) if kind == "own" else draw(n, s * s)
    shift = draw(rows, s * s) if kind in ("shifted", "layer") else None
    if kind == "layer":
        of = Emissions(draw(rows, p, 5), draw(v, 5), draw(v))
    else:
        of = Emissions(draw(rows, p, v) if kind == "own" else draw(p, v))
    parameters = [x for x in (root, rules, shift, *of) if x is not None]

    def tables(i: int) -> tuple[Tensor, Tensor, Tensor]:
        own = (rules[i] if rules.dim() == 3 else rules) + (0 if shift is None else shift[i])
        states = of.states[i] if of.states.dim() == 3 else of.states
        logits = states if of.weight is None else states @ of.weight.t() + of.bias
        return root[i].log_softmax(-1), own.log_softmax(-1).view(n, s, s), logits.log_softmax(-1)

    return Made(PCFG(root, rules, of, mask, shift), words, parameters, tables)


def shapes(start: int, end: int) -> list[list[tuple[int, int]]]:
    """All binary trees over some words, as their spans from the top down."""
    if end - start == 1:
        return [[(start, end)]]
    return [
        [(start, end), *left, *right]
        for cut in range(start + 1, end)
        for left, right in product(shapes(start, cut), shapes(cut, end))
    ]


def all_trees(tables: tuple[Tensor, Tensor, Tensor], words: list[int]) -> tuple[Tensor, list[tuple[Any, Tensor]]]:
    """log p(tree, words) of every tree, and with each shape its assignments `[., 2n - 1]`, in the same order."""
    root, rules, emission = tables
    n, s = rules.shape[:2]
    scores, trees = [], []
    for shape in shapes(0, len(words)):
        options = [torch.arange(n) if end - start > 1 else torch.arange(n, s) for start, end in shape]
        symbols = torch.cartesian_prod(*options).view(-1, len(shape))
        score = root[symbols[:, 0]]
        for node, (start, end) in enumerate(shape):
            if end - start == 1:
                score = score + emission[symbols[:, node] - n, words[start]]
                continue
            left = next(i for i in range(node + 1, len(shape)) if shape[i][0] == start)
            right = shape.index((shape[left][1], end))
            score = score + rules[symbols[:, node], symbols[:, left], symbols[:, right]]
        scores.append(score)
        trees.append((shape, symbols))
    return torch.cat(scores), trees


@pytest.mark.parametrize("kind", KINDS)
def test_the_inside_algorithm_is_the_sum_over_all_trees_and_so_is_its_gradient(kind: str) -> None:
    made = make(kind)
    exact = torch.stack(
        [all_trees(made.tables(i), made.words[i, :n].tolist())[0].logsumexp(0) for i, n in enumerate(LENGTHS)]
    )
    found = made.grammar.log_prob(made.words)
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-5)
    weight = torch.randn(B)
    gradients = (torch.autograd.grad((of * weight).sum(), made.parameters) for of in (found, exact))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_by_products_and_in_log_space_are_one_at_other_sizes_too(kind: str) -> None:
    made = make(kind, n=5, p=4, lengths=(2, 14, 9, 12))
    found = made.grammar.log_prob(made.words)
    with second_derivatives():
        slow = made.grammar.log_prob(made.words)
    torch.testing.assert_close(found, slow, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(*(torch.autograd.grad(x.sum(), made.parameters) for x in (found, slow)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)


@pytest.mark.filterwarnings("ignore")
def test_torch_struct_finds_the_same_value_and_gradient() -> None:
    struct = pytest.importorskip("torch_struct")
    n, p, lengths = 5, 7, (12, 3, 8)
    made = make("own", n, p, lengths)
    of = [made.tables(i) for i in range(3)]
    emitted = torch.stack([log_p[:, words].t() for (_, _, log_p), words in zip(of, made.words, strict=True)])
    # its roots are nonterminals only, so ours are not normalised over these alone
    potentials = (emitted.contiguous(), torch.stack([x[1] for x in of]), torch.stack([x[0][:n] for x in of]))
    theirs = struct.SentCFG(potentials, lengths=torch.tensor(lengths)).partition
    ours = made.grammar.log_prob(made.words)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for a, b in zip(*(torch.autograd.grad(x.sum(), made.parameters) for x in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_likeliest_tree_is_the_best_of_all_and_marginals_are_sums_over_all(kind: str) -> None:
    made = make(kind, spread=2.0)
    trees, scores = made.grammar.viterbi(made.words)
    marginals = made.grammar.marginals(made.words)
    for i, length in enumerate(LENGTHS):
        every, of = all_trees(made.tables(i), made.words[i, :length].tolist())
        torch.testing.assert_close(scores[i], every.max(), rtol=1e-5, atol=1e-5)
        best = int(every.argmax())
        for shape, symbols in of:
            if best < len(symbols):
                assert trees[i] == [Span(*span, int(x)) for span, x in zip(shape, symbols[best], strict=True)]
                break
            best -= len(symbols)
        exact, at = torch.zeros(T, T), 0
        for shape, symbols in of:
            share = (every[at : at + len(symbols)].logsumexp(0) - every.logsumexp(0)).exp().detach()
            at += len(symbols)
            for start, end in shape:
                exact[start, end - 1] += share
        torch.testing.assert_close(marginals[i], exact, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(marginals.sum((1, 2)), 2.0 * torch.tensor(LENGTHS) - 1, rtol=1e-5, atol=1e-5)


def test_trees_are_drawn_from_their_posterior() -> None:
    made, draws = make("shared", lengths=(5,), spread=2.0), 2000
    exact = made.grammar.marginals(made.words)[0]
    trees = made.grammar.posterior_sample(made.words.expand(draws, 1, -1))
    assert len(trees) == draws and all(len(tree) == 9 for tree in trees)
    share = torch.zeros_like(exact)
    for start, end, _ in (span for tree in trees for span in tree):
        share[start, end - 1] += 1
    share /= draws
    error = (exact * (1 - exact)).clamp(min=0).div(draws).sqrt()
    assert ((share - exact).abs() <= 4.5 * error + 1e-6).all()


def test_lengths_are_sums_over_all_sentences_and_sentences_are_drawn_given_theirs() -> None:
    made = make("shifted", lengths=(3, 3))
    grammar = made.grammar
    lengths = grammar.log_lengths(4)
    for length in range(1, 5):
        every = torch.tensor(list(product(range(V), repeat=length)))
        mask = torch.ones(len(every), 1, length, dtype=torch.bool)
        of = PCFG(grammar.root, grammar.rules, grammar.emissions, mask, grammar.shift)
        total = of.log_prob(every[:, None]).logsumexp(0)
        torch.testing.assert_close(lengths[:, length - 1], total, rtol=1e-5, atol=1e-5)
        if length == 3:
            exact = (of.log_prob(every[:, None]) - total).exp().detach()  # p(x | 3 words), [V^3, 2]
    drawn = grammar.sample((3000,))
    assert drawn.shape == (3000, 2, 3)
    code = (drawn * torch.tensor([V * V, V, 1])).sum(-1)
    share = torch.stack([code[:, i].bincount(minlength=V**3) / 3000 for i in range(2)], 1)
    assert ((share - exact).abs() <= 4.5 * (exact * (1 - exact) / 3000).sqrt() + 1e-4).all()


@pytest.mark.parametrize("kind", KINDS)
def test_blanks_get_the_likeliest_words_and_tree_together(kind: str) -> None:
    made = make(kind, spread=2.0, lengths=(4, 3))
    given = made.words.clone()
    given[0, [0, 2]] = given[1, 1] = BLANK
    found = made.grammar.complete(given)
    for i, length in enumerate((4, 3)):
        blanks = [t for t in range(length) if given[i, t] == BLANK]
        best, score = None, -float("inf")
        for words in product(range(V), repeat=len(blanks)):
            filled = given[i, :length].clone()
            filled[blanks] = torch.tensor(words)
            here = float(all_trees(made.tables(i), filled.tolist())[0].max().detach())
            if here > score:
                best, score = filled, here
        assert best is not None and torch.equal(found[i, :length], best)


def test_padding_and_company_change_nothing_and_padding_gets_no_gradient() -> None:
    made = make("layer")
    grammar, words = made.grammar, made.words
    found = grammar.log_prob(words)
    more = torch.cat([words, torch.full((B, 3), V - 1)], 1)
    mask = torch.cat([grammar.mask_, torch.zeros(B, 3, dtype=torch.bool)], 1)
    again = PCFG(grammar.root, grammar.rules, grammar.emissions, mask, grammar.shift)
    torch.testing.assert_close(again.log_prob(more), found, rtol=0, atol=0)
    assert again.marginals(more).shape == (B, T + 3, T + 3)
    for i, length in enumerate(LENGTHS):
        states = grammar.emissions._replace(states=grammar.emissions.states[i : i + 1])
        one = PCFG(grammar.root[i : i + 1], grammar.rules, states, mask[i : i + 1, :length], grammar.shift[i : i + 1])
        torch.testing.assert_close(one.log_prob(words[i : i + 1, :length])[0], found[i], rtol=1e-6, atol=1e-6)
    (gradient,) = torch.autograd.grad(again.log_prob(more)[0], grammar.emissions.states)
    assert gradient.isfinite().all() and not gradient[1:].any()


def test_particles_and_shared_grammars_are_left_dimensions() -> None:
    made = make("layer")
    grammar, (states, weight, bias) = made.grammar, made.grammar.emissions
    three = [torch.stack([x, 2 * x, -x]) for x in (grammar.root, states, grammar.shift)]
    found = PCFG(three[0], grammar.rules, Emissions(three[1], weight, bias), grammar.mask_, three[2])
    assert found.batch_shape == (3, B) and found.log_prob(made.words).shape == (3, B)
    for i in range(3):
        alone = PCFG(three[0][i], grammar.rules, Emissions(three[1][i], weight, bias), grammar.mask_, three[2][i])
        torch.testing.assert_close(alone.log_prob(made.words), found.log_prob(made.words)[i], rtol=1e-6, atol=1e-6)
    expanded = grammar.expand((2, B))
    torch.testing.assert_close(expanded.log_prob(made.words), grammar.log_prob(made.words).expand(2, B))
    assert expanded.sample().shape == (2, B, T)


def test_probabilities_beyond_float32_are_taken_in_log_space_with_a_finite_gradient() -> None:
    made = make("shifted", lengths=(9, 7, 2), spread=60.0)
    found = made.grammar.log_prob(made.words)
    with second_derivatives():
        slow = made.grammar.log_prob(made.words)
    torch.testing.assert_close(found, slow, rtol=1e-5, atol=1e-5)
    assert found.isfinite().all()
    assert all(g.isfinite().all() for g in torch.autograd.grad(found.sum(), made.parameters))


def test_it_is_differentiable_twice_within_second_derivatives() -> None:
    made = make("layer", lengths=(5, 2))
    with second_derivatives():
        total = made.grammar.log_prob(made.words).sum()
        (first,) = torch.autograd.grad(total, made.parameters[1], create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), made.parameters[1])
    step = 1e-2
    with torch.no_grad():
        direction = torch.randn_like(second)
    norms = []
    for sign in (1, -1):
        moved = made.grammar.rules + sign * step * direction
        grammar = PCFG(made.grammar.root, moved, made.grammar.emissions, made.grammar.mask_, made.grammar.shift)
        (gradient,) = torch.autograd.grad(grammar.log_prob(made.words).sum(), moved)
        norms.append(gradient.square().sum())
    torch.testing.assert_close((norms[0] - norms[1]) / (2 * step), (second * direction).sum(), rtol=1e-2, atol=1e-3)


def test_a_batch_too_large_for_the_memory_is_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    made = make("layer")
    whole = made.grammar.log_prob(made.words)
    gradients = torch.autograd.grad(whole.sum(), made.parameters)
    monkeypatch.setattr(pcfg_module, "_BUDGET", 1)
    parts = made.grammar.log_prob(made.words)
    torch.testing.assert_close(parts, whole, rtol=1e-6, atol=1e-6)
    for a, b in zip(torch.autograd.grad(parts.sum(), made.parameters), gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("keep", [0, 10**9])
def test_the_normaliser_of_the_words_is_a_logsumexp_in_chunks(keep: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emissions_module, "_CHUNK_ELEMENTS", 30)
    monkeypatch.setattr(emissions_module, "_KEEP_ELEMENTS", keep)
    states, weight, bias = (torch.randn(*shape, requires_grad=True) for shape in ((11, 4), (9, 4), (9,)))
    upstream = torch.randn(11)
    for b in (bias, None):
        given = [x for x in (states, weight, b) if x is not None]
        exact = torch.nn.functional.linear(states, weight, b).logsumexp(1)
        found = log_total(states, weight, b)
        torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-6)
        for x, y in zip(*(torch.autograd.grad((f * upstream).sum(), given) for f in (found, exact)), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-5, atol=1e-6)


def test_autocast_does_not_touch_what_is_made_of_probabilities() -> None:
    made = make("layer", lengths=(9, 5))
    found = made.grammar.log_prob(made.words)
    with torch.autocast("cpu", torch.bfloat16):
        low = made.grammar.log_prob(made.words)
    torch.testing.assert_close(low, found, rtol=0, atol=0)


def test_what_a_grammar_cannot_derive_is_an_error_with_the_cure() -> None:
    root, rules, emission = torch.zeros(N), torch.zeros(N, S * S), torch.zeros(P, V)
    mask = torch.tensor([[True, True], [True, False]])
    words = torch.zeros(2, 2, dtype=torch.long)
    with pytest.raises(ValueError, match=r"sentence 1 of the batch has 1 words; this grammar derives 2 or more"):
        PCFG(root, rules, emission, mask).log_prob(words)
    alone = PCFG(torch.zeros(S), rules, emission, mask)
    torch.testing.assert_close(alone.log_prob(words)[1].exp(), torch.tensor(P / S / V))  # P preterminals of S roots
    with pytest.raises(ValueError, match=r"sentence 0 of the batch has 0 words; this grammar derives 1 or more"):
        PCFG(torch.zeros(S), rules, emission, ~mask).log_prob(words)


@pytest.mark.parametrize(("root", "rules"), [((N + 1,), (N, S * S)), ((N,), (N, S * S - 1))])
def test_shapes_that_do_not_fit_are_refused(root: tuple[int, ...], rules: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="do not fit: with n nonterminals"):
        PCFG(torch.zeros(root), torch.zeros(rules), torch.zeros(P, V), torch.ones(1, 2, dtype=torch.bool))
