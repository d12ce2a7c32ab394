"""Whether the latent is used: active units, mutual information, what shuffling z costs (layer: evaluation)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pyro.distributions import Independent, Normal
from torch import Tensor, nn

from pyro_nlp.data.batches import PAD
from pyro_nlp.data.splits import Split
from pyro_nlp.distributions import Written
from pyro_nlp.distributions.von_mises_fisher import VonMisesFisher, pairwise_log_density
from pyro_nlp.evaluation.documents import as_float64, batches, judging, per_document
from pyro_nlp.evaluation.likelihood import Difference, compare
from pyro_nlp.inference.sites import SiteTerms, own_plates
from pyro_nlp.inference.support import one_hot
from pyro_nlp.inference.terms import terms


@dataclass(frozen=True)
class Posteriors:
    """q(z | x) of every document of a split, one site.

    Attributes:
        mean: E_q[z], `[N, D]`; of a one-hot class its probabilities.
        scale: standard deviations of a diagonal Gaussian, `[N, D]`; None for other families.
        draw: one draw per document, `[N, D]`.
        classes: K, where z is made of D / K one-hot variables; else None.
        concentration: kappa of a von Mises-Fisher distribution, whose mean direction is that of `mean`, `[N]`; None for
            other families.
    """

    mean: np.ndarray
    scale: np.ndarray | None
    draw: np.ndarray
    classes: int | None = None
    concentration: np.ndarray | None = None

    @property
    def units(self) -> int:
        """Dimensions, or one-hot variables, of z."""
        return self.mean.shape[1] // (self.classes or 1)


def posteriors(
    model: nn.Module,
    guide: nn.Module,
    split: Split,
    *,
    seed: int = 0,
    batch_size: int = 128,
    marginal: Collection[str] = (),
) -> dict[str, Posteriors]:
    """The guide's answer for every document and site that is a vector or one-hot, in corpus order; those in `marginal`
    and those of parts of a document are left out."""
    found: dict[str, dict[str, np.ndarray]] = {}
    classes: dict[str, int] = {}
    with judging(model, guide, seed):
        for rows, batch_terms in per_document(model, guide, split, 1, batch_size, marginal):
            for name, site in batch_terms.sites.items():
                if own_plates(site.guide, site.scope.plates):
                    continue
                if one_hot(site.q):
                    classes[name] = site.q.event_shape[-1]
                elif len(site.q.event_shape) != 1 or isinstance(site.q, Written):
                    continue
                plates, count = site.scope.plates, len(rows)  # plates beside that of documents are of size one
                parts = {
                    "mean": site.q.mean[0].flatten(0, plates - 1).flatten(1),
                    "draw": site.value[0].flatten(0, plates - 1).flatten(1),
                }
                if _gaussian(site):
                    parts["scale"] = site.q.stddev[0].flatten(0, plates - 1)
                elif isinstance(site.q, VonMisesFisher):
                    parts["concentration"] = site.q.concentration.expand(*[1] * plates, count).reshape(count, 1)
                store = found.setdefault(name, {})
                for part, value in parts.items():
                    store.setdefault(part, np.zeros((len(split), value.shape[-1])))[rows] = as_float64(value)
    return {
        n: Posteriors(p["mean"], p.get("scale"), p["draw"], classes.get(n), _column(p.get("concentration")))
        for n, p in found.items()
    }


def _column(values: np.ndarray | None) -> np.ndarray | None:
    return None if values is None else values[:, 0]


def _gaussian(site: SiteTerms) -> bool:
    return isinstance(site.q, Independent) and isinstance(site.q.base_dist, Normal)


def active_units(posterior: Posteriors, threshold: float = 0.01) -> int:
    """Dimensions whose posterior mean varies between documents: Var_x(E_q[z]) > threshold (Burda et al. 2016).

    Of one-hot variables: those with a class whose probability does.
    """
    if len(posterior.mean) < 2:
        return 0
    varies = posterior.mean.var(0, ddof=1) > threshold
    return int(varies.reshape(posterior.units, -1).any(1).sum())


@dataclass(frozen=True)
class MutualInformation:
    """I(x; z) under q, in nats.

    Attributes:
        whole: against the aggregate posterior of all N documents; cannot exceed `cap`.
        cap: log N; for one of K classes log K, if that is less.
        documents: N.
        minibatch: the estimate of He et al. 2019, against the aggregate of minibatches of `minibatch_size`; its cap
            is log of that size, or log K of a class, if that is less. Given for comparison with the literature only.
        minibatch_size: documents in such a minibatch.
    """

    whole: float
    cap: float
    documents: int
    minibatch: float
    minibatch_size: int


def mutual_information(
    posterior: Posteriors, *, minibatch_size: int = 32, seed: int = 0, chunk: int = 512
) -> MutualInformation | None:
    """E[log q(z | x) - log q(z)] with q(z) = (1/N) sum_n q(z | x_n), by one draw per document.

    Of a one-hot class exactly: the entropy of q(c) minus the mean entropy of q(c | x). None where q is neither that nor
    a diagonal Gaussian nor a von Mises-Fisher distribution: under a flow, say, every document's density at every other
    document's draw would be a pass of its own.

    The minibatch form follows Hoffman and Johnson 2016 as coded by He et al. 2019: minus the entropy of q in closed
    form, minus log q(z) of the draw against the documents of its own minibatch.
    """
    if posterior.classes == posterior.mean.shape[1]:
        return _class_information(posterior.mean, minibatch_size, seed)
    density = _density(posterior)
    if density is None:
        return None
    draw, count = torch.from_numpy(posterior.draw), len(posterior.draw)
    everyone = torch.arange(count)
    own = torch.cat([density.at(draw[rows], rows).diagonal() for rows in everyone.split(chunk)])
    aggregate = torch.cat([density.at(z, everyone).logsumexp(-1) for z in draw.split(chunk)])
    whole = (own - aggregate).mean().item() + math.log(count)

    order = torch.from_numpy(np.random.default_rng(seed).permutation(count))
    estimates = []
    for rows in order.split(minibatch_size):
        log_q = density.at(draw[rows], rows).logsumexp(-1) - math.log(len(rows))
        estimates.append((density.negative_entropy[rows].mean() - log_q.mean()).item())
    return MutualInformation(whole, math.log(count), count, float(np.mean(estimates)), min(minibatch_size, count))


@dataclass(frozen=True)
class _Density:
    """q(z | x_n) of all documents in a form that many points can be put into.

    Attributes:
        at: log q(z_i | x_j) of points `[I, D]` and document numbers `[J]`, `[I, J]`.
        negative_entropy: E[log q(z | x_n)] in closed form, `[N]`.
    """

    at: Callable[[Tensor, Tensor], Tensor]
    negative_entropy: Tensor


def _density(posterior: Posteriors) -> _Density | None:
    mean = torch.from_numpy(posterior.mean)
    if posterior.scale is not None:
        scale = torch.from_numpy(posterior.scale)
        return _Density(
            lambda z, rows: _log_density(z, mean[rows], scale[rows]),
            -(scale.log() + 0.5).sum(-1) - _half_log_2pi(mean.shape[1]),
        )
    if posterior.concentration is not None:
        kappa = torch.from_numpy(posterior.concentration)
        loc = torch.nn.functional.normalize(mean, dim=-1)
        q = VonMisesFisher(loc, kappa, validate_args=False)
        return _Density(lambda z, rows: pairwise_log_density(z, loc[rows], kappa[rows]), -q.entropy())
    return None


def _class_information(probabilities: np.ndarray, minibatch_size: int, seed: int) -> MutualInformation:
    def between(rows: np.ndarray) -> float:
        return float(_entropy(rows.mean(0)) - _entropy(rows).mean())

    count, classes = probabilities.shape
    order = np.random.default_rng(seed).permutation(count)
    parts = [between(probabilities[order[i : i + minibatch_size]]) for i in range(0, count, minibatch_size)]
    cap = math.log(min(count, classes))
    return MutualInformation(between(probabilities), cap, count, float(np.mean(parts)), min(minibatch_size, count))


def _entropy(p: np.ndarray) -> np.ndarray:
    """In nats, over the last dimension."""
    return -(p * np.log(np.where(p > 0, p, 1.0))).sum(-1)


def _half_log_2pi(dimensions: int) -> float:
    return 0.5 * dimensions * math.log(2 * math.pi)


def _log_density(z: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """log N(z_i; mean_j, scale_j), `[i, j]`, as one matrix product in float64."""
    precision = scale.square().reciprocal()
    quadratic = z.square() @ precision.T - 2 * z @ (mean * precision).T + (mean.square() * precision).sum(-1)
    return -0.5 * quadratic - scale.log().sum(-1) - _half_log_2pi(z.shape[1])


def shuffled_rise(
    model: nn.Module,
    guide: nn.Module,
    split: Split,
    *,
    seed: int = 0,
    batch_size: int = 64,
    marginal: Collection[str] = (),
) -> Difference | None:
    """How much worse documents are predicted from another document's z than from their own, in nats.

    Near zero, the decoder does not listen to z. Paired per document, one draw of z each, shuffled over the whole split.
    None where documents have latents for each of their parts, which another document's cannot stand for.
    """
    count, plates = len(split), 1
    own, others = np.zeros(count), np.zeros(count)
    parts: dict[str, list[tuple[Tensor, Tensor]]] = {}
    with judging(model, guide, seed):
        for rows, found in per_document(model, guide, split, 1, batch_size, marginal):
            own[rows] = as_float64(found.log_likelihood[0])
            plates = found.scope.plates
            if any(own_plates(s.guide, plates) for s in found.sites.values()):
                return None
            for name, site in found.sites.items():
                parts.setdefault(name, []).append((torch.from_numpy(rows), site.value[0].flatten(0, plates - 1)))
        drawn = {name: _whole(part) for name, part in parts.items()}
        # a random cycle: nobody keeps their own
        order = np.random.default_rng(seed).permutation(count)
        partner = np.empty(count, np.int64)
        partner[order] = np.roll(order, 1)
        for rows, batch in batches(model, split, batch_size):
            given = {name: value[torch.from_numpy(partner[rows])][(None,) * plates] for name, value in drawn.items()}
            others[rows] = as_float64(terms(model, guide, batch, given=given, marginal=marginal).log_likelihood[0])
    return compare(own, others)


def _whole(parts: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """Values of all documents out of those of some rows each; sequences are padded to the longest."""
    count = sum(len(rows) for rows, _ in parts)
    widest = [max(sizes) for sizes in zip(*(value.shape[1:] for _, value in parts), strict=True)]
    made = parts[0][1].new_full((count, *widest), PAD)
    for rows, value in parts:
        filled: Any = (rows, *map(slice, value.shape[1:]))
        made[filled] = value
    return made
