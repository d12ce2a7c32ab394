"""`pyro-nlp train` and `pyro-nlp evaluate`: run folders, made and judged (layer: cli)."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from pyro_nlp import recipe as recipes
from pyro_nlp.commands.options import printed_config
from pyro_nlp.commands.output import OUT
from pyro_nlp.commands.tasks import parts
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.evaluation import evaluate, plots, posteriors
from pyro_nlp.inference import Interrupted, Run, RunFolder, fit
from pyro_nlp.inference.loop import judged_by
from pyro_nlp.recipe_errors import RecipeError
from pyro_nlp.recipe_strategies import find_strategy


def train(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """`pyro-nlp train RECIPE`"""
    if options.recipe is None and not (options.resume and options.out):
        raise RecipeError("train wants a RECIPE, or --resume --out RUN")
    if printed_config(options, overrides):
        return
    out = Path(options.out or f"runs/{_default_name(options)}")
    train_into(out, options, overrides)
    OUT.print(f"next: pyro-nlp evaluate {out}", highlight=False)


def train_into(out: Path, options: argparse.Namespace, overrides: Sequence[str]) -> Run:
    """Train `options.recipe` into a folder, or go on with the run there; what was trained."""
    if options.resume and options.strategy:
        raise RecipeError("a resumed run keeps its strategy: leave out --strategy, or begin a new run")
    if options.resume:
        loaded = recipes.to_resume(out, overrides)
    else:
        recipes.find(options.recipe)
        refuse_existing(out)
        loaded = recipes.load(options.recipe, overrides, options.strategy)
    OUT.print(f"{loaded.name} on {loaded.corpus!r}, into {out}", markup=False, highlight=False)
    existed = out.exists()
    try:
        run = fit(
            loaded.model,
            loaded.guide,
            loaded.corpus,
            loaded.strategy,
            loaded.training,
            seed=loaded.seed,
            out=out,
            resume=options.resume,
            recipe=loaded.text,
        )
    finally:
        if options.resume and isinstance(sys.exception(), Interrupted | None):
            RunFolder(out).write("recipe.yaml", loaded.text)  # the epochs may have been extended
        if not existed:
            with contextlib.suppress(OSError):
                out.rmdir()  # it failed before anything was in it
    plots.curves({loaded.name: run.history}, out / "curves.png")
    kept = [row for row in run.history if row.get("best")][-1]
    found = {name.removeprefix("valid."): value for name, value in kept.items() if name.startswith("valid.")}
    name, value = judged_by(found, loaded.training.keep)
    which = "last" if loaded.training.keep == "last" else "best"
    OUT.print(
        f"{which} validation {name.replace('loss', 'bound')} {value:.2f} nats per document, "
        f"after epoch {kept['epoch'] + 1}",
        highlight=False,
    )
    return run


def refuse_existing(out: Path) -> None:
    """Refuse a folder that holds anything before an hour of reading the corpus."""
    if out.exists():
        RunFolder.create(out)


def _default_name(options: argparse.Namespace) -> str:
    name = recipes.find(options.recipe).stem
    return f"{name}-{find_strategy(options.strategy).stem}" if options.strategy else name


def evaluate_run(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """`pyro-nlp evaluate RUN`"""
    run, loaded = recipes.open_run(options.run_folder)
    split = recipes.split_of(loaded.corpus, options.split)
    found = evaluate(
        run.model,
        run.guide,
        split,
        samples=options.samples,
        seed=options.seed,
        precision=options.precision,
        marginal=run.marginal,
    )
    more = parts(run, split, found, options)
    protocol = {
        "split": options.split,
        "samples": options.samples,
        "seed": options.seed,
        "precision": options.precision,
    }
    if options.json:
        known = {name: part.as_dict() for name, (_, part) in more.items()}
        print(json.dumps({"run": str(options.run_folder), "protocol": protocol} | found.as_dict() | known, indent=2))
        return
    OUT.print(found.table(f"{options.run_folder}, {options.split} split"), markup=False)
    for title, part in more.values():
        OUT.print(part.table(title), markup=False)
    if run.guide is not None and isinstance(split, TextSplit):
        for name, posterior in posteriors(run.model, run.guide, split, marginal=run.marginal).items():
            path = Path(options.run_folder) / f"latent_{name}.png"
            plots.latent_space(posterior, path, split.labels, loaded.corpus.labels, f"{name}, {options.split} split")
            OUT.print(f"latent space: {path}", highlight=False)
