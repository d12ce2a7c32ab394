"""What a diagnosis says of models of pairs: how answers are ranked, what the label tells, where is looked
(layer: recipe)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pyro_nlp.data.batches import EOS, UNK
from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.data.vocabulary import SPECIAL
from pyro_nlp.diagnosis.subject import LeftOut, Subject, asked
from pyro_nlp.evaluation import AnswerEvaluation, evaluate_answers, judges_answers, rank_questions, read_candidates
from pyro_nlp.evaluation.documents import as_float64, device_of, judging
from pyro_nlp.inference.terms import terms
from pyro_nlp.models.latent_attention import AttentionModel, LatentAttention

SHOWN, CANDIDATES, DRAWS = 10, 8, 100
"""Questions to step through, candidates of each, draws of a reading."""
PAIRS, WIDEST, TALLEST = 8, 12, 16
"""Pairs whose attention is drawn; words of a source and of a target that have room, their ends counted."""


def has_answers(subject: Subject) -> bool:
    """Whether a run ranks answers, and some of their labels are known."""
    return judges_answers(subject.model, subject.split)


def has_label_gap(subject: Subject) -> bool:
    """Whether it does so by a latent reading."""
    return has_answers(subject) and subject.run.guide is not None


def has_attention(subject: Subject) -> bool:
    """Whether a run is of an encoder-decoder with attention."""
    return isinstance(subject.model, AttentionModel) and isinstance(subject.split, PairSplit)


def each(subject: Subject) -> str:
    """What a document is, where it is a pair."""
    if not isinstance(subject.split, PairSplit):
        return ""
    asked_ = f", of {len(subject.split.first):,} questions" if has_answers(subject) else ""
    return f", each a pair{asked_}"


def ranking(subject: Subject) -> AnswerEvaluation:
    """Ranking and calibration on the whole split: what `evaluate` says."""
    whole = getattr(subject.run.corpus, subject.protocol.split)
    return asked(lambda: evaluate_answers(subject.model, whole, seed=subject.protocol.seed))


@dataclass(frozen=True)
class Candidate:
    """A candidate of a question.

    Attributes:
        rank: from 1.
        probability, spread, first: see `evaluation.Candidates`; None without draws.
        right: its label; None where unknown.
        words: its words, and the end of sentence.
        weights: where was looked, `[length]`; None where the model does not look.
    """

    rank: int
    probability: float
    spread: float | None
    first: float | None
    right: bool | None
    words: list[str]
    weights: np.ndarray | None


@dataclass(frozen=True)
class Question:
    """A question and some of its candidates, the likeliest first; `why` it is shown.

    Attributes:
        number: in the split.
        candidates: the likeliest, and the likeliest of the right ones.
        count: how many candidates there are.
        average_precision: of all of them; None where none is right.
    """

    number: int
    why: str
    text: str
    candidates: list[Candidate]
    count: int
    average_precision: float | None


def questions(subject: Subject) -> list[Question]:
    """Questions to step through: the worst ranked, those with the least sure first candidate, some by chance."""
    split = _pairs(subject)
    seed, labels = subject.protocol.seed, _labels(split)
    found = read_candidates(subject.model, split, DRAWS, seed=seed)
    probability = np.zeros(len(split))
    for question in found:
        probability[question.rows] = question.probability
    judged = rank_questions(probability, labels, split.group, keep="all")
    precision = dict(zip(judged.questions.tolist(), judged.average_precision.tolist(), strict=True))
    chosen: dict[int, str] = {}
    answered = [q for q, right in zip(judged.questions.tolist(), judged.right.tolist(), strict=True) if right]
    for q in sorted(answered, key=lambda q: precision[q])[: SHOWN // 3]:
        chosen.setdefault(q, "one of the worst ranked")
    sure = {i: float(q.first.max()) for i, q in enumerate(found) if q.first is not None and len(q.rows) > 1}
    for i in sorted(sure, key=lambda i: sure[i])[: SHOWN // 3]:
        chosen.setdefault(i, "one of the least sure which is first")
    for i in np.random.default_rng(seed).permutation(len(found)).tolist():
        if len(chosen) >= SHOWN:
            break
        chosen.setdefault(i, "drawn by chance")
    numbers = _numbers(subject)
    made = []
    for i, why in chosen.items():
        one = found[i]
        order = one.order.tolist()
        right = [c for c in order if labels[one.rows[c]] == 1]
        shown = sorted({*order[:CANDIDATES], *right[:1]}, key=order.index)
        rows = [
            Candidate(
                rank=order.index(c) + 1,
                probability=float(one.probability[c]),
                spread=None if one.spread is None else float(one.spread[c]),
                first=None if one.first is None else float(one.first[c]),
                right=None if labels[one.rows[c]] < 0 else bool(labels[one.rows[c]]),
                words=[*_words(subject, split.second.words(int(one.rows[c]))), SPECIAL[EOS]],
                weights=None if one.where is None else one.where[c],
            )
            for c in shown
        ]
        text = subject.lines([split.first.words(i)])[0]
        made.append(Question(int(numbers[i]), why, text, rows, len(order), precision[i] if right else None))
    return made


@dataclass(frozen=True)
class LabelGaps:
    """By question, what its labels say of its reading: q has seen them, the learnt prior has not.

    Attributes:
        questions: their numbers in the split, `[Q]`.
        texts: as text.
        candidates, right: how many, `[Q]`.
        kl: KL(q || p(h | q)), the mean over its candidates, nats, `[Q]`.
        kl_right, kl_wrong: of candidates of either label; NaN where there is none, `[Q]`.
        pareto_k: the worst k-hat of its candidates, `[Q]`.
    """

    questions: np.ndarray
    texts: list[str]
    candidates: np.ndarray
    right: np.ndarray
    kl: np.ndarray
    kl_right: np.ndarray
    kl_wrong: np.ndarray
    pareto_k: np.ndarray


def label_gap(subject: Subject) -> LabelGaps:
    """KL to the learnt prior and the worst importance weights of every question."""
    _ = subject.dense_guide
    split, weights, sites = _pairs(subject), subject.weights, subject.terms.kl
    if not sites or weights is None or not weights.draws:
        raise LeftOut("no latent has a posterior that could be held against its prior")
    kl = sum(sites.values(), np.zeros(len(split)))
    count, labels = len(split.first), _labels(split)

    def mean(of: np.ndarray) -> np.ndarray:
        size = np.bincount(split.group[of], minlength=count)
        total = np.bincount(split.group[of], kl[of], minlength=count)
        return np.asarray(np.where(size > 0, total / np.maximum(size, 1), np.nan))

    worst = np.full(count, -np.inf)
    np.maximum.at(worst, split.group, weights.pareto_k)
    return LabelGaps(
        questions=_numbers(subject),
        texts=subject.lines([split.first.words(i) for i in range(count)]),
        candidates=np.bincount(split.group, minlength=count),
        right=np.bincount(split.group[labels == 1], minlength=count),
        kl=mean(np.full(len(split), True)),
        kl_right=mean(labels == 1),
        kl_wrong=mean(labels == 0),
        pareto_k=worst,
    )


@dataclass(frozen=True)
class Alignment:
    """Where a decoder looks in a source for every word of a target.

    Attributes:
        pair: its place in the split.
        source, target: words, and the ends of sentence.
        prior: p(a_t | x, y_<t), the weights of soft attention, `[T, S]`.
        posterior: p(a_t | x, y), exact, `[T, S]`; None of soft attention.
        written: what the model writes for the source.
    """

    pair: int
    source: list[str]
    target: list[str]
    prior: np.ndarray
    posterior: np.ndarray | None
    written: str


def alignments(subject: Subject) -> list[Alignment]:
    """Some pairs that have room on a page, those with the most known words of a source first."""
    model, split = subject.model, _pairs(subject)
    small = (split.first.lengths[split.group] <= WIDEST) & (split.lengths <= TALLEST)
    rows = np.random.default_rng(subject.protocol.seed).permutation(np.flatnonzero(small))
    known = np.array([sum(i > UNK for i in split.first.words(int(split.group[row]))) for row in rows], np.int64)
    rows = rows[np.argsort(-known, kind="stable")][:PAIRS]
    if not len(rows):
        raise LeftOut(f"no pair has a source of {WIDEST} words and a target of {TALLEST} or fewer, which have room")
    part = split.take(np.sort(rows))
    batch = part.batch(np.arange(len(part))).to(device_of(model))
    posterior = None
    with judging(model, None, subject.protocol.seed):
        prior = as_float64(model.read(batch)[2].softmax(-1))  # [T, B, S]
        if isinstance(model, LatentAttention):
            posterior = as_float64(terms(model, None, batch, marginal=("a",)).posterior("a")[0])  # [T, B, S]
        written = subject.lines(model.translate(batch.first))
    made = []
    for i, row in enumerate(np.sort(rows).tolist()):
        q = int(part.group[i])
        source, target = ([*_words(subject, ids), SPECIAL[EOS]] for ids in (part.first.words(q), part.second.words(i)))
        inside = slice(len(target)), i, slice(len(source))
        looked = None if posterior is None else posterior[inside]
        made.append(Alignment(int(subject.rows[row]), source, target, prior[inside], looked, written[q]))
    return made


def _pairs(subject: Subject) -> PairSplit:
    if not isinstance(subject.split, PairSplit) or subject.run.corpus.vocabulary is None:
        raise LeftOut("the documents are no pairs of texts")
    return subject.split


def _labels(split: PairSplit) -> np.ndarray:
    return split.labels if split.labels is not None else np.full(len(split), -1)


def _numbers(subject: Subject) -> np.ndarray:
    """Numbers in the whole split of the questions that are judged."""
    whole: PairSplit = getattr(subject.run.corpus, subject.protocol.split)
    return np.unique(whole.group[subject.rows])


def _words(subject: Subject, ids: list[int]) -> list[str]:
    vocabulary = subject.run.corpus.vocabulary
    assert vocabulary is not None
    return vocabulary.decode(ids)
