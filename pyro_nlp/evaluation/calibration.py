"""Whether a guide's uncertainty is the model's, and whether the model's text is like the corpus (layer: evaluation)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import scipy
from torch import Tensor, nn

from pyro_nlp.data.batches import BOS, EOS, Batch
from pyro_nlp.data.splits import Split, TextSplit
from pyro_nlp.evaluation._arviz import measured
from pyro_nlp.evaluation._drawn import by_document, require_documents
from pyro_nlp.evaluation.documents import as_float64, device_of, judging, require_density
from pyro_nlp.evaluation.references import Given
from pyro_nlp.evaluation.texts import as_split, sample_prior
from pyro_nlp.inference.dreams import dream
from pyro_nlp.inference.support import configurations
from pyro_nlp.inference.terms import terms

Sampler = Callable[[Batch, int], dict[str, Tensor]]
"""Posterior draws in place of a guide: documents and how many, to `[draws, B, *event]` of every latent by site."""


@dataclass(frozen=True)
class Uniformity:
    """Whether the ranks of one quantity are uniform.

    Attributes:
        histogram: simulations per bin, `[bins]`.
        band: within which 99 % of the bins of uniform ranks lie (binomial).
        chi_square: p-value of the bins' chi-square.
        ecdf: p-value of the largest distance of their cumulative shares, for discrete ranks, by simulation.
        shift: mean rank as a share, less 1/2: above 0 where the guide's draws are too small.
        spread: variance of the ranks over that of uniform ones: above 1 where the guide is too narrow.
    """

    histogram: np.ndarray
    band: tuple[int, int]
    chi_square: float
    ecdf: float
    shift: float
    spread: float

    def __str__(self) -> str:
        p_values = f"p {self.ecdf:.3g} (cumulative), {self.chi_square:.3g} (bins)"
        return f"{p_values}; shift {self.shift:+.3f}, spread {self.spread:.2f}"


@dataclass(frozen=True)
class Calibration:
    """Ranks of what documents were written from, among `draws` of the guide given the documents.

    `ranks` are 0 to `draws`, `[simulations]`, by quantity: `z[0]`, `z[1]` ... and `log p(x | z)`, in `bins`.
    """

    ranks: dict[str, np.ndarray]
    draws: int
    bins: int

    @cached_property
    def uniformity(self) -> dict[str, Uniformity]:
        """Tests of every quantity."""
        count = len(next(iter(self.ranks.values())))
        null = _distances_of_uniform(count, self.draws)
        return {name: _uniformity(ranks, self.draws, self.bins, null) for name, ranks in self.ranks.items()}

    @property
    def p_value(self) -> float:
        """Of all quantities together: the smallest cumulative one, times their number."""
        return min(1.0, len(self.ranks) * min(found.ecdf for found in self.uniformity.values()))

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` over `quantity`: `rank` by `simulation`, `histogram` by `bin`, and the tests of each."""
        tests = list(self.uniformity.values())
        variables: dict[str, Any] = {
            "rank": (("quantity", "simulation"), np.stack(list(self.ranks.values())), "draws"),
            "histogram": (("quantity", "bin"), np.stack([test.histogram for test in tests]), "simulations"),
        }
        for name in ("chi_square", "ecdf", "shift", "spread"):
            variables[name] = (("quantity",), [getattr(test, name) for test in tests], "1")
        low, high = tests[0].band
        about = {"draws": self.draws, "band_low": low, "band_high": high, "p_value": self.p_value}
        return measured(variables, {"quantity": list(self.ranks)}, about)

    def rows(self) -> dict[str, str]:
        """Quantity and finding, as printed."""
        return {name: str(found) for name, found in self.uniformity.items()} | {"all": f"p {self.p_value:.3g}"}


def simulation_based_calibration(
    model: nn.Module,
    guide: nn.Module | Sampler | None,
    split: Split,
    simulations: int = 500,
    draws: int = 99,
    bins: int = 20,
    seed: int = 0,
    *,
    chunk: int = 2000,
) -> Calibration:
    """Draw z from the prior and x from z: the rank of z among draws of q(z | x) is uniform if q is the posterior.

    Talts et al. 2018 (arXiv:1804.06788). A guide that ignores x and answers with the prior passes in every dimension of
    z; it fails in log p(x | z), which looks at both (Modrák et al. 2023, arXiv:2211.02383).

    Args:
        model: writes text, bags of words or vectors.
        guide: what is calibrated: a guide, or a function from documents to posterior draws.
        split: lends documents to stand in for; what they say is not used, but how long they are is, of bags.
        simulations: documents written.
        draws: of the guide for each, L; a multiple of `bins`, less one.
        bins: of the histograms.
        seed: of all draws.
        chunk: documents x draws decoded at once; bounds the memory.

    Raises:
        ValueError: no guide, or one without density; no documents; no latents; numbers that do not fit.
    """
    if guide is None:
        raise ValueError(f"{type(model).__name__} was given without a guide: there is nothing to calibrate")
    if draws < 2 or bins < 2 or (draws + 1) % bins or simulations < 5 * bins:
        given = f"{draws} draws, {bins} bins, {simulations} simulations"
        raise ValueError(f"{given}: draws + 1 must be a multiple of 2 bins or more, and simulations 5 times the bins")
    require_documents(split)
    parts: dict[str, list[np.ndarray]] = {}
    rng, size = np.random.default_rng(seed), max(1, chunk // draws)
    with judging(model, guide if isinstance(guide, nn.Module) else None, seed):
        for start in range(0, simulations, size):
            rows = np.arange(start, min(start + size, simulations)) % len(split)
            latents, dreamt = dream(model, split.batch(rows).to(device_of(model)))
            for name, truth, drawn in _quantities(model, guide, dreamt, latents, draws):
                # float32 may tell equal likelihoods apart; shares of topics differ by orders of magnitude
                tie = np.isclose(drawn, truth, rtol=1e-5, atol=0.0)
                below = ((drawn < truth) & ~tie).sum(0)
                parts.setdefault(name, []).append(below + rng.integers(0, tie.sum(0) + 1))
    return Calibration({name: np.concatenate(ranks) for name, ranks in parts.items()}, draws, bins)


def _quantities(
    model: nn.Module, guide: Any, batch: Batch, latents: dict[str, Tensor], draws: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each quantity at what the documents were written from, `[B]`, and at posterior draws, `[draws, B]`."""
    if not latents:
        raise ValueError(f"{type(model).__name__} has no latents to calibrate")
    own = guide if isinstance(guide, nn.Module) else Given({name: value.shape[1:] for name, value in latents.items()})
    given = {} if own is guide else guide(batch, draws)
    drawn = terms(model, own, batch, particles=draws, given=given)
    if own is guide:
        require_density(drawn)
    truth = terms(model, own, batch, given={name: value[None] for name, value in latents.items()})
    for name, site in drawn.sites.items():
        if configurations(site.p) is None:  # a class has no rank of its own
            one, many = (by_document({name: t.sites[name].guide}, t.scope)[name].flatten(2) for t in (truth, drawn))
            columns = as_float64(one[0]), as_float64(many)
            for i in range(columns[0].shape[-1]):
                yield f"{name}[{i}]", columns[0][:, i], columns[1][:, :, i]
    yield "log p(x | z)", as_float64(truth.log_likelihood[0]), as_float64(drawn.log_likelihood)


@lru_cache(maxsize=8)
def _distances_of_uniform(count: int, draws: int, repeats: int = 25_000) -> np.ndarray:
    """`_distance` of uniform ranks, `[repeats]`."""
    histograms = np.random.default_rng(0).multinomial(count, np.full(draws + 1, 1 / (draws + 1)), repeats)
    return _distance(histograms)


def _distance(histograms: np.ndarray) -> np.ndarray:
    """Largest distance between cumulative shares of ranks, `[..., draws + 1]` counts, and uniform ones, `[...]`."""
    ranks = histograms.shape[-1]
    share = histograms.cumsum(-1) / histograms.sum(-1, keepdims=True)
    return np.asarray(np.abs(share - np.arange(1, ranks + 1) / ranks).max(-1))


def _uniformity(ranks: np.ndarray, draws: int, bins: int, null: np.ndarray) -> Uniformity:
    histogram = np.bincount(ranks * bins // (draws + 1), minlength=bins)
    low, high = scipy.stats.binom.ppf([0.005, 0.995], len(ranks), 1 / bins)
    distance = _distance(np.bincount(ranks, minlength=draws + 1))
    return Uniformity(
        histogram,
        (int(low), int(high)),
        chi_square=float(scipy.stats.chisquare(histogram).pvalue),
        ecdf=float((1 + (null >= distance - 1e-12).sum()) / (1 + len(null))),
        shift=float(ranks.mean() / draws - 0.5),
        spread=float(ranks.var() * 12 / (draws * (draws + 2))),
    )


@dataclass(frozen=True)
class PredictiveCheck:
    """One statistic of written and held-out sentences.

    Attributes:
        generated, held_out: its values; of a divergence between them, what was found and what is to be expected.
        p_value: two-sided (of a divergence one-sided), by relabelling sentences.
    """

    statistic: str
    generated: float
    held_out: float
    p_value: float

    def __str__(self) -> str:
        return f"{self.statistic}: {self.generated:.3f} for {self.held_out:.3f}, p {self.p_value:.3g}"


def checks_to_xarray(checks: Sequence[PredictiveCheck]) -> Any:
    """Predictive checks as an `xarray.Dataset` over `statistic`."""
    names = ("generated", "held_out", "p_value")
    variables = {name: (("statistic",), [getattr(check, name) for check in checks], "1") for name in names}
    return measured(variables, {"statistic": [check.statistic for check in checks]})


def predictive_checks(
    model: Any,
    split: Split,
    count: int = 500,
    seed: int = 0,
    guide: nn.Module | None = None,
    *,
    permutations: int = 999,
) -> list[PredictiveCheck]:
    """Whether written sentences could be told from held-out ones by simple statistics. Gelman et al. 1996 (Sinica 6)

    Without a guide they come from the prior, and labels are shuffled among all. With one each comes from a draw of
    q(z | x) of a document: were q the posterior, the two of a pair could be exchanged, and that is what is shuffled.

    Args:
        model: has `generate`.
        split: held-out sentences.
        count: of them to compare with as many written ones; no more than there are.
        seed: of all draws.
        guide: for a posterior predictive check.
        permutations: of the labels.

    Raises:
        ValueError: a model that cannot write, no text, or fewer than two documents.
    """
    if not isinstance(split, TextSplit) or not hasattr(model, "generate"):
        raise ValueError(f"{type(model).__name__} cannot write text: predictive checks want sentences and generate()")
    if min(count, len(split)) < 2:
        raise ValueError(f"{min(count, len(split))} document cannot be compared: take at least 2, better 500")
    rng = np.random.default_rng(seed)
    held_out = split.take(rng.permutation(len(split))[:count])
    options: dict[str, Any] = {"method": "ancestral", "max_length": 2 * int(split.lengths.max())}
    if guide is None:
        written = as_split(sample_prior(model, held_out, len(held_out), seed=seed, **options))
    else:
        written = _rewritten(model, guide, held_out, seed, options)
    sentences = [part.words(row) for part in (written, held_out) for row in range(len(part))]
    first = np.arange(len(sentences)) < len(written)
    if guide is None:
        shuffled = rng.permuted(np.tile(first, (permutations, 1)), axis=1)
    else:
        shuffled = first ^ np.tile(rng.random((permutations, len(written))) < 0.5, 2)
    return _compared(sentences, np.concatenate([first[None], shuffled]))


def _rewritten(model: Any, guide: nn.Module, split: TextSplit, seed: int, options: dict[str, Any]) -> TextSplit:
    """A sentence from a draw of q(z | x) for every document of a split."""
    sentences: list[list[int]] = []
    with judging(model, guide, seed):
        for start in range(0, len(split), 64):
            batch = split.batch(np.arange(start, min(start + 64, len(split)))).to(device_of(model))
            latents = {name: site.value[0] for name, site in terms(model, guide, batch).sites.items()}
            written = as_split(model.generate(latents, **options))
            sentences += [written.words(row) for row in range(len(written))]
    return TextSplit.from_sentences(sentences)


def _compared(sentences: list[list[int]], divisions: np.ndarray) -> list[PredictiveCheck]:
    """The first division `[sentences]` of `[1 + permutations, sentences]` among the others."""
    words = [[*s, EOS] for s in sentences]
    pairs = [list(zip([BOS, *s], s, strict=False)) for s in words]
    repeated = np.array([len(s) - len(set(s)) for s in pairs])
    tables = _counts(words), _counts(pairs)
    parts = [_divided(part, repeated, *tables) for part in np.array_split(divisions, -(-len(divisions) // 64))]
    checks = []
    for name in parts[0]:
        first, second = np.concatenate([part[name] for part in parts], 1)
        difference = first - second
        expected = difference[1:].mean()
        # a divergence has one side; other differences may have an expectation where groups differ in size
        distance = difference if "divergence" in name else np.abs(difference - expected)
        p = float((distance >= distance[0] - 1e-12).mean())
        against = expected if "divergence" in name else second[0]
        checks.append(PredictiveCheck(name, float(first[0]), float(against), p))
    return checks


def _counts(items: list[list[Any]]) -> scipy.sparse.csr_matrix:
    """How often each item is in each sentence, `[sentences, items]`."""
    known: dict[Any, int] = {}
    columns = [known.setdefault(item, len(known)) for sentence in items for item in sentence]
    rows = np.repeat(np.arange(len(items)), [len(sentence) for sentence in items])
    return scipy.sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), (len(items), len(known)))


def _divided(
    divisions: np.ndarray, repeated: np.ndarray, words: scipy.sparse.csr_matrix, pairs: scipy.sparse.csr_matrix
) -> dict[str, np.ndarray]:
    """Statistics of both parts of each division, `[2, P]` by name; of a divergence the second are zeros."""
    sides = np.stack([divisions, ~divisions]).astype(np.float64)
    by_word, by_pair = (np.stack([side @ table for side in sides]) for table in (words, pairs))
    tokens = by_word.sum(-1)
    found = {
        "length": tokens / sides.sum(-1),
        "types per token": (by_word > 0).sum(-1) / tokens,
        "repeated bigrams": sides @ repeated / tokens,
    }
    for name, table in (("word divergence", by_word), ("bigram divergence", by_pair)):
        divergence = _jensen_shannon(*(table / table.sum(-1, keepdims=True)))
        found[name] = np.stack([divergence, np.zeros_like(divergence)])
    return found


def _jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """In nats, at most log 2, over the last dimension."""
    middle = scipy.stats.entropy((p + q) / 2, axis=-1)
    return np.asarray(middle - (scipy.stats.entropy(p, axis=-1) + scipy.stats.entropy(q, axis=-1)) / 2)
