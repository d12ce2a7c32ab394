"""Fixtures of the data tests: a cache of their own, and the published corpora where they are."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def session_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, session_home: Path) -> None:
    """No test reads or writes the user's cache; the parsed standard library is shared by the tests."""
    monkeypatch.setenv("PYRO_NLP_HOME", str(session_home))


@pytest.fixture
def published() -> Callable[[str], str]:
    """The name of a folder of PYRO_NLP_DATA; skips, and says so, where it is not there."""

    def folder(name: str) -> str:
        data = os.environ.get("PYRO_NLP_DATA")
        if not data or not (Path(data) / name).exists():
            pytest.skip(f"PYRO_NLP_DATA ({data or 'not set'}) has no {name}: the REAL FILES ARE NOT TESTED")
        return str(Path(data) / name)

    return folder


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Write a file in the test's own folder."""

    def put(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return put
