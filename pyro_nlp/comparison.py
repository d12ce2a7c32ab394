"""Several strategies on one model, alike in everything else, in one table (layer: recipe).

    FOLDER/comparison.json            what is compared
    FOLDER/STRATEGY/recipe.yaml       the recipe with that strategy
    FOLDER/STRATEGY/seedN/            a run like any other, with nll.npz (per document) and result.json beside it
    FOLDER/table.json table.md curves.png

Every strategy and seed is trained in a process of its own, so that its peak memory is its own. What has a result is
not repeated, and what was stopped goes on from its checkpoint.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pyro_nlp import recipe as recipes
from pyro_nlp.comparison_pool import Bars, Pool, stopping_on_sigterm
from pyro_nlp.comparison_table import Comparison, Job, collect
from pyro_nlp.inference import RunFolder
from pyro_nlp.inference.fit import environment
from pyro_nlp.recipe_errors import RecipeError
from pyro_nlp.recipe_strategies import find_strategy


class ComparisonError(RuntimeError):
    """A comparison that cannot be made or could not be finished; one line with the cure."""


def compare_strategies(
    recipe: str,
    strategies: Sequence[str],
    seeds: int | Sequence[int] = 3,
    *,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    workers: int = 1,
    samples: int = 100,
    progress: bool | None = None,
) -> Comparison:
    """Train a recipe by several strategies and judge all by one protocol, on the test split.

    Args:
        recipe: the name of a shipped recipe, or a path.
        strategies: names of shipped strategies, or paths; others are paired with the first.
        seeds: how many, counted from the recipe's, or which.
        overrides: as on the command line, `["--training.epochs", "5"]`.
        out: folder of the comparison; by default `runs/compare-NAME`. One that holds the same comparison is continued.
        workers: processes at once; they share the threads of this one.
        samples: importance samples per document, where the likelihood is not exact.
        progress: show bars; by default when standard error is a terminal.

    Raises:
        RecipeError: the recipe or a strategy cannot be read.
        ComparisonError: `out` holds something else.
        Interrupted: Ctrl-C or SIGTERM; the same call goes on.
    """
    names = _names(strategies)
    texts = {n: recipes.spelled_out(recipe, overrides, strategy) for n, strategy in names.items()}
    sections = {name: yaml.safe_load(text) for name, text in texts.items()}
    chosen = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if isinstance(seeds, int):
        first = next(iter(sections.values()))["seed"]
        chosen = [first + i for i in chosen]
    if not chosen or workers < 1 or samples < 1:
        raise ComparisonError("a comparison wants a seed, a worker and an importance sample, at least")
    folder = RunFolder(out or f"runs/compare-{recipes.find(recipe).stem}")
    _refuse_other(folder, sections, samples)
    corpus = recipes.load(recipe, overrides, next(iter(names.values()))).corpus  # read once, and cached for all
    about = {
        "recipe": recipes.find(recipe).stem,
        "samples": samples,
        "seeds": chosen,
        "corpus": repr(corpus),
        "environment": environment(corpus),
    }
    _prepare(folder, texts, sections, about)
    jobs = [Job(name, seed) for seed in chosen for name in names]
    show = sys.stderr.isatty() if progress is None else progress
    pool = Pool(folder.path, samples, workers)
    with stopping_on_sigterm(), Bars(show, folder.path, sections, len(jobs)) as bars:
        troubles = pool.run(jobs, bars.show)
    found = collect(folder.path, list(names), chosen, about, troubles)
    found.save(folder)
    return found


def _names(strategies: Sequence[str]) -> dict[str, str]:
    """Short names of strategies, in order."""
    names: dict[str, str] = {}
    for strategy in strategies:
        name = find_strategy(strategy).stem
        if name in names:
            raise RecipeError(f"the strategy '{name}' is given twice")
        names[name] = strategy
    if not names:
        raise RecipeError("a comparison wants a strategy, at least")
    return names


# ---- the folder -----------------------------------------------------------------------------------------------


def _refuse_other(folder: RunFolder, sections: dict[str, dict[str, Any]], samples: int) -> None:
    """A folder may be empty, or hold the same comparison, or one with other strategies and seeds of it."""
    if not folder.has("comparison.json"):
        if folder.path.exists():
            RunFolder.create(folder.path)
        return
    try:
        before = json.loads(folder.read_text("comparison.json"))
        said, compared = before["samples"], before["recipes"]
    except (ValueError, KeyError, TypeError):
        raise ComparisonError(f"{folder.path} is damaged: comparison.json cannot be read") from None
    both = compared.keys() & sections.keys()  # others may be added
    old, new = _protocol(compared, said, both), _protocol(sections, samples, both)
    for key in (*old, *new):
        if old.get(key) != new.get(key):
            raise ComparisonError(
                f"{folder.path} holds another comparison ({key.replace('.init_args', '')} is {old.get(key)} there, "
                f"not {new.get(key)}): choose another --out"
            )


def _protocol(sections: Mapping[str, dict[str, Any]], samples: int, strategies: Collection[str]) -> dict[str, Any]:
    """What makes a comparison that one and no other, by dotted key."""
    shared = {k: v for k, v in next(iter(sections.values())).items() if k not in ("strategy", "seed")}
    return recipes.flat(
        {"samples": samples} | shared | {name: sections[name]["strategy"] for name in sorted(strategies)}
    )


def _prepare(
    folder: RunFolder, texts: dict[str, str], sections: dict[str, dict[str, Any]], about: dict[str, Any]
) -> None:
    before: dict[str, Any] = {}
    if not folder.has("comparison.json"):
        RunFolder.create(folder.path)
    else:
        before = json.loads(folder.read_text("comparison.json"))
        was, now = before["environment"]["fingerprint"], about["environment"]["fingerprint"]
        if was != now:
            raise ComparisonError(
                f"the corpus has changed since {folder.path} began (fingerprint {now}, was {was}): "
                "restore it, or choose another --out"
            )
    folder.write("comparison.json", json.dumps(about | {"recipes": before.get("recipes", {}) | sections}, indent=2))
    for name, text in texts.items():
        (folder.path / name).mkdir(exist_ok=True)
        RunFolder(folder.path / name).write("recipe.yaml", text)
