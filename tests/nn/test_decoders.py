"""Decoders: any left dimensions, word by word as teacher-forced, and what each may see."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyro_nlp.data.batches import BOS, PAD
from pyro_nlp.nn import (
    Decoder,
    DilatedCNNDecoder,
    GRUDecoder,
    InputlessDecoder,
    LSTMDecoder,
    TransformerDecoder,
    write,
)
from tests.tiny import LATENT, VOCABULARY, WIDTH, sharpen

BATCH, TIME = 4, 5


def assert_close(found: Tensor, expected: Tensor) -> None:
    """Equal but for some roundings: a few layers of products of WIDTH numbers, in another order."""
    size = max(1.0, float(expected.detach().abs().max()))
    torch.testing.assert_close(found, expected, rtol=0.0, atol=16 * size * torch.finfo(expected.dtype).eps)


class Prefix(Decoder):
    """A decoder without a `step` of its own: a state is the mean of the words read so far, beside z."""

    def __init__(self, vocabulary: int, latent: int) -> None:
        super().__init__(vocabulary, latent)
        self.width = WIDTH + latent
        self.words = nn.Embedding(vocabulary, WIDTH)

    def forward(self, z: Tensor, inputs: Tensor) -> Tensor:
        left = torch.broadcast_shapes(z.shape[:-1], inputs.shape[:-1])
        read = self.words(inputs).cumsum(-2) / torch.arange(1, inputs.shape[-1] + 1)[:, None]
        code = z[..., None, :].expand(*left, inputs.shape[-1], -1)
        return torch.cat([read.expand(*left, -1, -1), code], -1)


DECODERS = {
    "LSTM": partial(LSTMDecoder, embedding=WIDTH, width=WIDTH),
    "LSTM of two layers": partial(LSTMDecoder, embedding=WIDTH, width=WIDTH, layers=2),
    "GRU": partial(GRUDecoder, embedding=WIDTH, width=WIDTH),
    "GRU of two layers": partial(GRUDecoder, embedding=WIDTH, width=WIDTH, layers=2),
    "LSTM with z beside its states": partial(LSTMDecoder, embedding=WIDTH, width=WIDTH, skip=True),
    "GRU of two layers with z beside its states": partial(
        GRUDecoder, embedding=WIDTH, width=WIDTH, layers=2, skip=True
    ),
    "inputless": partial(InputlessDecoder, embedding=WIDTH, width=WIDTH),
    "CNN": partial(DilatedCNNDecoder, embedding=WIDTH, width=WIDTH, size="small"),
    "CNN of kernel 2 with z beside its states": partial(
        DilatedCNNDecoder, embedding=WIDTH + 1, width=WIDTH, dilations=[1, 3], kernel=2, bottleneck=5, skip=True
    ),
    "CNN that reaches beyond every sentence": partial(DilatedCNNDecoder, embedding=WIDTH, width=WIDTH, size="medium"),
    **{
        f"transformer, z as {how}, {tokens} tokens": partial(
            TransformerDecoder,
            embedding=WIDTH + tokens - 1,  # once without and once with a projection
            width=WIDTH,
            layers=2,
            heads=2,
            feedforward=2 * WIDTH,
            latent_as=how,
            memory_tokens=tokens,
        )
        for how, tokens in (("memory", 1), ("memory", 3), ("embedding", 1), ("both", 2))
    },
    "a user's, with the default step": Prefix,
}
every_decoder = pytest.mark.parametrize("name", DECODERS)
every_latent = pytest.mark.parametrize("latent", [LATENT, 0], ids=["with z", "language model"])


def make(name: str, latent: int = LATENT) -> Decoder:
    decoder: Decoder = sharpen(DECODERS[name](VOCABULARY, latent)).eval()
    return decoder


def words(*left: int) -> Tensor:
    inputs = torch.randint(4, VOCABULARY, (*left, TIME))
    inputs[..., 0] = BOS
    return inputs


@every_decoder
@every_latent
@pytest.mark.parametrize(
    ("z_left", "word_left"),
    [((3, 2, BATCH), (BATCH,)), ((BATCH,), (3, BATCH)), ((3, 1, BATCH), (2, BATCH)), ((), ()), ((1,), (BATCH,))],
    ids=["more of z", "more of words", "both", "none", "one z for all"],
)
def test_left_dimensions_equal_a_loop_over_them(
    name: str, latent: int, z_left: tuple[int, ...], word_left: tuple[int, ...]
) -> None:
    decoder, z, inputs = make(name, latent), torch.randn(*z_left, latent), words(*word_left)
    found = decoder(z, inputs)
    left = torch.broadcast_shapes(z_left, word_left)
    assert found.shape == (*left, TIME, decoder.width)
    rows = left.numel()
    z, inputs = z.expand(*left, latent).reshape(rows, latent), inputs.expand(*left, TIME).reshape(rows, TIME)
    one_by_one = torch.stack([decoder(a[None], b[None])[0] for a, b in zip(z, inputs, strict=True)])
    assert_close(found.reshape(one_by_one.shape), one_by_one)


@every_decoder
@every_latent
def test_word_by_word_it_gives_what_it_gives_teacher_forced(name: str, latent: int) -> None:
    decoder, z, inputs = make(name, latent), torch.randn(BATCH, latent), words(BATCH)
    state, hidden = decoder.start(z), []
    for t in range(TIME):
        h, state = decoder.step(state, inputs[:, t])
        hidden.append(h)
    assert_close(torch.stack(hidden, 1), decoder(z, inputs))


@every_decoder
def test_every_tensor_of_a_state_has_one_row_per_sentence_so_that_a_beam_can_reorder_it(name: str) -> None:
    decoder, z, inputs = make(name), torch.randn(BATCH, LATENT), words(BATCH)
    _, state = decoder.step(decoder.start(z), inputs[:, 0])
    order = torch.tensor([2, 0, 0, 3])
    assert all(len(tensor) == BATCH for tensor in state)
    hidden, _ = decoder.step(tuple(tensor[order] for tensor in state), inputs[order, 1])
    assert_close(hidden, decoder(z, inputs)[order, 1])


@every_decoder
@every_latent
@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_it_writes_what_it_would_write_reading_every_prefix_again(name: str, latent: int, method: Any) -> None:
    decoder, z = make(name, latent), torch.randn(BATCH, latent)
    head = sharpen(nn.Linear(decoder.width, VOCABULARY))

    class Reread(Decoder):
        def forward(self, z: Tensor, inputs: Tensor) -> Tensor:
            states: Tensor = decoder(z, inputs)
            return states

    slow = Reread(VOCABULARY, latent)
    assert torch.equal(*(write(each, head, z, method, max_length=8, beam=3) for each in (decoder, slow)))


@every_decoder
def test_a_state_knows_nothing_of_later_words(name: str) -> None:
    decoder, z, inputs = make(name), torch.randn(BATCH, LATENT), words(BATCH)
    other = inputs.clone()
    other[:, 3:] = 5
    assert torch.equal(decoder(z, inputs)[:, :3], decoder(z, other)[:, :3])


@every_decoder
@every_latent
def test_padding_on_the_right_changes_no_state_before_it(name: str, latent: int) -> None:
    decoder, z, inputs = make(name, latent), torch.randn(BATCH, latent), words(BATCH)
    padded = torch.cat([inputs, torch.full((BATCH, 4), PAD)], 1)
    assert_close(decoder(z, padded)[:, :TIME], decoder(z, inputs))


@every_decoder
def test_z_reaches_every_position(name: str) -> None:
    decoder, z, inputs = make(name), torch.randn(1, LATENT, requires_grad=True), words(1)
    for t in range(TIME):
        (gradient,) = torch.autograd.grad(decoder(z, inputs)[0, t].square().sum(), z)
        assert (gradient != 0).all()


def test_an_inputless_decoder_does_not_see_the_words() -> None:
    decoder, z = make("inputless"), torch.randn(BATCH, LATENT)
    assert torch.equal(decoder(z, words(BATCH)), decoder(z, words(BATCH)))
    hidden = decoder(z, words(BATCH))
    assert not torch.equal(hidden[:, 0], hidden[:, 1])  # but it counts them


@pytest.mark.parametrize("name", [n for n in DECODERS if n != "inputless"])
def test_every_other_decoder_sees_the_words(name: str) -> None:
    decoder, z = make(name), torch.randn(BATCH, LATENT)
    assert not torch.allclose(decoder(z, words(BATCH))[:, 1:], decoder(z, words(BATCH))[:, 1:])


def test_z_is_the_initial_state_of_all_layers() -> None:
    decoder = make("LSTM of two layers")
    z = torch.randn(BATCH, LATENT)
    _, h, c = decoder.start(z)
    assert h.shape == c.shape == (BATCH, 2, WIDTH)
    assert isinstance(decoder, LSTMDecoder) and decoder.initial is not None
    torch.testing.assert_close(c.flatten(1), z @ decoder.initial.weight.T)
    torch.testing.assert_close(h, c.tanh())


@pytest.mark.parametrize("which", ["input_dropout", "output_dropout"])
def test_dropout_acts_in_training_only(which: str) -> None:
    decoder = LSTMDecoder(VOCABULARY, LATENT, embedding=WIDTH, width=WIDTH, **{which: 0.5})
    z, inputs = torch.randn(BATCH, LATENT), words(BATCH)
    assert not torch.equal(decoder(z, inputs), decoder(z, inputs))
    decoder.eval()
    assert torch.equal(decoder(z, inputs), decoder(z, inputs))


def test_every_layer_hears_of_z_by_itself() -> None:
    decoder = make("GRU of two layers with z beside its states", LATENT)
    z, inputs = torch.randn(BATCH, LATENT), words(BATCH)
    with torch.no_grad():
        # not through the first, the state before the first word, or past all of them
        decoder.network.weight_ih_l0[:, -LATENT:] = 0
        decoder.initial.weight.zero_()
        states = [decoder(code, inputs)[..., :-LATENT] for code in (z, z + 1)]
    assert not torch.allclose(*states)


@pytest.mark.parametrize("name", [n for n in DECODERS if n != "a user's, with the default step"])
@every_latent
def test_every_parameter_is_used(name: str, latent: int) -> None:
    decoder = make(name, latent)
    decoder(torch.randn(BATCH, latent), words(BATCH)).square().sum().backward()
    assert [n for n, p in decoder.named_parameters() if p.grad is None] == []
