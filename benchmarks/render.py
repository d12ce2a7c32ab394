"""benchmarks/README.md from results/*.json: a table each of obtained, reference and source."""

from __future__ import annotations

import importlib
import json
from typing import Any

from benchmarks.common import RESULTS

HEADER = """# Benchmarks

Every number here was written by the script of its section into `results/`, and this page was rendered from there
(`python -m benchmarks.render`); nothing is typed. `make bench` runs them all, alone on the machine.
"""


def section(name: str, rows: list[dict[str, Any]]) -> str:
    """One results file as Markdown, under the protocol its script states."""
    script = importlib.import_module(f"benchmarks.{name}")
    lines = [f"## {name}", "", (script.__doc__ or "").strip(), ""]
    if hasattr(script, "markdown"):  # it lays its rows out itself
        return "\n".join([*lines, script.markdown(rows), "", f"Environment: {_environment(rows)}."])
    lines += [
        "| measure | obtained | unit | reference | source |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        error = f" ± {row['standard_error']:g}" if row["standard_error"] else ""
        value = f"{row['value']:g}" if isinstance(row["value"], float) else row["value"]
        cells = [row["measure"], f"{value}{error}", row["unit"], row["reference"] or "", row["source"]]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join([*lines, "", f"Environment: {_environment(rows)}."])


def _environment(rows: list[dict[str, Any]]) -> str:
    return ", ".join(f"{k} {v}" for k, v in rows[0]["environment"].items()) if rows else ""


def main() -> None:
    """Render every results file."""
    parts = [
        section(path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in sorted(RESULTS.glob("*.json"))
    ]
    (RESULTS.parent / "README.md").write_text("\n\n".join([HEADER.rstrip(), *parts]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
