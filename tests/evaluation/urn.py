"""Bags of words made up, and a model of them whose answers are known in closed form."""

from __future__ import annotations

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from scipy import special
from torch import Tensor

from pyro_nlp.data.batches import CountBatch
from pyro_nlp.data.counts import CountCorpus, CountSplit
from pyro_nlp.data.vocabulary import WordList
from pyro_nlp.distributions import BagOfWords


def bags(documents: list[list[int]], vocabulary: int, labels: list[int] | None = None) -> CountSplit:
    """Documents by their words, one by one."""
    rows = np.repeat(np.arange(len(documents)), [len(words) for words in documents])
    words = np.array([word for document in documents for word in document], np.int64)
    return CountSplit.from_pairs(
        rows, words, None, len(documents), vocabulary, None if labels is None else np.array(labels)
    )


def random_bags(count: int, vocabulary: int, seed: int = 0, labels: bool = False) -> CountSplit:
    """Documents of 0 to 6 words, the first of none, the second of one."""
    rng = np.random.default_rng(seed)
    sizes = [0, 1, *rng.integers(2, 7, count - 2)]
    documents = [rng.integers(0, vocabulary, size).tolist() for size in sizes]
    return bags(documents, vocabulary, rng.integers(0, 3, count).tolist() if labels else None)


WORDS = 3


class Urn(PyroModule):
    """p(theta) prod_v theta_v^n_v, theta ~ Dirichlet(a): each topic is a word, and all is in closed form."""

    plates = 1
    topics_count = WORDS

    def __init__(self, concentration: tuple[float, ...] = (0.5, 1.0, 2.0)) -> None:
        super().__init__()
        self.register_buffer("a", torch.tensor(concentration))

    def forward(self, batch: CountBatch) -> None:
        with batch.documents():
            theta = pyro.sample("theta", dist.Dirichlet(self.a))
            pyro.sample("x", BagOfWords(theta.log()), obs=batch.counts)

    def topics(self) -> Tensor:
        return torch.eye(WORDS)

    def proportions(self, latents: dict[str, Tensor]) -> Tensor:
        return latents["theta"]


class Exact(PyroModule):
    """Its posterior, Dirichlet(a + n)."""

    def __init__(self, model: Urn) -> None:
        super().__init__()
        self.register_buffer("a", model.a)

    def forward(self, batch: CountBatch) -> None:
        with batch.documents():
            pyro.sample("theta", dist.Dirichlet(self.a + batch.counts))


class Prior(Exact):
    """A guide that has learnt nothing."""

    def forward(self, batch: CountBatch) -> None:
        with batch.documents():
            pyro.sample("theta", dist.Dirichlet(self.a))


class Point(Exact):
    """The posterior mean, without a density."""

    def forward(self, batch: CountBatch) -> None:
        mean = self.a + batch.counts
        with batch.documents():
            pyro.sample("theta", dist.Delta(mean / mean.sum(-1, keepdim=True), event_dim=1))


class Own(PyroModule):
    """Parameters of its own for each document, as given."""

    def __init__(self, concentration: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("concentration", torch.from_numpy(concentration).float())

    def forward(self, batch: CountBatch) -> None:
        with batch.documents():
            pyro.sample("theta", dist.Dirichlet(self.concentration[batch.index]))


def urn() -> tuple[Urn, Exact]:
    model = Urn()
    return model, Exact(model)


def dense(split: CountSplit) -> np.ndarray:
    found: np.ndarray = split.batch(np.arange(len(split))).counts.double().numpy()
    return found


def log_beta(a: np.ndarray) -> np.ndarray:
    found: np.ndarray = special.gammaln(a).sum(-1) - special.gammaln(a.sum(-1))
    return found


class Small(CountCorpus):
    """Documents in memory."""

    def __init__(self, train: CountSplit, valid: CountSplit, test: CountSplit, words: int = WORDS) -> None:
        self.name, self.reference, self.vocabulary = "small", "made up", WordList(f"w{i}" for i in range(words))
        self.fill({"train": train, "valid": valid, "test": test})


def small(labels: bool = True) -> Small:
    return Small(*(random_bags(count, WORDS, seed, labels) for seed, count in enumerate((60, 20, 30))))
