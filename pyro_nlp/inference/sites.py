"""What one latent site says of each document, and how tables of values are reduced (layer: inference).

A *table* is a batch dimension that an estimator adds to a site: in place of one draw the site takes several values at
once, each with a weight, so that a sum over values is an ordinary evaluation of the model on more rows. Tables stand
left of the particles; weights carry gradients, and `Scope.expect` sums value times weight.

A *cell* is one element of the model's plates: a document, or a word of one where there is a plate of words. Values by
cell are `[*tables, particles, *inner, documents]`, `inner` the plates beside that of documents. What stands in one cell
of an inner plate depends on no other, so a table of values there is summed cell by cell, not over all of their
combinations.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from pyro.distributions import Independent, TorchDistribution
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import kl_divergence

from pyro_nlp.distributions import Written
from pyro_nlp.distributions.written import is_padding
from pyro_nlp.inference.support import binary

Site = Any
"""A node of a Pyro trace."""


class StructureError(ValueError):
    """A model and a guide that do not belong together, or a strategy that does not fit them."""


@dataclass(frozen=True)
class Drawn:
    """What an estimator put in the place of a site's draw.

    Attributes:
        value: `[*batch, *event]`, or `[rows, *batch, *event]` where there is a weight.
        weight: of every row, `[rows, *batch]`; its gradient is part of the estimator.
        log_density: log-density of the value under a distribution of the site's family, where it is not
            `fn.log_prob(value)` (a relaxed value).
        path_only: leave out of log q the gradient that does not come through the value.
    """

    value: Tensor
    weight: Tensor | None = None
    log_density: Callable[[TorchDistribution], Tensor] | None = None
    path_only: bool = False


@dataclass(frozen=True)
class Table:
    """A dimension over values of a site: `dim` from the right of values by cell; weights, `[rows, ...]` there, or None
    where the model's own log-probabilities are summed (a marginalised site). `inner` are the dimensions of the site's
    plates beside that of documents."""

    site: str
    dim: int
    weight: Tensor | None = None
    inner: tuple[int, ...] = ()


@dataclass(frozen=True)
class Scope:
    """The shape of one evaluation of a model: how batch dimensions map to tables, particles and documents.

    Attributes:
        particles: draws per document, S; they sit at dim -1 - plates.
        documents: documents in the batch, B, at dim -1.
        population: documents in the corpus, N.
        plates: the model's own plate dimensions, documents included.
        tables: the weighted tables, in the order of their sites.
    """

    particles: int
    documents: int
    population: int
    plates: int
    tables: tuple[Table, ...] = ()

    def log_prob(self, site: Site) -> Tensor:
        """Masked, unscaled log-probability of a site, `[*tables, particles, documents]` (or 1 in place of any)."""
        return self.per_document(site["fn"].log_prob(site["value"]), site)

    def per_document(self, value: Tensor, site: Site) -> Tensor:
        """Reduce a tensor of the site's batch shape to `[*tables, particles, documents]`; see `by_cell`."""
        return self.sum_cells(self.by_cell(value, site))

    def by_cell(self, value: Tensor, site: Site, scaled: bool = True) -> Tensor:
        """A tensor of the site's batch shape, scaled and masked, as `[*tables, particles, *inner, documents]`.

        The plate's scale N/B is left out and any other scale is kept. A site outside the documents plate belongs to
        the corpus: every document carries 1/N of it. With `scaled` False neither is done.
        """
        value = self._whole(scale_and_mask(value, self.factor(site) if scaled else 1.0, site["mask"]))
        if in_documents(site):
            return value
        return value.sum(tuple(range(-self.plates, 0)), keepdim=True) / (self.population if scaled else 1)

    def sum_cells(self, value: Tensor, events: int = 0) -> Tensor:
        """From values by cell to `[*tables, particles, documents, *event]`."""
        inner = tuple(range(-self.plates - events, -1 - events))
        return self._whole(value, events).sum(inner) if inner else value

    def as_cells(self, value: Tensor) -> Tensor:
        """`[..., documents]` as a value by cell, the same in none of the inner plates."""
        return value[(..., *[None] * (self.plates - 1), slice(None))]

    def beside(self, value: Tensor, inner: Collection[int]) -> Tensor:
        """What of a value by cell may depend on a draw of a site in the plates `inner`, for each of its cells.

        Other plates are summed, their tables first. In the site's own plates a cell's draw moves its own cell alone,
        and everything that is not in them.
        """
        value = self._whole(value)
        for dim in range(-self.plates, -1):
            if dim not in inner:
                inside = [t for t in self.tables if dim in t.inner]
                value = self._sum_out(value, self._needed(value, inside)).sum(dim, keepdim=True)
        return value

    def _whole(self, value: Tensor, events: int = 0) -> Tensor:
        """With all the dimensions of particles and plates."""
        return value[(None,) * max(0, self.plates + 1 + events - value.dim())]

    def factor(self, site: Site) -> float | Tensor:
        """The site's scale without the documents plate's N/B."""
        factor = site["scale"]
        if in_documents(site):
            factor = factor * (self.documents / self.population)
        return factor if isinstance(factor, Tensor) or abs(factor - 1) > 1e-6 else 1.0

    def expect(self, value: Tensor, events: int = 0) -> Tensor:
        """Sum out the tables, and then the inner plates: a value by cell to `[particles, documents, *event]`.

        A value that lacks a table's dimension does not depend on it and is not weighted by it, unless the weights of
        another table do (a site whose probabilities depend on an enumerated one).
        """
        value = self._whole(value, events)
        beyond = value.dim() - events - self.plates - 1
        if beyond:
            summed = self._sum_out(value, self._needed(value, self.tables, events), events)
            value = summed[(0,) * beyond]
        return self.sum_cells(value, events)

    def _needed(self, value: Tensor, tables: Sequence[Table], events: int = 0) -> list[Table]:
        """The tables that a value depends on, and those that the weights of these do."""
        needed = [t for t in tables if _depends(value, t, events)]
        for table in needed:  # the list grows
            assert table.weight is not None
            needed += [t for t in tables if t not in needed and _depends(table.weight, t)]
        return needed

    def _sum_out(self, value: Tensor, tables: Sequence[Table], events: int = 0) -> Tensor:
        for table in tables:
            assert table.weight is not None
            for dim in table.inner:
                if table.weight.shape[dim] > 1 and value.shape[dim - events] == 1:
                    raise StructureError(
                        f"something outside the plate of '{table.site}' depends on it, so that its values cannot be "
                        "summed one by one: sample it, with ScoreFunction()"
                    )
            value = value * table.weight[(..., *[None] * events)]
        return value.sum([t.dim - events for t in tables], keepdim=True) if tables else value


def _depends(value: Tensor, table: Table, events: int = 0) -> bool:
    """Whether a value was computed from the rows of a table, of which there are two or more."""
    dim = table.dim - events
    return value.dim() >= -dim and value.shape[dim] > 1


def exact_kl(q: TorchDistribution, p: TorchDistribution) -> Tensor:
    """KL(q || p) over the batch shape of both.

    Raises:
        NotImplementedError: there is no closed form.
    """
    if binary(q) and q.batch_shape != p.batch_shape:  # PyTorch's formula does not broadcast these
        shape = torch.broadcast_shapes(q.batch_shape, p.batch_shape)
        q, p = q.expand(shape), p.expand(shape)
    return kl_divergence(q, p)


class SiteTerms:
    """One latent site, seen from the guide (q) and from the model (p). Everything is computed when asked for.

    An `entangled` site may depend in the model on what the guide draws after it: its KL is log q - log p at the draw.
    """

    def __init__(self, name: str, guide: Site, model: Site, scope: Scope, entangled: bool = False) -> None:
        self.name, self.guide, self.model, self.scope, self.entangled = name, guide, model, scope, entangled
        self.drawn: Drawn | None = guide["infer"].get("drawn")

    @property
    def q(self) -> TorchDistribution:
        """The guide's distribution."""
        return self.guide["fn"]

    @property
    def p(self) -> TorchDistribution:
        """The model's distribution."""
        return self.model["fn"]

    @property
    def value(self) -> Tensor:
        """What was drawn, `[*tables, particles, documents, *event]`."""
        return self.guide["value"]

    @property
    def log_q(self) -> Tensor:
        """log q(z | x), `[*tables, particles, documents]`."""
        return self.scope.sum_cells(self.log_q_by_cell)

    @property
    def log_p(self) -> Tensor:
        """log p(z), `[*tables, particles, documents]`."""
        return self.scope.sum_cells(self.log_p_by_cell)

    @cached_property
    def log_q_by_cell(self) -> Tensor:
        """log q(z | x), `[*tables, particles, *inner, documents]`."""
        log_q = self._log_density(self.guide)
        if self.drawn is not None and self.drawn.path_only:
            # the same at the detached value has the score alone for a gradient: what is left came through the value
            score = self.scope.by_cell(self.q.log_prob(self.value.detach()), self.guide)
            log_q = log_q - (score - score.detach())
        return log_q

    @property
    def inner(self) -> tuple[int, ...]:
        """Dimensions of the site's plates beside that of documents."""
        return tuple(own_plates(self.guide, self.scope.plates))

    @cached_property
    def score(self) -> Tensor:
        """log q(z | x) of the draw by cell, without any scale: what a score function multiplies."""
        own = self.drawn.log_density if self.drawn is not None else None
        value = self.q.log_prob(self.value) if own is None else own(self.q)
        return self.scope.by_cell(value, self.guide, scaled=False)

    def by_word(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of a `Written`, what the score function needs of every word given those before: log q without any scale,
        log q - log p, detached, and whether it is no padding, all `[words, particles, documents]`."""
        assert isinstance(self.q, Written) and isinstance(self.p, Written)
        log_q = self.q.log_prob_by_word(self.value).movedim(-1, 0)
        with torch.no_grad():
            log_p = self.p.log_prob_by_word(self.value).movedim(-1, 0)
        cost = self.scope.by_cell(log_q.detach(), self.guide) - self.scope.by_cell(log_p, self.model)
        return self.scope.by_cell(log_q, self.guide, scaled=False), cost, ~is_padding(self.value).movedim(-1, 0)

    @cached_property
    def log_p_by_cell(self) -> Tensor:
        """log p(z), `[*tables, particles, *inner, documents]`."""
        return self._log_density(self.model)

    def _log_density(self, site: Site) -> Tensor:
        own = self.drawn.log_density if self.drawn is not None else None
        return self.scope.by_cell(site["fn"].log_prob(site["value"]) if own is None else own(site["fn"]), site)

    @cached_property
    def kl_per_dimension(self) -> Tensor | None:
        """Analytic KL by dimension (by variable of a discrete site), `[particles, documents, D]`; None where the site
        does not factorise."""
        q, p = self.q, self.p
        if not (isinstance(q, Independent) and isinstance(p, Independent)) or q.reinterpreted_batch_ndims != 1:
            return None
        if not self.analytic or self.guide["mask"] is not None or self.scope.plates > 1 or not in_documents(self.guide):
            return None
        try:
            kl = exact_kl(q.base_dist, p.base_dist)
        except NotImplementedError:
            return None
        kl = self.scope.expect(kl * self.scope.factor(self.guide), events=1)
        return kl.expand(self.scope.particles, self.scope.documents, -1)

    @cached_property
    def analytic(self) -> bool:
        """Whether a closed form of the KL may be used: both sides have the same scale and mask, what the guide draws
        later has no part in p, and the estimator does not ask for densities at the draw."""
        if self.entangled:
            return False
        density = self.drawn is not None and (self.drawn.path_only or self.drawn.log_density is not None)
        return not density and all(_equal(self.guide[what], self.model[what]) for what in ("scale", "mask"))

    @cached_property
    def closed_form(self) -> Tensor | None:
        """The KL in closed form, `[*tables, particles, *inner, documents]`; None where there is none."""
        if not self.analytic:
            return None
        try:
            return self.scope.by_cell(exact_kl(self.q, self.p), self.guide)
        except NotImplementedError:
            return None

    @cached_property
    def kl_by_cell(self) -> Tensor:
        """KL before anything is summed: closed form, else log q - log p, `[*tables, particles, *inner, documents]`."""
        return self.log_q_by_cell - self.log_p_by_cell if self.closed_form is None else self.closed_form

    @cached_property
    def kl(self) -> Tensor:
        """KL(q || p) in closed form where there is one, else log q - log p at the draw, `[particles, documents]`."""
        return self.scope.expect(self.kl_by_cell)


def _equal(first: object, second: object) -> bool:
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first is second or torch.equal(first, second)
    return not isinstance(first, Tensor) and not isinstance(second, Tensor) and first == second


def in_documents(site: Site) -> bool:
    """Whether a site stands in the documents plate."""
    return any(frame.name == "documents" for frame in site["cond_indep_stack"])


def own_plates(site: Site, plates: int) -> dict[int, str]:
    """Names of the plates of a site beside documents and draws, by their dimension, left to right."""
    frames = sorted((f.dim, f.name) for f in site["cond_indep_stack"] if f.dim is not None)
    return {dim: name for dim, name in frames if -plates <= dim < -1}


def is_subsample(site: Site) -> bool:
    """Whether a site is the choice of documents that a plate makes."""
    return type(site["fn"]).__name__ == "_Subsample"


def is_deterministic(site: Site) -> bool:
    """Whether a site is a `pyro.deterministic`: computed from others, kept for the reader, without a density."""
    return site["type"] == "sample" and bool(site["infer"].get("_deterministic"))


def is_latent(site: Site) -> bool:
    """Whether a site is drawn."""
    return (
        site["type"] == "sample"
        and not site["is_observed"]
        and not is_subsample(site)
        and not is_deterministic(site)  # which `poutine.uncondition` no longer calls observed
    )


def is_random(site: Site) -> bool:
    """Whether a site has a density of its own, drawn or observed."""
    return site["type"] == "sample" and not is_subsample(site) and not is_deterministic(site)
