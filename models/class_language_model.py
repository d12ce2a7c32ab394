"""A language model of every class: the generative twin of a text classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import TextBatch
from pyro_nlp.distributions import WordSequence
from pyro_nlp.distributions.class_sequence import ClassSequence, class_rows
from pyro_nlp.distributions.labelled import labels_of, observe_class, refuse_classes, seen_labels
from pyro_nlp.nn import Decoder, LSTMDecoder, write


class ClassLanguageModel(PyroModule):
    """p(y) prod_t p(x_t | x_<t, y)                     Yogatama et al. 2017 (arXiv:1703.01898), section 2.2

    One language model, shared by the classes but for the code of each, which the decoder reads; with `skip` the code
    stands beside every state, as in the paper. It classifies by Bayes' rule (`class_log_joint`).

    In training y is observed where a label is seen, and summed out of p(x) where not, exactly (Nigam et al. 2000). In
    evaluation no label is seen: the bound is log p(x), which a `SentenceLM` has too.

    Sites    y  Categorical, learnt prior; unknown labels are masked out
             x  ClassSequence, event [T], padding masked out
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        classes: number of classes, K.
        code: size of a class's code.
        decoder: `decoder(vocabulary, code)` gives the states.
        supervision: share of the training documents whose label is seen; the others' classes are summed out.
    """

    plates = 1
    told = "y"  # the class that a user may ask it to write

    def __init__(
        self,
        vocabulary: int,
        classes: int = 2,
        code: int = 16,
        decoder: Callable[[int, int], Decoder] = LSTMDecoder,
        supervision: float = 1.0,
    ) -> None:
        super().__init__()
        self.classes, self.supervision = classes, supervision
        self.prior = nn.Parameter(torch.zeros(classes))
        self.codes = nn.Parameter(torch.randn(classes, code))
        self.decoder = decoder(vocabulary, code)
        self.head = nn.Linear(self.decoder.width, vocabulary)

    def meet_corpus(self, corpus: Any) -> None:
        """Refuse labels that cannot teach the classes."""
        refuse_classes(self, corpus, self.classes, self.supervision)

    def forward(self, batch: TextBatch) -> None:
        seen = seen_labels(batch, self.supervision) if self.training else None
        labels = labels_of(batch.replace(labels=seen), self.classes)
        words = self._words(batch, labels)
        with batch.documents():
            observe_class(self.prior.log_softmax(-1), labels)
            pyro.sample("x", words, obs=batch.targets)

    def class_log_joint(self, batch: TextBatch) -> Tensor:
        """log p(x, y) of every class, exact, `[B, K]`."""
        return self._words(batch, labels_of(batch.replace(labels=None), self.classes)).joint(batch.targets)

    def _words(self, batch: TextBatch, labels: Tensor) -> ClassSequence:
        document, label = class_rows(labels, self.classes)
        states = self.decoder(self.codes[label], batch.inputs[document])
        words = WordSequence(states, self.head, batch.mask[document])
        return ClassSequence(words, document, label, self.prior.log_softmax(-1), labels >= 0)

    def generate(self, latents: Mapping[str, Tensor], count: int = 1, **options: Any) -> Tensor:
        """Sentences of classes, `y` `[R, K]`, one-hot or weights, to ids `[R, L]`; of `count` classes drawn from p(y)
        where none are given. Options: see `nn.write`."""
        y = latents.get("y")
        if y is None:
            y = torch.distributions.OneHotCategorical(logits=self.prior).sample((count,))
        return write(self.decoder, self.head, y @ self.codes, **options)
