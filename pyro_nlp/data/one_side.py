"""One side of a corpus of pairs, as sentences with the same vocabulary (layer: data)."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from pyro_nlp.data.compression import KNOWN
from pyro_nlp.data.corpus import Corpus
from pyro_nlp.data.files import CorpusError
from pyro_nlp.data.pair_corpus import PairCorpus
from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.data.splits import TextSplit

Side = Literal["first", "second"]


class OneSide(Corpus):
    """The first or the second texts of a corpus of pairs: what a language model of one side is trained on.

    Example:
        >>> OneSide(GoogleCompression(), "first")  # doctest: +SKIP
        OneSide(google-compression, first: 8,000 / 1,000 / 1,000, vocabulary 16,206, ...)

    Of train the second texts of pairs with the label 1 are taken, known or right, where pairs have labels.

    Args:
        pairs: the corpus.
        side: `first` (questions, sources) or `second` (answers, compressions).
    """

    def __init__(self, pairs: PairCorpus, side: Side):
        if side not in get_args(Side):
            raise CorpusError(f"side is {side!r}; give first or second")
        self.name, self.reference = f"{pairs.name}, {side}", pairs.reference
        self.vocabulary, self.tokenise = pairs.vocabulary, pairs.tokenise
        self.versions = pairs.versions
        self.train = _side(pairs.train, side, known=True)
        self.valid, self.test = (_side(split, side, known=False) for split in (pairs.valid, pairs.test))
        if not len(self.train):
            raise CorpusError(f"no second text of {pairs.called} is known in train: take side first, or more labels")


def _side(split: PairSplit, side: Side, known: bool) -> TextSplit:
    if side == "first":
        return split.first
    if not known or split.labels is None:
        return split.second
    return split.second.take(np.flatnonzero(split.labels == KNOWN))
