"""Documents that the model writes, for the sleep phase (layer: inference)."""

from __future__ import annotations

from typing import Any

import torch
from pyro import poutine
from torch import Tensor

from pyro_nlp.data.batches import BOS, EOS, PAD, Batch, TextBatch, VectorBatch
from pyro_nlp.inference.sites import Scope, StructureError, is_latent, is_subsample
from pyro_nlp.inference.terms import trace_guide

LONGEST = 60
"""Words of a dreamt sentence at most, its end counted."""


def dreamt_log_q(model: Any, guide: Any, batch: Batch) -> Tensor:
    """log q(z | x) of latents and documents drawn from the model, `[1, documents]`; the gradient is the guide's."""
    latents, dreamt = dream(model, batch)
    scope = Scope(1, len(batch), batch.population, getattr(model, "plates", 1))
    trace = trace_guide(guide, dreamt, scope, {name: value[None] for name, value in latents.items()})
    return sum((scope.log_prob(site) for site in trace.nodes.values() if is_latent(site)), torch.zeros(1, len(batch)))


@torch.no_grad()
def dream(model: Any, batch: Batch) -> tuple[dict[str, Tensor], Batch]:
    """Latents from the prior, `[documents, *event]` by site, and a document written from each."""
    text = isinstance(
        batch, TextBatch
    )  # unconditioned, a sentence would be drawn word by word from other words' states
    trace = poutine.trace(model if text else poutine.uncondition(model)).get_trace(batch)
    drawn = {n: site["value"] for n, site in trace.nodes.items() if site["type"] == "sample" and not is_subsample(site)}
    observed = [n for n in drawn if trace.nodes[n]["is_observed"] or trace.nodes[n]["infer"].get("was_observed")]
    latents = {name: value for name, value in drawn.items() if name not in observed}
    if isinstance(batch, TextBatch) and hasattr(model, "generate"):
        return latents, _as_batch(model.generate(latents, method="ancestral", max_length=LONGEST), batch)
    if isinstance(batch, VectorBatch) and len(observed) == 1:
        return latents, batch.replace(values=drawn[observed[0]])
    raise StructureError(
        f"{type(model).__name__} cannot write a {type(batch).__name__} to sleep on: give it generate(), or use "
        "WakeSleep(guide='wake')"
    )


def _as_batch(ids: Tensor, like: TextBatch) -> TextBatch:
    """Written sentences `[B, L]` in the place of a batch's own."""
    inputs = torch.full_like(ids, BOS)
    inputs[:, 1:] = ids[:, :-1].masked_fill(ids[:, :-1] == EOS, PAD)
    return like.replace(inputs=inputs, targets=ids, mask=ids != PAD, labels=None)
