"""Runs of a comparison in processes of their own, some at once, and bars for them (layer: recipe)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

import pyro_nlp
from pyro_nlp.comparison_run import REFUSED
from pyro_nlp.comparison_table import Job
from pyro_nlp.inference import Interrupted, RunFolder

ROOT = Path(pyro_nlp.__file__).resolve().parents[1]
CHILD = f"""if True:
    import sys
    sys.path.append({str(ROOT)!r})
    from pyro_nlp.comparison_run import main
    sys.exit(main(sys.argv[1:]))
"""
"""What a process runs. With -P nothing in the working directory stands in the way of the standard library."""
PATIENCE = 60.0
"""Seconds that a process may take to save its state when it is asked to stop."""


@dataclass
class Process:
    """A job at work."""

    handle: subprocess.Popen[bytes]
    errors: IO[bytes]

    def stop(self) -> None:
        """Ask it to save its state and end."""
        assert self.handle.stdin
        with contextlib.suppress(OSError):
            self.handle.stdin.close()

    def trouble(self) -> str:
        """The last line it wrote on standard error, or how it ended."""
        self.errors.seek(0)
        lines = self.errors.read().decode("utf-8", "replace").strip().splitlines()
        self.errors.close()
        code = self.handle.returncode
        ended = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
        return lines[-1] if lines else ended


@dataclass
class Pool:
    """Runs jobs, some at once.

    Attributes:
        folder: of the comparison.
        samples: importance samples.
        workers: jobs at once.
    """

    folder: Path
    samples: int
    workers: int
    running: dict[Job, Process] = field(default_factory=dict)

    def run(self, jobs: Sequence[Job], show: Callable[[Sequence[Job], int], None]) -> dict[Job, tuple[bool, str]]:
        """What went wrong, by job: whether it was refused, and why. A strategy that is refused is not tried again."""
        waiting = [job for job in jobs if not (self._of(job) / "result.json").exists()]
        troubles: dict[Job, tuple[bool, str]] = {}
        try:
            while waiting or self.running:
                refused = {job.strategy for job, (was, _) in troubles.items() if was}
                waiting = [job for job in waiting if job.strategy not in refused]
                while waiting and len(self.running) < self.workers:
                    job = waiting.pop(0)
                    self.running[job] = self._start(job)
                for job, process in list(self.running.items()):
                    if process.handle.poll() is not None:
                        del self.running[job]
                        process.stop()
                        trouble = process.trouble()
                        if process.handle.returncode != 0:
                            troubles[job] = process.handle.returncode == REFUSED, trouble
                show(list(self.running), len(jobs) - len(waiting) - len(self.running))
                time.sleep(0.05)
        except KeyboardInterrupt:
            raise Interrupted("the comparison was interrupted; give the same command again to go on") from None
        finally:
            self._end()
        return troubles

    def _of(self, job: Job) -> Path:
        return self.folder / job.strategy / f"seed{job.seed}"

    def _start(self, job: Job) -> Process:
        threads = max(1, torch.get_num_threads() // self.workers)
        command = [sys.executable, "-P", "-c", CHILD, str(self.folder / job.strategy), str(job.seed)]
        command += [str(self.samples), str(threads)]
        errors = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the process)
        handle = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            start_new_session=True,  # Ctrl-C is for this process, which asks them to stop, once
        )
        return Process(handle, errors)

    def _end(self) -> None:
        """Let what is still running save its state."""
        for process in self.running.values():
            process.stop()
        until = time.monotonic() + PATIENCE
        for process in self.running.values():
            try:
                process.handle.wait(max(0.0, until - time.monotonic()))
            except (subprocess.TimeoutExpired, KeyboardInterrupt):  # a second Ctrl-C does not wait
                until = 0.0
                process.handle.kill()
                process.handle.wait()
            process.errors.close()
        self.running.clear()


@contextlib.contextmanager
def stopping_on_sigterm() -> Iterator[None]:
    """SIGTERM is Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Bars:
    """A bar for the comparison and one for every run at work, on standard error, or nothing."""

    def __init__(self, shown: bool, folder: Path, sections: dict[str, dict[str, Any]], total: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=Console(stderr=True), transient=True) if shown else None
        self.folder, self.total, self.read = folder, total, 0.0
        self.epochs = {name: section["training"]["epochs"] for name, section in sections.items()}
        self.tasks: dict[Job, TaskID] = {}

    def __enter__(self) -> Bars:
        if self.progress:
            self.progress.start()
            self.whole = self.progress.add_task("runs", total=self.total)
        return self

    def __exit__(self, *exc: object) -> None:
        if self.progress:
            self.progress.stop()

    def show(self, running: Sequence[Job], done: int) -> None:
        """Bring the bars up to date, once a second."""
        if self.progress is None or (time.monotonic() - self.read < 1.0 and self.tasks.keys() == set(running)):
            return
        self.read = time.monotonic()
        self.progress.update(self.whole, completed=done)
        for job in self.tasks.keys() - set(running):
            self.progress.remove_task(self.tasks.pop(job))
        for job in running:
            if job not in self.tasks:
                self.tasks[job] = self.progress.add_task(str(job), total=self.epochs[job.strategy])
            rows = RunFolder(self.folder / job.strategy / f"seed{job.seed}").metrics()
            bounds = [row["valid.loss"] for row in rows if "valid.loss" in row]
            if rows:
                last = bounds[-1] if bounds else rows[-1]["loss"]
                text = f"{job}: {'validation bound' if bounds else 'loss'} {last:.2f}"
                self.progress.update(self.tasks[job], completed=len(bounds), description=text)
