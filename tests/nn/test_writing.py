"""Writing, against enumeration of every sentence of a tiny vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyro_nlp.data.batches import BOS, EOS, PAD
from pyro_nlp.nn import BLANK, Decoder, GRUDecoder, InputlessDecoder, LSTMDecoder, write
from tests.tiny import LATENT, WIDTH

VOCABULARY = 7  # of which three are words beside <unk>
WRITABLE = [w for w in range(VOCABULARY) if w not in (PAD, BOS)]
METHODS: list[Any] = ["ancestral", "greedy", "beam"]


def network(kind: type[LSTMDecoder] = LSTMDecoder, latent: int = LATENT) -> tuple[Decoder, nn.Linear]:
    decoder = kind(VOCABULARY, latent, embedding=WIDTH, width=WIDTH)
    head = nn.Linear(WIDTH, VOCABULARY)
    with torch.no_grad():
        for parameter in (*decoder.parameters(), *head.parameters()):
            parameter.copy_(torch.randn_like(parameter))  # far from uniform, so that choices matter
    return decoder, head


def sentences(longest: int) -> Iterator[list[int]]:
    """Every sentence that can be written with at most `longest` ids, its end counted."""
    for length in range(longest):
        for words in product([w for w in WRITABLE if w != EOS], repeat=length):
            yield [*words, EOS]


@torch.no_grad()
def log_probs(decoder: Decoder, head: nn.Linear, z: Tensor, written: Sequence[Sequence[int]]) -> Tensor:
    """log p of sentences by one code, from the teacher-forced decoder."""
    width = max(len(s) for s in written)
    targets = torch.tensor([[*s, *[PAD] * (width - len(s))] for s in written])
    inputs = torch.cat([torch.full((len(written), 1), BOS), targets[:, :-1]], 1)
    log_p = head(decoder(z.expand(len(written), -1), inputs)).log_softmax(-1)
    return (log_p.gather(-1, targets[..., None]).squeeze(-1) * (targets != PAD)).sum(-1)


def likeliest(decoder: Decoder, head: nn.Linear, z: Tensor, written: Sequence[Sequence[int]]) -> list[int]:
    return list(written[int(log_probs(decoder, head, z, written).argmax())])


def ids(row: Tensor) -> list[int]:
    """A written row without padding; checks that there is nothing but padding after the end."""
    words: list[int] = row.tolist()
    end = words.index(EOS) + 1
    assert set(words[end:]) <= {PAD} and PAD not in words[:end]
    return words[:end]


@pytest.mark.parametrize("kind", [LSTMDecoder, GRUDecoder, InputlessDecoder])
def test_greedy_takes_the_likeliest_word_at_every_step(kind: type[LSTMDecoder]) -> None:
    decoder, head = network(kind)
    z = torch.randn(8, LATENT)
    written = write(decoder, head, z, "greedy", max_length=9)
    for code, row in zip(z, written, strict=True):
        prefix = [BOS]
        for t in range(9):
            with torch.no_grad():
                log_p = head(decoder(code[None], torch.tensor([prefix]))[0, -1])
            log_p[[PAD, BOS]] = -torch.inf
            prefix.append(EOS if t == 8 else int(log_p.argmax()))
            if prefix[-1] == EOS:
                break
        assert ids(row) == prefix[1:]


@pytest.mark.parametrize("kind", [LSTMDecoder, GRUDecoder, InputlessDecoder])
def test_a_beam_as_wide_as_the_tree_finds_the_likeliest_of_all_sentences(kind: type[LSTMDecoder]) -> None:
    longest = 4
    decoder, head = network(kind)
    with torch.no_grad():
        head.bias[EOS] -= 2.0  # longer sentences, for which the order of hypotheses matters
    z = torch.randn(60, LATENT)
    written = write(decoder, head, z, "beam", max_length=longest, beam=len(WRITABLE) ** (longest - 1))
    greedy = write(decoder, head, z, "greedy", max_length=longest)
    assert sum(ids(a) != ids(b) for a, b in zip(written, greedy, strict=True)) > 5  # or this shows little
    for code, row in zip(z, written, strict=True):
        assert ids(row) == likeliest(decoder, head, code, list(sentences(longest)))


def test_a_beam_of_one_is_greedy() -> None:
    decoder, head = network()
    z = torch.randn(8, LATENT)
    greedy, beam = (write(decoder, head, z, m, max_length=9, beam=1) for m in ("greedy", "beam"))
    assert [ids(a) for a in greedy] == [ids(b) for b in beam]


def test_a_wider_beam_never_writes_a_less_likely_sentence_than_the_full_search() -> None:
    decoder, head = network()
    z = torch.randn(6, LATENT)
    scores = []
    for beam in (1, 3, 125):
        written = write(decoder, head, z, "beam", max_length=4, beam=beam)
        scores.append([float(log_probs(decoder, head, c, [ids(r)])) for c, r in zip(z, written, strict=True)])
    assert all(full >= narrow - 1e-5 for row in scores[:2] for full, narrow in zip(scores[2], row, strict=True))


def test_ancestral_samples_follow_the_exact_probabilities() -> None:
    decoder, head = network()
    with torch.no_grad():
        head.weight.mul_(0.5)  # no sentence with nearly all the mass
    z, draws, longest = torch.randn(1, LATENT), 20_000, 3
    written = write(decoder, head, z.expand(draws, -1), "ancestral", max_length=longest)
    # <pad> and <s> are never written: their mass goes to the other words, position by position
    support = list(sentences(longest))
    probability = []
    for sentence in support:
        total, prefix = 1.0, [BOS]
        for t, word in enumerate(sentence):
            with torch.no_grad():
                p = head(decoder(z, torch.tensor([prefix]))[0, -1]).softmax(-1)
            p[[PAD, BOS]] = 0.0
            total *= 1.0 if t == longest - 1 else float(p[word] / p.sum())
            prefix.append(word)
        probability.append(total)
    assert sum(probability) == pytest.approx(1.0, abs=1e-5)
    rows = [tuple(ids(row)) for row in written]
    counts = torch.tensor([rows.count(tuple(s)) for s in support], dtype=torch.float64)
    expected = draws * torch.tensor(probability, dtype=torch.float64)
    assert int(counts.sum()) == draws
    often = expected >= 5  # where chi-square is a good approximation; the rest is one cell
    counts, expected = (torch.cat([v[often], v[~often].sum()[None]]) for v in (counts, expected))
    counts, expected = counts[expected > 0], expected[expected > 0]
    freedom = len(counts) - 1
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert freedom >= 8
    assert chi_square < freedom + 5 * (2 * freedom) ** 0.5  # five standard deviations


def test_temperature_sharpens_ancestral_samples_until_they_are_greedy() -> None:
    decoder, head = network()
    z = torch.randn(20, LATENT)
    cold = write(decoder, head, z, "ancestral", max_length=6, temperature=1e-4)
    greedy = write(decoder, head, z, "greedy", max_length=6)
    assert [ids(a) for a in cold] == [ids(b) for b in greedy]


def test_a_language_model_writes_without_a_code() -> None:
    decoder, head = network(latent=0)
    written = write(decoder, head, torch.zeros(6, 0), "ancestral", max_length=8)
    assert len(written) == 6 and len({tuple(ids(row)) for row in written}) > 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("longest", [1, 2, 5])
def test_every_sentence_ends_and_none_is_longer_than_allowed(method: Any, longest: int) -> None:
    decoder, head = network()
    with torch.no_grad():
        head.bias[EOS] = -100.0  # it would never end by itself
    written = write(decoder, head, torch.randn(6, LATENT), method, max_length=longest, beam=2)
    assert all(len(ids(row)) == longest for row in written)


def test_a_beam_counts_the_end_that_the_limit_forces() -> None:
    decoder, head = network()
    with torch.no_grad():
        head.bias[EOS] = -100.0
    (row,) = write(decoder, head, torch.randn(1, LATENT), "beam", max_length=2, beam=10)
    assert ids(row) == [EOS]  # a word more would cost its own nats on top of the end's 100


@pytest.mark.parametrize("method", METHODS)
def test_padding_and_begin_of_sentence_are_never_written_before_the_end(method: Any) -> None:
    decoder, head = network()
    with torch.no_grad():
        head.bias[[PAD, BOS]] = 100.0
    written = write(decoder, head, torch.randn(50, LATENT), method, max_length=6)
    assert not (written == BOS).any()
    assert all(PAD not in ids(row) for row in written)


@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_a_sentence_is_written_alone_as_among_others(method: Any) -> None:
    decoder, head = network()
    z = torch.randn(5, LATENT)
    together = write(decoder, head, z, method, max_length=6, beam=3)
    for code, row in zip(z, together, strict=True):
        assert ids(write(decoder, head, code[None], method, max_length=6, beam=3)[0]) == ids(row)


TEMPLATES = [[BLANK, 4, BLANK, EOS], [5, BLANK, BLANK, EOS], [4, 5, 6, EOS], [BLANK, 3, EOS, PAD]]


@pytest.mark.parametrize("method", METHODS)
def test_a_template_keeps_its_words_and_fills_every_blank_with_a_word(method: Any) -> None:
    decoder, head = network()
    with torch.no_grad():
        head.bias[EOS] = 5.0  # the end is likely, and must wait for its place
    template = torch.tensor(TEMPLATES)
    written = write(decoder, head, torch.randn(4, LATENT), method, template=template)
    assert written.shape == template.shape
    assert torch.equal(written[template != BLANK], template[template != BLANK])
    assert not torch.isin(written[template == BLANK], torch.tensor([PAD, BOS, EOS])).any()


def test_a_wide_beam_fills_blanks_with_the_likeliest_words_of_all() -> None:
    decoder, head = network()
    z = torch.randn(4, LATENT)
    written = write(decoder, head, z, "beam", beam=125, template=torch.tensor(TEMPLATES))
    for code, template, row in zip(z, TEMPLATES, written, strict=True):
        end = template.index(EOS) + 1
        choices = [[w for w in WRITABLE if w != EOS] if w == BLANK else [w] for w in template[:end]]
        assert ids(row) == likeliest(decoder, head, code, list(product(*choices)))


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    decoder, head = network()
    with pytest.raises(ValueError, match="'ancestral', 'greedy' or 'beam', not 'viterbi'"):
        write(decoder, head, torch.zeros(1, LATENT), "viterbi")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", METHODS)
def test_writing_uses_no_dropout_takes_no_gradient_and_puts_training_mode_back(method: Any) -> None:
    decoder, head = network()
    assert isinstance(decoder, LSTMDecoder)
    decoder.output_dropout.p = 0.9
    z = torch.randn(4, LATENT, requires_grad=True)
    written = []
    for _ in range(2):
        torch.manual_seed(0)
        written.append(write(decoder, head, z, method, max_length=5))
        torch.rand(1)
    assert torch.equal(*written) and not written[0].requires_grad
    assert decoder.training
    decoder.eval()
    write(decoder, head, z, method, max_length=2)
    assert not decoder.training
