"""Networks in the place of the tables of a hidden Markov model (layer: nn).

Emissions and transitions are built as `factory(vocabulary, states)`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pyro_nlp.distributions.chain_emissions import Emission, FactoredEmission
from pyro_nlp.distributions.hidden_markov import Informed
from pyro_nlp.distributions.moves import LowRank, Moves, SecondOrder, Varying
from pyro_nlp.nn.decoders import Decoder, LSTMDecoder
from pyro_nlp.nn.sizes import refuse_none
from pyro_nlp.nn.spelling import CharacterCNN
from pyro_nlp.nn.words import word_vectors

_TABLE = 4_000_000
"""Elements of a table of emissions up to which it is simply made."""


class Emissions(nn.Module, ABC):
    """p(word | state)."""

    @abstractmethod
    def forward(self) -> Tensor | Emission:
        """Logits `[K, V]`, or what stands for them."""


class TableEmissions(Emissions):
    """A parameter for every word in every state.

    Args:
        vocabulary: number of words, V.
        states: number of states, K.
        spread: standard deviation of the first logits.
    """

    def __init__(self, vocabulary: int, states: int, spread: float = 1.0) -> None:
        super().__init__()
        self.logits = nn.Parameter(spread * torch.randn(states, vocabulary))

    def forward(self) -> Tensor:
        return self.logits


class WordEmissions(Emissions):
    """p(word | state) in proportion to exp(f(state) . word + bias)       Tran et al. 2016 (arXiv:1609.09007), the NHMM

    A vector of the state through two hidden layers of ReLU, against a vector of each word.

    Args:
        vocabulary: number of words, V.
        states: number of states, K.
        width: size of all vectors and layers.
        dropout: rate on the states' last layer.
        spread: standard deviation, over states, of f at first; states that begin alike are slow to part.
    """

    def __init__(
        self, vocabulary: int, states: int, width: int = 128, dropout: float = 0.0, spread: float = 3.0
    ) -> None:
        super().__init__()
        self.states = StateNetwork(states, width, dropout, spread)
        self.words: nn.Module = word_vectors(vocabulary, width)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self) -> Tensor | Emission:
        found = FactoredEmission(self.states(), self.vectors(), self.bias)
        return found.table() if found.states * found.words <= _TABLE else found

    def vectors(self) -> Tensor:
        """Of words, `[V, width]`."""
        assert isinstance(self.words, nn.Embedding)
        return self.words.weight


class SpelledEmissions(WordEmissions):
    """The same with word vectors out of letters                          Tran et al. 2016 (arXiv:1609.09007), +Conv

    Words that are spelled alike are emitted by the same states; a bias of each word says how common it is.

    Args:
        vocabulary: number of words, V.
        states: number of states, K.
        width: size of all vectors and layers.
        dropout: rate on the states' last layer.
        spread: standard deviation, over states, of f at first.
        letters: `letters(vocabulary, width)` reads the words.
    """

    def __init__(
        self,
        vocabulary: int,
        states: int,
        width: int = 128,
        dropout: float = 0.0,
        spread: float = 1.0,
        letters: Callable[[int, int], CharacterCNN] = CharacterCNN,
    ) -> None:
        super().__init__(vocabulary, states, width, dropout, spread)
        self.words = letters(vocabulary, width)

    def vectors(self) -> Tensor:
        found: Tensor = self.words()
        return found


class Transitions(nn.Module, ABC):
    """p(next state | states and words so far)."""

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor | Moves:
        """Logits `[K, K]`, or what stands for them; inputs are the words before each position, `[B, T]`."""

    def unrolled(self) -> Tensor | Moves | Informed:
        """The same for writing word by word."""
        return self(torch.zeros(1, 1, dtype=torch.long))


class TableTransitions(Transitions):
    """A parameter for every pair of states.

    Args:
        vocabulary: number of words.
        states: number of states, K.
        spread: standard deviation of the first logits.
    """

    def __init__(self, vocabulary: int, states: int, spread: float = 0.1) -> None:
        super().__init__()
        self.logits = nn.Parameter(spread * torch.randn(states, states))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.logits


class StateTransitions(Transitions):
    """p(j | i) in proportion to exp(f(i) . j + bias_j): the states' vectors in place of a table.

    Args:
        vocabulary: number of words.
        states: number of states, K.
        width: size of all vectors and layers.
        dropout: rate on the last layer of f.
    """

    def __init__(self, vocabulary: int, states: int, width: int = 128, dropout: float = 0.0) -> None:
        super().__init__()
        self.before = StateNetwork(states, width, dropout)
        self.after = nn.Linear(width, states)

    def forward(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.after(self.before())
        return found


class LSTMTransitions(Transitions):
    """p(j | i, x_<t) in proportion to exp(U h_t + b)_ij, h_t of the words before t     Tran et al. 2016, +LSTM

    (arXiv:1609.09007.) The word at t is still read from its own state alone, so the chain is summed out exactly.

    Args:
        vocabulary: number of words.
        states: number of states, K; there are K^2 logits at every position.
        reader: `reader(vocabulary, 0)` reads the words before.
        dropout: rate on its states.
    """

    def __init__(
        self,
        vocabulary: int,
        states: int,
        reader: Callable[[int, int], Decoder] = LSTMDecoder,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.states, self.reader, self.dropout = states, reader(vocabulary, 0), nn.Dropout(dropout)
        self.table = nn.Linear(self.reader.width, states**2)

    def forward(self, inputs: Tensor) -> Varying:
        code = self.table.weight.new_zeros(*inputs.shape[:-1], 0)
        return Varying(self._logits(self.reader(code, inputs)))

    def unrolled(self) -> LSTMTransitions:
        return self

    def start(self, rows: int) -> tuple[Tensor, ...]:
        """What the reader remembers before the first word."""
        return self.reader.start(self.table.weight.new_zeros(rows, 0))

    def step(self, memory: tuple[Tensor, ...], words: Tensor) -> tuple[Moves, tuple[Tensor, ...]]:
        """Read a word in every row, and the moves from its tag to the next."""
        hidden, memory = self.reader.step(memory, words)
        return Varying(self._logits(hidden[:, None]).expand(-1, 2, -1, -1)), memory

    def _logits(self, hidden: Tensor) -> Tensor:
        found: Tensor = self.table(self.dropout(hidden))
        return found.unflatten(-1, (self.states, self.states))


class LowRankTransitions(Transitions):
    """p(j | i) in proportion to phi(u_i)^T phi(v_j), phi(x) = exp(W x)          Chiu, Deng and Rush 2021

    (arXiv:2201.02715.) Thousands of states: a step costs K rank products, and no table `[K, K]` is made.

    Args:
        vocabulary: number of words.
        states: number of states, K.
        rank: features of phi, R.
        width: size of the vectors.
    """

    def __init__(self, vocabulary: int, states: int, rank: int = 64, width: int = 64) -> None:
        super().__init__()
        refuse_none(self, rank=rank)
        self.before, self.after = (nn.Parameter(torch.randn(states, width)) for _ in range(2))
        self.features = nn.Linear(width, rank, bias=False)

    def forward(self, inputs: Tensor) -> LowRank:
        right = self.features(self.after).t()
        return LowRank(self.features(self.before) + right.logsumexp(1), right)


class SecondOrderTransitions(Transitions):
    """p(z_t | z_t-2, z_t-1): a parameter for every three states.

    Args:
        vocabulary: number of words.
        states: number of states, K.
        spread: standard deviation of the first logits.
    """

    def __init__(self, vocabulary: int, states: int, spread: float = 0.1) -> None:
        super().__init__()
        self.logits = nn.Parameter(spread * torch.randn(states + 1, states, states))

    def forward(self, inputs: Tensor) -> SecondOrder:
        return SecondOrder(self.logits)


class StateNetwork(nn.Module):
    """Vectors of states through two hidden layers: f(state), `[K, width]`.

    Args:
        states: K.
        width: size of the vectors and layers.
        dropout: rate on the last.
        spread: standard deviation, over states, of what it gives at first; None for PyTorch's own start.
    """

    def __init__(self, states: int, width: int, dropout: float = 0.0, spread: float | None = None) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(states, width))
        self.hidden = nn.Sequential(nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.dropout, self.out = nn.Dropout(dropout), nn.Linear(width, width)
        if spread is not None and states > 1:
            with torch.no_grad():
                self.out.weight.mul_(spread / self.out(self.hidden(self.vectors)).std(0).mean())

    def forward(self) -> Tensor:
        found: Tensor = self.out(self.dropout(self.hidden(self.vectors)))
        return found
