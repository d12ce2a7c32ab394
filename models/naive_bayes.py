"""Naive Bayes: words drawn apart from each other, given the class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import EOS, TextBatch
from pyro_nlp.data.splits import TextSplit
from pyro_nlp.distributions import WordSequence
from pyro_nlp.distributions.class_sequence import ClassSequence, class_rows
from pyro_nlp.distributions.labelled import labels_of, observe_class, refuse_classes, require_labels
from pyro_nlp.nn import Decoder, write


class NaiveBayes(PyroModule):
    """p(y) prod_t p(x_t | y)                           the generative half of Ng and Jordan 2002 (NIPS)

    The end of sentence is a word like any other, so that a class also has a length. `estimate` is the closed form; the
    same estimate is where gradients lead, as in training a Dirichlet prior is added to the loss.

    Sites    y  Categorical, learnt prior; unknown labels are masked out
             x  ClassSequence, event [T], padding masked out
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words, V.
        classes: number of classes, K.
        smoothing: added to every count of a word: the most probable p(x_t | y) under Dirichlet(1 + smoothing).
    """

    plates = 1
    told = "y"  # the class that a user may ask it to write

    def __init__(self, vocabulary: int, classes: int = 2, smoothing: float = 1.0) -> None:
        super().__init__()
        if not smoothing > 0:
            raise ValueError(f"NaiveBayes: smoothing is {smoothing}; above 0, or a word unseen in a class rules it out")
        self.classes, self.smoothing = classes, smoothing
        self.prior = nn.Parameter(torch.zeros(classes))
        self.decoder = _ClassOnly(vocabulary, classes)
        self.head = nn.Linear(classes, vocabulary, bias=False)

    def meet_corpus(self, corpus: Any) -> None:
        """Refuse labels that cannot teach the classes."""
        require_labels(self, corpus, TextSplit)
        refuse_classes(self, corpus, self.classes)

    def forward(self, batch: TextBatch) -> None:
        labels = labels_of(batch if self.training else batch.replace(labels=None), self.classes)
        document, label = class_rows(labels, self.classes)
        states = self.decoder(torch.eye(self.classes, device=labels.device)[label], batch.inputs[document])
        words = WordSequence(states, self.head, batch.mask[document])
        if self.training:
            pyro.factor("smoothing", self.smoothing * self.log_words.sum())
        with batch.documents():
            observe_class(self.prior.log_softmax(-1), labels)
            pyro.sample(
                "x",
                ClassSequence(words, document, label, self.prior.log_softmax(-1), labels >= 0),
                obs=batch.targets,
            )

    @property
    def log_words(self) -> Tensor:
        """log p(x_t | y), `[V, K]`."""
        return self.head.weight.float().log_softmax(0)

    def class_log_joint(self, batch: TextBatch) -> Tensor:
        """log p(x, y) of every class, `[B, K]`."""
        by_word = self.log_words[batch.targets] * batch.mask[..., None]
        return self.prior.log_softmax(-1) + by_word.sum(-2)

    @torch.no_grad()
    def estimate(self, split: TextSplit) -> Self:
        """Set all probabilities to those of a labelled split: smoothed shares of words, shares of classes.

        A class without a document gets one.

        Raises:
            ValueError: no document has a label, or one has a label beyond the classes.
        """
        labels = np.full(len(split), -1) if split.labels is None else split.labels
        if not (labels >= 0).any():
            raise ValueError("NaiveBayes.estimate: no document has a label; give a labelled split")
        if labels.max() >= self.classes:
            raise ValueError(
                f"NaiveBayes.estimate: found the label {labels.max()}, expected less than the {self.classes} classes"
            )
        vocabulary = self.head.out_features
        counts = np.zeros((self.classes, vocabulary))
        of_word = np.repeat(labels, split.lengths - 1)
        np.add.at(counts, (of_word[of_word >= 0], split.flat[of_word >= 0]), 1)
        documents = np.bincount(labels[labels >= 0], minlength=self.classes)
        counts[:, EOS] += documents
        self.head.weight.copy_(torch.from_numpy(np.log(counts + self.smoothing).T))
        self.prior.copy_(torch.from_numpy(np.log(np.maximum(documents, 1))))
        return self

    def generate(self, latents: Mapping[str, Tensor], count: int = 1, **options: Any) -> Tensor:
        """As `ClassLanguageModel.generate`."""
        y = latents.get("y")
        if y is None:
            y = torch.distributions.OneHotCategorical(logits=self.prior).sample((count,))
        return write(self.decoder, self.head, y, **options)


class _ClassOnly(Decoder):
    """A state that is the class at every word."""

    def __init__(self, vocabulary: int, latent: int) -> None:
        super().__init__(vocabulary, latent)
        self.width = latent

    def forward(self, z: Tensor, inputs: Tensor) -> Tensor:
        left = torch.broadcast_shapes(z.shape[:-1], inputs.shape[:-1])
        return z.expand(*left, -1)[..., None, :].expand(*left, inputs.shape[-1], -1)
