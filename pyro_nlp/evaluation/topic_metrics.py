"""What topics and shares of topics are worth, by their numbers alone: no model is asked (layer: evaluation)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_nlp.data.counts import CountSplit
from pyro_nlp.data.vocabulary import Vocabulary

EPSILON = 1e-12
"""What gensim adds to the share of documents that have both words."""


def top_words(topics: np.ndarray | Tensor, top: int = 10) -> np.ndarray:
    """Ids of the likeliest words of each topic `[K, V]`, likeliest first, by id where they are equally likely,
    `[K, top]`.

    Raises:
        ValueError: not a matrix of numbers with a column for each word, or fewer than `top` words.
    """
    beta = np.asarray(topics.detach().double().cpu() if isinstance(topics, Tensor) else topics, np.float64)
    if beta.ndim != 2 or not beta.size or not np.isfinite(beta).all():
        raise ValueError(f"topics are a matrix [K, V] of finite numbers, not {beta.shape}")
    count, vocabulary = beta.shape
    if count > vocabulary:
        raise ValueError(f"{count} topics of {vocabulary} words: topics are [K, V], with more words than topics")
    if not 1 <= top <= vocabulary:
        raise ValueError(f"the top {top} words of a topic, from a vocabulary of {vocabulary}")
    return np.argsort(-beta, axis=1, kind="stable")[:, :top]


@dataclass(frozen=True)
class Coherence:
    """NPMI of the topics.

    Attributes:
        topics: mean over the pairs of a topic's top words, `[K]`.
        top: how many these are.
        documents: of the reference, empty ones left out.
        absent: places among the K x top whose word no document of the reference has: they are not in the mean.
    """

    topics: np.ndarray
    top: int
    documents: int
    absent: int

    @property
    def mean(self) -> float:
        """Over the topics."""
        return float(self.topics.mean())


def coherence_npmi(
    topics: np.ndarray | Tensor, reference: CountSplit, top: int = 10, *, epsilon: float = EPSILON
) -> Coherence:
    """log[(p(a, b) + e) / (p(a) p(b))] / -log(p(a, b) + e), the mean over pairs of top words of each topic

    Lau et al. 2014 and Aletras and Stevenson 2013; p is the share of the reference's documents that have the word or
    both: a boolean document, not a sliding window (Röder et al. 2015). The numbers are those of gensim's `c_npmi` with
    a window as long as the longest document. So words that are never together do not count -1 but more, the rarer they
    are the more, as e is finite: -0.67 if each is in 1 % of the documents. With `epsilon=0` they count -1.

    A word that no document has is left out with its pairs, as gensim does if its dictionary is of the reference, and
    counted in `absent`: a topic is not punished for it. Two differences, where gensim's answer is degenerate: a topic
    with fewer than two words left has -1 (gensim: not a number), and two words that are in all documents 0, as
    independent words do (gensim: -1).

    Args:
        topics: probabilities, or anything in their order, `[K, V]`.
        reference: documents of the same vocabulary (`reference_for` makes them of another's). NPMI on the training
            documents is higher than on a corpus of their own, and comparable only with NPMI on the same ones.
        top: words of each topic, at least 2.
        epsilon: e.

    Raises:
        ValueError: topics or `top` that `top_words` refuses, another vocabulary, or a reference without words.
    """
    words = top_words(topics, top)
    if top < 2:
        raise ValueError("coherence is of pairs of words: top is at least 2")
    if reference.vocabulary != topics.shape[1]:
        raise ValueError(f"topics have {topics.shape[1]} words and the reference {reference.vocabulary}")
    documents = int((reference.sizes > 0).sum())
    if not documents:
        raise ValueError("no document of the reference has a word")
    kept, place = np.unique(words, return_inverse=True)
    place = place.reshape(words.shape)
    together = _together(reference, kept) / documents
    alone = together.diagonal()
    first, second = np.triu_indices(top, 1)
    joint = together[place[:, first], place[:, second]]
    expected = alone[place[:, first]] * alone[place[:, second]]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.log((joint + epsilon) / expected) / -np.log(joint + epsilon)
    if not epsilon:
        found[joint == 0] = -1.0
    found[joint == 1] = 0.0
    found[expected == 0] = 0.0
    pairs = (expected > 0).sum(1)
    means = np.where(pairs, found.sum(1) / np.maximum(pairs, 1), -1.0)
    return Coherence(means, top, documents, int((alone[place] == 0).sum()))


def reference_for(vocabulary: Vocabulary, split: CountSplit, words: Vocabulary) -> CountSplit:
    """Documents of another corpus as a reference for topics of this vocabulary; words it does not have are left out.

    Words are the same if they are spelt the same, so that both corpora should be prepared in one way. Those of the
    vocabulary that no document has are among `Coherence.absent` if a topic wants them.

    Args:
        vocabulary: of the topics.
        split, words: the documents and their own vocabulary.
    """
    place = {word: i for i, word in enumerate(vocabulary.words)}
    return split.recode(np.array([place.get(word, -1) for word in words.words], np.int64), len(vocabulary))


def _together(split: CountSplit, words: np.ndarray) -> np.ndarray:
    """How many documents have both words, `[W, W]`; on the diagonal, one of them."""
    column = np.full(split.vocabulary, -1)
    column[words] = np.arange(len(words))
    columns = column[split.words]
    rows = np.repeat(np.arange(len(split)), np.diff(split.offsets))[columns >= 0]
    columns = columns[columns >= 0]
    has = scipy.sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), (len(split), len(words)))
    found: np.ndarray = (has.T @ has).toarray()
    return found


def topic_diversity(topics: np.ndarray | Tensor, top: int = 25) -> float:
    """Share of different words among the K x top of all topics, 1/K to 1.      Dieng et al. 2020 (arXiv:1907.04907)"""
    words = top_words(topics, top)
    return len(np.unique(words)) / words.size


def redundancy(topics: np.ndarray | Tensor, top: int = 10) -> np.ndarray:
    """Share of the other topics that have a topic's top word among theirs, the mean over its words, `[K]`.

    The topic redundancy of Burkhardt and Kramer 2019 (JMLR 20:131), divided by the number of top words, so that it goes
    from 0 to 1: there it is the sum over them. 0 for a topic that is the only one.
    """
    words = top_words(topics, top)
    having = np.bincount(words.ravel())[words]
    return (having - 1).mean(1) / max(len(words) - 1, 1)


def distinct_topics(topics: np.ndarray | Tensor, top: int = 10, overlap: float = 0.5) -> int:
    """Topics, where those that are near-duplicates count once.

    Two are, if they share at least `overlap` of their top words; so are two that are each near a third. Whatever the
    order of the topics, it is at most the number of those that are not near any topic before them.
    """
    words = top_words(topics, top)
    has = np.zeros((len(words), int(words.max()) + 1))
    np.put_along_axis(has, words, 1.0, 1)
    return int(
        scipy.sparse.csgraph.connected_components(
            scipy.sparse.csr_matrix(has @ has.T >= overlap * top), directed=False
        )[0]
    )


@dataclass(frozen=True)
class TopicUse:
    """How documents use the topics.

    Attributes:
        largest: share of documents of which topic k is the largest, `[K]`.
        mean: mean share of topic k, `[K]`.
    """

    largest: np.ndarray
    mean: np.ndarray

    @property
    def used(self) -> int:
        """Topics that are the largest of some document."""
        return int((self.largest > 0).sum())

    @property
    def effective(self) -> float:
        """exp of the entropy of `mean`: as many topics, evenly used, would be as many to choose from."""
        share = self.mean / self.mean.sum()
        return math.exp(-float((share * np.log(np.where(share > 0, share, 1.0))).sum()))


def topics_used(theta: np.ndarray) -> TopicUse:
    """How documents with shares `[N, K]` use the topics. Of topics equally large the first counts.

    Raises:
        ValueError: no documents.
    """
    if theta.ndim != 2 or not theta.size:
        raise ValueError(f"shares of topics are [N, K], not {theta.shape}: there must be a document")
    return TopicUse(np.bincount(theta.argmax(1), minlength=theta.shape[1]) / len(theta), theta.mean(0))


@dataclass(frozen=True)
class Retrieval:
    """Documents with the query's label among those nearest to it.

    Attributes:
        fractions: of the labelled training documents that are retrieved.
        retrieved: how many these are, at least one.
        precision: share of these that have the query's label, the mean over queries; one for each fraction.
        chance: the same in a random order.
        queries: labelled test documents.
    """

    fractions: tuple[float, ...]
    retrieved: tuple[int, ...]
    precision: tuple[float, ...]
    chance: float
    queries: int


def retrieval_precision(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    at: Sequence[float] = (0.0002, 0.001, 0.01, 0.1),
    *,
    chunk: int = 1024,
) -> Retrieval:
    """Precision of training documents retrieved by the cosine of their shares of topics to a test document's.

    The evaluation of Larochelle and Lauly 2012 (DocNADE) and of Miao et al. 2016. Documents labelled -1 are left out.

    Args:
        train, train_labels: what is retrieved, `[N, K]` and `[N]`.
        test, test_labels: the queries, `[M, K]` and `[M]`.
        at: fractions of the training documents, above 0 and at most 1; the number is rounded.
        chunk: queries taken at once.

    Raises:
        ValueError: numbers that do not match, fractions out of range, or no labelled document on either side.
    """
    for what, theta, labels in (("train", train, train_labels), ("test", test, test_labels)):
        if len(theta) != len(labels):
            raise ValueError(f"{len(theta)} {what} documents and {len(labels)} labels: give one of each per document")
        if not (labels >= 0).any():
            raise ValueError(f"no {what} document has a label: there is nothing to be retrieved")
    if not at or not all(0 < fraction <= 1 for fraction in at):
        raise ValueError(f"fractions of the documents are above 0 and at most 1, not {tuple(at)}")
    (points, known), (queries, wanted) = (
        (F.normalize(torch.from_numpy(np.asarray(theta[labels >= 0], np.float64)), dim=-1), labels[labels >= 0])
        for theta, labels in ((train, train_labels), (test, test_labels))
    )
    retrieved = tuple(max(1, round(fraction * len(points))) for fraction in at)
    label, right = torch.from_numpy(known), np.zeros(len(at))
    for start in range(0, len(queries), chunk):
        part = queries[start : start + chunk]
        nearest = (part @ points.T).topk(max(retrieved)).indices
        match = label[nearest] == torch.from_numpy(wanted[start : start + chunk])[:, None]
        right += [float(match[:, :count].double().mean(1).sum()) for count in retrieved]
    classes = int(max(known.max(), wanted.max())) + 1
    chance = float(np.bincount(known, minlength=classes) @ np.bincount(wanted, minlength=classes))
    return Retrieval(
        tuple(at), retrieved, tuple((right / len(queries)).tolist()), chance / len(known) / len(queries), len(queries)
    )
