"""What a model writes: prior samples, reconstructions, interpolations, filled blanks (layer: evaluation)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from pyro import poutine
from torch import Tensor, nn

from pyro_nlp.data.batches import EOS, PAD, UNK, TextBatch
from pyro_nlp.data.splits import Split, TextSplit
from pyro_nlp.evaluation.documents import device_of, judging
from pyro_nlp.inference.terms import terms
from pyro_nlp.nn import BLANK


def sample_prior(model: Any, split: Split, count: int, *, seed: int = 0, **options: Any) -> Tensor:
    """`count` sentences from latents drawn from the prior, ids `[count, L]`; by default ancestral.

    The split only lends the model documents to stand in for: what they say is not used.
    """
    options = {"method": "ancestral"} | options
    rows = np.arange(count) % len(split)
    with judging(model, None, seed):
        trace = poutine.trace(model).get_trace(split.batch(rows).to(device_of(model)))
        latents = {
            name: site["value"]
            for name, site in trace.nodes.items()
            if site["type"] == "sample" and not site["is_observed"] and name != "documents"
        }
        how_many = {} if latents else {"count": count}
        written: Tensor = model.generate(latents, **how_many, **options)
        return written


def codes(model: nn.Module, guide: nn.Module | None, batch: TextBatch) -> dict[str, Tensor]:
    """Posterior means of the latents of a batch, `[B, *event]` by site; nothing for a model without latents."""
    with judging(model, guide, 0):
        return {name: site.q.mean[0] for name, site in terms(model, guide, batch).sites.items()}


def reconstruct(model: Any, guide: nn.Module | None, batch: TextBatch, **options: Any) -> Tensor:
    """Sentences rewritten from their posterior means, ids `[B, L]`; by default greedily."""
    latents = codes(model, guide, batch)
    if not latents:
        raise ValueError(f"{type(model).__name__} has no latents to reconstruct from")
    written: Tensor = model.generate(latents, **options)
    return written


def interpolate(model: Any, guide: nn.Module, batch: TextBatch, steps: int = 7, **options: Any) -> Tensor:
    """Sentences on the straight line between consecutive pairs of documents, both ends included (a homotopy).

    Documents 0 and 1, 2 and 3 ... of the batch are the ends (Bowman et al. 2016, section 5.3); ids `[B/2, steps, L]`.
    """
    if len(batch) % 2:
        raise ValueError("interpolation wants an even number of sentences: a beginning and an end each")
    latents = codes(model, guide, batch)
    if not latents:
        raise ValueError(f"{type(model).__name__} has no latents to interpolate")
    along = torch.linspace(0, 1, steps, device=device_of(model))
    lines = {}
    for name, value in latents.items():
        first, last = value[0::2, None], value[1::2, None]
        weight = along.view(1, steps, *[1] * (value.dim() - 1))
        lines[name] = (first + weight * (last - first)).flatten(0, 1)
    written: Tensor = model.generate(lines, **options)
    return written.unflatten(0, (len(batch) // 2, steps))


def impute(
    model: Any,
    guide: nn.Module | None,
    sentences: Sequence[Sequence[int]],
    *,
    rounds: int = 5,
    beam: int = 10,
) -> list[list[int]]:
    """Fill the blanks (id `BLANK`) of sentences: words by beam search given z, z given the words, until it settles.

    Iterated conditional modes, after Bowman et al. 2016, section 4.1. A model without latents searches once.

    Args:
        model, guide: what fills the blanks.
        sentences: ids without end of sentence, `BLANK` at the missing words.
        rounds: most alternations.
        beam: hypotheses kept.
    """
    filled = [[UNK if w == BLANK else w for w in s] for s in sentences]
    template = _pad([[*s, EOS] for s in sentences])
    for _ in range(rounds):
        batch = TextSplit.from_sentences(filled).batch(np.arange(len(filled))).to(device_of(model))
        latents = codes(model, guide, batch)
        extra = {} if latents else {"count": len(filled)}
        with judging(model, guide, 0):
            written = model.generate(latents, method="beam", beam=beam, template=template.to(device_of(model)), **extra)
        before, filled = filled, [row[: len(s)] for row, s in zip(written.tolist(), sentences, strict=True)]
        if filled == before or not latents:
            break
    return filled


def as_split(ids: Tensor) -> TextSplit:
    """Written sentences `[R, L]` as a split, so that another model can judge them."""
    sentences = []
    for row in ids.tolist():
        end = row.index(EOS) if EOS in row else len(row)
        sentences.append([w for w in row[:end] if w != PAD])
    return TextSplit.from_sentences(sentences)


def to_text(ids: Tensor, decode: Callable[[list[int]], list[str]]) -> list[str]:
    """Written sentences `[R, L]` as lines; `decode` is `vocabulary.decode`."""
    return [" ".join(decode(row)) for row in ids.tolist()]


def _pad(sentences: list[list[int]]) -> Tensor:
    longest = max(len(s) for s in sentences)
    return torch.tensor([s + [PAD] * (longest - len(s)) for s in sentences])
