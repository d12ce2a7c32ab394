"""What `pyro-nlp generate` shows of a model of documents: topics, and the documents nearest to each (layer: cli)."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from pyro_nlp.data.counts import CountSplit
from pyro_nlp.evaluation import theta, top_words
from pyro_nlp.inference.fit import Run

KINDS = ("topics", "nearest")


def topics(options: argparse.Namespace, run: Run, corpus: Any) -> list[dict[str, Any]]:
    """The likeliest words of each topic with their probabilities, topics by their share of the test documents."""
    beta = np.asarray(run.model.topics().detach().cpu(), np.float64)  # type: ignore[operator]
    share = _shares(run, corpus).mean(0)
    best = top_words(beta, min(options.words, beta.shape[1]))
    return [
        {
            "topic": k,
            "share": round(float(share[k]), 3),
            "words": ", ".join(
                f"{word} {beta[k, i]:.2g}" for word, i in zip(corpus.vocabulary.decode(best[k]), best[k], strict=True)
            ),
        }
        for k in _first(share, options.count)
    ]


def nearest(options: argparse.Namespace, run: Run, corpus: Any) -> list[dict[str, Any]]:
    """The test documents with the largest share of each topic, by label and most frequent words."""
    shares, split = _shares(run, corpus), corpus.test
    found = []
    for k in _first(shares.mean(0), options.count):
        for document in np.argsort(-shares[:, k], kind="stable")[:3]:
            known = split.labels is not None and corpus.labels and split.labels[document] >= 0
            label = corpus.labels[split.labels[document]] if known else ""
            row = {"topic": k, "share": round(float(shares[document, k]), 3), "document": int(document), "label": label}
            found.append(row | {"words": _frequent(corpus, int(document), options.words)})
    return found


def _shares(run: Run, corpus: Any) -> np.ndarray:
    if run.guide is None:
        raise ValueError(f"{type(run.model).__name__} was trained without a guide, and shares of topics are its answer")
    return theta(run.model, run.guide, corpus.test)


def _first(share: np.ndarray, count: int | None) -> list[int]:
    """The topics of the largest shares; all of them where no number is given."""
    order: list[int] = np.argsort(-share, kind="stable")[:count].tolist()
    return order


def _frequent(corpus: Any, document: int, words: int) -> str:
    """The most frequent words of a test document, with their counts."""
    split: CountSplit = corpus.test
    begin, end = split.offsets[document], split.offsets[document + 1]
    ids, counts = split.words[begin:end], split.counts[begin:end]
    order = np.argsort(-counts, kind="stable")[:words]
    pairs = zip(corpus.vocabulary.decode(ids[order]), counts[order], strict=True)
    return ", ".join(f"{word} {count}" for word, count in pairs)
