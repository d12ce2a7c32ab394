"""What a diagnosis says of a topic model: its topics, how far apart they are, documents as mixtures (layer: recipe)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pyro_nlp.data.counts import CountSplit
from pyro_nlp.diagnosis.subject import LeftOut, Subject, asked
from pyro_nlp.distributions import BagOfWords, TopicMixture
from pyro_nlp.evaluation import coherence_npmi, distinct_topics, is_topic_model, top_words, topics_used

TOP, SHOWN, PARTS = 10, 24, 5
"""Words of a topic, documents to step through, topics of a document that are named."""


def has_topics(subject: Subject) -> bool:
    """Whether a run is of a topic model, on bags of words."""
    return is_topic_model(subject.model) and isinstance(subject.split, CountSplit)


@dataclass(frozen=True)
class Topic:
    """One topic.

    Attributes:
        number: its place in the model.
        share: mean share of the documents.
        largest: share of the documents of which it is the largest.
        words, probabilities: the likeliest words.
        nearest: number of the topic most like it; None where it is the only one.
        distance: Hellinger distance to that, 0 for the same words to 1 for no word in common.
        npmi: coherence of its top words in the training documents; None where it cannot be had.
    """

    number: int
    share: float
    largest: float
    words: list[str]
    probabilities: list[float]
    nearest: int | None
    distance: float | None
    npmi: float | None


@dataclass(frozen=True)
class Topics:
    """The topics of a model, those with the largest share of the documents first.

    Attributes:
        topics: one by one.
        places: on the map, `[K, 2]` in this order; None where there are fewer than three.
        explained: share of the squared distances that each direction of the map shows, `[2]`.
        distinct: topics, near-duplicates counted once.
        used: topics that are the largest of some document.
        effective: as many topics, evenly used, would be as many to choose from.
        documents: that shares are the mean of, empty ones left out.
        mixed: whether a document's words are a mixture of these distributions; else logits are added, and shares only
            say which topics weigh most.
    """

    topics: list[Topic]
    places: np.ndarray | None
    explained: np.ndarray | None
    distinct: int
    used: int
    effective: float
    documents: int
    mixed: bool

    def rows(self) -> dict[str, str]:
        """Measure and value, as printed."""
        count = len(self.topics)
        npmi = [topic.npmi for topic in self.topics if topic.npmi is not None]
        rows = {"distinct topics": f"{self.distinct} of {count}"}
        rows["topics that are a document's largest"] = f"{self.used} of {count}"
        rows["effective number of topics"] = f"{self.effective:.1f}"
        top = len(self.topics[0].words)
        return rows | ({f"NPMI of the top {top}, train split": f"{np.mean(npmi):.3f}"} if npmi else {})


def topics(subject: Subject) -> Topics:
    """What the topics are, how much they are used, and where they lie."""
    split, shares = subject.bags, subject.shares
    beta = subject.model.topics().double().cpu().numpy()
    top = min(TOP, beta.shape[1])
    best = asked(lambda: top_words(beta, top))
    use = topics_used(shares[split.sizes > 0])
    coherence = _npmi(subject, beta, top)
    distance = hellinger(beta)
    order = np.argsort(-use.mean, kind="stable")
    found = []
    for k in order.tolist():
        others = np.where(np.arange(len(beta)) == k, np.inf, distance[k])
        alone, nearest = len(beta) < 2, int(others.argmin())
        found.append(
            Topic(
                number=k,
                share=float(use.mean[k]),
                largest=float(use.largest[k]),
                words=subject.named(best[k]),
                probabilities=beta[k, best[k]].tolist(),
                nearest=None if alone else nearest,
                distance=None if alone else float(others[nearest]),
                npmi=None if coherence is None else float(coherence[k]),
            )
        )
    mapped = scaled(beta[order]) if len(beta) > 2 else None
    return Topics(
        topics=found,
        places=None if mapped is None else mapped[0],
        explained=None if mapped is None else mapped[1],
        distinct=distinct_topics(beta, top),
        used=use.used,
        effective=use.effective,
        documents=int((split.sizes > 0).sum()),
        mixed=not any(
            isinstance(fn, BagOfWords) and not isinstance(fn, TopicMixture) for fn in subject.priors.values()
        ),
    )


def _npmi(subject: Subject, beta: np.ndarray, top: int) -> np.ndarray | None:
    """Of each topic in the training documents, `[K]`."""
    train = subject.run.corpus.train
    if top < 2 or not isinstance(train, CountSplit):
        return None
    try:
        return coherence_npmi(beta, train, top).topics
    except ValueError:  # training documents without a word
        return None


def hellinger(beta: np.ndarray) -> np.ndarray:
    """Distances between distributions `[K, V]`, from 0 to 1, `[K, K]`."""
    root = np.sqrt(beta)
    return np.sqrt(np.clip(1 - root @ root.T, 0, 1))


def scaled(beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Classical scaling of the Hellinger distances to two dimensions: places `[K, 2]`, and what each explains, `[2]`.

    These are Euclidean distances between roots of probabilities, so nothing is lost but what other dimensions hold.
    """
    squared = hellinger(beta) ** 2
    centred = squared - squared.mean(0) - squared.mean(1, keepdims=True) + squared.mean()
    values, vectors = np.linalg.eigh(-centred / 2)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    signs = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(len(beta))])  # else left and right are by chance
    return (vectors * signs * np.sqrt(values))[:, :2], values[:2] / max(float(values.sum()), 1e-30)


@dataclass(frozen=True)
class Mixture:
    """A document as shares of topics; `why` it is shown.

    Attributes:
        document: its place among those judged.
        why: it is shown.
        topics, shares: the largest, by number.
    """

    document: int
    why: str
    topics: list[int]
    shares: list[float]


def mixtures(subject: Subject) -> list[Mixture]:
    """Documents to step through: the worst predicted, the purest, the most mixed, and some by chance."""
    split, shares, likelihood = subject.bags, subject.shares, subject.likelihood
    rows = np.flatnonzero(split.sizes)
    if not len(rows):
        raise LeftOut("no document has a word")
    nats = -subject.terms.log_likelihood if likelihood is None else likelihood.nll
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(1)
    chosen: dict[int, str] = {}
    for why, values in (
        ("one of the purest", -entropy),
        ("one of the most mixed", entropy),
        ("one of the most nats per word", nats / np.maximum(split.sizes, 1)),
    ):
        for row in rows[np.argsort(-values[rows], kind="stable")][: SHOWN // 4]:
            chosen.setdefault(int(row), why)
    for row in np.random.default_rng(subject.protocol.seed).permutation(rows):
        if len(chosen) >= SHOWN:
            break
        chosen.setdefault(int(row), "drawn by chance")
    largest = np.argsort(-shares, axis=1, kind="stable")[:, :PARTS]
    return [Mixture(row, why, largest[row].tolist(), shares[row, largest[row]].tolist()) for row, why in chosen.items()]
