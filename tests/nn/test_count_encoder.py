"""Encoders of counts and batch normalisation, against their formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pyro_nlp.data import CountBatch
from pyro_nlp.nn import BatchNorm, CountEncoder, NormalisedHead

VOCABULARY = 6


def batch(rows: int = 4) -> CountBatch:
    counts = torch.randint(4, (rows, VOCABULARY)).float()
    counts[-1] = 0
    return CountBatch(index=torch.arange(rows), population=rows, counts=counts)


READINGS: dict[Any, Any] = {
    "counts": lambda counts: counts,
    "log": lambda counts: (1 + counts).log(),
    "shares": lambda counts: torch.stack([row / row.sum() if row.sum() else row for row in counts]),
}


@pytest.mark.parametrize("reads", READINGS)
@pytest.mark.parametrize("activation", ["tanh", "relu", "softplus"])
def test_one_layer_is_its_formula(reads: Any, activation: Any) -> None:
    encoder, documents = CountEncoder(VOCABULARY, 5, activation=activation, reads=reads), batch()
    layer = next(m for m in encoder.modules() if isinstance(m, torch.nn.Linear))
    apply = torch.nn.functional.softplus if activation == "softplus" else getattr(torch, activation)
    wanted = apply(READINGS[reads](documents.counts) @ layer.weight.T + layer.bias)
    torch.testing.assert_close(encoder(documents), wanted)
    assert encoder.width == 5


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_every_layer_has_the_width_and_a_normalisation_if_asked(layers: int) -> None:
    encoder = CountEncoder(VOCABULARY, 5, layers, batch_norm=True)
    assert sum(isinstance(m, BatchNorm) for m in encoder.modules()) == layers
    assert encoder(batch()).shape == (4, 5)


def test_an_encoder_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="CountEncoder: layers is 0; it takes at least 1"):
        CountEncoder(VOCABULARY, layers=0)


@pytest.mark.parametrize("option", ["dropout", "word_dropout"])
def test_dropout_is_of_training_alone(option: str) -> None:
    encoder, documents = CountEncoder(VOCABULARY, 50, **{option: 0.5}), batch()  # type: ignore[arg-type]
    assert not torch.equal(encoder(documents), encoder(documents))
    encoder.eval()
    assert torch.equal(encoder(documents), encoder(documents))


@pytest.mark.parametrize("left", [(8,), (3, 4)])
def test_batch_norm_in_training_is_torchs_over_all_rows(left: tuple[int, ...]) -> None:
    ours, theirs = BatchNorm(5), torch.nn.BatchNorm1d(5)
    for _ in range(3):
        x = 3 * torch.randn(*left, 5) + 1
        torch.testing.assert_close(ours(x), theirs(x.reshape(-1, 5)).view_as(x))
    assert torch.equal(ours.running_mean, theirs.running_mean)
    assert torch.equal(ours.running_variance, theirs.running_var)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x.reshape(-1, 5)).view_as(x))


def test_a_batch_of_one_is_normalised_by_the_running_moments_and_leaves_them() -> None:
    norm, x = BatchNorm(5), torch.randn(1, 5)
    norm(3 * torch.randn(20, 5) + 1)
    before = norm.running_mean.clone()
    found = norm.train()(x)
    assert torch.equal(found, norm.eval()(x)) and torch.equal(norm.running_mean, before)


def test_without_gradients_the_running_moments_stay() -> None:
    norm, x = BatchNorm(5), torch.randn(20, 5)
    with torch.no_grad():
        looked = norm(x)
    assert not norm.running_mean.any()
    assert torch.equal(norm(x), looked) and norm.running_mean.any()


def test_batch_norm_is_in_float32_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert BatchNorm(5)(torch.randn(4, 5).bfloat16()).dtype == torch.float32


def test_a_normalised_head_spreads_its_means_and_log_variances_over_the_batch() -> None:
    head = NormalisedHead(5, 3)
    loc, scale = head(torch.randn(50, 5))
    for found in (loc, 2 * scale.log()):
        torch.testing.assert_close(found.mean(0), torch.zeros(3), rtol=0, atol=1e-5)
        # the 1e-5 added to a variance that may be 0.1
        torch.testing.assert_close(found.std(0, unbiased=False), torch.ones(3), rtol=0, atol=1e-3)
