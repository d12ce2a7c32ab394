"""`pyro-nlp diagnose`: whether runs are to be believed, as a table and as a page (layer: cli)."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from pyro_nlp import recipe as recipes
from pyro_nlp.commands.options import two_or_more
from pyro_nlp.commands.output import OUT
from pyro_nlp.diagnosis import as_dict, diagnose_runs, save, save_posteriors
from pyro_nlp.evaluation.importance import SMALLEST
from pyro_nlp.inference import Run


def diagnose_options(made: argparse.ArgumentParser) -> None:
    """The options of `pyro-nlp diagnose`."""
    made.add_argument("run_folders", metavar="RUN", nargs="+", help="several are compared, paired by document")
    made.add_argument("--split", choices=("train", "valid", "test"), default="test")
    made.add_argument("--documents", type=two_or_more, default=500, help="most documents, drawn by the seed")
    made.add_argument("--draws", type=_draws, default=200, help="importance samples per document")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--out", metavar="DIR", help="by default the run's folder; of several runs, the one above them")
    made.add_argument("--json", action="store_true", help="print JSON")


def _draws(text: str) -> int:
    value = int(text)
    if value < SMALLEST:
        raise argparse.ArgumentTypeError(f"{value} is too few to judge the weights by: at least {SMALLEST}")
    return value


_draws.__name__ = "int"  # as argparse names a type


def diagnose(options: argparse.Namespace, overrides: Sequence[str]) -> None:
    """`pyro-nlp diagnose RUN [RUN ...]`"""
    folders = [Path(folder) for folder in options.run_folders]
    names = _names(folders)
    opened = {name: recipes.open_run(folder) for name, folder in zip(names, folders, strict=True)}
    texts = {name: recipe.text for name, (_, recipe) in opened.items()}
    report(options, {name: run for name, (run, _) in opened.items()}, _one_recipe(texts))


def report(options: argparse.Namespace, runs: Mapping[str, Run], seeds: Sequence[Sequence[str]] = ()) -> None:
    """Print the diagnosis of runs, and write it.

    Args:
        options: those of `diagnose_options`.
        runs: by name.
        seeds: groups of names whose recipes differ by the seed alone.
    """
    found = diagnose_runs(
        runs,
        options.split,
        documents=options.documents,
        draws=options.draws,
        seed=options.seed,
        seeds=seeds,
    )
    out = Path(options.out or _above([Path(folder) for folder in options.run_folders]))
    found = save_posteriors(runs, found, out)
    page = save(found, out)
    if options.json:
        print(json.dumps(as_dict(found), indent=2, allow_nan=False))
        return
    OUT.print(found.table(), markup=False)
    for run in found.runs:
        OUT.print(f"{run.name}: {run.verdict.headline}", markup=False, highlight=False)
        for line in (*run.verdict.doubts, *(f"{why}." for why in run.why_left_out())):
            OUT.print(f"  {line}", markup=False, highlight=False)
        if run.verdict.cure:
            OUT.print(f"  what usually helps:\n{run.verdict.cure}", markup=False, highlight=False, end="")
    for line in found.agreement_lines():
        OUT.print(line, markup=False, highlight=False)
    OUT.print(f"report: {page}", markup=False, highlight=False)


def _one_recipe(texts: Mapping[str, str]) -> list[list[str]]:
    """Groups of runs whose recipes differ by the seed alone, of two runs or more."""
    groups: dict[str, list[str]] = {}
    for name, text in texts.items():
        settings = {key: value for key, value in yaml.safe_load(text).items() if key != "seed"}
        groups.setdefault(json.dumps(settings, sort_keys=True, default=str), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, or as much of their paths as tells them apart."""
    resolved = [folder.resolve() for folder in folders]
    if len(set(resolved)) < len(resolved):
        raise ValueError("the same run is given twice")
    depth = 1
    while len({path.parts[-depth:] for path in resolved}) < len(resolved):
        depth += 1
    return ["/".join(path.parts[-depth:]) for path in resolved]


def _above(folders: Sequence[Path]) -> Path:
    """The run's folder; of several, the folder they are in."""
    return folders[0] if len(folders) == 1 else Path(os.path.commonpath([folder.absolute() for folder in folders]))
