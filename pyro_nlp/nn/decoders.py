"""Networks that read a sentence shifted by one, and a code, and say what they expect next (layer: nn).

A decoder is built as `factory(vocabulary, latent)`; everything else about it is configuration. `latent` may be
0: then it is a language model. All take any left batch dimensions; recurrent ones read relaxed words (points of the
simplex, with a dimension V more) where ids are asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from pyro_nlp.nn.words import look_up, word_vectors

State = tuple[Tensor, ...]
"""What a decoder remembers between two words; every tensor is `[rows, ...]`, so that a beam can be reordered."""


class Decoder(nn.Module, ABC):
    """states_t = f(z, x_<t).

    Attributes:
        width: size of a state, D.
    """

    width: int

    def __init__(self, vocabulary: int, latent: int) -> None:
        super().__init__()
        self.vocabulary, self.latent = vocabulary, latent

    @abstractmethod
    def forward(self, z: Tensor, inputs: Tensor) -> Tensor:
        """Teacher-forced states: z `[..., B, latent]`, inputs (ids, `<s>` first) `[..., B, T]` to `[..., B, T, D]`."""

    def start(self, z: Tensor) -> State:
        """The state before the first word; z `[rows, latent]`."""
        return z, z.new_zeros(len(z), 0, dtype=torch.long)

    def step(self, state: State, words: Tensor) -> tuple[Tensor, State]:
        """Read one word in every row: words `[rows]` to the hidden `[rows, D]` and the next state.

        This default reads the whole prefix again, which is right for every decoder; recurrent ones do better.
        """
        z, prefix = state
        prefix = torch.cat([prefix, words[:, None]], 1)
        return self(z, prefix)[:, -1], (z, prefix)


class LSTMDecoder(Decoder):
    """An LSTM with z as its initial state and beside every input (Bowman et al. 2016; He et al. 2019).

    c_0 = W z, h_0 = tanh(W z).

    Args:
        vocabulary: number of words, V.
        latent: size of z; 0 for a language model.
        embedding: size of the word vectors.
        width: size of a state, D.
        layers: recurrent layers; z initialises all of them.
        input_dropout: rate on word vectors.
        output_dropout: rate on states.
        skip: put z beside the input of every layer and every state too, a path of its own to the words (Dieng et al.
            2019, arXiv:1807.04863); D grows by `latent`.
    """

    cell: type[nn.LSTM] | type[nn.GRU] = nn.LSTM

    def __init__(
        self,
        vocabulary: int,
        latent: int,
        embedding: int = 256,
        width: int = 256,
        layers: int = 1,
        input_dropout: float = 0.0,
        output_dropout: float = 0.0,
        skip: bool = False,
    ) -> None:
        super().__init__(vocabulary, latent)
        self.width, self.layers = width + latent * skip, layers
        self.hidden, self.skip = width, skip
        self.words = word_vectors(vocabulary, embedding)
        # a network of many layers reads z at the bottom alone
        self.network = self.cell(embedding + latent, width, 1 if skip else layers, batch_first=True)
        self.above = nn.ModuleList(
            self.cell(width + latent, width, batch_first=True) for _ in range(layers - 1 if skip else 0)
        )
        self.initial = nn.Linear(latent, layers * width, bias=False) if latent else None
        self.input_dropout, self.output_dropout = nn.Dropout(input_dropout), nn.Dropout(output_dropout)

    def embed(self, inputs: Tensor) -> Tensor:
        """Word vectors of `inputs` `[..., T]`, or of relaxed words `[..., T, V]`, `[..., T, embedding]`."""
        return look_up(self.words, inputs)

    def forward(self, z: Tensor, inputs: Tensor) -> Tensor:
        vectors = self.embed(inputs)
        left = torch.broadcast_shapes(z.shape[:-1], vectors.shape[:-2])
        rows, length = left.numel(), vectors.shape[-2]
        words = self.input_dropout(vectors).expand(*left, -1, -1).reshape(rows, length, -1)
        code = z.expand(*left, -1).reshape(rows, -1)
        hidden, _ = self._read(words, code, self._initial_state(code))
        return self._beside(hidden, code).view(*left, length, self.width)

    def start(self, z: Tensor) -> State:
        return z, *(h.transpose(0, 1) for h in self._initial_state(z))

    def step(self, state: State, words: Tensor) -> tuple[Tensor, State]:
        z, *memory = state
        vectors = self.input_dropout(self.embed(words[:, None]))
        hidden, memory = self._read(vectors, z, [h.transpose(0, 1).contiguous() for h in memory])
        return self._beside(hidden, z)[:, 0], (z, *(h.transpose(0, 1) for h in memory))

    def _initial_state(self, z: Tensor) -> list[Tensor]:
        """`[layers, rows, width]`: (h, c) of an LSTM, (h,) of a GRU."""
        if self.initial is None:
            h = c = z.new_zeros(self.layers, len(z), self.hidden)
        else:
            c = self.initial(z).view(-1, self.layers, self.hidden).transpose(0, 1).contiguous()
            h = c.tanh()
        return [h, c] if self.cell is nn.LSTM else [h]

    def _beside(self, hidden: Tensor, z: Tensor) -> Tensor:
        """States `[rows, T, D]` of hidden ones `[rows, T, hidden]`."""
        hidden = self.output_dropout(hidden)
        return self._with(z, hidden) if self.skip else hidden

    def _with(self, z: Tensor, vectors: Tensor) -> Tensor:
        """z `[rows, latent]` beside vectors `[rows, T, D]`."""
        return torch.cat([vectors, z[:, None].to(vectors.dtype).expand(-1, vectors.shape[1], -1)], -1)

    def _read(self, words: Tensor, z: Tensor, memory: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        hidden, after = words, []
        for network, *before in zip(
            (self.network, *self.above), *(m.split(self.network.num_layers) for m in memory), strict=True
        ):
            inputs = self._with(z, hidden) if self.latent else hidden
            hidden, last = network(inputs, tuple(before) if self.cell is nn.LSTM else before[0])
            after.append(last if self.cell is nn.LSTM else (last,))
        return hidden, [torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*after, strict=True)]


class GRUDecoder(LSTMDecoder):
    """The same with a GRU: h_0 = tanh(W z). Same arguments as `LSTMDecoder`."""

    cell = nn.GRU


class InputlessDecoder(LSTMDecoder):
    """An LSTM that sees z and the number of words so far, never the words (Bowman et al. 2016, section 4.1).

    Every bit about the sentence has to come through z: the strongest cure of posterior collapse, and the
    dearest in likelihood. Same arguments as `LSTMDecoder`.
    """

    def __init__(self, vocabulary: int, latent: int, embedding: int = 256, **options: Any) -> None:
        super().__init__(vocabulary, latent, embedding, **options)
        self.words = word_vectors(1, embedding)  # one vector in place of every word

    def embed(self, inputs: Tensor) -> Tensor:
        places = inputs[..., 0] if inputs.is_floating_point() else inputs
        return self.words(torch.zeros_like(places, dtype=torch.long))
