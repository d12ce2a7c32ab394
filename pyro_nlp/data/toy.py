"""Data drawn from a known density, for diagnostics with exact answers (layer: data)."""

from __future__ import annotations

import numpy as np

from pyro_nlp.data.corpus import Corpus
from pyro_nlp.data.files import CorpusError
from pyro_nlp.data.splits import VectorSplit


class Ring(Corpus):
    """Points near a circle: z ~ N(0, I_2), x = z/10 + z/|z| + noise * eps.

    The splits hold `size`, `size // 5` and `size // 5` points (at least one), float32 `[N, 2]`.

    Args:
        size: points to train on.
        noise: standard deviation of the Gaussian noise.
        seed: of the generator.
    """

    reference = "Doersch 2016, Tutorial on variational autoencoders (arXiv:1606.05908), figure 2"

    def __init__(self, size: int = 2000, noise: float = 0.1, seed: int = 0):
        if size < 1 or not noise >= 0:
            raise CorpusError(f"size is {size} and noise is {noise}; size must be at least 1 and noise at least 0")
        self.name = "ring"
        rng = np.random.default_rng(seed)
        self.train, self.valid, self.test = (_points(n, noise, rng) for n in (size, *[max(1, size // 5)] * 2))


def _points(size: int, noise: float, rng: np.random.Generator) -> VectorSplit:
    z = rng.standard_normal((size, 2))
    x = z / 10 + z / np.linalg.norm(z, axis=1, keepdims=True) + noise * rng.standard_normal((size, 2))
    return VectorSplit(x.astype(np.float32))
