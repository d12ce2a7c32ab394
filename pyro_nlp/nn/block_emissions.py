"""Words emitted by one block of the states each (layer: nn)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_nlp.distributions.chain_blocks import BlockEmission, places
from pyro_nlp.nn.chains import WordEmissions


class BlockEmissions(WordEmissions):
    """`WordEmissions` where a word can be emitted by one block of the states only    Chiu and Rush 2020

    (arXiv:2011.04640.) Thousands of states: at a word only the K / M states of its block are looked at, and a step
    costs (K / M)^2 products. With transitions that are a table, and without known tags. The paper's blocks are Brown
    clusters. Here the words are dealt out by their frequency, one to each block in turn, so that all blocks have as
    many words and nearly as many tokens; `assign` takes clusters of your own.

    Args:
        vocabulary: number of words, V, the commonest first, as corpora number them.
        states: number of states, K.
        blocks: M; it divides K.
        width: size of all vectors and layers.
        dropout: rate on the states' last layer.
        spread: standard deviation, over states, of f at first.
    """

    blocks: Tensor

    def __init__(
        self,
        vocabulary: int,
        states: int,
        blocks: int = 16,
        width: int = 128,
        dropout: float = 0.0,
        spread: float = 3.0,
    ) -> None:
        super().__init__(vocabulary, states, width, dropout, spread)
        if blocks < 1 or states % blocks or blocks > vocabulary:
            raise ValueError(
                f"BlockEmissions: {blocks} blocks of {states} states and {vocabulary} words: give a number that "
                "divides the states, with a word at least for each block"
            )
        self.count = blocks
        self.register_buffer("blocks", torch.arange(vocabulary) % blocks)

    def assign(self, blocks: Sequence[int] | Tensor) -> None:
        """The block of each word, `[V]`, in place of those dealt out; to be called before training.

        Raises:
            ValueError: not one for each word, or a block without a word.
        """
        given = torch.as_tensor(blocks, dtype=torch.long)
        if given.shape != self.blocks.shape:
            raise ValueError(f"blocks of {len(given)} words, and a vocabulary of {len(self.blocks)}: give one for each")
        places(given, self.count)
        self.blocks.copy_(given)

    def forward(self) -> BlockEmission:
        place, held = places(self.blocks, self.count)
        member = torch.zeros(held.shape, dtype=torch.long, device=held.device)
        member[self.blocks, place] = torch.arange(len(self.blocks), device=held.device)
        states = self.states().unflatten(0, (self.count, -1))
        logits = self.vectors()[member] @ states.mT + self.bias[member][..., None]  # [M, W, K / M]
        return BlockEmission(logits, self.blocks)
