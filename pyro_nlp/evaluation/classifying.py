"""Classes of documents by any model, discriminative or generative, judged alike (layer: evaluation).

How p(y | x) is found depends on the model, and is recorded with it (`Classification.how`):

- a discriminative model says it (`class_log_probs`);
- a generative one by Bayes' rule, p(y | x) = p(x, y) / sum_y p(x, y), exact where p(x, y) is (`class_log_joint`, or a
  latent class beside no other latent that cannot be summed);
- beside other latents z, p(x, y) is an importance-weighted estimate for every class, with draws of q(z | x, y); what
  the guide itself says, q(y | x), is kept beside it.

A class is taken for the label where model or guide has seen labels (`supervision` above 0), and for that of the
model's only attribute where it has one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pyro_nlp.data.batches import UNK, Batch, TextBatch
from pyro_nlp.data.corpus import Corpus
from pyro_nlp.data.splits import Split, TextSplit
from pyro_nlp.evaluation.classification import Classification
from pyro_nlp.evaluation.discrete import summable
from pyro_nlp.evaluation.documents import as_float64, batches, device_of, judging
from pyro_nlp.inference.support import one_hot
from pyro_nlp.inference.terms import Scope, terms, trace_guide
from pyro_nlp.inference.training import Precision

DRAWS = 50
"""Of latents beside the class, that p(x, y) is estimated by."""


def judges_classes(model: Any, guide: nn.Module | None, split: Split) -> bool:
    """Whether a model says what class a document is of, and there are labels to hold it against."""
    labels = getattr(split, "labels", None)
    if labels is None or not (np.asarray(labels) >= 0).any():
        return False
    if _says_classes(model):
        return bool(getattr(model, "supervision", 1.0) > 0)
    return getattr(guide, "supervision", 0.0) > 0 and _class_site(model, guide, split) != ""


def classed(model: Any, corpus: Corpus, split: Split) -> tuple[Split, tuple[str, ...]]:
    """A split whose labels are of what a model tells apart, its only attribute where it has one, and their names."""
    own = list(getattr(model, "attributes", {}))
    if len(own) != 1 or own[0] == corpus.attribute or not isinstance(split, TextSplit) or split.attributes is None:
        return split, corpus.labels
    column = list(corpus.attributes).index(own[0])
    labelled = TextSplit(split.flat, split.offsets, split.attributes[:, column], split.tags, split.attributes)
    return labelled, corpus.attributes[own[0]]


def classify(
    model: nn.Module,
    guide: nn.Module | None,
    split: Split,
    *,
    names: Sequence[str] = (),
    samples: int = DRAWS,
    site: str | None = None,
    seed: int = 0,
    batch_size: int = 32,
    chunk: int = 800,
    precision: Precision = "float32",
    known_words: bool = False,
) -> Classification:
    """log p(y | x) of every document, however the model comes by it (see above).

    Example:
        >>> found = classify(run.model, run.guide, corpus.test, names=corpus.labels)  # doctest: +SKIP
        >>> print(found.accuracy, found.calibration().expected_error)  # doctest: +SKIP
        0.81 0.04

    Args:
        model, guide: what is judged.
        split: the documents.
        names: of the classes; numbers where there are none.
        samples: draws per class and document of latents beside the class.
        site: the latent that is the class; None for the only one-hot latent of a document.
        seed: of the draws.
        batch_size: documents taken together.
        chunk: documents x draws at once; bounds the memory.
        precision: of the networks.
        known_words: of text, by a generative model, find log p of the words that are not `<unk>` too, in a second pass.

    Raises:
        TypeError: the model has no class.
        ValueError: the split has labels that the model does not know.
    """
    if samples < 1:
        raise ValueError(f"samples is {samples}; take at least 1")
    scores: list[_Score] = []
    known: list[_Score] = []
    with judging(model, guide, seed, precision):
        if _says_classes(model):
            how = "by the model" if _discriminative(model) else "Bayes' rule, exact"
            scores.extend(_said(model, split, batch_size))
            if known_words and not _discriminative(model) and isinstance(split, TextSplit):
                known.extend(_said(model, split, batch_size, _without_unknown))
        else:
            site = site or _class_site(model, guide, split)
            if not site:
                raise TypeError(
                    f"{type(model).__name__} has no class of a document: give a model with class_log_probs or "
                    "class_log_joint, or with a one-hot latent"
                )
            summed = summable(model, guide, split)
            exact = summed.all and summed.sites == (site,)
            how = "Bayes' rule, exact" if exact else f"Bayes' rule, {samples} importance samples per class"
            take = partial(_weighted, model, guide, split, site, exact, samples, batch_size, chunk)
            scores.extend(take())
            if known_words and isinstance(split, TextSplit):
                known.extend(take(_KnownWords(model)))
    found = _collected(model, split, scores, how, names)
    return replace(found, known_likelihood=np.logaddexp.reduce(_by_row(known, 1, len(split)), 1)) if known else found


_Score = tuple[np.ndarray, Tensor, Tensor | None]
"""Rows, a score of every class, and what the guide says."""


def _without_unknown(batch: Batch) -> Batch:
    """The same text, where no `<unk>` is to be foretold; it is still read."""
    assert isinstance(batch, TextBatch)
    return batch.replace(mask=batch.mask & (batch.targets != UNK))


class _KnownWords:
    """A model that is to foretell the known words alone."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.plates = model, getattr(model, "plates", 1)

    def __call__(self, batch: Batch) -> Any:
        return self.model(_without_unknown(batch))


def _discriminative(model: Any) -> bool:
    return callable(getattr(model, "class_log_probs", None))


def _says_classes(model: Any) -> bool:
    return _discriminative(model) or callable(getattr(model, "class_log_joint", None))


def _class_site(model: Any, guide: nn.Module | None, split: Split) -> str:
    """The only one-hot latent of a document; "" where there is none, or several."""
    summed = summable(model, guide, split)
    if len(summed.sites) == 1:
        return summed.sites[0]
    if guide is None:
        return ""
    batch = split.batch(np.arange(min(2, len(split)))).to(device_of(model))
    with judging(model, guide, 0):
        found = terms(model, guide, batch).sites.items()
    classes = [name for name, of in found if one_hot(of.q) and len(of.q.event_shape) == 1]
    return classes[0] if len(classes) == 1 else ""


def _said(model: Any, split: Split, batch_size: int, only: Callable[[Batch], Batch] = lambda b: b) -> Iterator[_Score]:
    """Rows, and what the model says of their classes, `[B, K]`."""
    for rows, batch in batches(model, split, batch_size):
        says = model.class_log_probs if _discriminative(model) else model.class_log_joint
        yield rows, says(only(batch)), None


def _weighted(
    model: nn.Module,
    guide: nn.Module | None,
    split: Split,
    site: str,
    exact: bool,
    samples: int,
    batch_size: int,
    chunk: int,
    generator: Callable[[Batch], Any] | None = None,
) -> Iterator[_Score]:
    """Rows, log p(x, y) by class and log q(y | x), `[B, K]`; p is that of the `generator`, if one is given."""
    generator = generator or model
    for rows, batch in batches(model, split, max(1, min(batch_size, chunk))):
        said = None
        if guide is not None:
            said = _by_guide(model, guide, batch, site, samples)
        if exact:
            joint = terms(generator, None, batch, marginal=(site,)).joint
            assert joint is not None
            yield rows, joint[0].reshape(-1, len(rows)).T, said
            continue
        assert said is not None
        classes = range(said.shape[-1])
        of_class = [_joint(generator, guide, batch, site, k, len(classes), samples, chunk) for k in classes]
        yield rows, torch.stack(of_class, -1), said


def _by_guide(model: nn.Module, guide: nn.Module, batch: Batch, site: str, samples: int) -> Tensor:
    """log q(y | x), `[B, K]`: the mean over draws of what q(y) depends on, where it depends on a draw."""
    scope = Scope(samples, len(batch), batch.population, getattr(model, "plates", 1))
    q: Any = trace_guide(guide, batch, scope).nodes[site]["fn"]
    said: Tensor = q.logits.log_softmax(-1)
    return said.expand(samples, len(batch), -1).double().logsumexp(0) - math.log(samples)


def _joint(
    model: Callable[[Batch], Any],
    guide: nn.Module | None,
    batch: Batch,
    site: str,
    k: int,
    classes: int,
    samples: int,
    chunk: int,
) -> Tensor:
    """log of the mean of p(x, y = k, z) / q(z | x, y = k) over draws of z, `[B]`."""
    found, wanted = [], samples
    while wanted > 0:
        particles = min(wanted, max(1, chunk // len(batch)))
        given = torch.zeros(particles, len(batch), classes, device=batch.index.device)
        given[..., k] = 1.0
        drawn = terms(model, guide, batch, particles=particles, given={site: given})
        found.append(drawn.log_weight + drawn.sites[site].log_q)
        wanted -= particles
    return torch.cat(found).double().logsumexp(0) - math.log(samples)


def _by_row(scores: list[_Score], which: int, documents: int) -> np.ndarray:
    """One of the tensors of the scores, `[N, K]`."""
    table = np.zeros((documents, scores[0][1].shape[-1]))
    for score in scores:
        table[score[0]] = as_float64(score[which])  # type: ignore[arg-type]
    return table


def _collected(model: Any, split: Split, scores: list[_Score], how: str, names: Sequence[str]) -> Classification:
    joint = _by_row(scores, 1, len(split))
    classes = joint.shape[1]
    guide = None if scores[0][2] is None else _by_row(scores, 2, len(split))
    given = getattr(split, "labels", None)
    labels = np.full(len(split), -1) if given is None else np.asarray(given, np.int64)
    if labels.max(initial=-1) >= classes:
        raise ValueError(
            f"{type(model).__name__} has {classes} classes, and the split the label {labels.max()}: judge it on the "
            f"labels that it was trained with"
        )
    evidence = np.logaddexp.reduce(joint, 1)
    # a class that the corpus has no name for is one of a model with more classes than the corpus
    called = (*names, *map(str, range(len(names), classes)))[:classes]
    tokens, unknown = np.ones(len(split), np.int64), None
    if isinstance(split, TextSplit):
        tokens, unknown = split.lengths, unknown_words(split)
    likelihood = None if _discriminative(model) else evidence
    return Classification(joint - evidence[:, None], labels, how, called, likelihood, tokens, guide, unknown)


def unknown_words(split: TextSplit) -> np.ndarray:
    """How many words of every document are `<unk>`, int64 `[N]`."""
    owner = np.repeat(np.arange(len(split)), split.lengths - 1)
    return np.bincount(owner[split.flat == UNK], minlength=len(split))
