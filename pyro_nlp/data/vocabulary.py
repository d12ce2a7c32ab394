"""Words and their ids (layer: data)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from pyro_nlp.data.batches import BOS, EOS, PAD, UNK

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
"""The special symbols in the order of their ids PAD, BOS, EOS, UNK."""


class _Ids(dict[str, int]):
    """Word to id; a word that is not there is UNK, without a Python call per word that is."""

    def __missing__(self, word: str) -> int:
        return UNK


class Vocabulary:
    """An immutable table of words; ids 0 to 3 are the special symbols `<pad> <s> </s> <unk>`.

    Special forms in `words` are left out, so a corpus's own `<unk>` (PTB has it) becomes UNK and is not
    listed twice, and a literal `<s>` or `<pad>` in a text can never become the special id: it is UNK too.

    Args:
        words: the ordinary words, by id from 4 on; repeated words are refused with a ValueError.
    """

    def __init__(self, words: Iterable[str]):
        ordinary = tuple(word for word in words if word not in SPECIAL)
        self._ids = _Ids(zip(ordinary, range(len(SPECIAL), len(SPECIAL) + len(ordinary)), strict=True))
        if len(self._ids) != len(ordinary):
            twice = next(word for word, count in Counter(ordinary).items() if count > 1)
            raise ValueError(f"the word {twice!r} occurs twice in the vocabulary; list each word once")
        self._words = SPECIAL + ordinary

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], min_count: int = 1, max_size: int | None = None) -> Vocabulary:
        """Words seen at least `min_count` times, by falling count and then alphabetically.

        `max_size` bounds `len(vocabulary)`, the special symbols counted.
        """
        if max_size is not None and max_size < len(SPECIAL):
            raise ValueError(f"max_size is {max_size}; the {len(SPECIAL)} special symbols alone need {len(SPECIAL)}")
        kept = ((-n, word) for word, n in counts.items() if n >= min_count and word not in SPECIAL)
        words = [word for _, word in sorted(kept)]
        return cls(words if max_size is None else words[: max_size - len(SPECIAL)])

    @property
    def words(self) -> tuple[str, ...]:
        """Every entry by id, the special symbols first."""
        return self._words

    def encode(self, words: Sequence[str]) -> np.ndarray:
        """Ids of the words, int32 `[n]`; unknown words and literal special forms are UNK."""
        return np.fromiter(self.ids(words), np.int32, len(words))

    def ids(self, words: Iterable[str]) -> Iterator[int]:
        """The same lazily, for writers that stream."""
        return map(self._ids.__getitem__, words)

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Words of the ids (array, tensor or list) up to the first EOS; PAD and BOS are dropped."""
        words = []
        for i in ids:
            i = int(i)
            if i == EOS:
                break
            if i not in (PAD, BOS):
                words.append(self._words[i])
        return words

    def to_json(self) -> str:
        """A JSON list of the words, special symbols first."""
        return json.dumps(self._words)

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        """The inverse of `to_json`; ValueError if the text is something else."""
        words = json.loads(text)
        if not isinstance(words, list) or tuple(words[: len(SPECIAL)]) != SPECIAL:
            raise ValueError(f"not a vocabulary: expected a JSON list that begins with {list(SPECIAL)}")
        return cls(words[len(SPECIAL) :])

    def __len__(self) -> int:
        return len(self._words)

    def __contains__(self, word: object) -> bool:
        return word in self._ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self._words == other._words

    def __hash__(self) -> int:
        return hash(self._words)

    def __repr__(self) -> str:
        first = ", ".join(self._words[len(SPECIAL) : len(SPECIAL) + 4])
        return f"Vocabulary({len(self)} words: {first}, ...)"


class WordList(Vocabulary):
    """Words by id from 0, without special symbols: the vocabulary of bags of words.

    A special form in `words` is a word like any other, and a word that is not in the list has no id.

    Args:
        words: by id; repeated words are refused with a ValueError.
    """

    def __init__(self, words: Iterable[str]):
        self._words = tuple(words)
        self._ids = _Ids(zip(self._words, range(len(self._words)), strict=True))
        if len(self._ids) != len(self._words):
            twice = next(word for word, count in Counter(self._words).items() if count > 1)
            raise ValueError(f"the word {twice!r} occurs twice in the vocabulary; list each word once")

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], min_count: int = 1, max_size: int | None = None) -> WordList:
        """Words seen at least `min_count` times, by falling count and then alphabetically, `max_size` at most."""
        return cls([word for _, word in sorted((-n, word) for word, n in counts.items() if n >= min_count)][:max_size])

    def encode(self, words: Sequence[str]) -> np.ndarray:
        """Ids of those of the words that are in the list, int32; the others are left out."""
        return np.fromiter(self.ids(words), np.int32)

    def ids(self, words: Iterable[str]) -> Iterator[int]:
        """The same lazily."""
        return (self._ids[word] for word in words if word in self._ids)

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Words of the ids (array, tensor or list), all of them."""
        return [self._words[int(i)] for i in ids]

    @classmethod
    def from_json(cls, text: str) -> WordList:
        """The inverse of `to_json`; ValueError if the text is something else."""
        words = json.loads(text)
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ValueError("not a word list: expected a JSON list of strings")
        return cls(words)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WordList) and self._words == other._words

    def __hash__(self) -> int:
        return hash((WordList, self._words))

    def __repr__(self) -> str:
        return f"WordList({len(self)} words: {', '.join(self._words[:4])}, ...)"
