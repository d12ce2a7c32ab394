"""Sequences that a network writes word by word: every sequence has its probability, and no other."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from pyro_nlp.data.batches import BOS, EOS, PAD
from pyro_nlp.distributions import Written
from pyro_nlp.distributions.written import OUT_OF_REACH, Writer
from pyro_nlp.nn import LSTMDecoder
from pyro_nlp.nn.language_model import LanguageModel

WORDS, LONGEST = 6, 2


class Bigrams(Writer):
    """A table of what follows a word, one for each of two documents."""

    device = torch.device("cpu")
    vocabulary = WORDS

    def __init__(self) -> None:
        self.table = 1.5 * torch.randn(2, WORDS, WORDS, generator=torch.Generator().manual_seed(0))

    def logits(self, inputs: Tensor) -> Tensor:
        return self.table[torch.arange(2)[:, None], inputs]

    def begin(self, left: torch.Size) -> Any:
        return left

    def step(self, state: Any, words: Tensor) -> tuple[Tensor, Any]:
        assert words.shape == state
        return self.table[torch.arange(2), words], state


def sequences() -> list[tuple[int, ...]]:
    """All that end, of one word or more, with padding after the end alone."""
    found = []
    for length in range(1, LONGEST + 1):
        for words in product([w for w in range(WORDS) if w not in (PAD, BOS, EOS)], repeat=length):
            found.append((*words, EOS, *[PAD] * (LONGEST - length)))
    return found


@pytest.mark.parametrize("lengths", [None, torch.tensor([1, 2])], ids=["learnt", "given"])
def test_the_probabilities_of_all_sequences_sum_to_one_and_draws_have_them(lengths: Tensor | None) -> None:
    fn = Written(Bigrams(), 2, LONGEST, lengths)
    each = torch.tensor(sequences())
    probability = fn.log_prob(each[:, None].expand(-1, 2, -1)).exp()
    torch.testing.assert_close(probability.sum(0), torch.ones(2))
    torch.manual_seed(0)
    drawn = fn.expand([20_000, 2]).sample()
    share = (drawn[:, None] == each[None, :, None].expand(-1, -1, 2, -1)).all(-1).float().mean(0)
    assert share.sum() == 2  # nothing else is drawn
    error = (probability * (1 - probability) / 20_000).sqrt()
    assert ((share - probability).abs() < 5 * error + 1e-6).all()
    if lengths is not None:
        assert ((drawn != PAD).sum(-1) == lengths + 1).all()


def test_a_known_sequence_is_drawn_and_certain_and_the_writer_can_still_be_asked() -> None:
    given = torch.tensor([[4, EOS, PAD], [PAD, PAD, PAD]])
    fn = Written(Bigrams(), 2, LONGEST, known=(given, torch.tensor([True, False])))
    drawn = fn.expand([5, 2]).sample()
    assert (drawn[:, 0] == given[0]).all() and len({tuple(row) for row in drawn[:, 1].tolist()}) > 1
    log_p = fn.log_prob(drawn)
    assert (log_p[:, 0] == 0).all() and (log_p[:, 1] < 0).all()
    plain = Written(Bigrams(), 2, LONGEST)
    torch.testing.assert_close(fn.log_known(), torch.stack([plain.log_prob(given)[0], torch.tensor(0.0)]))


@pytest.mark.parametrize("lengths", [torch.tensor([0, 1]), torch.tensor([1, 3])])
def test_a_length_that_does_not_fit_is_refused(lengths: Tensor) -> None:
    with pytest.raises(ValueError, match="lengths are 1 to longest, which is 2"):
        Written(Bigrams(), 2, LONGEST, lengths)


@pytest.mark.parametrize("end", [1.5, 18.0], ids=["ends may come", "ends are next to certain"])
def test_a_language_model_scores_without_its_whole_vocabulary(end: float) -> None:
    """As the default does with it: what may not stand there is taken off the normaliser."""
    torch.manual_seed(0)
    writer = LanguageModel(LSTMDecoder(WORDS, 0, 5, 5), WORDS)
    with torch.no_grad():
        writer.head.bias[EOS] += end
    each = torch.tensor(sequences())[:, None].expand(-1, 2, -1)
    for lengths in (None, torch.tensor([1, 2])):
        fn = Written(writer, 2, LONGEST, lengths)
        found = fn.log_prob(each)
        torch.testing.assert_close(found.exp().sum(0), torch.ones(2))
        inputs = torch.cat([torch.full_like(each[..., :1], BOS), each[..., :-1]], -1)
        ends = fn.ends(0, LONGEST + 1)
        plain = Writer.score(writer, inputs, each, ends).masked_fill(each == PAD, 0.0).sum(-1)
        reached = plain > OUT_OF_REACH / 2
        torch.testing.assert_close(found[reached], plain[reached])
        assert (found[~reached] < OUT_OF_REACH / 2).all() and reached.any(0).all()
        one, other = (
            torch.autograd.grad(log_p[reached].sum(), writer.head.weight)[0]
            for log_p in (
                fn.log_prob(each),
                Writer.score(writer, inputs, each, ends).masked_fill(each == PAD, 0.0).sum(-1),
            )
        )
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_in_half_precision_what_is_left_out_does_not_drown_what_is_left() -> None:
    torch.manual_seed(0)
    writer = LanguageModel(LSTMDecoder(WORDS, 0, 5, 5), WORDS)
    with torch.no_grad():
        writer.head.bias[EOS] += 8.0
    each = torch.tensor(sequences())[:, None].expand(-1, 2, -1)
    fn = Written(writer, 2, LONGEST, torch.tensor([1, 2]))
    whole = fn.log_prob(each)
    with torch.autocast("cpu", torch.bfloat16):
        half = fn.log_prob(each)
    reached = whole > OUT_OF_REACH / 2
    torch.testing.assert_close(half[reached], whole[reached], atol=0.05, rtol=0)
