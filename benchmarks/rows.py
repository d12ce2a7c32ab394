"""What benchmarks of many trained models share: a run trained to its end, a file for each row, wide tables of them."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Row


def train(recipe: str, out: Path, options: Sequence[str] = ()) -> None:
    """Train a recipe by `pyro-nlp train` into a run folder, from its last checkpoint if there is one."""
    command = [sys.executable, "-m", "pyro_nlp", "train"]
    command += ["--resume"] if (out / "checkpoint.pt").exists() else [recipe, *options]
    subprocess.run([*command, "--out", str(out)], check=True)


def learnt(history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Epochs and seconds of training until the best validation bound, epochs altogether, and that bound."""
    seconds, found = 0.0, {"epochs to best": 0.0, "epochs": 0.0, "seconds to best": 0.0}
    for entry in history:
        seconds += entry.get("seconds", 0.0)
        if "valid.loss" in entry:
            found["epochs"] = entry["epoch"] + 1
            if entry["best"]:
                best = {"epochs to best": entry["epoch"] + 1, "seconds to best": seconds}
                found |= best | {"valid -ELBO": entry["valid.loss"]}
    return found


def standard_error(values: Sequence[float], between_sentences: Sequence[float]) -> float | None:
    """Of a mean over seeds, which were all judged on the same sentences: their errors do not shrink with more seeds."""
    parts = [float(np.mean(between_sentences))] if between_sentences else []
    if len(values) > 1:
        parts.append(float(np.std(values, ddof=1) / len(values) ** 0.5))
    return math.hypot(*parts) if parts else None


def write(path: Path, measures: Mapping[str, Any]) -> None:
    """A row's file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(measures, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)
    print(json.dumps({"row": path.stem} | dict(measures)), flush=True)


def read(path: Path) -> dict[str, Any]:
    """What `write` wrote."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def wide(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    """Markdown tables of rows whose measure is `table | name | column`: a line for each name.

    Args:
        rows: of a results file.
        columns: name and unit of each, in order.
    """
    cells: dict[str, dict[str, dict[str, Row]]] = {}
    for one in rows:
        table, name, measure = one["measure"].split(" | ")
        cells.setdefault(table, {}).setdefault(name, {})[measure] = one
    parts = []
    for table, lines in cells.items():
        heads = [f"{measure} ({unit})" if unit else measure for measure, unit in columns.items()]
        text = [f"### {table}", "", f"| | {' | '.join(heads)} | seeds |", "|---" * (len(heads) + 2) + "|"]
        for name, measures in lines.items():
            said = [_cell(measures.get(measure)) for measure in columns]
            seeds = next(iter(measures.values()))["protocol"].removeprefix("seeds ")
            text.append(f"| {name} | {' | '.join(said)} | {seeds} |")
        parts.append("\n".join(text))
    return "\n\n".join(parts)


def _cell(found: Row | None) -> str:
    """A value with its standard error, and the published one in brackets."""
    if found is None:
        return ""
    value = found["value"]
    digits = 2 if abs(value) < 1000 else 0
    error = f" ± {found['standard_error']:.2f}" if found["standard_error"] else ""
    reference = f" ({found['reference']})" if found["reference"] else ""
    return f"{value:.{digits}f}{error}{reference}"
