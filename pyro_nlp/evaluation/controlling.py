"""Text written to order: attributes asked for, and what a transferred sentence keeps (layer: evaluation)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pyro import poutine
from torch import Tensor, nn

from pyro_nlp.data.corpus import Corpus
from pyro_nlp.data.loading import plan
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.evaluation.documents import batches, device_of, judging
from pyro_nlp.evaluation.texts import _on_sphere, as_split, codes
from pyro_nlp.inference.dreams import draw_prior
from pyro_nlp.inference.fit import Run
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


def classes_told(model: Any) -> dict[str, int]:
    """Number of classes by site, of what a writer is told: its `attributes`, or the class whose site it calls `told`
    and whose `prior` `[K]` it learns; empty for a model that is told nothing."""
    if has_attributes(model):
        return dict(model.attributes)
    return {model.told: len(model.prior)} if hasattr(model, "told") else {}


def names_told(run: Run) -> dict[str, tuple[str, tuple[str, ...]]]:
    """What a run can be asked for: by site, what it is called and the names of its classes.

    They are the corpus's. A class that was found, as no label was seen, has the name of its site, and numbers.
    """
    corpus, found = run.corpus, {}
    for site, classes in classes_told(run.model).items():
        numbers = tuple(map(str, range(classes)))
        if has_attributes(run.model):
            found[site] = site, corpus.attributes.get(site, numbers)
        elif _sees_labels(run.model, run.guide):
            found[site] = corpus.attribute, corpus.labels or numbers
        else:
            found[site] = site, numbers
    return found


def _sees_labels(model: Any, guide: Any) -> bool:
    """Whether the class of a model that is `told` one is the label, in part at least."""
    who = model if guide is None else guide
    return bool(getattr(who, "supervision", 1.0 if guide is None else 0.0) > 0)


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
    """`count` sentences from codes of the prior, each of the classes that are asked for.

    Args:
        model: that is told classes (`classes_told`), such as `ControlledSentence` or `ClassLanguageModel`.
        count: of sentences.
        asked: the class by site; what is not named takes all of its classes in turn, evenly.
        seed: of the codes, and of ancestral writing.
        z: codes `[count, latent]` to be used instead.
        method: see `nn.write`; the options too.
    """
    _refuse_orders(model, asked)
    sizes = [[asked[a]] if asked and a in asked else range(k) for a, k in classes_told(model).items()]
    every = np.array(list(itertools.product(*sizes)))
    orders = every[np.arange(count) % len(every)]
    with judging(model, None, seed):
        given = _one_hot(model, orders) if z is None else _one_hot(model, orders) | {_kept(model): z}
        bare = TextSplit.from_sentences([[]] * count).batch(np.arange(count)).to(device_of(model))
        latents = given | draw_prior(poutine.condition(model, data=given), bare)
        found = []
        for start in range(0, count, AT_ONCE):
            part = {name: value[start : start + AT_ONCE] for name, value in latents.items()}
            found += _rows(model.generate(part, method=method, **options))
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
    """Every sentence of a split rewritten with other classes: z is the mean of q(z | x), given its own where q asks.

    Args:
        model, guide: that are told classes beside a code.
        split: the sentences.
        asked: the class by site. By default the first one is changed: to the other class, or to another one by chance
            where there are more, from its label, or from what q says where that is unknown. All others stay as q says
            they are.
        seed: of that choice, and of ancestral writing.
        method: see `nn.write`; the options too.
    """
    _refuse_orders(model, asked)
    told = classes_told(model)
    first, *_ = attributes = list(told)
    orders = np.zeros((len(split), len(attributes)), np.int64)
    random, known = np.random.default_rng(seed), _labels_of(first, model, guide, split)
    found: list[list[int]] = [[] for _ in range(len(split))]
    for rows in plan(split.lengths, AT_ONCE, seed=0, epoch=0, shuffle=False):
        batch = split.batch(rows).to(device_of(model))
        means = codes(model, guide, batch)
        orders[rows] = own = np.stack([means[name].argmax(-1).cpu().numpy() for name in attributes], 1)
        if known is not None:
            own[:, 0] = np.where(known[rows] >= 0, known[rows], own[:, 0])
        for name, value in (asked or {}).items():
            orders[rows, attributes.index(name)] = value
        if not asked:
            orders[rows, 0] = (own[:, 0] + random.integers(1, told[first], len(rows))) % told[first]
        latents = _code(model, guide, batch, means | _one_hot(model, own)) | _one_hot(model, orders[rows])
        with judging(model, None, seed):
            written = _rows(model.generate(latents, method=method, **options))
        for row, words in zip(rows, written, strict=True):
            found[row] = words
    named = _by_name(model, orders)
    changed = list(asked) if asked else [first]
    kept = {name: named[name] for name in changed}
    return Ordered(TextSplit.from_sentences(found), kept, np.arange(len(split)))


def _refuse_orders(model: Any, asked: Mapping[str, int] | None) -> None:
    told = classes_told(model)
    for name, value in (asked or {}).items():
        if name not in told:
            raise ValueError(f"no attribute is called {name!r}; the model has {', '.join(told)}")
        if not 0 <= value < told[name]:
            raise ValueError(f"{name} has the classes 0 to {told[name] - 1}, not {value}")


def _labels_of(name: str, model: Any, guide: Any, split: TextSplit) -> np.ndarray | None:
    """Classes of an attribute by a guide that knows which of the corpus's it is; None where it is not known."""
    if not has_attributes(model):
        return split.labels if _sees_labels(model, guide) else None
    columns: Any = getattr(guide, "columns", None)
    if columns is None:
        return None
    column = int(columns[list(guide.attributes).index(name)])
    if split.attributes is not None:
        return split.attributes[:, column]
    return split.labels if column == 0 else None


def _kept(model: Any) -> str:
    """The site of the code that a sentence keeps when its class is changed."""
    return str(getattr(model, "kept", "z"))


def _code(model: Any, guide: nn.Module, batch: Any, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The posterior mean of what is kept, by its site, given the classes and all else that q may ask for."""
    site = _kept(model)
    others = {name: value[None] for name, value in given.items() if name != site}
    with judging(model, guide, 0):
        q = terms(model, guide, batch, given=others).sites[site].q
    return {site: F.normalize(q.mean[0], dim=-1) if _on_sphere(q) else q.mean[0]}


def _one_hot(model: Any, orders: np.ndarray) -> dict[str, Tensor]:
    return {
        name: F.one_hot(torch.from_numpy(orders[:, i]).to(device_of(model)), classes).float()
        for i, (name, classes) in enumerate(classes_told(model).items())
    }


def _by_name(model: Any, orders: np.ndarray) -> dict[str, np.ndarray]:
    return {name: orders[:, i] for i, name in enumerate(classes_told(model))}


def _rows(ids: Tensor) -> list[list[int]]:
    split = as_split(ids)
    return [split.words(row) for row in range(len(split))]


def read_attributes(model: Any, guide: nn.Module, split: TextSplit) -> dict[str, np.ndarray]:
    """log q(c | x) of every attribute by the run's own guide, its discriminator in the loop, `[N, K]` by name."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in classes_told(model)}
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
    logits = {name: base(sites[name].q).logits.log_softmax(-1) for name in classes_told(model)}
    return {name: value.reshape(len(batch), -1).cpu().numpy() for name, value in logits.items()}


def texts_of(split: TextSplit, corpus: Corpus) -> list[str]:
    """The sentences of a split, words with spaces between."""
    vocabulary = corpus.vocabulary
    assert vocabulary is not None
    return [" ".join(vocabulary.decode(split.words(row))) for row in range(len(split))]
