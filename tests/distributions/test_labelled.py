"""Documents with a known class: the bound of semi-supervised learning, and what is seen of the labels."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import TraceEnum_ELBO, config_enumerate
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_nlp.data.batches import TextBatch
from pyro_nlp.distributions.labelled import Pinned, labelled, seen_labels
from pyro_nlp.inference.terms import terms
from tests.tiny import CLASSES, gradients, mixture, styled, text, whole

KNOWN = torch.tensor([2, -1, 0, -1, 1])
PINNED = KNOWN >= 0
LOGITS = torch.tensor([[0.3, -1.0, 0.5], [2.0, 0.0, -2.0], [-9.0, 0.0, 9.0], [0.0, 0.0, 0.0], [1.0, 1.0, -1.0]])
PRIOR = torch.tensor([0.2, -0.4, 0.1])
TABLE = torch.eye(CLASSES)[:, None]


def pinned(logits: Tensor = LOGITS) -> Pinned:
    return Pinned(logits, KNOWN)


def sentences(labels: Tensor | None = KNOWN) -> TextBatch:
    batch: TextBatch = whole(text(len(KNOWN)))
    return batch.replace(labels=labels)


def log_likelihood(model: Any, values: dict[str, Tensor], batch: TextBatch) -> Tensor:
    x: Any = poutine.trace(poutine.condition(model, values)).get_trace(batch).nodes["x"]
    log_prob: Tensor = x["fn"].log_prob(x["value"])
    return log_prob


@pytest.mark.parametrize("family", [dist.OneHotCategorical, torch.distributions.OneHotCategorical])
def test_the_kl_of_a_known_document_is_minus_the_log_prior_of_its_label(family: Any) -> None:
    logits, prior = LOGITS.clone().requires_grad_(), PRIOR.clone().requires_grad_()
    kl = kl_divergence(pinned(logits), family(logits=prior))
    free = kl_divergence(dist.OneHotCategorical(logits=LOGITS), dist.OneHotCategorical(logits=PRIOR))
    at_label = -PRIOR.log_softmax(-1)[KNOWN.clamp(min=0)]
    torch.testing.assert_close(kl, torch.where(PINNED, at_label, free))
    kl.sum().backward()
    assert prior.grad is not None and prior.grad.isfinite().all()
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert not logits.grad[PINNED].any() and logits.grad[1].any()


def test_every_draw_of_a_known_document_is_its_label() -> None:
    draws = pinned().sample([500])
    assert (draws.argmax(-1)[:, PINNED] == KNOWN[PINNED]).all()
    assert draws[:, 3].mean(0).min() > 0.2  # and an unknown one stays free: one third, 0.02 is a standard error


def test_enumeration_gives_other_classes_no_weight_and_no_nan() -> None:
    q = pinned()
    log_q = q.log_prob(q.enumerate_support(expand=False))
    assert log_q.isfinite().all()
    assert torch.equal(log_q.exp()[:, PINNED].t(), TABLE[:, 0][KNOWN[PINNED]])
    torch.testing.assert_close(log_q.exp().sum(0), torch.ones(len(KNOWN)))


@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_a_gumbel_softmax_saturates_at_the_label(temperature: float) -> None:
    gumbel = -torch.empty(len(KNOWN), CLASSES).exponential_().log()
    relaxed = ((pinned().logits + gumbel) / temperature).softmax(-1)
    assert torch.equal(relaxed[PINNED], TABLE[:, 0][KNOWN[PINNED]])


def test_expanding_keeps_what_is_known() -> None:
    q = pinned().expand([4, len(KNOWN)])
    assert isinstance(q, Pinned) and q.batch_shape == (4, len(KNOWN))
    assert q.known is KNOWN and torch.equal(q.inferred, LOGITS.log_softmax(-1))
    assert (q.sample().argmax(-1)[:, PINNED] == KNOWN[PINNED]).all()
    assert isinstance(q.expand([2, 4, len(KNOWN)]), Pinned)


def test_labels_broadcast_with_left_dimensions_of_the_logits() -> None:
    q = Pinned(LOGITS.expand(3, -1, -1), KNOWN)
    assert q.batch_shape == (3, len(KNOWN)) and q.known is KNOWN
    assert (q.sample([20]).argmax(-1)[..., PINNED] == KNOWN[PINNED]).all()


def test_a_classifier_can_learn_from_what_was_inferred_before_pinning() -> None:
    logits = LOGITS.clone().requires_grad_()
    q = pinned(logits)
    torch.testing.assert_close(q.inferred, LOGITS.log_softmax(-1))
    (-q.inferred[PINNED, KNOWN[PINNED]].sum()).backward()
    assert logits.grad is not None and logits.grad[PINNED].any() and not logits.grad[~PINNED].any()


def test_the_site_carries_what_is_known_through_particles() -> None:
    model, guide = mixture(supervision=1.0)
    site = terms(model, guide, sentences(), particles=3).sites["c"]
    assert isinstance(site.q, Pinned)
    assert torch.equal(site.q.known, KNOWN)
    assert (site.value.argmax(-1)[:, PINNED] == KNOWN[PINNED]).all()
    at_label = -model.prior.log_softmax(-1)[KNOWN[PINNED]]
    torch.testing.assert_close(site.kl[:, PINNED], at_label.expand(3, -1))


def test_the_enumerated_bound_is_that_of_kingma_et_al_on_a_mixture() -> None:
    """log p(x | y) + log p(y) for a labelled document; sum_c q(c | x) (log p(x, c) - log q(c | x)) for another."""
    model, guide = mixture(supervision=1.0)
    batch = sentences()
    site = terms(model, guide, batch).sites["c"]
    log_x = log_likelihood(model, {"c": TABLE[:, None]}, batch)[:, 0]
    found = (site.q.log_prob(TABLE[:, None])[:, 0].exp() * log_x).sum(0) - site.kl[0]

    log_prior = model.prior.log_softmax(-1)
    log_q = guide.posterior(guide.encoder(batch)).log_softmax(-1)
    wanted = []
    for b, label in enumerate(KNOWN.tolist()):
        joint = [log_x[c, b] + log_prior[c] for c in range(CLASSES)]
        unlabelled = sum(log_q[b, c].exp() * (joint[c] - log_q[b, c]) for c in range(CLASSES))
        wanted.append(joint[label] if label >= 0 else unlabelled)
    torch.testing.assert_close(found, torch.stack(wanted), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        by_pyro = -TraceEnum_ELBO(max_plate_nesting=1).loss(model, config_enumerate(guide), batch)
    assert by_pyro == pytest.approx(found.sum().item(), rel=1e-5)


def test_the_enumerated_bound_is_that_of_kingma_et_al_with_a_continuous_code() -> None:
    """The same with E over z ~ q(z | x, c) at one fixed draw of the noise, and its KL in closed form."""
    model, guide = styled(supervision=1.0)
    batch, table = sentences(), TABLE[:, None]
    q_c: Any = poutine.trace(guide).get_trace(batch).nodes["c"]["fn"]
    q_z: Any = poutine.trace(poutine.condition(guide, {"c": table})).get_trace(batch).nodes["z"]["fn"]
    z = q_z.mean + q_z.stddev * torch.randn(q_z.event_shape)
    log_x = log_likelihood(model, {"c": table, "z": z}, batch)
    kl_z = kl_divergence(q_z.base_dist, dist.Normal(0.0, 1.0)).sum(-1)
    given_c = (log_x - kl_z)[:, 0]
    prior = dist.OneHotCategorical(logits=model.prior)
    found = (q_c.log_prob(TABLE).exp() * given_c).sum(0) - kl_divergence(q_c, prior)

    log_prior = model.prior.log_softmax(-1)
    log_q = guide.classifier(guide.encoder(batch)).log_softmax(-1)
    labelled_bound = given_c + log_prior[:, None]
    unlabelled = (log_q.exp() * (labelled_bound.t() - log_q)).sum(-1)
    at_label = labelled_bound[KNOWN.clamp(min=0), torch.arange(len(KNOWN))]
    torch.testing.assert_close(found, torch.where(PINNED, at_label, unlabelled), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("build", [mixture, styled])
def test_evaluation_sees_no_label(build: Any) -> None:
    model, guide = build(supervision=1.0)
    assert isinstance(terms(model, guide, sentences()).sites["c"].q, Pinned)
    guide.eval()
    assert not isinstance(terms(model, guide, sentences()).sites["c"].q, Pinned)
    assert terms(model, guide, sentences(None)).log_weight.isfinite().all()


@pytest.mark.parametrize("build", [mixture, styled])
def test_without_supervision_labels_change_nothing(build: Any) -> None:
    model, guide = build()
    found = []
    for labels in (KNOWN, None):
        torch.manual_seed(0)
        found.append(terms(model, guide, sentences(labels)).log_weight)
    assert torch.equal(*found)


def test_a_fully_labelled_batch_gives_every_parameter_a_finite_gradient() -> None:
    model, guide = mixture(supervision=1.0)
    found = terms(model, guide, sentences(KNOWN.clamp(min=0)))
    found.log_weight.sum().backward()
    every = {f"{i}.{n}" for i, m in enumerate((model, guide)) for n, _ in m.named_parameters()}
    got = gradients(model, guide)
    assert got.keys() == every and all(g.isfinite().all() for g in got.values())
    assert not any(g.any() for n, g in got.items() if n.startswith("1."))  # M2: labels alone do not teach q(c | x)


def test_supervision_without_labels_is_refused_with_the_cure() -> None:
    model, guide = mixture(supervision=0.1)
    with pytest.raises(ValueError, match=r"supervision is 0.1, but the corpus has no labels: .* supervision to 0"):
        terms(model, guide, sentences(None))


def test_a_label_beyond_the_classes_is_refused_with_the_cure() -> None:
    model, guide = mixture(supervision=1.0)
    with pytest.raises(ValueError, match=r"site 'c': found the label 7, .* 3 classes: set classes to at least 8"):
        terms(model, guide, sentences(KNOWN + 5))


def test_a_share_beyond_one_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1, not 10"):
        seen_labels(sentences(), 10)


def test_only_a_one_hot_categorical_can_be_pinned() -> None:
    with pytest.raises(ValueError, match=r"site 'c': found a Categorical; .* OneHotCategorical"):
        labelled("c", dist.Categorical(logits=LOGITS), KNOWN)


def index_batch(index: Tensor) -> TextBatch:
    one = whole(text(1))
    batch: TextBatch = one.replace(index=index, population=len(index), labels=torch.zeros_like(index))
    return batch


def test_the_share_of_documents_seen_is_the_share_asked_for() -> None:
    size, share = 100_000, 0.1
    labels = seen_labels(index_batch(torch.arange(size)), share)
    assert labels is not None
    seen = labels == 0
    error = (share * (1 - share) / size) ** 0.5
    assert abs(float(seen.float().mean()) - share) < 5 * error
    # and no run of neighbours, or every n-th document, is preferred
    for stride in (2, 3, 10, 64, 256):
        thirds = [float(seen[start::stride].float().mean()) for start in range(min(stride, 3))]
        assert max(abs(t - share) for t in thirds) < 5 * error * stride**0.5


def test_which_documents_are_seen_depends_on_their_index_alone() -> None:
    index = torch.arange(1000)
    order = torch.randperm(1000)
    seen, again = (seen_labels(index_batch(i), 0.3) for i in (index, order))
    assert seen is not None and again is not None
    assert torch.equal(again, seen[order])


def test_a_larger_share_sees_what_a_smaller_one_saw_and_one_sees_all() -> None:
    batch = index_batch(torch.arange(1000))
    less, more, everything = (seen_labels(batch, share) for share in (0.05, 0.3, 1.0))
    assert less is not None and more is not None and everything is not None
    assert (more[less == 0] == 0).all() and (more == 0).sum() > (less == 0).sum() > 0
    assert (everything == 0).all() and seen_labels(batch, 0.0) is None
