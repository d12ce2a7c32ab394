"""What a model learns of its corpus before it sees a batch (layer: nn)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn


def meet_corpus(corpus: Any, *modules: nn.Module | None) -> None:
    """Call `meet_corpus(corpus)` of every part of the modules that has such a method.

    A model is made for a number of words. A part that has to know more takes it from the corpus here: how words are
    spelled, or that there are not more tags than states. What it takes belongs in a buffer, of a size known before, so
    that it is saved and loaded with the weights. `fit` calls it, and whatever reads a recipe.

    Raises:
        ValueError: of a part that the corpus does not suit.
    """
    for module in modules:
        for part in module.modules() if isinstance(module, nn.Module) else ():
            meet: Callable[[Any], None] | None = getattr(part, "meet_corpus", None)
            if meet is not None:
                meet(corpus)
