"""A bar on standard error that names what is being measured (layer: recipe)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn


@contextmanager
def progress_bar(total: int, shown: bool | None) -> Iterator[Callable[[str], None]]:
    """A bar on standard error that names what is being measured."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    disable = not (console.is_terminal if shown is None else shown)
    with Progress(*columns, console=console, transient=True, disable=disable) as bar:
        task = bar.add_task("", total=total)
        started = False

        def advance(what: str) -> None:
            nonlocal started
            bar.update(task, description=what, advance=int(started))
            started = True

        yield advance
