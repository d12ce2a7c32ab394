"""Everything that is measured of a model of documents, in one table beside `report`'s (layer: evaluation)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import nn

from pyro_nlp.data.counts import CountCorpus, CountSplit
from pyro_nlp.evaluation.collapse import active_units, posteriors
from pyro_nlp.evaluation.documents import NoDensityError
from pyro_nlp.evaluation.latent import Probe, linear_probe
from pyro_nlp.evaluation.likelihood import Likelihood, elbo_terms
from pyro_nlp.evaluation.measured import Measured
from pyro_nlp.evaluation.report import IGNORED
from pyro_nlp.evaluation.topic_metrics import (
    Coherence,
    Retrieval,
    TopicUse,
    coherence_npmi,
    distinct_topics,
    redundancy,
    retrieval_precision,
    top_words,
    topic_diversity,
    topics_used,
)
from pyro_nlp.evaluation.topics import (
    Completion,
    DocumentPerplexity,
    document_completion,
    document_perplexity,
    reads_words,
    theta,
)
from pyro_nlp.inference.training import Precision

DISTINCT = 0.9
"""Share of the topics that are to be distinct: 45 of 50."""

USED = 0.5
"""Share of the topics that are to be the largest of some document."""

DIVERSITY_TOP = 25
"""Top words that diversity is measured on, as in Dieng et al. 2020; others have their own number."""


@dataclass(frozen=True)
class TopicCollapse:
    """Whether documents and topics have become alike, by the evidence.

    Attributes:
        kl: nats per document, of all latents.
        active: units whose posterior mean varies between documents. Of shares of many topics few vary by the usual
            threshold, so that it decides nothing.
        units: all of them.
        topics: how many there are, K.
        distinct: near-duplicates counted once.
        used: topics that are the largest of some document.
        redundancy: mean share of the other topics that have a topic's top word too.
    """

    kl: float
    active: int
    units: int
    topics: int
    distinct: int
    used: int
    redundancy: float

    @property
    def posterior(self) -> bool:
        """Whether the posterior is the prior: all documents have the same shares."""
        return self.kl < IGNORED

    @property
    def repeated(self) -> bool:
        """Whether topics are near-duplicates of one another, more than one in ten."""
        return self.distinct < DISTINCT * self.topics

    @property
    def idle(self) -> bool:
        """Whether more than half the topics are the largest of no document."""
        return self.used < USED * self.topics

    @property
    def components(self) -> bool:
        """Component collapse (Srivastava and Sutton 2017): there are fewer topics than there seem."""
        return self.repeated or self.idle

    @property
    def verdict(self) -> str:
        """A sentence, with its evidence."""
        evidence = (
            f"{self.distinct} of {self.topics} topics distinct, {self.used} the largest of some document, redundancy "
            f"{self.redundancy:.2f}, KL {self.kl:.2f} nats, {self.active} of {self.units} units active"
        )
        if self.posterior:
            return f"collapsed, all documents have the same topics: {evidence}"
        what = [text for found, text in ((self.repeated, "repeated"), (self.idle, "idle")) if found]
        return f"components collapsed, topics are {' and '.join(what)}: {evidence}" if what else f"in use: {evidence}"


@dataclass(frozen=True)
class TopicEvaluation(Measured):
    """What is known of a topic model on one split.

    Attributes:
        perplexity: in four forms; None for a point guide.
        completion: of the second half of each document; None for a guide with parameters for each document, and where
            no document has two words.
        coherence: NPMI of the top words in the reference.
        diversity: share of different words among the top ones of all topics, and how many of each these are.
        use: of the topics by the documents that have words.
        collapse: of posteriors and components.
        probe: labels from shares of topics, by a linear classifier trained on the train split; None without labels on
            both sides, for the train split itself, and for a guide with parameters for each document.
        retrieval: train documents retrieved by shares of topics; None where `probe` is.
        words: top words of each topic.
    """

    perplexity: DocumentPerplexity | None
    completion: Completion | None
    coherence: Coherence
    diversity: tuple[float, int]
    use: TopicUse
    collapse: TopicCollapse
    probe: Probe | None
    retrieval: Retrieval | None
    words: tuple[tuple[str, ...], ...]

    @property
    def verdict(self) -> str:
        """Whether the topics are in use, in a sentence with its evidence."""
        return self.collapse.verdict

    def rows(self) -> dict[str, str]:
        """Measure and value, as printed."""
        rows = {}
        if self.perplexity is not None:
            p = self.perplexity
            how = "exact" if not p.samples else f"{p.samples} importance samples"
            rows["perplexity of the bound, one draw"] = _both(p.bound, p.bound_per_document)
            rows[f"perplexity, {how}"] = _both(p.importance, p.importance_per_document)
            rows["empty documents left out"] = f"{p.empty:,}"
        if self.completion is not None:
            c = self.completion
            rows["completion, posterior mean of half the words"] = _both(c.plug_in, c.plug_in_per_document)
            if c.importance is not None and c.importance_per_document is not None:
                rows[f"completion, {c.samples} weighted draws"] = _both(c.importance, c.importance_per_document)
            rows["documents too short to complete"] = f"{c.excluded:,}"
        topics = self.collapse.topics
        rows[f"NPMI of the top {self.coherence.top}"] = (
            f"{self.coherence.mean:.3f} ({self.coherence.topics.min():.3f} to {self.coherence.topics.max():.3f}; "
            f"{self.coherence.documents:,} documents)"
        )
        if self.coherence.absent:
            rows["top words in none of these documents, left out"] = (
                f"{self.coherence.absent} of {topics * self.coherence.top}"
            )
        rows[f"diversity of the top {self.diversity[1]}"] = f"{self.diversity[0]:.3f}"
        rows[f"redundancy of the top {self.coherence.top}"] = f"{self.collapse.redundancy:.3f}"
        rows["distinct topics"] = f"{self.collapse.distinct} of {topics}"
        rows["topics that are a document's largest"] = (
            f"{self.use.used} of {topics} (one of them of {100 * self.use.largest.max():.0f} % of the documents)"
        )
        rows["effective number of topics"] = f"{self.use.effective:.1f}"
        if self.probe is not None:
            rows["labels by linear probe"] = f"{self.probe} ({self.probe.classes} classes)"
        if self.retrieval is not None:
            r = self.retrieval
            for fraction, count, precision in zip(r.fractions, r.retrieved, r.precision, strict=True):
                rows[f"precision of {100 * fraction:g} % retrieved ({count:,})"] = f"{precision:.3f}"
            rows["precision by chance"] = f"{r.chance:.3f}"
        rows["topics"] = self.verdict
        return rows

    def as_dict(self) -> dict[str, Any]:
        """Numbers and top words for JSON."""
        found: dict[str, Any] = {
            name: None if value is None else asdict(value)
            for name, value in (
                ("perplexity", self.perplexity),
                ("completion", self.completion),
                ("collapse", self.collapse),
                ("probe", self.probe),
                ("retrieval", self.retrieval),
            )
        }
        coherence = {"mean": self.coherence.mean, "topics": self.coherence.topics.tolist()}
        found["coherence"] = asdict(self.coherence) | coherence
        found["diversity"] = dict(zip(("share", "top"), self.diversity, strict=True))
        found["use"] = {
            "used": self.use.used,
            "effective": self.use.effective,
            "largest": self.use.largest.tolist(),
            "mean": self.use.mean.tolist(),
        }
        return found | {"words": [list(words) for words in self.words], "verdict": self.verdict}


def _both(corpus: float, per_document: float) -> str:
    return f"{corpus:.1f} per corpus, {per_document:.1f} per document"


def evaluate_topics(
    model: Any,
    guide: nn.Module,
    corpus: CountCorpus,
    split: str = "test",
    *,
    samples: int = 500,
    seed: int = 0,
    top: int = 10,
    precision: Precision = "float32",
    reference: CountSplit | None = None,
    likelihood: Likelihood | None = None,
) -> TopicEvaluation:
    """Judge a topic model and its guide on a split; see `TopicEvaluation` for what is measured.

    Args:
        model: a topic model.
        guide: its guide.
        corpus: what it was trained on.
        split: `train`, `valid` or `test`.
        samples: importance samples per document; a fifth of them for completion.
        seed: of all draws.
        top: words of each topic that coherence, redundancy and distinct topics are about. A small vocabulary has fewer
            (and diversity fewer than 25): the tables say how many were taken.
        precision: of the networks, for the perplexities.
        reference: documents for coherence, as `coherence_npmi` wants them; the train split if not given.
        likelihood: of the split's documents, if `importance_nll` has been asked already.

    Raises:
        ValueError: not a topic model, more topics than words, a vocabulary that is not the corpus's, or no words.
    """
    judged: CountSplit = getattr(corpus, split)
    shares = theta(model, guide, judged)
    topics = model.topics().double().cpu().numpy()
    vocabulary = topics.shape[1]
    if vocabulary != len(corpus.vocabulary):
        raise ValueError(f"the model has {vocabulary} words and {corpus.name} {len(corpus.vocabulary)}")
    top = min(top, vocabulary)
    best = top_words(topics, top)
    coherence = coherence_npmi(topics, corpus.train if reference is None else reference, top)
    use = topics_used(shares[judged.sizes > 0])
    kl = elbo_terms(model, guide, judged, seed=seed, precision=precision).kl
    latents = posteriors(model, guide, judged, seed=seed).values()
    collapse = TopicCollapse(
        kl=float(sum(value.mean() for value in kl.values())),
        active=sum(active_units(posterior) for posterior in latents),
        units=sum(posterior.units for posterior in latents),
        topics=len(topics),
        distinct=distinct_topics(topics, top),
        used=use.used,
        redundancy=float(redundancy(topics, top).mean()),
    )
    try:
        found = document_perplexity(
            model, guide, judged, samples, seed=seed, precision=precision, likelihood=likelihood
        )
    except NoDensityError:
        found = None
    amortised = reads_words(model, guide, judged)
    completed, fewer = amortised and bool((judged.sizes > 1).any()), max(1, samples // 5)
    widest = min(DIVERSITY_TOP, vocabulary)
    probe, retrieval = _by_labels(model, guide, corpus.train, judged, shares) if amortised else (None, None)
    return TopicEvaluation(
        perplexity=found,
        completion=document_completion(model, guide, judged, seed, samples=fewer) if completed else None,
        coherence=coherence,
        diversity=(topic_diversity(topics, widest), widest),
        use=use,
        collapse=collapse,
        probe=probe,
        retrieval=retrieval,
        words=tuple(tuple(corpus.vocabulary.decode(ids)) for ids in best),
    )


def _by_labels(
    model: Any, guide: nn.Module, train: CountSplit, judged: CountSplit, shares: np.ndarray
) -> tuple[Probe | None, Retrieval | None]:
    """What shares of topics say of labels, where there are two to tell apart and something to judge."""
    if judged is train or train.labels is None or judged.labels is None:
        return None, None
    if len(np.unique(train.labels[train.labels >= 0])) < 2 or not (judged.labels >= 0).any():
        return None, None
    both = theta(model, guide, train), train.labels, shares, judged.labels
    return linear_probe(*both), retrieval_precision(*both)
