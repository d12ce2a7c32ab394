"""A progress bar that shows itself only when the work is slow and somebody is watching (layer: data)."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.errors import LiveError
from rich.progress import Progress

DELAY = 1.0
"""Seconds of work before the bar appears."""


class Meter:
    """Progress of `total` units of work; silent in the first second and where stderr is no terminal."""

    def __init__(self, description: str, total: float):
        self.description, self.total = description, total
        self._done, self._start = 0.0, time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def advance(self, amount: float = 1) -> None:
        """Report work done."""
        self._done += amount
        if self._bar is None and time.monotonic() - self._start > DELAY:
            console = Console(stderr=True)
            self._bar = Progress(console=console, transient=True, disable=not console.is_terminal)
            self._bar.add_task(self.description, total=self.total)
            try:
                self._bar.start()
            except LiveError:  # somebody else's bar is on the screen; rich before 14.1 allows one only
                self._bar.disable = True
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None and not self._bar.disable:
            self._bar.stop()
