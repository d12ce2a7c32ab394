"""BagOfWords against torch's Multinomial."""

from __future__ import annotations

import pytest
import torch

from pyro_nlp.distributions import BagOfWords

VOCABULARY = 6


def test_it_equals_multinomial_up_to_its_coefficient() -> None:
    logits, counts = torch.randn(3, 4, VOCABULARY), torch.randint(5, (3, 4, VOCABULARY)).float()
    found = BagOfWords(logits).log_prob(counts)
    coefficient = (counts.sum(-1) + 1).lgamma() - (counts + 1).lgamma().sum(-1)
    for document in ((0, 0), (1, 3), (2, 2)):  # Multinomial takes documents of one length at a time
        total = int(counts[document].sum())
        wanted = torch.distributions.Multinomial(total, logits=logits[document]).log_prob(counts[document])
        # 20 words of about 3 nats and lgammas of size 40 in float32
        torch.testing.assert_close(found[document] + coefficient[document], wanted, rtol=0, atol=1e-4)


def test_it_equals_the_product_over_the_words_in_any_order() -> None:
    logits, words = torch.randn(VOCABULARY), torch.tensor([0, 2, 2, 5])
    counts = words.bincount(minlength=VOCABULARY).float()
    torch.testing.assert_close(BagOfWords(logits).log_prob(counts), logits.log_softmax(-1)[words].sum())


@pytest.mark.parametrize("left", [(), (2,), (3, 2), (4, 1, 2)])
def test_left_dimensions_of_logits_and_counts_broadcast(left: tuple[int, ...]) -> None:
    logits, counts = torch.randn(*left, VOCABULARY), torch.randint(3, (2, VOCABULARY)).float()
    found = BagOfWords(logits).log_prob(counts)
    assert found.shape == torch.broadcast_shapes(left, (2,))
    torch.testing.assert_close(found, (counts * logits.log_softmax(-1)).sum(-1))


def test_expand_keeps_the_value() -> None:
    logits, counts = torch.randn(2, VOCABULARY), torch.ones(2, VOCABULARY)
    narrow = BagOfWords(logits)
    wide = narrow.expand([3, 2])
    assert (wide.batch_shape, wide.event_shape) == ((3, 2), (VOCABULARY,))
    assert torch.equal(wide.log_prob(counts), narrow.log_prob(counts).expand(3, 2))


def test_a_sample_is_a_bag_of_the_given_length() -> None:
    drawn = BagOfWords(torch.randn(2, VOCABULARY), length=11).expand([3, 2]).sample((5,))
    assert drawn.shape == (5, 3, 2, VOCABULARY)
    assert (drawn.sum(-1) == 11).all() and (drawn >= 0).all()


def test_an_empty_document_costs_nothing() -> None:
    assert BagOfWords(torch.randn(VOCABULARY)).log_prob(torch.zeros(VOCABULARY)) == 0


def test_its_gradient_is_counts_minus_expected_counts() -> None:
    logits = torch.randn(2, VOCABULARY, requires_grad=True)
    counts = torch.randint(4, (2, VOCABULARY)).float()
    (gradient,) = torch.autograd.grad(BagOfWords(logits).log_prob(counts).sum(), logits)
    expected = counts.sum(-1, keepdim=True) * logits.detach().softmax(-1)
    torch.testing.assert_close(gradient, counts - expected, rtol=0, atol=1e-5)  # counts of size 10 in float32
