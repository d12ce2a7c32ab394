"""Documents that the model writes, for the sleep phase (layer: inference)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_nlp.data.batches import BOS, EOS, PAD, Batch, CountBatch, TextBatch, VectorBatch
from pyro_nlp.inference.sites import Scope, StructureError, is_latent, is_random
from pyro_nlp.inference.terms import trace_guide

LONGEST = 60
"""Words of a dreamt sentence at most, its end counted."""


def dreamt_log_q(model: Any, guide: Any, batch: Batch) -> Tensor:
    """log q(z | x) of latents and documents drawn from the model, `[1, documents]`; the gradient is the guide's."""
    latents, dreamt = dream(model, batch)
    scope = Scope(1, len(batch), batch.population, getattr(model, "plates", 1))
    trace = trace_guide(guide, dreamt, scope, {name: value[None] for name, value in latents.items()})
    log_q: Tensor = sum((scope.log_prob(s) for s in trace.nodes.values() if is_latent(s)), torch.zeros(()))
    return log_q.expand(1, len(batch))


@torch.no_grad()
def dream(model: Any, batch: Batch) -> tuple[dict[str, Tensor], Batch]:
    """Latents from the prior, `[documents, *event]` by site, and a document written from each.

    The model writes as it is judged: without dropout, by running moments. A bag has as many words as the document in
    whose place it is, as the models of bags are given that number. Labels are not written.
    """
    # unconditioned, a sentence would be drawn word by word from other words' states
    text = isinstance(batch, TextBatch)
    with _evaluating(model):
        trace = poutine.trace(model if text else poutine.uncondition(model)).get_trace(batch)
        sites: dict[str, Any] = {name: site for name, site in trace.nodes.items() if is_random(site)}
        observed = [n for n, site in sites.items() if site["is_observed"] or site["infer"].get("was_observed")]
        latents = {name: site["value"] for name, site in sites.items() if name not in observed}
        if isinstance(batch, TextBatch) and hasattr(model, "generate"):
            return latents, _as_batch(model.generate(latents, method="ancestral", max_length=LONGEST), batch)
    if len(observed) == 1:
        written = sites[observed[0]]
        if isinstance(batch, VectorBatch) and written["fn"].event_shape == batch.values.shape[-1:]:
            return latents, batch.replace(values=written["value"])
        if isinstance(batch, CountBatch) and written["fn"].event_shape == batch.counts.shape[-1:]:
            return latents, batch.replace(counts=written["value"], labels=None)
    how = "observe counts [V] at one site alone" if isinstance(batch, CountBatch) else "give it generate()"
    raise StructureError(
        f"{type(model).__name__} cannot write a {type(batch).__name__} to sleep on: {how}, or use "
        "WakeSleep(guide='wake')"
    )


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """A model in evaluation mode, and every part of it as it was afterwards."""
    training = [part for part in model.modules() if part.training] if isinstance(model, nn.Module) else []
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _as_batch(ids: Tensor, like: TextBatch) -> TextBatch:
    """Written sentences `[B, L]` in the place of a batch's own."""
    inputs = torch.full_like(ids, BOS)
    inputs[:, 1:] = ids[:, :-1].masked_fill(ids[:, :-1] == EOS, PAD)
    return like.replace(inputs=inputs, targets=ids, mask=ids != PAD, labels=None)
