"""The posterior over the reading of a question, given the answer and whether it is right."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import nn

from pyro_nlp.data.batches import PairBatch
from pyro_nlp.nn import GaussianHead, LSTMEncoder, StateEncoder


class NASMGuide(PyroModule):
    """q(h | q, a, y) = N(mu, diag sigma^2), of both texts and the label       Miao et al. 2016 (arXiv:1511.06038)

    Sites    h  Normal, event [latent]
    Plates   documents (dim -1): the pairs

    It reads with networks of its own; the paper's shares those of the model.

    Args:
        vocabulary: number of words.
        latent: size of h.
        question: `question(vocabulary)` reads the questions of a batch, each once.
        answer: `answer(vocabulary)` reads the answers.
        label: size of the vector of y; unknown is a label like the others.
        width: size of the hidden layer.
        dropout: rate on the features of both.
    """

    def __init__(
        self,
        vocabulary: int,
        latent: int = 50,
        question: Callable[[int], StateEncoder] = LSTMEncoder,
        answer: Callable[[int], StateEncoder] = LSTMEncoder,
        label: int = 10,
        width: int = 50,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.question, self.answer = question(vocabulary), answer(vocabulary)
        self.label = nn.Embedding(3, label)
        self.hidden = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(self.question.width + self.answer.width + label, width), nn.Tanh()
        )
        self.posterior = GaussianHead(width, latent)

    def forward(self, batch: PairBatch) -> None:
        labels = batch.labels if batch.labels is not None else torch.full_like(batch.group, -1)
        read = [self.question(batch.first)[batch.group], self.answer(batch.second), self.label(labels + 1)]
        loc, scale = self.posterior(self.hidden(torch.cat(read, -1)))
        with batch.documents():
            pyro.sample("h", dist.Normal(loc, scale).to_event(1))
