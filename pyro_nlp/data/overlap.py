"""The same sentence in two corpora, and what has to be left out for one to judge the other (layer: data)."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from pyro_nlp.data.batches import UNK
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.data.text import TextCorpus
from pyro_nlp.data.vocabulary import SPECIAL, Vocabulary

_UNKNOWN = "unknownxword"
"""In place of `<unk>`: in no vocabulary, and a word to every tokeniser."""


def normalised(sentence: str) -> str:
    """A sentence by its letters and digits alone: without case, accents, spaces and marks.

    Two corpora tokenise the same sentence in two ways (`century's` and `century 's`, `j . r . r .` and `j.r.r.`); what
    is left here does not tell them apart. A sentence without a letter or digit is its marks.
    """
    folded = unicodedata.normalize("NFKD", sentence.casefold())
    return "".join(c for c in folded if c.isalnum()) or "".join(folded.split())


def without(train: Sequence[str], test: Iterable[str], parts: int | None = None) -> tuple[np.ndarray, int]:
    """Which sentences of `train` do not stand in `test`, and how many do, by normalised sentence.

    Example:
        >>> without(["A fine film.", "Dull"], ["a fine film ."])
        (array([1]), 1)
        >>> without(["Dull. No film for you or me."], ["no film for you or me"], parts=4)
        (array([], dtype=int64), 1)

    Args:
        train: texts of what is trained on, as `SST.texts["train"]`.
        test: texts of what judges.
        parts: leave out a text of `train` too that contains one of `test` as a run of words, or stands so in one,
            where the run has at least this many words; None for whole sentences alone. Short runs say nothing: one of
            2, 3, 4 or 5 words drawn from SST's test stands by chance in 27, 5, 0.7 or 0.1 % of as many restaurant
            reviews as `Polarity` trains on (8,498 of `YelpStyle`), so that 4 is a good choice there.

    Returns:
        Rows of `train` that remain, int64, for `corpus.train.take(rows)`, and the number of those that do not.

    Raises:
        ValueError: parts of no word.
    """
    if parts is not None and parts < 1:
        raise ValueError(f"parts is {parts}; give the least number of words that a part has, or None")
    test = list(test)
    judged = {normalised(sentence) for sentence in test}
    shared = {i for i, sentence in enumerate(train) if normalised(sentence) in judged}
    if parts is not None:
        ours, theirs = _Joined(train), _Joined(test)
        shared |= {i for part in test for i in ours.holding(part, parts)}
        shared |= {i for i, part in enumerate(train) if theirs.holding(part, parts)}
    rows = np.array([i for i in range(len(train)) if i not in shared], np.int64)
    return rows, len(train) - len(rows)


class _Joined:
    """Texts by their letters and digits alone, in one string, and where their words begin and end."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.text_of: dict[int, int] = {}
        self.ends: set[int] = set()
        runs, place = [], 0
        for i, text in enumerate(texts):
            for word in _bare(text):
                self.text_of[place] = i
                place += len(word)
                self.ends.add(place)
                runs.append(word)
            runs.append("\n")
            place += 1
        self.joined = "".join(runs)

    def holding(self, part: str, words: int) -> list[int]:
        """The texts that contain a part of at least so many words, from one word's beginning to another's end."""
        bare = _bare(part)
        if len(bare) < words:
            return []
        run, found = "".join(bare), []
        place = self.joined.find(run)
        while place >= 0:
            if place in self.text_of and place + len(run) in self.ends:
                found.append(self.text_of[place])
            place = self.joined.find(run, place + 1)
        return found


def _bare(text: str) -> list[str]:
    """The words that have a letter or digit, normalised."""
    found = ("".join(filter(str.isalnum, unicodedata.normalize("NFKD", word.casefold()))) for word in text.split())
    return [word for word in found if word]


def reread(texts: Iterable[str], corpus: TextCorpus, labels: Sequence[int] | np.ndarray | None = None) -> TextSplit:
    """Sentences of another corpus as a model of `corpus` reads them: by its tokeniser and vocabulary.

    Args:
        texts: the sentences; `<unk>` in them is a word that is not known.
        corpus: whose model is to read them.
        labels: class of each, by the names of `corpus`; None where it is not known.
    """
    words = (corpus.tokenise(text.replace(SPECIAL[UNK], _UNKNOWN)) for text in texts)
    return TextSplit.from_sentences([corpus.vocabulary.encode(sentence) for sentence in words], labels)


def recode(split: TextSplit, source: Vocabulary, target: Vocabulary) -> TextSplit:
    """The same sentences by another vocabulary: a word that either lacks is `<unk>`. Labels and tags are left out."""
    table = target.encode(source.words)
    return TextSplit(table[split.flat], split.offsets)
