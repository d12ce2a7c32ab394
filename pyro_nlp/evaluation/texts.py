"""What a model writes: samples, reconstructions, interpolations, analogies, filled blanks (layer: evaluation)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pyro import poutine
from pyro.distributions import constraints
from torch import Tensor, nn

from pyro_nlp.data.batches import EOS, PAD, UNK, TextBatch
from pyro_nlp.data.splits import Split, TextSplit
from pyro_nlp.evaluation.documents import device_of, judging
from pyro_nlp.inference.sites import is_latent
from pyro_nlp.inference.terms import terms
from pyro_nlp.nn import BLANK

AT_ONCE = 512
"""Prior samples written together, which bounds the memory; another number gives other draws."""


def sample_prior(model: Any, split: Split, count: int, *, seed: int = 0, **options: Any) -> Tensor:
    """`count` sentences from latents drawn from the prior, ids `[count, L]`; by default ancestral.

    The split only lends the model documents to stand in for: what they say is not used.
    """
    if count < 1:
        raise ValueError(f"{count} samples: there must be at least one")
    options = {"method": "ancestral"} | options
    found = []
    with judging(model, None, seed):
        for start in range(0, count, AT_ONCE):
            rows = np.arange(start, min(start + AT_ONCE, count)) % len(split)
            trace = poutine.trace(model).get_trace(split.batch(rows).to(device_of(model)))
            latents = {name: site["value"] for name, site in trace.nodes.items() if is_latent(site)}
            how_many = {} if latents else {"count": len(rows)}
            found.append(model.generate(latents, **how_many, **options))
    longest = max(written.shape[1] for written in found)
    return torch.cat([F.pad(written, (0, longest - written.shape[1]), value=PAD) for written in found])


def codes(model: nn.Module, guide: nn.Module | None, batch: TextBatch) -> dict[str, Tensor]:
    """Posterior means of the latents of a batch, `[B, *event]` by site; nothing for a model without latents.

    A latent on the unit sphere has a mean inside it, where no draw ever lies: its mean direction stands for it.
    """
    return _places(model, guide, batch)[0]


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
    On the unit sphere the line is the great circle.

    Raises:
        ValueError: an odd number of documents, or a model without latents.
    """
    if len(batch) % 2:
        raise ValueError("interpolation wants an even number of sentences: a beginning and an end each")
    latents, spherical = _places(model, guide, batch)
    if not latents:
        raise ValueError(f"{type(model).__name__} has no latents to interpolate")
    along = torch.linspace(0, 1, steps, device=device_of(model))
    lines = {}
    for name, value in latents.items():
        first, last = value[0::2, None], value[1::2, None]
        weight = along.view(1, steps, *[1] * (value.dim() - 1))
        line = _great_circle(first, last, weight) if name in spherical else first + weight * (last - first)
        lines[name] = line.flatten(0, 1)
    written: Tensor = model.generate(lines, **options)
    return written.unflatten(0, (len(batch) // 2, steps))


def analogy(model: Any, guide: nn.Module | None, batch: TextBatch, **options: Any) -> Tensor:
    """Sentences d of "a is to b as c is to d", written from z = z_b - z_a + z_c; ids `[B/3, L]`, by default greedily.

    Documents 0, 1, 2 and 3, 4, 5 ... of the batch are a, b and c; codes are posterior means. Mikolov et al. 2013
    (NAACL) for words, Shen et al. 2020 (arXiv:1905.12777) for sentences. On the unit sphere z is brought back to
    length 1. A class becomes weights that sum to 1 and may be negative.

    Raises:
        ValueError: a number of documents that three does not divide, or a model without latents.
    """
    if len(batch) % 3:
        raise ValueError(f"analogies want three sentences each, a, b and c: {len(batch)} cannot be divided by 3")
    latents, spherical = _places(model, guide, batch)
    if not latents:
        raise ValueError(f"{type(model).__name__} has no latents to take an analogy in")
    moved = {name: value[1::3] - value[0::3] + value[2::3] for name, value in latents.items()}
    moved |= {name: F.normalize(moved[name], dim=-1) for name in spherical}
    written: Tensor = model.generate(moved, **options)
    return written


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


def _places(model: nn.Module, guide: nn.Module | None, batch: TextBatch) -> tuple[dict[str, Tensor], set[str]]:
    """The codes of a batch, and which of the sites have the unit sphere for a support, in the guide or the model."""
    with judging(model, guide, 0):
        sites = terms(model, guide, batch).sites
        spherical = {name for name, site in sites.items() if _on_sphere(site.q) or _on_sphere(site.p)}
        means = {name: site.q.mean[0] for name, site in sites.items()}
        return means | {name: F.normalize(means[name], dim=-1) for name in spherical}, spherical


def _on_sphere(fn: Any) -> bool:
    try:
        support = fn.support
    except NotImplementedError:  # a distribution of the user's need not say
        return False
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    return support is constraints.sphere


def _great_circle(first: Tensor, last: Tensor, weight: Tensor) -> Tensor:
    """Points of the shorter arc between unit vectors `[..., D]`, at even speed; of opposite ones, of any arc."""
    cosine = (first * last).sum(-1, keepdim=True)
    aside = last - cosine * first
    angle = weight * torch.atan2(aside.norm(dim=-1, keepdim=True), cosine)
    return F.normalize(angle.cos() * first + angle.sin() * F.normalize(aside, dim=-1), dim=-1)
