"""Strategies by name: small files of `Strategy` arguments that take the place of a recipe's (layer: recipe).

A file's first line says what it is. Its keys replace those of the recipe's `strategy` section, whole; what it does not
mention, as the annealing of the KL, stays as the recipe has it.
"""

from __future__ import annotations

import importlib.resources
from dataclasses import fields
from pathlib import Path
from typing import Any

from pyro_nlp.inference.strategy import Strategy
from pyro_nlp.recipe_errors import RecipeError, read_yaml, suggest


def named(folder: str) -> dict[str, Path]:
    """The YAML files in a folder of the package, by name."""
    found = importlib.resources.files("pyro_nlp").joinpath(*folder.split("/"))
    return {
        p.name.removesuffix(".yaml"): Path(str(p))
        for p in sorted(found.iterdir(), key=lambda p: p.name)
        if p.name.endswith(".yaml")
    }


def shipped_strategies() -> dict[str, Path]:
    """The strategies that come with the package, by name."""
    return named("recipes/strategies")


def find_strategy(strategy: str) -> Path:
    """The file of a shipped strategy's name, or of a path."""
    known = shipped_strategies()
    if strategy in known:
        return known[strategy]
    if Path(strategy).is_file():
        return Path(strategy)
    raise RecipeError(
        f"there is no strategy '{strategy}'{suggest(strategy, known)} (give a YAML file, or one of {', '.join(known)})"
    )


def read_strategy(strategy: str) -> dict[str, Any]:
    """The arguments of `Strategy` that a named strategy sets; what they are is left to the recipe's parser."""
    path = find_strategy(strategy)
    known = [field.name for field in fields(Strategy)]
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: a strategy has the keys {', '.join(known)}")
    for key in content:
        if key not in known:
            raise RecipeError(f"{path.name}: '{key}': a strategy has no such key{suggest(str(key), known)}")
    return content
