"""`pyro-nlp topics`: from a user's own documents to topics and a report (layer: cli)."""

from __future__ import annotations

import argparse
import importlib
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from pyro_nlp import recipe as recipes
from pyro_nlp.commands.diagnose import diagnose_options, report
from pyro_nlp.commands.generate import generate_options, write
from pyro_nlp.commands.options import positive, two_or_more
from pyro_nlp.commands.runs import refuse_existing, train_into
from pyro_nlp.data.files import locate
from pyro_nlp.evaluation import is_topic_model
from pyro_nlp.recipe_errors import RecipeError

STEPS = 2000
"""What a topic model takes to train: a collection whose epochs have few steps is passed over more often."""
PARTS = 8
"""Steps of an epoch, at least: a small collection is divided into smaller batches ..."""
SMALLEST_BATCH = 16
"""... down to this, below which a batch says little of the collection."""
TOPICS = 20


def topics_options(made: argparse.ArgumentParser) -> None:
    """The options of `pyro-nlp topics`."""
    made.set_defaults(takes_recipe_options=True)
    made.epilog = (
        "Any value of the recipe can be set: --corpus.ngrams 2 --corpus.stop_words my.txt --corpus.min_documents 5 "
        "--training.epochs 100. Without --training.batch_size and --training.epochs they are the recipe's, but for a "
        f"small collection: smaller batches, and epochs for {STEPS:,} steps."
    )
    made.add_argument("path", metavar="PATH", help="a folder of .txt files, or a text file with a document a line")
    made.add_argument("--recipe", default="prodlda", help="a model of documents; by default prodlda")
    made.add_argument("--topics", type=two_or_more, metavar="K", help=f"how many; by default {TOPICS}")
    made.add_argument("--words", type=positive, default=10, help="of a topic, as printed")
    made.add_argument("--out", help="run folder; by default runs/NAME, by the name of PATH")
    made.add_argument("--resume", action="store_true", help="continue the run in the run folder")


def topics(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """`pyro-nlp topics PATH`"""
    for flag in (argument.split("=")[0] for argument in overrides):
        if flag in ("--corpus", "--corpus.path"):
            raise RecipeError(f"{flag}: topics reads PATH; of another corpus, `pyro-nlp train {options.recipe} {flag}`")
    place = locate(options.path).resolve()
    out = Path(options.out or Path("runs") / (place.name if place.is_dir() else place.stem))
    given = [f"--model.latent={options.topics}"] if options.topics else []
    if not options.resume:
        _refuse_other_models(options.recipe)
        refuse_existing(out)
        own = ["--corpus=TextDocuments", f"--corpus.path={options.path}"]
        given = [*own, *(given or [f"--model.latent={TOPICS}"]), *overrides]
        given += _training(options, given)
    else:
        given += overrides
    run = train_into(out, options, given)
    write(_parsed(generate_options, out, f"--words={options.words}"), run)
    report(_parsed(diagnose_options, out), {out.name: run})


def _refuse_other_models(recipe: str) -> None:
    """Refuse what has no topics by its class: built on bags of words, it fails in a way of its own."""
    _, config, _, _ = recipes.read(recipe)
    module, _, name = config.model.class_path.rpartition(".")
    if not is_topic_model(getattr(importlib.import_module(module), name)):
        raise RecipeError(f"{recipe}: {name} has no topics; give a recipe of documents such as prodlda, etm or lda")


def _training(options: argparse.Namespace, overrides: Sequence[str]) -> list[str]:
    """What of training follows from the size of the collection, where nothing else is said."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they come when it is read to train
        loaded = recipes.load(options.recipe, overrides, options.strategy)
    documents, words, training = len(loaded.corpus.train), len(loaded.corpus.vocabulary or ()), loaded.training
    count: Any = loaded.model.topics_count
    if count > words:
        raise ValueError(
            f"{count} topics of {words} words: give fewer as --topics, or have more words by --corpus.min_documents 1"
        )
    said = {argument.split("=")[0] for argument in overrides}
    size, settings = training.batch_size, []
    if "--training.batch_size" not in said:
        size = min(size, max(SMALLEST_BATCH, documents // PARTS), documents)
        settings.append(f"--training.batch_size={size}")
    elif size > documents:
        raise ValueError(f"batches of {size} from {documents} train documents: give fewer as --training.batch_size")
    often = max(1, math.ceil(STEPS / (training.epochs * math.ceil(documents / size))))
    if "--training.epochs" not in said and often > 1:
        settings += _stretched(options, overrides, often)
    return settings


def _stretched(options: argparse.Namespace, overrides: Sequence[str], times: int) -> list[str]:
    """The epochs of training and of every schedule, that many times as long."""
    _, config, _, made = recipes.read(options.recipe, overrides, options.strategy)
    said = {argument.split("=")[0].replace(".init_args.", ".") for argument in overrides}
    return [
        f"--{key}={value * times}"
        for key, value in recipes.flat(yaml.safe_load(made.dump(config))).items()
        if key.startswith(("training.", "strategy."))
        and key.endswith(".epochs")
        and value is not None
        and f"--{key.replace('.init_args.', '.')}" not in said
    ]


def _parsed(add: Callable[[argparse.ArgumentParser], None], out: Path, *more: str) -> argparse.Namespace:
    """The options of another command for this run, all others at their defaults."""
    parser = argparse.ArgumentParser()
    add(parser)
    return parser.parse_args([*more, "--", str(out)])
