"""How well a grammar's trees agree with a treebank's, beside trees that need no grammar (layer: evaluation)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import nn

from pyro_nlp.data.parsed_trees import TreeSplit
from pyro_nlp.data.splits import Split
from pyro_nlp.evaluation.measured import Measured
from pyro_nlp.evaluation.parsing import (
    ParsingScores,
    Spans,
    binarise,
    compare_parses,
    left_branching,
    parses,
    random_tree,
    right_branching,
    score_parses,
)

PLAIN: dict[str, Callable[[Spans, int, np.random.Generator], Spans]] = {
    "right branching": lambda gold, length, rng: right_branching(length),
    "left branching": lambda gold, length, rng: left_branching(length),
    "random trees": lambda gold, length, rng: random_tree(length, rng),
    "best binary trees": lambda gold, length, rng: binarise(gold, length),
}
"""Trees that need no grammar; the last, by the gold ones, are the most that binary trees can reach."""


@dataclass(frozen=True)
class ParsingEvaluation(Measured):
    """What is known of the trees of a grammar on one split.

    Attributes:
        scores: of the likeliest trees.
        plain: of trees that need no grammar, by name (`PLAIN`).
    """

    scores: ParsingScores
    plain: dict[str, ParsingScores]

    def rows(self) -> dict[str, str]:
        """Measure and value, as printed."""
        rows = self.scores.table()
        rows |= {f"sentence F1 of {name}": f"{scores.f1:.4f}" for name, scores in self.plain.items()}
        return rows | {"over right branching": str(compare_parses(self.scores, self.plain["right branching"]))}

    def as_dict(self) -> dict[str, Any]:
        """Numbers for JSON; sentence by sentence they are left out."""
        found: dict[str, Any] = {"sentences": len(self.scores), "recall": self.scores.recall}
        found |= {name: _numbers(scores) for name, scores in {"grammar": self.scores, **self.plain}.items()}
        return found | {"over right branching": asdict(compare_parses(self.scores, self.plain["right branching"]))}


def induces_trees(model: Any, split: Split) -> bool:
    """Whether a model finds trees, and there are gold ones of two words and more to hold them against."""
    return callable(getattr(model, "parse", None)) and isinstance(split, TreeSplit) and bool((split.lengths > 2).any())


def evaluate_parses(model: nn.Module, guide: nn.Module | None, split: TreeSplit, *, seed: int = 0) -> ParsingEvaluation:
    """F1 of the likeliest trees by the protocol of `evaluation.parsing`, and of trees that need no grammar.

    Args:
        model, guide: what is judged; the grammar of a sentence is that of the posterior mean.
        split: sentences with their gold constituents.
        seed: of the random trees.
    """
    lengths, rng = (split.lengths - 1).tolist(), np.random.default_rng(seed)
    plain = {
        name: [make(gold, length, rng) for gold, length in zip(split.gold, lengths, strict=True)]
        for name, make in PLAIN.items()
    }
    return ParsingEvaluation(
        score_parses(parses(model, guide, split), split.gold, lengths),
        {name: score_parses(trees, split.gold, lengths) for name, trees in plain.items()},
    )


def _numbers(scores: ParsingScores) -> dict[str, float | None]:
    """The three forms of F1; None where there is none."""
    found = {"f1": scores.f1, "f1_with_gold": scores.f1_with_gold, "corpus_f1": scores.corpus_f1}
    return {name: None if np.isnan(value) else value for name, value in found.items()}
