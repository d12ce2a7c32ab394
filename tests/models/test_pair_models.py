"""Models of two texts: answer selection, and attention as a latent variable."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule
from torch import Tensor

from pyro_nlp.data.batches import BOS, PAD, PairBatch
from pyro_nlp.data.pair_files import PairFile
from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.evaluation import elbo_terms, evaluate, gradient_check, importance_nll
from pyro_nlp.guides.latent_attention import LatentAttentionGuide
from pyro_nlp.guides.nasm import NASMGuide
from pyro_nlp.inference import (
    ELBO,
    IWAE,
    REBAR,
    Enumerate,
    LeaveOneOut,
    Marginalize,
    Neural,
    Relax,
    RunFolder,
    ScoreFunction,
    Strategy,
    Subset,
    Training,
    fit,
    terms,
)
from pyro_nlp.models.answer_matcher import AnswerMatcher
from pyro_nlp.models.latent_attention import AttentionModel, LatentAttention, SoftAttention
from pyro_nlp.models.nasm import NASM
from pyro_nlp.nn import CNNEncoder, StateEncoder
from tests.tiny import VOCABULARY, decoder, encoder, padded, sharpen, whole

LATENT = 5
cnn = partial(CNNEncoder, embedding=6, width=7)


def pairs(count: int = 9, labels: bool = True, seed: int = 0) -> PairSplit:
    """Random pairs over four first texts, of two to four words each."""
    rng = np.random.default_rng(seed)
    first, second = (
        TextSplit.from_sentences([rng.integers(4, VOCABULARY, n) for n in sizes])
        for sizes in (rng.integers(2, 5, 4), rng.integers(1, 5, count))
    )
    group = np.concatenate([np.arange(4), rng.integers(0, 4, count - 4)])
    return PairSplit(first, second, group, rng.integers(0, 2, count) if labels else None)


def nasm(seed: int = 0) -> tuple[Any, Any]:
    torch.manual_seed(seed)
    model, guide = NASM(VOCABULARY, LATENT, encoder, encoder, 6), NASMGuide(VOCABULARY, LATENT, encoder, encoder, 3, 6)
    return sharpen(model), sharpen(guide)


def matcher(read: Callable[[int], StateEncoder] = encoder, attention: bool = False) -> Any:
    torch.manual_seed(0)
    return sharpen(AnswerMatcher(VOCABULARY, LATENT, read, read, 6, attention))


def attention(kind: type[AttentionModel] = LatentAttention) -> tuple[Any, Any]:
    torch.manual_seed(0)
    model = sharpen(kind(VOCABULARY, encoder, decoder, 6))
    return model, sharpen(LatentAttentionGuide(VOCABULARY, encoder, encoder))


ANSWERS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "NASM": nasm,
    "LSTM": lambda: (matcher(), None),
    "LSTM with attention": lambda: (matcher(attention=True), None),
    "CNN": lambda: (matcher(cnn), None),
    "CNN with attention": lambda: (matcher(cnn, True), None),
}
READERS = {**ANSWERS, "soft": lambda: (attention(SoftAttention)[0], None), "latent": attention}


def likelihood(model: Any, guide: Any, batch: PairBatch) -> Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        return terms(model, guide, batch, plates=model.plates).log_likelihood[0]


def wider(batch: PairBatch, first: int, second: int) -> PairBatch:
    return batch.replace(first=padded(batch.first, first), second=padded(batch.second, second))


@pytest.mark.parametrize("name", READERS)
def test_padding_of_either_text_changes_nothing(name: str) -> None:
    model, guide = READERS[name]()
    split = pairs(labels=name in ANSWERS)
    batch: PairBatch = whole(split)
    if name == "latent":  # a draw per word would differ: judged by its sum
        whole_nll = importance_nll(model, None, split).nll
        alone = [importance_nll(model, None, split.take(np.array([i]))).nll[0] for i in range(len(split))]
        np.testing.assert_allclose(whole_nll, alone, rtol=1e-5)
        return
    torch.testing.assert_close(
        likelihood(model, guide, batch), likelihood(model, guide, wider(batch, 2, 3)), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("name", ANSWERS)
def test_a_question_is_read_once_however_many_candidates_it_has(name: str) -> None:
    model, _ = ANSWERS[name]()
    rows: list[int] = []
    model.question.register_forward_hook(lambda module, args, out: rows.append(len(args[0])))
    batch = whole(pairs())
    model.scores(batch, 2)
    assert rows == [4] and len(batch) == 9


@pytest.mark.parametrize("name", ANSWERS)
def test_the_score_is_the_log_odds_of_a_right_answer(name: str) -> None:
    model, guide = ANSWERS[name]()
    batch = whole(pairs())
    scores, where = model.scores(batch, 0)
    if guide is None:
        expected = torch.where(batch.labels == 1, scores[0], -scores[0]).sigmoid().log()
        torch.testing.assert_close(likelihood(model, None, batch), expected.detach(), rtol=1e-5, atol=1e-6)
    assert scores.shape == (1, len(batch)) and scores.std() > 1e-3
    if where is not None:
        torch.testing.assert_close(where.sum(-1), torch.ones(1, len(batch)))
        assert (where[0][~batch.second.mask] == 0).all()


@pytest.mark.parametrize("name", ANSWERS)
def test_a_pair_whose_label_is_unknown_says_nothing(name: str) -> None:
    model, guide = ANSWERS[name]()
    batch = whole(pairs())
    unknown = batch.replace(labels=torch.full_like(batch.labels, -1))
    none = batch.replace(labels=None)
    assert (likelihood(model, guide, unknown) == 0).all() and (likelihood(model, guide, none) == 0).all()


@pytest.mark.parametrize("labels", [None, -1])
@pytest.mark.parametrize("name", ANSWERS)
def test_a_ranker_does_not_train_on_pairs_without_labels(name: str, labels: int | None, tmp_path: Path) -> None:
    path = tmp_path / "mine.tsv"
    mark = "" if labels is None else "\t1"
    path.write_text("".join(f"who is {i} ?\t{i} is it .{mark}\n" for i in range(60)), "utf-8")
    corpus = PairFile(str(path), min_count=1)
    if labels is not None:
        assert corpus.train.labels is not None
        corpus.train.labels.fill(labels)
    model, guide = ANSWERS[name]()
    kind = type(model).__name__
    with pytest.raises(ValueError, match=rf"{kind} learns from labels alone, .* PairFile \(mine\) .* a third field: 1"):
        fit(model, guide, corpus, training=Training(epochs=1, device="cpu"))


def test_the_reading_of_nasm_is_one_a_question_and_draws_have_its_prior() -> None:
    model, _ = nasm()
    batch = whole(pairs())
    loc, scale = model.reading(batch)
    assert loc.shape == scale.shape == (4, LATENT)
    torch.manual_seed(0)
    with torch.no_grad():
        many, _ = model.scores(batch, 20_000)
        states = model.answer.states(batch.second)
        noise = torch.randn(20_000, 4, LATENT, generator=torch.Generator().manual_seed(1))
        own, _ = model.log_odds((loc + scale * noise)[:, batch.group], states, batch)
    error = (many.sigmoid().var(0) / 20_000 + own.sigmoid().var(0) / 20_000).sqrt()
    assert ((many.sigmoid().mean(0) - own.sigmoid().mean(0)).abs() < 5 * error).all()
    same = batch.group[:, None] == batch.group
    assert same.sum() > len(batch)  # several candidates share a draw: their scores move together


def test_the_likelihood_of_nasm_is_the_mean_over_the_prior() -> None:
    model, _ = nasm()
    split = pairs()

    class Prior(PyroModule):
        def forward(self, batch: PairBatch) -> None:
            loc, scale = (value[batch.group] for value in model.reading(batch))
            with batch.documents():
                pyro.sample("h", dist.Normal(loc, scale).to_event(1))

    found = importance_nll(model, Prior(), split, samples=3000)
    torch.manual_seed(1)
    with torch.no_grad():
        batch = whole(split)
        scores, _ = model.scores(batch, 50_000)
        sign = 2.0 * batch.labels - 1
        p = (sign * scores).sigmoid()
    error = (p.std(0) / 50_000**0.5 / p.mean(0)).numpy()
    assert (np.abs(found.nll + p.mean(0).log().numpy()) < 5 * (error + found.standard_error)).all()


@pytest.mark.parametrize("bound", [ELBO(), IWAE(3)], ids=["ELBO", "IWAE"])
def test_nasm_has_the_right_gradient_by_score_function_as_by_reparameterisation(bound: Any) -> None:
    model, guide = nasm()
    strategy = Strategy(continuous=ScoreFunction(LeaveOneOut()), bound=type(bound)(3))
    assert gradient_check(model, guide, pairs(4).batch(np.arange(4)), strategy, draws=1000, copies=50).p_value > 1e-4


# ---- attention -------------------------------------------------------------------------------------------------


def by_hand(model: Any, batch: PairBatch, position: Callable[[Tensor], Tensor]) -> Tensor:
    """log p(y | x) of every pair, word by word; `position` combines the words of every position, [S, V] and [S]."""
    total = torch.zeros(len(batch))
    for i in range(len(batch)):
        one = PairSplit(
            TextSplit.from_sentences([batch.first.targets[batch.group[i]][batch.first.mask[batch.group[i]]][:-1]]),
            TextSplit.from_sentences([batch.second.targets[i][batch.second.mask[i]][:-1]]),
            np.zeros(1, np.int64),
        ).batch(np.zeros(1, np.int64))
        source, states, logits = model.read(one)
        for t, word in enumerate(one.second.targets[0]):
            share = logits[t, 0].softmax(-1)
            total[i] += position(source[0], states[t, 0], share)[word]
    return total


def summed(model: Any) -> Callable[..., Tensor]:
    def words(source: Tensor, state: Tensor, share: Tensor) -> Tensor:
        hidden = (model.of_state(state) + model.of_source(source)).tanh()
        return (share @ model.head(hidden).softmax(-1)).log()

    return words


def averaged(model: Any) -> Callable[..., Tensor]:
    def words(source: Tensor, state: Tensor, share: Tensor) -> Tensor:
        hidden = (model.of_state(state) + model.of_source(share @ source)).tanh()
        return model.head(hidden).log_softmax(-1)

    return words


def test_attention_summed_out_is_the_sum_over_positions_word_by_word() -> None:
    model, guide = attention()
    split = pairs(labels=False)
    with torch.no_grad():
        expected = -by_hand(model, whole(split), summed(model))
    np.testing.assert_allclose(importance_nll(model, None, split).nll, expected, rtol=1e-5)
    np.testing.assert_allclose(importance_nll(model, guide, split).nll, expected, rtol=1e-5)
    assert importance_nll(model, guide, split).samples == 0
    objective = Strategy(discrete=Marginalize()).compile(model, None, whole(split))
    assert objective(whole(split)).item() == pytest.approx(float(expected.mean()), rel=1e-5)
    assert -elbo_terms(model, guide, split, 50).elbo.mean() > float(expected.mean())


def test_soft_attention_takes_the_mean_first() -> None:
    model, _ = attention(SoftAttention)
    split = pairs(labels=False)
    with torch.no_grad():
        expected = -by_hand(model, whole(split), averaged(model))
    np.testing.assert_allclose(importance_nll(model, None, split).nll, expected, rtol=1e-5)


def test_the_posterior_of_a_position_is_bayes() -> None:
    model, _ = attention()
    batch = whole(pairs(labels=False))
    with torch.no_grad():
        found = terms(model, None, batch, marginal=("a",)).posterior("a")[0]  # [T, B, S]
        source, states, logits = model.read(batch)
        for b, t in ((0, 0), (5, 1)):
            hidden = (model.of_state(states[t, b]) + model.of_source(source[b])).tanh()
            joint = logits[t, b].softmax(-1) * model.head(hidden).softmax(-1)[:, batch.second.targets[b, t]]
            torch.testing.assert_close(found[t, b], joint / joint.sum(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "strategy",
    [
        Strategy(discrete=Enumerate()),
        Strategy(discrete=ScoreFunction(LeaveOneOut()), bound=ELBO(3)),
        Strategy(discrete=ScoreFunction(Neural())),
        Strategy(discrete=Subset(2)),
        Strategy(discrete=REBAR()),
    ],
    ids=["Enumerate", "LeaveOneOut", "Neural", "Subset", "REBAR"],
)
def test_every_estimator_of_attention_has_the_exact_gradient(strategy: Strategy) -> None:
    model, guide = attention()
    found = gradient_check(model, guide, pairs(6, labels=False).batch(np.arange(3)), strategy, draws=1000, copies=50)
    assert found.exact and found.p_value > 1e-4 / 5, found


def test_relaxed_attention_is_soft_in_the_limit_of_a_flat_draw_and_hard_in_that_of_a_sharp_one() -> None:
    model, guide = attention()
    batch = whole(pairs(labels=False))
    objective = Strategy(discrete=Relax(1e-3)).compile(model, guide, batch)
    drawn = objective.terms(batch).sites["a"].value
    assert ((drawn > 0.99) | (drawn < 0.01)).float().mean() > 0.97
    assert (drawn.sum(-1) - 1).abs().max() < 1e-5


def test_a_batch_of_shorter_sources_than_the_subset_is_summed_whole() -> None:
    model, guide = attention()
    split = pairs(labels=False)
    objective = Strategy(discrete=Subset(3)).compile(model, guide, whole(split))
    lengths = split.first.lengths[split.group]
    short = np.flatnonzero(lengths == 3)
    exact = Strategy(discrete=Enumerate()).compile(model, guide, whole(split))
    assert len(short) and lengths.max() > 3
    torch.testing.assert_close(objective(split.batch(short)), exact(split.batch(short)))


@pytest.mark.parametrize("kind", [SoftAttention, LatentAttention])
def test_what_is_written_is_the_likeliest_word_at_every_step(kind: type[AttentionModel]) -> None:
    model, _ = attention(kind)
    batch = whole(pairs(labels=False))
    written = model.translate(batch.first, longest=6)
    assert written.shape[0] == 4 and not (written == BOS).any()
    for q in range(4):
        words = written[q][written[q] != PAD]
        ended = words[-1] == 2
        body = words[:-1] if ended else words
        one = PairSplit(
            TextSplit.from_sentences([batch.first.targets[q][batch.first.mask[q]][:-1]]),
            TextSplit.from_sentences([body]),
            np.zeros(1, np.int64),
        ).batch(np.zeros(1, np.int64))
        with torch.no_grad():
            source, states, logits = model.read(one)
            combine = (summed if kind is LatentAttention else averaged)(model)
            for t in range(len(words)):
                log_p = combine(source[0], states[t, 0], logits[t, 0].softmax(-1))
                log_p[[PAD, BOS]] = -torch.inf
                assert log_p.argmax() == words[t]


def test_evaluation_of_pairs_has_a_perplexity_where_words_are_foretold_and_none_of_labels() -> None:
    model, guide = attention()
    split = pairs(labels=False)
    found = evaluate(model, guide, split, samples=5)
    assert found.tokens == split.second.tokens and found.perplexity is not None
    assert found.latents["a"].kl > 0 and found.shuffled_rise is None and "known by their KL" in found.verdict
    judged = evaluate(*nasm(), pairs(), samples=5)
    assert judged.tokens == 0 and judged.perplexity is None and judged.latents["h"].dimensions == LATENT


@pytest.mark.parametrize("kind", [NASM, AnswerMatcher])
def test_one_network_for_both_texts_is_saved_and_loaded(kind: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = sharpen(kind(VOCABULARY, LATENT, encoder, width=6))
    assert model.answer is model.question
    folder = RunFolder.create(tmp_path / "run")
    folder.save_weights("model", model.state_dict(), 1)
    other = kind(VOCABULARY, LATENT, encoder, width=6)
    other.load_state_dict(folder.load_weights("model"))
    batch = whole(pairs())
    torch.testing.assert_close(other.scores(batch, 0)[0], model.scores(batch, 0)[0])
