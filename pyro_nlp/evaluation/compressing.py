"""Compressions that a trained model finds for sentences: greedy, by beam search, drawn (layer: evaluation)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_nlp.data.batches import BOS, EOS, PAD, PairBatch
from pyro_nlp.data.pairs import PairSplit
from pyro_nlp.data.splits import Split
from pyro_nlp.distributions import Written
from pyro_nlp.evaluation.documents import as_float64, device_of, judging
from pyro_nlp.evaluation.importance import pareto_smooth
from pyro_nlp.evaluation.likelihood import perplexity
from pyro_nlp.inference.sites import Scope, Site
from pyro_nlp.inference.support import base
from pyro_nlp.inference.terms import terms, trace_guide
from pyro_nlp.inference.training import Precision

SITE = "c"
"""The latent that is a compression."""

Search = Literal["greedy", "beam", "sample"]


class Distinct(NamedTuple):
    """One of the different compressions that were drawn for a source.

    Attributes:
        row: of the first draw that gave it.
        share: of the draws that gave it, which estimates q(c | s).
        posterior: its probability p(c | s) among the draws, by their importance weights.
    """

    row: int
    share: float
    posterior: float


@dataclass(frozen=True)
class Compressions:
    """R compressions of each of N sources, in the order of the split; R is 1 where they are searched for.

    Attributes:
        ids: each ended by `</s>` and then padded, int64 `[N, R, M]`.
        log_q: log q(c | s) in nats, `[N, R]`.
        log_prior: log p(c) by the model's own language model, in nats, `[N, R]`.
        log_likelihood: log p(s | c), of the source rewritten, in nats, `[N, R]`.
        tokens: positions that p(c) foretells: words, and the end where the length is learnt, int64 `[N, R]`.
    """

    ids: np.ndarray
    log_q: np.ndarray
    log_prior: np.ndarray
    log_likelihood: np.ndarray
    tokens: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def words(self, source: int, row: int = 0) -> list[int]:
        """Ids of one compression, without its end."""
        found: list[int] = self.ids[source, row].tolist()
        return found[: found.index(EOS)]

    @property
    def log_weight(self) -> np.ndarray:
        """log p(s, c) - log q(c | s), the importance weights of draws, `[N, R]`."""
        return self.log_prior + self.log_likelihood - self.log_q

    @property
    def posterior(self) -> np.ndarray:
        """Weights that sum to one over the draws of a source, `[N, R]`: an estimate of p(c | s) among them."""
        weights = np.exp(self.log_weight - self.log_weight.max(1, keepdims=True))
        return np.asarray(weights / weights.sum(1, keepdims=True))

    @property
    def pareto_k(self) -> np.ndarray:
        """k-hat of every source's weights, `[N]`; see `importance.pareto_smooth`.

        Raises:
            ValueError: fewer than 21 draws.
        """
        return pareto_smooth(self.log_weight.T).pareto_k

    @property
    def prior_perplexity(self) -> float:
        """Of the compressions under p(c): exp(total nats / total tokens)."""
        return perplexity(-self.log_prior, int(self.tokens.sum()))

    @property
    def reconstruction(self) -> float:
        """-log p(s | c) of what was written, in nats a source; lower is better."""
        return float(-self.log_likelihood.mean())

    def distinct(self, source: int) -> list[Distinct]:
        """The different draws of a source, the likeliest a posteriori first."""
        rows: dict[tuple[int, ...], list[int]] = {}
        for row in range(self.ids.shape[1]):
            rows.setdefault(tuple(self.words(source, row)), []).append(row)
        weights = self.posterior[source]
        found = [Distinct(at[0], len(at) / len(weights), float(weights[at].sum())) for at in rows.values()]
        return sorted(found, key=lambda one: -one.posterior)


def is_compressor(model: nn.Module, guide: nn.Module | None, split: Split) -> bool:
    """Whether the latent of a source is a sequence of words: looks at one document."""
    if guide is None or not isinstance(split, PairSplit) or not len(split):
        return False
    with judging(model, guide, 0):
        batch = split.batch(np.arange(1)).to(device_of(model))
        nodes: dict[str, Site] = dict(trace_guide(guide, batch, _scope(model, batch)).nodes)
    return SITE in nodes and isinstance(base(nodes[SITE]["fn"]), Written)


def compress(
    model: nn.Module,
    guide: nn.Module,
    split: Split,
    method: Search = "greedy",
    *,
    beam: int = 8,
    draws: int = 32,
    batch_size: int = 64,
    seed: int = 0,
    chunk: int = 64,
    precision: Precision = "float32",
) -> Compressions:
    """Compress every source of a split by q(c | s); no compression is known, whatever the split says.

    Greedy takes the likeliest word at every step, beam search the sequence with the highest q of those it kept.
    A sample shows what q is unsure of; its importance weights say what the model makes of that.

    Example:
        >>> found = compress(run.model, run.guide, corpus.test, "beam")  # doctest: +SKIP
        >>> surface(corpus.tokenise(source), found.words(0), corpus.vocabulary)  # doctest: +SKIP
        ['police', 'arrested', 'a', 'man', '.']

    Args:
        model, guide: a model with a compression for a latent, as `SentenceCompression` and `PointerGuide`.
        split: of pairs; from `source_split` where there are sources alone.
        method: `greedy`, `beam` or `sample`.
        beam: hypotheses kept of every source by `beam`.
        draws: of every source by `sample`, R.
        batch_size: sources taken together.
        seed: of the draws; those of a source depend on the sources that it is taken with, too.
        chunk: compressions judged at once; bounds the memory.
        precision: of the networks.

    Raises:
        TypeError: the guide writes no compression, or the split is not of pairs.
        ValueError: an unknown method, no source, or a beam or number of draws below 1.
    """
    if method not in get_args(Search):
        raise ValueError(f"method is {method!r}; give greedy, beam or sample")
    if beam < 1 or draws < 1:
        raise ValueError(f"beam is {beam} and draws is {draws}; both are at least 1")
    if not len(split):
        raise ValueError("there is no source to compress")
    if not isinstance(split, PairSplit) or not is_compressor(model, guide, split):
        raise TypeError(f"{type(guide).__name__} on a {type(split).__name__} compresses nothing")
    parts: dict[str, list[np.ndarray]] = {}
    order = []
    with judging(model, guide, seed, precision):
        for rows, batch in _sources(model, split, batch_size):
            order.append(rows)
            q = _posterior(model, guide, batch)
            if method == "sample":
                ids = torch.cat([q.expand([n, q.batch]).sample() for n in _at_once(draws, q.batch, chunk)])
            else:
                ids = search(q, beam if method == "beam" else 1)[None]
            for name, value in _judged(model, guide, batch, q, ids, chunk).items():
                parts.setdefault(name, []).append(value)
    back = np.argsort(np.concatenate(order))
    width = max(part.shape[2] for part in parts["ids"])
    parts["ids"] = [np.pad(p, ((0, 0), (0, 0), (0, width - p.shape[2])), constant_values=PAD) for p in parts["ids"]]
    return Compressions(**{name: np.concatenate(part)[back] for name, part in parts.items()})


def search(q: Written, beam: int) -> Tensor:
    """The sequence with the highest probability of those that a beam keeps, `[B, M]`; a beam of one is greedy."""
    left, place = torch.Size([beam, q.batch]), torch.arange(q.batch, device=q.writer.device)
    state = q.writer.begin(left)
    words = torch.full(left, BOS, device=q.writer.device)
    score = torch.full(left, -torch.inf, device=q.writer.device)
    score[0] = 0.0  # all hypotheses start alike: keep one
    ended = torch.zeros_like(words, dtype=torch.bool)
    written = words.new_empty(*left, 0)
    for j in range(q.longest + 1):
        found, log_q, state = q.writer.candidates(state, words, q.ends(j, 1).at(0))
        stay = torch.full_like(log_q[0, 0], -torch.inf)
        stay[0] = 0.0  # one that has ended goes on as padding, at no cost
        total = score[..., None] + torch.where(ended[..., None], stay, log_q)  # [K, B, candidates]
        best, flat = total.transpose(0, 1).flatten(1).topk(beam)
        score, flat = best.T, flat.T
        parent = flat.div(total.shape[-1], rounding_mode="floor")
        words = found[parent, place, flat % total.shape[-1]].masked_fill(ended.gather(0, parent), PAD)
        ended = ended.gather(0, parent) | (words == EOS)
        written = torch.cat([written.gather(0, parent[..., None].expand_as(written)), words[..., None]], -1)
        rows = (parent * q.batch + place).flatten()
        state = tuple(part[rows] for part in state)
    return written[0]


def step_entropy(
    model: nn.Module,
    guide: nn.Module,
    split: PairSplit,
    found: Compressions,
    *,
    batch_size: int = 64,
    chunk: int = 64,
    precision: Precision = "float32",
) -> np.ndarray:
    """Entropy of q(c_j | c_<j, s) at every step of compressions of `compress`, nats, `[N, R, M]`; NaN beyond them.

    Averaged over draws and summed over steps it is the entropy of q(c | s), by the chain rule. A step whose word is
    certain, as the end where the length is fixed, has none.
    """
    made = np.full(found.ids.shape, np.nan)
    with judging(model, guide, 0, precision):
        for rows, batch in _sources(model, split, batch_size):
            q = _posterior(model, guide, batch)
            ids = torch.from_numpy(found.ids[rows, :, : q.longest + 1].swapaxes(0, 1)).to(q.writer.device)
            parts = [_entropy(q, part) for part in ids.split(_at_once(len(ids), len(rows), chunk))]
            made[rows, :, : ids.shape[2]] = np.concatenate(parts).swapaxes(0, 1)
    return made


def next_words(
    model: nn.Module, guide: nn.Module, split: PairSplit, found: Compressions, *, batch_size: int = 64
) -> list[np.ndarray]:
    """q(c_j | c_<j, s) of every word of the vocabulary along the first compression of each source, `[M, V]` each."""
    made: dict[int, np.ndarray] = {}
    with judging(model, guide, 0):
        for rows, batch in _sources(model, split, batch_size):
            q = _posterior(model, guide, batch)
            ids = torch.from_numpy(found.ids[rows, 0, : q.longest + 1]).to(q.writer.device)
            ahead = as_float64(_ahead(q, ids[None])[0].exp())
            made |= dict(zip(rows.tolist(), ahead, strict=True))
    return [made[row] for row in range(len(split))]


def _scope(model: nn.Module, batch: PairBatch) -> Scope:
    return Scope(1, len(batch), batch.population, getattr(model, "plates", 1))


def _posterior(model: nn.Module, guide: nn.Module, batch: PairBatch) -> Written:
    """q(c | s) of the sources of a batch; nothing is drawn."""
    nothing = torch.zeros(1, len(batch), 1, dtype=torch.long, device=batch.index.device)
    site: Site = trace_guide(guide, batch, _scope(model, batch), {SITE: nothing}).nodes[SITE]
    q = base(site["fn"])
    assert isinstance(q, Written)
    return q


def _sources(model: nn.Module, split: PairSplit, batch_size: int) -> Iterator[tuple[np.ndarray, PairBatch]]:
    """Rows and batch, from short sources to long ones."""
    order = np.argsort(split.first.lengths[split.group], kind="stable")
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        yield rows, split.batch(rows).to(device_of(model))


def _at_once(draws: int, batch: int, chunk: int) -> list[int]:
    """How many draws of each source are taken together."""
    step = max(1, chunk // batch)
    return [min(step, draws - start) for start in range(0, draws, step)]


def _judged(
    model: nn.Module, guide: nn.Module, batch: PairBatch, q: Written, ids: Tensor, chunk: int
) -> dict[str, np.ndarray]:
    """What `Compressions` holds of `ids` `[R, B, M]`, documents first."""
    log: dict[str, list[Tensor]] = {"log_q": [], "log_prior": [], "log_likelihood": []}
    ids = F.pad(ids, (0, q.longest + 1 - ids.shape[2]), value=PAD)
    for part in ids.split(_at_once(len(ids), len(batch), chunk)):
        found = terms(model, guide, batch, particles=len(part), given={SITE: part})
        site = found.sites[SITE]
        for name, value in zip(log, (site.log_q, site.log_p, found.log_likelihood), strict=True):
            log[name].append(value.expand(len(part), len(batch)))
    tokens = (ids != PAD).sum(-1) - int(q.lengths is not None)
    whole: dict[str, Any] = {"ids": ids.cpu().numpy(), "tokens": tokens.cpu().numpy()}
    whole |= {name: as_float64(torch.cat(parts)) for name, parts in log.items()}
    return {name: value.swapaxes(0, 1) for name, value in whole.items()}


def _ahead(q: Written, ids: Tensor) -> Tensor:
    """log q of every word at every step of `ids` `[R, B, M]`, `[R, B, M, V]`."""
    inputs = torch.full_like(ids, BOS)
    inputs[..., 1:] = ids[..., :-1].masked_fill(ids[..., :-1] == EOS, PAD)
    return q._allowed(q.writer.logits(inputs), 0).log_softmax(-1)


def _entropy(q: Written, ids: Tensor) -> np.ndarray:
    """Of every step of `ids` `[R, B, M]`, NaN at padding."""
    log_q = _ahead(q, ids)
    entropy = -(log_q.exp() * log_q).sum(-1)
    return as_float64(entropy.masked_fill(ids == PAD, torch.nan))
