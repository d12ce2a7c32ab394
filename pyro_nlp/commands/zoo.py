"""`pyro-nlp list` and `pyro-nlp cite`: what the zoo holds, and whose it is (layer: cli)."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
from collections.abc import Sequence

from rich.table import Table

from pyro_nlp import recipe as recipes
from pyro_nlp.citations import bibliography
from pyro_nlp.commands.options import printed_config
from pyro_nlp.commands.output import OUT
from pyro_nlp.recipe_strategies import shipped_strategies

_PLURAL = {"recipe": "recipes", "strategy": "strategies"}


def list_zoo(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """`pyro-nlp list`"""
    recipes.zoo()
    for package in ("models", "guides"):
        table = Table(package[:-1], "what it is", box=None, title=package, title_justify="left")
        root = importlib.import_module(f"pyro_nlp.{package}")
        for module in pkgutil.iter_modules(root.__path__):
            place = f"{root.__name__}.{module.name}"
            for name, found in vars(importlib.import_module(place)).items():
                own = isinstance(found, type) and found.__module__ == place and not name.startswith("_")
                if own and not getattr(found.forward, "__isabstractmethod__", False):
                    table.add_row(name, " ".join((found.__doc__ or "").strip().splitlines()[0].split()))
        OUT.print(table, markup=False)
    for title, files in (("recipe", recipes.shipped()), ("strategy", shipped_strategies())):
        table = Table(title, "what it is", box=None, title=_PLURAL[title], title_justify="left")
        for name, path in files.items():
            table.add_row(name, path.read_text(encoding="utf-8").splitlines()[0].lstrip("# "))
        OUT.print(table, markup=False)


def cite(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """`pyro-nlp cite RECIPE`"""
    if printed_config(options, overrides):
        return
    _, config, _, made = recipes.read(options.recipe, overrides, options.strategy)
    print("\n\n".join(bibliography(made.dump(config))))
