"""Make `.venv` with the exact versions of constraints.txt and run a job in it; `make JOB` calls this.

    python bootstrap.py demo|test|test-all|lint|bench|docs|env [ARGUMENT ...]

Arguments go to the job. The environment variable TORCH=auto|cpu|cuda chooses the PyTorch build; auto is the
CPU build on Linux without an NVIDIA driver, and what pip gives anywhere else. Standard library only.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 (the one file that an older Python may meet)
    sys.exit(
        f"pyro-nlp needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}.\n"
        "Install one from https://www.python.org/downloads and name it: make test PYTHON=python3.11,\n"
        "or on Windows: py -3.11 bootstrap.py test"
    )

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "pyro-nlp.json"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
INPUTS = ("setup.cfg", "pyproject.toml", "constraints.txt")
BENCHMARKS = (
    "overhead",
    "evaluation",
    "decoders",
    "estimators",
    "iwae",
    "hmm",
    "mixture",
    "preference",
    "lagging",
    "documents",
    "document_strategies",
    "throughput",
    "answers",
    "attention",
    "ptb",
)
"""What `make bench` runs; the table of `collapse` takes days and is filled a row at a time by itself."""
# pyro_nlp's own page shows the public names alone, so that its parts are named here
PARTS = (
    "data",
    "distributions",
    "nn",
    "inference",
    "evaluation",
    "models",
    "guides",
    "recipe",
    "comparison",
    "diagnosis",
    "cli",
)
DOCUMENTED = ["pyro_nlp", *(f"pyro_nlp.{part}" for part in PARTS)]

# a worker a core, each with the tests of whole files, which share what they have trained; more than 8 would fill memory
PYTEST = ["-m", "pytest", "-n", "logical", "--maxprocesses", "8", "--dist", "loadfile"]

JOBS = {
    "demo": [["-m", "benchmarks.demo"]],
    "test": [PYTEST],
    "test-all": [[*PYTEST, "-m", ""]],
    "lint": [["-m", "ruff", "check", "."], ["-m", "ruff", "format", "--check", "."], ["-m", "mypy"]],
    "bench": [["-m", f"benchmarks.{name}"] for name in (*BENCHMARKS, "render")],
    "docs": [["-m", "pdoc", "--docformat", "google", "--math", "-o", "docs/build", *DOCUMENTED]],
    "env": [],
}
"""Each job is a list of command lines for the Python of the environment."""


def say(text: str) -> None:
    print(f"[bootstrap] {text}", file=sys.stderr, flush=True)


def pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "-q", *arguments]
    return subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def require(step: subprocess.CompletedProcess[str], what: str) -> None:
    if step.returncode:
        sys.exit(f"{step.stdout}\n[bootstrap] {what} failed, for the reason above")


def torch_build() -> str:
    """`cpu` or `plain`: which wheel is asked for."""
    choice = os.environ.get("TORCH") or "auto"
    if choice not in ("auto", "cpu", "cuda"):
        sys.exit(f"TORCH={choice}: expected auto, cpu or cuda")
    if not sys.platform.startswith("linux"):
        if choice == "cuda":
            say("TORCH=cuda: the plain wheel has CUDA on Linux only; see pytorch.org for one that has")
        return "plain"  # the wheels for macOS and Windows are small as they are
    driver = shutil.which("nvidia-smi") or Path("/proc/driver/nvidia/version").exists()
    return "plain" if choice == "cuda" or (choice == "auto" and driver) else "cpu"


def install_torch(build: str) -> None:
    version = next(
        line.split("==")[1].split()[0]
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if line.startswith("torch==")
    )
    if build == "cpu":
        # Without dependencies, which come from constraints.txt: PyTorch's index holds other versions of them.
        wheel = ["--no-deps", f"torch=={version}+cpu"]
        say(f"torch {version}, CPU build (about 200 MB), from the configured index ...")
        for index in ([], ["--retries", "2", "--index-url", CPU_INDEX]):
            if index:
                say(f"torch {version}, CPU build, from PyTorch's public index {CPU_INDEX} ...")
            step = pip(*index, *wheel)
            if step.returncode == 0:
                return
            say("  " + (step.stdout.strip().splitlines() or ["pip failed"])[-1])
        say(f"WARNING: torch {version}, the plain wheel: several GB with its CUDA libraries ...")
    else:
        say(f"torch {version}, the plain wheel (on Linux with CUDA, several GB) ...")
    require(pip("-c", "constraints.txt", f"torch=={version}"), "installing torch")


def install_project(extras: str) -> None:
    """Editable, with the build requirements in `.venv`: a later call then asks the network for nothing."""
    import tomllib  # not at the top, which an older Python reads

    say(f"pyro-nlp[{extras}] and the rest of constraints.txt ...")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    require(pip(*project["build-system"]["requires"]), "installing what builds it")
    editable = ("--no-build-isolation", "-c", "constraints.txt", "-e", f".[{extras}]")
    require(pip(*editable), "installing the requirements")


def make_venv() -> None:
    say(f"making {VENV} with Python {sys.version.split()[0]} ...")
    if subprocess.run([sys.executable, "-m", "venv", "--clear", str(VENV)], cwd=ROOT).returncode:
        sys.exit("[bootstrap] no environment could be made; on Debian and Ubuntu: apt install python3-venv")


def finds(*names: str) -> bool:
    """Whether the environment's Python runs and finds these, without importing them."""
    code = f"import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, {names})))"
    try:
        return subprocess.run([str(PYTHON), "-I", "-c", code], stderr=subprocess.DEVNULL).returncode == 0
    except OSError:
        return False


def prepare() -> None:
    """Bring `.venv` to the state that the stamp describes; nothing is done where it is there already."""
    build = torch_build()
    base = {"torch": build, "python": f"{sys.version} in {sys.base_prefix}", "root": str(ROOT)}
    files = hashlib.sha256(b"\0".join((ROOT / name).read_bytes() for name in INPUTS)).hexdigest()
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        stamp = {}
    intact = stamp.get("base") == base and finds("torch", "pyro", "pytest", "xdist", "ruff", "mypy", "pyro_nlp")
    if intact and stamp.get("files") == files:
        return
    started = time.monotonic()
    if not intact:
        make_venv()
    # Without the files: an interrupted call is taken up by the next one, or made afresh if too little is there.
    STAMP.write_text(json.dumps({"base": base}), encoding="utf-8")
    install_torch(build)
    install_project("test,dev")
    STAMP.write_text(json.dumps({"base": base, "files": files}), encoding="utf-8")
    say(f"ready after {time.monotonic() - started:.0f} s")


def execute(arguments: list[str]) -> int:
    """Run the environment's Python; Ctrl-C is the child's to handle, so that a run can save its state."""
    child = subprocess.Popen([str(PYTHON), *arguments], cwd=ROOT)
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in JOBS:
        print(__doc__, file=sys.stderr)
        return 2
    job, *extra = arguments
    prepare()
    if job == "docs" and not finds("pdoc"):
        install_project("docs")
    if job == "env":
        print(PYTHON)
    failed = 0
    for command in JOBS[job]:
        # lint goes on after a failure, to show all there is to mend; a job of one command gets the arguments
        code = execute([*command, *(extra if len(JOBS[job]) == 1 else [])])
        failed = failed or code
        if code and job != "lint":
            break
    return failed


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
