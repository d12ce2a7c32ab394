"""The hidden Markov model and its enumerated twin."""

from __future__ import annotations

import itertools

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO, TraceEnum_ELBO

from pyro_nlp import Adam, Training, fit, importance_nll
from pyro_nlp.data import TextBatch
from pyro_nlp.data.batches import EOS
from pyro_nlp.inference import terms
from pyro_nlp.models.hmm import HMM, EnumeratedHMM
from tests.tiny import VOCABULARY, Sentences, gradients, padded, text, whole

STATES = 3


def hmm(seed: int = 0, states: int = STATES, vocabulary: int = VOCABULARY) -> HMM:
    torch.manual_seed(seed)
    return HMM(vocabulary, states, transition_spread=1.0)


def twin(model: HMM) -> EnumeratedHMM:
    other = EnumeratedHMM(model.emission.shape[1], len(model.initial))
    other.load_state_dict(model.state_dict())
    return other


def some() -> TextBatch:
    batch = text(20).batch(np.array([3, 10, 7, 9, 0]))  # one of them empty
    assert isinstance(batch, TextBatch)
    return batch


def test_pyro_enumeration_gives_the_same_value_and_gradients() -> None:
    model, batch = hmm(), padded(some(), 1)
    other = twin(model)
    losses = []
    for each, bound in ((model, Trace_ELBO(max_plate_nesting=1)), (other, TraceEnum_ELBO(max_plate_nesting=1))):
        loss = bound.differentiable_loss(each, lambda batch: None, batch)
        (loss / batch.population).backward()
        losses.append(loss / batch.population)
    torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-5)
    found = [gradients(each) for each in (model, other)]
    assert len(found[0]) == 3
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=1e-5, atol=1e-5)


def test_sentences_begin_without_a_transition_and_end_with_a_word() -> None:
    model, batch = hmm(), whole(text(1, longest=1))
    initial, emission = model.initial.softmax(0), model.emission.softmax(1)
    (word,) = batch.targets[0, :-1].tolist() or [None]
    if word is None:
        wanted = (initial @ emission[:, EOS]).log()
    else:
        wanted = ((initial * emission[:, word]) @ model.transition.softmax(1) @ emission[:, EOS]).log()
    torch.testing.assert_close(terms(model, None, batch).log_likelihood[0, 0], wanted)


def test_its_likelihood_is_exact_and_padding_changes_nothing() -> None:
    model, split = hmm(), text(20)
    found = importance_nll(model, None, split)
    assert found.samples == 0 and not found.standard_error.any()
    batch = some()
    alone, wide = (terms(model, None, b).log_weight for b in (batch, padded(batch, 4)))
    assert torch.equal(alone, wide)
    torch.testing.assert_close(-alone[0].double(), torch.from_numpy(found.nll[[3, 10, 7, 9, 0]]), rtol=0, atol=1e-5)


def test_probabilities_of_all_short_sentences_sum_to_the_chance_of_being_short() -> None:
    model = hmm(vocabulary=5)
    others = [w for w in range(5) if w != EOS]
    total = 0.0
    for n in range(4):
        words = torch.tensor([[*w, EOS] for w in itertools.product(others, repeat=n)])
        count = len(words)
        batch = TextBatch(torch.arange(count), count, words, words, torch.ones_like(words, dtype=torch.bool))
        total += float(terms(model, None, batch).log_likelihood.detach().exp().sum())
    initial, move = model.initial.detach().softmax(0), model.transition.detach().softmax(1)
    going_on = 1 - model.emission.detach().softmax(1)[:, EOS]
    alive = initial * going_on
    for _ in range(3):
        alive = (alive @ move) * going_on
    assert total == pytest.approx(1 - float(alive.sum()), abs=1e-5)


def test_training_improves_the_bound_without_a_guide() -> None:
    corpus, model = Sentences(), hmm()
    before = importance_nll(model, None, corpus.train).mean
    run = fit(model, None, corpus, None, Training(epochs=5, batch_size=10, optimizer=Adam(0.1), device="cpu"))
    after = importance_nll(run.model, None, corpus.train).mean
    assert after < before - 1.0
    assert len(pyro.get_param_store()) == 0


def test_tags_are_read_in_three_ways_that_agree() -> None:
    model, batch = hmm(), some()
    with torch.no_grad():
        model.emission.mul_(6.0)  # tags that leave little doubt
    share, (best, log_p), drawn = model.marginals(batch), model.viterbi(batch), model.sample_tags(batch)
    assert share.shape == (*batch.targets.shape, STATES) and best.shape == drawn.shape == batch.targets.shape
    torch.testing.assert_close(share.sum(-1), batch.mask.float())
    assert (best[~batch.mask] == -1).all() and (drawn[~batch.mask] == -1).all()
    assert (log_p <= terms(model, None, batch).log_likelihood[0] + 1e-5).all()
    sure = batch.mask & (share.amax(-1) > 0.99)
    assert sure.any() and float((best == drawn)[sure].float().mean()) > 0.9


@pytest.mark.parametrize("method", ["ancestral", "greedy", "beam"])
def test_it_writes_by_every_method(method: str) -> None:
    written = hmm().generate({}, count=5, method=method, max_length=7, beam=3)
    assert written.shape[0] == 5 and written.shape[1] <= 7
    assert ((written >= 0) & (written < VOCABULARY)).all()
    assert all(EOS in row for row in written)


def test_it_writes_sentences_as_often_as_it_gives_them_probability() -> None:
    model = hmm(vocabulary=5)
    with torch.no_grad():
        model.emission[:, :2] = -1e4  # `write` never gives padding or the beginning
    draws = 4000
    written = model.generate({}, count=draws, method="ancestral", max_length=60)
    for sentence in ([EOS], [3, EOS], [4, EOS], [3, 4, EOS], [4, 3, EOS]):
        words = torch.tensor([sentence])
        batch = TextBatch(torch.arange(1), 1, words, words, torch.ones_like(words, dtype=torch.bool))
        p = float(terms(model, None, batch).log_likelihood.detach().exp())
        seen = float((written[:, : len(sentence)] == words).all(1).float().mean())
        assert seen == pytest.approx(p, abs=4.5 * (p * (1 - p) / draws) ** 0.5)


def test_the_enumerated_form_draws_from_its_prior() -> None:
    model, batch = twin(hmm()), some()
    trace = pyro.poutine.trace(model).get_trace(batch)
    assert trace.nodes["tag_0"]["value"].shape == (len(batch),)
    assert not trace.nodes["tag_0"]["is_observed"] and trace.nodes["x_0"]["is_observed"]
