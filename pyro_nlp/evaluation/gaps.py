"""Why the ELBO is below log p(x): the family of q, or one network for all documents (layer: evaluation).

Each document's own parameters are refined by gradient from where the guide puts them. What that gains is the
amortisation gap; what is still missing is the approximation gap of the family.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.distributions.transforms.planar import ConditionedPlanar
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from pyro_nlp.data.batches import Batch
from pyro_nlp.data.splits import Split
from pyro_nlp.evaluation._arviz import measured
from pyro_nlp.evaluation._drawn import require_documents
from pyro_nlp.evaluation.discrete import summable
from pyro_nlp.evaluation.documents import as_float64, batches, require_density
from pyro_nlp.evaluation.likelihood import Difference, Likelihood, compare, importance_nll
from pyro_nlp.evaluation.references import differentiable, grid_posterior, posterior_of
from pyro_nlp.inference.sites import SiteTerms, StructureError
from pyro_nlp.inference.support import base
from pyro_nlp.inference.terms import terms

FAMILIES = ("mean-field", "full", "planar")
"""From poor to rich, each contains the one before: a diagonal Gaussian, any Gaussian, one bent by four planar layers
(Rezende and Mohamed 2015)."""


class OwnPosteriors(nn.Module):
    """q(z | x_n) of a family, with parameters for each document n of one batch.

    Shifts and stretches are counted in standard deviations of the start, so that one step size serves all documents.

    Args:
        site: the name of z.
        family: one of `FAMILIES`; draws of a planar one can be scored, and no other value.
        loc: where means begin, `[B, D]`.
        lower: Cholesky factors of where covariances begin, `[B, D, D]`; a mean field keeps the standard deviations.
    """

    def __init__(self, site: str, family: str, loc: Tensor, lower: Tensor) -> None:
        super().__init__()
        self.site, self.family = site, family
        if family == "mean-field":
            lower = torch.diag_embed(lower.square().sum(-1).sqrt())
        self.loc, self.lower = loc.detach(), lower.detach()
        self.shift, self.stretch = (nn.Parameter(torch.zeros_like(loc)) for _ in range(2))
        self.shear = nn.Parameter(torch.zeros_like(lower), requires_grad=family != "mean-field")
        if family == "planar":
            bend, across = (torch.randn_like(loc.expand(4, *loc.shape)) for _ in range(2))
            self.bend = nn.Parameter(0.01 * bend)
            across = torch.linalg.solve_triangular(lower.mT, across[..., None], upper=True).squeeze(-1)
            self.across = nn.Parameter(across)
            middle = (self.across * loc).sum(-1, keepdim=True).detach()
            self.bias = nn.Parameter(0.5 * torch.randn_like(middle) - middle)

    def gaussian(self) -> tuple[Tensor, Tensor]:
        """Means `[B, D]` and Cholesky factors `[B, D, D]`, before they are bent."""
        factor = self.shear.tril(-1) + torch.diag_embed(self.stretch.exp())
        return self.loc + (self.lower @ self.shift[..., None]).squeeze(-1), self.lower @ factor

    def forward(self, batch: Batch) -> None:
        loc, lower = self.gaussian()
        q: Any = dist.MultivariateNormal(loc, scale_tril=lower)
        if self.family == "mean-field":
            q = dist.Normal(loc, lower.diagonal(dim1=-2, dim2=-1)).to_event(1)
        elif self.family == "planar":
            bend = (self.lower @ self.bend[..., None]).squeeze(-1)
            layers = zip(self.bias, bend, self.across, strict=True)
            q = dist.TransformedDistribution(q, [ConditionedPlanar(layer) for layer in layers])
        with batch.documents():
            pyro.sample(self.site, q)


@dataclass(frozen=True)
class Refinement:
    """How parameters are refined: Adam with a rate that falls to zero along a cosine.

    Attributes:
        steps: of Adam, all documents of a batch at once.
        rate: the first, in standard deviations of the guide per step.
        particles: draws per document and step; their noise costs some 0.002 nats at the end for z of two dimensions.
    """

    steps: int = 400
    rate: float = 0.05
    particles: int = 8


@dataclass(frozen=True)
class _Judge:
    """The ELBO of guides of one batch, the sites in `summed` summed out."""

    model: nn.Module
    batch: Batch
    site: str
    summed: tuple[str, ...]
    samples: int
    particles: int
    seed: int

    def elbo(self, guide: nn.Module | None, particles: int) -> Tensor:
        """One-draw estimates, `[particles, B]`; the KL in closed form where there is one."""
        found = terms(self.model, guide, self.batch, particles=particles, marginal=self.summed)
        return found.log_likelihood - _kl(found.sites[self.site])

    @torch.no_grad()
    def draws(self, guide: nn.Module | None) -> np.ndarray:
        """The same `[samples, B]`; Gaussians get the same noise, and so are compared in pairs."""
        torch.manual_seed(self.seed + 1)
        parts = [min(self.particles, self.samples - start) for start in range(0, self.samples, self.particles)]
        return np.concatenate([as_float64(self.elbo(guide, part)) for part in parts])

    def refine(self, guide: OwnPosteriors, how: Refinement) -> np.ndarray:
        """Climb the ELBO of every document by its own parameters; its sum over documents at each step."""
        progress = np.zeros(how.steps)
        optimiser = torch.optim.Adam([p for p in guide.parameters() if p.requires_grad], lr=how.rate)
        for step in range(how.steps):
            optimiser.param_groups[0]["lr"] = how.rate * 0.5 * (1 + math.cos(math.pi * step / how.steps))
            optimiser.zero_grad()
            elbo = self.elbo(guide, how.particles).mean(0).sum()
            (-elbo).backward()
            optimiser.step()
            progress[step] = elbo.item()
        return progress


def _kl(site: SiteTerms) -> Tensor:
    """KL(q || p) `[S, B]`, in closed form also between a full covariance and a diagonal one."""
    q, p = site.q, site.p
    if isinstance(q, MultivariateNormal) and isinstance(p, Independent) and isinstance(base(p), Normal):
        return kl_divergence(q, dist.MultivariateNormal(p.mean, scale_tril=torch.diag_embed(p.stddev)))
    return site.kl


@dataclass(frozen=True)
class Estimate:
    """Nats of every document in corpus order, `[N]`, and the Monte Carlo standard error of each, zero if exact."""

    value: np.ndarray
    error: np.ndarray

    @property
    def mean(self) -> Difference:
        """Mean over documents, and how it would vary with other documents of the kind."""
        return compare(self.value, np.zeros(len(self.value)))

    def __sub__(self, other: Estimate) -> Estimate:
        return Estimate(self.value - other.value, np.hypot(self.error, other.error))


@dataclass(frozen=True)
class InferenceGaps:
    """log p(x) - ELBO of every document in two parts.                 Cremer, Li and Duvenaud 2018 (arXiv:1801.03558)

    Attributes:
        method: how log p(x) was found. By importance sampling it is too small in expectation, and so is what is left
            of the gap.
        family: that of `refined`.
        richer_family: that of `richer`, if asked for.
        log_evidence: log p(x).
        amortised: ELBO of the guide.
        refined: ELBO with parameters of each document's own: a local optimum, near the guide's.
        amortisation: refined - amortised, by paired draws.
        progress: mean ELBO of these documents at each step of the refinement, by its few draws, `[steps]`.
        richer: ELBO of the richer family, refined from there.
    """

    method: str
    family: str
    richer_family: str | None
    log_evidence: Estimate
    amortised: Estimate
    refined: Estimate
    amortisation: Estimate
    progress: np.ndarray
    richer: Estimate | None = None

    @property
    def approximation(self) -> Estimate:
        """log p(x) - refined: what the family cannot do."""
        return self.log_evidence - self.refined

    @property
    def richer_approximation(self) -> Estimate | None:
        """log p(x) - richer."""
        return self.log_evidence - self.richer if self.richer else None

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` over `document`: each estimate, its `_error`, and `progress` over `step`; nats."""
        found = {name: getattr(self, name) for name in ("log_evidence", "amortised", "refined", "amortisation")}
        found |= {"approximation": self.approximation}
        if self.richer is not None:
            found |= {"richer": self.richer, "richer_approximation": self.log_evidence - self.richer}
        variables = {name: (("document",), estimate.value, "nats") for name, estimate in found.items()}
        variables |= {f"{name}_error": (("document",), estimate.error, "nats") for name, estimate in found.items()}
        variables["progress"] = (("step",), self.progress, "nats")
        about = {"method": self.method, "family": self.family, "richer_family": self.richer_family or ""}
        return measured(variables, attrs=about)

    def rows(self) -> dict[str, str]:
        """Measure and mean over documents, as printed."""
        rows = {f"log p(x), {self.method}": self.log_evidence, "ELBO of the guide": self.amortised}
        rows |= {"amortisation gap": self.amortisation, f"approximation gap, {self.family}": self.approximation}
        if self.richer is not None:
            rows[f"approximation gap, {self.richer_family}"] = self.log_evidence - self.richer
        return {name: str(estimate.mean) for name, estimate in rows.items()}


def inference_gaps(
    model: nn.Module,
    guide: nn.Module | None,
    split: Split,
    *,
    log_evidence: Likelihood | None = None,
    family: str | None = None,
    richer: str | None = None,
    how: Refinement = Refinement(),
    samples: int = 1000,
    seed: int = 0,
    batch_size: int = 32,
    chunk: int = 2000,
) -> InferenceGaps:
    """Split the inference gap of every document; some hundred documents are enough for a mean.

    Args:
        model: has one continuous latent; discrete ones are summed out.
        guide: a Gaussian, diagonal or not.
        split: the documents.
        log_evidence: from `importance_nll`; if not given, by a grid where z has one or two dimensions, else by
            `importance_nll` with `samples` draws.
        family: one of `FAMILIES`; if not given, that of the guide: a poorer one may do worse than the guide.
        richer: another that contains it.
        how: the refinement.
        samples: draws per document that ELBOs are judged by.
        seed: of all draws.
        batch_size: documents refined together.
        chunk: documents x draws judged at once; bounds the memory.

    Raises:
        NoDensityError: the guide is a point.
        ValueError: no guide, no documents, no such family, too few samples, or latents that cannot be refined.
    """
    if samples < 2 or (log_evidence is not None and len(log_evidence.nll) != len(split)):
        given = f", log_evidence of {len(log_evidence.nll)} documents" if log_evidence else ""
        raise ValueError(f"{samples} samples of {len(split)} documents{given}: at least 2, and one log p(x) of each")
    require_documents(split)
    summed = summable(model, guide, split).sites
    found: dict[str, np.ndarray] = {}
    progress, seeds = np.zeros(how.steps), np.random.default_rng(seed)
    for rows, batch in batches(model, split, batch_size):
        here = int(seeds.integers(2**31))  # each batch has noise of its own
        with differentiable(model, guide, here):
            site, own, loc, lower = gaussian_of(model, guide, batch, summed)
            _refuse(family := family or own, richer)
            judge = _Judge(model, batch, site, summed, samples, max(1, chunk // len(rows)), here)
            refined = OwnPosteriors(site, family, loc, lower)
            progress += judge.refine(refined, how) / len(split)
            draws = {"amortised": judge.draws(guide), "refined": judge.draws(refined)}
            draws["amortisation"] = draws["refined"] - draws["amortised"]
            if richer:
                richest = OwnPosteriors(site, richer, *refined.gaussian())
                judge.refine(richest, how)
                draws["richer"] = judge.draws(richest)
        parts = {name: (value.mean(0), value.std(0, ddof=1) / math.sqrt(samples)) for name, value in draws.items()}
        if log_evidence is None and loc.shape[1] <= 2:
            parts["log_evidence"] = grid_posterior(model, batch).log_evidence, np.zeros(len(rows))
        for name, moments in parts.items():
            found.setdefault(name, np.zeros((2, len(split))))[:, rows] = moments
    method = "grid"
    if "log_evidence" not in found:
        known = log_evidence or importance_nll(model, guide, split, samples, seed=seed)
        method = f"{known.samples} importance samples" if known.samples else "exact"
        found["log_evidence"] = np.stack([-known.nll, known.standard_error])
    estimates = {name: Estimate(*pair) for name, pair in found.items()}
    return InferenceGaps(method, family or "", richer, progress=progress, **estimates)


def _refuse(family: str, richer: str | None) -> None:
    unknown = next((name for name in (family, richer) if name is not None and name not in FAMILIES), None)
    if unknown is not None or (richer is not None and FAMILIES.index(richer) <= FAMILIES.index(family)):
        wrong = f"'{unknown}' is no family" if unknown else f"'{richer}' is not richer than '{family}'"
        raise ValueError(f"{wrong}; from poor to rich there are {', '.join(FAMILIES)}")


@torch.no_grad()
def gaussian_of(
    model: nn.Module, guide: nn.Module | None, batch: Batch, summed: tuple[str, ...]
) -> tuple[str, str, Tensor, Tensor]:
    """The continuous site; family, means and Cholesky factors of what the guide says of it."""
    if guide is None:
        raise ValueError(f"{type(model).__name__} was given without a guide: there is none to judge")
    posterior = posterior_of(model, batch)
    site = posterior.only()
    if set(posterior.summed) != set(summed):
        raise StructureError(f"the guide's '{site}' depends on a draw of {list(posterior.summed)}: make it independent")
    found = terms(model, guide, batch, marginal=summed)
    require_density(found)
    q = found.sites[site].q
    if isinstance(q, MultivariateNormal):
        return site, "full", q.mean[0], q.scale_tril[0]
    if isinstance(base(q), Normal) and len(q.event_shape) == 1:
        return site, "mean-field", q.mean[0], torch.diag_embed(q.stddev[0])
    raise StructureError(f"site '{site}' of the guide is {q}: a Gaussian with event [D] is wanted")
