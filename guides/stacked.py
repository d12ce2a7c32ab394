"""Amortised posteriors over the code of a sentence, and from it over a class and a style."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import nn

from pyro_nlp.data.batches import TextBatch
from pyro_nlp.distributions.labelled import labelled, refuse_classes, seen_labels
from pyro_nlp.nn import CategoricalHead, Encoder, GaussianHead, LSTMEncoder, cat


class StackedGuide(PyroModule):
    """q(z1 | x) q(c | z1) q(z2 | z1, c); c pinned where seen      Kingma et al. 2014b (arXiv:1406.5298), section 2.4

    For `StackedSentence`. `sentence` has the parameters of a `GaussianGuide` and begins as that of a sentence VAE.

    Sites    z1  Normal, event [latent]
             c   OneHotCategorical, event [classes], by a hidden layer of z1
             z2  Normal, event [style], by a hidden layer of (z1, c)
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        latent: size of z1.
        classes: number of classes, K.
        style: size of z2.
        width: of the hidden layers.
        encoder: `encoder(vocabulary)` reads the batch.
        supervision: share of the training documents whose label is seen; evaluation sees none. The bound teaches
            q(c | z1) by the other documents only, so keep it below 1 unless the loss adds log q(label | z1).
    """

    def __init__(
        self,
        vocabulary: int,
        latent: int = 32,
        classes: int = 2,
        style: int = 16,
        width: int = 64,
        encoder: Callable[[int], Encoder] = LSTMEncoder,
        supervision: float = 0.0,
    ) -> None:
        super().__init__()
        self.classes, self.supervision = classes, supervision
        self.sentence = _Sentence(vocabulary, latent, encoder)
        self.reading = nn.Sequential(nn.Linear(latent, width), nn.Softplus())
        self.classifier = CategoricalHead(width, classes)
        self.hidden = nn.Sequential(nn.Linear(latent + classes, width), nn.Softplus())
        self.posterior = GaussianHead(width, style)

    def meet_corpus(self, corpus: Any) -> None:
        """Refuse labels that cannot teach the classes."""
        refuse_classes(self, corpus, self.classes, self.supervision)

    def forward(self, batch: TextBatch) -> None:
        loc, scale = self.sentence.posterior(self.sentence.encoder(batch))
        labels = seen_labels(batch, self.supervision) if self.training else None
        with batch.documents():
            z1 = pyro.sample("z1", dist.Normal(loc, scale).to_event(1))
            logits = self.classifier(self.reading(z1))
            c = labelled("c", dist.OneHotCategorical(logits=logits), labels)
            pyro.sample("z2", dist.Normal(*self.posterior(self.hidden(cat(z1, c)))).to_event(1))


class _Sentence(nn.Module):
    """The parameters of a `GaussianGuide`."""

    def __init__(self, vocabulary: int, latent: int, encoder: Callable[[int], Encoder]) -> None:
        super().__init__()
        self.encoder = encoder(vocabulary)
        self.posterior = GaussianHead(self.encoder.width, latent)
