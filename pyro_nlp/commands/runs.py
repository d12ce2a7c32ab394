"""`pyro-nlp train` and `pyro-nlp evaluate`: run folders, made and judged (layer: cli)."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyro_nlp import recipe as recipes
from pyro_nlp.commands.options import printed_config
from pyro_nlp.commands.output import OUT
from pyro_nlp.data.compression import CompressionCorpus
from pyro_nlp.data.counts import CountCorpus
from pyro_nlp.data.parsed_trees import TreeSplit
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.evaluation import (
    classify,
    evaluate,
    evaluate_answers,
    evaluate_parses,
    evaluate_topics,
    induces_trees,
    is_compressor,
    is_topic_model,
    judges_answers,
    judges_classes,
    plots,
    posteriors,
    report_compressions,
)
from pyro_nlp.evaluation.classifying import DRAWS
from pyro_nlp.evaluation.control_report import report_control
from pyro_nlp.evaluation.controlling import has_attributes
from pyro_nlp.inference import Interrupted, Run, RunFolder, fit
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
    best = [row for row in run.history if row.get("best")][-1]
    OUT.print(
        f"best validation bound {best['valid.loss']:.2f} nats per document, after epoch {best['epoch'] + 1}",
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
    topics = None
    if run.guide is not None and is_topic_model(run.model) and isinstance(loaded.corpus, CountCorpus):
        topics = evaluate_topics(
            run.model,
            run.guide,
            loaded.corpus,
            options.split,
            samples=options.samples,
            seed=options.seed,
            precision=options.precision,
            likelihood=found.likelihood,
        )
    answers = None
    if judges_answers(run.model, split):
        answers = evaluate_answers(run.model, split, seed=options.seed, precision=options.precision)
    classes = None
    if judges_classes(run.model, run.guide, split):
        named = loaded.corpus.labels
        classes = classify(
            run.model, run.guide, split, names=named, samples=min(options.samples, DRAWS), seed=options.seed
        )
    trees = None
    if isinstance(split, TreeSplit) and induces_trees(run.model, split):
        trees = evaluate_parses(run.model, run.guide, split, seed=options.seed)
    compressions, guide = None, run.guide
    if isinstance(loaded.corpus, CompressionCorpus) and guide is not None and is_compressor(run.model, guide, split):
        compressions = report_compressions(run.model, guide, loaded.corpus, options.split, precision=options.precision)
    control = None
    if run.guide is not None and has_attributes(run.model) and isinstance(split, TextSplit):
        judges = [recipes.open_run(judge)[0] for judge in options.judge]
        fluency = None if options.fluency is None else recipes.open_run(options.fluency)[0]
        control = report_control(run, split, judges, fluency, seed=options.seed)
    elif options.judge or options.fluency:
        raise ValueError(f"{type(run.model).__name__} writes nothing to order: leave out --judge and --fluency")
    protocol = {
        "split": options.split,
        "samples": options.samples,
        "seed": options.seed,
        "precision": options.precision,
    }
    if options.json:
        parts: dict[str, Any] = {"topics": topics, "answers": answers, "classes": classes, "trees": trees}
        parts |= {"compressions": compressions, "control": control}
        more = {name: part.as_dict() for name, part in parts.items() if part is not None}
        print(json.dumps({"run": str(options.run_folder), "protocol": protocol} | found.as_dict() | more, indent=2))
        return
    OUT.print(found.table(f"{options.run_folder}, {options.split} split"), markup=False)
    if topics is not None:
        OUT.print(topics.table(f"topics, {options.split} split; NPMI in the train split"), markup=False)
    if answers is not None:
        OUT.print(answers.table(f"answers, {options.split} split; 95 % intervals over questions"), markup=False)
    if classes is not None:
        OUT.print(classes.table(f"classes, {options.split} split; 95 % intervals over documents"), markup=False)
    if control is not None:
        OUT.print(control.table(f"control, {options.split} split; 95 % intervals over sentences"), markup=False)
    if trees is not None:
        OUT.print(trees.table(f"trees, {options.split} split; 95 % intervals over sentences"), markup=False)
    if compressions is not None:
        OUT.print(compressions.table(f"compressions by beam search, {options.split} split"), markup=False)
    if run.guide is not None and isinstance(split, TextSplit):
        for name, posterior in posteriors(run.model, run.guide, split, marginal=run.marginal).items():
            path = Path(options.run_folder) / f"latent_{name}.png"
            plots.latent_space(posterior, path, split.labels, loaded.corpus.labels, f"{name}, {options.split} split")
            OUT.print(f"latent space: {path}", highlight=False)
