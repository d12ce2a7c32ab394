"""What differs between the major versions of ArviZ, and netCDF, which does not (layer: evaluation).

ArviZ 0.x keeps groups of draws in an `InferenceData`, ArviZ 1.x in an `xarray.DataTree`; the groups themselves are
xarray datasets in both, and the files are the same. Which one is made depends on what the installed ArviZ has, not on
its version number. ArviZ 1.x needs Python 3.12 and is not exercised on 3.11: there the tests hide `InferenceData`, and
so run the branch, but not ArviZ's own functions on its result (they were tried by hand with 1.3).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Variable = Any
"""An array, or dimension names and an array."""

PACKED = {"zlib": True, "fletcher32": True}
"""How numbers are written: compressed, and with a checksum, so that damage is noticed on reading."""
DATA = ("observed_data", "constant_data", "predictions_constant_data")
"""Groups whose variables are no draws."""


def load() -> Any:
    """The installed ArviZ, without the notice that 0.23 gives of 1.0; late, as importing it takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import arviz
    return arviz


def has_inference_data() -> bool:
    """Whether the installed ArviZ has `InferenceData` of its own (0.x).

    Asked of the module's dictionary: for the name as an attribute, 1.x gives `xarray.DataTree` and a warning.
    """
    return "InferenceData" in vars(load())


def to_arviz(
    groups: Mapping[str, Mapping[str, Variable]],
    coords: Mapping[str, Sequence[Any] | np.ndarray] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    attrs: Mapping[str, str | int | float] | None = None,
) -> Any:
    """An `InferenceData` (ArviZ 0.x) or `xarray.DataTree` (1.x) of arrays, whichever the installed ArviZ works with.

    Example:
        >>> data = to_arviz({"posterior": {"z": np.zeros((1, 100, 7, 2))}}, dims={"z": ["document", "latent"]})
        >>> data["posterior"]["z"].dims
        ('chain', 'draw', 'document', 'latent')

    Args:
        groups: by group and variable, an array `[chain, draw, *dims]` (`[*dims]` in `observed_data` and
            `constant_data`), or a pair of all its dimensions' names and the array.
        coords: values along a dimension, by name; others count from 0.
        dims: names of the dimensions of a variable, without chain and draw; more than it has are dropped, as a
            log-likelihood lacks the event's. Unnamed ones are called `NAME_dim_0` and so on.
        attrs: of every group.

    Raises:
        ValueError: a coordinate and its dimension differ in length, or an array has neither chain nor draw.
    """
    made = {
        group: _dataset(group, variables, coords or {}, dims or {}, attrs or {}) for group, variables in groups.items()
    }
    return tree(made)


def tree(datasets: Mapping[str, Any]) -> Any:
    """Datasets by group, in what the installed ArviZ works with."""
    if has_inference_data():
        return load().InferenceData(**datasets)
    import xarray

    return xarray.DataTree.from_dict(dict(datasets))


def datasets(data: Any) -> dict[str, Any]:
    """The inverse of `tree`, for either kind."""
    if hasattr(data, "children"):
        return {name: child.to_dataset() for name, child in data.children.items()}
    return {name: data[name] for name in data.groups()}


def _dataset(
    group: str,
    variables: Mapping[str, Variable],
    coords: Mapping[str, Sequence[Any] | np.ndarray],
    dims: Mapping[str, Sequence[str]],
    attrs: Mapping[str, str | int | float],
) -> Any:
    import xarray

    named = {}
    for name, variable in variables.items():
        if isinstance(variable, tuple):
            named[name] = (tuple(variable[0]), np.asarray(variable[1]))
        else:
            array = np.asarray(variable)
            named[name] = (_names(group, name, array.ndim, dims.get(name, ())), array)
    sizes: dict[str, int] = {}
    for name, (own, array) in named.items():
        for dim, size in zip(own, array.shape, strict=True):
            if sizes.setdefault(dim, size) != size:
                raise ValueError(f"{group}: dimension '{dim}' has {sizes[dim]} entries, but {size} in '{name}'")
    for dim, size in sizes.items():
        if dim in coords and len(coords[dim]) != size:
            raise ValueError(f"{group}: dimension '{dim}' has {size} entries, but {len(coords[dim])} coordinates")
    axes = {dim: np.asarray(coords[dim]) if dim in coords else np.arange(size) for dim, size in sizes.items()}
    return xarray.Dataset(named, coords=axes, attrs=dict(attrs))


def _names(group: str, name: str, count: int, given: Sequence[str]) -> tuple[str, ...]:
    first: tuple[str, ...] = () if group in DATA else ("chain", "draw")
    if count < len(first):
        raise ValueError(f"{group}: '{name}' has {count} dimensions, expected chain and draw first")
    rest = list(given)[: count - len(first)]
    rest += [f"{name}_dim_{i}" for i in range(count - len(first) - len(rest))]
    return (*first, *rest)


def measured(
    variables: Mapping[str, tuple[Sequence[str], Any, str]],
    coords: Mapping[str, Sequence[Any] | np.ndarray] | None = None,
    attrs: Mapping[str, str | int | float] | None = None,
) -> Any:
    """An `xarray.Dataset` of measures: by name the dimensions, the values, and their unit, kept in `attrs["units"]`.

    Dimensions without a coordinate in `coords` count from 0.
    """
    import xarray

    arrays = {
        name: (tuple(dims), np.asarray(values), {"units": unit}) for name, (dims, values, unit) in variables.items()
    }
    sizes = {dim: size for dims, values, _ in arrays.values() for dim, size in zip(dims, values.shape, strict=True)}
    axes = {dim: np.arange(size) for dim, size in sizes.items()} | dict(coords or {})
    return xarray.Dataset(arrays, coords=axes, attrs=dict(attrs or {}))


def elpd_data(elpd: np.ndarray, lpd: np.ndarray, pareto_k: np.ndarray, draws: int, good_k: float) -> Any:
    """Leave-one-out densities `[N]` as ArviZ's own `loo` gives them, for `compare`, `plot_khat` and `plot_elpd`.

    The class of ArviZ 1.x is not exercised on Python 3.11, which it does not run on.
    """
    import xarray

    axes = {"document": np.arange(len(elpd))}
    by_document = xarray.DataArray(elpd, coords=axes, name="loo_i")
    k = xarray.DataArray(pareto_k, coords=axes, name="pareto_shape")
    total, error = float(elpd.sum()), float((len(elpd) * elpd.var()) ** 0.5)
    values = [total, error, float((lpd - elpd).sum()), draws, len(elpd), bool((pareto_k > good_k).any())]
    if has_inference_data():
        from arviz.stats.stats_utils import ELPDData

        names = ["elpd_loo", "se", "p_loo", "n_samples", "n_data_points", "warning", "loo_i", "pareto_k", "scale"]
        return ELPDData([*values, by_document, k, "log", good_k], [*names, "good_k"])
    from arviz_stats import utils  # type: ignore[import-not-found]

    names = ["elpd", "se", "p", "n_samples", "n_data_points", "warning"]
    rest: dict[str, Any] = {"scale": "log", "good_k": good_k, "elpd_i": by_document, "pareto_k": k}
    made = getattr(utils, "ELPDDataLOO", None)  # before 1.3 one class served all kinds
    if made is None:
        made, rest = utils.ELPDData, rest | {"kind": "loo"}
    return made(**dict(zip(names, values, strict=True)), **rest)


def write_netcdf(data: Any, path: str | Path) -> None:
    """Write an `InferenceData` or `DataTree` as netCDF: beside its place, and renamed into it."""
    import xarray

    path = Path(path)
    groups = datasets(data)
    compressed = {
        f"/{group}": {name: dict(PACKED) for name, v in dataset.data_vars.items() if v.dtype.kind in "fiub" and v.ndim}
        for group, dataset in groups.items()
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        xarray.DataTree.from_dict(groups).to_netcdf(temporary, engine="h5netcdf", encoding=compressed)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_netcdf(path: str | Path) -> Any:
    """All of a netCDF file that `write_netcdf` or ArviZ has written, in memory; the file is closed again.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read; one line.
    """
    import h5py  # type: ignore[import-untyped]
    import xarray

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with h5py.File(path) as file:  # where h5netcdf fails to open one, it leaves a complaint of its own behind
            file.visit(lambda name: None)
        with xarray.open_datatree(path, engine="h5netcdf") as found:
            groups = {name: dataset.load() for name, dataset in datasets(found).items()}
    except Exception as error:  # damage shows as almost any error of HDF5, zlib, h5netcdf or xarray
        why = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is damaged or no netCDF file ({why[:200]}): write it again with `diagnose`") from None
    if not groups:
        raise ValueError(f"{path} holds no groups: it is not what `diagnose` writes")
    return tree(groups)
