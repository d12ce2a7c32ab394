"""Word vectors out of letters."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pyro_nlp.data.vocabulary import SPECIAL
from pyro_nlp.nn import CharacterCNN
from pyro_nlp.nn.spelling import _spelling

WORDS = (*SPECIAL, "a", "walk", "walks", "I", "antidisestablishmentarianism", "naïve", "日本", "\udce9t", "walking")


def spelled(words: tuple[str, ...] = WORDS, **options: int) -> CharacterCNN:
    torch.manual_seed(0)
    network = CharacterCNN(len(words), 6, letter=4, filters=5, **options)
    network.spell(words)
    return network


def test_a_word_is_read_as_a_convolution_over_its_own_bytes_would_alone() -> None:
    network = spelled(longest=40)
    found = network()
    for row, word in zip(found, WORDS, strict=True):
        if word in SPECIAL:
            continue
        ids = torch.tensor([1, *word.encode("utf-8", "surrogatepass"), 2])
        largest = []
        for window, convolution in zip(network.windows, network.convolutions, strict=True):
            wide = nn.functional.pad(ids, (0, max(0, window - len(ids))))  # a window fits every word once
            largest.append(convolution(network.bytes(wide).t()[None]).amax(2)[0])
        torch.testing.assert_close(row, network.out(torch.cat(largest).relu()), rtol=1e-5, atol=1e-6)


def test_a_word_has_the_same_vector_whatever_other_words_there_are() -> None:
    many, few = spelled(), spelled((*SPECIAL, "walk", "a"))
    few.load_state_dict({**many.state_dict(), "letters": few.letters})
    torch.testing.assert_close(many()[[5, 4]], few()[[4, 5]], rtol=1e-5, atol=1e-6)


def test_special_symbols_differ_from_words_and_long_words_keep_both_ends() -> None:
    assert _spelling("</s>", 20) == [1, 18, 2] and _spelling("<unk>", 20) == [1, 19, 2]
    assert bytes(_spelling("antidisestablishmentarianism", 10)[1:-1]) == b"antinism"
    assert len({tuple(_spelling(word, 20)) for word in WORDS}) == len(WORDS)


def test_every_parameter_learns_and_the_spelling_is_saved_with_them() -> None:
    network = spelled()
    network().square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())
    other = CharacterCNN(len(WORDS), 6, letter=4, filters=5)
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(), network())


def test_windows_that_fit_no_word_are_refused() -> None:
    with pytest.raises(ValueError, match=r"windows \[9\] of at least one byte, at most longest \(5\)"):
        CharacterCNN(10, 4, windows=(9,), longest=5)
