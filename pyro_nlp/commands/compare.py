"""`pyro-nlp compare`: one model by several strategies, in one table (layer: cli)."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from pyro_nlp import recipe as recipes
from pyro_nlp.commands.options import positive, printed_config
from pyro_nlp.commands.output import OUT
from pyro_nlp.comparison import ComparisonError, compare_strategies
from pyro_nlp.recipe_errors import RecipeError


def compare_options(made: argparse.ArgumentParser) -> None:
    """The options of `pyro-nlp compare`."""
    made.add_argument(
        "--strategies",
        nargs="+",
        required=True,
        metavar="NAME",
        help="shipped strategies (see `pyro-nlp list`) or YAML files; the others are paired with the first",
    )
    made.add_argument("--seeds", type=positive, default=3, help="runs of each strategy, from the recipe's seed on")
    made.add_argument("--workers", type=positive, default=1, help="runs at once, which share the threads")
    made.add_argument("--samples", type=positive, default=100, help="importance samples per document")
    made.add_argument("--out", help="folder of the comparison; by default runs/compare-NAME; if it exists, go on there")
    made.add_argument("--json", action="store_true", help="print JSON")


def compare(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """`pyro-nlp compare RECIPE --strategies a b c`"""
    if any(argument.split("=")[0] == "--strategy" for argument in overrides):
        raise RecipeError("compare takes --strategies a b c, and no --strategy")
    if printed_config(options, overrides):
        return
    out = options.out or f"runs/compare-{recipes.find(options.recipe).stem}"
    found = compare_strategies(
        options.recipe,
        options.strategies,
        options.seeds,
        overrides=overrides,
        out=out,
        workers=options.workers,
        samples=options.samples,
    )
    if options.json:
        print(json.dumps(found.as_dict(), indent=2))
    else:
        OUT.print(found.table(), markup=False)
        for note in found.notes:
            OUT.print(note, markup=False, highlight=False)
        OUT.print(f"curves, runs and table in {out}", markup=False, highlight=False)
    if found.failures:
        count = len(found.failures)
        raise ComparisonError(
            f"{count} run{'s were' if count > 1 else ' was'} not finished ({found.failures[0]}); "
            "give the same command again to go on"
        )
