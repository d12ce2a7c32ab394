"""A decoder of causal self-attention (layer: nn)."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from pyro_nlp.distributions.fused import _second_derivatives
from pyro_nlp.nn.decoders import Decoder, State
from pyro_nlp.nn.words import word_vectors

LatentAs = Literal["memory", "embedding", "both"]


class TransformerDecoder(Decoder):
    """Blocks of causal self-attention; z as a memory they attend to, or added to every word vector, or both.

    Vaswani et al. 2017 (arXiv:1706.03762), in the size of the sentence VAE in texar's examples, with sinusoidal
    positions. Layers are normalised before each part and once at the end, as texar has it: unlike normalisation after
    each part it trains at full rate from the first step (Xiong et al. 2020, arXiv:2002.04745). Dropout acts on word
    vectors, attention, inside the feed-forward part, and on what each part adds.

    z as a memory is projected to tokens that a cross-attention in every block reads. One token has all the attention
    there is, so that its queries and keys would do nothing: what remains, and is all that is built, is its value,
    added at every position. (Optimus, Li et al. 2020, arXiv:2004.04092, puts its memory before the words of the
    self-attention instead; its embedding scheme is the one here.)

    Word by word it keeps the keys and values of every block, `[rows, heads, time, width / heads]`, which grow.

    PyTorch's fused attention has no second derivative: where gradients are taken on CPU, and anywhere within
    `distributions.second_derivatives()`, the plain one takes its place, which has.

    Args:
        vocabulary: number of words, V.
        latent: size of z; 0 for a language model.
        embedding: size of the word vectors; projected where it is not `width`.
        width: size of a state, D.
        layers: number of blocks.
        heads: of each attention; they divide `width` between them.
        feedforward: width inside the feed-forward part.
        dropout: rate of all dropout.
        latent_as: `memory`, `embedding` or `both`.
        memory_tokens: that z is projected to as a memory.
    """

    frequencies: Tensor

    def __init__(
        self,
        vocabulary: int,
        latent: int,
        embedding: int = 256,
        width: int = 256,
        layers: int = 3,
        heads: int = 8,
        feedforward: int = 1024,
        dropout: float = 0.2,
        latent_as: LatentAs = "memory",
        memory_tokens: int = 1,
    ) -> None:
        super().__init__(vocabulary, latent)
        if latent_as not in ("memory", "embedding", "both"):
            raise ValueError(f"latent_as is 'memory', 'embedding' or 'both', not {latent_as!r}")
        if heads < 1 or width % heads:
            near = [h for h in range(1, width + 1) if width % h == 0]
            raise ValueError(f"{heads} heads cannot divide a width of {width} evenly: take one of {near} heads")
        if layers < 1 or memory_tokens < 1:
            raise ValueError(f"layers and memory_tokens are at least 1, not {layers} and {memory_tokens}")
        self.width, self.layers = width, layers
        self.words = word_vectors(vocabulary, embedding)
        self.project = nn.Linear(embedding, width, bias=False) if embedding != width else nn.Identity()
        tokens = memory_tokens if latent and latent_as != "embedding" else 0
        self.memory = nn.Linear(latent, tokens * width) if tokens else None
        self.from_z = nn.Linear(latent, width, bias=False) if latent and latent_as != "memory" else None
        self.blocks = nn.ModuleList(_Block(width, heads, feedforward, dropout, tokens) for _ in range(layers))
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)
        frequencies = 10_000.0 ** (-torch.arange(0, width, 2) / width)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, z: Tensor, inputs: Tensor) -> Tensor:
        left = torch.broadcast_shapes(z.shape[:-1], inputs.shape[:-1])
        hidden, memory = self._read(inputs, z, 0), self._memory(z)
        for block in self.blocks:
            hidden, _ = block(hidden, memory)
        return self.norm(hidden).expand(*left, inputs.shape[-1], self.width)

    def start(self, z: Tensor) -> State:
        caches = [c for block in self.blocks if isinstance(block, _Block) for c in block.attention.nothing(z)]
        return z, *caches

    def step(self, state: State, words: Tensor) -> tuple[Tensor, State]:
        z, *before = state
        hidden, memory, after = self._read(words[:, None], z, before[0].shape[-2]), self._memory(z), []
        for i, block in enumerate(self.blocks):
            hidden, caches = block(hidden, memory, (before[2 * i], before[2 * i + 1]))
            after += caches
        return self.norm(hidden)[:, 0], (z, *after)

    def _read(self, inputs: Tensor, z: Tensor, first: int) -> Tensor:
        """What the first block reads of words `[..., T]` at positions from `first` on, `[..., T, width]`."""
        # of the size of the positions, whose entries are sines
        words = self.project(self.words(inputs) * self.words.embedding_dim**0.5)
        hidden = words + self._positions(first, first + inputs.shape[-1])
        if self.from_z is not None:
            hidden = hidden + self.from_z(z)[..., None, :]
        return self.dropout(hidden)

    def _memory(self, z: Tensor) -> Tensor | None:
        """z as tokens, `[..., M, width]`."""
        return None if self.memory is None else self.memory(z).unflatten(-1, (-1, self.width))

    def _positions(self, first: int, end: int) -> Tensor:
        """Sines and cosines of positions, `[end - first, width]`."""
        angle = torch.arange(first, end, device=self.frequencies.device)[:, None] * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], -1)[:, : self.width]


class _Block(nn.Module):
    """Self-attention, attention to `tokens` of memory, feed-forward; each reads a normalised x and adds to x."""

    def __init__(self, width: int, heads: int, feedforward: int, dropout: float, tokens: int) -> None:
        super().__init__()
        self.attention_norm, self.attention = nn.LayerNorm(width), _SelfAttention(width, heads, dropout)
        self.memory = _MemoryAttention(width, heads, dropout, tokens) if tokens else None
        self.feedforward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, feedforward),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(feedforward, width),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, memory: Tensor | None, past: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """x `[..., T, width]`, memory `[..., M, width]`; also keys and values up to here."""
        added, cache = self.attention(self.attention_norm(x), past)
        x = x + self.dropout(added)
        if self.memory is not None and memory is not None:
            # the left dimensions of z come in here: before it, particles share what they read
            x = x + self.dropout(self.memory(x, memory))
        return x + self.dropout(self.feedforward(x)), cache


class _SelfAttention(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout, self.size = heads, dropout, width // heads
        self.project = nn.Linear(width, 3 * width, bias=False)  # a bias of the keys would do nothing
        self.out = nn.Linear(width, width)

    def nothing(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values before the first word, `[rows, heads, 0, width / heads]`."""
        empty = z.new_zeros(len(z), self.heads, 0, self.size)
        return empty, empty

    def forward(self, x: Tensor, past: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Of a whole sentence, or of its next word given the keys and values of its past."""
        query, key, value = (_split(y, self.heads) for y in self.project(x).chunk(3, -1))
        if past is not None:
            key, value = (torch.cat([a.to(b.dtype), b], -2) for a, b in ((past[0], key), (past[1], value)))
        found = _attend(query, key, value, self.dropout if self.training else 0.0, causal=past is None)
        return self.out(_join(found, x.shape)), (key, value)


class _MemoryAttention(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float, tokens: int) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width, bias=False)) if tokens > 1 else None
        self.key = nn.Linear(width, width, bias=False) if tokens > 1 else None
        self.value, self.out = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        """x `[..., T, width]`, memory `[..., M, width]`, result `[..., T, width]`."""
        value = self.value(memory)
        if self.query is None or self.key is None:
            added: Tensor = self.out(value)
            return added.expand(*added.shape[:-2], *x.shape[-2:])
        left = torch.broadcast_shapes(x.shape[:-2], memory.shape[:-2])
        whole = [y.expand(*left, *y.shape[-2:]) for y in (self.query(x), self.key(memory), value)]
        query, key, value = (_split(y, self.heads) for y in whole)
        found = _attend(query, key, value, self.dropout if self.training else 0.0)
        joined: Tensor = self.out(_join(found, (*left, *x.shape[-2:])))
        return joined


def _attend(query: Tensor, key: Tensor, value: Tensor, dropout: float, causal: bool = False) -> Tensor:
    # the gradient of PyTorch's fused attention is slow on CPU, in bf16 several times slower than plain products
    plain = _second_derivatives.get() or (query.device.type == "cpu" and torch.is_grad_enabled())
    with sdpa_kernel(SDPBackend.MATH) if plain else nullcontext():
        return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=causal)


def _split(x: Tensor, heads: int) -> Tensor:
    """`[..., T, width]` to `[rows, heads, T, width / heads]`, which PyTorch's fused attention wants."""
    return x.reshape(-1, *x.shape[-2:]).unflatten(-1, (heads, -1)).transpose(-3, -2)


def _join(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The reverse, to `shape`."""
    return x.transpose(-3, -2).reshape(shape)
