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
    scope = Scope(1, len(dreamt), dreamt.population, getattr(model, "plates", 1))
    trace = trace_guide(guide, dreamt, scope, {name: value[None] for name, value in latents.items()})
    log_q: Tensor = sum((scope.log_prob(s) for s in trace.nodes.values() if is_latent(s)), torch.zeros(()))
    return log_q.expand(1, len(dreamt))


@torch.no_grad()
def dream(model: Any, batch: Batch, longest: int = LONGEST) -> tuple[dict[str, Tensor], Batch]:
    """Latents from the prior, `[documents, *event]` by site, and a document written from each.

    The model writes as it is judged: without dropout, by running moments. A bag has as many words as the document in
    whose place it is, as the models of bags are given that number; a sentence has at most `longest`. Labels are not
    written. A model that has `dream(batch)` is asked instead.
    """
    if hasattr(model, "dream"):
        with evaluating(model):
            latents, dreamt = model.dream(batch)
        return latents, dreamt
    text = isinstance(batch, TextBatch)
    latents, sites = _draw(model, batch, unconditioned=not text)
    if isinstance(batch, TextBatch) and hasattr(model, "generate"):
        with evaluating(model):
            ids = model.generate(latents, method="ancestral", max_length=longest)
        return latents, as_batch(ids, ids != PAD, batch)
    observed = [name for name in sites if name not in latents]
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


@torch.no_grad()
def draw_prior(model: Any, batch: Batch) -> dict[str, Tensor]:
    """Latents from the prior, `[documents, *event]` by site; the model in evaluation mode."""
    return _draw(model, batch)[0]


def _draw(model: Any, batch: Batch, unconditioned: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Latents from the prior, and all random sites; what is observed is drawn too where it is `unconditioned`.

    Not of text: a sentence would be drawn word by word from other words' states.
    """
    with evaluating(model):
        trace = poutine.trace(poutine.uncondition(model) if unconditioned else model).get_trace(batch)
    sites: dict[str, Any] = {name: site for name, site in trace.nodes.items() if is_random(site)}
    observed = [n for n, site in sites.items() if site["is_observed"] or site["infer"].get("was_observed")]
    return {name: site["value"] for name, site in sites.items() if name not in observed}, sites


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """A model in evaluation mode, and every part of it as it was afterwards."""
    training = [part for part in model.modules() if part.training] if isinstance(model, nn.Module) else []
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def as_batch(words: Tensor, mask: Tensor, like: TextBatch) -> TextBatch:
    """Written sentences, ids `[B, L]` or points of the simplex `[B, L, V]`, in the place of a batch's own; of no known
    class. What a decoder reads is there for ids only."""
    inputs = words
    if not words.is_floating_point():
        inputs = torch.full_like(words, BOS)
        inputs[:, 1:] = words[:, :-1].masked_fill(words[:, :-1] == EOS, PAD)
    labels = None if like.labels is None else torch.full_like(like.labels, -1)
    attributes = None if like.attributes is None else torch.full_like(like.attributes, -1)
    return like.replace(inputs=inputs, targets=words, mask=mask, labels=labels, attributes=attributes, tags=None)
