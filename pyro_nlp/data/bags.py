"""From words to bags of words: counting, and choosing the words that are kept (layer: data)."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import count

import numpy as np

from pyro_nlp.data.counts import CountSplit
from pyro_nlp.data.files import CorpusError
from pyro_nlp.data.tokenise import words
from pyro_nlp.data.vocabulary import WordList

_FUNCTION_WORDS = """
a about above after again against all also although am an and another any are aren't as at be because been before being
below between both but by can can't cannot could couldn't did didn't do does doesn't doing don't done down during each
either else etc. e.g. even ever every few for from further get give given gives had has have having he her here hers
herself him himself his how however i i.e. if in instead into is isn't it its itself just less let like made make makes
many may me might more most must my myself neither no nor not now of off often on once one only or other others our
ours out over own per rather same see shall she should since so some still such than that the their theirs them then
there therefore these they this those though through thus to together too two under until up upon us use used uses
using very via was wasn't we were what when where whether which while who whose why will with within without won't
would yet you your
"""
STOP = frozenset(_FUNCTION_WORDS.split())
"""Function words of English, and the commonest verbs of documentation: what `content_words` leaves out."""


def content_words(text: str) -> list[str]:
    """Lower-cased words that begin with a letter and have two characters or more, without those in `STOP`.

    Punctuation and numbers are left out with them.
    """
    return [word for word in words(text) if len(word) > 1 and word[0].isalpha() and word not in STOP]


def bags(documents: Iterable[Iterable[str]]) -> tuple[CountSplit, list[str]]:
    """The bags of a stream of documents and the words by id, in the order in which they came."""
    ids: defaultdict[str, int] = defaultdict(count().__next__)
    tokens, ends = array("q"), array("q", [0])
    for document in documents:
        tokens.extend(map(ids.__getitem__, document))
        ends.append(len(tokens))
    size = len(ends) - 1
    rows = np.repeat(np.arange(size), np.diff(np.array(ends)))
    return CountSplit.from_pairs(rows, np.array(tokens), None, size, len(ids)), list(ids)


def choose_words(
    split: CountSplit,
    names: Sequence[str],
    min_documents: int,
    max_document_share: float,
    max_size: int | None,
    where: str,
) -> tuple[np.ndarray, WordList]:
    """The words to keep, by falling count in `split` and then alphabetically.

    Args:
        split: the documents that decide, those to train on.
        names: their words by id.
        min_documents: words in fewer documents are left out.
        max_document_share: words in a larger share of the documents are left out.
        max_size: how many are kept at most; None for no bound.
        where: what an error calls the text.

    Returns:
        New id by old, -1 for a word that is left out, int64 `[len(names)]`; and the list of those kept.

    Raises:
        CorpusError: no word is left.
    """
    inside = np.bincount(split.words, minlength=len(names))
    total = np.bincount(split.words, split.counts, len(names))
    usual = (inside >= min_documents) & (inside / max(len(split), 1) <= max_document_share)
    kept = sorted(np.flatnonzero(usual).tolist(), key=lambda i: (-total[i], names[i]))[:max_size]
    if not kept:
        raise CorpusError(
            f"{where}: none of {len(names):,} words is in at least {min_documents} and at most "
            f"{max_document_share:.0%} of the {len(split):,} train documents; change --corpus.min_documents or "
            "--corpus.max_document_share, or give more documents"
        )
    table = np.full(len(names), -1)
    table[kept] = np.arange(len(kept))
    return table, WordList(names[i] for i in kept)


def check_choice(min_documents: int, max_document_share: float, max_size: int | None) -> None:
    """Refuse bounds that would leave no word."""
    if min_documents < 1:
        raise CorpusError(f"min_documents is {min_documents}; it must be at least 1")
    if not 0 < max_document_share <= 1:
        raise CorpusError(f"max_document_share is {max_document_share}; it must be above 0 and at most 1")
    if max_size is not None and max_size < 1:
        raise CorpusError(f"max_size is {max_size}; it must be at least 1")
