"""The Transformer decoder: against attention written out, how z comes in, precision, derivatives, and refusals."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_nlp.distributions import second_derivatives
from pyro_nlp.nn import TransformerDecoder
from tests.tiny import LATENT, VOCABULARY, WIDTH, sharpen

BATCH, TIME, HEADS = 3, 7, 2
SCHEMES: list[Any] = [("memory", 1), ("memory", 3), ("embedding", 1), ("both", 1), ("both", 2)]
every_scheme = pytest.mark.parametrize(("latent_as", "tokens"), SCHEMES)


def make(latent: int = LATENT, **options: Any) -> TransformerDecoder:
    small = {"embedding": WIDTH, "width": WIDTH, "layers": 2, "heads": HEADS, "feedforward": 2 * WIDTH}
    decoder: TransformerDecoder = sharpen(TransformerDecoder(VOCABULARY, latent, **(small | options)))
    with torch.no_grad():
        for parameter in decoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # norms and biases too
    return decoder.eval().double()


def words(time: int = TIME) -> Tensor:
    return torch.randint(4, VOCABULARY, (BATCH, time))


def code(latent: int = LATENT) -> Tensor:
    return torch.randn(BATCH, latent, dtype=torch.float64)


def attend(query: Tensor, key: Tensor, value: Tensor, allowed: Tensor) -> Tensor:
    """Attention head by head and position by position: `[T, width]`, `[M, width]` twice, `[T, M]`."""
    size, found = query.shape[1] // HEADS, torch.empty_like(query)
    for h in range(HEADS):
        mine = slice(h * size, (h + 1) * size)
        for t in range(len(query)):
            seen = allowed[t]
            weight = (key[seen, mine] @ query[t, mine] / size**0.5).softmax(0)
            found[t, mine] = weight @ value[seen, mine]
    return found


def written_out(decoder: TransformerDecoder, z: Tensor, inputs: Tensor) -> Tensor:
    """States of one sentence: z `[latent]`, inputs `[T]`, `[T, width]`."""
    time, width = len(inputs), decoder.width
    angle = torch.arange(time)[:, None] / 10_000.0 ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    x = decoder.project(decoder.words(inputs) * decoder.words.embedding_dim**0.5)
    x = x + torch.cat([angle.sin(), angle.cos()], 1)
    if decoder.from_z is not None:
        x = x + decoder.from_z(z)
    causal = torch.ones(time, time).tril().bool()
    for block in decoder.blocks:
        part: Any = block.attention
        query, key, value = part.project(block.attention_norm(x)).chunk(3, -1)  # type: ignore[operator]
        x = x + part.out(attend(query, key, value, causal))
        if decoder.memory is not None:
            memory, part = decoder.memory(z).view(-1, width), block.memory
            if len(memory) == 1:
                x = x + part.out(part.value(memory))
            else:
                every = torch.ones(time, len(memory)).bool()
                x = x + part.out(attend(part.query(x), part.key(memory), part.value(memory), every))
        x = x + block.feedforward(x)  # type: ignore[operator]
    return decoder.norm(x)


@every_scheme
def test_it_is_attention_as_written_out_position_by_position(latent_as: Any, tokens: int) -> None:
    decoder, z, inputs = make(latent_as=latent_as, memory_tokens=tokens, embedding=WIDTH + tokens - 1), code(), words()
    expected = torch.stack([written_out(decoder, a, b) for a, b in zip(z, inputs, strict=True)])
    # the frequencies of the positions are float32
    torch.testing.assert_close(decoder(z, inputs), expected, rtol=0.0, atol=1e-5)


@every_scheme
@pytest.mark.parametrize("latent", [LATENT, 0])
def test_word_by_word_it_gives_what_it_gives_at_once(latent: int, latent_as: Any, tokens: int) -> None:
    decoder, z, inputs = make(latent, latent_as=latent_as, memory_tokens=tokens), code(latent), words(20)
    state, found = decoder.start(z), []
    for t in range(20):
        hidden, state = decoder.step(state, inputs[:, t])
        found.append(hidden)
        assert [s.shape for s in state[1:]] == [(BATCH, HEADS, t + 1, WIDTH // HEADS)] * 4
    torch.testing.assert_close(torch.stack(found, 1), decoder(z, inputs), rtol=0.0, atol=1e-12)


def test_one_token_of_memory_is_a_cross_attention_whose_weights_are_one() -> None:
    one, many = make(memory_tokens=1), make(memory_tokens=2)
    assert one.memory is not None and many.memory is not None
    found = many.state_dict()
    twice = {"memory.weight": torch.cat([one.memory.weight] * 2), "memory.bias": torch.cat([one.memory.bias] * 2)}
    many.load_state_dict(found | one.state_dict() | twice)  # queries and keys of its own, and two tokens alike
    z, inputs = code(), words()
    torch.testing.assert_close(many(z, inputs), one(z, inputs), rtol=0.0, atol=1e-12)


def test_every_scheme_without_z_is_the_same_language_model() -> None:
    names = []
    for latent_as, tokens in SCHEMES:
        names.append([n for n, _ in make(0, latent_as=latent_as, memory_tokens=tokens).named_parameters()])
    assert all(each == names[0] for each in names) and not any("memory" in n or "from_z" in n for n in names[0])


def test_the_order_of_words_matters() -> None:
    decoder, z, inputs = make(), code(), words()
    swapped = inputs[:, [1, 0, *range(2, TIME)]]
    assert not torch.allclose(decoder(z, swapped)[:, -1], decoder(z, inputs)[:, -1])


def test_dropout_acts_in_training_only_and_apart_on_every_particle() -> None:
    decoder, z, inputs = make(dropout=0.5), code(), words()
    assert torch.equal(decoder(z, inputs), decoder(z, inputs))
    decoder.train()
    assert not torch.equal(decoder(z, inputs), decoder(z, inputs))
    particles = decoder(z.expand(2, -1, -1), inputs)
    assert not torch.equal(particles[0], particles[1])


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("asked", [False, True])
def test_it_has_second_derivatives_on_a_cpu_and_where_they_are_asked_for(dropout: float, asked: bool) -> None:
    decoder, z, inputs = make(dropout=dropout, latent_as="both", memory_tokens=2), code().requires_grad_(), words(3)
    decoder.train()

    def states(z: Tensor) -> Tensor:
        torch.manual_seed(0)
        return decoder(z, inputs).square()

    with second_derivatives() if asked else nullcontext():
        assert torch.autograd.gradgradcheck(states, z)


def test_it_gives_without_gradients_what_it_gives_with_them() -> None:
    decoder, z, inputs = make(memory_tokens=2), code(), words()
    with torch.no_grad():
        found = decoder(z, inputs)
    torch.testing.assert_close(found, decoder(z, inputs), rtol=0.0, atol=1e-12)


@every_scheme
def test_in_bf16_it_gives_the_same_within_its_precision(latent_as: Any, tokens: int) -> None:
    decoder = make(latent_as=latent_as, memory_tokens=tokens).float()
    z, inputs = code().float(), words()
    expected = decoder(z, inputs)
    with torch.autocast("cpu", torch.bfloat16):
        found = decoder(z, inputs)
        state, stepped = decoder.start(z), []
        for t in range(TIME):
            hidden, state = decoder.step(state, inputs[:, t])
            stepped.append(hidden)
    found.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in decoder.parameters())
    scale = float(expected.detach().abs().max())
    for each in (found, torch.stack(stepped, 1)):
        # 8 bits, some roundings in each of a dozen products
        torch.testing.assert_close(each.float(), expected, rtol=0.0, atol=16 * 2**-8 * scale)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"width": 12, "heads": 8}, r"8 heads cannot divide a width of 12 evenly: take one of \[1, 2, 3, 4, 6, 12\]"),
        ({"heads": 0}, r"0 heads cannot divide"),
        ({"layers": 0}, r"layers and memory_tokens are at least 1, not 0 and 1"),
        ({"memory_tokens": 0}, r"layers and memory_tokens are at least 1, not 3 and 0"),
        ({"latent_as": "prefix"}, r"latent_as is 'memory', 'embedding' or 'both', not 'prefix'"),
    ],
)
def test_impossible_arguments_are_refused_with_the_possible_ones(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TransformerDecoder(VOCABULARY, LATENT, **options)
