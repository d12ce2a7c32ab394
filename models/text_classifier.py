"""A classifier of texts: the discriminative twin of every model that writes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import TextBatch
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.distributions.labelled import labels_of, observe_class, refuse_classes, require_labels
from pyro_nlp.nn import CategoricalHead, Encoder, LSTMEncoder


class TextClassifier(PyroModule):
    """p(y | x) = softmax(W f(x) + b), f(x) an encoder of the text

    With `CNNEncoder`, pooled by the maximum, it is the network of Kim 2014 (arXiv:1408.5882) with windows of one size;
    with `LSTMEncoder` the discriminative model of Yogatama et al. 2017 (arXiv:1703.01898).

    Sites    y  Categorical; unknown labels are masked out
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        classes: number of classes, K.
        encoder: `encoder(vocabulary)` reads the batch.
        dropout: rate on the features.
    """

    plates = 1
    foretells = "labels"

    def __init__(
        self,
        vocabulary: int,
        classes: int = 2,
        encoder: Callable[[int], Encoder] = LSTMEncoder,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.encoder = encoder(vocabulary)
        self.head = CategoricalHead(self.encoder.width, classes)
        self.dropout = nn.Dropout(dropout)

    def meet_corpus(self, corpus: Any) -> None:
        """Refuse labels that cannot teach the classes."""
        require_labels(self, corpus, TextSplit)
        refuse_classes(self, corpus, self.classes)

    def forward(self, batch: TextBatch) -> None:
        labels = labels_of(batch, self.classes, required=True)
        logits = self.class_log_probs(batch)
        with batch.documents():
            observe_class(logits, labels)

    def class_log_probs(self, batch: TextBatch) -> Tensor:
        """log p(y | x), `[B, K]`."""
        logits: Tensor = self.head(self.dropout(self.encoder(batch)))
        return logits.log_softmax(-1)
