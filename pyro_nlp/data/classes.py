"""Whether a corpus can teach a classifier at all (layer: data)."""

from __future__ import annotations

from typing import Any

import numpy as np

from pyro_nlp.data.corpus import Corpus, CorpusError


def class_counts(split: Any, classes: int) -> np.ndarray:
    """Documents of every class, int64 `[classes]`; those of unknown class are not counted."""
    labels = getattr(split, "labels", None)
    known = np.zeros(0, np.int64) if labels is None else np.asarray(labels)
    return np.bincount(known[known >= 0], minlength=classes)


def require_classes(corpus: Corpus, where: str | None = None) -> None:
    """Refuse a corpus whose training split cannot tell classes apart.

    Args:
        corpus: with labels.
        where: what errors call it; None for its own name.

    Raises:
        CorpusError: no label is known anywhere, there is one class only, or a class of valid or test never occurs in
            train.
    """
    name = where or corpus.called
    counts = {split: class_counts(getattr(corpus, split), len(corpus.labels)) for split in ("train", "valid", "test")}
    if not sum(int(count.sum()) for count in counts.values()):
        raise CorpusError(f"{name}: no document has a label; choose a corpus with labels, or a model that needs none")
    if len(corpus.labels) == 1:
        raise CorpusError(
            f"{name}: all documents with a label are of one class, {corpus.labels[0]!r}; give text of at least two "
            "classes"
        )
    for split in ("valid", "test"):
        missing = np.flatnonzero((counts[split] > 0) & (counts["train"] == 0))
        if len(missing):
            label = corpus.labels[missing[0]]
            raise CorpusError(
                f"{name}: the class {label!r} stands in {split} ({counts[split][missing[0]]} documents) and never in "
                f"train; add training text of it, or take it out"
            )
