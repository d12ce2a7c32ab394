"""jsonargparse's many-line errors as one line with the path and the near match (layer: recipe)."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser


class RecipeError(ValueError):
    """A recipe that cannot be read; one line that names the key and the cure."""


def read_yaml(path: Path) -> Any:
    """What a YAML file holds."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise RecipeError(f"{path}: not YAML: {where}{error.problem or error.context}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def suggest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


def explain(error: BaseException, parser: ArgumentParser) -> str:
    """One line: where, what was found, what was expected, the near match."""
    text = str(error)
    where = ".".join(key for key in re.findall(r'Parser key "([^"]+)"', text) if key)
    if found := re.search(r"unrecognized arguments: (\S+)", text):
        if not found[1].startswith("-"):
            return f"'{found[1]}' is not understood: what follows the recipe are options such as --training.epochs 5"
        flag = found[1].lstrip("-").split("=")[0]
        return f"there is no option '--{flag}'{suggest(flag, _keys(parser))}"
    if found := re.search(r"Group '([^']+)' does not accept option '([^']+)'", text):
        known = {k.rpartition(".")[2] for k in _keys(parser) if k.startswith(f"{found[1]}.")}
        return f"'{found[1]}.{found[2]}': {found[1]} takes no '{found[2]}'{suggest(found[2], known)}"
    if found := re.search(r"(?:Option|Key) '([^']+)' is not (?:accepted|expected)", text):
        key, holder = found[1].split(".init_args")[0], _holder(text)
        leaf, place = key.rpartition(".")[2], holder.rpartition(".")[2] if holder else "a recipe"
        known = _parameters(holder) if holder else set()
        if place == "PyroModule":
            return f"'{where}': a class of its own is named by class_path, and takes its arguments under init_args"
        return f"'{'.'.join(p for p in (where, key) if p)}': {place} takes no '{leaf}'{suggest(leaf, known)}"
    if found := re.search(
        r"(?:Expected a dot import path string|Unexpected import path format)[: ]+([\w.]+)",
        text,
    ):
        return _class(found[1], where, text)
    if found := re.search(r"Import path does not correspond to a subclass of (\w+)", text):
        return f"'{where}': {_given(text)} is no {found[1]}"
    if found := re.search(r"Not a valid subclass of (\w+)", text):
        return f"'{where}': expected the name of a class of kind {found[1]}, got {_given(text)}"
    if found := re.search(r"Expected an? <class '([\w.]+)'>\. Got value: (.+?)(?:\. Got value|\n|$)", text):
        return f"'{where}': expected {found[1]}, got {found[2]}"
    found = re.search(r"Problem with given class_path '([^']+)':\s*\n?\s*(.+)", text)
    if found and not found[2].startswith("Parser key"):
        return f"'{where}': {' '.join(found[2].split())}"
    kinds = dict.fromkeys(re.findall(r"- Expected an? <class '(\w+)'>", text))
    if where and kinds and (given := re.search(r"Given value: (.+)", text)):
        wanted = " or ".join("null" if kind == "NoneType" else kind for kind in kinds)
        return f"'{where}': expected {wanted}, got {given[1]}"
    reasons = [line.strip(" -") for line in text.splitlines() if "Expected" in line and "NoneType" not in line]
    found_text = reasons[-1] if reasons else " ".join(text.split())
    return f"'{where}': {found_text}" if where else found_text


def raised_by_constructor(error: BaseException) -> BaseException:
    """What a class itself raised, out of what jsonargparse has wrapped around it."""
    while str(error).startswith(("Does not validate against", "Problem with given class_path", "Parser key")):
        inner = error.__cause__ or error.__context__
        if inner is None:
            break
        error = inner
    return error


def _class(name: str, where: str, text: str) -> str:
    short = name.rpartition(".")[2]
    classes = _classes()
    if short in classes:
        kind = _kind(classes[short])
        return f"'{where}': {short} is {'an' if kind[0] in 'aeiou' else 'a'} {kind}, which cannot stand here"
    if re.search(r"Expected a <class '(float|int)'>", text) and not suggest(short, classes):
        return f"'{where}': expected a number or the name of a class, got {name}"
    return f"'{where}': there is no class '{name}'{suggest(short, classes)}"


def _given(text: str) -> str:
    """The value that jsonargparse says it was given."""
    found = re.findall(r"(?:Given value|Got value): (.+)", text)
    return str(found[-1]) if found else "something else"


def _kind(found: type) -> str:
    from pyro_nlp.data.corpus import Corpus
    from pyro_nlp.inference import Bound, Estimator, Optimizer, Schedule, Shape, Updates
    from pyro_nlp.nn import Decoder, Encoder

    kinds: dict[Any, str] = {
        Corpus: "corpus",
        Bound: "bound",
        Estimator: "estimator",
        Optimizer: "optimiser",
        Schedule: "schedule",
        Shape: "KL shape",
        Updates: "kind of updates",
        Decoder: "decoder",
        Encoder: "encoder",
    }
    for base, kind in kinds.items():
        if issubclass(found, base):
            return kind
    return "guide" if ".guides." in found.__module__ else "model"


def _classes() -> dict[str, type]:
    """Every public class of the zoo by short name."""
    import pkgutil

    import pyro_nlp.guides
    import pyro_nlp.models

    modules = [importlib.import_module(f"pyro_nlp.{name}") for name in ("data", "nn", "inference")]
    for package in (pyro_nlp.models, pyro_nlp.guides, importlib.import_module("pyro_nlp.data")):
        modules += [
            importlib.import_module(f"{package.__name__}.{m.name}") for m in pkgutil.iter_modules(package.__path__)
        ]
    return {
        name: found
        for module in modules
        for name, found in vars(module).items()
        if isinstance(found, type) and found.__module__.startswith("pyro_nlp") and not name.startswith("_")
    }


def named_class(name: object) -> type | None:
    """The class of a short name of the zoo, or of anybody's dotted path; None where there is none."""
    module, _, short = str(name).rpartition(".")
    if not module:
        return _classes().get(short)
    with suppress(ImportError):
        found = getattr(importlib.import_module(module), short, None)
        return found if isinstance(found, type) else None
    return None


def _holder(text: str) -> str | None:
    """The innermost class whose arguments jsonargparse was reading."""
    found = re.findall(r"class_path[ =]'([^']+)'", text.split("Given value:")[0])
    return found[-1] if found else None


def _parameters(class_path: str) -> set[str]:
    module, _, name = class_path.rpartition(".")
    if not module:
        return set()
    return set(inspect.signature(getattr(importlib.import_module(module), name)).parameters)


def _keys(parser: ArgumentParser) -> set[str]:
    keys = {action.dest for action in parser._actions if action.dest}
    for section, found in (("model", "models"), ("guide", "guides")):
        for name, value in _classes().items():
            if f".{found}." in value.__module__:
                keys |= {f"{section}.{p}" for p in _parameters(f"{value.__module__}.{name}")}
    return keys
