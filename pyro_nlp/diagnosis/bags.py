"""A bag of words as a line of text: it has no order, so its most frequent words stand for it (layer: recipe)."""

from __future__ import annotations

import numpy as np

from pyro_nlp.data.counts import CountSplit
from pyro_nlp.data.vocabulary import Vocabulary


def bag_text(split: CountSplit, row: int, vocabulary: Vocabulary, most: int = 12) -> str:
    """A document's most frequent words, by id where equally frequent: `engine ×3, wheel ×2, road`, `…` for the rest."""
    inside = slice(split.offsets[row], split.offsets[row + 1])
    words, counts = split.words[inside], split.counts[inside]
    order = np.argsort(-counts, kind="stable")[:most]
    said = ", ".join(
        word if count == 1 else f"{word} ×{count}"
        for word, count in zip(vocabulary.decode(words[order]), counts[order], strict=True)
    )
    return f"{said} …" if len(words) > most else said
