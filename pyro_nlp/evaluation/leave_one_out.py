"""How well each document is predicted without itself, from draws of an approximate posterior (layer: evaluation).

What a document leaves behind when it is left out depends on where the latents stand. `loo` is for latents of the
documents themselves: nothing of a document is known but by itself, so that without it there is the prior.
`loo_of_draws` is for latents that all documents share, of which the others still speak. Parameters of the model are
fixed in both: they have seen the documents they were trained on, so take documents they have not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from pyro_nlp.data.splits import Split
from pyro_nlp.evaluation._arviz import elpd_data, measured
from pyro_nlp.evaluation._drawn import require_documents
from pyro_nlp.evaluation.discrete import summable
from pyro_nlp.evaluation.documents import as_float64, batches, judging, require_density
from pyro_nlp.evaluation.importance import good_k, log_mean, pareto_smooth, require_draws, require_weights
from pyro_nlp.inference.terms import Terms, not_finite, terms
from pyro_nlp.inference.training import Precision


@dataclass(frozen=True)
class Loo:
    """Leave-one-out predictive densities of N documents.

    Attributes:
        elpd: log p(x_n | the others), nats, `[N]`.
        lpd: log (1/S) sum_s p(x_n | z_s) over draws that have seen x_n, nats, `[N]`.
        pareto_k: of the weights that leave n out, `[N]`; above `good_k` its elpd is not to be believed.
        draws: S.
    """

    elpd: np.ndarray
    lpd: np.ndarray
    pareto_k: np.ndarray
    draws: int

    @property
    def elpd_loo(self) -> float:
        """Sum over documents, nats."""
        return float(self.elpd.sum())

    @property
    def se(self) -> float:
        """How the sum would vary with other documents of the kind; NaN of a single one."""
        count = len(self.elpd)
        return float((count * self.elpd.var()) ** 0.5) if count > 1 else math.nan

    @property
    def p_loo(self) -> float:
        """lpd - elpd, summed: what the draws know of the documents from the documents themselves."""
        return float((self.lpd - self.elpd).sum())

    def rows(self) -> dict[str, str]:
        """Measure and value, as printed."""
        limit = good_k(self.draws)
        return {
            "elpd_loo": f"{self.elpd_loo:.2f} ± {self.se:.2f}",
            "p_loo": f"{self.p_loo:.2f}",
            f"k-hat above {limit:.2f}": f"{(self.pareto_k > limit).mean():.1%} of documents",
        }

    def to_arviz(self) -> Any:
        """As ArviZ's `loo` gives it: for `arviz.compare`, `plot_khat`, `plot_elpd`."""
        return elpd_data(self.elpd, self.lpd, self.pareto_k, self.draws, good_k(self.draws))

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` over `document`, with units; the sums in its attributes."""
        units = {"elpd": "nats", "lpd": "nats", "pareto_k": "1"}
        variables = {name: (("document",), getattr(self, name), unit) for name, unit in units.items()}
        sums = {"elpd_loo": self.elpd_loo, "se": self.se, "p_loo": self.p_loo}
        return measured(variables, attrs={**sums, "draws": self.draws, "good_k": good_k(self.draws)})


def loo_of_draws(log_likelihood: np.ndarray, log_p: np.ndarray | None = None, log_q: np.ndarray | None = None) -> Loo:
    """Leave one document out of what draws of shared latents have seen.     Magnusson et al. 2019 (ICML; 1904.10679)

    Draws of q get the weight p(z, x) / (q(z) p(x_n | z)), which takes n out and corrects q; it is Pareto-smoothed and
    normalised. Without `log_p` and `log_q` the draws are from the posterior, and this is PSIS-LOO of MCMC.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> mean = rng.normal(0, 0.1, (1000, 1))
        >>> loo_of_draws(-0.5 * (rng.standard_normal(50) - mean) ** 2).elpd.shape
        (50,)

    Args:
        log_likelihood: log p(x_n | z_s), documents independent given z, `[S, N]`.
        log_p: log p(z_s, all documents), up to a constant, `[S]`.
        log_q: log q(z_s), up to a constant, `[S]`.

    Raises:
        ValueError: shapes that do not fit, fewer than 21 draws, or a number that is none; names the document.
    """
    draws = len(log_likelihood)
    if log_likelihood.ndim != 2 or (log_p is None) != (log_q is None):
        raise ValueError(
            f"log_likelihood has shape {log_likelihood.shape}: give [draws, documents], and both densities or none"
        )
    correction: np.ndarray = np.zeros(draws)
    if log_p is not None and log_q is not None:
        if log_p.shape != (draws,) or log_q.shape != (draws,):
            raise ValueError(f"log_p {log_p.shape} and log_q {log_q.shape}: one of each for each of {draws} draws")
        correction = np.asarray(log_p, np.float64) - log_q
    smoothed = pareto_smooth(correction[:, None] - log_likelihood)
    elpd = log_mean(smoothed.log_weights + log_likelihood) - log_mean(smoothed.log_weights)
    return Loo(elpd, log_mean(log_likelihood), smoothed.pareto_k, draws)


def loo(
    model: nn.Module,
    guide: nn.Module | None,
    split: Split,
    draws: int = 500,
    *,
    seed: int = 0,
    batch_size: int = 8,
    chunk: int = 800,
    precision: Precision = "float32",
) -> Loo:
    """Leave one document out of a model whose latents are each document's own: log E_p(z)[p(x_n | z)].

    What is left out is a whole document. The others say nothing of its latents, so its leave-one-out posterior is the
    prior, and its elpd is log p(x_n): the mean under q of Pareto-smoothed p(x_n, z) / q(z | x_n). As the weights that
    take it out, p(z) / q(z | x_n), are known to average one, they are not normalised: that would cost what q, which is
    narrower than the prior, cannot pay. It is minus the `nll_smoothed` of `importance_diagnostics`; what is new is
    `p_loo`, and that ArviZ can compare models by it. Discrete latents are summed out where they can be.

    Args:
        model, guide: what is judged.
        split: the documents; ones that the model was not trained on.
        draws: per document, S; at least 21.
        seed: of the draws.
        batch_size: documents taken together.
        chunk: documents x draws x summed values decoded at once; bounds the memory.
        precision: of the networks.

    Raises:
        NoDensityError: the guide is a point.
        ValueError: no documents, too few draws, a weight that is not a number (names the document), or no latent that
            is drawn: then there is nothing to correct, and `importance_nll` is exact.
    """
    require_documents(split)
    summed = summable(model, guide, split)
    if guide is None or summed.all:
        raise ValueError(f"{type(model).__name__} draws no latent of a guide: importance_nll gives its exact log p(x)")
    require_draws(draws)
    elpd, lpd, k = (np.zeros(len(split)) for _ in range(3))
    with judging(model, guide, seed, precision):
        for rows, batch in batches(model, split, max(1, min(batch_size, chunk // summed.configurations))):
            parts: list[Terms] = []
            size = max(1, chunk // (len(rows) * summed.configurations))
            for start in range(0, draws, size):
                count = min(size, draws - start)
                parts.append(terms(model, guide, batch, particles=count, marginal=summed.sites))
                require_density(parts[-1])
            weights = np.concatenate([as_float64(part.log_weight) for part in parts])
            if np.isnan(weights).any() or np.isposinf(weights).any():
                require_weights(weights, rows, not_finite(model, guide, batch))
            smoothed = pareto_smooth(weights)
            k[rows], elpd[rows] = smoothed.pareto_k, log_mean(smoothed.log_weights)
            lpd[rows] = log_mean(np.concatenate([as_float64(part.log_likelihood) for part in parts]))
    return Loo(elpd, lpd, k, draws)
