"""Types of command-line options, and what commands that take a recipe have in common (layer: cli)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from pyro_nlp import recipe as recipes
from pyro_nlp.recipe_errors import RecipeError


def positive(text: str) -> int:
    """A whole number, at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


def two_or_more(text: str) -> int:
    """A whole number, at least 2."""
    value = int(text)
    if value < 2:
        raise argparse.ArgumentTypeError(f"{value} is less than 2")
    return value


def temperature(text: str) -> float:
    """A finite number, at least 0."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a temperature: a finite number, at least 0")
    return value


positive.__name__ = two_or_more.__name__ = "int"  # as argparse names a type
temperature.__name__ = "float"


def recipe_options(made: argparse.ArgumentParser, optional: bool = False) -> None:
    """RECIPE, and what can be done with one before it is run."""
    made.epilog = (
        "Any value of the recipe can be set: --model.latent 16 --training.epochs 5 --corpus.path my.txt. "
        "--print_config prints the result."
    )
    made.add_argument("recipe", metavar="RECIPE", nargs="?" if optional else None)
    made.add_argument("--print_config", action="store_true", help="print the recipe with all values and stop")


def strategy_option(made: argparse.ArgumentParser) -> None:
    """A strategy by name."""
    made.add_argument(
        "--strategy",
        metavar="NAME",
        help="a shipped strategy (see `pyro-nlp list`) or a YAML file, in place of the recipe's; "
        "--strategy.bound and the like change it further",
    )


def printed_config(options: argparse.Namespace, overrides: Sequence[str]) -> bool:
    """Print the recipe with all values if that was asked for."""
    if not options.print_config:
        return False
    if options.recipe is None:
        raise RecipeError("--print_config wants a RECIPE")
    print(recipes.spelled_out(options.recipe, overrides, options.strategy).partition("\n")[2], end="")
    return True
