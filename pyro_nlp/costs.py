"""What a strategy costs, before it is trained (layer: recipe)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pyro_nlp.data.batches import Batch, TextBatch
from pyro_nlp.data.splits import Split
from pyro_nlp.inference import Objective

FEW = 4
"""Documents of the smaller of the two passes that memory is extrapolated from."""


def model_evaluations(objective: Objective) -> int:
    """Times the model's likelihood is evaluated per document and step, at most: values of all sites together x
    particles, and what the updates make of it."""
    once = math.prod(objective.rows.values()) * objective.strategy.bound.particles
    return objective.strategy.updates.evaluations(once)


@dataclass(frozen=True)
class Activations:
    """An estimate of what a forward pass keeps for the backward pass.

    Attributes:
        bytes: of a batch of `documents`, padded to `positions` in all.
        documents: in the batch.
        positions: places of words, padding counted; 0 for data that are not text.
    """

    bytes: int
    documents: int
    positions: int


def activations(objective: Objective, split: Split, batch_size: int) -> Activations:
    """Estimate the memory that a training batch needs besides parameters, their gradients and the optimiser's state.

    What a pass on a few documents saves is counted, and again on twice as many; a line through both gives the batch.
    """
    batch = split.batch(np.arange(min(batch_size, len(split))))
    device = next(objective.parameters()).device
    few, more = (split.batch(np.arange(min(n, len(batch)))).to(device) for n in (FEW, 2 * FEW))
    first, second = (saved_bytes(objective, b) for b in (few, more))
    width = _size(more) - _size(few)
    slope = (second - first) / width if width > 0 else 0.0
    positions = batch.mask.numel() if isinstance(batch, TextBatch) else 0
    return Activations(round(second + slope * (_size(batch) - _size(more))), len(batch), positions)


def saved_bytes(objective: Objective, batch: Batch) -> int:
    """Bytes that autograd keeps of one pass; parameters and buffers are not counted, and nothing is counted twice."""
    own = {t.untyped_storage().data_ptr() for t in (*objective.parameters(), *objective.buffers())}
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    learnt = objective.state.training
    objective.state.eval()  # baselines learn nothing here
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, _same):
        loss = objective(batch)  # holds what was saved, so that no address is used twice
    del loss
    objective.last = None
    objective.state.train(learnt)
    return sum(seen.values())


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _size(batch: Batch) -> int:
    return batch.mask.numel() if isinstance(batch, TextBatch) else len(batch)


def in_words(size: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
