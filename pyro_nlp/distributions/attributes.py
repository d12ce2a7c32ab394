"""Attributes of documents: classes in several respects, each a site (layer: distributions)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pyro_nlp.data.batches import TextBatch
from pyro_nlp.distributions.labelled import seen_labels

TAKEN = ("z", "x", "documents")
"""Names that a model of attributes has for other sites."""


def refuse_attributes(attributes: Mapping[str, int]) -> dict[str, int]:
    """The attributes, number of classes by name, if they can be sites.

    Raises:
        ValueError: none, a name that cannot be a site's, or fewer than two classes.
    """
    if not attributes:
        raise ValueError("attributes is empty: name at least one, with its number of classes, as in {sentiment: 2}")
    for name, classes in attributes.items():
        if name in TAKEN or "." in name:
            raise ValueError(
                f"an attribute cannot be called '{name}': the model has a site of that name, or it has a dot"
            )
        if classes < 2:
            raise ValueError(f"attribute '{name}' has {classes} classes: there are at least two")
    return dict(attributes)


def columns_of(attributes: Mapping[str, int], corpus: Any) -> list[int]:
    """Where the attributes stand among those of a corpus.

    Raises:
        ValueError: the corpus has no such attribute, or one of another number of classes.
    """
    known = corpus.attributes
    for name, classes in attributes.items():
        if name not in known:
            if not known:
                raise ValueError(
                    f"{corpus.called} has no labels, so no '{name}': choose a labelled corpus, such as SST"
                )
            there = ", ".join(f"'{a}'" for a in known)
            raise ValueError(
                f"{corpus.called} has no attribute '{name}'; it has {there}: set attributes of model and guide"
            )
        if len(known[name]) != classes:
            raise ValueError(
                f"attribute '{name}' has {len(known[name])} classes in {corpus.called} ({', '.join(known[name])}), and "
                f"{classes} in the model: set attributes of model and guide"
            )
    return [list(known).index(name) for name in attributes]


def seen_attribute(batch: TextBatch, column: int, share: float) -> Tensor | None:
    """Classes of about `share` of the documents in one respect, -1 for the rest, `[B]`; None where none is to be seen.

    Args:
        batch: with attributes, or with labels, which are attribute 0.
        column: which attribute.
        share: see `seen_labels`.
    """
    if batch.attributes is None or not share:
        return seen_labels(batch, share)
    return seen_labels(batch.replace(labels=batch.attributes[:, column]), share)
