"""Word vectors (layer: nn)."""

from __future__ import annotations

from torch import nn


def word_vectors(vocabulary: int, size: int) -> nn.Embedding:
    """An embedding that starts in U(-0.1, 0.1); PyTorch's N(0, 1) saturates a recurrent cell and slows learning."""
    table = nn.Embedding(vocabulary, size)
    nn.init.uniform_(table.weight, -0.1, 0.1)
    return table
