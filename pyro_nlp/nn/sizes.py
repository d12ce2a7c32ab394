"""Sizes that a network cannot do without (layer: nn)."""

from __future__ import annotations


def refuse_none(who: object, **sizes: int) -> None:
    """Refuse a size below one, by the name of the argument; `who` is what takes it.

    Raises:
        ValueError: names class and argument.
    """
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{type(who).__name__}: {name} is {size}; there is at least one")
