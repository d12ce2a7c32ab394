"""What models write, and that the parts agree with each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pyro_nlp.data.batches import BOS, EOS, PAD
from pyro_nlp.evaluation import as_split, codes, importance_nll, impute, interpolate, reconstruct, sample_prior
from pyro_nlp.evaluation.texts import to_text
from pyro_nlp.nn import BLANK, write
from tests.tiny import LATENT, VOCABULARY, autoencoder, lm, sentences, text, vae, whole

LATENT_MODELS = {"VAE": vae, "autoencoder": autoencoder}


def ids(row: torch.Tensor) -> list[int]:
    words: list[int] = row.tolist()
    return words[: words.index(EOS) + 1]


@pytest.mark.parametrize("make", LATENT_MODELS.values(), ids=LATENT_MODELS)
@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_both_ends_of_an_interpolation_are_the_reconstructions_of_its_ends(make: Any, method: Any) -> None:
    model, guide = make()
    batch = whole(text(6))
    between = interpolate(model, guide, batch, steps=5, method=method, max_length=8, beam=3)
    again = reconstruct(model, guide, batch, method=method, max_length=8, beam=3)
    assert between.shape[:2] == (3, 5)
    for pair in range(3):
        assert ids(between[pair, 0]) == ids(again[2 * pair])
        assert ids(between[pair, -1]) == ids(again[2 * pair + 1])


def test_an_interpolation_is_a_straight_line_between_the_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    model, guide = vae()
    batch = whole(text(4))
    ends = codes(model, guide, batch)["z"]
    seen: list[torch.Tensor] = []

    def generate(latents: Any, **options: Any) -> torch.Tensor:
        seen.append(latents["z"])
        return write(model.decoder, model.head, latents["z"], **options)

    monkeypatch.setattr(model, "generate", generate)
    interpolate(model, guide, batch, steps=3)
    wanted = torch.stack([ends[0], (ends[0] + ends[1]) / 2, ends[1], ends[2], (ends[2] + ends[3]) / 2, ends[3]])
    torch.testing.assert_close(seen[0], wanted)


def test_an_odd_number_of_ends_is_refused() -> None:
    with pytest.raises(ValueError, match="an even number of sentences"):
        interpolate(*vae(), whole(text(3)))


@pytest.mark.parametrize("verb", [reconstruct, interpolate])
def test_a_model_without_latents_has_nothing_to_start_from(verb: Any) -> None:
    with pytest.raises(ValueError, match="SentenceLM has no latents to"):
        verb(lm(), None, whole(text(4)))


def test_codes_are_posterior_means() -> None:
    model, guide = vae()
    batch = whole(text(5))
    with torch.no_grad():
        loc, _ = guide.posterior(guide.encoder(batch))
    assert torch.equal(codes(model, guide, batch)["z"], loc)
    assert codes(lm(), None, batch) == {}


# ---- prior samples -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [*LATENT_MODELS.values(), lambda: (lm(), None)], ids=[*LATENT_MODELS, "language model"]
)
def test_prior_samples_depend_on_the_seed_alone_and_leave_no_trace(make: Any) -> None:
    model, _ = make()
    split, state = text(5), torch.get_rng_state()
    first = sample_prior(model, split, 12, seed=1, max_length=8)
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(3)
    assert torch.equal(first, sample_prior(model, split, 12, seed=1, max_length=8))
    assert not torch.equal(first, sample_prior(model, text(5, seed=1), 12, seed=2, max_length=8))
    assert len(first) == 12 and all(EOS in row for row in first)
    assert model.training


def test_the_split_only_lends_documents_to_stand_in_for() -> None:
    model, _ = vae()
    samples = [sample_prior(model, text(n, seed=n), 9, max_length=8) for n in (3, 20)]
    assert torch.equal(*samples)


def test_prior_samples_come_from_latents_of_the_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = vae()
    drawn: list[torch.Tensor] = []
    monkeypatch.setattr(model, "generate", lambda latents, **_: drawn.append(latents["z"]) or torch.zeros(1, 1))
    sample_prior(model, text(4), 3000)
    (z,) = drawn
    assert z.shape == (3000, LATENT)
    assert (z.mean(0).abs() < 5 / 3000**0.5).all() and ((z.var(0) - 1).abs() < 5 * (2 / 3000) ** 0.5).all()


def test_greedy_prior_samples_can_be_asked_for() -> None:
    model, _ = vae()
    first = sample_prior(model, text(4), 5, seed=0, method="greedy", max_length=6)
    assert first.shape[0] == 5


# ---- filling blanks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make", [*LATENT_MODELS.values(), lambda: (lm(), None)], ids=[*LATENT_MODELS, "language model"]
)
def test_imputation_keeps_the_given_words_and_fills_every_blank(make: Any) -> None:
    model, guide = make()
    given = [[5, BLANK, 7], [BLANK, BLANK], [9, 10, 11, 12], [BLANK, 4, BLANK, 6, 8]]
    filled = impute(model, guide, given, rounds=3, beam=4)
    assert [len(s) for s in filled] == [len(s) for s in given]
    for before, after in zip(given, filled, strict=True):
        assert all(a == b for b, a in zip(before, after, strict=True) if b != BLANK)
        assert not {BLANK, PAD, BOS, EOS} & set(after)
        assert all(0 <= word < VOCABULARY for word in after)


def test_a_language_model_fills_a_blank_with_the_likeliest_word_of_all() -> None:
    model = lm()
    ((*_, filled, last),) = impute(model, None, [[5, 9, BLANK, 7]], beam=VOCABULARY)
    candidates = as_split(torch.tensor([[5, 9, w, 7, EOS] for w in range(3, VOCABULARY)]))
    assert filled == 3 + int(importance_nll(model, None, candidates).nll.argmin()) and last == 7


def test_imputation_stops_where_the_code_of_the_filled_sentence_fills_it_alike() -> None:
    model, guide = vae()
    given = [[5, BLANK, 7], [BLANK, 9, BLANK]]
    filled = impute(model, guide, given, rounds=50, beam=5)
    batch = as_split(torch.tensor([[*s, EOS] for s in filled])).batch(torch.arange(2).numpy())
    template = torch.tensor([[*s, EOS] for s in given])
    again = write(model.decoder, model.head, codes(model, guide, batch)["z"], "beam", beam=5, template=template)
    assert again[:, :-1].tolist() == filled


# ---- to a split and to text --------------------------------------------------------------------------------------


def test_written_sentences_come_back_from_a_split() -> None:
    wanted = [s.tolist() for s in sentences(10)]
    width = max(map(len, wanted)) + 1
    written = torch.tensor([[*s, EOS, *[PAD] * (width - len(s) - 1)] for s in wanted])
    split = as_split(written)
    assert [split.words(i) for i in range(len(split))] == wanted
    assert torch.equal(whole(split).targets, written)


def test_a_sentence_without_an_end_is_taken_whole() -> None:
    assert as_split(torch.tensor([[4, 5, 6]])).words(0) == [4, 5, 6]


def test_text_is_the_decoded_words_of_each_row() -> None:
    assert to_text(torch.tensor([[4, 5], [6, 4]]), lambda row: [f"w{i}" for i in row]) == ["w4 w5", "w6 w4"]
