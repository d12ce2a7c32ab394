"""How well the states of a chain agree with the tags of a treebank (layer: evaluation)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import nn

from pyro_nlp.data.batches import TextBatch
from pyro_nlp.data.splits import Split, TextSplit
from pyro_nlp.evaluation.clustering import many_to_one, v_measure
from pyro_nlp.evaluation.documents import batches, judging
from pyro_nlp.evaluation.measured import Measured


@dataclass(frozen=True)
class TaggingEvaluation(Measured):
    """What is known of the likeliest states (Viterbi) of a split's words.

    Attributes:
        words: that have a tag.
        states: different ones that were used.
        tags: different ones that there are.
        many_to_one: accuracy when every state stands for its commonest tag, 0 to 1; it rises with the states.
        one_state: the same of a single state, the share of the commonest tag.
        v_measure: see `clustering`, 0 to 1.
        accuracy: where tags were seen in training, and a state is a tag; None elsewhere.
    """

    words: int
    states: int
    tags: int
    many_to_one: float
    one_state: float
    v_measure: float
    accuracy: float | None

    def rows(self) -> dict[str, str]:
        """Measure and value, as printed."""
        rows = {"words": f"{self.words:,}", "states used": f"{self.states} for {self.tags} tags"}
        if self.accuracy is not None:
            rows["accuracy"] = f"{self.accuracy:.4f}"
        rows["many-to-one accuracy"] = f"{self.many_to_one:.4f}"
        rows["... of one state for all words"] = f"{self.one_state:.4f}"
        return rows | {"V-measure": f"{self.v_measure:.4f}"}

    def as_dict(self) -> dict[str, Any]:
        """Numbers for JSON."""
        return asdict(self)


def tags_words(model: Any, split: Split) -> bool:
    """Whether a model finds a state of every word, and there are tags to hold them against."""
    tagged = isinstance(split, TextSplit) and split.tags is not None and bool((split.tags >= 0).any())
    return tagged and callable(getattr(model, "viterbi", None))


def tagged(model: Any, split: TextSplit, viterbi: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """State and tag of every word that has a tag: states of the likeliest sequence, or each the likeliest by itself."""
    states, tags = [], []
    with judging(model, None, 0):
        for _, batch in batches(model, split, 256):
            assert isinstance(batch, TextBatch) and batch.tags is not None
            found = model.viterbi(batch)[0] if viterbi else model.marginals(batch).argmax(-1)
            scored = batch.tags >= 0
            states.append(found[scored].cpu().numpy())
            tags.append(batch.tags[scored].cpu().numpy())
    return np.concatenate(states), np.concatenate(tags)


def evaluate_tags(model: nn.Module, split: TextSplit) -> TaggingEvaluation:
    """Many-to-one accuracy and V-measure of the likeliest states, and accuracy where the model has seen tags.

    Example:
        >>> print(evaluate_tags(run.model, corpus.test).many_to_one)  # doctest: +SKIP
        0.61
    """
    states, tags = tagged(model, split)
    seen = float(getattr(model, "supervision", 0.0)) > 0
    return TaggingEvaluation(
        words=len(tags),
        states=len(np.unique(states)),
        tags=len(np.unique(tags)),
        many_to_one=many_to_one(states, tags),
        one_state=many_to_one(np.zeros_like(tags), tags),
        v_measure=v_measure(states, tags),
        accuracy=float((states == tags).mean()) if seen else None,
    )
