"""Text written to order: attributes asked for, and what a transferred sentence keeps (layer: evaluation)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pyro_nlp.data.corpus import Corpus
from pyro_nlp.data.loading import plan
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.evaluation.documents import batches, device_of, judging
from pyro_nlp.evaluation.texts import as_split, codes
from pyro_nlp.inference.support import base
from pyro_nlp.inference.terms import terms

AT_ONCE = 256
"""Sentences written together."""


@dataclass(frozen=True)
class Ordered:
    """Sentences that a model wrote to order.

    Attributes:
        split: what was written, R sentences in the model's vocabulary.
        asked: the class asked for in every respect that was asked about, int64 `[R]` by attribute.
        rows: of the sentences that were transferred, in their split, `[R]`; None where nothing was.
    """

    split: TextSplit
    asked: dict[str, np.ndarray]
    rows: np.ndarray | None = None


def has_attributes(model: nn.Module) -> bool:
    """Whether a model writes text to order: it has `attributes`, number of classes by name, and writes."""
    return isinstance(getattr(model, "attributes", None), dict) and hasattr(model, "generate")


def wanted(attributes: Mapping[str, tuple[str, ...]], asked: Mapping[str, str]) -> dict[str, int]:
    """Classes by number from their names.

    Args:
        attributes: names of the classes by attribute, as of a corpus.
        asked: the name of a class by attribute.

    Raises:
        ValueError: an attribute or a class that is not known; the message names those that are.
    """
    found = {}
    for name, value in asked.items():
        if name not in attributes:
            raise ValueError(f"no attribute is called {name!r}; the run has {', '.join(attributes)}")
        if value not in attributes[name]:
            raise ValueError(f"{name} cannot be {value!r}; it is one of {', '.join(attributes[name])}")
        found[name] = attributes[name].index(value)
    return found


def write_to_order(
    model: Any,
    count: int,
    asked: Mapping[str, int] | None = None,
    *,
    seed: int = 0,
    z: Tensor | None = None,
    method: str = "greedy",
    **options: Any,
) -> Ordered:
    """`count` sentences from z of the prior, each with the attributes that are asked for.

    Args:
        model: with attributes, such as `ControlledSentence`.
        count: of sentences.
        asked: the class by attribute; what is not named takes all of its classes in turn, evenly.
        seed: of z, and of ancestral writing.
        z: codes `[count, latent]` to be used instead.
        method: see `nn.write`; the options too.
    """
    device = device_of(model)
    _refuse_orders(model, asked)
    sizes = [[asked[a]] if asked and a in asked else range(k) for a, k in model.attributes.items()]
    every = np.array(list(itertools.product(*sizes)))
    orders = every[np.arange(count) % len(every)]
    with judging(model, None, seed):
        if z is None:
            z = torch.randn(count, model.latent, device=device)
        found = []
        for start in range(0, count, AT_ONCE):
            part = slice(start, start + AT_ONCE)
            latents = {"z": z[part]} | _one_hot(model, orders[part], device)
            found += _rows(model.generate(latents, method=method, **options))
    return Ordered(TextSplit.from_sentences(found), _by_name(model, orders))


def transfer(
    model: Any,
    guide: nn.Module,
    split: TextSplit,
    asked: Mapping[str, int] | None = None,
    *,
    seed: int = 0,
    method: str = "greedy",
    **options: Any,
) -> Ordered:
    """Every sentence of a split rewritten with other attributes: z is the mean of q(z | x).

    Args:
        model, guide: with attributes.
        split: the sentences.
        asked: the class by attribute. By default the first attribute is changed: to the other class, or to another one
            by chance where there are more, from its label, or from what q says where that is unknown. All others stay
            as q says they are.
        seed: of that choice, and of ancestral writing.
        method: see `nn.write`; the options too.
    """
    attributes, device = list(model.attributes), device_of(model)
    _refuse_orders(model, asked)
    orders = np.zeros((len(split), len(attributes)), np.int64)
    random, known = np.random.default_rng(seed), _labels_of(attributes[0], guide, split)
    found: list[list[int]] = [[] for _ in range(len(split))]
    for rows in plan(split.lengths, AT_ONCE, seed=0, epoch=0, shuffle=False):
        batch = split.batch(rows).to(device)
        latents = codes(model, guide, batch)
        orders[rows] = np.stack([latents[name].argmax(-1).cpu().numpy() for name in attributes], 1)
        if asked:
            for name, value in asked.items():
                orders[rows, attributes.index(name)] = value
        else:
            orders[rows, 0] = _another(orders[rows, 0], known, rows, model.attributes[attributes[0]], random)
        latents = {"z": latents["z"]} | _one_hot(model, orders[rows], device)
        with judging(model, None, seed):
            written = _rows(model.generate(latents, method=method, **options))
        for row, words in zip(rows, written, strict=True):
            found[row] = words
    named = _by_name(model, orders)
    changed = list(asked) if asked else attributes[:1]
    kept = {name: named[name] for name in changed}
    return Ordered(TextSplit.from_sentences(found), kept, np.arange(len(split)))


def _refuse_orders(model: Any, asked: Mapping[str, int] | None) -> None:
    for name, value in (asked or {}).items():
        classes = model.attributes.get(name)
        if classes is None:
            raise ValueError(f"no attribute is called {name!r}; the model has {', '.join(model.attributes)}")
        if not 0 <= value < classes:
            raise ValueError(f"{name} has the classes 0 to {classes - 1}, not {value}")


def _another(said: np.ndarray, known: np.ndarray | None, rows: np.ndarray, classes: int, random: Any) -> np.ndarray:
    now = said if known is None else np.where(known[rows] >= 0, known[rows], said)
    return (now + random.integers(1, classes, len(rows))) % classes


def _labels_of(name: str, guide: Any, split: TextSplit) -> np.ndarray | None:
    """Classes of an attribute by a guide that knows which of the corpus's it is; None where it is not known."""
    columns: Any = getattr(guide, "columns", None)
    if columns is None:
        return None
    column = int(columns[list(guide.attributes).index(name)])
    if split.attributes is not None:
        return split.attributes[:, column]
    return split.labels if column == 0 else None


def _one_hot(model: Any, orders: np.ndarray, device: torch.device) -> dict[str, Tensor]:
    return {
        name: nn.functional.one_hot(torch.from_numpy(orders[:, i]).to(device), classes).float()
        for i, (name, classes) in enumerate(model.attributes.items())
    }


def _by_name(model: Any, orders: np.ndarray) -> dict[str, np.ndarray]:
    return {name: orders[:, i] for i, name in enumerate(model.attributes)}


def _rows(ids: Tensor) -> list[list[int]]:
    split = as_split(ids)
    return [split.words(row) for row in range(len(split))]


def read_attributes(model: Any, guide: nn.Module, split: TextSplit) -> dict[str, np.ndarray]:
    """log q(c | x) of every attribute by the run's own guide, its discriminator in the loop, `[N, K]` by name."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in model.attributes}
    order: list[np.ndarray] = []
    with judging(model, guide, 0):
        for rows, batch in batches(model, split, AT_ONCE):
            order.append(rows)
            said = _asked_of(model, guide, batch)
            for name in found:
                found[name].append(said[name])
    back = np.argsort(np.concatenate(order), kind="stable")
    return {name: np.concatenate(parts)[back] for name, parts in found.items()}


def _asked_of(model: Any, guide: nn.Module, batch: Any) -> dict[str, np.ndarray]:
    sites = terms(model, guide, batch).sites
    logits = {name: base(sites[name].q).logits.log_softmax(-1) for name in model.attributes}
    return {name: value.reshape(len(batch), -1).cpu().numpy() for name, value in logits.items()}


def texts_of(split: TextSplit, corpus: Corpus) -> list[str]:
    """The sentences of a split, words with spaces between."""
    vocabulary = corpus.vocabulary
    assert vocabulary is not None
    return [" ".join(vocabulary.decode(split.words(row))) for row in range(len(split))]
