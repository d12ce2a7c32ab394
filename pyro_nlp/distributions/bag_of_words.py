"""The distribution of a bag of words, by logits or by a mixture of topics (layer: distributions).

Probabilities are float32 (float64 if what they are made of is) also under autocast.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Self

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints


class BagOfWords(TorchDistribution):
    """prod_v softmax(logits)_v ^ counts_v: the words of a document drawn one by one, their order forgotten.

    Unlike `Multinomial` it leaves out the multinomial coefficient, as NVDM and its successors do, so that
    exp(-log_prob / total) is a perplexity per word. Works for documents of different lengths, and checks nothing.

    Shapes: logits `[..., V]`, counts (the value) `[..., V]`, batch shape `[...]`, event shape `[V]`; log-probabilities
    of words are logits too.

    Args:
        logits: unnormalised log-probabilities of the words.
        total: words that `sample` draws, a number or one for each document, broadcast to the batch shape; without it
            there is nothing to sample.
        batch_shape: in place of that of the logits.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)
    support = constraints.independent(constraints.nonnegative, 1)
    has_rsample = False

    def __init__(
        self, logits: Tensor, total: int | Tensor | None = None, batch_shape: torch.Size | None = None
    ) -> None:
        self.logits, self.total = logits, total
        shape = logits.shape[:-1] if batch_shape is None else batch_shape
        super().__init__(shape, logits.shape[-1:], validate_args=False)

    @cached_property
    def log_probs(self) -> Tensor:
        """log p of each word, normalised, `[..., V]`."""
        return self.logits.log_softmax(-1, _accumulator(self.logits))

    def expand(self, batch_shape: Any, _instance: Any = None) -> Self:
        # nothing is copied: log_prob works at the logits' own shape and expands its result
        copy = self.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        TorchDistribution.__init__(copy, torch.Size(batch_shape), self.event_shape, validate_args=False)
        return copy

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        if self.total is None:
            raise ValueError(f"{type(self).__name__}: how many words are to be drawn? Give total=...")
        with torch.no_grad():
            shape = torch.Size(sample_shape) + self.batch_shape
            vocabulary = self.event_shape[0]
            probs = self.log_probs.exp().expand(*shape, -1).reshape(-1, vocabulary)
            totals = torch.as_tensor(self.total, device=probs.device).expand(shape).reshape(-1).long()
            # by the inverse of the cumulative probabilities, those of document i between i and i + 1: `multinomial`
            # would draw as many words for every document as for the longest
            cumulative = probs.double().cumsum(-1)
            documents = torch.arange(len(probs), device=probs.device)
            ends = cumulative / cumulative[:, -1:] + documents[:, None]
            document = documents.repeat_interleave(totals)
            points = document + torch.rand(len(document), dtype=ends.dtype, device=probs.device)
            words = torch.searchsorted(ends.flatten(), points, right=True).minimum((document + 1) * vocabulary - 1)
            return words.bincount(minlength=ends.numel()).to(probs.dtype).view(*shape, vocabulary)

    def log_prob(self, value: Tensor) -> Tensor:
        """sum_v counts_v log p_v, in nats, `[...]`."""
        words = _dot(value, self.log_probs)
        return words.expand(torch.broadcast_shapes(words.shape, self.batch_shape))


class TopicMixture(BagOfWords):
    """prod_v (sum_k theta_k beta_kv) ^ counts_v: every word of its own topic, the topics summed out.

    The sum is one product of matrices in float32. Each word's column of beta is divided by its largest entry before and
    multiplied by it afterwards, so that a word all topics make unlikely does not underflow. What could still underflow
    is the sum over topics of a word whose likely topics have next to no share; 1e-38 is added to it.

    Shapes: theta `[..., K]`, log_topics `[K, V]`, counts (the value) `[..., V]`, batch shape `[...]`, event `[V]`.

    Args:
        theta: shares of the topics; they need not sum to one (dropout), and then neither do the words'.
        log_topics: log beta, the log-probabilities of words in each topic.
        total: words that `sample` draws, as in `BagOfWords`.
    """

    def __init__(self, theta: Tensor, log_topics: Tensor, total: int | Tensor | None = None) -> None:
        self.theta, self.log_topics, self.total = theta, log_topics, total
        TorchDistribution.__init__(self, theta.shape[:-1], log_topics.shape[-1:], validate_args=False)

    @property
    def logits(self) -> Tensor:  # type: ignore[override]
        """The same as `log_probs`."""
        return self.log_probs

    @property
    def log_probs(self) -> Tensor:
        """log sum_k theta_k beta_kv, `[..., V]`."""
        mixed, largest = self._mixed
        return mixed + largest

    @cached_property
    def _mixed(self) -> tuple[Tensor, Tensor]:
        """log-probabilities of words less the largest of their column of beta, `[..., V]`, and that, `[V]`."""
        dtype = _accumulator(self.theta)
        with torch.autocast(self.theta.device.type, enabled=False):
            log_topics = self.log_topics.to(dtype)
            largest = log_topics.detach().amax(-2)  # a constant to the gradient: it is subtracted and added
            mixed = self.theta.to(dtype) @ (log_topics - largest).exp()
            return (mixed + torch.finfo(dtype).tiny).log(), largest

    def log_prob(self, value: Tensor) -> Tensor:
        mixed, largest = self._mixed
        words = _dot(value, mixed) + _dot(value, largest)
        return words.expand(torch.broadcast_shapes(words.shape, self.batch_shape))


def _dot(counts: Tensor, log_probs: Tensor) -> Tensor:
    """sum_v counts_v log p_v in the type of log p."""
    with torch.autocast(log_probs.device.type, enabled=False):
        return torch.linalg.vecdot(counts.to(log_probs.dtype), log_probs)


def _accumulator(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
