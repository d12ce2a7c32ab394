"""Reference posteriors of single documents, the model fixed: a grid, or NUTS (layer: evaluation).

Discrete latents beside the continuous ones are summed out; alone they need no reference: `class_posteriors` is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.infer import MCMC, NUTS
from torch import Tensor, nn
from torch.distributions import Transform, biject_to

from pyro_nlp.data.batches import Batch
from pyro_nlp.distributions import Written
from pyro_nlp.evaluation._arviz import load, measured
from pyro_nlp.evaluation.documents import as_float64, device_of, judging
from pyro_nlp.inference.sites import StructureError, in_documents, is_latent
from pyro_nlp.inference.support import LIMIT, base, configurations
from pyro_nlp.inference.terms import Terms, terms


@dataclass(frozen=True)
class Posterior:
    """p(z | x) up to a constant, the model fixed: log p(x, z) of given continuous z, discrete latents summed out.

    `priors` are the model's distributions of the former, by site; those in `summed` take `rows` values together.
    """

    model: nn.Module
    batch: Batch
    priors: dict[str, TorchDistribution]
    summed: tuple[str, ...]
    rows: int

    def only(self, site: str | None = None) -> str:
        """The continuous latent, if there is one alone: nothing else may be left to integrate over."""
        found = ", ".join(f"'{name}'" for name in self.priors) or "none"
        if len(self.priors) != 1 or site not in (None, *self.priors):
            wanted = "one continuous latent" if site is None else f"the continuous latent '{site}' alone"
            raise StructureError(f"{type(self.model).__name__} must have {wanted}; its continuous latents are {found}")
        return next(iter(self.priors))

    def terms(self, z: dict[str, Tensor]) -> Terms:
        """The terms of the model at values `[S, B, *event]`."""
        guide = Given({name: fn.event_shape for name, fn in self.priors.items()})
        (particles,) = {len(value) for value in z.values()}
        return terms(self.model, guide, self.batch, particles=particles, given=z, marginal=self.summed)

    def log_joint(self, z: dict[str, Tensor]) -> Tensor:
        """log p(x, z) at values `[S, B, *event]`, `[S, B]`."""
        found = self.terms(z)
        return sum((site.log_p for site in found.sites.values()), found.log_likelihood)


class Given(nn.Module):
    """Stands in for a guide whose every value is given: event shapes by site, and distributions never to be asked."""

    def __init__(self, events: dict[str, torch.Size]) -> None:
        super().__init__()
        self.events = events

    def forward(self, batch: Batch) -> None:
        with batch.documents():
            for name, event in self.events.items():
                pyro.sample(name, dist.Normal(0.0, 1.0).expand(event).to_event(len(event)))


def posterior_of(model: nn.Module, batch: Batch) -> Posterior:
    """What a model has to infer about a batch; StructureError where it cannot be said document by document."""
    priors, summed, rows = {}, [], 1
    nodes: dict[str, Any] = dict(poutine.trace(model).get_trace(batch).nodes)
    for name, site in nodes.items():
        if not is_latent(site):
            continue
        fn, values = site["fn"], configurations(site["fn"])
        if not in_documents(site) or (values is None and fn.support.is_discrete):
            what = "has no finite list of values" if in_documents(site) else "belongs to the corpus, not to a document"
            raise StructureError(f"site '{name}' ({type(fn).__name__}) {what}: fix it in the model")
        if values is None:
            priors[name] = fn
        else:
            summed.append(name)
            rows *= values
    if not priors:
        cure = "class_posteriors is exact" if summed else "importance_nll gives its exact likelihood"
        if any(isinstance(base(nodes[name]["fn"]), Written) for name in summed):
            cure = "draws and their importance weights are what there is of a sequence"
        raise StructureError(f"{type(model).__name__} has no continuous latent to refer to: {cure}")
    if rows > LIMIT:
        raise StructureError(f"the discrete latents {summed} have {rows:,} configurations; {LIMIT:,} can be summed")
    return Posterior(model, batch, priors, tuple(summed), rows)


@contextmanager
def differentiable(model: nn.Module, guide: nn.Module | None, seed: int) -> Iterator[None]:
    """As `judging`, with gradients with respect to latents; parameters are frozen."""
    frozen = [p for m in (model, guide) if m is not None for p in m.parameters() if p.requires_grad]
    # cuDNN has no backward pass of recurrent networks in evaluation mode
    slower = torch.backends.cudnn.flags(enabled=False) if device_of(model).type == "cuda" else nullcontext()
    with judging(model, guide, seed), slower, torch.enable_grad():
        for parameter in frozen:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)


@dataclass(frozen=True)
class GridPosterior:
    """p(z | x) of every document of a batch on a grid of its own, by the midpoint rule.

    Attributes:
        log_evidence: log p(x), `[B]`.
        mean, covariance: of z given x, `[B, D]` and `[B, D, D]`.
        grid, log_density: centres of the cells, `[points^D, B, D]`, and log p(z | x) there, `[points^D, B]`.
        cell: sides of a cell, `[B, D]`.
        error: largest difference of log p(x) between the 2^D interleaved grids of half the points, `[B]`; that of the
            whole grid is far below it where the density is smooth.
    """

    site: str
    log_evidence: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    grid: np.ndarray
    log_density: np.ndarray
    cell: np.ndarray
    error: np.ndarray

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` over `document`, `latent` and, along the grid, `cell`."""
        moment, across = ("document", "latent"), ("document", "latent", "other")
        variables: dict[str, Any] = {
            "log_evidence": (("document",), self.log_evidence, "nats"),
            "error": (("document",), self.error, "nats"),
            "mean": (moment, self.mean, "1"),
            "covariance": (across, self.covariance, "1"),
            "grid": (
                ("cell", *moment),
                np.broadcast_to(self.grid, (*self.log_density.shape, self.grid.shape[-1])),
                "1",
            ),
            "log_density": (("cell", "document"), self.log_density, "nats"),
            "width": (moment, self.cell, "1"),
        }
        return measured(variables, attrs={"site": self.site})

    def draw(self, count: int, seed: int = 0) -> np.ndarray:
        """Independent draws of z given x, `[count, B, D]`: a cell by its mass, and a point of it at random."""
        rng = np.random.default_rng(seed)
        mass = np.exp(self.log_density) * self.cell.prod(-1)
        cells = [rng.choice(len(mass), count, p=column / column.sum()) for column in mass.T]
        centre = self.grid[np.stack(cells, 1), np.arange(len(self.cell))]
        return centre + self.cell * rng.uniform(-0.5, 0.5, centre.shape)


def grid_posterior(
    model: nn.Module, batch: Batch, site: str | None = None, points: int = 200, reach: float = 6.0, chunk: int = 20_000
) -> GridPosterior:
    """The posterior of a latent of one or two dimensions, by the midpoint rule.

    Args:
        model: has this one continuous latent.
        batch: the documents.
        site: its name; may be left out.
        points: of the grid along each dimension, an even number.
        reach: half its side, in standard deviations of the prior around its mean.
        chunk: documents x points x summed values decoded at once; bounds the memory.

    Raises:
        ValueError: more dimensions or latents; or the grid is too coarse or too small for a document, which is named.
    """
    if points < 2 or points % 2:
        raise ValueError(f"points is {points}; an even number is wanted, so that halves of the grid can be compared")
    with judging(model, None, 0):
        found = posterior_of(model, batch)
        prior = found.priors[name := found.only(site)]
        if prior.event_shape not in ((1,), (2,)):
            shape = list(prior.event_shape)
            raise StructureError(f"site '{name}' has event shape {shape}; a grid is for [1] or [2]: use nuts_posterior")
        width, dimensions = 2 * reach / points, prior.event_shape[0]
        axis = torch.linspace(-reach + width / 2, reach - width / 2, points, dtype=torch.float64)
        unit = torch.cartesian_prod(*[axis] * dimensions).view(-1, dimensions)
        centre, scale = prior.mean.cpu().double(), prior.stddev.cpu().double()
        grid = centre + scale * unit[:, None]
        parts = grid.to(prior.mean).split(max(1, chunk // (len(batch) * found.rows)))
        log_joint = torch.cat([found.log_joint({name: part}).double().cpu() for part in parts])
    cell = (scale * width).expand(len(batch), dimensions)
    log_mass = log_joint + cell.log().sum(-1)
    error = _difference(log_mass, points, dimensions)
    log_evidence = log_mass.logsumexp(0)
    mass = (log_mass - log_evidence).exp()
    at_edge = mass[(unit.abs() > reach - width).any(-1)].sum(0)
    _refuse_grid(batch, error, at_edge, points, reach)
    mean = torch.einsum("gb,gbi->bi", mass, grid)
    covariance = torch.einsum("gb,gbi,gbj->bij", mass, grid - mean, grid - mean)
    arrays = (log_evidence, mean, covariance, grid, log_joint - log_evidence, cell, error)
    return GridPosterior(name, *(as_float64(value) for value in arrays))


def _difference(log_mass: Tensor, points: int, dimensions: int) -> Tensor:
    """Spread of the evidence between interleaved grids of half the points, `[B]`."""
    lattice = log_mass.view(*[points] * dimensions, -1)
    for d in range(dimensions):
        lattice = lattice.unflatten(2 * d, (points // 2, 2))
    halves = lattice.logsumexp(tuple(range(0, 2 * dimensions, 2))).flatten(0, dimensions - 1)
    return halves.amax(0) - halves.amin(0)


def _refuse_grid(batch: Batch, error: Tensor, at_edge: Tensor, points: int, reach: float) -> None:
    worst, outer = int(error.nan_to_num(torch.inf).argmax()), int(at_edge.argmax())
    if at_edge[outer] > 1e-3:
        why = f"{at_edge[outer]:.1%} of its posterior lie at the edge of the grid: reach beyond {reach:g}"
        raise ValueError(f"document {int(batch.index[outer])}: {why}")
    if not error[worst] < 0.1:
        why = f"halves of a grid of {points} points differ by {error[worst]:.2g} in log p(x): take more"
        raise ValueError(f"document {int(batch.index[worst])}: {why}")


Draws = dict[str, np.ndarray]


@dataclass(frozen=True)
class NutsPosterior:
    """Draws from p(z | x) of one document.

    Attributes:
        samples: `[chains, draws, *event]` by site.
        rhat, ess: R-hat and bulk effective size by ranks, `[*event]` by site (Vehtari et al. 2021, Bayesian Anal. 16).
        divergences: draws whose trajectory diverged, over all chains.
    """

    samples: Draws
    rhat: Draws
    ess: Draws
    divergences: int

    def to_xarray(self) -> Any:
        """An `xarray.Dataset`: each site over `chain` and `draw`, and its `_rhat` and `_ess`."""
        variables: dict[str, Any] = {}
        for name, value in self.samples.items():
            dims = tuple(f"{name}_dim_{i}" for i in range(value.ndim - 2))
            variables[name] = (("chain", "draw", *dims), value, "1")
            variables |= {f"{name}_rhat": (dims, self.rhat[name], "1"), f"{name}_ess": (dims, self.ess[name], "draws")}
        return measured(variables, attrs={"divergences": self.divergences})


def nuts_posterior(
    model: nn.Module,
    batch: Batch,
    draws: int = 500,
    chains: int = 4,
    warmup: int = 300,
    seed: int = 0,
    limit: float = 1.05,
) -> NutsPosterior:
    """Draws of all continuous latents of one document by the No-U-Turn sampler, the model fixed.

    Chains begin at draws from the prior. It samples `log_joint` and not the model as it stands, whose documents plate
    would count one document of N as N of them.                                  Hoffman and Gelman 2014 (JMLR 15)

    Args:
        model: its parameters are frozen meanwhile.
        batch: one document.
        draws: of each chain, at least 4, after `warmup` steps of adaptation.
        chains: run one after the other; at least 2, or there is nothing to compare.
        warmup: steps that adapt the step size and the mass matrix.
        seed: of all chains.
        limit: R-hat above which the draws are refused, with a ValueError; `math.inf` to see them all the same.
    """
    if len(batch) != 1 or draws < 4 or chains < 2:
        given = f"{len(batch)} documents, {draws} draws, {chains} chains"
        raise ValueError(f"{given}: NUTS takes one, split.batch(np.array([row])), 4 draws and 2 chains at least")
    with differentiable(model, None, seed):
        found = posterior_of(model, batch)
        to_support = {name: biject_to(fn.support) for name, fn in found.priors.items()}
        runs = [_chain(found, to_support, draws, warmup) for _ in range(chains)]
    samples = {name: np.stack([run[name] for run, _ in runs]) for name in to_support}
    rhat, ess = _diagnostics(samples)
    worst, site = max((float(np.nan_to_num(value, nan=np.inf).max()), name) for name, value in rhat.items())
    if worst > limit:
        raise ValueError(
            f"document {int(batch.index[0])}: R-hat of '{site}' is {worst:.2f} after {draws} draws of {chains} chains "
            f"(limit {limit:g}): draw more or warm up longer; chains may not cross between parts of the posterior"
        )
    return NutsPosterior(samples, rhat, ess, sum(count for _, count in runs))


def _chain(found: Posterior, to_support: dict[str, Transform], draws: int, warmup: int) -> tuple[Draws, int]:
    """Draws by site, `[draws, *event]`, and how many trajectories diverged."""

    def potential(free: dict[str, Tensor]) -> Tensor:
        z = {name: to(free[name]) for name, to in to_support.items()}
        volume = sum(to.log_abs_det_jacobian(free[name], z[name]).sum() for name, to in to_support.items())
        return -found.log_joint({name: value[None, None] for name, value in z.items()}).squeeze() - volume

    nodes: dict[str, Any] = dict(poutine.trace(found.model).get_trace(found.batch).nodes)
    start = {name: to.inv(nodes[name]["value"][0]).detach() for name, to in to_support.items()}
    mcmc = MCMC(NUTS(potential_fn=potential), draws, warmup_steps=warmup, initial_params=start, disable_progbar=True)
    mcmc.run()
    divergences = sum(len(chain) for chain in mcmc.diagnostics()["divergences"].values())
    return {name: as_float64(to_support[name](value)) for name, value in mcmc.get_samples().items()}, divergences


def _diagnostics(samples: Draws) -> tuple[Draws, Draws]:
    """R-hat and effective sample size of every number, `[*event]` by site."""
    arviz = load()
    rhat, ess = {}, {}
    for name, value in samples.items():
        columns = value.reshape(*value.shape[:2], -1).transpose(2, 0, 1)
        rhat[name] = np.array([float(arviz.rhat(c)) for c in columns]).reshape(value.shape[2:])
        ess[name] = np.array([float(arviz.ess(c)) for c in columns]).reshape(value.shape[2:])
    return rhat, ess
