"""For every test: one seed, no global left changed, no cache of the user's, loud about what is skipped."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: there is a worker for every core

import pyro
import pytest
import torch

import pyro_nlp  # noqa: F401 (sets module_local_params, the one global that may change)

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell's `pytest &`: processes of the tests would inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

SEED = 20160101
CORPORA = "PYRO_NLP_DATA"


def _environ() -> dict[str, str]:
    """Without what pytest sets, and scikit-learn when it is first imported."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_CURRENT_TEST", "KMP_"))}


def _set_environ(value: dict[str, str]) -> None:
    for key in set(_environ()) - set(value):
        del os.environ[key]
    os.environ.update(value)


def _set_params(value: list[str]) -> None:
    pyro.clear_param_store()  # it is empty before every test


def _root_level() -> int:
    return logging.getLogger().level


def _interrupt_handler() -> Any:
    return signal.getsignal(signal.SIGINT)


GLOBALS: dict[str, tuple[Callable[[], Any], Callable[[Any], object]]] = {
    "torch's default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "torch's default device": (torch.get_default_device, torch.set_default_device),
    "torch's thread count": (torch.get_num_threads, torch.set_num_threads),
    "torch's gradient mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "torch's anomaly mode": (torch.is_anomaly_enabled, torch.set_anomaly_enabled),
    "torch's float32 matmul precision": (
        torch.get_float32_matmul_precision,
        torch.set_float32_matmul_precision,
    ),
    "torch's deterministic mode": (
        torch.are_deterministic_algorithms_enabled,
        torch.use_deterministic_algorithms,
    ),
    "pyro.settings": (pyro.settings.get, lambda value: pyro.settings.set(**value)),
    "pyro's parameter store": (lambda: sorted(pyro.get_param_store().keys()), _set_params),
    "os.environ": (_environ, _set_environ),
    "the working directory": (os.getcwd, os.chdir),
    "the root logger's level": (_root_level, logging.getLogger().setLevel),
    "the SIGINT handler": (_interrupt_handler, partial(signal.signal, signal.SIGINT)),
}
"""By name: how a global is read, and how it is set back."""


@pytest.fixture(autouse=True)
def _globals_are_left_alone() -> Iterator[None]:
    """Fail a test that leaves a global changed, and set it back, so that no other test fails for it."""
    before = {name: get() for name, (get, _) in GLOBALS.items()}
    yield
    changed = []
    for name, (get, set_back) in GLOBALS.items():
        if (after := get()) != before[name]:
            changed.append(f"{name}: {_difference(before[name], after)}")
            set_back(before[name])
    if changed:
        pytest.fail("the test left a global changed: " + "; ".join(changed), pytrace=False)


def _difference(before: Any, after: Any) -> str:
    if isinstance(before, dict):
        keys = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
        return ", ".join(f"{key} was {before.get(key)!r}, is {after.get(key)!r}" for key in sorted(keys))
    return f"was {before!r}, is {after!r}"


@pytest.fixture(autouse=True)
def _seeded(_globals_are_left_alone: None) -> None:
    """One seed before every test: it gives alone what it gives among the others."""
    pyro.set_rng_seed(SEED)


@pytest.fixture(scope="session")
def session_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session", autouse=True)
def _own_home(session_home: Path) -> Iterator[None]:
    """No test reads or writes the user's cache; what one test parses, the others reuse."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYRO_NLP_HOME", str(session_home))
        patch.setenv("MPLBACKEND", "Agg")
        yield


@pytest.fixture(scope="session")
def corpora() -> Path:
    """The folder of published corpora; without it the test is skipped, and the summary says so."""
    folder = os.environ.get(CORPORA)
    if not folder or not Path(folder).is_dir():
        pytest.skip(f"{CORPORA} ({folder or 'not set'}) is no folder: the REAL FILES ARE NOT TESTED")
    return Path(folder)


LOUD = {
    CORPORA: ("TESTS ON PUBLISHED CORPORA", f"set {CORPORA} to the folder that holds ptb/ and the others"),
    "gensim": ("COMPARISON WITH GENSIM", "pip install gensim"),
    "Chromium": ("TESTS OF THE REPORT IN A BROWSER", "install Chromium or Chrome"),
}
"""By a word of the reason: what was skipped, and how to run it."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for word, (what, cure) in LOUD.items():
        skipped = [
            report.nodeid
            for report in terminalreporter.getreports("skipped")
            if isinstance(report.longrepr, tuple) and word in report.longrepr[2]
        ]
        if skipped:
            terminalreporter.section(f"!! {len(skipped)} {what} WERE SKIPPED !!", yellow=True, bold=True)
            for name in skipped:
                terminalreporter.line(f"  {name}")
            terminalreporter.line(f"to run them, {cure}")
