"""The command line: its parser, and how commands end (layer: cli).

The commands stand in `commands/`; errors are one line on standard error and exit status 1, misuse is status 2.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import pyro_nlp
from pyro_nlp import recipe as recipes
from pyro_nlp.commands.check import DRAWS, check
from pyro_nlp.commands.compare import compare, compare_options
from pyro_nlp.commands.diagnose import diagnose, diagnose_options
from pyro_nlp.commands.documents import topics, topics_options
from pyro_nlp.commands.generate import generate, generate_options
from pyro_nlp.commands.options import positive, recipe_options, strategy_option
from pyro_nlp.commands.runs import evaluate_run, train
from pyro_nlp.commands.zoo import cite, list_zoo
from pyro_nlp.comparison import ComparisonError
from pyro_nlp.data.corpus import CorpusError
from pyro_nlp.inference import Interrupted, NumericalError, RunError, StructureError
from pyro_nlp.process import tune_allocator
from pyro_nlp.recipe_errors import RecipeError

USAGE = 2
FAILED = 1
EXPECTED = (
    StructureError,
    CorpusError,
    RunError,
    NumericalError,
    Interrupted,
    ComparisonError,
    RecipeError,
    ValueError,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    options, overrides = _parser().parse_known_args(_joined(arguments))
    if overrides and not options.takes_recipe_options:
        _parser().error(f"unrecognized arguments: {' '.join(overrides)}")
    tune_allocator()
    warnings.showwarning = _warn
    try:
        options.run(options, overrides)
        sys.stdout.flush()
    except BrokenPipeError:  # of `pyro-nlp ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except RecipeError as error:
        return _fail(error, str(error), USAGE, debug)
    except EXPECTED as error:
        return _fail(error, _said(error), FAILED, debug)
    except KeyboardInterrupt as error:
        return _fail(error, "interrupted", FAILED, debug)
    except OSError as error:
        return _fail(error, f"{error.filename or 'output'}: {error.strerror or error}", FAILED, debug)
    except Exception as error:
        return _fail(error, _unexpected(error), FAILED, debug)
    return 0


def _warn(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
    """In one line, like an error; where the code stands that says so is nobody's business."""
    print(f"pyro-nlp: {'' if category is UserWarning else category.__name__ + ' '}warning: {message}", file=sys.stderr)


def _fail(error: BaseException, message: str, status: int, debug: bool) -> int:
    if debug:
        raise error
    print(f"pyro-nlp: {' '.join(message.split())}", file=sys.stderr)
    return status


def _said(error: BaseException) -> str:
    """Without the shapes of all sites, which Pyro adds to what a model raises."""
    return re.split(r"\n *Trace Shapes:", str(error))[0]


def _unexpected(error: Exception) -> str:
    """What nobody foresaw, most often in a user's own class: what, and where."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {_said(error)} ({place.filename}:{place.lineno}); --debug shows the traceback"


def _joined(arguments: Sequence[str]) -> list[str]:
    """`--model.latent 16` as one argument, or argparse could take the value for the RECIPE."""
    joined: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name = argument.removeprefix("--")
        value_follows = bool(rest) and not rest[0].startswith("--")
        if name != argument and "=" not in name and ("." in name or name in recipes.SECTIONS) and value_follows:
            argument = f"{argument}={rest.pop(0)}"
        joined.append(argument)
    return joined


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"pyro-nlp: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    main_parser = _Parser(
        prog="pyro-nlp",
        description="Latent-variable models of text on Pyro: one model, any inference, one evaluation.",
        epilog="RECIPE: the name of a shipped recipe (see `pyro-nlp list`) or a YAML file. --debug shows tracebacks.",
        allow_abbrev=False,
    )
    main_parser.add_argument("--version", action="version", version=pyro_nlp.__version__)
    commands = main_parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[..., None], help: str, recipe: bool = False, strategy: bool = False
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help, description=help, allow_abbrev=False)
        made.set_defaults(run=run, takes_recipe_options=recipe, strategy=None)
        if recipe:
            recipe_options(made, optional=name == "train")
        if strategy:
            strategy_option(made)
        return made

    command("list", list_zoo, "what the zoo holds, with references")
    check_parser = command("check", check, "the variables of a model, and how each is treated", True, True)
    check_parser.add_argument(
        "--gradients",
        type=positive,
        nargs="?",
        const=DRAWS,
        metavar="DRAWS",
        help=f"compare the gradient with the exact one on three short documents; {DRAWS:,} draws by default",
    )
    train_parser = command("train", train, "train a recipe into a run folder", True, True)
    train_parser.add_argument("--out", help="run folder; by default runs/NAME")
    train_parser.add_argument("--resume", action="store_true", help="continue the run in --out")
    topics_options(command("topics", topics, "documents of your own to topics and a report", strategy=True))
    evaluation = command("evaluate", evaluate_run, "judge a run on its corpus")
    evaluation.add_argument("run_folder", metavar="RUN")
    evaluation.add_argument("--samples", type=positive, default=500, help="importance samples per document")
    evaluation.add_argument("--split", choices=("train", "valid", "test"), default="test")
    evaluation.add_argument("--precision", choices=("float32", "bf16", "auto"), default="float32")
    evaluation.add_argument("--seed", type=int, default=0)
    evaluation.add_argument(
        "--judge",
        action="append",
        default=[],
        metavar="RUN",
        help="of a model that writes to order: a classifier trained on other sentences; one for each attribute",
    )
    evaluation.add_argument("--fluency", metavar="RUN", help="a language model that says how fluent the sentences are")
    evaluation.add_argument("--json", action="store_true", help="print JSON")
    compare_options(command("compare", compare, "train one model by several strategies, and judge all alike", True))
    diagnose_options(command("diagnose", diagnose, "whether runs are to be believed: a table, and report.html"))
    generate_options(command("generate", generate, "samples, reconstructions, interpolations, analogies, blanks"))
    command("cite", cite, "BibTeX of what a recipe or run uses", True, True)
    return main_parser


__all__ = ["main", "tune_allocator"]
