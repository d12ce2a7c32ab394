"""`pyro-nlp` as its users meet it: a process with arguments, a working directory, an exit status and two streams."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

REAL = [sys.executable, "-m", "pyro_nlp"]


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    argv: tuple[str, ...]
    status: int
    out: str
    err: str

    def worked(self) -> str:
        """What it printed."""
        assert self.status == 0, f"{self.argv}: {self.status}\n{self.out}\n{self.err}"
        assert "Traceback" not in self.err and "\r" not in self.out + self.err and "\x1b" not in self.out + self.err
        said = [line for line in self.err.splitlines() if not line.endswith("it does not come to its end")]
        assert not said, self.err
        return self.out

    def failed(self, status: int = 1) -> str:
        """The one line on standard error."""
        assert self.status == status, f"{self.argv}: {self.status}\n{self.out}\n{self.err}"
        assert self.err.startswith("pyro-nlp: ") and self.err.endswith("\n"), self.err
        assert self.err.count("\n") == 1 and "Traceback" not in self.err + self.out, self.err
        return self.err.removeprefix("pyro-nlp: ").strip()


class CommandLine:
    """Runs commands in a forked child of a process that has imported the package (`server.py`)."""

    def __init__(self) -> None:
        if not hasattr(os, "fork"):
            return
        self.server = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
        )

    def __call__(self, *argv: str | Path, cwd: Path, file_size: int | None = None, **environ: str | None) -> Result:
        """Run `pyro-nlp *argv`; a variable of the environment that is None is taken out of it."""
        if not hasattr(os, "fork"):
            return real(*argv, cwd=cwd, **environ)
        assert self.server.stdin and self.server.stdout
        arguments = tuple(str(a) for a in argv)
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder) / "out", Path(folder) / "err"
            job = {
                "argv": arguments,
                "cwd": str(cwd),
                "environ": environment(**environ),
                "out": str(out),
                "err": str(err),
                "file_size": file_size,
            }
            self.server.stdin.write(json.dumps(job) + "\n")
            self.server.stdin.flush()
            answer = self.server.stdout.readline()
            return Result(arguments, int(answer), out.read_text("utf-8"), err.read_text("utf-8"))

    def close(self) -> None:
        if not hasattr(os, "fork"):
            return
        assert self.server.stdin and self.server.stdout
        self.server.stdin.close()
        self.server.wait(30)
        self.server.stdout.close()


def environment(**changes: str | None) -> dict[str, str]:
    """This process's, with one thread, plain output, and changes."""
    plain = {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "PYTHONWARNINGS": "error", "COLUMNS": "200"}
    return {key: value for key, value in {**os.environ, **plain, **changes}.items() if value is not None}


def real(*argv: str | Path, cwd: Path, **environ: str | None) -> Result:
    """The same in a process from its very start."""
    arguments = [str(a) for a in argv]
    done = subprocess.run(
        [*REAL, *arguments], cwd=cwd, env=environment(**environ), capture_output=True, text=True, timeout=120
    )
    return Result(tuple(arguments), done.returncode, done.stdout, done.stderr)


def contents(folder: Path) -> dict[str, str]:
    """Hashes of every file below a folder, by path: what a failed command may not change."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def sentences(count: int = 300, seed: int = 0) -> str:
    """Template sentences, a line each, with something to learn."""
    generator = torch.Generator().manual_seed(seed)
    parts: Sequence[Sequence[str]] = (
        ("the", "a", "this"),
        ("small", "red", "old", "new"),
        ("cat", "dog", "house", "tree", "river"),
        ("sees", "finds", "likes", "leaves"),
        ("the", "a", "no"),
        ("cat", "dog", "house", "tree", "river"),
    )
    chosen = ([p[int(torch.randint(len(p), (), generator=generator))] for p in parts] for _ in range(count))
    return "".join(" ".join(words[: 4 if i % 5 == 0 else 6]) + " .\n" for i, words in enumerate(chosen))
