"""Amortised posteriors over several discrete variables per document."""

from __future__ import annotations

from collections.abc import Callable

import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule

from pyro_nlp.data.batches import TextBatch
from pyro_nlp.nn import CategoricalHead, Encoder, LSTMEncoder


class MultiCategoricalGuide(PyroModule):
    """q(z | x) = prod_m q(z_m | x), each a softmax             the recognition network of Zhao et al. 2018

    Sites    z  OneHotCategorical, event [variables, classes]
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        variables: number of discrete variables, M.
        classes: values of each, K.
        encoder: `encoder(vocabulary)` reads the batch.
    """

    def __init__(
        self,
        vocabulary: int,
        variables: int = 20,
        classes: int = 10,
        encoder: Callable[[int], Encoder] = LSTMEncoder,
    ) -> None:
        super().__init__()
        self.variables, self.classes = variables, classes
        self.encoder = encoder(vocabulary)
        self.posterior = CategoricalHead(self.encoder.width, variables * classes)

    def forward(self, batch: TextBatch) -> None:
        logits = self.posterior(self.encoder(batch)).unflatten(-1, (self.variables, self.classes))
        with batch.documents():
            pyro.sample("z", dist.OneHotCategorical(logits=logits).to_event(1))
