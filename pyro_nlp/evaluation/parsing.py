"""How well induced trees agree with a treebank's: unlabelled F1, its baselines and its ceiling (layer: evaluation).

Protocol, that of Kim et al. 2019 (after Shen et al. 2018): a span counts once whatever its labels; single words and the
whole sentence are dropped from both sides; sentences of one word are left out. The F1 of a sentence without gold spans
is 1 where nothing is found either, as of two words always, and else 0. `scores.f1` is of every sentence,
`scores.corpus_f1` of all spans together. One of their scripts leaves sentences without gold spans out of the mean
instead: `scores.f1_with_gold`. Their code lets the whole sentence count where it stands twice in a gold tree (a unary
rule at the root); here it never does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from pyro_nlp.data.splits import TextSplit
from pyro_nlp.evaluation.documents import batches, judging
from pyro_nlp.evaluation.intervals import Interval, PairedInterval, bootstrap, sign_flips
from pyro_nlp.evaluation.texts import codes

Spans = Iterable[tuple[Any, ...]]
"""Spans of a tree as (start, end, ...), the end not included: `Span`, `Constituent`, or plain pairs."""


@dataclass(frozen=True)
class ParsingScores:
    """How N trees agree with gold trees.

    Attributes:
        rows: which sentences were judged, those of two words and more, int64 `[N]`.
        right, found, gold: spans in both trees, in the induced one and in the gold one, int64 `[N]`.
        labels: by gold label, how many of its spans were found and how many there are, the commonest first.
    """

    rows: np.ndarray
    right: np.ndarray
    found: np.ndarray
    gold: np.ndarray
    labels: dict[str, tuple[int, int]]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def sentences(self) -> np.ndarray:
        """F1 of each sentence, `[N]`."""
        both = self.found + self.gold
        return np.where(both > 0, 2 * self.right / np.maximum(both, 1), 1.0)

    @property
    def f1(self) -> float:
        """Mean over sentences: the number that is published."""
        return float(self.sentences.mean())

    @property
    def f1_with_gold(self) -> float:
        """The same over sentences with gold spans; NaN where there is none."""
        some = self.gold > 0
        return float(self.sentences[some].mean()) if some.any() else float("nan")

    @property
    def corpus_f1(self) -> float:
        """Of all spans together; NaN where there is none."""
        both = int(self.found.sum() + self.gold.sum())
        return 2 * int(self.right.sum()) / both if both else float("nan")

    @property
    def recall(self) -> dict[str, float]:
        """Share of the spans of each gold label that was found."""
        return {label: right / count for label, (right, count) in self.labels.items()}

    def interval(self, resamples: int = 10_000, seed: int = 0) -> Interval:
        """The mean F1 with its percentile bootstrap interval over sentences."""
        ((low, high),) = bootstrap(self.sentences[:, None], resamples, seed)
        return Interval(self.f1, float(low), float(high))

    def table(self) -> dict[str, str]:
        """Measure and value, as printed."""
        recall = ", ".join(f"{label} {value:.2f}" for label, value in list(self.recall.items())[:6])
        return {
            "sentence F1": str(self.interval()),
            "sentence F1, with gold spans": f"{self.f1_with_gold:.4f}",
            "corpus F1": f"{self.corpus_f1:.4f}",
            "recall by label": recall,
            "sentences": f"{len(self)}, {int((self.gold == 0).sum())} without gold spans",
        }


def score_parses(induced: Sequence[Spans], gold: Sequence[Spans], lengths: Sequence[int]) -> ParsingScores:
    """Compare trees, sentence by sentence, by the protocol above.

    Example:
        >>> found = score_parses([[(0, 3), (1, 3)]], [[(0, 3, "S"), (0, 2, "NP")]], [3])
        >>> found.f1, found.recall
        (0.0, {'NP': 0.0})

    Args:
        induced, gold: spans of each sentence; of gold ones the third item, if any, is the label.
        lengths: words of each sentence.

    Raises:
        ValueError: numbers that do not match, a span beyond its sentence, or no sentence of two words.
    """
    if not len(induced) == len(gold) == len(lengths):
        raise ValueError(f"{len(induced)} trees, {len(gold)} gold ones and {len(lengths)} lengths: give one of each")
    rows, counts = [], []
    hits: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    for row, (ours, theirs, length) in enumerate(zip(induced, gold, lengths, strict=True)):
        if length < 2:
            continue
        found = set(_proper(ours, row, length))
        wanted = _proper(theirs, row, length)
        rows.append(row)
        counts.append((len(found & wanted.keys()), len(found), len(wanted)))
        for span, label in wanted.items():
            if label is not None:
                labels[label] += 1
                hits[label] += span in found
    if not rows:
        raise ValueError(f"none of {len(lengths)} sentences has two words: there is no tree to judge")
    recalled = {label: (hits[label], count) for label, count in labels.most_common()}
    right, found_spans, wanted_spans = np.array(counts, np.int64).T
    return ParsingScores(np.array(rows), right, found_spans, wanted_spans, recalled)


def _proper(spans: Spans, row: int, length: int) -> dict[tuple[int, int], str | None]:
    """Spans that are neither a word nor the sentence, with the first label of each."""
    kept: dict[tuple[int, int], str | None] = {}
    for start, end, *label in spans:
        if not 0 <= start < end <= length:
            raise ValueError(f"sentence {row} has {length} words and a span of {start} to {end}")
        if 1 < end - start < length:
            kept.setdefault((start, end), label[0] if label else None)
    return kept


def compare_parses(
    first: ParsingScores, second: ParsingScores, *, resamples: int = 10_000, permutations: int = 9_999, seed: int = 0
) -> PairedInterval:
    """Mean difference of sentence F1, first - second, with its bootstrap interval and the p-value of random signs.

    Raises:
        ValueError: the two are not of the same sentences and gold trees.
    """
    if not np.array_equal(first.rows, second.rows) or not np.array_equal(first.gold, second.gold):
        raise ValueError(f"scores of {len(first)} and {len(second)} sentences: judge both on the same gold trees")
    difference = (first.sentences - second.sentences)[:, None]
    ((low, high),) = bootstrap(difference, resamples, seed)
    (p_value,) = sign_flips(difference, permutations, seed)
    return PairedInterval(float(difference.mean()), float(low), float(high), float(p_value))


def parses(model: Any, guide: nn.Module | None, split: TextSplit, batch_size: int = 16) -> list[Any]:
    """The likeliest tree of every sentence in corpus order, its grammar made at the posterior mean of z."""
    found: list[Any] = [None] * len(split)
    for rows, batch in batches(model, split, batch_size):
        z = codes(model, guide, batch).get("z") if guide is not None else None  # type: ignore[arg-type]
        with judging(model, guide, 0):
            trees, _ = model.parse(batch, z)
        for row, tree in zip(rows.tolist(), trees, strict=True):
            found[row] = tree
    return found


def right_branching(length: int) -> list[tuple[int, int]]:
    """Every word with all that follows it."""
    return [(start, length) for start in range(length - 1)]


def left_branching(length: int) -> list[tuple[int, int]]:
    """Every word with all that precedes it."""
    return [(0, end) for end in range(length, 1, -1)]


def random_tree(length: int, rng: np.random.Generator) -> list[tuple[int, int]]:
    """Cut somewhere, each place alike, and each part again."""
    waiting, found = [(0, length)], []
    while waiting:
        start, end = waiting.pop()
        if end - start > 1:
            found.append((start, end))
            cut = int(rng.integers(start + 1, end))
            waiting += [(start, cut), (cut, end)]
    return found


def binarise(spans: Spans, length: int) -> list[tuple[int, int]]:
    """The best binary tree by gold spans, which it all has: what more it needs branches to the right.

    Raises:
        ValueError: two spans cross.
    """
    proper = sorted({(start, end) for start, end, *_ in spans} | {(0, length)}, key=lambda s: (s[0], -s[1]))
    children: dict[tuple[int, int], list[int]] = {}
    above: list[tuple[int, int]] = []
    for span in (found for found in proper if found[1] - found[0] > 1):
        while above and above[-1][1] <= span[0]:
            above.pop()
        if above and span[1] > above[-1][1]:
            raise ValueError(f"spans {above[-1]} and {span} cross: a tree has none that do")
        if above:
            children[above[-1]].append(span[0])
            children[above[-1]].append(span[1])
        children[span] = [span[0]]
        above.append(span)
    found = []
    for (start, end), inner in children.items():
        # cuts: after each child, and after each word that stands in none
        covered = {place for a, b in zip(inner[1::2], inner[2::2], strict=True) for place in range(a + 1, b)}
        cuts = [place for place in range(start, end - 1) if place not in covered]
        found += [(cut, end) for cut in cuts if end - cut > 1]
    return sorted(set(found) | set(children), key=lambda s: (s[0], -s[1]))


def bracketed(tree: Spans, words: Sequence[str]) -> str:
    """A tree as `((the dog) (barks loudly))`, whatever its labels."""
    opens, closes = Counter[int](), Counter[int]()
    for start, end in {(start, end) for start, end, *_ in tree if end - start > 1}:
        opens[start] += 1
        closes[end] += 1
    return " ".join("(" * opens[i] + word + ")" * closes[i + 1] for i, word in enumerate(words))
