"""What a diagnosis says of a model that compresses: what is kept of a source, and how sure the guide is of it
(layer: recipe)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pyro_nlp.data.batches import EOS, PAD
from pyro_nlp.data.compression import CompressionCorpus
from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.data.tokenise import detokenise
from pyro_nlp.data.vocabulary import Vocabulary
from pyro_nlp.diagnosis.subject import LeftOut, Subject
from pyro_nlp.evaluation import Compressions, compress, is_compressor, places, source_words, step_entropy, surface
from pyro_nlp.evaluation.compressing import next_words

SOURCES, DRAWS, SHOWN, BENEATH, BEAM = 100, 20, 12, 6, 8
"""Sources that are drawn for, draws of each, sources to step through, draws beneath, hypotheses of the beam."""
WIDEST = 40
"""Words of a source whose pointer has room on a page."""


def has_compressions(subject: Subject) -> bool:
    """Whether a run compresses sentences."""
    return is_compressor(subject.model, subject.run.guide, subject.split)


@dataclass(frozen=True)
class Drawn:
    """A compression as text, log q(c | s) in nats, and its probability p(c | s) among the draws."""

    text: str
    log_q: float
    posterior: float | None


@dataclass(frozen=True)
class Aligned:
    """A source and its compressions; `why` it is shown.

    Attributes:
        source: its place in the split.
        words: of the source.
        reference: as text.
        best: what beam search finds.
        target: words of `best`.
        kept: whether `best` takes the word from its place in the source, `[S]`.
        share: of the draws that take it, `[S]`.
        pointed: q(c_j = s_i | c_<j, s) along `best`, `[M, S]`: equal words of the source have the same.
        draws: the likeliest a posteriori first.
    """

    source: int
    why: str
    words: list[str]
    reference: str
    best: Drawn
    target: list[str]
    kept: np.ndarray
    share: np.ndarray
    pointed: np.ndarray
    draws: list[Drawn]


@dataclass(frozen=True)
class PosteriorOfCompressions:
    """How q(c | s) spreads over compressions, on N sources, and some of them to look at.

    Attributes:
        entropy: of q(c | s) in nats, by the chain rule over draws, `[N]`.
        by_step: of the choice of a word at every step, the mean over draws and sources, nats, `[M]`.
        lower, upper: its quartiles over sources, `[M]`.
        reached: share of the sources with such a step, `[M]`.
        words: of a draw, the mean, `[N]`.
        same: share of the positions where two draws have the same word, the mean over pairs of draws, `[N]`.
        overlap: share of the words of two draws that they have in common, in any order, `[N]`.
        greedy: q of the greedy compression, `[N]`.
        pareto_k: of `Subject.weights`, `[N]`; None where there are none.
        draws: of each source.
        shown: some sources.
    """

    entropy: np.ndarray
    by_step: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    reached: np.ndarray
    words: np.ndarray
    same: np.ndarray
    overlap: np.ndarray
    greedy: np.ndarray
    pareto_k: np.ndarray | None
    draws: int
    shown: list[Aligned]

    def rows(self) -> dict[str, str]:
        """Measure and value, as printed."""
        nats, words = float(self.entropy.mean()), float(self.words.mean())
        return {
            "entropy of q(c | s)": f"{nats:.2f} nats, {nats / words:.2f} a word",
            "two draws agree": f"in {self.same.mean():.1%} of positions, {self.overlap.mean():.1%} of words",
            "q of the greedy compression, median": f"{np.median(self.greedy):.2g}",
        }


def compressions(subject: Subject) -> PosteriorOfCompressions:
    """Draws of q(c | s) for some sources, how much they differ, and what is kept of each source."""
    guide, split, seed = subject.dense_guide, subject.split, subject.protocol.seed
    if not isinstance(split, PairSplit) or subject.run.corpus.vocabulary is None:
        raise LeftOut("the corpus does not name its words")
    rows = np.unique(np.linspace(0, len(split) - 1, min(SOURCES, len(split))).astype(int))
    part = split.take(rows)
    drawn = compress(subject.model, guide, part, "sample", draws=DRAWS, seed=seed)
    entropy = step_entropy(subject.model, guide, part, drawn)
    steps = entropy.copy()
    steps[np.arange(steps.shape[2]) >= drawn.tokens[..., None]] = np.nan  # an end that is certain is no choice
    by_source = _mean(steps, 1)
    reached = ~np.isnan(by_source)
    last = int(reached.any(0).nonzero()[0].max()) + 1
    lower, upper = np.nanquantile(by_source[:, :last], (0.25, 0.75), axis=0)
    same, overlap = agreement(drawn)
    greedy = compress(subject.model, guide, part)
    weights = subject.weights
    return PosteriorOfCompressions(
        entropy=np.nansum(entropy, 2).mean(1),
        by_step=_mean(by_source[:, :last], 0),
        lower=lower,
        upper=upper,
        reached=reached[:, :last].mean(0),
        words=_lengths(drawn).mean(1),
        same=same,
        overlap=overlap,
        greedy=np.exp(greedy.log_q[:, 0]),
        pareto_k=weights.pareto_k[rows] if weights is not None and weights.draws else None,
        draws=DRAWS,
        shown=_shown(subject, part, rows, drawn, same),
    )


def agreement(found: Compressions) -> tuple[np.ndarray, np.ndarray]:
    """Share of positions where two draws of a source have the same word, and share of words that they have in common,
    in any order; the means over its pairs of draws, `[N]` each.

    Positions are those of the longer of the two, and words the mean of both.
    """
    is_word = (found.ids != PAD) & (found.ids != EOS)
    draws = found.ids.shape[1]
    same, overlap = [], []
    for first, second in combinations(range(draws), 2):
        a, b = found.ids[:, first], found.ids[:, second]
        either = is_word[:, first] | is_word[:, second]
        same.append(((a == b) & either).sum(1) / either.sum(1))
    for source in range(len(found)):
        bags = [Counter(found.words(source, row)) for row in range(draws)]
        pairs = list(combinations(bags, 2))
        overlap.append(np.mean([2 * (a & b).total() / (a.total() + b.total()) for a, b in pairs]))
    return np.mean(same, 0), np.array(overlap)


def _shown(subject: Subject, part: PairSplit, rows: np.ndarray, drawn: Compressions, same: np.ndarray) -> list[Aligned]:
    """Sources whose draws differ most and least, and some by chance."""
    vocabulary = subject.run.corpus.vocabulary
    assert vocabulary is not None and subject.run.guide is not None
    order = np.argsort(same, kind="stable").tolist()
    chosen = dict.fromkeys(order[: SHOWN // 3], "draws differ most") | dict.fromkeys(
        order[-(SHOWN // 3) :], "draws differ least"
    )
    for i in np.random.default_rng(subject.protocol.seed).permutation(len(part)).tolist():
        if len(chosen) >= SHOWN:
            break
        chosen.setdefault(i, "drawn by chance")
    few = part.take(np.array(list(chosen)))
    best = compress(subject.model, subject.run.guide, few, "beam", beam=BEAM)
    ahead = next_words(subject.model, subject.run.guide, few, best)
    given = _sources(subject, rows)
    made = []
    for place, (i, why) in enumerate(chosen.items()):
        words, reference = given[i]
        own = vocabulary.encode(words).tolist()
        ids = best.words(place)
        pointed = ahead[place][: len(ids)][:, own]
        kept = np.zeros(len(words), bool)
        kept[[at for at in places(own, ids) if at >= 0]] = True
        draws = [
            Drawn(_text(words, drawn.words(i, one.row), vocabulary), float(drawn.log_q[i, one.row]), one.posterior)
            for one in drawn.distinct(i)[:BENEATH]
        ]
        target = surface(words, ids, vocabulary)
        found = Drawn(detokenise(target), float(best.log_q[place, 0]), None)
        row = int(subject.rows[rows[i]])
        share = _kept_by(own, drawn, i)
        made.append(Aligned(row, why, words, reference, found, target, kept, share, pointed, draws))
    return made


def _kept_by(source: list[int], drawn: Compressions, row: int) -> np.ndarray:
    """Share of the draws that take each word of a source, `[S]`."""
    taken = np.zeros(len(source))
    draws = drawn.ids.shape[1]
    for draw in range(draws):
        taken[sorted({at for at in places(source, drawn.words(row, draw)) if at >= 0})] += 1 / draws
    return taken


def _text(words: list[str], ids: list[int], vocabulary: Vocabulary) -> str:
    return detokenise(surface(words, ids, vocabulary))


def _sources(subject: Subject, rows: np.ndarray) -> list[tuple[list[str], str]]:
    """Words of the sources at `rows` of the subject's split, and their references as text."""
    corpus, name, at = subject.run.corpus, subject.protocol.split, subject.rows[rows].tolist()
    if isinstance(corpus, CompressionCorpus):
        every = source_words(corpus, name)
        return [(every[row], " | ".join(corpus.texts[name][row].references)) for row in at]
    vocabulary, split = corpus.vocabulary, getattr(corpus, name)
    assert vocabulary is not None  # as `compressions` has seen
    first = [vocabulary.decode(split.first.words(int(split.group[row]))) for row in at]
    return list(zip(first, subject.lines([split.second.words(row) for row in at]), strict=True))


def _lengths(found: Compressions) -> np.ndarray:
    """Words of every compression, `[N, R]`."""
    return np.asarray(((found.ids != PAD) & (found.ids != EOS)).sum(2))


def _mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Mean over what is no NaN; NaN where all are."""
    there = ~np.isnan(values)
    count = there.sum(axis)
    return np.where(count > 0, np.where(there, values, 0).sum(axis) / np.maximum(count, 1), np.nan)
