"""A sentence whose class is known, or summed out (layer: distributions)."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints


class ClassSequence(TorchDistribution):
    """p(x | y) of a document whose class is known, p(x) = sum_y p(y) p(x | y), exact, of any other.

    A known class costs one evaluation, an unknown one K. `class_rows` says of which document and class each is.

    Shapes: batch shape `[B]` or an expansion of it, event shape `[T]`; values are ids `[..., B, T]`.

    Args:
        words: p(x | y) of R pairs of a document and a class, batch shape `[R]`, event shape `[T]`.
        document, label: which pairs they are, `[R]`: `document` ascends.
        log_prior: log p(y), `[K]`.
        known: whether the class of a document is, `[B]`.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)
    has_rsample = False

    def __init__(
        self,
        words: TorchDistribution,
        document: Tensor,
        label: Tensor,
        log_prior: Tensor,
        known: Tensor,
        batch_shape: torch.Size | None = None,
    ) -> None:
        self.words, self.document, self.label, self.log_prior, self.known = words, document, label, log_prior, known
        super().__init__(known.shape if batch_shape is None else batch_shape, words.event_shape, validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        support = self.words.support
        assert support is not None
        return support

    def expand(self, batch_shape: Any, _instance: Any = None) -> ClassSequence:
        return ClassSequence(self.words, self.document, self.label, self.log_prior, self.known, torch.Size(batch_shape))

    def joint(self, value: Tensor) -> Tensor:
        """log p(x, y) by class, `[..., B, K]`; of a known class log p(x | y), and minus infinity for all others."""
        log_p = self.words.log_prob(value[..., self.document, :])
        log_p = log_p + torch.where(self.known[self.document], 0.0, self.log_prior[self.label])
        table = log_p.new_full((*log_p.shape[:-1], len(self.known), len(self.log_prior)), -torch.inf)
        table[..., self.document, self.label] = log_p
        return table

    def log_prob(self, value: Tensor) -> Tensor:
        """In nats, padding left out, `[..., B]`."""
        total = self.joint(value).logsumexp(-1)
        return total.expand(torch.broadcast_shapes(total.shape, self.batch_shape))

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Every position given the words that were fed, of a class drawn from p(y) where it is not known."""
        with torch.no_grad():
            shape = torch.Size((*sample_shape, *self.batch_shape))
            weight = torch.zeros(len(self.known), len(self.log_prior), device=self.known.device)
            weight[self.document, self.label] = self.log_prior[self.label].exp()
            row = torch.zeros(weight.shape, dtype=torch.long, device=weight.device)
            row[self.document, self.label] = torch.arange(len(self.document), device=weight.device)
            drawn = torch.distributions.Categorical(probs=weight.expand(*shape, -1)).sample()
            row = row.expand(*shape, -1).gather(-1, drawn[..., None])[..., 0]
            draws = self.words.sample(shape[:-1])
            return draws.gather(-2, row[..., None].expand(*row.shape, draws.shape[-1]))


def class_rows(labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """The pairs of a document and a class that have to be looked at, in order: its own where it is known (0 or more),
    else all of them. labels `[B]` to two of `[R]`."""
    wanted = (labels[:, None] < 0) | (labels[:, None] == torch.arange(classes, device=labels.device))
    document, label = wanted.nonzero(as_tuple=True)
    return document, label
