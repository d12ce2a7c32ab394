"""Sites that are known for some documents and not for others (layer: distributions).

The guide's posterior is pinned at the label where there is one. The model is not told: with c at its label, its
log-likelihood and a KL of -log p(label) are what observing c would have given (Kingma et al. 2014b, M2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyro
import torch
from pyro.distributions import Bernoulli, Categorical, OneHotCategorical
from torch import Tensor

from pyro_nlp.data.batches import CountBatch, PairBatch, TextBatch
from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.data.splits import TextSplit

OFF_LABEL = -1e4
"""Logit of every other class: exp() of it is exactly 0, and 0 times it is not NaN, as it would be at -inf."""


class Pinned(OneHotCategorical):
    """A OneHotCategorical that puts everything on the label of those documents whose label is known.

    log q(label) = 0, so KL(q || p) = -log p(label); draws are the label; enumeration gives other classes weight 0;
    temperatures cannot move it. No gradient reaches `logits` there.

    Shapes: logits `[..., B, K]`, known `[B]`, or anything that broadcasts with `[..., B]`.

    Args:
        logits: of the posterior where nothing is known.
        known: the label, or -1 where unknown.

    Attributes:
        known: as given, also after `expand`: it broadcasts with the batch shape.
        inferred: normalised logits before pinning. A classifier learns from labels only through a loss on them,
            such as the alpha log q(label | x) of M2.
    """

    known: Tensor
    inferred: Tensor

    def __init__(self, logits: Tensor, known: Tensor, validate_args: bool | None = None) -> None:
        self.known, self.inferred = known, logits.log_softmax(-1)
        label = known[..., None]
        elsewhere = torch.arange(logits.shape[-1], device=logits.device) != label
        at_label = logits.new_zeros(elsewhere.shape).masked_fill(elsewhere, OFF_LABEL)
        super().__init__(logits=torch.where(label < 0, self.inferred, at_label), validate_args=validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Pinned:
        new = self._get_checked_instance(Pinned, _instance)
        new.known, new.inferred = self.known, self.inferred  # what broadcasts with one shape does with its expansions
        result: Pinned = super().expand(batch_shape, _instance=new)
        return result


def labelled(name: str, fn: OneHotCategorical, labels: Tensor | None) -> Tensor:
    """Open the site `name` in a guide: drawn from `fn`, or at the label where it is known.

    Example:
        >>> with batch.documents():
        ...     c = labelled("c", OneHotCategorical(logits=logits), seen_labels(batch, 0.1))

    Args:
        name: of the site.
        fn: posterior of the unknown, batch shape `[..., B]`.
        labels: class of each document, -1 where unknown, `[B]`; None where none is known.
    """
    if type(fn) is not OneHotCategorical:
        raise ValueError(
            f"site '{name}': found a {type(fn).__name__}; labelled() pins a OneHotCategorical of pyro.distributions: "
            "pass one, one class per document"
        )
    if labels is None:
        free: Tensor = pyro.sample(name, fn)
        return free
    classes = fn.event_shape[0]
    largest = int(labels.max()) if labels.numel() else -1
    if largest >= classes:
        raise ValueError(
            f"site '{name}': found the label {largest}, expected less than the {classes} classes: "
            f"set classes to at least {largest + 1} in model and guide"
        )
    pinned: Tensor = pyro.sample(name, Pinned(fn.logits, labels.expand(fn.batch_shape)))
    return pinned


def seen_labels(batch: TextBatch | CountBatch, share: float) -> Tensor | None:
    """Labels of about `share` of the documents, -1 for the rest, `[B]`; None if `share` is 0.

    Which ones follows from a document's index alone: the same in every epoch, process and run, and the ones seen
    at a share are among those seen at a larger one.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"supervision is a share of the documents, between 0 and 1, not {share}")
    if share == 0:
        return None
    if batch.labels is None:
        raise ValueError(
            f"supervision is {share}, but the corpus has no labels: choose one that has, or set supervision to 0"
        )
    return batch.labels.masked_fill(_uniform(batch.index) >= share, -1)


def seen_tags(batch: TextBatch, share: float, states: int, training: bool) -> Tensor | None:
    """Tags of the words of about `share` of the documents, -1 for the rest, `[B, T]`; None where none is to be seen.

    They are seen in training only: in evaluation the likelihood is that of the words. Which documents follows from
    their index, as in `seen_labels`.

    Args:
        batch: with tags; a word of a seen document without a tag stays unknown.
        share: of the documents, 0 to 1.
        states: of the chain; state k is tag k.
        training: whether the model is.

    Raises:
        ValueError: no tags, or one that is no state.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"supervision is a share of the documents, between 0 and 1, not {share}")
    if share == 0 or not training:
        return None
    if batch.tags is None:
        raise ValueError(
            f"supervision is {share}, but the corpus has no tags: choose one that has (BracketedTrees, or a Treebank "
            "with tags), or set supervision to 0"
        )
    refuse_more_tags(int(batch.tags.max()) + 1 if batch.tags.numel() else 0, states, share)
    return batch.tags.masked_fill((_uniform(batch.index) >= share)[:, None], -1)


def refuse_more_tags(tags: int, states: int, share: float) -> None:
    """Refuse a set of `tags` tags for a chain of fewer states, if a share of them is to be seen."""
    if share and tags > states:
        raise ValueError(
            f"the tag set has {tags} tags and the chain {states} states, and a tag that is seen is a state: set states "
            f"to at least {tags} (--model.states {tags}), or supervision to 0"
        )


def _uniform(index: Tensor) -> Tensor:
    """A number in [0, 1) for each index, by two rounds of multiply and xor-shift on 32 bits."""
    x = index & 0xFFFFFFFF
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = ((x ^ (x >> shift)) * factor) & 0xFFFFFFFF  # int64 wraps; the low 32 bits are right
    return (x ^ (x >> 16)).double() / 2**32


def observe_labels(logits: Tensor, batch: PairBatch) -> None:
    """The site y, observed where a label is known. To be called within the plate of documents."""
    labels = batch.labels if batch.labels is not None else torch.full_like(batch.group, -1)
    known = labels >= 0
    pyro.sample("y", Bernoulli(logits=logits.float()).mask(known), obs=labels.clamp(min=0).float())


def labels_of(batch: TextBatch, classes: int, required: bool = False) -> Tensor:
    """Class of each document, -1 where unknown, `[B]`.

    Args:
        batch: the documents.
        classes: how many there are.
        required: refuse a batch of a corpus without labels.

    Raises:
        ValueError: the corpus has no labels where they are required, or has more classes.
    """
    if batch.labels is None:
        if required:
            raise ValueError("site 'y': the corpus has no labels: choose one that has, such as SST or LabelledLines")
        return torch.full_like(batch.index, -1)
    largest = int(batch.labels.max()) if batch.labels.numel() else -1
    if largest >= classes:
        raise ValueError(
            f"site 'y': found the label {largest}, expected less than the {classes} classes: set the model's classes "
            f"to at least {largest + 1}"
        )
    return batch.labels


def require_labels(model: object, corpus: Any, kind: type[TextSplit | PairSplit]) -> None:
    """Refuse to train a model that learns from labels alone on a corpus whose training split has none.

    A corpus of another kind of data has another error coming, and is let pass.

    Args:
        model: what errors name.
        corpus: what it is to be trained on.
        kind: of split that the model is for.

    Raises:
        ValueError: no label of the training split is known.
    """
    if isinstance(corpus.train, kind) and (corpus.train.labels is None or not (corpus.train.labels >= 0).any()):
        such_as = "SST or LabelledLines"
        if issubclass(kind, PairSplit):
            such_as = "WikiQA or TrecQA, or give every line of your PairFile a third field: 1 if right, 0 if wrong"
        raise ValueError(
            f"{type(model).__name__} learns from labels alone, and nothing that {corpus.called} is to train it on has "
            f"one: choose a corpus that has, such as {such_as}"
        )


def refuse_classes(owner: object, corpus: Any, classes: int, share: float = 1.0) -> None:
    """Refuse to learn from the labels of a corpus that has other classes, or that shows none or not all of them.

    A corpus of another kind of data has another error coming, and is let pass.

    Args:
        owner: what learns, for errors.
        corpus: what it is to be trained on.
        classes: how many it has.
        share: of the training documents whose label is seen; at 0 nothing is refused.

    Raises:
        ValueError: labels that cannot teach the classes.
    """
    if not share or not isinstance(corpus.train, TextSplit):
        return
    names = corpus.labels or tuple(map(str, range(classes)))
    refuse_unseen(owner, corpus, corpus.attribute, corpus.train.labels, names, share)
    named = len(names)
    if named != classes:
        raise ValueError(
            f"{type(owner).__name__} has {classes} classes, and {corpus.called} {named}: set classes to {named}"
        )


def refuse_unseen(
    owner: object, corpus: Any, respect: str, labels: np.ndarray | None, names: Sequence[str], share: float
) -> None:
    """Refuse labels of the training documents, `[N]`, of which none is seen, or none of some class.

    Args:
        owner, corpus: for errors.
        respect: what the labels are classes of.
        labels: -1 where unknown; None where none is known.
        names: of the classes.
        share: of the documents whose label is seen.

    Raises:
        ValueError: no label, or a class without one.
    """
    known = np.zeros(0, np.int64) if labels is None else labels[(_uniform(torch.arange(len(labels))) < share).numpy()]
    counts = np.bincount(known[known >= 0], minlength=len(names))
    if counts.any() and counts.all():
        return
    missing = f"of the class '{names[int(counts.argmin())]}'" if counts.any() else "at all"
    cure = ", or more supervision" if share < 1 else ""
    if labels is None or not (labels >= 0).any():
        cure = ", or set supervision to 0 and leave KnownLabels out" if hasattr(owner, "supervision") else ""
    raise ValueError(
        f"{type(owner).__name__} wants labels of '{respect}', and sees none {missing} in the train split of "
        f"{corpus.called}: choose a corpus that has them{cure}"
    )


def observe_class(logits: Tensor, labels: Tensor) -> None:
    """The site y, observed where a label is known: logits `[B, K]` or `[K]`. To be called within the plate of
    documents."""
    pyro.sample("y", Categorical(logits=logits.float()).mask(labels >= 0), obs=labels.clamp(min=0))
