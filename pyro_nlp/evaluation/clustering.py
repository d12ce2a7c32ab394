"""How well clusters agree with classes: of words under tags, or of documents under labels (layer: evaluation).

Both measures take integers of any shape, one of each per thing that was clustered, and are the same however clusters
and classes are numbered. What has no class (-1) is left out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def many_to_one(clusters: ArrayLike, labels: ArrayLike) -> float:
    """Accuracy, 0 to 1, when every cluster stands for the class that is commonest in it.

    Also called purity. It rises with the number of clusters, and is 1 when each thing is its own: compare at equal
    numbers of clusters only.
    """
    table = _contingency(clusters, labels)
    return float(table.max(1).sum() / table.sum())


def v_measure(clusters: ArrayLike, labels: ArrayLike) -> float:
    """Harmonic mean of homogeneity and completeness, 0 to 1.       Rosenberg and Hirschberg 2007 (EMNLP-CoNLL)

    Homogeneity is 1 - H(class | cluster) / H(class), completeness 1 - H(cluster | class) / H(cluster); either is 1
    where its denominator is 0.
    """
    table = _contingency(clusters, labels)
    joint = _entropy(table)
    of_clusters, of_labels = _entropy(table.sum(1)), _entropy(table.sum(0))
    shared = max(of_clusters + of_labels - joint, 0.0)
    homogeneity = shared / of_labels if of_labels else 1.0
    completeness = shared / of_clusters if of_clusters else 1.0
    total = homogeneity + completeness
    return 2 * homogeneity * completeness / total if total else 0.0


def _contingency(clusters: ArrayLike, labels: ArrayLike) -> np.ndarray:
    """How many things are in cluster i and class j, `[clusters, classes]`."""
    found, wanted = np.asarray(clusters), np.asarray(labels)
    if found.shape != wanted.shape:
        raise ValueError(
            f"clusters {found.shape} and labels {wanted.shape} differ in shape: give one of each per thing"
        )
    known = wanted >= 0
    if not known.any():
        raise ValueError("nothing has a class: there is nothing to compare the clusters with")
    rows, row = np.unique(found[known], return_inverse=True)
    columns, column = np.unique(wanted[known], return_inverse=True)
    flat = np.bincount(row * len(columns) + column, minlength=len(rows) * len(columns))
    return flat.reshape(len(rows), len(columns))


def _entropy(counts: np.ndarray) -> float:
    """Of the distribution in proportion to the counts, in nats."""
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())
