"""What one run is made of: model, guide, corpus, strategy, training and seed, read from YAML (layer: recipe).

jsonargparse reads a recipe against the constructors' own type hints and docstrings: there is no registry and no second
schema. Classes of the zoo are named by their short name, anybody's by dotted path.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jsonargparse import ArgumentParser, Namespace
from pyro.nn import PyroModule
from torch import nn

import pyro_nlp.data
import pyro_nlp.guides
import pyro_nlp.models
from pyro_nlp.data.corpus import Corpus, CorpusError
from pyro_nlp.data.splits import Split, VectorSplit
from pyro_nlp.data.text import TextCorpus
from pyro_nlp.inference.compiling import meet
from pyro_nlp.inference.estimators import Marginalize
from pyro_nlp.inference.fit import Run
from pyro_nlp.inference.folder import RunError, RunFolder
from pyro_nlp.inference.strategy import Strategy
from pyro_nlp.inference.training import Training
from pyro_nlp.nn import meet_corpus
from pyro_nlp.recipe_errors import RecipeError, explain, named_class, raised_by_constructor, read_yaml, suggest
from pyro_nlp.recipe_strategies import named, read_strategy

SECTIONS = ("model", "guide", "corpus", "strategy", "training", "seed")
SERIES = ("collapse",)
"""Folders of recipes that belong together."""
SIZES = ("vocabulary", "dimension", "population")
"""Constructor arguments that a corpus decides; a recipe need not and cannot choose them."""
SHARED = ("latent", "classes", "variables", "attributes")
"""Constructor arguments of a guide that follow the model's of the same name, where both have one."""


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
    """The recipes that come with the package, by name; those of a series have its name before their own."""
    return named("recipes") | {f"{s}/{name}": path for s in SERIES for name, path in named(f"recipes/{s}").items()}


def find(recipe: str) -> Path:
    """The file of a shipped recipe's name, of a path, or of a run folder."""
    known = shipped()
    if recipe in known:  # whatever else has the name here: a path can be told apart, as in ./ring
        return known[recipe]
    path = Path(recipe)
    if path.is_dir():
        if not (path / "recipe.yaml").exists():
            raise RecipeError(f"the folder {recipe} has no recipe.yaml: it is not a run, or was trained from Python")
        return path / "recipe.yaml"
    if path.is_file():
        return path
    raise RecipeError(
        f"there is no recipe '{recipe}'{suggest(recipe, known)} (give a YAML file, or one of {', '.join(known)})"
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
    for argument in SHARED:
        result.link_arguments(f"model.init_args.{argument}", f"guide.init_args.{argument}")
    return result


def _vocabulary(corpus: Corpus) -> int | None:
    return len(corpus.vocabulary) if corpus.vocabulary is not None else None


def _dimension(corpus: Corpus) -> int | None:
    return corpus.train.values.shape[1] if isinstance(corpus.train, VectorSplit) else None


def _population(corpus: Corpus) -> int:
    return len(corpus.train)


_sizes = {"vocabulary": _vocabulary, "dimension": _dimension, "population": _population}


def read(
    recipe: str, overrides: Sequence[str] = (), strategy: str | None = None
) -> tuple[str, Namespace, dict[str, int], ArgumentParser]:
    """Parse a recipe: its name, the namespace, the sizes it states, and the parser that made it."""
    path = find(recipe)
    content = _content(path)
    if strategy is not None:
        content["strategy"] = (content.get("strategy") or {}) | read_strategy(strategy)
    source = Path(origin(path))
    if source.is_file() and source.resolve() != path.resolve():
        with suppress(RecipeError):
            _content(source)  # for the folders it and its bases stand in
    for folder in (path.parent.resolve(), source.parent.resolve(), Path.cwd()):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))  # a user's own classes, by dotted path
    stated = _take_sizes(content)
    _refuse_sizes(overrides)
    made, where = parser(), path.name if strategy is None else f"{path.name} with the strategy {strategy}"
    try:
        config = made.parse_args([f"--config={yaml.safe_dump(content)}", *_own_file(overrides, content)])
    except Exception as error:
        raise RecipeError(f"{where}: {explain(error, made)}") from (error if isinstance(error, OSError) else None)
    _refuse_wrong_kind(config, path.name)
    _refuse_unshared(content, overrides, config, path.name)
    return path.stem if path.name != "recipe.yaml" else path.resolve().parent.name, config, stated, made


def spelled_out(recipe: str, overrides: Sequence[str] = (), strategy: str | None = None) -> str:
    """A recipe with all its values as YAML, but for the sizes that come from the corpus."""
    _, config, _, made = read(recipe, overrides, strategy)
    text = yaml.safe_dump(yaml.safe_load(made.dump(config, skip_unset=False)), sort_keys=False)
    return f"{_ORIGIN}{origin(find(recipe))}\n{text}"


def origin(path: Path) -> str:
    """What a run's recipe was resolved from, whose folder may hold the user's classes: a shipped name, or a file."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    if first.startswith(_ORIGIN):
        return first.removeprefix(_ORIGIN)
    return next((name for name, file in shipped().items() if file == path), str(path.resolve()))


_ORIGIN = "# resolved from "


def _base(name: object, path: Path) -> Path:
    """The recipe that another is built on: a shipped one's name, or a path from where the other stands."""
    if not isinstance(name, str):
        raise RecipeError(f"{path.name}: 'base': expected the name or path of a recipe, got {name!r}")
    beside = path.parent / name
    return beside if name not in shipped() and beside.is_file() else find(name)


def _over(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's values over those of its base, key by key; what names another class replaces the whole of it."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, str) and isinstance(value, dict) and "init_args" in value:
            old = {"class_path": old}  # a class without arguments may be named by itself
        another = not (isinstance(value, dict) and isinstance(old, dict)) or (
            "class_path" in value and value["class_path"] != old.get("class_path")
        )
        merged[key] = value if another else _over(dict(old or {}), value)
    return merged


def _content(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The sections of a recipe's file over those of its base; their contents are not looked at."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: a recipe has the keys {', '.join(SECTIONS)}")
    if str(path.parent.resolve()) not in sys.path:
        sys.path.append(str(path.parent.resolve()))  # a user's own classes, by dotted path
    below = content.pop("base", None)
    if below is not None:
        if path.resolve() in above:
            raise RecipeError(f"{path.name}: its base is built on itself")
        content = _over(_content(_base(below, path), (*above, path.resolve())), content)
    resolved = path.read_text(encoding="utf-8").startswith(_ORIGIN)
    if resolved and (missing := next((key for key in SECTIONS if key not in content), None)):
        raise RecipeError(f"{path} is damaged: it ends before '{missing}'")
    for key, value in content.items():
        if key not in SECTIONS:
            raise RecipeError(f"{path.name}: '{key}': a recipe has no such key{suggest(str(key), SECTIONS)}")
        if key in ("strategy", "training") and value is not None and not isinstance(value, dict):
            raise RecipeError(f"{path.name}: '{key}': expected arguments of {key.capitalize()}, got {value!r}")
    return {key: value for key, value in content.items() if value is not None or key == "guide"}


def load(recipe: str, overrides: Sequence[str] = (), strategy: str | None = None) -> Recipe:
    """Read a recipe and build everything in it.

    Args:
        recipe: the name of a shipped recipe, a path, or a run folder.
        overrides: command-line arguments such as `--model.latent 16`; they have the last word.
        strategy: the name of a shipped strategy, or a path; it replaces what the recipe says in the same places.

    Raises:
        RecipeError: one line that names the key and the near match.
        CorpusError: the corpus cannot be read.
    """
    name, config, stated, made = read(recipe, overrides, strategy)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        try:
            built = made.instantiate(config)
            meet_corpus(built.corpus, built.model, built.guide)
        except (CorpusError, TypeError, ValueError, AttributeError) as error:
            found = raised_by_constructor(error)
            if isinstance(found, TypeError | AttributeError):
                raise RecipeError(f"{name}: {explain(found, made)}") from error
            raise found from None
    text = f"{_ORIGIN}{origin(find(recipe))}\n{_resolved(config, made, built.corpus, stated, name)}"
    return Recipe(name, built.model, built.guide, built.corpus, built.strategy, built.training, config.seed, text)


def open_run(path: str | Path, split_overrides: Sequence[str] = ()) -> tuple[Run, Recipe]:
    """A saved run with its best parameters, ready for evaluation.

    Raises:
        RunError: the folder is not a run, or is damaged, or its corpus is no longer what it was.
    """
    folder = RunFolder.open(path)
    if not folder.has("recipe.yaml"):
        raise RunError(f"{path} has no recipe.yaml: it was trained from Python; load its safetensors there")
    recipe = load(str(folder.path / "recipe.yaml"), split_overrides)
    _refuse_other_corpus(folder, recipe.corpus)
    guide, marginal = _trained(recipe)
    for module, name in ((recipe.model, "model"), (guide, "guide")):
        if module is not None:
            weights = folder.load_weights(name)
            try:
                module.load_state_dict(weights)
            except RuntimeError as error:
                raise RunError(
                    f"{path} is damaged: {name}.safetensors does not fit recipe.yaml "
                    f"({(str(error).splitlines()[1:2] or [str(error)])[0].strip()})"
                ) from None
            module.eval()
    meet(recipe.model, guide)
    guide = recipe.strategy.updates.refine(recipe.model, guide)
    return Run(recipe.model, guide, recipe.corpus, folder.metrics(), Path(path), marginal), recipe


def _trained(recipe: Recipe) -> tuple[nn.Module | None, tuple[str, ...]]:
    """The guide if it learnt anything, and the latents that were summed out in the model."""
    strategy = recipe.strategy
    if not any(isinstance(e, Marginalize) for e in (strategy.discrete, *strategy.sites.values())):
        return recipe.guide, ()
    batch = recipe.corpus.train.batch(np.arange(min(2, len(recipe.corpus.train))))
    objective = strategy.compile(recipe.model, recipe.guide, batch)
    return objective.guide, objective.marginal


def to_resume(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a run that is to be continued, with settings of training that may change on the way.

    Raises:
        RunError: the folder is not a run, is damaged, or its corpus is no longer what it was.
        RecipeError: an override that would make it another run.
    """
    folder = RunFolder.open(path)
    if not folder.has("recipe.yaml"):
        raise RunError(f"{path} has no recipe.yaml: it was trained from Python; resume it there")
    file = folder.path / "recipe.yaml"
    before, after = (
        flat(yaml.safe_load(made.dump(c))) for _, c, _, made in (read(str(file), o) for o in ((), overrides))
    )
    for key in (*before, *after):
        if before.get(key) != after.get(key) and not key.startswith(MAY_CHANGE):
            raise RecipeError(
                f"{path}: a resumed run keeps its {key.replace('.init_args', '')} ({before.get(key)}): "
                f"leave it out, or begin a new run"
            )
    recipe = load(str(file), overrides)
    _refuse_other_corpus(folder, recipe.corpus)
    return recipe


MAY_CHANGE = (
    "corpus.",  # its place may; what is in it is held by the fingerprint
    "training.epochs",
    "training.optimizer.init_args.learning_rate",
    "training.clip",
    "training.word_dropout",
    "training.plateau",
    "training.precision",
    "training.device",
    "training.log_every",
    "training.checkpoint_minutes",
)
"""What a resumed run may do otherwise than it began."""


def flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {
        key: leaf
        for name, inner in value.items()
        for key, leaf in flat(inner, f"{path}.{name}" if path else str(name)).items()
    }


def _refuse_other_corpus(folder: RunFolder, corpus: Corpus) -> None:
    """Word ids mean what they meant in training, and the splits are the same; or this is not that run."""
    for name in ("environment.json", "vocabulary.json") if corpus.vocabulary is not None else ("environment.json",):
        if not folder.has(name):
            raise RunError(f"{folder.path} is damaged: {name} is missing")
    try:
        said = json.loads(folder.read_text("environment.json")).get("fingerprint")
    except (json.JSONDecodeError, AttributeError):
        raise RunError(f"{folder.path} is damaged: environment.json cannot be read") from None
    if said != corpus.fingerprint:
        raise RunError(
            f"the corpus '{corpus.name}' has changed since {folder.path} began (fingerprint {corpus.fingerprint}, "
            f"was {said}): restore it, or begin a new run"
        )
    if corpus.vocabulary is not None and folder.read_text("vocabulary.json") != corpus.vocabulary.to_json():
        raise RunError(f"{folder.path} is damaged: vocabulary.json is not the vocabulary of its corpus '{corpus.name}'")


def _refuse_wrong_kind(config: Namespace, name: str) -> None:
    """Models and guides have one base class: a guide of the zoo in the place of its model is a mistake all the same."""
    for section, other in (("model", "guide"), ("guide", "model")):
        path = config[section].class_path if config[section] is not None else ""
        if path.startswith(f"pyro_nlp.{other}s."):
            raise RecipeError(f"{name}: '{section}': {path.rpartition('.')[2]} is a {other}, which cannot stand here")


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


def _refuse_unshared(content: dict[str, Any], overrides: Sequence[str], config: Namespace, name: str) -> None:
    """What a guide shares with its model follows the model's (they are linked): one stated apart is a mistake."""
    sections = (content.get(section) for section in ("model", "guide"))
    model, guide = ((part.get("init_args") or {}) if isinstance(part, dict) else {} for part in sections)
    flags = {argument.split("=")[0].replace(".init_args.", ".") for argument in overrides}
    for shared in SHARED:
        own = config.model.init_args.get(shared)
        said = model.get(shared, own)  # a guide that repeats the model follows an override of the model's
        if own is not None and (guide.get(shared, said) != said or f"--guide.{shared}" in flags):
            raise RecipeError(f"{name}: guide.{shared} follows model.{shared} ({own}): leave it out")


def _own_file(overrides: Sequence[str], content: Mapping[str, Any]) -> list[str]:
    """`--corpus.path my.txt` alone means a plain text file, where the recipe reads sentences or has no path: name the
    class that reads it."""
    names = [argument.split("=")[0] for argument in overrides]
    plain = "--corpus.path" in names and "--corpus" not in names and not _has_other_path(content.get("corpus"))
    return (["--corpus", "TextFile"] if plain else []) + list(overrides)


def _has_other_path(corpus: Any) -> bool:
    """Whether a recipe's corpus has a path that is not one of sentences: pairs, counts, trees."""
    found = named_class(corpus.get("class_path") if isinstance(corpus, dict) else corpus)
    if found is None or issubclass(found, TextCorpus):
        return False
    return "path" in inspect.signature(found).parameters


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
            entry.setdefault("init_args", {})[size] = value
    return yaml.safe_dump(content, sort_keys=False)


def _arguments(class_path: str) -> set[str]:
    module, _, name = class_path.rpartition(".")
    return set(inspect.signature(getattr(importlib.import_module(module), name)).parameters)


def split_of(corpus: Corpus, name: str) -> Split:
    """A split by name."""
    if name not in ("train", "valid", "test"):
        raise RecipeError(f"split is train, valid or test, not '{name}'")
    found: Split = getattr(corpus, name)
    return found
