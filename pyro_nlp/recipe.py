"""What one run is made of: model, guide, corpus, strategy, training and seed, read from YAML (layer: recipe).

jsonargparse reads a recipe against the constructors' own type hints and docstrings: there is no registry and no second
schema. Classes of the zoo are named by their short name, anybody's by dotted path.
"""

from __future__ import annotations

import importlib
import importlib.resources
import pkgutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser, Namespace
from pyro.nn import PyroModule
from torch import nn

import pyro_nlp.data
import pyro_nlp.guides
import pyro_nlp.models
from pyro_nlp.data.corpus import Corpus
from pyro_nlp.data.splits import Split, VectorSplit
from pyro_nlp.inference.fit import Run
from pyro_nlp.inference.folder import RunError, RunFolder
from pyro_nlp.inference.strategy import Strategy
from pyro_nlp.inference.training import Training
from pyro_nlp.recipe_errors import RecipeError, explain, suggest

SECTIONS = ("model", "guide", "corpus", "strategy", "training", "seed")
SIZES = ("vocabulary", "dimension", "population")
"""Constructor arguments that a corpus decides; a recipe need not and cannot choose them."""


@dataclass
class Recipe:
    """A recipe with everything in it built.

    Attributes:
        text: the resolved recipe as YAML: every argument, and the sizes that came from the corpus.
    """

    name: str
    model: nn.Module
    guide: nn.Module | None
    corpus: Corpus
    strategy: Strategy
    training: Training
    seed: int
    text: str


def zoo() -> None:
    """Import every model, guide and corpus, so that their short names resolve."""
    for package in (pyro_nlp.models, pyro_nlp.guides, pyro_nlp.data):
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{package.__name__}.{module.name}")


def shipped() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = importlib.resources.files("pyro_nlp") / "recipes"
    return {
        p.name.removesuffix(".yaml"): Path(str(p))
        for p in sorted(folder.iterdir(), key=lambda p: p.name)
        if p.name.endswith(".yaml")
    }


def find(recipe: str) -> Path:
    """The file of a shipped recipe's name, of a path, or of a run folder."""
    path = Path(recipe)
    if path.is_dir() and (path / "recipe.yaml").exists():
        return path / "recipe.yaml"
    if path.is_file():
        return path
    known = shipped()
    if recipe in known:
        return known[recipe]
    raise RecipeError(
        f"there is no recipe '{recipe}'{suggest(recipe, known)}; shipped are {', '.join(known)}, "
        "or give the path of a YAML file"
    )


def parser(**options: Any) -> ArgumentParser:
    """The parser of recipes: their sections as arguments, sizes linked to the corpus."""
    zoo()
    result = ArgumentParser(exit_on_error=False, allow_abbrev=False, **options)
    result.add_subclass_arguments(PyroModule, "model", required=True, help="the generative story")
    result.add_argument(
        "--guide", type=PyroModule | None, default=None, help="the inference network; null without latents"
    )
    result.add_subclass_arguments(Corpus, "corpus", required=True, help="what batches come from")
    result.add_class_arguments(Strategy, "strategy")
    result.add_class_arguments(Training, "training")
    result.add_argument("--seed", type=int, default=0, help="of initial weights, batches and draws")
    result.add_argument("--config", action="config", help="a recipe")
    for section in ("model", "guide"):
        for size in SIZES:
            target = f"{section}.init_args.{size}"
            result.link_arguments("corpus", target, compute_fn=_sizes[size], apply_on="instantiate")
    result.link_arguments("model.init_args.latent", "guide.init_args.latent")
    return result


def _vocabulary(corpus: Corpus) -> int | None:
    return len(corpus.vocabulary) if corpus.vocabulary is not None else None


def _dimension(corpus: Corpus) -> int | None:
    return corpus.train.values.shape[1] if isinstance(corpus.train, VectorSplit) else None


def _population(corpus: Corpus) -> int:
    return len(corpus.train)


_sizes = {"vocabulary": _vocabulary, "dimension": _dimension, "population": _population}


def read(recipe: str, overrides: Sequence[str] = ()) -> tuple[str, Namespace, dict[str, int], ArgumentParser]:
    """Parse a recipe: its name, the namespace, the sizes it states, and the parser that made it."""
    path = find(recipe)
    for folder in (str(path.parent.resolve()), str(Path.cwd())):
        if folder not in sys.path:
            sys.path.append(folder)  # a user's own classes, by dotted path
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: a recipe has the keys {', '.join(SECTIONS)}")
    for key in content:
        if key not in SECTIONS:
            raise RecipeError(f"{path.name}: '{key}': a recipe has no such key{suggest(str(key), SECTIONS)}")
    stated = _take_sizes(content)
    _refuse_sizes(overrides)
    made = parser()
    try:
        config = made.parse_args([f"--config={yaml.safe_dump(content)}", *_own_file(overrides)])
    except Exception as error:
        raise RecipeError(f"{path.name}: {explain(error, made)}") from (error if isinstance(error, OSError) else None)
    _refuse_other_latent(content, overrides, config, path.name)
    return path.stem if path.name != "recipe.yaml" else path.parent.name, config, stated, made


def load(recipe: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and build everything in it.

    Args:
        recipe: the name of a shipped recipe, a path, or a run folder.
        overrides: command-line arguments such as `--model.latent 16`.

    Raises:
        RecipeError: one line that names the key and the near match.
        CorpusError: the corpus cannot be read.
    """
    name, config, stated, made = read(recipe, overrides)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        try:
            built = made.instantiate(config)
        except (TypeError, AttributeError) as error:
            raise RecipeError(f"{name}: {explain(error, made)}") from error
    text = _resolved(config, made, built.corpus, stated, name)
    return Recipe(name, built.model, built.guide, built.corpus, built.strategy, built.training, config.seed, text)


def open_run(path: str | Path, split_overrides: Sequence[str] = ()) -> tuple[Run, Recipe]:
    """A saved run with its best parameters, ready for evaluation.

    Raises:
        RunError: the folder is not a run, or is damaged.
    """
    folder = RunFolder.open(path)
    if not folder.has("recipe.yaml"):
        raise RunError(f"{path} has no recipe.yaml: it was trained from Python; load its safetensors there")
    recipe = load(str(path), split_overrides)
    for module, name in ((recipe.model, "model"), (recipe.guide, "guide")):
        if module is not None:
            try:
                module.load_state_dict(folder.load_weights(name))
            except RuntimeError as error:
                raise RunError(
                    f"{path} is damaged: {name}.safetensors does not fit the recipe ({str(error).splitlines()[0]})"
                ) from None
            module.eval()
    return Run(recipe.model, recipe.guide, recipe.corpus, folder.metrics(), Path(path)), recipe


def _take_sizes(content: dict[str, Any]) -> dict[str, int]:
    """Take the sizes out of a recipe (a resolved one states them) to be compared with the corpus later."""
    stated: dict[str, int] = {}
    for section in ("model", "guide"):
        arguments = (content.get(section) or {}).get("init_args") if isinstance(content.get(section), dict) else None
        for size in SIZES:
            if isinstance(arguments, dict) and size in arguments:
                stated[f"{section}.{size}"] = arguments.pop(size)
    return stated


def _refuse_sizes(overrides: Sequence[str]) -> None:
    for argument in overrides:
        flag = argument.lstrip("-").split("=")[0].replace(".init_args.", ".")
        if flag.startswith(("model.", "guide.")) and flag.split(".", 1)[1] in SIZES:
            raise RecipeError(f"--{flag} is decided by the corpus: leave it out")


def _refuse_other_latent(content: dict[str, Any], overrides: Sequence[str], config: Namespace, name: str) -> None:
    """The guide's `latent` follows the model's (they are linked): one stated apart is a mistake."""
    own = config.model.init_args.get("latent")
    guide = content.get("guide")
    said = (guide.get("init_args") or {}).get("latent", own) if isinstance(guide, dict) else own
    flags = [a for a in overrides if a.split("=")[0].replace(".init_args.", ".") == "--guide.latent"]
    if own is not None and (said != own or flags):
        raise RecipeError(f"{name}: guide.latent follows model.latent ({own}): leave it out")


def _own_file(overrides: Sequence[str]) -> list[str]:
    """`--corpus.path my.txt` alone means a plain text file: name the class that reads it."""
    names = [argument.split("=")[0] for argument in overrides]
    return (["--corpus", "TextFile"] if "--corpus.path" in names and "--corpus" not in names else []) + list(overrides)


def _resolved(config: Namespace, made: ArgumentParser, corpus: Corpus, stated: dict[str, int], name: str) -> str:
    content = yaml.safe_load(made.dump(config, skip_unset=False))
    for section in ("model", "guide"):
        entry = content.get(section)
        if not entry:
            continue
        accepted = _arguments(entry["class_path"])
        for size, measure in _sizes.items():
            value = measure(corpus)
            if size not in accepted or value is None:
                continue
            said = stated.get(f"{section}.{size}", value)
            if said != value:
                raise RecipeError(
                    f"{name}: {section}.{size} is {said} in the recipe and {value} in the corpus '{corpus.name}': "
                    "leave it out, it comes from the corpus"
                )
            entry["init_args"][size] = value
    return yaml.safe_dump(content, sort_keys=False)


def _arguments(class_path: str) -> set[str]:
    import inspect

    module, _, name = class_path.rpartition(".")
    return set(inspect.signature(getattr(importlib.import_module(module), name)).parameters)


def split_of(corpus: Corpus, name: str) -> Split:
    """A split by name."""
    if name not in ("train", "valid", "test"):
        raise RecipeError(f"split is train, valid or test, not '{name}'")
    found: Split = getattr(corpus, name)
    return found
