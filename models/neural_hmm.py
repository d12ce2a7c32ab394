"""A hidden Markov model of sentences with networks in the place of its tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import TextBatch
from pyro_nlp.distributions.hidden_markov import HiddenMarkov, NextWord
from pyro_nlp.distributions.labelled import refuse_more_tags, seen_tags
from pyro_nlp.nn import Decoder, write
from pyro_nlp.nn.chains import Emissions, StateTransitions, Transitions, WordEmissions
from pyro_nlp.nn.sizes import refuse_none


class NeuralHMM(PyroModule):
    """prod_t p(tag_t | tag_t-1, x_<t) p(x_t | tag_t), tags summed out        Tran et al. 2016 (arXiv:1609.09007)

    The tags leave the model: `x` is their exact marginal, there is no guide, and every strategy is maximum likelihood.
    What a state emits and where it moves are parts. Those of the paper: `WordEmissions` (NHMM), `SpelledEmissions`
    (+Conv), `StateTransitions`, `LSTMTransitions` (+LSTM). Beyond it: for thousands of states `BlockEmissions` (Chiu
    and Rush 2020) or `LowRankTransitions` (Chiu, Deng and Rush 2021), `SecondOrderTransitions` where two tags decide
    the next; and the tables of `HMM`.

    With supervision the tags of a share of the sentences are observed in training, as in `HMM`.

    Sites    x  HiddenMarkov, event [T], padding masked out
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        states: number of tags, K.
        emissions: `emissions(vocabulary, states)`.
        transitions: `transitions(vocabulary, states)`.
        supervision: share of the training sentences whose tags are observed, 0 to 1.
    """

    plates = 1

    def __init__(
        self,
        vocabulary: int,
        states: int = 45,
        emissions: Callable[[int, int], Emissions] = WordEmissions,
        transitions: Callable[[int, int], Transitions] = StateTransitions,
        supervision: float = 0.0,
    ) -> None:
        super().__init__()
        refuse_none(self, states=states)
        self.states, self.supervision = states, supervision
        self.initial = nn.Parameter(0.1 * torch.randn(states))
        self.emissions, self.transitions = emissions(vocabulary, states), transitions(vocabulary, states)

    def meet_corpus(self, corpus: Any) -> None:
        """Refuse one with more tags than there are states."""
        refuse_more_tags(len(getattr(corpus, "tags", ())), self.states, self.supervision)

    def forward(self, batch: TextBatch) -> None:
        tags = seen_tags(batch, self.supervision, self.states, self.training)
        with batch.documents():
            pyro.sample("x", self._sentences(batch, tags), obs=batch.targets)

    def marginals(self, batch: TextBatch) -> Tensor:
        """p(tag_t = k | x), `[B, T, K]`; zeros at padding."""
        return self._sentences(batch).marginals(batch.targets)

    def viterbi(self, batch: TextBatch) -> tuple[Tensor, Tensor]:
        """The likeliest tags `[B, T]` (-1 at padding), and log p(x, tags) `[B]`."""
        return self._sentences(batch).viterbi(batch.targets)

    def sample_tags(self, batch: TextBatch) -> Tensor:
        """Tags drawn from their posterior, `[B, T]`; -1 at padding."""
        return self._sentences(batch).posterior_sample(batch.targets)

    @torch.no_grad()
    def generate(self, latents: Mapping[str, Tensor], count: int = 1, **options: Any) -> Tensor:
        """`count` sentences as ids `[count, L]`; there are no latents to start from. Options: see `nn.write`."""
        was_training = self.training
        self.eval()
        try:
            emitted = self.emissions()
            table = emitted if isinstance(emitted, Tensor) else emitted.table()
            next_word = NextWord(self.initial, self.transitions.unrolled(), table)
            rows = self.initial.new_zeros(count, 0)
            return write(cast(Decoder, next_word), cast(nn.Linear, nn.Identity()), rows, **options)
        finally:
            self.train(was_training)

    def _sentences(self, batch: TextBatch, tags: Tensor | None = None) -> HiddenMarkov:
        moves = self.transitions(batch.inputs)
        return HiddenMarkov(self.initial, moves, self.emissions(), batch.mask, tags)
