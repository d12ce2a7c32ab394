"""Word vectors (layer: nn)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_nlp.data.vectors import Vectors


def word_vectors(vocabulary: int, size: int) -> nn.Embedding:
    """An embedding that starts in U(-0.1, 0.1); PyTorch's N(0, 1) saturates a recurrent cell and slows learning."""
    table = nn.Embedding(vocabulary, size)
    nn.init.uniform_(table.weight, -0.1, 0.1)
    return table


def look_up(table: nn.Embedding, words: Tensor) -> Tensor:
    """Vectors of words: of ids `[...]`, or of points of the simplex `[..., V]`, in floating point."""
    return words.to(table.weight.dtype) @ table.weight if words.is_floating_point() else table(words)


@torch.no_grad()
def use_vectors(module: nn.Module, vectors: Vectors) -> list[str]:
    """Start every embedding of `module` that has the shape of `vectors` from them; words without a vector stay.

    Returns the names of the embeddings. They are trained on like any other parameter.

    Raises:
        ValueError: the module has no embedding of that shape; the message names the shapes found.
    """
    rows, width = vectors.table.shape
    found = {name: part for name, part in module.named_modules() if isinstance(part, nn.Embedding)}
    fitting = {name: part for name, part in found.items() if part.weight.shape == (rows, width)}
    if not fitting:
        shapes = ", ".join(f"{name or 'itself'} [{p.num_embeddings}, {p.embedding_dim}]" for name, p in found.items())
        widths = sorted({part.embedding_dim for part in found.values() if part.num_embeddings == rows})
        cure = "read the vectors with the vocabulary of the model's corpus"
        if widths:
            cure = f"the vectors are {width} wide and the model's {' and '.join(map(str, widths))}: make them equal"
        if not found:
            cure = "give a model that reads words"
        raise ValueError(
            f"no embedding of {type(module).__name__} is [{rows}, {width}] (found {shapes or 'none'}); {cure}"
        )
    for part in fitting.values():
        table = part.weight
        known = vectors.known.to(table.device)
        table[known] = vectors.table.to(table)[known]
    return list(fitting)
