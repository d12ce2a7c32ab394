"""Docstrings of installed packages, by parsing their source and never importing it (layer: data).

A package is parsed once; its records are kept under `PYRO_NLP_HOME`, compressed, by package version.
"""

from __future__ import annotations

import ast
import gc
import gzip
import importlib.metadata
import importlib.util
import inspect
import json
import os
import platform
import re
import sys
import sysconfig
import tempfile
import warnings
import zlib
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

from pyro_nlp.data.files import CorpusError, home
from pyro_nlp.data.progress import Meter

STDLIB = "stdlib"
DISTRIBUTIONS = {
    "torch": "torch",
    "numpy": "numpy",
    "scipy": "scipy",
    "pandas": "pandas",
    "matplotlib": "matplotlib",
    "sympy": "sympy",
    "networkx": "networkx",
    "xarray": "xarray",
    "arviz": "arviz",
    "pyro": "pyro-ppl",
}
"""Hard dependencies and theirs, by import name; extras never enter, or the corpus would differ by extra."""

_PARTS = {"arviz": ("arviz", "arviz_base", "arviz_stats", "arviz_plots")}  # arviz 1.x is four packages
_SKIPPED = {"test", "tests", "testing", "idlelib", "lib2to3", "turtledemo", "ensurepip", "site-packages"}
_SKIPPED |= {"__pycache__", "_vendor", "_vendored_packages", "externals", "benchmarks", "conftest.py"}
_CODE = 1  # raise when extraction changes: older caches are then ignored


class Record(NamedTuple):
    """One docstring: where it stands, its summary and the first paragraph after it ("" if there is none)."""

    module: str
    name: str
    summary: str
    paragraph: str


def records(package: str) -> tuple[str, list[Record]]:
    """Version and documented objects of a package or of the standard library, from the cache or parsed.

    Raises CorpusError if there is no such package.
    """
    roots = _roots(package)
    files = sorted(set(_files(roots)))
    version = _version(package, files)
    name = "".join(c if c.isalnum() or c in ".+-" else "_" for c in f"{package}-{version}")
    cache = home() / "docstrings" / f"{name}.{_CODE}.jsonl.gz"
    found = _read(cache)
    if found is None:
        found = _parse(package, files)
        _write(cache, found)
    return version, found


def installed(package: str) -> bool:
    """Whether the package can be found, without importing it."""
    try:
        return package == STDLIB or importlib.util.find_spec(package) is not None
    except (ValueError, ImportError):  # a module without a spec; a name with a dot whose parent is absent
        return False


def _roots(package: str) -> list[Path]:
    if package == STDLIB:
        base = Path(sysconfig.get_paths()["stdlib"])
        candidates = (base / f"{name}{end}" for name in sys.stdlib_module_names for end in ("", ".py"))
        return [path for path in candidates if path.exists() and path.name not in _SKIPPED]
    found = []
    for name in _PARTS.get(package, (package,)):
        spec = importlib.util.find_spec(name) if installed(name) and "." not in name else None
        if spec is not None and spec.submodule_search_locations:
            found += [Path(folder) for folder in spec.submodule_search_locations]
        elif spec is not None and spec.origin and spec.origin.endswith(".py"):
            found.append(Path(spec.origin))
    if not found:
        raise CorpusError(
            f"package {package!r} is not installed here as Python source; take it out of --corpus.packages, "
            f"or pip install it (known: {STDLIB}, {', '.join(DISTRIBUTIONS)})"
        )
    return found


def _files(roots: Iterable[Path]) -> Iterator[tuple[str, Path]]:
    """Module name and file of every module below the roots, tests left out."""
    for root in roots:
        if root.is_file():
            yield root.stem, root
            continue
        for folder, subfolders, names in os.walk(root):
            subfolders[:] = [s for s in subfolders if s not in _SKIPPED and s.isidentifier()]
            package = ".".join((root.name, *Path(folder).relative_to(root).parts))
            for name in names:
                if name.endswith(".py") and name not in _SKIPPED and not name.startswith("test_"):
                    yield package if name == "__init__.py" else f"{package}.{name[:-3]}", Path(folder, name)


def _version(package: str, files: list[tuple[str, Path]]) -> str:
    if package == STDLIB:
        return platform.python_version()
    try:
        return importlib.metadata.version(DISTRIBUTIONS.get(package, package))
    except importlib.metadata.PackageNotFoundError:
        # a folder that is importable but was not installed: its files say whether it has changed
        state = "".join(f"{m}{p.stat().st_size}{p.stat().st_mtime_ns}" for m, p in files)
        return f"0+{blake2b(state.encode(), digest_size=6).hexdigest()}"


def _parse(package: str, files: list[tuple[str, Path]]) -> list[Record]:
    found = []
    collecting = gc.isenabled()
    gc.disable()  # syntax trees have no cycles, and walking them for some takes longer than parsing
    try:
        with Meter(f"reading the docstrings of {package}", len(files)) as meter:
            for module, path in files:
                found += _parse_file(module, path)
                meter.advance()
    finally:
        if collecting:
            gc.enable()
    return found


def _parse_file(module: str, path: Path) -> list[Record]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a foreign module's invalid escape is not our user's business
            tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError):  # templates, bad bytes
        return []
    found = (Record(module, name, *summarise(text)) for name, text in _docstrings(tree, ""))
    return [record for record in found if record.summary]


def _docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """Qualified name and docstring of a module, its classes and functions, not those inside functions."""
    body: list[ast.stmt] = getattr(node, "body", [])
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        text = body[0].value.value
        if isinstance(text, str) and not isinstance(node, (ast.If, ast.Try)):
            yield name, text
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return
    for child in body:
        if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from _docstrings(child, f"{name}.{child.name}".lstrip("."))
        elif isinstance(child, (ast.If, ast.Try)):  # definitions that depend on the platform
            yield from _docstrings(child, name)


_SIGNATURE = re.compile(r"[\w.]+\s*\(.*\)\s*(->.*)?$", re.DOTALL)
_RULER = re.compile(r"^\W{3,}$", re.MULTILINE)
_END = re.compile(r"(?<!e\.g)(?<!i\.e)(?<!etc)(?<!vs)(?<!cf)[.!?](?=\s+[A-Z`:*\"'(\[])")
_NOT_PROSE = (">>>", ".. ", "- ", "* ", "|", "+-", "@", "%", "#", "$")


def summarise(text: str) -> tuple[str, str]:
    """The first sentence of a docstring and the first paragraph of prose after it, each as a single line."""
    paragraphs = [p.strip("\n") for p in re.split(r"\n[ \t]*\n", inspect.cleandoc(text))]
    if paragraphs and _SIGNATURE.match(paragraphs[0].strip()):
        paragraphs = paragraphs[1:]  # a signature written out, as C functions have it
    if not paragraphs:
        return "", ""
    head = _RULER.split(paragraphs[0].strip())  # the title of a module may be underlined
    first = _line(next((part for part in head if part.strip()), ""))
    if not first or first.startswith(_NOT_PROSE):
        return "", ""
    end = _END.search(first)
    summary = first[: end.end()] if end else first
    rest = [first[end.end() :].strip()] if end else []
    rest += [_line(p) for p in paragraphs[1:3] if "\n---" not in p and "\n===" not in p and not p.startswith(" ")]
    prose = (p for p in rest if len(p) > 1 and not p.startswith((*_NOT_PROSE, ":")))
    return summary, next(prose, "")


def _line(text: str) -> str:
    return " ".join(text.split())


def _read(cache: Path) -> list[Record] | None:
    """The cached records; None if there are none or the file is damaged."""
    try:
        with gzip.open(cache, "rt", encoding="utf-8") as stream:
            count = json.loads(stream.readline())["records"]
            found = [Record(*json.loads(line)) for line in stream]
    except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error):
        return None
    return found if len(found) == count else None


def _write(cache: Path, found: list[Record]) -> None:
    """Keep the records; a cache that cannot be written costs time only, so that is a warning."""
    temporary = None
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=cache.parent, prefix=f".{cache.name}-")
        text = "\n".join((json.dumps({"records": len(found)}), *map(json.dumps, found)))
        with os.fdopen(handle, "wb") as stream:
            stream.write(gzip.compress(text.encode(), compresslevel=3, mtime=0))
        os.replace(temporary, cache)
    except OSError as error:
        warnings.warn(f"{cache}: cannot keep the parsed docstrings ({error.strerror}); set PYRO_NLP_HOME", stacklevel=2)
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
