"""A run under diagnosis: the documents it is judged on, and what several sections need of it (layer: recipe)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch import nn

from pyro_nlp.data.counts import CountSplit
from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.data.splits import Split, TextSplit
from pyro_nlp.data.tokenise import detokenise
from pyro_nlp.diagnosis.bags import bag_text
from pyro_nlp.evaluation import (
    Evaluation,
    NoDensityError,
    Posteriors,
    active_units,
    elbo_terms,
    importance_nll,
    mutual_information,
    perplexities,
    perplexity,
    posteriors,
    shuffled_rise,
    theta,
)
from pyro_nlp.evaluation.discrete import exact_guide, summable
from pyro_nlp.evaluation.documents import device_of, judging
from pyro_nlp.evaluation.importance import ImportanceDiagnostics, importance_diagnostics
from pyro_nlp.evaluation.likelihood import ElboTerms, Likelihood, foretold_tokens
from pyro_nlp.evaluation.report import Latent
from pyro_nlp.inference.fit import Run


class LeftOut(Exception):  # noqa: N818 (no error: a section says why it is not there)
    """A section that does not apply to a run; the message says why."""


T = TypeVar("T")


def asked(measure: Callable[[], T]) -> T:
    """What a function of `evaluation` refuses, by a ValueError with a sentence, is left out for that reason."""
    try:
        return measure()
    except ValueError as error:
        raise LeftOut(str(error)) from None


@dataclass(frozen=True)
class Protocol:
    """How a run is judged.

    Attributes:
        split: name of the split.
        documents: most documents taken of it, by a fixed permutation.
        draws: importance samples per document.
        seed: of that permutation and of all draws.
    """

    split: str = "test"
    documents: int = 500
    draws: int = 200
    seed: int = 0

    def rows(self, split: Split) -> np.ndarray:
        """Which documents are taken, in the order of the split; of labelled pairs, whole questions where they fit."""
        if isinstance(split, PairSplit) and split.labels is not None:
            whole = split.of_groups(self._questions(split))
            if len(whole) > 1:
                return whole
        chosen = np.random.default_rng(self.seed).permutation(len(split))[: self.documents]
        return np.sort(chosen)

    def _questions(self, split: PairSplit) -> np.ndarray:
        """Questions by chance, of no more than `documents` pairs together."""
        sizes, chosen, left = np.bincount(split.group), [], self.documents
        for question in np.random.default_rng(self.seed).permutation(len(sizes)).tolist():
            if sizes[question] <= left:
                chosen.append(question)
                left -= int(sizes[question])
        return np.array(chosen, np.int64)


@dataclass(frozen=True)
class Subject:
    """A run, and the documents it is judged on.

    Attributes:
        name: of the run.
        run: model, guide, corpus and history.
        split: the documents taken.
        rows: their places in the split they were taken of.
        guide: the run's, or the exact posterior where it has none and there is one; else None.
        marginal: latents that are summed out in the model.
        protocol: draws and seed.
    """

    name: str
    run: Run
    split: Split
    rows: np.ndarray
    guide: nn.Module | None
    marginal: tuple[str, ...]
    protocol: Protocol

    @classmethod
    def of(cls, name: str, run: Run, split: Split, rows: np.ndarray, protocol: Protocol) -> Subject:
        """These rows of a split, with the guide that `evaluate` would judge the run by."""
        split = split.take(rows)
        guide, marginal = run.guide, run.marginal
        if guide is None and (exact := exact_guide(run.model, split)) is not None:
            guide, marginal = exact, ()
        elif guide is None:
            marginal = summable(run.model, None, split).sites
        return cls(name, run, split, rows, guide, marginal, protocol)

    def few(self, count: int) -> Subject:
        """The same run on a few of the documents, spread over all."""
        places = np.unique(np.linspace(0, len(self.split) - 1, min(count, len(self.split))).astype(int))
        few = Subject.of(self.name, self.run, self.split, places, self.protocol)
        return replace(few, rows=self.rows[places])

    @property
    def model(self) -> Any:
        """The run's model."""
        return self.run.model

    @property
    def own_guide(self) -> nn.Module:
        """The guide that the run trained.

        Raises:
            LeftOut: it trained none.
        """
        if self.run.guide is None:
            why = "all latents are summed out" if self.guide is not None or self.marginal else "it has no latents"
            raise LeftOut(f"{type(self.model).__name__} was trained without a guide, as {why}")
        return self.run.guide

    @property
    def dense_guide(self) -> nn.Module:
        """The guide that the run trained, which has a density.

        Raises:
            LeftOut: it trained none, or a point.
        """
        guide = self.own_guide
        if self.likelihood is None:
            raise LeftOut(f"{type(guide).__name__} answers with a point, which has no density")
        return guide

    @property
    def judged_guide(self) -> nn.Module:
        """`guide`.

        Raises:
            LeftOut: there is none.
        """
        return self.own_guide if self.guide is None else self.guide

    @cached_property
    def terms(self) -> ElboTerms:
        """Of the bound, one draw."""
        return elbo_terms(self.model, self.guide, self.split, seed=self.protocol.seed, marginal=self.marginal)

    @cached_property
    def posteriors(self) -> dict[str, Posteriors]:
        """q(z | x) by site; none where the model has no latents."""
        if self.guide is None or not self.terms.kl:
            return {}
        return posteriors(self.model, self.guide, self.split, seed=self.protocol.seed, marginal=self.marginal)

    @cached_property
    def weights(self) -> ImportanceDiagnostics | None:
        """Importance weights; None where the guide is a point, or there is no guide."""
        if self.guide is None:
            return None
        try:
            return importance_diagnostics(
                self.model, self.run.guide, self.split, self.protocol.draws, seed=self.protocol.seed
            )
        except NoDensityError:
            return None

    @cached_property
    def likelihood(self) -> Likelihood | None:
        """-log p(x) of every document; None where the guide is a point."""
        if self.weights is not None:
            return Likelihood(self.weights.nll, self.weights.standard_error, self.weights.draws)
        if self.guide is not None:
            return None
        return importance_nll(self.model, None, self.split, 1, seed=self.protocol.seed)

    @cached_property
    def evaluation(self) -> Evaluation:
        """What `evaluate` says of these documents, from the parts that the other sections use too."""
        terms, likelihood, seed = self.terms, self.likelihood, self.protocol.seed
        tokens = foretold_tokens(self.model, self.split)
        latents = {name: Latent(float(kl.mean()), 0, 0, None) for name, kl in terms.kl.items()}
        latents |= {
            name: Latent(
                float(terms.kl[name].mean()),
                active_units(posterior),
                posterior.units,
                mutual_information(posterior, seed=seed),
            )
            for name, posterior in self.posteriors.items()
        }
        rise = None
        if self.guide is not None and latents:
            rise = shuffled_rise(self.model, self.guide, self.split, seed=seed, marginal=self.marginal)
        per_corpus = per_document = None
        if likelihood is not None and tokens:
            per_corpus = perplexity(likelihood.nll, tokens)
            if isinstance(self.split, CountSplit):
                per_corpus, per_document = perplexities(likelihood.nll, self.split.sizes)
        return Evaluation(
            documents=len(self.split),
            tokens=tokens,
            likelihood=likelihood,
            negative_elbo=None if likelihood is None else float(-terms.elbo.mean()),
            reconstruction=float(-terms.log_likelihood.mean()),
            perplexity=per_corpus,
            shuffled_rise=rise,
            latents=latents,
            perplexity_per_document=per_document,
            ends_counted=not isinstance(self.split, CountSplit),
            summed_out=self.marginal if self.guide is None else (),
        )

    @cached_property
    def priors(self) -> dict[str, TorchDistribution]:
        """p of every site of the model on one document; of what is observed, too."""
        with judging(self.model, None, self.protocol.seed):
            trace = poutine.trace(self.model).get_trace(self.split.batch(np.arange(1)).to(device_of(self.model)))
        return {n: site["fn"] for n, site in trace.nodes.items() if site["type"] == "sample"}

    @cached_property
    def shares(self) -> np.ndarray:
        """Shares of topics of every document at the posterior mean, `[N, K]`; of a topic model."""
        return theta(self.model, self.own_guide, self.bags)

    @property
    def labels(self) -> np.ndarray | None:
        """Class of every document, or None; -1 where unknown."""
        return getattr(self.split, "labels", None) if self.run.corpus.labels else None

    @property
    def texts(self) -> TextSplit:
        """The documents as text.

        Raises:
            LeftOut: they are not.
        """
        if not isinstance(self.split, TextSplit) or self.run.corpus.vocabulary is None:
            raise LeftOut("the documents are not text")
        return self.split

    @property
    def bags(self) -> CountSplit:
        """The documents as bags of words.

        Raises:
            LeftOut: they are not.
        """
        if not isinstance(self.split, CountSplit):
            raise LeftOut("the documents are not bags of words")
        return self.split

    @property
    def writer(self) -> Any:
        """The model, which writes text.

        Raises:
            LeftOut: it does not.
        """
        if not hasattr(self.model, "generate") or self.run.corpus.vocabulary is None:
            raise LeftOut(f"{type(self.model).__name__} does not write text")
        return self.model

    def lines(self, ids: Any) -> list[str]:
        """Rows of ids as text."""
        vocabulary = self.run.corpus.vocabulary
        assert vocabulary is not None
        return [detokenise(vocabulary.decode(row)) for row in (ids.tolist() if hasattr(ids, "tolist") else ids)]

    def named(self, ids: Any) -> list[str]:
        """The words of ids of a bag.

        Raises:
            LeftOut: the corpus does not name its words.
        """
        vocabulary = self.run.corpus.vocabulary
        if vocabulary is None:
            raise LeftOut("the corpus does not name its words")
        return vocabulary.decode(ids)

    def documents(self) -> list[str]:
        """Every document as text; of a bag, its most frequent words; of a pair, both texts."""
        vocabulary = self.run.corpus.vocabulary
        if isinstance(self.split, CountSplit) and vocabulary is not None:
            return [bag_text(self.split, row, vocabulary) for row in range(len(self.split))]
        if isinstance(self.split, PairSplit) and vocabulary is not None:
            pairs = self.split
            first = self.lines([pairs.first.words(row) for row in range(len(pairs.first))])
            second = self.lines([pairs.second.words(row) for row in range(len(pairs))])
            return [f"{first[g]} → {text}" for g, text in zip(pairs.group, second, strict=True)]
        split = self.texts
        return self.lines([split.words(row) for row in range(len(split))])
