"""Perplexity and completion of documents: by hand, by a loop, and of a model whose answers are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pyro_nlp.evaluation import (
    document_completion,
    document_perplexity,
    elbo_terms,
    importance_nll,
    perplexities,
)
from pyro_nlp.evaluation.topics import reads_words
from tests.evaluation.urn import WORDS, Exact, Own, Point, Prior, bags, dense, log_beta, random_bags, urn

ROUNDING = 1e-5
"""Relative: float32 sums of some ten words."""


# ---- perplexity ------------------------------------------------------------------------------------------------------


def test_perplexity_per_corpus_and_per_document_are_by_hand_those_of_two_documents_and_an_empty_one() -> None:
    nll, sizes = np.array([4 * math.log(3), 7.0, math.log(48)]), np.array([4, 0, 1])
    corpus, per_document = perplexities(nll, sizes)
    assert corpus == pytest.approx((3**4 * 48) ** (1 / 5)) and per_document == pytest.approx(math.sqrt(3 * 48))


def test_the_four_perplexities_are_those_of_a_loop_over_documents() -> None:
    (model, guide), split = urn(), random_bags(25, WORDS)
    found = document_perplexity(model, guide, split, 40, seed=3)
    losses = (-elbo_terms(model, guide, split, seed=3).elbo, importance_nll(model, guide, split, 40, seed=3).nll)
    wanted = []
    for loss in losses:
        nats, words, rates = 0.0, 0, []
        for document in range(1, 25):
            size = int(split.sizes[document])
            nats, words = nats + loss[document], words + size
            rates.append(loss[document] / size)
        wanted += [math.exp(nats / words), math.exp(sum(rates) / len(rates))]
    assert [found.bound, found.bound_per_document, found.importance, found.importance_per_document] == pytest.approx(
        wanted, rel=1e-12
    )
    assert (found.samples, found.documents, found.empty) == (40, 24, 1)


def test_under_the_exact_posterior_the_weighted_perplexity_is_the_closed_form() -> None:
    (model, guide), split = urn(), random_bags(25, WORDS)
    found = document_perplexity(model, guide, split, 3)
    a = model.a.double().numpy()
    exact = log_beta(a) - log_beta(a + dense(split))
    assert found.importance == pytest.approx(math.exp(exact.sum() / split.tokens), rel=ROUNDING)


def test_a_likelihood_that_is_known_is_not_estimated_again() -> None:
    (model, guide), split = urn(), random_bags(9, WORDS)
    known = importance_nll(model, guide, split, 7)
    found = document_perplexity(model, guide, split, 500, likelihood=known)
    assert found == document_perplexity(model, guide, split, 7) and found.samples == 7


def test_perplexity_beyond_floats_is_infinite() -> None:
    assert perplexities(np.array([1e6]), np.array([1])) == (math.inf, math.inf)


@pytest.mark.parametrize(
    ("nll", "sizes", "message"), [([1.0], [1, 2], "1 losses and 2 sizes"), ([1.0, 2.0], [0, 0], "no document has")]
)
def test_losses_that_are_not_of_words_are_refused(nll: list[float], sizes: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        perplexities(np.array(nll), np.array(sizes))


# ---- completion ------------------------------------------------------------------------------------------------------


def test_completion_of_a_known_model_is_its_predictive_distribution() -> None:
    (model, guide), split, samples = urn(), random_bags(40, WORDS), 400
    found = document_completion(model, guide, split, 5, samples=samples)
    halves = split.halves(5)
    seen, held_out = dense(halves.seen), dense(halves.held_out)
    posterior = model.a.double().numpy() + seen
    tokens = held_out.sum()
    # theta at its posterior mean
    plug_in = -(held_out * np.log(posterior / posterior.sum(-1, keepdims=True))).sum(-1)
    assert found.plug_in == pytest.approx(math.exp(plug_in.sum() / tokens), rel=ROUNDING)
    per_document = np.mean(plug_in / held_out.sum(-1))
    assert found.plug_in_per_document == pytest.approx(math.exp(per_document), rel=ROUNDING)
    # the Polya urn; draws of the exact posterior all have the same weight, and the variance of p(x2 | theta) is known
    evidence = log_beta(posterior + held_out) - log_beta(posterior)
    square = log_beta(posterior + 2 * held_out) - log_beta(posterior)
    variance = np.expm1(square - 2 * evidence) / samples
    error = math.sqrt(variance.sum()) / tokens + variance.sum() / 2 / tokens  # delta method, and its bias
    assert found.importance is not None
    assert math.log(found.importance) == pytest.approx(-evidence.sum() / tokens, abs=4 * error)
    assert (found.samples, found.documents, found.excluded) == (samples, 38, 2)


def test_weighted_completion_comes_to_the_same_with_a_guide_that_has_learnt_nothing() -> None:
    model, split, samples = urn()[0], random_bags(40, WORDS), 4000
    found = document_completion(model, Prior(model), split, 5, samples=samples)
    halves = split.halves(5)
    a, seen, held_out = model.a.double().numpy(), dense(halves.seen), dense(halves.held_out)
    # the log of a ratio of means over draws of the prior: its variance is at most twice the sum of theirs, relative
    one, both = a + seen, a + seen + held_out
    relative = [np.expm1(log_beta(2 * c - a) + log_beta(a) - 2 * log_beta(c)) / samples for c in (one, both)]
    error = math.sqrt(2 * np.sum(relative)) / held_out.sum()
    wanted = (log_beta(one) - log_beta(both)).sum() / held_out.sum()
    assert found.importance is not None and math.log(found.importance) == pytest.approx(wanted, abs=4 * error)
    plug_in = -(held_out * np.log(a / a.sum())).sum() / held_out.sum()
    assert math.log(found.plug_in) == pytest.approx(plug_in, rel=ROUNDING)


def test_a_point_guide_completes_by_its_point_only() -> None:
    model, guide = urn()
    split = random_bags(12, WORDS)
    found, exact = (document_completion(model, g, split, samples=3) for g in (Point(model), guide))
    assert found.importance is None and found.importance_per_document is None
    assert found.plug_in == pytest.approx(exact.plug_in, rel=ROUNDING)


def test_parameters_of_each_document_that_may_know_its_second_half_are_refused() -> None:
    model, split = urn()[0], random_bags(12, WORDS)
    a, halves = model.a.numpy(), split.halves(0)
    with pytest.raises(ValueError, match="Own has parameters of its own for each document"):
        document_completion(model, Own(a + dense(split)), split)
    fitted = Own(a + dense(halves.seen))
    found = document_completion(model, fitted, split, samples=50, own_parameters=True)
    assert found.plug_in == document_completion(model, Exact(model), split, samples=50).plug_in


def test_a_guide_that_answers_every_document_alike_is_collapsed_but_not_one_of_parameters_for_each() -> None:
    model, split = urn()[0], random_bags(9, WORDS)
    assert reads_words(model, Prior(model), split) and reads_words(model, Exact(model), split)
    assert not reads_words(model, Own(dense(split) + 1), split)


def test_documents_of_one_word_cannot_be_completed() -> None:
    with pytest.raises(ValueError, match="no document has two words"):
        document_completion(*urn(), bags([[0], [], [2]], WORDS))
