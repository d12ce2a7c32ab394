"""Answer selection by the words that question and answer share: baselines, and features beside a model's score
(layer: evaluation).

All read ids, so a word that the vocabulary does not have is `<unk>`, and neither that nor another special symbol ever
matches: two unknown words are seldom the same. So these are weaker than on the text itself, where names that train
does not have would match. The vocabulary matters: BM25 on TREC QA has a MAP of .633 with the words of train-all, and
.517 with those of train.

Document frequencies are of the second texts of a reference, a document a pair: those of train where the split is to be
judged as a model is, which knows no other text; those of the split itself as in a search engine that has indexed it.
Neither looks at a label.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike

from pyro_nlp.data.bags import STOP
from pyro_nlp.data.batches import UNK
from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.data.vocabulary import Vocabulary

FEATURES = ("words", "share of words", "idf", "share of idf")
"""Columns of `overlap_features`."""


@dataclass(frozen=True)
class DocumentFrequencies:
    """In how many documents each word is.

    Attributes:
        counts: of them by word, int64 `[V]`; words with larger ids are in none.
        documents: N, all of them.
        mean_length: words of a document, unknown ones counted.
    """

    counts: np.ndarray
    documents: int
    mean_length: float

    @classmethod
    def of(cls, reference: PairSplit) -> DocumentFrequencies:
        """Of the second texts of a split, each pair's counted.

        Raises:
            ValueError: no pairs.
        """
        if not len(reference):
            raise ValueError("the reference has no pairs: there are no document frequencies")
        has = _counts(reference.second, _width(reference))
        counts, words = np.bincount(has.indices, minlength=has.shape[1]), len(reference.second.flat)
        return cls(counts, len(reference), words / len(reference))

    def of_words(self, size: int) -> np.ndarray:
        """How many documents have each of `size` words, float64 `[size]`."""
        found = np.zeros(size)
        shared = min(size, len(self.counts))
        found[:shared] = self.counts[:shared]
        return found

    def idf(self, size: int) -> np.ndarray:
        """log(1 + (N - n + 0.5) / (n + 0.5)) of each of `size` words, as in Lucene: above 0 for all, `[size]`."""
        n = self.of_words(size)
        return np.log1p((self.documents - n + 0.5) / (n + 0.5))


def bm25(split: PairSplit, reference: PairSplit, *, k1: float = 1.2, b: float = 0.75) -> np.ndarray:
    """Okapi BM25 of every pair's answer for its question, `[N]`      Robertson and Zaragoza 2009 (FTIR 3)

    The sum over the question's words, each as often as it stands there, of

        idf f (k1 + 1) / (f + k1 (1 - b + b length / mean length)),

    f how often the answer has the word, idf as in Lucene (`DocumentFrequencies.idf`), lengths in words.

    Args:
        split: the pairs.
        reference: document frequencies and mean length are of its second texts; `split` itself, or its corpus's train.
        k1: from 0, where it only counts that a word is there, upwards: how much its repetition adds.
        b: 0 to 1, how much longer answers are held back.

    Raises:
        ValueError: no pairs in the reference, or k1 or b out of range.
    """
    if k1 < 0 or not 0 <= b <= 1:
        raise ValueError(f"k1 is {k1} and b {b}; k1 is at least 0, and b 0 to 1")
    known = DocumentFrequencies.of(reference)
    asked, answer = _sides(split)
    length = np.diff(split.second.offsets) / max(known.mean_length, 1e-12)
    norm = np.repeat(k1 * (1 - b + b * length), np.diff(answer.indptr))
    answer.data = answer.data * (k1 + 1) / (answer.data + norm)
    return _dot(asked, answer, known.idf(answer.shape[1]))


def tf_idf(split: PairSplit, reference: PairSplit) -> np.ndarray:
    """Cosine of question and answer as counts times idf, 0 to 1, `[N]`; 0 where either has no known word.

    idf is log((1 + N) / (1 + n)) + 1, as scikit-learn's `TfidfTransformer` has it (Salton and Buckley 1988, IPM 24,
    smoothed). Unknown words are in neither vector.

    Args:
        split: the pairs.
        reference: document frequencies are of its second texts.

    Raises:
        ValueError: no pairs in the reference.
    """
    known = DocumentFrequencies.of(reference)
    asked, answer = _sides(split)
    square = (np.log((1 + known.documents) / (1 + known.of_words(answer.shape[1]))) + 1) ** 2
    below = np.sqrt(_dot(asked, asked, square) * _dot(answer, answer, square))
    return np.asarray(_dot(asked, answer, square) / np.where(below > 0, below, 1.0))


def overlap_features(split: PairSplit, reference: PairSplit, leave_out: Iterable[int] = ()) -> np.ndarray:
    """What question and answer share, float64 `[N, 4]`: the word counts of Yu et al. 2014 and Miao et al. 2016.

    Columns (`FEATURES`): how many different words of the question the answer has; the share of the question's different
    words that this is; the sum of their idf; the share of the idf of the question's words that this is. The two shares
    are 0 for a question without known words.

    Args:
        split: the pairs.
        reference: document frequencies are of its second texts; idf as in `DocumentFrequencies.idf`.
        leave_out: ids of words that do not count, neither shared nor of the question: `stop_words(vocabulary)`.

    Raises:
        ValueError: no pairs in the reference.
    """
    asked, answer = _sides(split)
    asked.data[:] = answer.data[:] = 1
    idf = DocumentFrequencies.of(reference).idf(answer.shape[1])
    counted = np.where(np.isin(np.arange(len(idf)), np.fromiter(leave_out, np.int64)), 0.0, 1.0)
    columns = []
    for weight in (counted, counted * idf):
        shared, whole = _dot(asked, answer, weight), np.asarray(asked @ weight)
        columns += [shared, shared / np.where(whole > 0, whole, 1.0)]
    return np.stack(columns, 1)


def stop_words(vocabulary: Vocabulary) -> np.ndarray:
    """Ids of the words that carry no content, int64.

    These are `data.bags.STOP`, words without letter or digit, and what tokenisers cut off: `'s`, `n't` and the like.
    """
    return np.array(
        [
            i
            for i, word in enumerate(vocabulary.words)
            if word in STOP or word == "n't" or word.startswith("'") or not any(map(str.isalnum, word))
        ],
        np.int64,
    )


def _sides(split: PairSplit) -> tuple[scipy.sparse.csr_matrix, scipy.sparse.csr_matrix]:
    """Counts of every pair's question and of its answer, `[N, V]` each."""
    width = _width(split)
    return _counts(split.first, width)[split.group], _counts(split.second, width)


def _width(split: PairSplit) -> int:
    """One more than the largest id of either side."""
    return 1 + max(int(texts.flat.max(initial=UNK)) for texts in (split.first, split.second))


def _counts(texts: TextSplit, width: int) -> scipy.sparse.csr_matrix:
    """How often each text has each word, `[N, V]`; special symbols left out."""
    known = texts.flat > UNK
    rows = np.repeat(np.arange(len(texts)), np.diff(texts.offsets))[known]
    # repeated places are summed
    return scipy.sparse.csr_matrix((np.ones(len(rows)), (rows, texts.flat[known])), (len(texts), width))


def _dot(first: scipy.sparse.csr_matrix, second: scipy.sparse.csr_matrix, weight: np.ndarray) -> np.ndarray:
    """Sum over words of first x second x weight, row by row, `[N]`."""
    return np.asarray(first.multiply(second) @ weight)


@dataclass(frozen=True)
class LogisticRanker:
    """p(y = 1) = sigmoid(bias + weights . (features - centre) / spread).

    Attributes:
        weights: of the standardised features, `[D]`.
        bias: of pairs with mean features.
        centre, spread: mean and standard deviation of the features it was fitted to, `[D]`; a feature that was the same
            for all has spread 1 and weight 0.
    """

    weights: np.ndarray
    bias: float
    centre: np.ndarray
    spread: np.ndarray

    def logit(self, features: ArrayLike) -> np.ndarray:
        """What pairs are ranked by, `[N]`."""
        x = np.asarray(features, np.float64)
        if x.ndim != 2 or x.shape[1] != len(self.weights):
            raise ValueError(f"features are [N, {len(self.weights)}], not {x.shape}")
        return np.asarray((x - self.centre) / self.spread @ self.weights + self.bias)

    def probability(self, features: ArrayLike) -> np.ndarray:
        """Of a right answer, `[N]`."""
        return np.asarray(scipy.special.expit(self.logit(features)))


def fit_logistic(features: ArrayLike, labels: ArrayLike, l2: float = 1.0) -> LogisticRanker:
    """Logistic regression that joins a model's score and what words say, as in Yu et al. 2014 and Miao et al. 2016.

    Fit it to pairs that the model was not trained on (valid): on those of train its logit is surer than on others, and
    gets too large a weight. Features are standardised; the optimum is one, and is found from zero by L-BFGS.

    Example:
        >>> features = np.column_stack([[2.0, -1.0, 0.5, -3.0], [3, 1, 0, 1]])  # logits, words shared
        >>> ranker = fit_logistic(features, [1, 0, 1, 0])
        >>> ranker.probability(features).round(2).tolist()
        [0.78, 0.42, 0.59, 0.21]

    Args:
        features: such as `np.column_stack([logit, overlap_features(...)])`, `[N, D]`.
        labels: 1 right, 0 wrong, -1 unknown, which are left out, `[N]`.
        l2: half of it times the squared weights is added to the summed loss; scikit-learn's C is 1 / l2.

    Raises:
        ValueError: numbers that do not match or are not finite, one class only, or l2 not above 0.
    """
    x, y = np.asarray(features, np.float64), np.asarray(labels)
    if x.ndim != 2 or y.shape != x.shape[:1]:
        raise ValueError(f"features {x.shape} and labels {y.shape}: give features [N, D] and a label per pair")
    if not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        raise ValueError(f"feature {column} of pair {row} is {x[row, column]}: features must be finite")
    if not np.isin(y, (-1, 0, 1)).all():
        raise ValueError(f"labels are {np.unique(y)[:5].tolist()}: give 1 for right, 0 for wrong, -1 for unknown")
    if not l2 > 0:
        raise ValueError(f"l2 is {l2}; it must be above 0: without it classes that can be separated have no optimum")
    x, y = x[y >= 0], y[y >= 0].astype(np.float64)
    if len(np.unique(y)) < 2:
        raise ValueError(f"{int(y.sum())} right and {int((1 - y).sum())} wrong pairs: there must be both to learn from")
    constant = np.ptp(x, axis=0) == 0
    centre, spread = x.mean(0), np.where(constant, 1.0, x.std(0))
    x = np.where(constant, 0.0, (x - centre) / spread)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = parameters[:-1], parameters[-1]
        logit = x @ weights + bias
        value = np.logaddexp(0, logit).mean() - y @ logit / len(y) + l2 / 2 * weights @ weights / len(y)
        off = (scipy.special.expit(logit) - y) / len(y)
        return float(value), np.append(off @ x + l2 * weights / len(y), off.sum())

    # of the mean loss, whose size does not grow with the pairs
    found = scipy.optimize.minimize(
        loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B", options={"maxiter": 5000, "ftol": 0, "gtol": 1e-9}
    )
    return LogisticRanker(found.x[:-1], float(found.x[-1]), centre, spread)
