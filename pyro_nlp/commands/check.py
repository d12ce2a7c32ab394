"""`pyro-nlp check`: the variables of a model, how each latent is treated, what it costs and whether it is right
(layer: cli)."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pyro import poutine
from rich.table import Table

from pyro_nlp import recipe as recipes
from pyro_nlp.commands.options import printed_config
from pyro_nlp.commands.output import OUT
from pyro_nlp.costs import activations, in_words, model_evaluations
from pyro_nlp.data.batches import Batch, TextBatch
from pyro_nlp.data.loading import plan
from pyro_nlp.data.splits import Split
from pyro_nlp.evaluation import gradient_check
from pyro_nlp.inference import Objective
from pyro_nlp.inference.compiling import Latent
from pyro_nlp.inference.fit import misfits
from pyro_nlp.inference.sites import is_subsample
from pyro_nlp.inference.support import base, categories, variables
from pyro_nlp.recipe import Recipe

DOCUMENTS, DRAWS, SHORTEST = 3, 1000, 4
"""Of a gradient check: documents, draws by default, and words of the shortest document taken."""
SUSPICIOUS = 1e-4
LAST_STEP = 1_000_000
"""Schedules are read at their end: a KL of weight 0 would have no gradient to check."""


def check(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """`pyro-nlp check RECIPE`"""
    if printed_config(options, overrides):
        return
    loaded = recipes.load(options.recipe, overrides, options.strategy)
    split, batch_size = loaded.corpus.train, loaded.training.batch_size
    batch = split.batch(np.arange(min(batch_size, len(split))))
    objective = loaded.strategy.compile(loaded.model, loaded.guide, batch, loaded.corpus.called)
    objective.steps_per_epoch = len(plan(split.lengths, batch_size, seed=0, epoch=0))
    OUT.print(repr(loaded.corpus), markup=False, highlight=False)
    OUT.print(_variables(loaded.model, batch))
    if objective.summary:
        OUT.print(_treatment(objective), markup=False)
        OUT.print(f"bound: {loaded.strategy.bound!r}", markup=False, highlight=False)
    for role, module in (("model", loaded.model), ("guide", loaded.guide)):
        if module is not None:
            idle = ", unused: every latent is summed out" if role == "guide" and objective.guide is None else ""
            OUT.print(f"{role}: {sum(p.numel() for p in module.parameters()):,} parameters{idle}", highlight=False)
    _print_costs(objective, split, batch_size)
    for misfit in misfits(loaded.strategy, loaded.training, objective.steps_per_epoch):
        OUT.print(f"note: {misfit}", markup=False, highlight=False)
    if options.gradients is not None:
        _print_gradients(loaded, objective, options.gradients)


def _variables(model: Any, batch: Batch) -> Table:
    """Every variable: observed or latent, random or deterministic."""
    title = type(model).__name__
    table = Table("variable", "distribution", "batch | event", "known", "kind", title=title, title_justify="left")
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        sites: dict[str, Any] = dict(poutine.trace(model).get_trace(batch).nodes)
    for name, site in sites.items():
        if site["type"] != "sample" or is_subsample(site):
            continue
        kind = type(base(site["fn"])).__name__
        deterministic = bool(site["infer"].get("_deterministic")) or kind == "Delta"
        table.add_row(
            name,
            kind,
            f"{list(site['fn'].batch_shape)} | {list(site['fn'].event_shape)}",
            "observed" if site["is_observed"] and not deterministic else "latent",
            "deterministic" if deterministic else "random",
        )
    return table


def _treatment(objective: Objective) -> Table:
    """Every latent: its estimator and what it takes."""
    rows = []
    for summary in objective.summary:
        cells = list(summary.items())
        place = list(summary).index("event") + 1
        rows.append(
            dict([*cells[:place], ("dimensions", _dimensions(objective.latents[summary["site"]])), *cells[place:]])
        )
    table = Table(*rows[0], title="how each latent is treated", title_justify="left")
    for row in rows:
        table.add_row(*row.values())
    return table


def _dimensions(latent: Latent) -> str:
    """`16` of a vector; `20 x 10` of twenty variables of ten values each."""
    k = categories(latent.fn) if latent.discrete else None
    return f"{variables(latent.fn)} x {k}" if k is not None else str(math.prod(latent.fn.event_shape))


def _print_costs(objective: Objective, split: Split, batch_size: int) -> None:
    particles = objective.strategy.bound.particles
    if objective.latents:
        factors = [f"{rows:,} values of '{name}'" for name, rows in objective.rows.items() if rows > 1]
        factors += [f"{particles} particles"] if particles > 1 else []
        updates = objective.strategy.updates
        factors += [f"at most, by {updates}"] if updates.evaluations(1) > 1 else []
        product = f" ({' x '.join(factors)})" if factors else ""
        OUT.print(
            f"model evaluations per document and step: {model_evaluations(objective):,}{product}",
            markup=False,
            highlight=False,
        )
    found = activations(objective, split, batch_size)
    padded = f" of {found.positions // found.documents} positions" if found.positions else ""
    OUT.print(
        f"activations of a batch, an estimate: {in_words(found.bytes)} for {found.documents} documents{padded}",
        highlight=False,
    )


def _print_gradients(loaded: Recipe, objective: Objective, draws: int) -> None:
    if not set(objective.latents) - set(objective.marginal):
        OUT.print("gradient: exact, as nothing is drawn", highlight=False)
        return
    batch = _short_documents(loaded.corpus.train)
    # 20 estimates at least, each a mean over copies of the documents
    copies = max(1, min(100, draws // 20))
    found = gradient_check(
        loaded.model,
        loaded.guide,
        batch,
        loaded.strategy,
        draws=draws,
        copies=copies,
        step=LAST_STEP,
        seed=loaded.seed,
    )
    OUT.print(found.table(f"gradient of {len(batch)} short documents, schedules at their end"), markup=False)
    reference = "the exact gradient" if found.exact else "the reference, itself a mean of draws"
    if found.p_value < SUSPICIOUS:
        line = f"the estimator differs from {reference} by {found.bias:.1%} of its length (p = {found.p_value:.1g})"
    else:
        line = f"no difference from {reference} is seen in {found.draws:,} draws (p = {found.p_value:.2g})"
    OUT.print(line, highlight=False)


def _short_documents(split: Split) -> Batch:
    """The shortest documents that have a few words, or else the first."""
    rows = np.argsort(split.lengths, kind="stable")
    if isinstance(split.batch(rows[:1]), TextBatch):
        enough = rows[split.lengths[rows] > SHORTEST]
        rows = enough if len(enough) >= DOCUMENTS else rows
    return split.batch(rows[:DOCUMENTS])
