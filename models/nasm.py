"""Answer selection: which of some candidate sentences answers a question, by a latent reading of the question."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import PairBatch
from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.distributions.labelled import observe_labels, require_labels
from pyro_nlp.nn import AnswerAttention, GaussianHead, LSTMEncoder, StateEncoder


class NASM(PyroModule):
    """p(h | q) p(y | h, a): the question, read uncertainly, looks through the answer    Miao et al. 2016, section 4

    h ~ N(mu(q), sigma(q)^2) is the prior, and is learnt; z = attention of h over the states of a (`AnswerAttention`),
    y ~ Bernoulli(sigmoid(h M z + b)). Every pair has an h of its own, so that its label can be explained by another
    reading; a ranking compares the candidates of a question under one (`scores`).

    Sites    h  Normal, event [latent]
             y  Bernoulli; unknown labels are masked out
    Plates   documents (dim -1): the pairs

    Args:
        vocabulary: number of words, of questions and answers together.
        latent: size of h.
        question: `question(vocabulary)` reads the questions of a batch, each once.
        answer: `answer(vocabulary)` reads the answers, with a state at every word; None for the network that reads the
            questions.
        width: size of the layers between.
        dropout: rate on the features of the question and on the answer's states.
    """

    plates = 1

    def __init__(
        self,
        vocabulary: int,
        latent: int = 50,
        question: Callable[[int], StateEncoder] = LSTMEncoder,
        answer: Callable[[int], StateEncoder] | None = None,
        width: int = 50,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.latent = latent
        self.question = question(vocabulary)
        self.answer = self.question if answer is None else answer(vocabulary)
        self.hidden = nn.Sequential(nn.Linear(self.question.width, width), nn.Tanh())
        self.prior = GaussianHead(width, latent)
        self.attention = AnswerAttention(latent, self.answer.width, width, latent)
        self.match, self.bias = nn.Linear(latent, latent, bias=False), nn.Parameter(torch.zeros(()))
        self.dropout = nn.Dropout(dropout)

    def meet_corpus(self, corpus: Any) -> None:
        """Refuse a corpus without labels."""
        require_labels(self, corpus, PairSplit)

    def forward(self, batch: PairBatch) -> None:
        loc, scale = self.reading(batch)
        states = self.dropout(self.answer.states(batch.second))
        with batch.documents():
            h = pyro.sample("h", dist.Normal(loc[batch.group], scale[batch.group]).to_event(1))
            observe_labels(self.log_odds(h, states, batch)[0], batch)

    def reading(self, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of p(h | q) of the questions, two of `[Q, latent]`."""
        found: tuple[Tensor, Tensor] = self.prior(self.hidden(self.dropout(self.question(batch.first))))
        return found

    def log_odds(self, h: Tensor, states: Tensor, batch: PairBatch) -> tuple[Tensor, Tensor]:
        """log p(y = 1) / p(y = 0) and where h looked: `[..., B]` and `[..., B, T]`."""
        z, where = self.attention(h, states, batch.second.mask)
        return (self.match(h) * z).sum(-1) + self.bias, where

    def scores(self, batch: PairBatch, draws: int = 1) -> tuple[Tensor, Tensor | None]:
        """log-odds of every pair `[draws, B]`, and where it looked `[draws, B, T]`; one draw of h a question.

        With `draws` 0 it is read at the mean of p(h | q).
        """
        loc, scale = self.reading(batch)
        h = loc[None] if draws == 0 else dist.Normal(loc, scale).sample((draws,))
        return self.log_odds(h[:, batch.group], self.answer.states(batch.second), batch)
