"""How the sections of a model of pairs are shown (layer: recipe)."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from pyro_nlp.diagnosis.alignment import alignment
from pyro_nlp.diagnosis.blocks import Block, Cell, Grid, Marked, Pictures, Step, Steps, Words, number, whole
from pyro_nlp.diagnosis.pairs import Alignment, Candidate, LabelGaps, Question
from pyro_nlp.diagnosis.svg import MUTED, SERIES, Picture, picture
from pyro_nlp.evaluation import AnswerEvaluation
from pyro_nlp.evaluation.binary import BinaryCalibration
from pyro_nlp.evaluation.candidates import emphasis

RANKING_LEAD = (
    "On the whole split, as a ranking wants all candidates of a question. Candidates are ranked by their log-odds, at "
    "the mean of a latent reading; in brackets the 95 % interval over questions. p(y = 1) is the mean over draws of "
    "the reading; on the diagonal of the plot it means what it says."
)
QUESTIONS_LEAD = (
    "Candidates of some questions by p(right), and where the question looks: the more than an even share of the "
    "attention a word has, the stronger its ground; a word's title is its weight. ± is the standard deviation over "
    "draws of a latent reading, first how many of them put the candidate first: what the model is unsure of in the "
    "question. How sure it is of its parameters is not in it."
)
LABEL_LEAD = (
    "A document is a pair here. q(h | q, a, y) has seen the label, and the learnt prior p(h | q), by which candidates "
    "are ranked, has not. KL(q || p), in nats a pair and averaged over a question's candidates, is what the label says "
    "of the reading: at zero labels tell nothing of it, where it is large they are explained by readings that the "
    "question alone does not suggest. Where the worst k-hat of its candidates is above 0.7, the NLL of that candidate "
    "is not to be believed."
)
ALIGNMENTS_LEAD = (
    "Where the decoder looks in the source (across) for every word of the target (down). The prior has seen the words "
    "before, and is what the model writes by; the exact posterior has seen the target's word too. Where the two "
    "differ, the word tells where it came from."
)
MOST = 3
"""Words that are named as the most looked at."""
BAD = 0.7


def ranking(found: AnswerEvaluation) -> list[Block]:
    """The table, and the reliability curve."""
    rows = [[Cell(measure), Cell(value)] for measure, value in found.rows().items()]
    return [Grid("Ranking and calibration", ["measure", "value"], rows), Pictures([reliability(found.calibration)])]


def reliability(found: BinaryCalibration) -> Picture:
    """Share of right answers against p(y = 1), with intervals."""
    curve = found.curve

    def paint(axis: Axes) -> None:
        axis.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle="--")
        below, above = curve.observed - curve.low, curve.high - curve.observed
        axis.errorbar(
            curve.probability,
            curve.observed,
            yerr=np.maximum(np.stack([below, above]), 0),
            color=SERIES[0],
            marker="o",
            markersize=4.5,
            linewidth=1.2,
            elinewidth=0.8,
        )
        most = min(1.0, 1.1 * max(float(curve.probability.max()), float(curve.high.max())))
        axis.set(xlim=(0, most), ylim=(0, most), xlabel="mean p(y = 1) of a bin", ylabel="share of right answers")

    pairs = "; ".join(f"p {p:.2f}: {o:.2f}" for p, o in zip(curve.probability, curve.observed, strict=True))
    alt = f"Share of right answers by p(y = 1), {len(curve)} bins of {found.pairs:,} pairs: {pairs}."
    caption = f"Calibration error {found.expected_error:.3f}, Brier score {found.brier:.3f}; 95 % intervals by bin"
    return picture(paint, alt, caption, height=3.0)


def questions(found: list[Question]) -> list[Block]:
    """Questions one by one, each a table of candidates."""
    return [Steps("Questions", [_question(one) for one in found])]


def _question(one: Question) -> Step:
    drawn = any(c.spread is not None for c in one.candidates)
    looks = any(c.weights is not None for c in one.candidates)
    titles = ["rank", "p(right)", *(["±", "first"] if drawn else []), "label", "candidate"]
    rows = [_candidate(c, drawn, looks) for c in one.candidates]
    grid = Grid(f"Candidates of question {one.number}", titles + (["most looked at"] if looks else []), rows)
    some = f"{len(rows)} of {one.count}" if len(rows) < one.count else str(one.count)
    lines = [("question", one.text), ("candidates", some)]
    if one.average_precision is not None:
        lines.append(("average precision", f"{one.average_precision:.3f}"))
    return Step(f"Question {one.number:,}: {one.why}", lines, grid=grid)


def _candidate(c: Candidate, drawn: bool, looks: bool) -> list[Cell]:
    row = [whole(c.rank), number(c.probability, 3)]
    if drawn:
        first = np.nan if c.first is None else c.first
        row += [number(np.nan if c.spread is None else c.spread, 3), Cell(f"{first:.0%}", first)]
    row.append(Cell({True: "right", False: "wrong", None: ""}[c.right]))
    if c.weights is None:
        row.append(Cell(" ".join(c.words[:-1]), wide=True))
        return [*row, Cell("")] if looks else row
    weights = c.weights.tolist()
    marked = [Marked(w, float(s), f"{x:.3f}") for w, s, x in zip(c.words, emphasis(c.weights), weights, strict=True)]
    most = np.argsort(-c.weights, kind="stable")[:MOST]
    named = ", ".join(f"{c.words[i]} {weights[i]:.2f}" for i in most)
    return [*row, Cell(" ".join(c.words), wide=True, marked=marked), Cell(named)]


def label_gap(found: LabelGaps) -> list[Block]:
    """How questions differ, and the table with the widest gap first."""
    titles = ["question", "KL", "KL of right", "KL of wrong", "worst k-hat", "candidates", "right", "text"]
    order = np.argsort(-found.kl, kind="stable").tolist()
    rows = [
        [
            whole(int(found.questions[i])),
            number(found.kl[i], 3),
            number(found.kl_right[i], 3),
            number(found.kl_wrong[i], 3),
            number(found.pareto_k[i]),
            whole(int(found.candidates[i])),
            whole(int(found.right[i])),
            Cell(found.texts[i], wide=True),
        ]
        for i in order
    ]
    blocks: list[Block] = [Pictures([_gaps(found), _worst(found)]), Words(_said(found))]
    return [*blocks, Grid("Questions by what their labels say of their reading", titles, rows, True)]


def _said(found: LabelGaps) -> str:
    bad = int((found.pareto_k > BAD).sum())
    sides = [
        f"{np.nanmean(values):.3f} nats by {of} answers"
        for of, values in (("right", found.kl_right), ("wrong", found.kl_wrong))
        if np.isfinite(values).any()
    ]
    return (
        f"The mean over questions is {' and '.join(sides)}; {bad} of {len(found.kl)} questions have a candidate with "
        f"k-hat above {BAD}."
    )


def _gaps(found: LabelGaps) -> Picture:
    def paint(axis: Axes) -> None:
        axis.hist(found.kl, bins=min(30, max(5, len(found.kl) // 2)), color=SERIES[0], rwidth=0.92)
        axis.axvline(float(np.median(found.kl)), color=SERIES[1], linewidth=1.4, label="median")
        axis.set(xlabel="KL(q || p(h | q)) of a question, nats a pair", ylabel="questions")
        axis.legend()

    low, middle, high = np.quantile(found.kl, (0, 0.5, 1))
    alt = f"Histogram of KL by question, {len(found.kl)} of them: {low:.3f} to {high:.3f} nats, median {middle:.3f}."
    return picture(paint, alt, "What labels say of the reading of a question")


def _worst(found: LabelGaps) -> Picture:
    k = np.where(np.isfinite(found.pareto_k), found.pareto_k, np.nan)

    def paint(axis: Axes) -> None:
        bad = k > BAD
        for group, color, label in ((~bad, SERIES[0], "k ≤ 0.7"), (bad, SERIES[1], "k > 0.7")):
            if group.any():
                axis.scatter(found.kl[group], k[group], s=14, color=color, linewidths=0, alpha=0.8, label=label)
        axis.axhline(BAD, color=MUTED, linewidth=1, linestyle="--")
        axis.set(xlabel="KL of a question, nats a pair", ylabel="its worst k-hat")
        axis.legend()

    alt = (
        f"Scatter of {len(k)} questions: worst k-hat by KL; {int((k > BAD).sum())} are above 0.7, the largest is "
        f"{np.nanmax(k, initial=-np.inf):.2f}."
    )
    return picture(paint, alt, "The worst importance weights of a question, by what its labels say")


def alignments(found: list[Alignment]) -> list[Block]:
    """Pairs one by one."""
    steps = []
    for one in found:
        lines = [("source", " ".join(one.source[:-1])), ("target", " ".join(one.target[:-1]))]
        steps.append(Step(f"Pair {one.pair:,}", [*lines, ("written", one.written)], alignment(one)))
    return [Steps("Pairs", steps)]
