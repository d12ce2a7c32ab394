"""The layers of the package, by its imports, and what importing it leaves alone."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

import pyro_nlp

ROOT = Path(pyro_nlp.__file__).resolve().parents[1]

LAYERS = (
    ("pyro_nlp.data",),
    ("pyro_nlp.distributions",),
    ("pyro_nlp.nn",),
    ("pyro_nlp.inference.schedules",),
    ("pyro_nlp.inference",),
    ("pyro_nlp.evaluation",),
    ("pyro_nlp.models", "pyro_nlp.guides"),
    ("pyro_nlp",),  # recipe, cli and what stands beside them
)
"""Bottom up. A module belongs to its longest prefix, and imports from its own layer and those below."""

ZOO_MAY_IMPORT = ("pyro_nlp.data", "pyro_nlp.distributions", "pyro_nlp.nn")


def modules() -> dict[str, Path]:
    """Every module by its import name; the zoo by its own folders, not by the links to them."""
    found = {}
    for package, folder in {
        "pyro_nlp": "pyro_nlp",
        "pyro_nlp.models": "models",
        "pyro_nlp.guides": "guides",
    }.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            if (package, parts[0]) not in (("pyro_nlp", "models"), ("pyro_nlp", "guides")):
                found[".".join((package, *(part for part in parts if part != "__init__")))] = path
    return found


MODULES = modules()


def imported(name: str) -> Iterator[tuple[str, int]]:
    """What a module imports anywhere in its text, and where; `from a import b` is a.b if that is a module."""
    path = MODULES[name]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
                source = ".".join([*package[: len(package) - node.level + 1], *filter(None, [source])])
            for alias in node.names:
                longer = f"{source}.{alias.name}"
                yield (longer if longer in MODULES else source), node.lineno


def inside(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def layer(name: str) -> int:
    matches = [(len(prefix), i) for i, row in enumerate(LAYERS) for prefix in row if inside(name, prefix)]
    return max(matches)[1]


def below_zoo(name: str) -> bool:
    return any(inside(name, package) for package in ZOO_MAY_IMPORT)


def offences(allowed: Callable[[str, str], bool], names: Iterable[str] = MODULES) -> list[str]:
    """The imports, `file:line: module imports other`, that `allowed(module, other)` denies."""
    return [
        f"{MODULES[name].relative_to(ROOT)}:{line}: {name} imports {other}"
        for name in sorted(names)
        for other, line in imported(name)
        if not allowed(name, other)
    ]


def test_a_module_imports_only_from_its_own_layer_and_those_below() -> None:
    assert not offences(lambda name, other: not inside(other, "pyro_nlp") or layer(other) <= layer(name))


def test_models_and_guides_stand_on_data_distributions_and_nn_alone() -> None:
    zoo = [name for name in MODULES if name.startswith(("pyro_nlp.models.", "pyro_nlp.guides."))]
    assert len(zoo) > 1
    assert not offences(lambda _, other: not inside(other, "pyro_nlp") or below_zoo(other), zoo)


def test_no_module_imports_the_zoo_by_its_folder() -> None:
    assert not offences(lambda _, other: other.split(".")[0] not in ("models", "guides"))


@pytest.mark.parametrize("folder", ["models", "guides"])
def test_the_folders_of_the_zoo_are_flat_and_one_link_away(folder: str) -> None:
    below = [path for path in (ROOT / folder).iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert not below
    link = ROOT / "pyro_nlp" / folder
    if link.is_file():
        pytest.skip("git checked the links out as files, as on Windows")
    assert link.resolve() == (ROOT / folder).resolve()


def test_what_takes_seconds_to_import_is_left_to_what_needs_it() -> None:
    """Every command pays for what is imported with the package."""
    code = "import sys, pyro_nlp; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"arviz", "matplotlib", "pandas", "sacrebleu", "scipy.optimize", "scipy.stats", "sklearn", "xarray"}
    assert not heavy & set(run.stdout.split())


def test_importing_the_package_changes_one_pyro_setting_and_nothing_else() -> None:
    """In a fresh process, what others change on *their* import is let happen first."""
    imports = {other for name in MODULES for other, _ in imported(name)}
    foreign = sorted(name for name in imports if not inside(name, "pyro_nlp"))
    code = """if True:
        import contextlib, gc, importlib, json, logging, os, random, signal, sys, warnings
        foreign, ours = json.loads(sys.stdin.read())
        for name in foreign:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
        import matplotlib, numpy, pyro, torch

        def state():
            loggers = {"root": logging.getLogger(), **logging.Logger.manager.loggerDict}
            loggers = {n: l for n, l in loggers.items() if isinstance(l, logging.Logger)}
            return {
                "dtype": torch.get_default_dtype(), "device": torch.get_default_device(),
                "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
                "grad": torch.is_grad_enabled(), "anomaly": torch.is_anomaly_enabled(),
                "deterministic": torch.are_deterministic_algorithms_enabled(),
                "matmul": torch.get_float32_matmul_precision(),
                "validation": torch.distributions.Distribution._validate_args,
                "torch random state": torch.get_rng_state().tolist(),
                "numpy random state": numpy.random.get_state()[1].tolist(),
                "python random state": random.getstate(),
                "numpy errors": numpy.geterr(), "printing": numpy.get_printoptions(),
                "matplotlib": dict(matplotlib.rcParams),
                "warnings": list(warnings.filters),
                "logging": {n: (l.handlers[:], l.level) for n, l in loggers.items() if l.handlers or l.level},
                "signals": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
                "hooks": (sys.excepthook, sys.displayhook), "path": list(sys.path), "gc": gc.get_threshold(),
                "directory": os.getcwd(), "environment": dict(os.environ),
                "params": sorted(pyro.get_param_store().keys()),
                **{f"pyro.settings.{name}": value for name, value in pyro.settings.get().items()},
            }

        before = state()
        for name in ours:
            importlib.import_module(name)
        after = state()
        print(json.dumps(sorted(name for name in after if before.get(name) != after[name])))
    """
    ours = sorted(name for name in MODULES if name != "pyro_nlp.__main__")
    command, given = [sys.executable, "-c", code], json.dumps([foreign, ours])
    done = subprocess.run(command, input=given, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["pyro.settings.module_local_params"]
