"""BibTeX of what a recipe uses, found through the references in docstrings (layer: recipe)."""

from __future__ import annotations

import importlib
import importlib.resources
import re
from collections.abc import Iterable
from typing import Any

import yaml

_CITATION = re.compile(r"\b([A-Z][a-z]+)(?: et al\.| and [A-Z][\w-]+)?,? (\d{4}[a-z]?)\b")


def entries() -> dict[str, str]:
    """Every BibTeX entry of the package, by key."""
    text = (importlib.resources.files("pyro_nlp") / "references.bib").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.startswith("@")]
    return {line[line.index("{") + 1 : line.index(",")]: _spread(line) for line in lines}


def cited(text: str) -> list[str]:
    """Keys of the works a text names, such as `bowman2016` for "Bowman et al. 2016"."""
    return list(dict.fromkeys(f"{name.lower()}{year}" for name, year in _CITATION.findall(text)))


def bibliography(resolved: str) -> list[str]:
    """BibTeX of Pyro and of everything the classes of a resolved recipe cite, in order of appearance."""
    known = entries()
    keys = ["bingham2019"]
    for path in _class_paths(yaml.safe_load(resolved)):
        module, _, name = path.rpartition(".")
        found = getattr(importlib.import_module(module), name)
        for base in found.__mro__:
            if base.__module__.startswith("pyro_nlp"):
                keys += cited((base.__doc__ or "") + str(getattr(base, "reference", "")))
    return [known[key] for key in dict.fromkeys(keys) if key in known]


def _class_paths(value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        if isinstance(value.get("class_path"), str):
            yield value["class_path"]
        for inner in value.values():
            yield from _class_paths(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _class_paths(inner)


def _spread(entry: str) -> str:
    """One line of the file as BibTeX is usually set: a field a line."""
    head, body = entry.split(", ", 1)
    return head + ",\n  " + re.sub(r"\}, (?=\w+=)", "},\n  ", body.removesuffix("}")) + "\n}"
