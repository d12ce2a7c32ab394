"""How much written sentences differ from each other: distinct n-grams, self-BLEU (layer: evaluation).

Sentences are compared as ids, as the corpus tokenised them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pyro_nlp.data.splits import TextSplit
from pyro_nlp.evaluation.intervals import Interval, jackknife
from pyro_nlp.evaluation.uses import bleu_scorer

Gram = tuple[int, ...]


@dataclass(frozen=True)
class Diversity:
    """How much written sentences differ from each other, with 95 % intervals over sentences by `jackknife`.

    Attributes:
        distinct_1, distinct_2: different words, and pairs of neighbours, over all of them (Li et al. 2016,
            arXiv:1510.03055). They fall with the number of sentences: compare equal ones.
        self_bleu: mean BLEU-4 of a sentence against all others, 0 to 100, high where they are alike (Zhu et al. 2018,
            arXiv:1802.01886). It rises with their number; NaN for fewer than two sentences with a word.
    """

    distinct_1: Interval
    distinct_2: Interval
    self_bleu: Interval


def diversity(samples: TextSplit, *, subset: int = 500, seed: int = 0) -> Diversity:
    """Distinct words and pairs of all samples, and self-BLEU of some of them.

    BLEU is taken sentence by sentence, to the order that the sentence has n-grams of, smoothing exp; sentences without
    a word have no BLEU and are left out of it.

    Args:
        samples: written sentences.
        subset: sentences chosen for self-BLEU, a second for 500 of 20 words.
        seed: of the choice, and of the blocks of the intervals.

    Raises:
        ImportError: sacrebleu is not installed.
    """
    bleu_scorer()  # missing, before any work
    sentences = [samples.words(row) for row in range(len(samples))]
    chosen = np.random.default_rng(seed).permutation(np.flatnonzero(samples.lengths > 1))[:subset]
    return Diversity(
        distinct(sentences, 1, seed), distinct(sentences, 2, seed), self_bleu([sentences[row] for row in chosen], seed)
    )


def distinct(sentences: Sequence[Sequence[int]], order: int, seed: int = 0) -> Interval:
    """Different n-grams of an order over all of them; 0 where there are none."""
    found = [grams(words, order) for words in sentences]

    def share(rows: np.ndarray) -> float:
        kept = [gram for row in rows for gram in found[row]]
        return len(set(kept)) / max(1, len(kept))

    return jackknife(share, len(found), seed=seed)


def new_grams(sentences: Sequence[Sequence[int]], known: set[Gram], order: int, seed: int = 0) -> Interval:
    """Share of the different n-grams of an order that are not among the known ones; 0 where there are none."""
    found = [set(grams(words, order)) for words in sentences]

    def share(rows: np.ndarray) -> float:
        kept = set().union(*(found[row] for row in rows))
        return len(kept - known) / max(1, len(kept))

    return jackknife(share, len(found), seed=seed)


def self_bleu(sentences: Sequence[Sequence[int]], seed: int = 0) -> Interval:
    """Mean BLEU-4 of a sentence against all others, as `Diversity` says; of sentences with words.

    The counts are sacrebleu's: n-grams clipped at the most that any other sentence has of them, and the length of the
    reference nearest in length. They are found for all sentences at once, where sacrebleu would read 499 references
    for each of 500 sentences.
    """
    bleu, lengths = bleu_scorer(), np.array([len(words) for words in sentences])
    of, gram, count = _counted(sentences)

    def mean(rows: np.ndarray) -> float:
        if len(rows) < 2:
            return float("nan")
        kept = np.isin(of // 4, rows)
        clipped = np.minimum(count[kept], _most_of_others(gram[kept], count[kept]))
        right = np.bincount(of[kept], clipped, minlength=4 * len(sentences)).reshape(-1, 4)
        known, many = np.unique(lengths[rows], return_counts=True)
        scores = []
        for row in rows:
            others = known[many > (known == lengths[row])]
            nearest = others[np.abs(others - lengths[row]).argmin()]  # of two the shorter
            total = [max(0, lengths[row] - n) for n in range(4)]
            options = {"smooth_method": "exp", "effective_order": True}
            scores.append(bleu.compute_bleu(right[row].tolist(), total, lengths[row], nearest, **options).score)
        return float(np.mean(scores))

    return jackknife(mean, len(sentences), seed=seed)


def _counted(sentences: Sequence[Sequence[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All n-grams of BLEU-4 by sentence: 4 times the sentence's number and the order less 1, the n-gram's number, and
    how often the sentence has it."""
    numbers: dict[Gram, int] = {}
    found = [
        (4 * row + n, numbers.setdefault(gram, len(numbers)), count)
        for row, words in enumerate(sentences)
        for n in range(4)
        for gram, count in Counter(grams(words, n + 1)).items()
    ]
    of, gram, count = np.array(found, np.int64).reshape(-1, 3).T
    return of, gram, count


def _most_of_others(gram: np.ndarray, count: np.ndarray) -> np.ndarray:
    """For each n-gram of a sentence the most that another sentence has of it."""
    most, second = np.zeros((2, gram.max(initial=0) + 1), np.int64)
    np.maximum.at(most, gram, count)
    has_most = count == most[gram]
    np.maximum.at(second, gram[~has_most], count[~has_most])
    shared = np.bincount(gram[has_most], minlength=len(most)) > 1
    return np.where(has_most & ~shared[gram], second[gram], most[gram])


def grams(words: Sequence[int], order: int) -> list[Gram]:
    """Neighbouring words, `order` at a time."""
    return list(zip(*(words[k:] for k in range(order)), strict=False))
