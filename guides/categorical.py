"""Amortised posteriors over one class per document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
from pyro.nn import PyroModule

from pyro_nlp.data.batches import TextBatch
from pyro_nlp.distributions.labelled import labelled, refuse_classes, seen_labels
from pyro_nlp.nn import CategoricalHead, Encoder, LSTMEncoder


class CategoricalGuide(PyroModule):
    """q(c | x) = softmax(a linear map of the encoded document); pinned where the label is seen.

    Sites    c  OneHotCategorical, event [classes]
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        classes: number of classes, K.
        encoder: `encoder(vocabulary)` reads the batch.
        supervision: share of the training documents whose label is seen; evaluation sees none. The bound teaches
            q(c | x) by the other documents only, so keep it below 1 unless the loss adds log q(label | x).
    """

    def __init__(
        self,
        vocabulary: int,
        classes: int = 10,
        encoder: Callable[[int], Encoder] = LSTMEncoder,
        supervision: float = 0.0,
    ) -> None:
        super().__init__()
        self.classes, self.supervision = classes, supervision
        self.encoder = encoder(vocabulary)
        self.posterior = CategoricalHead(self.encoder.width, classes)

    def meet_corpus(self, corpus: Any) -> None:
        """Refuse labels that cannot teach the classes."""
        refuse_classes(self, corpus, self.classes, self.supervision)

    def forward(self, batch: TextBatch) -> None:
        logits = self.posterior(self.encoder(batch))
        labels = seen_labels(batch, self.supervision) if self.training else None
        with batch.documents():
            labelled("c", dist.OneHotCategorical(logits=logits), labels)
