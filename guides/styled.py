"""Amortised posteriors over a class and a continuous code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule

from pyro_nlp.data.batches import TextBatch
from pyro_nlp.distributions.labelled import labelled, refuse_classes, seen_labels
from pyro_nlp.nn import CategoricalHead, Encoder, GaussianHead, LSTMEncoder, cat


class StyledGuide(PyroModule):
    """q(c | x) q(z | x, c), or q(c | x) q(z | x); c pinned where seen      Kingma et al. 2014b (arXiv:1406.5298), M2

    Sites    c  OneHotCategorical, event [classes]
             z  Normal, event [latent]; mean and log-variance are linear in (features, c)
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        latent: size of z.
        classes: number of classes, K.
        encoder: `encoder(vocabulary)` reads the batch.
        supervision: share of the training documents whose label is seen; evaluation sees none. The bound teaches
            q(c | x) by the other documents only, so keep it below 1 unless the loss adds log q(label | x).
        joint: let z depend on c; without it they are independent given x.
    """

    def __init__(
        self,
        vocabulary: int,
        latent: int = 32,
        classes: int = 10,
        encoder: Callable[[int], Encoder] = LSTMEncoder,
        supervision: float = 0.0,
        joint: bool = True,
    ) -> None:
        super().__init__()
        self.classes, self.supervision, self.joint = classes, supervision, joint
        self.encoder = encoder(vocabulary)
        width = self.encoder.width
        self.classifier = CategoricalHead(width, classes)
        self.posterior = GaussianHead(width + classes if joint else width, latent)

    def meet_corpus(self, corpus: Any) -> None:
        """Refuse labels that cannot teach the classes."""
        refuse_classes(self, corpus, self.classes, self.supervision)

    def forward(self, batch: TextBatch) -> None:
        features = self.encoder(batch)
        labels = seen_labels(batch, self.supervision) if self.training else None
        with batch.documents():
            c = labelled("c", dist.OneHotCategorical(logits=self.classifier(features)), labels)
            loc, scale = self.posterior(cat(features, c) if self.joint else features)
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))
