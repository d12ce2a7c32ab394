"""What models write, and that the parts agree with each other."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule

from pyro_nlp.data.batches import BOS, EOS, PAD
from pyro_nlp.evaluation import (
    analogy,
    as_split,
    codes,
    importance_nll,
    impute,
    interpolate,
    reconstruct,
    sample_prior,
    texts,
)
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
    ends, seen = codes(model, guide, batch)["z"], generated(monkeypatch, model)
    interpolate(model, guide, batch, steps=3)
    wanted = torch.stack([ends[0], (ends[0] + ends[1]) / 2, ends[1], ends[2], (ends[2] + ends[3]) / 2, ends[3]])
    torch.testing.assert_close(seen[0], wanted)


def test_an_odd_number_of_ends_is_refused() -> None:
    with pytest.raises(ValueError, match="an even number of sentences"):
        interpolate(*vae(), whole(text(3)))


@pytest.mark.parametrize("verb", [reconstruct, interpolate, analogy])
def test_a_model_without_latents_has_nothing_to_start_from(verb: Any) -> None:
    with pytest.raises(ValueError, match="SentenceLM has no latents to"):
        verb(lm(), None, whole(text(6)))


@pytest.mark.parametrize("make", LATENT_MODELS.values(), ids=LATENT_MODELS)
@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_what_is_to_c_as_a_is_to_itself_is_the_reconstruction_of_c(make: Any, method: Any) -> None:
    model, guide = make()
    split = text(6)
    options = {"method": method, "max_length": 8, "beam": 3}
    written = analogy(model, guide, split.batch(torch.tensor([0, 0, 1, 2, 2, 4]).numpy()), **options)
    again = reconstruct(model, guide, split.batch(torch.tensor([1, 4]).numpy()), **options)
    assert [ids(row) for row in written] == [ids(row) for row in again]


def test_an_analogy_is_the_code_of_c_moved_as_a_was_to_b(monkeypatch: pytest.MonkeyPatch) -> None:
    model, guide = vae()
    batch = whole(text(6))
    z, seen = codes(model, guide, batch)["z"], generated(monkeypatch, model)
    assert analogy(model, guide, batch).shape[0] == 2
    torch.testing.assert_close(seen[0], torch.stack([z[1] - z[0] + z[2], z[4] - z[3] + z[5]]))


def test_sentences_that_do_not_come_in_threes_are_refused() -> None:
    with pytest.raises(ValueError, match="three sentences each, a, b and c: 4 cannot be divided by 3"):
        analogy(*vae(), whole(text(4)))


def generated(monkeypatch: pytest.MonkeyPatch, model: Any) -> list[torch.Tensor]:
    """The codes z that the model is asked to write from."""
    seen: list[torch.Tensor] = []

    def generate(latents: Any, **options: Any) -> torch.Tensor:
        seen.append(latents["z"])
        return write(model.decoder, model.head, latents["z"], **options)

    monkeypatch.setattr(model, "generate", generate)
    return seen


def test_codes_are_posterior_means() -> None:
    model, guide = vae()
    batch = whole(text(5))
    with torch.no_grad():
        loc, _ = guide.posterior(guide.encoder(batch))
    assert torch.equal(codes(model, guide, batch)["z"], loc)
    assert codes(lm(), None, batch) == {}


# ---- on the sphere ------------------------------------------------------------------------------------------------


class Inside(dist.ProjectedNormal):
    """A distribution on the sphere whose mean lies halfway to the centre."""

    @property
    def mean(self) -> torch.Tensor:
        return 0.5 * super().mean


class Spherical(PyroModule):
    """A model or a guide of `z` on the unit sphere: as a guide it is a `posterior` at the directions given."""

    plates = 1

    def __init__(self, directions: torch.Tensor | None = None, posterior: Any = Inside) -> None:
        super().__init__()
        self.directions, self.posterior = directions, posterior

    def forward(self, batch: Any) -> None:
        with batch.documents():
            if self.directions is None:
                pyro.sample("z", dist.ProjectedNormal(torch.zeros(3)))
            else:
                pyro.sample("z", self.posterior(self.directions))

    def generate(self, latents: Any, **options: Any) -> torch.Tensor:
        self.seen = latents["z"]
        return torch.full((len(self.seen), 1), EOS)


def point(directions: torch.Tensor) -> dist.Delta:
    return dist.Delta(directions, event_dim=1)


@pytest.mark.parametrize("posterior", [Inside, point])
def test_on_the_sphere_an_interpolation_follows_the_great_circle_at_even_speed(posterior: Any) -> None:
    ends = torch.nn.functional.normalize(torch.randn(6, 3), dim=-1)
    ends[5] = ends[4]  # no way to go
    model = Spherical()
    interpolate(model, Spherical(ends, posterior), whole(text(6)), steps=5)
    line = model.seen.view(3, 5, 3).double()
    torch.testing.assert_close(line.norm(dim=-1), torch.ones(3, 5).double(), rtol=0, atol=1e-6)
    torch.testing.assert_close(line[:, [0, -1]].float(), ends.view(3, 2, 3), rtol=0, atol=1e-6)
    step = (line[:, 1:] - line[:, :-1]).norm(dim=-1)
    torch.testing.assert_close(step, step[:, :1].expand(-1, 4), rtol=0, atol=1e-6)
    angle = 2 * torch.asin((line[:, -1] - line[:, 0]).norm(dim=-1) / 2)
    torch.testing.assert_close(4 * 2 * torch.asin(step[:, 0] / 2), angle, rtol=0, atol=1e-5)


def test_on_the_sphere_codes_are_mean_directions_and_an_analogy_comes_back_to_it() -> None:
    directions = torch.nn.functional.normalize(torch.randn(6, 3), dim=-1)
    model, guide = Spherical(), Spherical(directions)
    batch = whole(text(6))
    torch.testing.assert_close(codes(model, guide, batch)["z"], directions)
    analogy(model, guide, batch)
    moved = directions[1::3] - directions[0::3] + directions[2::3]
    torch.testing.assert_close(model.seen, moved / moved.norm(dim=-1, keepdim=True))


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
    z = torch.cat(drawn)
    assert z.shape == (3000, LATENT)
    assert (z.mean(0).abs() < 5 / 3000**0.5).all() and ((z.var(0) - 1).abs() < 5 * (2 / 3000) ** 0.5).all()


@pytest.mark.parametrize("make", [vae, lambda: (lm(), None)], ids=["VAE", "language model"])
def test_many_prior_samples_are_written_a_few_at_a_time(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = make()
    together = sample_prior(model, text(5), 10, seed=3)
    monkeypatch.setattr(texts, "AT_ONCE", 4)
    rows: list[int] = []
    generate = model.generate

    def counted(*arguments: Any, **options: Any) -> torch.Tensor:
        written: torch.Tensor = generate(*arguments, **options)
        rows.append(len(written))
        return written

    monkeypatch.setattr(model, "generate", counted)
    parts = sample_prior(model, text(5), 10, seed=3)
    assert rows == [4, 4, 2] and len(parts) == len(together) == 10
    assert torch.equal(parts, sample_prior(model, text(5), 10, seed=3))
    assert all(EOS in row and set(row[row.index(EOS) + 1 :]) <= {PAD} for row in parts.tolist())
    assert as_split(parts[:4]).tokens == as_split(sample_prior(model, text(5), 4, seed=3)).tokens


def test_no_prior_samples_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match="0 samples: there must be at least one"):
        sample_prior(vae()[0], text(4), 0)


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
