"""How well a model answers questions: ranking and calibration, in one table beside `report`'s (layer: evaluation)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy
from torch import nn

from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.data.splits import Split
from pyro_nlp.evaluation.answers import score_pairs
from pyro_nlp.evaluation.binary import BinaryCalibration, binary_calibration
from pyro_nlp.evaluation.measured import Measured
from pyro_nlp.evaluation.ranking import Ranking, rank_questions
from pyro_nlp.inference.training import Precision

DRAWS = 100
"""Of a latent reading, that p(y = 1) is the mean over."""


def is_ranker(model: Any, split: Split) -> bool:
    """Whether a model says of pairs whether they are right, and the pairs are questions with their candidates."""
    return callable(getattr(model, "scores", None)) and isinstance(split, PairSplit)


def judges_answers(model: Any, split: Split) -> bool:
    """Whether there is something to hold a ranker against: pairs with a label."""
    known = getattr(split, "labels", None)
    return is_ranker(model, split) and known is not None and bool((known >= 0).any())


@dataclass(frozen=True)
class AnswerEvaluation(Measured):
    """What is known of a ranker on one split.

    Attributes:
        ranking: of the questions with a right answer (`keep="right"`), by the log-odds at the mean reading; None where
            no question has one.
        calibration: of p(y = 1), the mean over draws of the reading.
        questions: all that have a pair with a label.
        draws: that p(y = 1) is the mean over; nothing to a model without latents.
    """

    ranking: Ranking | None
    calibration: BinaryCalibration
    questions: int
    draws: int

    def rows(self) -> dict[str, str]:
        """Measure and value, as printed."""
        if self.ranking is None:
            rows = {"ranking": f"none of {self.questions} questions has a right answer"}
        else:
            rows = {name: str(interval) for name, interval in self.ranking.intervals().items()}
            rows["questions with a right answer"] = self._kept()
            if self.ranking.tied:
                rows["ties of right and wrong"] = f"in {self.ranking.tied} questions"
        return rows | {"pairs with a label": f"{self.calibration.pairs:,}"} | self.calibration.rows()

    def _kept(self) -> str:
        """How many questions are ranked, and how many are not."""
        assert self.ranking is not None
        left = [(self.ranking.without_right, "without a right answer"), (self.ranking.unjudged, "without a label")]
        out = [f"{count} {why}" for count, why in left if count]
        return f"{len(self.ranking)}" + (f"; left out: {', '.join(out)}" if out else "")

    def as_dict(self) -> dict[str, Any]:
        """Numbers for JSON; question by question they are left out."""
        found: dict[str, Any] = {"ranking": None, "questions": self.questions, "draws": self.draws}
        if self.ranking is not None:
            counts = ("keep", "without_right", "without_wrong", "unjudged", "unknown", "tied")
            measures = {name: asdict(value) for name, value in self.ranking.intervals().items()}
            ranked = {"questions": len(self.ranking)} | {name: getattr(self.ranking, name) for name in counts}
            found["ranking"] = measures | ranked
        judged = {name: value for name, value in vars(self.calibration).items() if name != "curve"}
        curve = {name: value.tolist() for name, value in vars(self.calibration.curve).items()}
        return found | {"calibration": judged | {"curve": curve}}


def evaluate_answers(
    model: nn.Module, split: Split, *, draws: int = DRAWS, seed: int = 0, precision: Precision = "float32"
) -> AnswerEvaluation:
    """Rank the candidates of every question, and judge the probability of a right answer.

    Example:
        >>> found = evaluate_answers(run.model, corpus.test)  # doctest: +SKIP
        >>> print(found.ranking.map, found.calibration.brier)  # doctest: +SKIP
        0.62 0.15

    Args:
        model: with `scores(batch, draws)`, as `NASM` and `AnswerMatcher`.
        split: the pairs, all of a question's among them.
        draws: of a latent reading, that p(y = 1) is the mean over.
        seed: of the draws.
        precision: of the networks.

    Raises:
        TypeError: a model without `scores`, or a split that is not of pairs.
        ValueError: no pair has a label.
    """
    at_mean = score_pairs(model, split, seed=seed, precision=precision)
    assert isinstance(split, PairSplit)  # as `score_pairs` has seen
    labels = split.labels if split.labels is not None else np.full(len(split), -1)
    calibration = binary_calibration(
        scipy.special.expit(score_pairs(model, split, draws, seed=seed, precision=precision)), labels
    )
    answered = len(split.answered) > 0
    ranking = rank_questions(at_mean, labels, split.group, keep="right") if answered else None
    questions = len(np.unique(split.group[labels >= 0]))
    return AnswerEvaluation(ranking, calibration, questions, draws)
