"""The same sentence in two corpora, and what has to be left out for one to judge the other (layer: data)."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from pyro_nlp.data.splits import TextSplit
from pyro_nlp.data.text import TextCorpus
from pyro_nlp.data.vocabulary import Vocabulary


def normalised(sentence: str) -> str:
    """A sentence by its letters and digits alone: without case, accents, spaces and marks.

    Two corpora tokenise the same sentence in two ways (`century's` and `century 's`, `j . r . r .` and `j.r.r.`); what
    is left here does not tell them apart. A sentence without a letter or digit is its marks.
    """
    folded = unicodedata.normalize("NFKD", sentence.casefold())
    return "".join(c for c in folded if c.isalnum()) or "".join(folded.split())


def without(train: Sequence[str], test: Iterable[str]) -> tuple[np.ndarray, int]:
    """Which sentences of `train` do not stand in `test`, and how many do, by normalised sentence.

    Example:
        >>> without(["A fine film.", "Dull"], ["a fine film ."])
        (array([1]), 1)

    Args:
        train: texts of what is trained on, as `SST.texts["train"]`.
        test: texts of what judges.

    Returns:
        Rows of `train` that remain, int64, for `corpus.train.take(rows)`, and the number of those that do not.
    """
    judged = {normalised(sentence) for sentence in test}
    rows = np.array([i for i, sentence in enumerate(train) if normalised(sentence) not in judged], np.int64)
    return rows, len(train) - len(rows)


def reread(texts: Iterable[str], corpus: TextCorpus, labels: Sequence[int] | np.ndarray | None = None) -> TextSplit:
    """Sentences of another corpus as a model of `corpus` reads them: by its tokeniser and vocabulary.

    Args:
        texts: the sentences.
        corpus: whose model is to read them.
        labels: class of each, by the names of `corpus`; None where it is not known.
    """
    words = [corpus.vocabulary.encode(corpus.tokenise(text)) for text in texts]
    return TextSplit.from_sentences(words, labels)


def recode(split: TextSplit, source: Vocabulary, target: Vocabulary) -> TextSplit:
    """The same sentences by another vocabulary: a word that either lacks is `<unk>`. Labels and tags are left out."""
    table = target.encode(source.words)
    return TextSplit(table[split.flat], split.offsets)
