"""The candidates of a question one by one: how likely each is, how sure its rank is, where it was looked at
(layer: evaluation)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.data.splits import Split
from pyro_nlp.evaluation.answers import whole_questions
from pyro_nlp.evaluation.documents import as_float64, device_of, judging
from pyro_nlp.inference.training import Precision

DRAWS = 100
TIE = 1e-6
"""Relative difference of log-odds that float32 cannot tell from none."""


@dataclass(frozen=True)
class Candidates:
    """The C candidates of one question, in the order of the split.

    Attributes:
        rows: which pairs they are, int64 `[C]`.
        probability: p(y = 1 | q, a), the mean over draws of the reading, `[C]`.
        spread: its standard deviation over draws, `[C]`; None where nothing is drawn.
        first: share of the draws in which it stands first, equals sharing the place, `[C]`; None likewise.
        where: weights of its words and its end of sentence, the mean over draws, `[length]` each; None where the model
            does not look.
    """

    rows: np.ndarray
    probability: np.ndarray
    spread: np.ndarray | None
    first: np.ndarray | None
    where: list[np.ndarray] | None

    @property
    def order(self) -> np.ndarray:
        """Candidates by their probability, the highest first, int64 `[C]`."""
        return np.argsort(-self.probability, kind="stable")


def emphasis(weights: np.ndarray) -> np.ndarray:
    """How strongly to mark where a model looks, from weights that add up to one: 0 to 1, `[length]`.

    0 for an even share or less, 1 where all is on one word; a root between, so that a third part can be seen. Attention
    that looks everywhere alike marks nothing.
    """
    even = 1 / max(len(weights), 2)
    return np.sqrt(np.clip((weights - even) / (1 - even), 0, 1))


def read_candidates(
    model: nn.Module,
    split: Split,
    draws: int = DRAWS,
    *,
    seed: int = 0,
    chunk: int = 4096,
    precision: Precision = "float32",
) -> list[Candidates]:
    """Judge the candidates of every question under draws of its latent reading, the same for all of them.

    The spread over draws is what the model is unsure of *in the question*; how sure its parameters are is not in it.

    Example:
        >>> (found,) = read_candidates(run.model, one_question)  # doctest: +SKIP
        >>> found.probability[found.order], found.first[found.order]  # doctest: +SKIP

    Args:
        model: with `scores(batch, draws)`, log-odds `[draws, B]` and where it looked, `[draws, B, T]` or None.
        split: the pairs.
        draws: of the reading; nothing to a model without latents.
        seed: of the draws.
        chunk: pairs x draws scored at once; bounds the memory.
        precision: of the networks.

    Returns:
        One for each question that has pairs, in the order of the questions.

    Raises:
        TypeError: a model without `scores`, or a split that is not of pairs.
        ValueError: fewer than two draws.
    """
    if not callable(getattr(model, "scores", None)) or not isinstance(split, PairSplit):
        raise TypeError(f"{type(model).__name__} on a {type(split).__name__}: there are no candidates to rank")
    if draws < 2:
        raise ValueError(f"draws is {draws}; a spread wants two or more")
    found: dict[int, Candidates] = {}
    with judging(model, None, seed, precision):
        for rows in whole_questions(split, 1):  # a question at a time: its draws do not depend on the others' sizes
            rows = np.sort(rows)
            found[int(split.group[rows[0]])] = _read(model, split, rows, draws, chunk)
    return [found[question] for question in sorted(found)]


def _read(model: nn.Module, split: PairSplit, rows: np.ndarray, draws: int, chunk: int) -> Candidates:
    batch = split.batch(rows).to(device_of(model))
    logits: list[Tensor] = []
    looked: Tensor | None = None
    wanted = draws
    while wanted > 0:
        asked = min(wanted, max(2, chunk // len(rows)))  # one would not show whether it is drawn
        log_odds, where = model.scores(batch, asked)  # type: ignore[operator]
        logits.append(log_odds.double())
        if where is not None:
            looked = where.double().sum(0) + (0 if looked is None else looked)
        if len(log_odds) < asked:  # nothing is drawn
            break
        wanted -= asked
    drawn = torch.cat(logits)
    lengths = batch.second.lengths.tolist()
    attention = None
    if looked is not None:
        attention = [row[:n] for row, n in zip(as_float64(looked / len(drawn)), lengths, strict=True)]
    p = drawn.sigmoid()
    if len(drawn) < draws:
        return Candidates(rows, as_float64(p[0]), None, None, attention)
    most = drawn.max(1, keepdim=True).values
    ahead = (drawn >= most - TIE * most.abs().clamp(min=1)).double()
    first = (ahead / ahead.sum(1, keepdim=True)).mean(0)
    return Candidates(rows, as_float64(p.mean(0)), as_float64(p.std(0)), as_float64(first), attention)
