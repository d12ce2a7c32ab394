"""The dilated convolutional decoder: against PyTorch's convolutions, how far it reaches, and what it refuses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_nlp.nn import DilatedCNNDecoder
from tests.tiny import LATENT, VOCABULARY, WIDTH, sharpen

BATCH, TIME = 3, 40


def make(latent: int = LATENT, **options: Any) -> DilatedCNNDecoder:
    decoder = DilatedCNNDecoder(VOCABULARY, latent, embedding=WIDTH, width=WIDTH, **options)
    found: DilatedCNNDecoder = sharpen(decoder).eval().double()
    return found


def words(time: int = TIME) -> Tensor:
    return torch.randint(4, VOCABULARY, (BATCH, time))


def code(latent: int = LATENT) -> Tensor:
    return torch.randn(BATCH, latent, dtype=torch.float64)


def by_conv1d(decoder: DilatedCNNDecoder, z: Tensor, inputs: Tensor) -> Tensor:
    """The same states from `conv1d`, z joined to every word vector."""
    assert decoder.from_z is not None
    read = torch.cat([decoder.words(inputs), z[:, None].expand(-1, inputs.shape[1], -1)], -1)
    weight = torch.cat([decoder.from_words.weight, decoder.from_z.weight], 1)
    x = F.linear(read, weight, decoder.from_words.bias).transpose(1, 2)
    for block, dilation in zip(decoder.blocks, decoder.dilations, strict=True):
        narrow, dilated, widen = (getattr(block, name) for name in ("narrow", "dilated", "widen"))
        h = F.conv1d(x.relu(), narrow.weight[..., None], narrow.bias).relu()
        kernel = dilated.weight.unflatten(1, (decoder.kernel, -1)).transpose(1, 2)
        h = F.pad(h, ((decoder.kernel - 1) * dilation, 0))
        h = F.conv1d(h, kernel, dilated.bias, dilation=dilation).relu()
        x = x + F.conv1d(h, widen.weight[..., None], widen.bias)
    return x.transpose(1, 2)


@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_it_is_residual_blocks_of_causal_dilated_convolutions(kernel: int) -> None:
    decoder, z, inputs = make(dilations=[1, 3, 2], kernel=kernel, bottleneck=5), code(), words()
    torch.testing.assert_close(decoder(z, inputs), by_conv1d(decoder, z, inputs), rtol=0.0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "reach"),
    [
        ({"size": "small"}, 15),
        ({"size": "medium"}, 63),
        ({"size": "large"}, 125),
        ({"size": "very large"}, 187),
        ({"dilations": [3, 1]}, 9),
        ({"dilations": [3, 1], "kernel": 2}, 5),
        ({"kernel": 1}, 1),
    ],
    ids=str,
)
def test_a_state_sees_as_many_words_as_it_says_and_not_one_more(options: dict[str, Any], reach: int) -> None:
    decoder, z = make(latent=0, **options), torch.zeros(1, 0, dtype=torch.float64)
    assert decoder.receptive_field == reach
    decoder.words = torch.nn.Embedding(reach + 3, WIDTH, dtype=torch.float64)  # every word its own
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.abs_()  # no relu stops anything
    (gradient,) = torch.autograd.grad(decoder(z, torch.arange(reach + 3)[None])[0, -1].sum(), decoder.words.weight)
    seen = gradient.any(-1)
    assert not seen[:3].any() and bool(seen[3]) and bool(seen[-1])


@pytest.mark.parametrize("latent", [LATENT, 0])
@pytest.mark.parametrize("size", ["small", "medium", "very large"])
def test_word_by_word_it_gives_what_it_gives_at_once_also_beyond_its_reach(latent: int, size: Any) -> None:
    decoder, z, inputs = make(latent, size=size, skip=True), code(latent), words()
    state, found = decoder.start(z), []
    shapes = [tensor.shape for tensor in state]
    for t in range(TIME):
        hidden, state = decoder.step(state, inputs[:, t])
        found.append(hidden)
        assert [tensor.shape for tensor in state] == shapes  # a word costs the same wherever it stands
    torch.testing.assert_close(torch.stack(found, 1), decoder(z, inputs), rtol=0.0, atol=1e-10)


def test_depth_changes_no_scale_at_the_start() -> None:
    decoder = DilatedCNNDecoder(VOCABULARY, LATENT, size="very large")
    z, inputs = torch.randn(64, LATENT), torch.randint(4, VOCABULARY, (64, 30))
    with torch.no_grad():
        read, found = decoder._read(inputs, z[:, None]), decoder(z, inputs)
    # a product divides the variance by 6 or so, a relu aside: 15 blocks add little even if all agreed
    assert 0.8 < float(found.std() / read.std()) < 1.25
    assert float((found - read).abs().max()) > 0


def longest(words: int) -> Any:
    """A corpus whose longest sentence has so many words, and its end."""
    return SimpleNamespace(train=SimpleNamespace(lengths=torch.tensor([3, words + 1])))


def test_it_refuses_a_dilation_wider_than_the_longest_sentence_and_names_those_that_fit() -> None:
    decoder = make(size="large")
    decoder.meet_corpus(longest(16))
    with pytest.raises(ValueError, match=r"use dilations=\[1, 2, 4, 8, 1, 2, 4, 8\]$") as raised:
        decoder.meet_corpus(longest(12))
    assert str(raised.value).startswith(
        "DilatedCNNDecoder: a dilation of 16 (its block reaches back 32 words) is wider than the longest sentence of 12"
    )
    make(dilations=[1, 2, 4, 8, 1, 2, 4, 8]).meet_corpus(longest(12))
    make(size="large", kernel=1).meet_corpus(longest(1))  # it has no past to miss


def test_all_that_a_refused_dilation_reads_of_the_past_is_padding() -> None:
    decoder, z, inputs = make(dilations=[1, 13], bottleneck=4), code(), words(14)  # `<s>` and 13 words
    decoder.meet_corpus(longest(13))
    with pytest.raises(ValueError, match="wider than the longest sentence of 12"):
        decoder.meet_corpus(longest(12))
    before = decoder(z, inputs)
    weight: Any = decoder.blocks[1].dilated.weight  # type: ignore[union-attr]
    with torch.no_grad():
        weight[:, : 2 * 4].normal_(std=3.0)  # of the two older words that it reads
    after = decoder(z, inputs)
    assert torch.equal(after[:, :13], before[:, :13]) and not torch.equal(after[:, 13], before[:, 13])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"size": "tiny"}, r"size is 'small', 'medium', 'large', 'very large', not 'tiny'; or give dilations"),
        ({"dilations": []}, r"one or more numbers of at least 1 .* not \[\] and 3"),
        ({"dilations": [1, 0]}, r"not \[1, 0\] and 3"),
        ({"kernel": 0}, r"kernel is at least 1, not .* and 0"),
    ],
)
def test_impossible_arguments_are_refused_with_the_possible_ones(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DilatedCNNDecoder(VOCABULARY, LATENT, **options)


@pytest.mark.parametrize("which", ["input_dropout", "output_dropout"])
def test_dropout_acts_in_training_only(which: str) -> None:
    decoder, z, inputs = make(**{which: 0.5}), code(), words()
    assert torch.equal(decoder(z, inputs), decoder(z, inputs))
    decoder.train()
    assert not torch.equal(decoder(z, inputs), decoder(z, inputs))


def test_it_has_second_derivatives() -> None:
    decoder, z, inputs = make(dilations=[1, 2]), code().requires_grad_(), words(6)
    assert torch.autograd.gradgradcheck(lambda z: decoder(z, inputs).square(), z)


@pytest.mark.parametrize("size", ["small", "very large"])
def test_in_bf16_it_gives_the_same_within_its_precision(size: Any) -> None:
    decoder = DilatedCNNDecoder(VOCABULARY, LATENT, embedding=WIDTH, width=WIDTH, size=size)
    z, inputs = torch.randn(BATCH, LATENT), words()
    expected = decoder(z, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        found = decoder(z, inputs)
        state, stepped = decoder.start(z), []
        for t in range(TIME):
            hidden, state = decoder.step(state, inputs[:, t])
            stepped.append(hidden)
    found.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in decoder.parameters())
    scale = float(expected.detach().abs().max())
    for each in (found, torch.stack(stepped, 1)):
        # 8 bits, some roundings in each of three products of a block, and their sum
        torch.testing.assert_close(each, expected, rtol=0.0, atol=8 * 2**-8 * scale)
