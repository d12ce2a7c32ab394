"""What a latent space is like: where documents lie, what directions mean, what is close (layer: evaluation)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_nlp.data.batches import TextBatch
from pyro_nlp.data.splits import Split
from pyro_nlp.evaluation._arviz import measured
from pyro_nlp.evaluation._drawn import portions, require_documents
from pyro_nlp.evaluation.collapse import Posteriors, _log_density
from pyro_nlp.evaluation.documents import as_float64, batches, device_of, judging
from pyro_nlp.evaluation.gaps import gaussian_of
from pyro_nlp.evaluation.importance import pareto_smooth
from pyro_nlp.evaluation.likelihood import Difference, compare
from pyro_nlp.evaluation.references import differentiable, grid_posterior, posterior_of
from pyro_nlp.evaluation.texts import codes
from pyro_nlp.inference.dreams import dream
from pyro_nlp.inference.sites import StructureError
from pyro_nlp.inference.terms import terms


@dataclass(frozen=True)
class Aggregate:
    """The aggregate posterior q(z) = (1/N) sum_n q(z | x_n) beside a standard normal prior.

    Attributes:
        mean, variance: of q(z), `[D]`; 0 and 1 under the prior.
        divergence: KL(q(z) || p(z)) in nats, by one draw per document among the same N: too large by what N documents
            do not cover. With the mutual information it makes up the mean KL of the ELBO.
    """

    mean: np.ndarray
    variance: np.ndarray
    divergence: Difference

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` over `latent`, and the divergence."""
        found: dict[str, Any] = {"mean": (("latent",), self.mean, "1"), "variance": (("latent",), self.variance, "1")}
        found["divergence"] = ((), self.divergence.mean, "nats")
        return measured(found | {"divergence_error": ((), self.divergence.standard_error, "nats")})


def aggregate(posterior: Posteriors, *, chunk: int = 512) -> Aggregate:
    """Moments and divergence of the aggregate of diagonal Gaussians.     Hoffman and Johnson 2016 (ELBO surgery)

    Raises:
        ValueError: another family, or a single document.
    """
    if posterior.scale is None:
        raise ValueError("the posteriors are no diagonal Gaussians: their mixture has no density here")
    _require_documents(posterior.mean)
    mean, scale, draw = (torch.from_numpy(a) for a in (posterior.mean, posterior.scale, posterior.draw))
    parts = [_log_density(part, mean, scale).logsumexp(-1) for part in draw.split(chunk)]
    log_q = torch.cat(parts) - math.log(len(mean))
    log_p = torch.distributions.Normal(0.0, 1.0).log_prob(draw).sum(-1)
    variance = (posterior.scale**2).mean(0) + posterior.mean.var(0)
    return Aggregate(posterior.mean.mean(0), variance, compare(log_q.numpy(), log_p.numpy()))


def _require_documents(mean: np.ndarray) -> None:
    if len(mean) < 2:
        raise ValueError(f"{len(mean)} document has no neighbours and no spread: take at least 2")


def neighbours(
    mean: np.ndarray,
    queries: np.ndarray | None = None,
    count: int = 5,
    metric: Literal["euclidean", "cosine"] = "euclidean",
    *,
    chunk: int = 1024,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `mean` `[N, D]` nearest to each query `[Q, D]`, and their distances, nearest first, `[Q, count]` each.

    Args:
        mean: posterior means, or any vectors.
        queries: if not given, `mean` itself, where no row is a neighbour of its own.
        count: neighbours of each; no more than there are.
        metric: or `cosine`, one minus the cosine of the angle at the origin.
        chunk: queries taken at once.

    Raises:
        ValueError: a single document, or another metric.
    """
    if metric not in ("euclidean", "cosine"):
        raise ValueError(f"metric is '{metric}'; it is 'euclidean' or 'cosine'")
    own = queries is None
    if own:
        _require_documents(mean)
    points, asked = (torch.from_numpy(np.asarray(a, np.float64)) for a in (mean, mean if queries is None else queries))
    if metric == "cosine":
        points, asked = F.normalize(points, dim=-1), F.normalize(asked, dim=-1)
    found = []
    for start in range(0, len(asked), chunk):
        part = asked[start : start + chunk]
        distance = torch.cdist(part, points) if metric == "euclidean" else 1 - part @ points.T
        if own:
            distance[torch.arange(len(part)), torch.arange(start, start + len(part))] = torch.inf
        found.append(distance.topk(min(count, len(points) - own), largest=False))
    return torch.cat([f.indices for f in found]).numpy(), torch.cat([f.values for f in found]).numpy()


@dataclass(frozen=True)
class Probe:
    """Accuracy of a linear classifier of labels from latents on documents it was not trained on.

    Attributes:
        accuracy: share of them.
        standard_error: of it, binomial.
        majority: accuracy of the commonest training label.
        classes, documents: labels known in training; documents judged.
    """

    accuracy: float
    standard_error: float
    majority: float
    classes: int
    documents: int

    def to_xarray(self) -> Any:
        """The three shares as an `xarray.Dataset` without dimensions."""
        names = ("accuracy", "standard_error", "majority")
        counts = {"classes": self.classes, "documents": self.documents}
        return measured({name: ((), getattr(self, name), "1") for name in names}, attrs=counts)

    def __str__(self) -> str:
        return f"{self.accuracy:.3f} ± {self.standard_error:.3f}, majority {self.majority:.3f}"


def linear_probe(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, *, penalty: float = 1.0
) -> Probe:
    """Multinomial logistic regression on standardised posterior means `[N, D]`; documents labelled -1 are left out.

    Args:
        train, train_labels: what it is fitted to.
        test, test_labels: what it is judged on.
        penalty: half of it times the squared weights is added to the summed loss.

    Raises:
        ValueError: numbers that do not match, no labelled document to judge on, or a single class.
    """
    for what, mean, labels in (("train", train, train_labels), ("test", test, test_labels)):
        if len(mean) != len(labels):
            raise ValueError(f"{len(mean)} {what} documents and {len(labels)} labels: give one of each per document")
    train, train_labels = train[train_labels >= 0], train_labels[train_labels >= 0]
    test, test_labels = test[test_labels >= 0], test_labels[test_labels >= 0]
    classes, target = np.unique(train_labels, return_inverse=True)
    if len(classes) < 2 or not len(test):
        raise ValueError(f"{len(classes)} classes to learn, {len(test)} documents to judge: there must be 2 and 1")
    centre, spread = train.mean(0), np.maximum(train.std(0), 1e-12)
    x, y = torch.from_numpy((train - centre) / spread).double(), torch.from_numpy(target)
    weight, bias = _logistic(x, y, len(classes), penalty)
    scores = torch.from_numpy((test - centre) / spread).double() @ weight + bias
    right = classes[scores.argmax(1).numpy()] == test_labels
    commonest = classes[np.bincount(target).argmax()]
    accuracy = float(right.mean())
    error = math.sqrt(accuracy * (1 - accuracy) / len(right))
    return Probe(accuracy, error, float((test_labels == commonest).mean()), len(classes), len(right))


def _logistic(x: Tensor, y: Tensor, classes: int, penalty: float) -> tuple[Tensor, Tensor]:
    """Weights `[D, K]` and biases `[K]` at the minimum of the penalised loss, which is convex."""
    weight = x.new_zeros(x.shape[1], classes, requires_grad=True)
    bias = x.new_zeros(classes, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=500, tolerance_grad=1e-9, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        found = F.cross_entropy(x @ weight + bias, y, reduction="mean") + penalty / 2 * weight.square().sum() / len(x)
        found.backward()
        return found

    with torch.enable_grad():
        optimiser.step(loss)
    return weight.detach(), bias.detach()


def traverse(
    model: Any,
    guide: nn.Module | None,
    batch: TextBatch,
    dimension: int,
    site: str = "z",
    reach: float = 3.0,
    steps: int = 7,
    **options: Any,
) -> Tensor:
    """Sentences along one dimension of z, from -reach to reach, all else at each document's posterior mean.

    A standard normal prior is meant: units are its standard deviations. Ids `[B, steps, L]`; options as in `nn.write`.

    Raises:
        ValueError: a model that cannot write, or no such site or dimension.
    """
    if not hasattr(model, "generate"):
        raise ValueError(f"{type(model).__name__} cannot write text: give it generate()")
    latents = codes(model, guide, batch)
    size = latents[site].shape[1] if site in latents and latents[site].dim() == 2 else 0
    if not 0 <= dimension < size:
        raise ValueError(f"'{site}' has {size} dimensions: there is no number {dimension} to move along")
    along = {name: value.repeat_interleave(steps, 0) for name, value in latents.items()}
    along[site][:, dimension] = torch.linspace(-reach, reach, steps, device=device_of(model)).repeat(len(batch))
    with judging(model, guide, 0):
        written: Tensor = model.generate(along, **options)
    return written.unflatten(0, (len(batch), steps))


def sensitivity(
    model: nn.Module, guide: nn.Module | None, split: Split, *, seed: int = 0, batch_size: int = 64
) -> np.ndarray:
    """Gradients d log p(x | z) / dz of every document at a draw of z, `[N, D]`.

    Their mean square over documents, `(g**2).mean(0)`, says how much the decoder listens to each dimension: z moved by
    a small step d changes p(x | z) by d^2 / 2 times that in nats (Fisher information). At posterior means the gradient
    would only say how far these are from the prior's: at a mode it is minus that of log p(z), whatever the decoder.

    Args:
        model: has one continuous latent; discrete ones are summed out.
        guide: z is drawn from it for each document; without one, documents are written from draws of the prior.
        split: the documents, or how many of them.
        seed: of the draws.
        batch_size: documents taken together.
    """
    require_documents(split)
    found = []
    with differentiable(model, guide, seed):
        for start in range(0, len(split), batch_size):
            batch: Any = split.batch(np.arange(start, min(start + batch_size, len(split)))).to(device_of(model))
            site = posterior_of(model, batch).only()
            if guide is None:
                latents, batch = dream(model, batch)
                z = latents[site][None]
            else:
                z = terms(model, guide, batch).sites[site].value
            z = z.detach().requires_grad_(True)
            log_likelihood = posterior_of(model, batch).terms({site: z}).log_likelihood
            if not log_likelihood.requires_grad:
                raise StructureError(f"log p(x | {site}) of {type(model).__name__} has no gradient in '{site}'")
            found.append(as_float64(torch.autograd.grad(log_likelihood.sum(), z)[0][0].flatten(1)))
    return np.concatenate(found)


@dataclass(frozen=True)
class MeanSpace:
    """Where model and guide put the mean of z, document by document.            He et al. 2019 (arXiv:1901.05534)

    Inference lags where documents leave the diagonal; the model has collapsed where its own means stay at the prior's.

    Attributes:
        model: E[z] under p(z | x), `[N, D]`.
        guide: E[z] under q(z | x), `[N, D]`.
        error: standard error of `model`, zero by a grid, `[N, D]`.
        pareto_k: of the weights that `model` is averaged with, `[N]`; -inf by a grid. Above 0.7 it is not to be
            believed: what the guide has not reached is not in it.
        method: how `model` was found.
    """

    model: np.ndarray
    guide: np.ndarray
    error: np.ndarray
    pareto_k: np.ndarray
    method: str = "grid"

    @property
    def lag(self) -> np.ndarray:
        """Root mean square distance from the diagonal, `[D]`."""
        return np.sqrt(((self.guide - self.model) ** 2).mean(0))

    def projected(self) -> MeanSpace:
        """The same along the direction in which the means of both differ most, D = 1; zero stays where it was."""
        means = np.concatenate([self.model, self.guide])
        direction = np.linalg.svd(means - means.mean(0), full_matrices=False)[2][0]
        direction = direction * np.sign(direction[np.abs(direction).argmax()])
        model, guide = (mean @ direction[:, None] for mean in (self.model, self.guide))
        error = np.sqrt(self.error**2 @ direction[:, None] ** 2)
        return MeanSpace(model, guide, error, self.pareto_k, self.method)

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` over `document` and `latent`."""
        variables: dict[str, Any] = {
            name: (("document", "latent"), getattr(self, name), "1") for name in ("model", "guide", "error")
        }
        variables |= {"pareto_k": (("document",), self.pareto_k, "1"), "lag": (("latent",), self.lag, "1")}
        return measured(variables, attrs={"method": self.method})


def mean_space(
    model: nn.Module,
    guide: nn.Module | None,
    split: Split,
    points: int = 200,
    reach: float = 6.0,
    *,
    draws: int | None = None,
    seed: int = 0,
    batch_size: int = 8,
    chunk: int = 800,
) -> MeanSpace:
    """Posterior means of one continuous latent, the model's by a grid or by weighted draws of the guide.

    Args:
        model: has one continuous latent; discrete ones are summed out.
        guide: a Gaussian.
        split: the documents.
        points, reach: of `grid_posterior`, for one or two dimensions.
        draws: in place of the grid, for any number of dimensions: Pareto-smoothed draws of the guide, at least 21.
        seed, batch_size, chunk: of these draws, as in `importance_nll`.

    Raises:
        ValueError: no documents, no guide or one that is no Gaussian, other latents, too few draws or points, or a
            weight that is not a number.
    """
    require_documents(split)
    found: dict[str, np.ndarray] = {}
    with judging(model, guide, seed):
        for rows, batch in batches(model, split, batch_size):
            summed = posterior_of(model, batch).summed
            site, _, loc, _ = gaussian_of(model, guide, batch, summed)
            parts = {"guide": as_float64(loc)}
            if draws is None:
                parts["model"] = grid_posterior(model, batch, None, points, reach).mean
                parts |= {"error": np.zeros(loc.shape), "pareto_k": np.full(len(rows), -np.inf)}
            else:
                parts |= _weighted_means(model, guide, batch, site, summed, draws, max(1, chunk // len(rows)))
            for name, value in parts.items():
                found.setdefault(name, np.zeros((len(split), *value.shape[1:])))[rows] = value
    return MeanSpace(**found, method="grid" if draws is None else f"{draws} weighted draws")


def _weighted_means(
    model: nn.Module, guide: Any, batch: Any, site: str, summed: tuple[str, ...], draws: int, size: int
) -> dict[str, np.ndarray]:
    """E[z] under p(z | x) by self-normalised importance sampling, its delta-method error, and k-hat."""
    parts = [terms(model, guide, batch, particles=count, marginal=summed) for count in portions(draws, size)]
    smoothed = pareto_smooth(np.concatenate([as_float64(part.log_weight) for part in parts]))
    z = np.concatenate([as_float64(part.sites[site].value) for part in parts])
    weight = np.exp(smoothed.log_weights - smoothed.log_weights.max(0))[..., None]
    weight = weight / weight.sum(0)
    mean = (weight * z).sum(0)
    error = np.sqrt((weight**2 * (z - mean) ** 2).sum(0))
    return {"model": mean, "error": error, "pareto_k": smoothed.pareto_k}
