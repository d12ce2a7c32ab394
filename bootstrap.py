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
BENCHMARKS = ("overhead", "evaluation", "ptb")

JOBS = {
    "demo": [["benchmarks/demo.py"]],
    "test": [["-m", "pytest"]],
    "test-all": [["-m", "pytest", "-m", ""]],
    "lint": [["-m", "ruff", "check", "."], ["-m", "ruff", "format", "--check", "."], ["-m", "mypy"]],
    "bench": [*([f"benchmarks/{name}.py"] for name in BENCHMARKS), ["benchmarks/render.py"]],
    "docs": [["-m", "pdoc", "--docformat", "google", "--math", "-o", "docs/build", "pyro_nlp"]],
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
        sys.exit(f"{step.stdout}\n[bootstrap] {what} failed, as said above; the next call starts afresh")


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
        if pip(*wheel).returncode == 0:
            return
        say(f"  not there; from PyTorch's public CPU index ({CPU_INDEX}) ...")
        if pip("--retries", "2", "--index-url", CPU_INDEX, *wheel).returncode == 0:
            return
        say("  not there either; WARNING: the plain wheel follows, several GB with its CUDA libraries ...")
    else:
        say(f"torch {version}, the plain wheel (on Linux with CUDA, several GB) ...")
    require(pip("-c", "constraints.txt", f"torch=={version}"), "installing torch")


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
    intact = stamp.get("base") == base and finds("torch", "pyro", "pytest", "ruff", "mypy", "pyro_nlp")
    if intact and stamp.get("files") == files:
        return
    started = time.monotonic()
    STAMP.unlink(missing_ok=True)  # an interrupted call leaves no stamp, and so is made afresh
    if not intact:
        make_venv()
    install_torch(build)
    say("pyro-nlp and the rest of constraints.txt ...")
    require(pip("-c", "constraints.txt", "-e", ".[test,dev]"), "installing the requirements")
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
        say("pdoc ...")
        require(pip("-c", "constraints.txt", "-e", ".[docs]"), "installing pdoc")
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
