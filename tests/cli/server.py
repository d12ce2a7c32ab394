"""Runs `pyro-nlp` in a forked child per line of standard input, so that the seconds of importing are paid once.

A line is JSON: `argv`, `cwd`, `environ`, `out` and `err` (files), `file_size` (a limit in bytes, or null). The answer
is the exit status on a line. The child does what the installed `pyro-nlp` does: the working directory is not on its
path unless the command puts it there.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import runpy
import signal
import sys
import traceback
from typing import Any

import matplotlib.pyplot

import pyro_nlp.cli
import pyro_nlp.recipe


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    pyro_nlp.recipe.zoo()
    for name in ("torch._dynamo", "torch.fx.experimental.symbolic_shapes"):
        importlib.import_module(name)  # what PyTorch's first optimiser and first distribution would import
    matplotlib.pyplot.figure()
    path = list(sys.path)
    pyro_nlp.recipe.read("sentence_vae")  # fills caches of parsed source; what it adds to the path goes
    sys.path[:] = path
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child == 0:
            os._exit(_child(job))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
    os._exit(0)  # the interpreter would take seconds to take itself down


def _child(job: dict[str, Any]) -> int:
    os.chdir(job["cwd"])
    os.environ.clear()
    os.environ.update(job["environ"])
    for number, path in ((0, os.devnull), (1, job["out"]), (2, job["err"])):
        handle = os.open(path, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
    if job["file_size"] is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (job["file_size"], job["file_size"]))
    sys.argv = ["pyro-nlp", *job["argv"]]
    sys.path[0] = os.path.dirname(sys.executable)
    status = 1
    try:
        runpy.run_module("pyro_nlp", run_name="__main__")
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    return status


if __name__ == "__main__":
    main()
