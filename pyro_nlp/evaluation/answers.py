"""Scores of candidate answers by a model of pairs, whole questions at a time (layer: evaluation)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.data.splits import Split
from pyro_nlp.evaluation.documents import as_float64, device_of, judging
from pyro_nlp.inference.training import Precision


def score_pairs(
    model: nn.Module,
    split: Split,
    draws: int = 0,
    *,
    seed: int = 0,
    batch_size: int = 128,
    chunk: int = 4096,
    precision: Precision = "float32",
) -> np.ndarray:
    """log p(y = 1) / p(y = 0) of every pair, in corpus order, float64 `[N]`: what `rank_questions` ranks by.

    Its sigmoid is the probability for `binary_calibration`; ranking by that instead makes ties, as near 1 floats are
    far apart. The candidates of a question are scored together, so that it is read once, and all of them by the same
    draws of its reading: a ranking under one reading is consistent.

    Example:
        >>> found = score_pairs(run.model, corpus.test)  # doctest: +SKIP
        >>> print(rank_questions(found, corpus.test.labels, corpus.test.group).map)  # doctest: +SKIP
        0.62

    Args:
        model: with `scores(batch, draws)`, log-odds `[draws, B]` first of what it gives, as `NASM` and `AnswerMatcher`.
        split: the pairs.
        draws: 0 takes a latent reading at its mean; else the probability is averaged over so many draws of it, which is
            p(y | q, a) but for their noise. Nothing to a model without latents.
        seed: of the draws, which depend on `batch_size` and `chunk` too.
        batch_size: pairs in a batch; a question with more is one alone.
        chunk: pairs x draws scored at once; bounds the memory.
        precision: of the networks; probabilities are averaged in float64.

    Raises:
        TypeError: a model without `scores`, or a split that is not of pairs.
        ValueError: scores of another shape, or numbers out of range.
    """
    scores = getattr(model, "scores", None)
    if not callable(scores):
        raise TypeError(
            f"{type(model).__name__} has no scores(batch, draws): only a model of whether a pair is right can rank "
            f"answers, such as NASM or AnswerMatcher"
        )
    if not isinstance(split, PairSplit):
        raise TypeError(f"a {type(split).__name__} has no candidates to score: give a PairSplit")
    if draws < 0 or batch_size < 1 or chunk < 1:
        raise ValueError(
            f"draws is {draws}, batch_size {batch_size} and chunk {chunk}; draws are at least 0, the others 1"
        )
    found, device = np.zeros(len(split)), device_of(model)
    with judging(model, None, seed, precision):
        for rows in whole_questions(split, batch_size):
            found[rows] = as_float64(_log_odds(scores, split.batch(rows).to(device), draws, chunk))
    return found


def whole_questions(split: PairSplit, batch_size: int) -> Iterator[np.ndarray]:
    """Rows of every pair once, int64: all of a question in one part, questions of like length together.

    A part has at most `batch_size` pairs, unless its one question has more. First texts without a pair are passed over.
    """
    order = np.argsort(split.group, kind="stable")
    sizes = np.bincount(split.group)
    parts = [part for part in np.split(order, np.cumsum(sizes)[:-1]) if len(part)]
    parts.sort(key=lambda part: int(split.lengths[part].max()))
    held: list[np.ndarray] = []
    count = 0
    for part in parts:
        if held and count + len(part) > batch_size:
            yield np.concatenate(held)
            held, count = [], 0
        held.append(part)
        count += len(part)
    if held:
        yield np.concatenate(held)


def _log_odds(scores: Callable[..., Any], batch: Any, draws: int, chunk: int) -> Tensor:
    """Of the mean probability over draws, float64 `[B]`."""
    found: list[Tensor] = []
    wanted = max(1, draws)
    while wanted > 0:
        asked = min(wanted, max(1, chunk // len(batch)))
        given: Tensor = scores(batch, asked if draws else 0)[0]
        if given.dim() != 2 or given.shape[1] != len(batch) or len(given) not in (1, asked):
            raise ValueError(
                f"scores gives {list(given.shape)} for {asked} draws of {len(batch)} pairs; it should be "
                f"[{asked}, {len(batch)}], or [1, {len(batch)}] where there is nothing to draw"
            )
        found.append(given.double())
        if len(given) < asked:  # nothing is drawn
            break
        wanted -= asked
    logits = torch.cat(found)
    if len(logits) == 1:
        return logits[0]
    return logsigmoid(logits).logsumexp(0) - logsigmoid(-logits).logsumexp(0)
