"""Draws of batches as one group of arrays per kind, in corpus order, with named dimensions (layer: evaluation)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyro
import torch
from pyro.distributions import Dirichlet
from pyro.poutine import Trace
from torch import Tensor, nn

from pyro_nlp.data.batches import PAD, Batch, CountBatch, TextBatch
from pyro_nlp.data.counts import CountSplit
from pyro_nlp.data.splits import Split, TextSplit
from pyro_nlp.data.vocabulary import Vocabulary
from pyro_nlp.evaluation._arviz import to_arviz
from pyro_nlp.evaluation._drawn import (
    Drawn,
    by_document,
    computed_sites,
    predictions,
    prior_latents,
    prior_trace,
    require_documents,
    sample_sites,
    scope_of,
)
from pyro_nlp.evaluation.documents import as_float64, batches
from pyro_nlp.evaluation.importance import SMALLEST, pareto_smooth
from pyro_nlp.evaluation.topic_metrics import top_words
from pyro_nlp.evaluation.topics import is_topic_model
from pyro_nlp.inference.sites import Site, in_documents, is_deterministic, is_latent, own_plates
from pyro_nlp.inference.support import base, one_hot

TOP = 10
"""Words that stand for a topic."""


@dataclass(frozen=True)
class Options:
    """What is put beside the draws, and how much of it is held at once; see `posterior_to_arviz`."""

    vocabulary: Vocabulary | None
    labels: tuple[str, ...]
    supervised: bool
    batch_size: int
    chunk: int
    prior_draws: int
    predictive_draws: int

    def __post_init__(self) -> None:
        for name in ("prior_draws", "predictive_draws"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 0")


@dataclass
class Collected:
    """What batches have brought, by group and variable: rows and `[*lead, B, *event]`, B at `axis`."""

    documents: int
    pieces: dict[tuple[str, str], list[tuple[np.ndarray, np.ndarray]]] = field(default_factory=dict)
    axis: dict[tuple[str, str], int] = field(default_factory=dict)

    def put(self, group: str, name: str, rows: np.ndarray, value: np.ndarray, axis: int) -> None:
        self.pieces.setdefault((group, name), []).append((rows, value))
        self.axis[group, name] = axis

    def assembled(self, text: Collection[str]) -> dict[str, dict[str, np.ndarray]]:
        """Whole arrays in corpus order; what is shorter is padded, text with PAD."""
        groups: dict[str, dict[str, np.ndarray]] = {}
        for (group, name), pieces in self.pieces.items():
            axis = self.axis[group, name]
            shape = [max(value.shape[i] for _, value in pieces) for i in range(pieces[0][1].ndim)]
            shape[axis] = self.documents
            dtype = np.result_type(*(value.dtype for _, value in pieces))
            kind = dtype.kind
            filler: Any = "" if kind == "U" else np.nan if kind == "f" else PAD if name in text else -1
            whole = np.full(shape, filler, dtype)
            for rows, value in pieces:
                place: list[Any] = [slice(size) for size in value.shape]
                place[axis] = rows
                whole[tuple(place)] = value
            groups.setdefault(group, {})[name] = whole
        return groups


def convert(
    model: nn.Module,
    split: Split,
    draw: Callable[[Batch, Trace], Drawn],
    shape: tuple[int, int],
    options: Options,
    attributes: dict[str, str | int | float],
) -> Any:
    """All groups of a split as ArviZ has them; `draw` gives the latents of a batch, `shape` chains by draws."""
    require_documents(split)
    collected = Collected(len(split))
    sites: dict[str, Site] = {}
    plates = getattr(model, "plates", 1)
    for rows, batch in batches(model, split, options.batch_size):
        prior = prior_trace(model, batch)
        here = _checked(model, prior)
        sites |= here | computed_sites(prior)
        seen = {name: site for name, site in here.items() if not is_latent(site)}
        observed = by_document(seen, scope_of(model, batch, 1))
        _put_seen(collected, "observed_data", rows, observed, batch, options)
        drawn = draw(batch, prior)
        _put_draws(collected, rows, drawn, shape)
        latents = {"posterior_predictive": {n: value[: shape[1]] for n, value in drawn.latents.items()}}
        if options.prior_draws:
            before = prior_latents(model, batch, options.prior_draws, options.chunk)
            for name, value in before.items():
                collected.put("prior", name, rows, _array(value)[None], 2)
            latents["prior_predictive"] = before
        for group, values in latents.items() if options.predictive_draws else ():
            some = {name: value[: options.predictive_draws] for name, value in values.items()}
            predicted = predictions(model, batch, some, prior)
            _put_seen(collected, group, rows, predicted, batch, options)
    groups = collected.assembled(set(seen) if isinstance(split, TextSplit) else set())
    named = {group: _name(group, values, sites, split, plates) for group, values in groups.items()}
    if "log_q" in groups["sample_stats"]:
        named["sample_stats"] |= _weights(groups["sample_stats"])
    constant: dict[str, tuple[tuple[str, ...], np.ndarray]] = {
        name: (("document",), value) for name, value in _constants(split, options.labels).items()
    }
    constant |= _topic_words(model, split, options.vocabulary)
    if constant:
        named["constant_data"] = constant
    order = [*ORDER, *(group for group in named if group not in ORDER)]
    named = {group: named[group] for group in order if group in named}
    return to_arviz(named, _coordinates(named, options), attrs=attributes)


ORDER = ("posterior", "log_likelihood", "sample_stats", "posterior_predictive", "prior", "prior_predictive")


def _checked(model: nn.Module, prior: Trace) -> dict[str, Site]:
    """Latent and observed sites by name, if there is a posterior per document."""
    found = sample_sites(prior)
    latent = [name for name, site in found.items() if is_latent(site)]
    if not latent:
        raise ValueError(f"{type(model).__name__} has no latents, so it has no posterior")
    for name in latent:
        if not in_documents(found[name]):
            raise ValueError(
                f"site '{name}' stands outside the plate of documents: one posterior per document needs it inside "
                "batch.documents()"
            )
    return found


def _put_draws(collected: Collected, rows: np.ndarray, drawn: Drawn, shape: tuple[int, int]) -> None:
    for group, values in (("posterior", drawn.latents), ("log_likelihood", drawn.log_likelihood)):
        for name, value in values.items():
            collected.put(group, name, rows, _array(value).reshape(*shape, *value.shape[1:]), 2)
    for name, value in drawn.stats.items():
        collected.put("sample_stats", name, rows, as_float64(value).reshape(*shape, -1), 2)


def _put_seen(
    collected: Collected,
    group: str,
    rows: np.ndarray,
    values: Mapping[str, Tensor],
    batch: Batch,
    options: Options,
) -> None:
    """Observed or predicted values `[S, B, *event]`, and what ids of text say."""
    for name, value in values.items():
        array = _array(value)
        texts = None
        if isinstance(batch, TextBatch) and options.vocabulary is not None and array.ndim == 3:
            texts = _texts(array, options.vocabulary)
        for variable, found in ((name, array), (f"{name}_text", texts)):
            if found is not None:
                data = group == "observed_data"
                collected.put(group, variable, rows, found[0] if data else found[None], 0 if data else 2)


def _array(value: Tensor) -> np.ndarray:
    value = value.detach().cpu()
    array: np.ndarray = (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    return array


def _texts(ids: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Ids `[..., T]` as strings `[...]`; what HDF5 cannot hold in a string is escaped."""
    lines = [" ".join(vocabulary.decode(row)) for row in ids.reshape(-1, ids.shape[-1]).tolist()]
    safe = [s.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8") for s in lines]
    return np.array(safe, dtype=np.str_).reshape(ids.shape[:-1])


def _weights(stats: dict[str, np.ndarray]) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    log_weight = (stats["log_p"] - stats["log_q"])[0]
    with np.errstate(invalid="ignore"):  # NaN where no draw has any weight
        weight = np.exp(log_weight - log_weight.max(0))
        weight = (weight / weight.sum(0))[None]
    found: dict[str, tuple[tuple[str, ...], np.ndarray]] = {"weight": (("chain", "draw", "document"), weight)}
    if log_weight.shape[0] >= SMALLEST:
        found["pareto_k"] = (("document",), pareto_smooth(log_weight).pareto_k)
    return found


def _constants(split: Split, labels: tuple[str, ...]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    if isinstance(split, TextSplit):
        found["length"] = split.lengths
    known = getattr(split, "labels", None)
    if known is not None and labels:
        largest = int(known.max(initial=-1))
        if largest >= len(labels):
            raise ValueError(f"the split has the label {largest}, but labels names only {len(labels)}")
        found["label"] = np.array([*labels, ""])[known]  # -1, the unknown, is the last
    elif known is not None:
        found["label"] = known
    return found


def _topic_words(
    model: Any, split: Split, vocabulary: Vocabulary | None
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """The likeliest words of each topic, if the model has topics and the corpus names its words."""
    if vocabulary is None or not isinstance(split, CountSplit) or not is_topic_model(model):
        return {}
    topics = model.topics()
    if len(topics) > len(vocabulary):
        return {}
    best = top_words(topics, min(TOP, len(vocabulary)))
    return {"topic_words": (("topic",), np.array([" ".join(vocabulary.decode(ids)) for ids in best], dtype=np.str_))}


def _name(
    group: str, values: dict[str, np.ndarray], sites: Mapping[str, Site], split: Split, plates: int
) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
    """The variables of a group with the names of their dimensions; two of one name and different sizes get a prefix."""
    lead = ("document",) if group == "observed_data" else ("chain", "draw", "document")
    sizes: dict[str, int] = {}
    named = {}
    for name, value in values.items():
        count = value.ndim - len(lead)
        own = _dims(name, sites[name], split, plates) if name in sites else ()
        own = (*own[:count], *(f"{name}_dim_{i}" for i in range(len(own[:count]), count)))
        dims = [
            d if sizes.get(d, n) == n else f"{name}_{d}" for d, n in zip(own, value.shape[len(lead) :], strict=True)
        ]
        sizes |= dict(zip(dims, value.shape[len(lead) :], strict=True))
        named[name] = ((*lead, *dims), value)
    return named


def _dims(name: str, site: Site, split: Split, plates: int) -> tuple[str, ...]:
    """Names of a site's own plates and of its event's dimensions."""
    inner = tuple(own_plates(site, plates).values())
    fn = site["fn"]
    if is_deterministic(site):
        shares = name == "theta" and fn.event_dim == 1 and isinstance(split, CountSplit)
        return (*inner, "topic") if shares else inner
    if not is_latent(site):
        if fn.event_dim != 1:
            return inner
        batch = split.batch(np.arange(1))
        return (*inner, {TextBatch: "token", CountBatch: "word"}.get(type(batch), "feature"))
    if one_hot(fn) and fn.event_dim <= 2:
        return (*inner, *("variable", "class")[-fn.event_dim :])
    if isinstance(split, CountSplit) and isinstance(base(fn), Dirichlet):
        return (*inner, "topic")
    return (*inner, "latent") if fn.event_dim == 1 else inner


def _coordinates(named: Mapping[str, Mapping[str, Any]], options: Options) -> dict[str, Any]:
    sizes = {
        dim: size
        for variables in named.values()
        for dims, value in variables.values()
        for dim, size in zip(dims, value.shape, strict=True)
    }
    found: dict[str, Any] = {}
    if options.supervised and options.labels and sizes.get("class") == len(options.labels):
        found["class"] = list(options.labels)
    if options.vocabulary is not None and sizes.get("word") == len(options.vocabulary):
        found["word"] = list(options.vocabulary.words)
    return found


def attributes_of(model: nn.Module, guide: nn.Module | None, seed: int) -> dict[str, str | int | float]:
    """What made the draws, for the attributes of every group."""
    names = {"model": type(model).__name__} | ({} if guide is None else {"guide": type(guide).__name__})
    return {"inference_library": "pyro-ppl", "inference_library_version": pyro.__version__, **names, "seed": seed}
