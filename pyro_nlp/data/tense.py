"""A second respect to class sentences in: the tense of their finite verbs (layer: data)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from pyro_nlp.data.corpus import Corpus, CorpusError
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.data.text import TextCorpus

TENSES = ("past", "present")


def _forms(text: str) -> frozenset[str]:
    return frozenset(text.split())


PAST = _forms(
    "was were had did wasn't weren't hadn't didn't went came saw knew took gave began became wrote felt seemed wanted "
    "thought said"
)
PRESENT = _forms(
    "is are am has have does do isn't aren't hasn't haven't doesn't don't 're 've 'm goes comes sees knows takes gives "
    "begins becomes writes feels seems wants thinks says tries makes gets tells finds proves offers remains brings"
)
"""Forms that are finite in nearly all their uses; `'s` is left out, as it is a genitive too."""


def tense(words: Iterable[str]) -> int:
    """0 for a sentence whose finite verbs are all past, 1 where all are present, -1 where there are both or none.

    Found by lists of forms that are finite in nearly all their uses: participles (`inspired`, `made`) say nothing.

    Example:
        >>> [tense(s.split()) for s in ("it was dull", "it is dull", "it is what it was", "dull")]
        [0, 1, -1, -1]
    """
    found = set(words)
    past, present = not found.isdisjoint(PAST), not found.isdisjoint(PRESENT)
    return -1 if past == present else int(present)


class WithTense(TextCorpus):
    """A labelled corpus whose sentences are classed by tense too: two attributes, such as sentiment and tense.

    Example:
        >>> WithTense(SST()).attributes  # doctest: +SKIP
        {'sentiment': ('negative', 'positive'), 'tense': ('past', 'present')}

    The tense is found by a rule (`tense`) and unknown for sentences without a telling verb, or with both tenses.

    Args:
        corpus: of sentences, with labels.
    """

    def __init__(self, corpus: Corpus):
        if corpus.vocabulary is None or not corpus.labels or not isinstance(corpus.train, TextSplit):
            raise CorpusError(f"{corpus.called}: WithTense adds tense to labelled sentences; give such as SST")
        self.name, self.reference = f"{corpus.name}, tense", corpus.reference
        self.vocabulary, self.labels, self.attribute = corpus.vocabulary, corpus.labels, corpus.attribute
        self.versions = corpus.versions
        self.tokenise = getattr(corpus, "tokenise", TextCorpus.tokenise)
        self.texts = getattr(corpus, "texts", {})
        for name in ("train", "valid", "test"):
            setattr(self, name, _tensed(getattr(corpus, name), corpus.vocabulary.words))

    @property
    def attributes(self) -> dict[str, tuple[str, ...]]:
        return {self.attribute: self.labels, "tense": TENSES}


def _tensed(split: TextSplit, words: tuple[str, ...]) -> TextSplit:
    tenses = [tense(words[i] for i in split.words(row)) for row in range(len(split))]
    labels = np.full(len(split), -1) if split.labels is None else split.labels
    return TextSplit(split.flat, split.offsets, labels, split.tags, np.stack([labels, tenses], 1))
