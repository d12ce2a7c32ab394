"""Answer selection without a latent variable: the deterministic twin of NASM."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import PairBatch
from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.distributions.labelled import observe_labels, require_labels
from pyro_nlp.nn import AnswerAttention, LSTMEncoder, StateEncoder


class AnswerMatcher(PyroModule):
    """p(y | q, a) = sigmoid(h M z + b), h a vector of the question and z one of the answer     Yu et al. 2014

    With attention z is the answer as h sees it (`AnswerAttention`), as in the deterministic model of Miao et al. 2016
    (arXiv:1511.06038); without, a summary of its own. With `CNNEncoder` it is the bigram network of Yu et al. 2014
    (arXiv:1412.1632).

    Sites    y  Bernoulli; unknown labels are masked out
    Plates   documents (dim -1): the pairs

    Args:
        vocabulary: number of words, of questions and answers together.
        latent: size of h and z.
        question: `question(vocabulary)` reads the questions of a batch, each once.
        answer: `answer(vocabulary)` reads the answers; None for the network that reads the questions.
        width: size of the layer that compares question and answer.
        attention: let the question look through the answer.
        dropout: rate on the features of the question and of the answer.
    """

    plates = 1

    def __init__(
        self,
        vocabulary: int,
        latent: int = 50,
        question: Callable[[int], StateEncoder] = LSTMEncoder,
        answer: Callable[[int], StateEncoder] | None = None,
        width: int = 50,
        attention: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.question = question(vocabulary)
        self.answer = self.question if answer is None else answer(vocabulary)
        self.hidden = nn.Sequential(nn.Linear(self.question.width, latent), nn.Tanh())
        self.attention = AnswerAttention(latent, self.answer.width, width, latent) if attention else None
        self.summary = None if attention else nn.Sequential(nn.Linear(self.answer.width, latent), nn.Tanh())
        self.match, self.bias = nn.Linear(latent, latent, bias=False), nn.Parameter(torch.zeros(()))
        self.dropout = nn.Dropout(dropout)

    def meet_corpus(self, corpus: Any) -> None:
        """Refuse a corpus without labels."""
        require_labels(self, corpus, PairSplit)

    def forward(self, batch: PairBatch) -> None:
        logits, _ = self.scores(batch)
        with batch.documents():
            observe_labels(logits[0], batch)

    def scores(self, batch: PairBatch, draws: int = 1) -> tuple[Tensor, Tensor | None]:
        """log-odds of every pair, `[1, B]`, and where it looked, `[1, B, T]`; there is nothing to draw."""
        h = self.hidden(self.dropout(self.question(batch.first)))[batch.group]
        where = None
        if self.attention is not None:
            states = self.dropout(self.answer.states(batch.second))
            z, where = self.attention(h[None], states, batch.second.mask)
        else:
            assert self.summary is not None
            z = self.summary(self.dropout(self.answer(batch.second)))[None]
        return (self.match(h) * z).sum(-1) + self.bias, where
