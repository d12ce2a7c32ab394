"""What metrics.jsonl says of a training, as data by step (layer: evaluation)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pyro_nlp.evaluation._arviz import measured

Rows = Sequence[Mapping[str, Any]]
"""`run.history`: the rows of metrics.jsonl."""

NATS = "nats per document"
SINGLE = {
    "loss": ("bound", NATS),
    "reconstruction": ("reconstruction", NATS),
    "gradient_norm": ("gradient_norm", "1"),
    "learning_rate": ("learning_rate", "1"),
    "valid.loss": ("valid_bound", NATS),
    "valid.reconstruction": ("valid_reconstruction", NATS),
}
SEVERAL = {
    "kl.": ("kl", "site", NATS),
    "kl_weight.": ("kl_weight", "site", "1"),
    "valid.kl.": ("valid_kl", "site", NATS),
    "snr.": ("snr", "module", "1"),
    "auxiliary.": ("auxiliary", "term", NATS),
}
"""By key or its beginning in a row: variable, dimension beside the step, unit."""


def training_history(history: Rows) -> Any:
    """An `xarray.Dataset` over `step`, NaN where a step has no such number.

    bound, valid_bound                      -loss [step]: of training with its KL weights, of validation without
    reconstruction, valid_reconstruction    -E_q[log p(x | z)] [step]
    kl, kl_weight, valid_kl                 KL(q || p) and its weight by latent [step, site]
    gradient_norm, learning_rate            [step], the norm before clipping
    snr                                     signal-to-noise ratio of the gradient [step, module], where Adam measures it
    auxiliary                               what auxiliary losses add [step, term]

    A variable that no row has is absent. Of two numbers for one step, as after a resume, the later counts.

    Example:
        >>> rows = [{"step": 1, "loss": 9.0, "kl.z": 0.5}, {"step": 2, "loss": 8.0, "kl.z": 0.7, "valid.loss": 8.5}]
        >>> training_history(rows)["bound"].values.tolist()
        [-9.0, -8.0]

    Raises:
        ValueError: no row holds a number.
    """
    steps = sorted({int(row["step"]) for row in history if "step" in row})
    place = {step: i for i, step in enumerate(steps)}
    columns: dict[str, np.ndarray] = {}
    for row in history:
        for key, value in row.items():
            if isinstance(value, int | float) and "step" in row:
                columns.setdefault(key, np.full(len(steps), np.nan))[place[int(row["step"])]] = value
    variables: dict[str, Any] = {}
    for key, (name, unit) in SINGLE.items():
        if key in columns:
            variables[name] = (("step",), -columns[key] if key.endswith("loss") else columns[key], unit)
    axes: dict[str, list[str]] = {}
    for start, (_, dim, _) in SEVERAL.items():
        known = axes.setdefault(dim, [])
        known += [key[len(start) :] for key in columns if key.startswith(start) and key[len(start) :] not in known]
    for start, (name, dim, unit) in SEVERAL.items():
        if any(key.startswith(start) for key in columns):
            values = [columns.get(start + part, np.full(len(steps), np.nan)) for part in axes[dim]]
            variables[name] = (("step", dim), np.stack(values, 1), unit)
    if not variables:
        raise ValueError("metrics.jsonl holds no rows of numbers yet: train an epoch")
    used = {dim for dims, _, _ in variables.values() for dim in dims}
    return measured(variables, {"step": steps} | {dim: names for dim, names in axes.items() if dim in used})
