"""What is taken off the loss before it multiplies a score (layer: inference).

A baseline must not depend on the draw it corrects; then the gradient keeps its mean and loses variance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from pyro_nlp.data.batches import Batch, CountBatch, PairBatch, TextBatch, VectorBatch
from pyro_nlp.inference.sites import StructureError

if TYPE_CHECKING:
    from pyro_nlp.inference.estimators import Signal

PLACES = 64
"""Places of words that `Neural` tells apart; all after are as the last."""


class Baseline(ABC):
    """A guess of the loss."""

    @abstractmethod
    def __call__(self, signal: Signal, state: nn.Module | None, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The loss minus the guess, and what the guess itself is to minimise, both shaped as `signal.value`."""

    def state(self, batch: Batch) -> nn.Module | None:
        """What the guess is made from, as a module of the compiled strategy."""
        return None

    def state_by_word(self, batch: Batch) -> nn.Module | None:
        """The same where every word of a sequence has a loss of its own."""
        return self.state(batch)

    def of(self, model: nn.Module) -> Baseline:
        """This baseline as it is for a model."""
        return self


@dataclass(frozen=True)
class RunningMean(Baseline):
    """The decaying mean of past losses, one number for all documents and words.

    Args:
        decay: of the mean, per step.
    """

    decay: float = 0.9

    def state(self, batch: Batch) -> nn.Module:
        return _Mean(self.decay)

    def __call__(self, signal: Signal, state: nn.Module | None, batch: Batch) -> tuple[Tensor, Tensor | None]:
        assert isinstance(state, _Mean)
        mean, _ = state.now()
        state.update(signal.counted)
        return signal.value - mean, None


@dataclass(frozen=True)
class Neural(Baseline):
    """A network's guess from the document, on top of the running mean: NVIL (Mnih and Gregor 2014, arXiv:1402.0030).

    It reads the words (hashed into `buckets`), the counts or the vector of a document, and learns by least squares,
    with the training's own optimiser. Word by word it makes a guess for every place of a word, whatever was written.

    Args:
        width: of the hidden layer.
        buckets: words that are told apart.
        decay: of the running mean.
        reads: which texts of pairs; None for those that the model foretells (its `foretells`): the other may be what
            is to be inferred.
    """

    width: int = 64
    buckets: int = 4096
    decay: float = 0.9
    reads: Literal["first", "second"] | None = None

    def __post_init__(self) -> None:
        if self.reads not in (None, "first", "second"):
            raise ValueError(f"Neural: reads is 'first', 'second' or None, not {self.reads!r}")

    def of(self, model: nn.Module) -> Neural:
        first = self.reads is None and getattr(model, "foretells", "second") == "first"
        return replace(self, reads="first") if first else self

    def state(self, batch: Batch) -> nn.Module:
        return _Guess(batch, self)

    def state_by_word(self, batch: Batch) -> nn.Module:
        return _Guess(batch, self, by_word=True)

    def __call__(self, signal: Signal, state: nn.Module | None, batch: Batch) -> tuple[Tensor, Tensor | None]:
        assert isinstance(state, _Guess)
        mean, spread = state.mean.now()
        state.mean.update(signal.counted)
        # in units of the running spread, so that one learning rate serves any loss
        left = (signal.value - mean) / spread - state(batch, len(signal.value))
        return spread * left, left.square()


@dataclass(frozen=True)
class LeaveOneOut(Baseline):
    """What the other particles lost: RLOO (Kool et al. 2019).

    Under `IWAE` it is VIMCO (Mnih and Rezende 2016, arXiv:1602.06725). Needs a bound with two particles or more.
    """

    def __call__(self, signal: Signal, state: nn.Module | None, batch: Batch) -> tuple[Tensor, Tensor | None]:
        assert signal.without is not None
        return signal.value - signal.without(), None


class _Mean(nn.Module):
    """Decaying mean and spread of the losses of past steps; zero and one before the first."""

    first: Tensor
    second: Tensor
    updates: Tensor

    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay
        for name in ("first", "second", "updates"):
            self.register_buffer(name, torch.zeros(()))

    def now(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation, free of the zeros they began with."""
        seen = (1 - self.decay**self.updates).clamp(min=1 - self.decay)
        mean = self.first / seen
        variance = (self.second / seen - mean.square()).clamp(min=1e-6)
        return mean, torch.where(self.updates > 0, variance.sqrt(), torch.ones_like(variance))

    @torch.no_grad()
    def update(self, value: Tensor) -> None:
        """Count one step of training."""
        if self.training:
            self.first.lerp_(value.mean(), 1 - self.decay)
            self.second.lerp_(value.square().mean(), 1 - self.decay)
            self.updates += 1


class _Guess(nn.Module):
    """One number per document, or per word and document, zero at first, and the running mean it is added to."""

    def __init__(self, batch: Batch, how: Neural, by_word: bool = False) -> None:
        super().__init__()
        width, buckets = how.width, how.buckets
        self.mean, self.buckets, self.reads = _Mean(how.decay), buckets, how.reads
        if isinstance(self._text(batch), TextBatch):
            self.each, features = nn.Embedding(buckets, 1), width  # a loss adds up over words, and so does a guess
            self.words = nn.Embedding(buckets, width)
            nn.init.zeros_(self.each.weight)
        else:
            features = _vector(batch).shape[-1]
        last = nn.Linear(width, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.network = nn.Sequential(nn.Linear(features, width), nn.Tanh(), last)
        self.places = nn.Embedding(PLACES, width) if by_word else None

    def forward(self, batch: Batch, places: int = 1) -> Tensor:
        """`[documents]`, or by word `[places, 1, documents]`."""
        batch = self._text(batch)
        if not isinstance(batch, TextBatch):
            return self._guess(_vector(batch), places).squeeze(-1)
        ids, mask = batch.targets % self.buckets, batch.mask[..., None]
        vectors = (self.words(ids) * mask).sum(-2) / mask.sum(-2)
        return (self._guess(vectors, places) + (self.each(ids) * mask).sum(-2)).squeeze(-1)

    def _guess(self, features: Tensor, places: int) -> Tensor:
        if self.places is None:
            return self.network(features)
        at = self.places(torch.arange(places, device=features.device).clamp(max=PLACES - 1))
        return self.network[1:](self.network[0](features) + at[:, None, None])

    def _text(self, batch: Batch) -> Batch:
        """Of pairs the texts that are read, one a pair."""
        if not isinstance(batch, PairBatch):
            return batch
        if self.reads != "first":
            return batch.second
        first, rows = batch.first, batch.group
        return TextBatch(batch.index, batch.population, first.inputs[rows], first.targets[rows], first.mask[rows])


def _vector(batch: Batch) -> Tensor:
    """A vector per document: log(1 + count) of its words, or the vector that it is."""
    if isinstance(batch, CountBatch):
        return batch.counts.float().log1p()
    if isinstance(batch, VectorBatch):
        return batch.values
    raise StructureError(
        f"the Neural baseline cannot read a {type(batch).__name__}: use RunningMean() or LeaveOneOut()"
    )
