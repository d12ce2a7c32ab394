"""What every benchmark shares: interleaved timing, peak memory in a process of its own, and the results file."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
Row = dict[str, Any]


def interleave(systems: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 3) -> dict[str, list[float]]:
    """Seconds of every call, the systems taking turns so that a noisy minute hits all of them."""
    for system in systems.values():
        for _ in range(warmup):
            system()
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    for _ in range(rounds):
        for name, system in systems.items():
            began = time.perf_counter()
            system()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> tuple[float, float]:
    """Median of the paired ratios and its standard error (normal approximation to the median's)."""
    paired = [a / b for a, b in zip(numerator, denominator, strict=True)]
    error = 1.2533 * statistics.stdev(paired) / len(paired) ** 0.5 if len(paired) > 1 else float("nan")
    return statistics.median(paired), error


def peak_memory(benchmark: str, system: str) -> float:
    """Peak resident memory, in MiB, of a fresh process that runs a benchmark with `--only system`."""
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{benchmark}", "--only", system], capture_output=True, text=True, check=True
    )
    return float(json.loads(done.stdout.splitlines()[-1])["peak"])


def report_peak() -> None:
    """Called in that process: its peak so far, as JSON."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux getrusage counts the parent that this process was forked from
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        peak = int(line.split()[1]) / 1024
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2  # bytes on macOS
    print(json.dumps({"peak": peak}))


def environment(**more: Any) -> dict[str, Any]:
    """What a timing depends on."""
    versions = {name: version(name) for name in ("torch", "pyro-ppl", "numpy")}
    python = platform.python_version()
    machine = {"cpu": torch.backends.cpu.get_cpu_capability(), "cores": os.cpu_count()}
    return {"python": python, **versions, "threads": torch.get_num_threads(), **machine, **more}


def row(
    measure: str,
    value: float | str,
    unit: str,
    *,
    standard_error: float | None = None,
    reference: float | str | None = None,
    source: str = "",
    protocol: str = "",
    seed: int | None = 0,
    environment: Mapping[str, Any] | None = None,
) -> Row:
    """One row of a results file."""
    return {
        "measure": measure,
        "value": value,
        "standard_error": standard_error,
        "unit": unit,
        "reference": reference,
        "source": source,
        "protocol": protocol,
        "seed": seed,
        "environment": dict(environment or {}),
    }


def save(name: str, rows: Sequence[Row]) -> None:
    """Write results/NAME.json, whole or not at all; called once, when everything has been measured."""
    RESULTS.mkdir(exist_ok=True)
    temporary = RESULTS / f".{name}.json"
    temporary.write_text(json.dumps(list(rows), indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, RESULTS / f"{name}.json")
    for found in rows:
        print(f"{found['measure']}: {found['value']} {found['unit']}", flush=True)
