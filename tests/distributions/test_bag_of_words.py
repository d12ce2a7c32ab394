"""BagOfWords against torch's Multinomial, TopicMixture against a loop over topics, and both inside Pyro."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_nlp.distributions import BagOfWords, TopicMixture

VOCABULARY, TOPICS = 6, 3


def mixture(*left: int, **options: Any) -> TopicMixture:
    theta, log_topics = torch.randn(*left, TOPICS).softmax(-1), torch.randn(TOPICS, VOCABULARY).log_softmax(-1)
    return TopicMixture(theta, log_topics, **options)


KINDS: dict[str, Any] = {
    "logits": lambda *left, **options: BagOfWords(torch.randn(*left, VOCABULARY), **options),
    "a mixture": mixture,
}
kinds = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)


@kinds
def test_it_equals_multinomial_up_to_its_coefficient(make: Any) -> None:
    bag, counts = make(3, 4), torch.randint(5, (3, 4, VOCABULARY)).float()
    found = bag.log_prob(counts)
    coefficient = (counts.sum(-1) + 1).lgamma() - (counts + 1).lgamma().sum(-1)
    for document in ((0, 0), (1, 3), (2, 2)):  # Multinomial takes documents of one length at a time
        total = int(counts[document].sum())
        wanted = torch.distributions.Multinomial(total, logits=bag.logits[document]).log_prob(counts[document])
        # 20 words of about 3 nats and lgammas of size 40 in float32
        torch.testing.assert_close(found[document] + coefficient[document], wanted, rtol=0, atol=1e-4)


@kinds
def test_over_all_documents_of_a_length_it_sums_to_one(make: Any) -> None:
    """Every order of the words counted: a bag stands for as many texts as its multinomial coefficient says."""
    texts = torch.tensor(list(itertools.product(range(VOCABULARY), repeat=3)))
    counts = torch.nn.functional.one_hot(texts, VOCABULARY).sum(1).float()
    total = make().expand([len(texts)]).log_prob(counts).double().exp().sum()
    assert float(total) == pytest.approx(1, abs=1e-5)  # 216 float32 log-probabilities of size 6, rounded at 5e-7 each


def test_it_equals_the_product_over_the_words_in_any_order() -> None:
    logits, words = torch.randn(VOCABULARY), torch.tensor([0, 2, 2, 5])
    counts = words.bincount(minlength=VOCABULARY).float()
    torch.testing.assert_close(BagOfWords(logits).log_prob(counts), logits.log_softmax(-1)[words].sum())


def test_a_mixture_equals_a_loop_over_words_and_topics() -> None:
    bag, counts = mixture(4), torch.randint(3, (4, VOCABULARY)).float()
    for d in range(4):
        wanted = 0.0
        for v in range(VOCABULARY):
            p = sum(float(bag.theta[d, k]) * math.exp(float(bag.log_topics[k, v])) for k in range(TOPICS))
            wanted += float(counts[d, v]) * math.log(p)
        assert float(bag.log_prob(counts)[d]) == pytest.approx(wanted, rel=1e-5)  # sums of 6 float32 terms
        assert bag.log_probs[d].exp().sum() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("left", [(), (2,), (3, 2), (4, 1, 2)])
@kinds
def test_left_dimensions_of_parameters_and_counts_broadcast(left: tuple[int, ...], make: Any) -> None:
    bag, counts = make(*left), torch.randint(3, (2, VOCABULARY)).float()
    found = bag.log_prob(counts)
    assert found.shape == torch.broadcast_shapes(left, (2,))
    torch.testing.assert_close(found, (counts * bag.logits.log_softmax(-1)).sum(-1))


@kinds
def test_expand_keeps_the_kind_and_the_value(make: Any) -> None:
    narrow, counts = make(2), torch.ones(2, VOCABULARY)
    wide = narrow.expand([3, 2])
    assert type(wide) is type(narrow)
    assert (wide.batch_shape, wide.event_shape) == ((3, 2), (VOCABULARY,))
    assert torch.equal(wide.log_prob(counts), narrow.log_prob(counts).expand(3, 2))


@kinds
def test_a_sample_is_a_bag_of_the_given_total(make: Any) -> None:
    drawn = make(2, total=11).expand([3, 2]).sample((5,))
    assert drawn.shape == (5, 3, 2, VOCABULARY)
    assert (drawn.sum(-1) == 11).all() and (drawn >= 0).all()


@kinds
def test_every_document_may_have_a_total_of_its_own(make: Any) -> None:
    drawn = make(3, total=torch.tensor([0, 4, 9])).sample((5,))
    assert (drawn.sum(-1) == torch.tensor([0, 4, 9])).all()


@kinds
def test_samples_have_the_frequencies_of_the_words(make: Any) -> None:
    bag, draws = make(total=100), 400
    p = bag.logits.softmax(-1)
    found = bag.sample((draws,)).mean(0) / 100
    error = (p * (1 - p) / (100 * draws)).sqrt()
    assert ((found - p).abs() < 4.5 * error).all()  # 6 words, at 4.5 standard errors: 4e-5


def test_every_document_is_drawn_from_its_own_words_and_none_without_a_probability() -> None:
    first, last = (torch.full((VOCABULARY,), -math.inf).index_fill(0, torch.tensor(i), 0.0) for i in (0, -1))
    even = torch.full((VOCABULARY,), -math.inf)
    even[::2] = 0.0
    drawn = BagOfWords(torch.stack([last, even, first, even]), torch.tensor([2000, 3000, 1000, 0.0])).sample()
    assert drawn[0, -1] == 2000 and drawn[2, 0] == 1000 and not drawn[3].any()
    assert drawn[1, ::2].sum() == 3000 and (drawn[1, ::2] > 0).all()


def test_without_a_total_there_is_nothing_to_sample() -> None:
    with pytest.raises(ValueError, match=r"BagOfWords: how many words are to be drawn\? Give total=\.\.\."):
        BagOfWords(torch.zeros(VOCABULARY)).sample()


@kinds
def test_an_empty_document_costs_nothing(make: Any) -> None:
    assert make().log_prob(torch.zeros(VOCABULARY)) == 0


def test_its_gradient_is_counts_minus_expected_counts() -> None:
    logits = torch.randn(2, VOCABULARY, requires_grad=True)
    counts = torch.randint(4, (2, VOCABULARY)).float()
    (gradient,) = torch.autograd.grad(BagOfWords(logits).log_prob(counts).sum(), logits)
    expected = counts.sum(-1, keepdim=True) * logits.detach().softmax(-1)
    torch.testing.assert_close(gradient, counts - expected, rtol=0, atol=1e-5)  # counts of size 10 in float32


def test_the_gradient_of_a_mixture_is_that_of_its_definition() -> None:
    weights, logits = torch.randn(4, TOPICS).double(), torch.randn(TOPICS, VOCABULARY).double()
    counts = torch.randint(4, (4, VOCABULARY)).double()

    def log_prob(weights: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
        return TopicMixture(weights.softmax(-1), logits.log_softmax(-1)).log_prob(counts)

    assert torch.autograd.gradcheck(log_prob, (weights.requires_grad_(), logits.requires_grad_()))


def test_a_word_that_every_topic_makes_unlikely_does_not_underflow() -> None:
    """exp(-150) is zero in float32, and log 0 has no gradient."""
    log_topics = torch.tensor([[0.0, -150.0], [0.0, -160.0]], requires_grad=True)
    found = TopicMixture(torch.tensor([0.25, 0.75]), log_topics).log_prob(torch.tensor([0.0, 1.0]))
    assert float(found.detach()) == pytest.approx(-150 + math.log(0.25 + 0.75 * math.exp(-10)), rel=1e-6)
    (gradient,) = torch.autograd.grad(found, log_topics)
    shares = torch.tensor([0.25, 0.75 * math.exp(-10)])
    torch.testing.assert_close(gradient[:, 1], shares / shares.sum())


def test_topics_without_any_share_leave_a_finite_gradient() -> None:
    theta = torch.tensor([1.0, 0.0], requires_grad=True)
    log_topics = torch.tensor([[-200.0, 0.0], [0.0, -200.0]])
    found = TopicMixture(theta, log_topics).log_prob(torch.tensor([1.0, 1.0]))
    (gradient,) = torch.autograd.grad(found, theta)
    assert found.isfinite() and gradient.isfinite().all()


@pytest.mark.parametrize("kind", ["logits", "a mixture"])
def test_under_autocast_it_is_taken_in_float32(kind: str) -> None:
    counts = torch.randint(4, (2, VOCABULARY)).float()
    bag = KINDS[kind](2)
    wanted = bag.log_prob(counts)
    again = BagOfWords(bag.logits) if kind == "logits" else TopicMixture(bag.theta, bag.log_topics)
    with torch.autocast("cpu", torch.bfloat16):
        found = again.log_prob(counts)
    assert found.dtype == torch.float32 and torch.equal(found, wanted)
    low = BagOfWords(torch.randn(2, VOCABULARY).bfloat16()).log_prob(counts)
    assert low.dtype == torch.float32


@kinds
def test_in_a_plate_a_mask_leaves_documents_out(make: Any) -> None:
    counts, seen = torch.randint(4, (5, VOCABULARY)).float(), torch.tensor([1, 1, 0, 1, 0]).bool()
    bag = make(2, 5)

    def model() -> None:
        with pyro.plate("particles", 2, dim=-2), pyro.plate("documents", 5, dim=-1):
            pyro.sample("x", bag.mask(seen), obs=counts)

    trace = pyro.poutine.trace(model).get_trace()
    trace.compute_log_prob()
    assert torch.equal(trace.nodes["x"]["log_prob"], bag.log_prob(counts) * seen)


@kinds
def test_pyro_enumerates_around_it(make: Any) -> None:
    """TraceEnum_ELBO of a mixture of three bags, against the sum written out."""
    bags, counts = make(3, 1), torch.randint(4, (5, VOCABULARY)).float()

    def model() -> None:
        with pyro.plate("documents", 5, dim=-1):
            c = pyro.sample("c", dist.Categorical(torch.ones(3)), infer={"enumerate": "parallel"})
            assert c.shape == (3, 1)
            pyro.sample("x", bags, obs=counts)

    found = pyro.infer.TraceEnum_ELBO(max_plate_nesting=1).loss(model, lambda: None)
    wanted = -(bags.log_prob(counts).logsumexp(0) - math.log(3)).sum()
    assert found == pytest.approx(float(wanted), rel=1e-5)  # sums of 5 x 12 words in float32
