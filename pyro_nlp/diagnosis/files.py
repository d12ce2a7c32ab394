"""What a diagnosis leaves behind: report.html, diagnosis.json, posterior.nc (layer: recipe)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pyro_nlp.diagnosis.diagnoses import Diagnoses
from pyro_nlp.diagnosis.page import page
from pyro_nlp.diagnosis.progress import progress_bar
from pyro_nlp.diagnosis.subject import LeftOut, Subject
from pyro_nlp.evaluation import NoDensityError, posterior_to_arviz, write_netcdf
from pyro_nlp.inference import RunError, RunFolder
from pyro_nlp.inference.fit import Run

DRAWS, PRIOR_DRAWS, PREDICTIVE_DRAWS = 50, 20, 5
"""In posterior.nc, per document: of the guide at most, of the prior, of what is observed."""


def save_posteriors(
    runs: Mapping[str, Run], found: Diagnoses, folder: str | Path, *, progress: bool | None = None
) -> Diagnoses:
    """Write the posterior of each run as netCDF: posterior.nc, or posterior-NAME.nc of several.

    Returns:
        What was found, with a run's reason where it has no posterior to write.

    Raises:
        RunError: the folder cannot be made.
    """
    path, said = _made(folder), []
    with progress_bar(len(runs), progress) as advance:
        for one in found.runs:
            advance(f"{one.name}: posterior draws")
            name = "posterior.nc" if len(runs) == 1 else f"posterior-{slug(one.name)}.nc"
            run, protocol = runs[one.name], one.protocol
            whole = getattr(run.corpus, protocol.split)
            subject = Subject.of(one.name, run, whole, protocol.rows(whole), protocol)
            try:
                guide = subject.own_guide
                draws = posterior_to_arviz(
                    run.model,
                    guide,
                    subject.split,
                    min(protocol.draws, DRAWS),
                    vocabulary=run.corpus.vocabulary,
                    labels=run.corpus.labels,
                    seed=protocol.seed,
                    prior_draws=PRIOR_DRAWS,
                    predictive_draws=PREDICTIVE_DRAWS,
                    marginal=run.marginal,
                )
            except NoDensityError:
                why = f"{type(run.guide).__name__} answers with a point, which has no density"
                said.append(replace(one, left_out=one.left_out | {name: why}))
            except (LeftOut, ValueError) as error:
                said.append(replace(one, left_out=one.left_out | {name: str(error)}))
            else:
                write_netcdf(draws, path / name)
                said.append(one)
    return replace(found, runs=said)


def slug(name: str) -> str:
    """A name as part of a file's."""
    return re.sub(r"[^\w.-]+", "_", name).strip("_") or "run"


def _made(folder: str | Path) -> Path:
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make the folder {path}: {error.strerror}") from None
    return path


def save(found: Diagnoses, folder: str | Path) -> Path:
    """Write report.html and diagnosis.json, each whole or not at all; the path of the report.

    Raises:
        RunError: the folder cannot be made or written.
    """
    path = _made(folder)
    into = RunFolder(path)
    into.write("diagnosis.json", json.dumps(as_dict(found), indent=1, allow_nan=False) + "\n")
    into.write("report.html", page(found))
    return path / "report.html"


def as_dict(found: Diagnoses) -> dict[str, Any]:
    """Everything that was measured, for JSON; per document too. What is not finite is a string, NaN is null."""
    paired = {name: plain(difference) for name, difference in found.paired.items()}
    runs = []
    for run in found.runs:
        values = plain(run)
        values["evaluation"] = plain(run.evaluation.as_dict())
        runs.append(values)
    made = {"reference": found.reference, "paired": paired, "runs": runs}
    return made | ({"agreements": plain(found.agreements)} if found.agreements else {})


def plain(value: Any) -> Any:
    """Dataclasses, arrays and numbers as JSON knows them."""
    if is_dataclass(value) and not isinstance(value, type):
        return {part.name: plain(getattr(value, part.name)) for part in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(inner) for inner in value]
    return value
