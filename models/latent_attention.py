"""An encoder-decoder whose attention is a variable: where it looks for every word is drawn, and can be inferred."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import BOS, EOS, PAD, PairBatch, TextBatch
from pyro_nlp.distributions import WordSequence
from pyro_nlp.nn import Decoder, LSTMDecoder, LSTMEncoder, StateEncoder


class AttentionModel(PyroModule):
    """What the two models share: the networks, and how they write.

    The decoder's state at a word depends on the words before it and on a summary of the source, never on where it
    looked: positions are independent given the words, and each has a sum of its own (Deng et al. 2018, section 3).

    Args:
        vocabulary: number of words, of sources and targets together.
        encoder: `encoder(vocabulary)` reads the source, with a state at every word.
        decoder: `decoder(vocabulary, encoder.width)` gives the states h_t.
        width: size of the layer under the words.
        dropout: rate on that layer.
    """

    plates = 2

    def __init__(
        self,
        vocabulary: int,
        encoder: Callable[[int], StateEncoder] = LSTMEncoder,
        decoder: Callable[[int, int], Decoder] = LSTMDecoder,
        width: int = 256,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder(vocabulary)
        self.decoder = decoder(vocabulary, self.encoder.width)
        self.query = nn.Linear(self.decoder.width, self.encoder.width, bias=False)
        self.of_state, self.of_source = (
            nn.Linear(self.decoder.width, width),
            nn.Linear(self.encoder.width, width, bias=False),
        )
        self.head = nn.Linear(width, vocabulary)
        self.dropout = nn.Dropout(dropout)

    @abstractmethod
    def forward(self, batch: PairBatch) -> None:
        """The program."""

    def read(self, batch: PairBatch) -> tuple[Tensor, Tensor, Tensor]:
        """States of the source `[B, S, E]` and of the target `[T, B, D]`, and logits of positions `[T, B, S]`."""
        source, summary = self._source(batch.first)
        source, summary = source[batch.group], summary[batch.group]
        states = self.decoder(summary, batch.second.inputs)
        return source, states.transpose(0, 1), self.positions(states, source, batch.first.mask[batch.group])

    def _source(self, first: TextBatch) -> tuple[Tensor, Tensor]:
        return self.encoder.states(first), self.encoder(first)

    def positions(self, states: Tensor, source: Tensor, mask: Tensor) -> Tensor:
        """Logits of p(a_t | x, y_<t): states `[B, T, D]`, source `[B, S, E]`, mask `[B, S]`, result `[T, B, S]`."""
        logits = self.query(states) @ source.transpose(1, 2) / source.shape[-1] ** 0.5
        # a finite number: no position is impossible by more than float32 can see, and no gradient is lost
        return logits.float().masked_fill(~mask[:, None], -1e4).transpose(0, 1)

    def words(self, states: Tensor, where: Tensor, source: Tensor) -> Tensor:
        """What the words are read from: states `[T, B, D]`, where `[..., T, B, S]`, source `[B, S, E]`."""
        context = torch.einsum("...tbs,bse->...tbe", where.to(source.dtype), source)
        return self.dropout((self.of_state(states) + self.of_source(context)).tanh())

    def observe(self, hidden: Tensor, batch: PairBatch) -> None:
        """The site y, a word in each cell; hidden `[..., T, B, width]`. Within the plate of words."""
        mask, targets = batch.second.mask.T[..., None], batch.second.targets.T[..., None]
        pyro.sample("y", WordSequence(hidden[..., None, :], self.head, mask), obs=targets)

    @abstractmethod
    def next_words(self, states: Tensor, logits: Tensor, source: Tensor) -> Tensor:
        """log p(y_t | x, y_<t) by `states` `[1, B, D]` and position `logits` `[1, B, S]`: `[B, V]`."""

    @torch.no_grad()
    def translate(self, first: TextBatch, longest: int = 40) -> Tensor:
        """The likeliest word at every step until the end: ids `[Q, L]`, padded after `</s>`."""
        source, summary = self._source(first)
        state = self.decoder.start(summary)
        word, found = torch.full((len(first),), BOS, device=source.device), []
        ended = torch.zeros(len(first), dtype=torch.bool, device=source.device)
        for _ in range(longest):
            hidden, state = self.decoder.step(state, word)
            logits = self.positions(hidden[:, None], source, first.mask)
            log_p = self.next_words(hidden[None], logits, source)
            log_p[:, [PAD, BOS]] = -torch.inf
            word = log_p.argmax(-1).masked_fill(ended, PAD)
            found.append(word)
            ended = ended | (word == EOS)
            if bool(ended.all()):
                break
        return torch.stack(found, 1)


class SoftAttention(AttentionModel):
    """prod_t p(y_t | sum_i alpha_ti s_i, h_t): attention as a weighted mean         Bahdanau et al. 2015 (1409.0473)

    The deterministic twin of `LatentAttention`, with the same networks: the mean of the positions is taken before the
    words are foretold, not after.

    Sites    y  WordSequence of one word, one for each word of the target
    Plates   words (dim -2), documents (dim -1): the pairs
    """

    def forward(self, batch: PairBatch) -> None:
        source, states, logits = self.read(batch)
        hidden = self.words(states, logits.softmax(-1), source)
        with batch.documents(), pyro.plate("words", len(states), dim=-2):
            self.observe(hidden, batch)

    def next_words(self, states: Tensor, logits: Tensor, source: Tensor) -> Tensor:
        hidden = self.words(states, logits.softmax(-1), source)
        found: Tensor = self.head(hidden)[0].log_softmax(-1)
        return found


class LatentAttention(AttentionModel):
    """prod_t p(a_t | x, y_<t) p(y_t | a_t, x, y_<t): attention as a draw       Deng et al. 2018 (arXiv:1807.03756)

    a_t is the position that the decoder looks at for word t; its prior is what soft attention takes the mean of. Summed
    out it is exact (`Marginalize`, without a guide); with `LatentAttentionGuide` every estimator serves.

    Sites    a  OneHotCategorical, event [S], one for each word of the target
             y  WordSequence of one word, likewise
    Plates   words (dim -2), documents (dim -1): the pairs
    """

    def forward(self, batch: PairBatch) -> None:
        source, states, logits = self.read(batch)
        present: Any = batch.second.mask.T
        with batch.documents(), pyro.plate("words", len(states), dim=-2), poutine.mask(mask=present):
            a = pyro.sample("a", dist.OneHotCategorical(logits=logits))
            self.observe(self.words(states, a, source), batch)

    def next_words(self, states: Tensor, logits: Tensor, source: Tensor) -> Tensor:
        each = torch.eye(logits.shape[-1], device=logits.device)[:, None, None]  # [S, 1, 1, S]
        log_p = self.head(self.words(states, each, source)).log_softmax(-1)  # [S, 1, B, V]
        return (log_p + logits.log_softmax(-1).movedim(-1, 0)[..., None]).logsumexp(0)[0]
