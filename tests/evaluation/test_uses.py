"""Uses of a latent space: BLEU, perplexity of what is written, against closed forms."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pyro_nlp.data.batches import EOS, PAD
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.evaluation import (
    as_split,
    forward_perplexity,
    importance_nll,
    interpolant_perplexity,
    interpolate,
    reconstruction_bleu,
    reverse_perplexity,
    sample_prior,
)
from pyro_nlp.inference import Adam, Training, fit
from pyro_nlp.models.sentence_lm import SentenceLM
from tests.tiny import VOCABULARY, Sentences, autoencoder, decoder, lm, parameters, same, text, vae

TRAINING = Training(epochs=6, batch_size=8, optimizer=Adam(0.03))


def split(*sentences: Sequence[int]) -> TextSplit:
    return TextSplit.from_sentences(sentences)


def rewrites(monkeypatch: pytest.MonkeyPatch, model: nn.Module, rows: list[list[int]]) -> None:
    """Make a model write these sentences, whatever it is asked for."""
    longest = max(map(len, rows))
    written = torch.tensor([[*row, EOS, *[PAD] * (longest - len(row))] for row in rows])
    monkeypatch.setattr(model, "generate", lambda latents, **_: written)


# ---- BLEU of reconstructions -------------------------------------------------------------------------------------


class Repeated(Sentences):
    """Two sentences, over and over."""

    def __init__(self) -> None:
        super().__init__()
        self.train = self.valid = self.test = split(*[[5, 6, 7, 8, 9], [10, 6, 11, 5, 12, 13]] * 12)


def test_an_autoencoder_that_copies_gets_100_and_one_that_has_learnt_nothing_far_less() -> None:
    corpus = Repeated()
    model, guide = autoencoder()
    assert reconstruction_bleu(model, guide, corpus.test) < 20
    run = fit(model, guide, corpus, training=Training(epochs=60, batch_size=8, optimizer=Adam(0.03)))
    assert reconstruction_bleu(run.model, run.guide, corpus.test, batch_size=5) == pytest.approx(100, abs=1e-9)


def test_bleu_is_the_geometric_mean_of_the_shares_of_n_grams_of_all_sentences(monkeypatch: Any) -> None:
    model, guide = vae()
    rewrites(monkeypatch, model, [[5, 6, 7, 8, 9], [11, 12, 13, 14, 15]])
    # n-grams that are right: 4 and 5 of 10 words, 3 and 4 of 8 pairs, 2 and 3 of 6, 1 and 2 of 4
    wanted = 100 * (9 / 10 * 7 / 8 * 5 / 6 * 3 / 4) ** (1 / 4)
    given = split([5, 6, 7, 8, 4], [11, 12, 13, 14, 15])
    assert reconstruction_bleu(model, guide, given) == pytest.approx(wanted, rel=1e-12)


def test_what_is_written_too_short_is_punished(monkeypatch: Any) -> None:
    model, guide = vae()
    rewrites(monkeypatch, model, [[5, 6, 7, 8]])
    found = reconstruction_bleu(model, guide, split([5, 6, 7, 8, 9]))
    assert found == pytest.approx(100 * math.exp(1 - 5 / 4), rel=1e-12)


def test_bleu_does_not_depend_on_how_sentences_are_batched_or_ordered() -> None:
    model, guide = autoencoder()
    given = text(30)
    whole = reconstruction_bleu(model, guide, given)
    assert whole == pytest.approx(reconstruction_bleu(model, guide, given, batch_size=4), rel=1e-12)
    backwards = given.take(np.arange(30)[::-1])
    assert whole == pytest.approx(reconstruction_bleu(model, guide, backwards, batch_size=7), rel=1e-12)


def test_sentences_without_four_words_have_no_bleu() -> None:
    with pytest.raises(ValueError, match="BLEU-4 wants sentences of at least four words"):
        reconstruction_bleu(*vae(), split([5, 6, 7], [4]))


def test_a_model_without_latents_reconstructs_nothing() -> None:
    with pytest.raises(ValueError, match="SentenceLM has no latents to reconstruct from"):
        reconstruction_bleu(lm(), None, text(9))


def test_a_missing_package_is_named_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    with pytest.raises(ImportError, match=r"needs the package sacrebleu, .*pip install 'pyro-nlp\[metrics\]'"):
        reconstruction_bleu(*vae(), text(9))


# ---- perplexity of what is written -------------------------------------------------------------------------------


def uniform() -> SentenceLM:
    """A language model to which every word is as likely as any other."""
    model = lm()
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    return model


def new_lm() -> SentenceLM:
    return SentenceLM(VOCABULARY, decoder)


def test_under_a_uniform_language_model_the_perplexity_is_the_vocabulary() -> None:
    model, guide = vae()
    samples = as_split(sample_prior(model, text(5), 20, max_length=8))
    assert forward_perplexity(uniform(), samples) == pytest.approx(VOCABULARY, rel=1e-6)
    found = interpolant_perplexity(model, guide, uniform(), text(7), steps=4, max_length=8)
    assert found == pytest.approx(VOCABULARY, rel=1e-6)


def test_forward_perplexity_counts_the_ends_of_sentence() -> None:
    model, samples = lm(), text(25)
    nll = importance_nll(model, None, samples).nll
    words = sum(len(samples.words(row)) for row in range(25))
    assert forward_perplexity(model, samples, batch_size=4) == pytest.approx(
        math.exp(nll.sum() / (words + 25)), rel=1e-6
    )


def test_interpolants_are_judged_without_their_ends_and_without_a_last_document_alone() -> None:
    model, guide = vae()
    judge, given = lm(1), text(7)
    line = interpolate(model, guide, given.batch(np.arange(6)), 5, max_length=8)
    wanted = forward_perplexity(judge, as_split(line[:, 1:4].flatten(0, 1)))
    for batch_size in (1, 64):
        found = interpolant_perplexity(model, guide, judge, given, 5, batch_size=batch_size, max_length=8)
        assert found == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(("steps", "documents"), [(2, 6), (5, 1)])
def test_where_nothing_is_between_there_is_no_perplexity(steps: int, documents: int) -> None:
    with pytest.raises(ValueError, match=f"{steps} steps between {documents} documents: nothing is between"):
        interpolant_perplexity(*vae(), lm(), text(documents, longest=3), steps)


def test_of_real_sentences_the_reverse_perplexity_is_that_of_a_language_model_of_the_corpus() -> None:
    corpus = Sentences()
    found = reverse_perplexity(corpus.train, corpus, new_lm, TRAINING, seed=4)
    torch.manual_seed(4)
    run = fit(new_lm(), None, corpus, training=TRAINING, seed=4)
    assert found == forward_perplexity(run.model, corpus.test)
    on_valid = reverse_perplexity(corpus.train, corpus, new_lm, TRAINING, seed=4, split="valid")
    assert on_valid == forward_perplexity(run.model, corpus.valid)


def test_samples_that_are_all_the_same_read_well_and_teach_little() -> None:
    corpus = Sentences(train=200)
    torch.manual_seed(0)
    judge = fit(new_lm(), None, corpus, training=TRAINING).model
    # of all training sentences the likeliest, word by word
    nll = importance_nll(judge, None, corpus.train).nll / corpus.train.lengths
    alike = corpus.train.take(np.full(200, nll.argmin()))
    assert forward_perplexity(judge, alike) < forward_perplexity(judge, corpus.test)
    real, poor = (reverse_perplexity(part, corpus, new_lm, TRAINING) for part in (corpus.train, alike))
    assert real < VOCABULARY < poor


def test_reverse_perplexity_depends_on_the_seed_alone_and_leaves_no_trace() -> None:
    corpus, state = Sentences(), torch.get_rng_state()
    first = reverse_perplexity(text(30, seed=2), corpus, new_lm, TRAINING, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(3)
    assert first == reverse_perplexity(text(30, seed=2), corpus, new_lm, TRAINING, seed=1)
    assert first != reverse_perplexity(text(30, seed=2), corpus, new_lm, TRAINING, seed=2)


def test_judging_leaves_the_language_model_as_it_was() -> None:
    model = lm().train()
    before = parameters(model)
    forward_perplexity(model, text(9))
    assert same(before, parameters(model)) and model.training
