"""How well scores rank the candidate answers of each question (layer: evaluation).

The conventions are those of trec_eval (and so of `ir-measures`), that published numbers were made with:

- scores are compared in float32, so that two which differ in the eighth digit are a tie;
- a tie is broken by document id, in descending order of string comparison. A candidate's id is its place among those of
  its question, in the order of the pairs, with zeros in front: "007" before "006". So of equal scores the *later*
  candidate stands first, and a model that scores all alike ranks every question backwards. trec_eval given other ids,
  such as "7" and "10", breaks ties otherwise.

Ties matter: the files of TREC QA list right answers first, so there a sort that keeps the order of equal scores gives a
constant a MAP of 1. `Ranking.tied` counts questions that a tie has a say in; a probability near 1 ties in float32 where
its logit does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from pyro_nlp.evaluation._arviz import measured
from pyro_nlp.evaluation.intervals import Interval, PairedInterval, bootstrap, sign_flips

Keep = Literal["both", "right", "all"]
MEASURES = ("MAP", "MRR", "P@1")
"""Means over questions of average precision, of reciprocal rank and of precision at 1."""


@dataclass(frozen=True)
class Ranking:
    """How the candidates of Q questions were ranked.

    Attributes:
        questions: which they are, ascending, int64 `[Q]`.
        average_precision: mean, over the right answers, of the share of right ones down to it, `[Q]`.
        reciprocal_rank: one over the rank of the first right answer, `[Q]`; 0 without one.
        precision_at_1: whether the first is right, 0 or 1, `[Q]`.
        right, wrong: answers of either kind, int64 `[Q]`.
        keep: which questions were kept.
        without_right, without_wrong: questions left out, as all their answers are wrong, or right.
        unjudged: questions left out, as no pair of theirs has a known label.
        unknown: pairs left out, as their label is not known.
        tied: questions, of those kept, with a right and a wrong answer of equal scores.
    """

    questions: np.ndarray
    average_precision: np.ndarray
    reciprocal_rank: np.ndarray
    precision_at_1: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    keep: Keep
    without_right: int = 0
    without_wrong: int = 0
    unjudged: int = 0
    unknown: int = 0
    tied: int = 0

    def __len__(self) -> int:
        return len(self.questions)

    @property
    def map(self) -> float:
        """Mean average precision."""
        return float(self.average_precision.mean())

    @property
    def mrr(self) -> float:
        """Mean reciprocal rank."""
        return float(self.reciprocal_rank.mean())

    @property
    def p_at_1(self) -> float:
        """Share of questions whose first answer is right."""
        return float(self.precision_at_1.mean())

    @property
    def values(self) -> np.ndarray:
        """What the `MEASURES` are means of, `[Q, 3]`."""
        return np.stack([self.average_precision, self.reciprocal_rank, self.precision_at_1], 1)

    def intervals(self, resamples: int = 10_000, seed: int = 0) -> dict[str, Interval]:
        """`MEASURES` with percentile bootstrap intervals over questions      Sakai 2006 (SIGIR)

        One resampling serves all three. An interval tells how the mean would vary with other questions, not with
        another seed of the model; that of a difference is `compare_rankings`.
        """
        bounds = bootstrap(self.values, resamples, seed)
        return {
            name: Interval(float(value.mean()), *map(float, bound))
            for name, value, bound in zip(MEASURES, self.values.T, bounds, strict=True)
        }

    def rows(self) -> dict[str, str]:
        """Measure and value, as printed."""
        found = {name: str(interval) for name, interval in self.intervals().items()}
        left = [("without a right answer", self.without_right), ("without a wrong answer", self.without_wrong)]
        left.append(("not judged", self.unjudged))
        out = [f"{count} {why}" for why, count in left if count]
        found["questions"] = f"{len(self)}" + (f"; left out: {', '.join(out)}" if out else "")
        if self.tied:
            found["ties of right and wrong"] = f"in {self.tied} questions"
        return found

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` over `question`: the three measures, and how many answers are right and wrong."""
        variables = {name: getattr(self, name) for name in ("average_precision", "reciprocal_rank", "precision_at_1")}
        table = {name: (("question",), value, "1") for name, value in variables.items()}
        table |= {name: (("question",), getattr(self, name), "answers") for name in ("right", "wrong")}
        counts = ("without_right", "without_wrong", "unjudged", "unknown", "tied")
        about = {"keep": self.keep} | {name: getattr(self, name) for name in counts}
        return measured(table, {"question": self.questions}, about)


def rank_questions(scores: ArrayLike, labels: ArrayLike, group: ArrayLike, keep: Keep = "both") -> Ranking:
    """Rank the candidates of every question by their scores, highest first.

    A pair of unknown label (-1) is left out of the ranking before it is judged, a *condensed list* (Sakai 2007);
    trec_eval would count it as wrong. It still counts in the order that breaks ties.

    Example:
        >>> found = rank_questions(scores=[0.9, 0.8, 0.1, 0.5, 0.7], labels=[0, 1, 1, 1, 0], group=[0, 0, 0, 1, 1])
        >>> found.reciprocal_rank.tolist(), found.mrr
        ([0.5, 0.5], 0.5)

    Args:
        scores: of the pairs, the higher the likelier to be right, `[N]`.
        labels: 1 right, 0 wrong, -1 unknown, `[N]`.
        group: which question a pair is of, integers in any order, `[N]`.
        keep: "both" keeps questions with at least one right and one wrong answer, which is usual; "right" those with a
            right one, as WikiQA's filtered files; "all" keeps all, and one without a right answer scores 0, as by
            `trec_eval -c`.

    Raises:
        ValueError: numbers that do not match, scores that are not finite, other labels, or no question left.
    """
    if keep not in get_args(Keep):
        raise ValueError(f"keep is {keep!r}; give both, right or all")
    score, label, question = _checked(scores, labels, group)
    known = np.flatnonzero(label >= 0)
    unjudged = len(np.unique(question)) - len(np.unique(question[known]))
    if not len(known):
        raise ValueError(f"no pair of {len(label)} has a label, 0 or 1: there is no question to judge")
    order = known[np.lexsort((-known, -score[known], question[known]))]
    question, hit = question[order], label[order] == 1
    starts = np.flatnonzero(np.concatenate([[True], question[1:] != question[:-1]]))
    sizes = np.diff(np.append(starts, len(question)))
    rank = np.arange(1, len(question) + 1) - np.repeat(starts, sizes)
    right = np.add.reduceat(hit, starts, dtype=np.int64)
    before = np.cumsum(hit) - np.repeat(np.cumsum(right) - right, sizes)  # right ones down to this place, it included
    precision = np.add.reduceat(np.where(hit, before / rank, 0.0), starts) / np.maximum(right, 1)
    first = np.add.reduceat(np.where(hit & (before == 1), 1 / rank, 0.0), starts)
    tie = np.diff(score[order], append=np.inf) == 0  # of a candidate with the next one of its question
    tie &= np.append(hit[1:] != hit[:-1], False) & (rank < np.repeat(sizes, sizes))
    tied = np.logical_or.reduceat(tie, starts)
    no_right, no_wrong = right == 0, right == sizes
    kept = np.full(len(starts), True)
    if keep != "all":
        kept &= ~no_right
    if keep == "both":
        kept &= ~no_wrong
    if not kept.any():
        wanted = "a right answer" if keep == "right" else "a right and a wrong answer"
        raise ValueError(f"none of {len(starts)} questions has {wanted}: there is nothing to rank (keep={keep!r})")
    return Ranking(
        question[starts][kept],
        precision[kept],
        first[kept],
        hit[starts][kept].astype(np.float64),
        right[kept],
        (sizes - right)[kept],
        keep,
        without_right=int((no_right & ~kept).sum()),
        without_wrong=int((no_wrong & ~kept).sum()),
        unjudged=unjudged,
        unknown=len(label) - len(known),
        tied=int((tied & kept).sum()),
    )


def _checked(scores: ArrayLike, labels: ArrayLike, group: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three as arrays, scores in float32."""
    given, label, question = np.asarray(scores), np.asarray(labels), np.asarray(group)
    if given.ndim != 1 or not given.shape == label.shape == question.shape:
        raise ValueError(
            f"scores {given.shape}, labels {label.shape} and groups {question.shape}: give one of each per pair, [N]"
        )
    with np.errstate(over="ignore"):
        score = given.astype(np.float32)
    if not np.isfinite(score).all():
        bad = np.flatnonzero(~np.isfinite(score))
        first = f"the first is {given[bad[0]]} at pair {bad[0]}"
        raise ValueError(f"{len(bad)} of {len(score)} scores are not finite in float32; {first}")
    if not (usual := np.isin(label, (-1, 0, 1))).all():
        place = int(np.flatnonzero(~usual)[0])
        raise ValueError(f"pair {place} has the label {label[place]}: give 1 for right, 0 for wrong, -1 for unknown")
    return score, label.astype(np.int64), question.astype(np.int64)


@dataclass(frozen=True)
class RankingDifference:
    """The first ranking less the second, question by question.

    Attributes:
        map, mrr, p_at_1: mean differences.
        questions: how many.
        better, worse: questions whose average precision is higher in the first, and lower.
    """

    map: PairedInterval
    mrr: PairedInterval
    p_at_1: PairedInterval
    questions: int
    better: int
    worse: int

    def rows(self) -> dict[str, str]:
        """Measure and difference, as printed."""
        found = {name: str(value) for name, value in zip(MEASURES, (self.map, self.mrr, self.p_at_1), strict=True)}
        return found | {"questions": f"{self.questions}: {self.better} better, {self.worse} worse by average precision"}


def compare_rankings(
    first: Ranking, second: Ranking, *, resamples: int = 10_000, permutations: int = 9_999, seed: int = 0
) -> RankingDifference:
    """first - second, question by question: what makes a question hard cancels.

    The interval is a percentile bootstrap over questions. The p-value is of the paired randomisation test (Fisher's;
    Smucker et al. 2007, CIKM): were there no difference, its sign would be an even chance for each question.

    Args:
        first, second: of the same pairs.
        resamples: of the questions.
        permutations: of the signs; the smallest p-value is 1 / (permutations + 1).
        seed: of both.

    Raises:
        ValueError: the two are not of the same questions and answers.
    """
    same = np.array_equal(first.questions, second.questions)
    if not same or not np.array_equal(first.right, second.right) or not np.array_equal(first.wrong, second.wrong):
        shared = len(np.intersect1d(first.questions, second.questions))
        raise ValueError(
            f"rankings of {len(first)} (keep={first.keep!r}) and {len(second)} (keep={second.keep!r}) questions share "
            f"{shared}{', with other answers' if same else ''}: rank the same pairs, and keep the same questions"
        )
    difference = first.values - second.values
    bounds = bootstrap(difference, resamples, seed)
    p_values = sign_flips(difference, permutations, seed)
    ap, rr, p1 = (
        PairedInterval(float(mean), float(low), float(high), float(p))
        for mean, (low, high), p in zip(difference.mean(0), bounds, p_values, strict=True)
    )
    signs = np.sign(difference[:, 0])
    return RankingDifference(ap, rr, p1, len(first), int((signs > 0).sum()), int((signs < 0).sum()))
