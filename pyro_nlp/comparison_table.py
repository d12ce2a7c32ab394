"""What a comparison found: a row per strategy, for the terminal, for files, as curves (layer: recipe)."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from rich.table import Table

from pyro_nlp.costs import in_words
from pyro_nlp.evaluation.drawing import colors, empty_figure
from pyro_nlp.evaluation.likelihood import Difference, compare
from pyro_nlp.inference import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NONE = "-"


class Job(NamedTuple):
    """One strategy and one seed."""

    strategy: str
    seed: int

    def __str__(self) -> str:
        return f"{self.strategy}, seed {self.seed}"


@dataclass(frozen=True)
class Row:
    """A strategy, over its seeds; nats per document.

    Attributes:
        refused: why model, guide and strategy do not fit; then there is nothing else.
        failed: what went wrong, by seed.
        seeds: that have a result.
        nll: mean over seeds and documents; None for a point guide.
        standard_error: of the mean over seeds, between documents.
        spread: standard deviation between the means of the seeds; None for one seed.
        samples: of the likelihood; 0 where it is exact.
        difference: to the first strategy, paired by document; None for the first.
        kl: sum over latents.
        many_to_one, v_measure: of the likeliest class against the corpus's labels.
        variance_of: whose gradient's variance `start` and `end` are: the guide's, or the model's where it has none.
        seconds_per_epoch: of training.
        evaluations_per_epoch: of the model's likelihood of a document.
        peak_memory: bytes, of the process or of the device.
        curves: by seed, the validation bound by seconds of training.
    """

    strategy: str
    refused: str | None = None
    failed: dict[int, str] = field(default_factory=dict)
    seeds: list[int] = field(default_factory=list)
    nll: float | None = None
    standard_error: float | None = None
    spread: float | None = None
    samples: int | None = None
    difference: Difference | None = None
    kl: float | None = None
    many_to_one: float | None = None
    v_measure: float | None = None
    variance_of: str | None = None
    variance_start: float | None = None
    variance_end: float | None = None
    seconds_per_epoch: float | None = None
    evaluations_per_epoch: int | None = None
    peak_memory: int | None = None
    curves: dict[int, list[list[float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """The table of a comparison.

    Attributes:
        rows: one per strategy, in the order they were asked for.
        about: recipe, samples, seeds, corpus and environment.
        documents: in the test split.
    """

    rows: list[Row]
    about: dict[str, Any]
    documents: int

    @property
    def failures(self) -> list[str]:
        """What was neither finished nor refused."""
        return [f"{row.strategy}, seed {seed}: {why}" for row in self.rows for seed, why in row.failed.items()]

    @property
    def title(self) -> str:
        """What was compared, how."""
        seeds = len(self.about["seeds"])
        return (
            f"{self.about['recipe']} on {self.about['corpus']}, {self.documents:,} test documents, "
            f"{seeds} seed{'s' if seeds != 1 else ''}; nats per document"
        )

    @property
    def notes(self) -> list[str]:
        """How to read the table, and what is not in it."""
        found = [
            "± standard error over documents, [] standard deviation over seeds; the difference is paired by document",
            "gradient variance: of the guide (* of the model, where no guide is trained) on one batch, "
            "before training and at the best parameters; seconds are of training alone",
        ]
        found += [f"{row.strategy} is refused: {row.refused}" for row in self.rows if row.refused]
        return found + [f"not finished: {failure}" for failure in self.failures]

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """Titles and rows, as printed; columns that nothing is in are left out."""
        reference = next((row.strategy for row in self.rows if row.seeds), NONE)
        samples = max((row.samples for row in self.rows if row.samples is not None), default=0)
        how = f" ({samples} samples)" if samples else " (exact)"
        titles = ["strategy", f"NLL{how}", f"- {reference}", "KL", "many-to-one", "V-measure"]
        titles += ["gradient variance", "s / epoch", "evaluations / epoch", "peak memory"]
        rows = [_cells(row, reference, samples) for row in self.rows]
        kept = [i for i, title in enumerate(titles) if i < 2 or any(row[i] != NONE for row in rows)]
        return [titles[i] for i in kept], [[row[i] for i in kept] for row in rows]

    def table(self) -> Table:
        """For a terminal."""
        titles, rows = self.cells()
        made = Table(title=self.title, title_justify="left")
        for title in titles:
            made.add_column(title, overflow="fold", no_wrap=title == "strategy")  # a narrow terminal loses nothing
        for row in rows:
            made.add_row(*row)
        return made

    def markdown(self) -> str:
        """For a page."""
        titles, rows = self.cells()
        lines = ["| " + " | ".join(row) + " |" for row in (titles, ["---"] * len(titles), *rows)]
        return "\n".join([self.title, "", *lines, "", *(f"- {note}" for note in self.notes)]) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"about": self.about, "documents": self.documents, "rows": [asdict(row) for row in self.rows]}

    def save(self, folder: RunFolder) -> None:
        """Write table.json, table.md and curves.png."""
        folder.write("table.json", json.dumps(self.as_dict(), indent=2) + "\n")
        folder.write("table.md", self.markdown())
        if any(row.curves for row in self.rows):
            content = io.BytesIO()
            _curves(self.rows).savefig(content, dpi=130, format="png")
            folder.write("curves.png", content.getvalue())


def collect(
    folder: Path,
    strategies: Sequence[str],
    seeds: Sequence[int],
    about: dict[str, Any],
    troubles: Mapping[Job, tuple[bool, str]],
) -> Comparison:
    """Read the results of a comparison's runs into its table."""
    rows: list[Row] = []
    reference: np.ndarray | None = None
    documents = 0
    for name in strategies:
        runs = {seed: RunFolder(folder / name / f"seed{seed}") for seed in seeds}
        results = {s: json.loads(run.read_text("result.json")) for s, run in runs.items() if run.has("result.json")}
        of_name = {seed: found for (strategy, seed), found in troubles.items() if strategy == name}
        if not results:
            refused = next((why for was, why in of_name.values() if was), None)
            rows.append(Row(name, refused, {s: why for s, (was, why) in of_name.items() if not was}))
            continue
        nll = None
        if all(found["nll"] for found in results.values()):
            nll = np.stack([np.load(runs[seed].path / "nll.npz")["nll"] for seed in results])
        documents = next(iter(results.values()))["documents"]
        rows.append(_row(name, results, nll, reference, {seed: why for seed, (_, why) in of_name.items()}))
        if reference is None and nll is not None:
            reference = nll.mean(0)
    return Comparison(rows, about, documents)


def _row(
    name: str,
    results: Mapping[int, dict[str, Any]],
    nll: np.ndarray | None,
    reference: np.ndarray | None,
    failed: dict[int, str],
) -> Row:
    found = list(results.values())
    by_seed = [float(value) for value in nll.mean(1)] if nll is not None else []
    documents = nll.mean(0) if nll is not None else np.zeros(0)
    variances = [f["gradient_variance"] for f in found]
    whose = "guide" if "guide" in variances[0]["end"] else "model"
    clusterings = [next(iter(f["clustering"].values())) for f in found if f["clustering"]]
    memory = [f["peak_memory"] for f in found if f["peak_memory"] is not None]
    return Row(
        name,
        failed=failed,
        seeds=list(results),
        nll=mean(by_seed) if by_seed else None,
        standard_error=float(documents.std(ddof=1) / math.sqrt(len(documents))) if len(documents) > 1 else None,
        spread=stdev(by_seed) if len(by_seed) > 1 else None,
        samples=found[0]["nll"]["samples"] if found[0]["nll"] else None,
        difference=compare(documents, reference) if nll is not None and reference is not None else None,
        kl=mean(sum(f["kl"].values()) for f in found) if all(f["kl"] for f in found) else None,
        many_to_one=mean(c["many_to_one"] for c in clusterings) if clusterings else None,
        v_measure=mean(c["v_measure"] for c in clusterings) if clusterings else None,
        variance_of=whose,
        variance_start=mean(v["start"][whose] for v in variances),
        variance_end=mean(v["end"][whose] for v in variances),
        seconds_per_epoch=mean(f["seconds_per_epoch"] for f in found),
        evaluations_per_epoch=found[0]["evaluations_per_epoch"],
        peak_memory=max(memory) if memory else None,
        curves={seed: f["curve"] for seed, f in results.items()},
    )


def _cells(row: Row, reference: str, samples: int) -> list[str]:
    if not row.seeds:
        return [row.strategy, "refused" if row.refused else "failed", *[NONE] * 8]
    nll = "no density"
    if row.nll is not None:
        error = f" ± {row.standard_error:.2f}" if row.standard_error is not None else ""
        nll = f"{row.nll:.2f}{error}" + (f" [{row.spread:.2f}]" if row.spread is not None else "")
        nll += " exact" if samples and not row.samples else ""
    star = "*" if row.variance_of == "model" else ""
    return [
        row.strategy + (f" ({len(row.seeds)} of {len(row.seeds) + len(row.failed)} seeds)" if row.failed else ""),
        nll,
        NONE if row.difference is None or row.strategy == reference else str(row.difference),
        NONE if row.kl is None else f"{row.kl:.2f}",
        NONE if row.many_to_one is None else f"{row.many_to_one:.3f}",
        NONE if row.v_measure is None else f"{row.v_measure:.3f}",
        f"{row.variance_start:.2g} → {row.variance_end:.2g}{star}",
        f"{row.seconds_per_epoch:.1f}",
        f"{row.evaluations_per_epoch:,}",
        NONE if row.peak_memory is None else in_words(row.peak_memory),
    ]


def _curves(rows: Sequence[Row]) -> Figure:
    """Validation bound by seconds of training, a colour a strategy and a line a seed."""
    figure = empty_figure(8, 4.5)
    axis = figure.subplots()
    shown = [row for row in rows if row.curves]
    for color, row in zip(colors(len(shown)), shown, strict=True):
        for number, points in enumerate(row.curves.values()):
            label = row.strategy if number == 0 else None
            axis.plot(
                *zip(*points, strict=True),
                color=color,
                marker="o",
                markersize=3,
                linewidth=0.8,
                label=label,
            )
    axis.set(xlabel="seconds of training", ylabel="nats per document", title="-ELBO on the validation split")
    axis.legend(fontsize=7)
    return figure
