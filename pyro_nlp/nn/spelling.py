"""Word vectors out of the letters of words (layer: nn)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_nlp.data.vocabulary import SPECIAL

_BEGIN, _END, _SPECIAL = 1, 2, 16
"""Bytes that stand in no word: its two ends, and the first of the special symbols."""


class CharacterCNN(nn.Module):
    """A vector for every word of the vocabulary, out of its letters               Kim et al. 2016 (arXiv:1508.06615)

    Convolutions over the bytes of a word in UTF-8 with a mark at either end, the largest response of each filter, and a
    linear layer. A window is computed once however many words have the same letters in it, which in English is a sixth
    of the work. So there is no table of letters to keep, and a letter outside ASCII is two bytes or three. A special
    symbol is a letter of its own. Of a word longer than `longest` the two ends are read.

    The spelling comes from the corpus, by `meet_corpus` (`fit` calls it) or `spell`, and stays with the weights.

    Args:
        vocabulary: number of words, V.
        width: size of the vectors.
        letter: size of the vectors of bytes.
        filters: of each window.
        windows: bytes in the windows.
        longest: bytes of a word, its marks counted, L.
    """

    letters: Tensor

    def __init__(
        self,
        vocabulary: int,
        width: int,
        letter: int = 16,
        filters: int = 32,
        windows: Sequence[int] = (2, 3, 4),
        longest: int = 20,
    ) -> None:
        super().__init__()
        if not windows or min(windows) < 1 or longest < max(3, *windows):
            raise ValueError(f"CharacterCNN: windows {list(windows)} of at least one byte, at most longest ({longest})")
        self.longest, self.windows = longest, tuple(windows)
        self.register_buffer("letters", torch.zeros(vocabulary, longest, dtype=torch.uint8))  # 0 after the end
        self.bytes = nn.Embedding(256, letter, padding_idx=0)
        self.convolutions = nn.ModuleList([nn.Conv1d(letter, filters, w) for w in windows])
        self.out = nn.Linear(filters * len(self.windows), width)
        self._made: Any = None

    def meet_corpus(self, corpus: Any) -> None:
        """Take the spelling of its words."""
        if corpus.vocabulary is None:
            raise ValueError(f"{corpus.name} has no words to spell: choose other emissions than by letters")
        self.spell(corpus.vocabulary.words)

    def spell(self, words: Sequence[str]) -> None:
        """Take the spelling of every word, by id."""
        if len(words) != len(self.letters):
            raise ValueError(f"{len(words)} words to spell, and a vocabulary of {len(self.letters)}: give one for each")
        rows = torch.zeros(self.letters.shape, dtype=torch.uint8)
        for row, word in zip(rows, words, strict=True):
            spelled = _spelling(word, self.longest)
            row[: len(spelled)] = torch.tensor(spelled, dtype=torch.uint8)
        self.letters.copy_(rows)

    def forward(self) -> Tensor:
        """`[V, width]`."""
        lengths = (self.letters > 0).sum(1)
        if not bool(lengths.all()):
            raise ValueError(
                "CharacterCNN: it has not been told how words are spelled: call spell(corpus.vocabulary.words) first, "
                "or train by fit, which does"
            )
        found = []
        for grams, place, starts, convolution in zip(*self._grams(), self.convolutions, strict=True):
            assert isinstance(convolution, nn.Conv1d)
            weight = convolution.weight.transpose(1, 2).flatten(1)
            response = F.linear(self.bytes(grams).flatten(1), weight, convolution.bias)
            found.append(F.embedding_bag(place, response, starts, mode="max"))
        return self.out(torch.cat(found, 1).relu())

    def _grams(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Of each window: its different contents `[G, w]`, which of them each word has one after the other, `[M]`, and
        where in that each word begins, `[V]`. Made anew only where the letters are others."""
        if self._made is None or self._made[0] is not self.letters or self._made[1] != self.letters._version:
            parts = tuple(zip(*(_contents(self.letters, w) for w in self.windows), strict=True))
            self._made = self.letters, self.letters._version, parts
        found: tuple[list[Tensor], list[Tensor], list[Tensor]] = self._made[2]
        return found


def _contents(letters: Tensor, window: int) -> tuple[Tensor, Tensor, Tensor]:
    """See `CharacterCNN._grams`. A window fits every word once at least, and reaches past no other's end."""
    lengths = (letters > 0).sum(1)
    pieces = letters.unfold(1, window, 1)
    count = (lengths - window).clamp(min=0) + 1
    inside = torch.arange(pieces.shape[1], device=letters.device) < count[:, None]
    grams, place = pieces[inside].long().unique(dim=0, return_inverse=True)
    return grams, place, count.cumsum(0) - count


def _spelling(word: str, longest: int) -> list[int]:
    if word in SPECIAL:
        return [_BEGIN, _SPECIAL + SPECIAL.index(word), _END]
    # text read with surrogateescape may hold lone surrogates; they are spelled all the same
    spelled, room = [*word.encode("utf-8", "surrogatepass")], longest - 2
    if len(spelled) > room:
        spelled = spelled[: room - room // 2] + spelled[len(spelled) - room // 2 :]
    return [_BEGIN, *spelled, _END]
