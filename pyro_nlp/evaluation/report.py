"""One evaluation for all: the table that every model, however trained, is judged by (layer: evaluation)."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import nn

from pyro_nlp.data.counts import CountSplit
from pyro_nlp.data.splits import Split
from pyro_nlp.evaluation.collapse import (
    MutualInformation,
    active_units,
    mutual_information,
    posteriors,
    shuffled_rise,
)
from pyro_nlp.evaluation.discrete import exact_guide, summable
from pyro_nlp.evaluation.documents import NoDensityError
from pyro_nlp.evaluation.likelihood import (
    Difference,
    Likelihood,
    elbo_terms,
    foretold_tokens,
    importance_nll,
    perplexity,
)
from pyro_nlp.evaluation.measured import Measured
from pyro_nlp.evaluation.topics import perplexities
from pyro_nlp.inference.training import Precision

IGNORED = 0.1
"""Nats per document below which the loss under shuffled latents counts as none."""


@dataclass(frozen=True)
class Latent:
    """How one latent site is used. KL and shuffled rise in nats per document; see `collapse` for the rest.

    Of a site for each part of a document, as its words, only the KL is known, and `dimensions` is 0.
    """

    kl: float
    active_units: int
    dimensions: int
    mutual_information: MutualInformation | None


@dataclass(frozen=True)
class Evaluation(Measured):
    """What is known of a model and guide on one split. All in nats per document unless said otherwise.

    Attributes:
        documents, tokens: size of the split; tokens count the ends of sentence, of which bags of words have none; 0 for
            data that are not text.
        likelihood: exact or importance-weighted -log p(x) per document; None for a point guide ("no density").
        negative_elbo: one-draw bound; None for a point guide.
        reconstruction: -E_q[log p(x | z)].
        perplexity: exp(total nats / total tokens).
        shuffled_rise: what another document's z costs; None without latents.
        perplexity_per_document: exp(mean nats per token of a document), of bags of words only; those without words are
            left out.
        ends_counted: whether tokens count ends of sentence.
        summed_out: latents that have no guide, as they are summed out exactly.
    """

    documents: int
    tokens: int
    likelihood: Likelihood | None
    negative_elbo: float | None
    reconstruction: float
    perplexity: float | None
    shuffled_rise: Difference | None
    latents: dict[str, Latent] = field(default_factory=dict)
    perplexity_per_document: float | None = None
    ends_counted: bool = True
    summed_out: tuple[str, ...] = ()

    @property
    def collapsed(self) -> bool:
        """Whether there are latents that the model does not listen to: another document's do as well."""
        rise = self.shuffled_rise
        if rise is not None:
            return rise.mean < max(IGNORED, 3 * rise.standard_error)
        return self._whole and self.negative_elbo is not None and self._kl < IGNORED

    @property
    def _whole(self) -> bool:
        """Whether there are latents of a whole document."""
        return any(site.dimensions for site in self.latents.values())

    @property
    def verdict(self) -> str:
        """A sentence on the use of the latents, with its evidence."""
        if not self.latents:
            return f"{', '.join(self.summed_out)} summed out exactly" if self.summed_out else "no latent variables"
        kl, units, rise = self._kl, self._active(), ""
        if self.shuffled_rise is not None:
            rise = f", and another document's z costs {self.shuffled_rise.mean:.2f} nats"
        if self.collapsed:
            paid = "" if kl < IGNORED else ", paid for nothing"
            return f"collapsed: KL {kl:.3f} nats{paid}{units}{rise}"
        if self.likelihood is None:
            return f"a point per document, with no density{rise}"
        if not self._whole and not rise:
            return f"sequences, known by their KL: {kl:.2f} nats"
        return f"in use: KL {kl:.2f} nats{units}{rise}"

    @property
    def _kl(self) -> float:
        return sum(site.kl for site in self.latents.values())

    def _active(self) -> str:
        """Of latents of a whole document; a sequence has no units."""
        sites = self.latents.values()
        found = f"{sum(s.active_units for s in sites)} of {sum(s.dimensions for s in sites)}"
        return f", {found} units active" if self._whole else ""

    def rows(self) -> dict[str, str]:
        """Measure and value, as printed."""
        rows = {"documents": f"{self.documents:,}"}
        if self.tokens:
            rows["tokens (ends of sentence counted)" if self.ends_counted else "tokens"] = f"{self.tokens:,}"
        if self.likelihood is None:
            rows["NLL"] = "no density (point guide)"
        else:
            how = "exact" if not self.likelihood.samples else f"{self.likelihood.samples} importance samples"
            rows[f"NLL, {how}"] = f"{self.likelihood.mean:.2f} ± {self.likelihood.mean_standard_error:.2f}"
        if self.negative_elbo is not None and self.latents:
            rows["-ELBO, one draw"] = f"{self.negative_elbo:.2f}"
        if self.perplexity is not None:
            rows["perplexity"] = f"{self.perplexity:.2f}"
        if self.perplexity_per_document is not None:
            rows["perplexity, mean over documents"] = f"{self.perplexity_per_document:.2f}"
        rows["reconstruction"] = f"{self.reconstruction:.2f}"
        for name, site in self.latents.items():
            if self.likelihood is not None:
                rows[f"KL of {name}"] = f"{site.kl:.2f}"
            if site.dimensions:
                rows[f"active units of {name}"] = f"{site.active_units} of {site.dimensions}"
            mi = site.mutual_information
            if mi is not None:
                rows[f"mutual information of {name}, whole split"] = (
                    f"{mi.whole:.2f} (N {mi.documents:,}, cap {mi.cap:.2f})"
                )
                rows[f"... of {name} inside minibatches, as He et al. 2019"] = (
                    f"{mi.minibatch:.2f} (N {mi.minibatch_size}, cap {min(mi.cap, math.log(mi.minibatch_size)):.2f})"
                )
        if self.shuffled_rise is not None:
            rows["NLL rise under shuffled z"] = str(self.shuffled_rise)
        rows["latents"] = self.verdict
        return rows

    def as_dict(self) -> dict[str, Any]:
        """Numbers for JSON; per-document arrays are left out."""
        found = asdict(self)
        if self.likelihood is not None:
            found["likelihood"] = {
                "nll": self.likelihood.mean,
                "standard_error": self.likelihood.mean_standard_error,
                "samples": self.likelihood.samples,
            }
        found["verdict"] = self.verdict
        return found


def evaluate(
    model: nn.Module,
    guide: nn.Module | None,
    split: Split,
    *,
    samples: int = 500,
    seed: int = 0,
    precision: Precision = "float32",
    marginal: Collection[str] = (),
) -> Evaluation:
    """Judge a model and guide on a split; see `Evaluation` for what is measured.

    Args:
        model, guide: what is judged; a model with one class per document and no guide with the exact posterior.
        split: the documents.
        samples: importance samples per document.
        seed: of all draws.
        precision: of the networks; bf16 is faster and right to about four digits.
        marginal: sites that the guide was not trained for (`Run.marginal`): they are summed out.
    """
    if guide is None and (exact := exact_guide(model, split)) is not None:
        guide, marginal = exact, ()
    if guide is None:
        marginal = summable(model, None, split).sites
    terms = elbo_terms(model, guide, split, seed=seed, precision=precision, marginal=marginal)
    try:
        likelihood = importance_nll(model, guide, split, samples, seed=seed, precision=precision)
    except NoDensityError:
        likelihood = None
    tokens = foretold_tokens(model, split)
    latents, rise = {}, None
    if guide is not None and terms.kl:
        latents = {name: Latent(float(kl.mean()), 0, 0, None) for name, kl in terms.kl.items()}
        for name, posterior in posteriors(model, guide, split, seed=seed, marginal=marginal).items():
            information = mutual_information(posterior, seed=seed)
            latents[name] = Latent(float(terms.kl[name].mean()), active_units(posterior), posterior.units, information)
        rise = shuffled_rise(model, guide, split, seed=seed, marginal=marginal)
    per_corpus = per_document = None
    if likelihood is not None and tokens:
        per_corpus = perplexity(likelihood.nll, tokens)
        if isinstance(split, CountSplit):
            per_corpus, per_document = perplexities(likelihood.nll, split.sizes)
    return Evaluation(
        documents=len(split),
        tokens=tokens,
        likelihood=likelihood,
        negative_elbo=None if likelihood is None else float(-np.mean(terms.elbo)),
        reconstruction=float(-terms.log_likelihood.mean()),
        perplexity=per_corpus,
        shuffled_rise=rise,
        latents=latents,
        perplexity_per_document=per_document,
        ends_counted=not isinstance(split, CountSplit),
        summed_out=tuple(marginal) if guide is None else (),
    )
