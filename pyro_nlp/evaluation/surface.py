"""Compressions as text: a word that the vocabulary lacks is written as the source has it (layer: evaluation)."""

from __future__ import annotations

from collections.abc import Sequence

from pyro_nlp.data.compression import CompressionCorpus
from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.data.tokenise import detokenise
from pyro_nlp.data.vocabulary import Vocabulary
from pyro_nlp.evaluation.compressing import Compressions


def places(source: Sequence[int], ids: Sequence[int]) -> list[int]:
    """Where in the source each word of a compression stands, -1 for one that does not.

    A word takes its next place after that of the word before it, or its first place where there is none after. A
    pointer may go back; `data.compression.align`, by which compressions are judged, does not.

    Example:
        >>> places([7, 8, 3, 7, 3], [8, 3, 3, 7, 9])
        [1, 2, 4, 0, -1]
    """
    found, last = [], -1
    for word in ids:
        at = next((i for i in range(last + 1, len(source)) if source[i] == word), None)
        if at is None:
            at = next((i for i in range(last + 1) if source[i] == word), -1)
        found.append(at)
        last = at if at >= 0 else last
    return found


def surface(source: Sequence[str], ids: Sequence[int], vocabulary: Vocabulary) -> list[str]:
    """Words of a compression: those of the source at their `places`, so that one the vocabulary lacks is not lost;
    others from the vocabulary.

    Args:
        source: the source's words.
        ids: of the compression, without its end.
        vocabulary: of the model.
    """
    own = vocabulary.encode(source).tolist()
    at = places(own, ids)
    return [source[i] if i >= 0 else vocabulary.words[word] for i, word in zip(at, ids, strict=True)]


def written_texts(found: Compressions, sources: Sequence[Sequence[str]], vocabulary: Vocabulary) -> list[str]:
    """The first compression of every source as a line of text.

    Args:
        found: of N sources.
        sources: the words of each, from `source_words`.
        vocabulary: of the model.
    """
    rows = enumerate(sources)
    return [detokenise(surface(source, found.words(i), vocabulary)) for i, source in rows]


def source_words(corpus: CompressionCorpus, split: str) -> list[list[str]]:
    """The words of every source of a split as the model reads them, with those that its vocabulary lacks."""
    pairs: PairSplit = getattr(corpus, split)
    return [
        corpus.tokenise(text.source)[: len(pairs.first.words(int(group)))]
        for text, group in zip(corpus.texts[split], pairs.group, strict=True)
    ]
