"""Encoders: what pooling means, and that padding is never seen."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pyro_nlp.nn import GaussianHead, GRUEncoder, LSTMEncoder, pool
from tests.tiny import VOCABULARY, WIDTH, gradients, padded, sharpen, text, whole

CELLS: dict[str, Any] = {
    "LSTM": LSTMEncoder,
    "GRU": GRUEncoder,
    "both ways": lambda words, size, width, **options: LSTMEncoder(
        words, size, width // 2, bidirectional=True, **options
    ),
}
POOLINGS: list[Any] = ["last", "mean", "max"]


PAIRS = [(cell, pooling) for cell in CELLS for pooling in POOLINGS if (cell, pooling) != ("both ways", "last")]


@pytest.mark.parametrize(("cell", "pooling"), PAIRS)
def test_padding_changes_neither_features_nor_gradients(cell: str, pooling: Any) -> None:
    encoder = sharpen(CELLS[cell](VOCABULARY, WIDTH, WIDTH, pooling=pooling))
    batch = whole(text(6))
    longer = padded(batch, 3)
    longer = longer.replace(targets=longer.targets.masked_fill(~longer.mask, 7))  # whatever stands there
    weight = torch.randn(6, WIDTH)
    outcome = []
    for each in (batch, longer):
        features = encoder(each)
        (features * weight).sum().backward()
        outcome.append((features.detach(), gradients(encoder)))
    (first, d_first), (second, d_second) = outcome
    # the recurrence is the same; products over time may be taken in blocks of another size
    torch.testing.assert_close(first, second, rtol=0, atol=1e-6)
    for name in d_first:
        torch.testing.assert_close(d_first[name], d_second[name], rtol=0, atol=1e-5)
    assert not second.requires_grad and d_second["0.words.weight"].isfinite().all()


@pytest.mark.parametrize(("cell", "pooling"), PAIRS)
def test_a_document_is_encoded_alone_as_among_others(cell: str, pooling: Any) -> None:
    encoder, split = sharpen(CELLS[cell](VOCABULARY, WIDTH, WIDTH, pooling=pooling)), text(6)
    together = encoder(whole(split))
    alone = torch.cat([encoder(split.batch([i])) for i in range(6)])  # type: ignore[arg-type]
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("how", POOLINGS)
def test_pooling_equals_a_loop_over_the_real_positions(how: Any) -> None:
    states = torch.randn(5, 4, WIDTH)
    lengths = [4, 1, 2, 3, 4]
    mask = torch.arange(4) < torch.tensor(lengths)[:, None]
    functions = {"last": lambda s: s[-1], "mean": lambda s: s.mean(0), "max": lambda s: s.amax(0)}
    wanted = torch.stack([functions[how](row[:n]) for row, n in zip(states, lengths, strict=True)])
    torch.testing.assert_close(pool(states, mask, how), wanted)


@pytest.mark.parametrize("how", ["last", "max"])
def test_a_nan_at_a_padded_position_is_not_pooled(how: Any) -> None:
    states = torch.randn(1, 3, WIDTH)
    states[0, 2] = torch.nan
    assert pool(states, torch.tensor([[True, True, False]]), how).isfinite().all()


def test_an_unknown_pooling_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'last', 'mean' or 'max', not 'sum'"):
        pool(torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.bool), "sum")  # type: ignore[arg-type]


def test_an_encoder_reads_the_targets_which_word_dropout_never_touches() -> None:
    encoder, batch = sharpen(LSTMEncoder(VOCABULARY, WIDTH, WIDTH)), whole(text(6))
    assert torch.equal(encoder(batch), encoder(batch.replace(inputs=torch.full_like(batch.inputs, 3))))


def test_a_gaussian_head_works_in_float32_under_autocast() -> None:
    head, features = sharpen(GaussianHead(WIDTH, 3)), torch.randn(2, 5, WIDTH)
    wanted = head(features)
    with torch.autocast("cpu", torch.bfloat16):
        found = head(features)
        from_bf16 = head(features.bfloat16())
    for a, b, c in zip(found, wanted, from_bf16, strict=True):
        assert a.dtype == c.dtype == torch.float32
        assert a.shape == (2, 5, 3)
        assert torch.equal(a, b)
        torch.testing.assert_close(c, b, rtol=0.1, atol=0.1)  # the features themselves have 8 bits


def test_a_gaussian_head_starts_at_unit_variance() -> None:
    _, scale = GaussianHead(WIDTH, 3)(torch.randn(5, WIDTH))
    assert torch.equal(scale, torch.ones(5, 3))


@pytest.mark.parametrize("cell", CELLS)
def test_an_encoder_reads_vectors_in_place_of_words(cell: str) -> None:
    encoder, batch = sharpen(CELLS[cell](VOCABULARY, WIDTH + 1, WIDTH, pooling="mean")), whole(text(6))
    assert encoder.embedding == WIDTH + 1
    assert torch.equal(encoder.read(encoder.words(batch.targets), batch.mask), encoder(batch))


def test_read_both_ways_every_state_knows_the_whole_sentence() -> None:
    encoder = sharpen(LSTMEncoder(VOCABULARY, WIDTH, WIDTH, pooling="mean", bidirectional=True))
    batch = whole(text(6))
    states = encoder.states(batch)
    assert states.shape == (*batch.targets.shape, 2 * WIDTH) and encoder.width == 2 * WIDTH
    row = int(batch.lengths.argmax())
    last = int(batch.lengths[row]) - 1
    other = batch.replace(targets=batch.targets.clone())
    other.targets[row, last] = 5 if batch.targets[row, last] != 5 else 6
    moved = (encoder.states(other) - states)[row, 0].abs()
    assert (moved[:WIDTH] == 0).all() and (moved[WIDTH:] > 0).any()


def test_read_both_ways_there_is_no_last_state() -> None:
    with pytest.raises(ValueError, match="LSTMEncoder: .* use pooling='mean' or 'max'"):
        LSTMEncoder(VOCABULARY, WIDTH, WIDTH, bidirectional=True)
