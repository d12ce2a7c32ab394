"""The order in which an epoch visits a split: batches of like length, shared by processes (layer: data).

Both functions are pure: a run that resumes in the middle of an epoch asks for the same plan and skips what it
has done, and every process of a `torchrun` computes the same plan and takes its share of each batch.
"""

from __future__ import annotations

import numpy as np

JITTER = 0.05
"""Relative noise on lengths before sorting: neighbours differ between epochs, padding stays small."""


def plan(lengths: np.ndarray, batch_size: int, *, seed: int, epoch: int, shuffle: bool = True) -> list[np.ndarray]:
    """The batches of one epoch, as row numbers; each row occurs once.

    Sentences are sorted by a jittered length and cut into ceil(N / batch_size) consecutive parts whose sizes
    differ by one at most, so that no batch is much smaller (and noisier) than the others.

    Args:
        lengths: length of each document, `[N]`.
        batch_size: documents in a batch, over all processes; parts are never larger.
        seed: with `epoch` it determines the result.
        epoch: number of the epoch, from 0.
        shuffle: False for evaluation: sorted by length exactly, ties in corpus order, parts in that order.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    lengths = np.asarray(lengths)
    parts = -(-len(lengths) // batch_size)
    if parts == 0:
        return []
    if not shuffle:
        return np.array_split(np.argsort(lengths, kind="stable"), parts)
    rng = np.random.default_rng([seed, epoch])
    noise = rng.uniform(-JITTER, JITTER, len(lengths))
    # the uniform term, at most one word, mixes sentences of equal (and short) length
    key = lengths * (1.0 + noise) + rng.random(len(lengths))
    batches = np.array_split(np.argsort(key, kind="stable"), parts)
    return [batches[i] for i in rng.permutation(parts)]


def shard(rows: np.ndarray, rank: int, world: int) -> np.ndarray:
    """The part of one global batch that process `rank` of `world` takes: every `world`-th row.

    Raises ValueError if some process would get nothing: its gradient would be missing from the average.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} is not in 0..{world - 1}")
    if len(rows) < world:
        raise ValueError(
            f"a batch of {len(rows)} cannot be divided between {world} processes; "
            f"use a batch size of at least {2 * world} or fewer processes"
        )
    return rows[rank::world]
