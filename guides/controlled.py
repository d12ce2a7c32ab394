"""Amortised posterior over a code and attributes; what reads an attribute is a discriminator of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import TextBatch
from pyro_nlp.distributions.attributes import columns_of, refuse_attributes, seen_attribute
from pyro_nlp.distributions.labelled import labelled, refuse_unseen
from pyro_nlp.nn import CategoricalHead, CNNEncoder, Encoder, GaussianHead, LSTMEncoder


class ControlledGuide(PyroModule):
    """q(z | x) prod_k q(c_k | x); c pinned where seen                    Hu et al. 2017 (arXiv:1703.00955), eqs. 3, 5

    q(c_k | x) is the discriminator of attribute k. It learns from labels (`KnownLabels`) and from what the model writes
    (`Dreams`), and from the bound where a label is not seen.

    Sites    an attribute's name  OneHotCategorical, event [classes]
             z                    Normal, event [latent]
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        latent: size of z.
        attributes: number of classes by name, as in the model; by default {sentiment: 2}.
        encoder: `encoder(vocabulary)` reads the batch for z.
        discriminator: `discriminator(vocabulary)` reads it for an attribute, a network each.
        supervision: share of the training documents whose labels are seen; evaluation sees none.
    """

    columns: Tensor

    def __init__(
        self,
        vocabulary: int,
        latent: int = 64,
        attributes: dict[str, int] | None = None,
        encoder: Callable[[int], Encoder] = LSTMEncoder,
        discriminator: Callable[[int], Encoder] = CNNEncoder,
        supervision: float = 1.0,
    ) -> None:
        super().__init__()
        self.attributes = refuse_attributes({"sentiment": 2} if attributes is None else attributes)
        self.supervision = supervision
        self.encoder = encoder(vocabulary)
        self.posterior = GaussianHead(self.encoder.width, latent)
        self.discriminators = nn.ModuleDict()
        for name, classes in self.attributes.items():
            reader = discriminator(vocabulary)
            self.discriminators[name] = _Discriminator(reader, CategoricalHead(reader.width, classes))
        self.register_buffer("columns", torch.arange(len(self.attributes)))

    def forward(self, batch: TextBatch) -> None:
        loc, scale = self.posterior(self.encoder(batch))
        share = self.supervision if self.training else 0.0
        with batch.documents():
            for column, (name, discriminator) in zip(self.columns.tolist(), self.discriminators.items(), strict=True):
                labels = seen_attribute(batch, column, share)
                labelled(name, dist.OneHotCategorical(logits=discriminator(batch)), labels)
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    def meet_corpus(self, corpus: Any) -> None:
        """Find the attributes among those of the corpus; refuse one that is to be seen and has a class that is not."""
        columns, train = columns_of(self.attributes, corpus), corpus.train
        self.columns.copy_(torch.tensor(columns))
        for name, column in zip(self.attributes if self.supervision else (), columns, strict=False):
            labels = train.labels if train.attributes is None else train.attributes[:, column]
            refuse_unseen(self, corpus, name, labels, corpus.attributes[name], self.supervision)


class _Discriminator(nn.Module):
    """Logits of the classes of an attribute, `[B, K]`."""

    def __init__(self, encoder: Encoder, head: CategoricalHead) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, batch: TextBatch) -> Tensor:
        logits: Tensor = self.head(self.encoder(batch))
        return logits
