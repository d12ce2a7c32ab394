"""A convolutional decoder whose reach is chosen (layer: nn)."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_nlp.nn.cat import cat
from pyro_nlp.nn.decoders import Decoder, State
from pyro_nlp.nn.words import word_vectors

Size = Literal["small", "medium", "large", "very large"]
SIZES: dict[str, list[int]] = {
    "small": [1, 2, 4],
    "medium": [1, 2, 4, 8, 16],
    "large": [1, 2, 4, 8, 16] * 2,
    "very large": [1, 2, 4, 8, 16] * 3,
}
"""Dilations by size; with a kernel of 3 a state sees 15, 63, 125 and 187 words."""


class DilatedCNNDecoder(Decoder):
    """Causal dilated convolutions that see a bounded number of words, and z beside each of them.

    Yang et al. 2017 (arXiv:1702.08139). The less of the past a decoder sees, the more it has to learn from z: the size
    trades one for the other, between a bag of words and an LSTM. Every residual block adds to its input what a 1x1, a
    dilated and a 1x1 convolution make of it, with a ReLU before each of them. There is no normalisation:
    three products that start as PyTorch has it make little of what a block reads, so that depth changes no scale.

    The dilated convolution is one product of the words it reads, joined: a sentence is read by large products, and word
    by word every block keeps the inputs that it will read again, so that a word costs the same wherever it stands.

    Args:
        vocabulary: number of words, V.
        latent: size of z; 0 for a language model.
        embedding: size of the word vectors.
        width: channels between blocks, the size of a state D.
        size: `small`, `medium`, `large` or `very large`: the dilations of the paper's SCNN, MCNN, LCNN and VLCNN.
        dilations: one block for each, in place of `size`.
        bottleneck: channels inside blocks; half of `width` by default.
        kernel: words each convolution reads.
        input_dropout: rate on word vectors.
        output_dropout: rate on states.
        skip: put z beside every state too; D grows by `latent`.
    """

    def __init__(
        self,
        vocabulary: int,
        latent: int,
        embedding: int = 256,
        width: int = 256,
        size: Size = "medium",
        dilations: list[int] | None = None,
        bottleneck: int | None = None,
        kernel: int = 3,
        input_dropout: float = 0.0,
        output_dropout: float = 0.0,
        skip: bool = False,
    ) -> None:
        super().__init__(vocabulary, latent)
        if dilations is None and size not in SIZES:
            raise ValueError(f"size is {', '.join(map(repr, SIZES))}, not {size!r}; or give dilations=[...]")
        self.dilations = list(SIZES[size] if dilations is None else dilations)
        if not self.dilations or min(self.dilations) < 1 or kernel < 1:
            raise ValueError(
                f"dilations are one or more numbers of at least 1 and kernel is at least 1, not {self.dilations} and "
                f"{kernel}"
            )
        self.width, self.kernel, self.skip = width + latent * skip, kernel, skip
        self.words = word_vectors(vocabulary, embedding)
        # a product with z beside a word is the sum of two, and that with z is the same for all words
        self.from_words = nn.Linear(embedding, width)
        self.from_z = nn.Linear(latent, width, bias=False) if latent else None
        inside = max(1, width // 2) if bottleneck is None else bottleneck
        self.blocks = nn.ModuleList(_Block(width, inside, kernel, d) for d in self.dilations)
        self.input_dropout, self.output_dropout = nn.Dropout(input_dropout), nn.Dropout(output_dropout)

    @property
    def receptive_field(self) -> int:
        """How many of the words read so far, the newest one counted, a state depends on."""
        return 1 + (self.kernel - 1) * sum(self.dilations)

    def meet_corpus(self, corpus: Any) -> None:
        """Refuse dilations that no sentence of the corpus is long enough for."""
        longest, wide = int(corpus.train.lengths.max()) - 1, max(self.dilations)  # the end not counted
        if self.kernel == 1 or wide <= longest:
            return
        fitting = [d for d in self.dilations if d <= longest] or [1]
        raise ValueError(
            f"DilatedCNNDecoder: a dilation of {wide} (its block reaches back {(self.kernel - 1) * wide} words) is "
            f"wider than the longest sentence of {longest} words, so that all it reads of the past is padding: "
            f"use dilations={fitting}"
        )

    def forward(self, z: Tensor, inputs: Tensor) -> Tensor:
        left = torch.broadcast_shapes(z.shape[:-1], inputs.shape[:-1])
        hidden = self._read(inputs, z[..., None, :])
        for block in self.blocks:
            hidden = block(hidden)
        return self._beside(hidden, z[..., None, :]).expand(*left, inputs.shape[-1], self.width)

    def start(self, z: Tensor) -> State:
        return z, *(block.nothing(z) for block in self.blocks if isinstance(block, _Block))

    def step(self, state: State, words: Tensor) -> tuple[Tensor, State]:
        z, *before = state
        hidden, after = self._read(words, z), []
        for block, past in zip(self.blocks, before, strict=True):
            assert isinstance(block, _Block)
            hidden, past = block.step(hidden, past)
            after.append(past)
        return self._beside(hidden, z), (z, *after)

    def _read(self, inputs: Tensor, z: Tensor) -> Tensor:
        """What the first block reads, in float32 also under autocast, as blocks add to it."""
        hidden = self.from_words(self.input_dropout(self.words(inputs))).to(self.words.weight.dtype)
        return hidden if self.from_z is None else hidden + self.from_z(z)

    def _beside(self, hidden: Tensor, z: Tensor) -> Tensor:
        hidden = self.output_dropout(hidden)
        return cat(hidden, z.to(hidden.dtype)) if self.skip else hidden


class _Block(nn.Module):
    """x + widen(relu(dilated(relu(narrow(relu(x)))))) over `[..., T, width]`.

    Args:
        width: channels outside.
        bottleneck: channels inside.
        kernel: inputs that are read.
        dilation: words from one of them to the next.
    """

    def __init__(self, width: int, bottleneck: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.dilation, self.past, self.bottleneck = dilation, (kernel - 1) * dilation, bottleneck
        self.narrow = nn.Linear(width, bottleneck)
        self.dilated = nn.Linear(kernel * bottleneck, bottleneck)  # oldest word first
        self.widen = nn.Linear(bottleneck, width)

    def forward(self, x: Tensor) -> Tensor:
        inside = F.relu(self.narrow(F.relu(x)))
        padded = F.pad(inside, (0, 0, self.past, 0))
        read = [padded[..., i : i + x.shape[-2], :] for i in range(0, self.past + 1, self.dilation)]
        return x + self.widen(F.relu(self.dilated(torch.cat(read, -1))))

    def nothing(self, z: Tensor) -> Tensor:
        """The inputs before the first word, `[rows, past, bottleneck]`."""
        return z.new_zeros(len(z), self.past, self.bottleneck)

    def step(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """The output at one word `[rows, width]`, and the past of the next."""
        inside = F.relu(self.narrow(F.relu(x)))
        window = torch.cat([past, inside[:, None]], 1)
        return x + self.widen(F.relu(self.dilated(window[:, :: self.dilation].flatten(1)))), window[:, 1:]
