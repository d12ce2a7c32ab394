"""A sentence VAE whose code is a handful of discrete variables: K^M sentences' worth of meaning, each part readable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import TextBatch
from pyro_nlp.distributions import WordSequence
from pyro_nlp.nn import Decoder, LSTMDecoder, write


class DiscreteSentence(PyroModule):
    """prod_m p(z_m) prod_t p(x_t | x_<t, z)            the model of DI-VAE, Zhao et al. 2018 (arXiv:1804.08069)

    M independent variables of K values each, uniform a priori; the decoder reads the sum of their codes,
    sum_m z_m W_m. The published objective replaces KL(q(z | x) || p(z)) by the KL of the batch's mean posterior, which
    is a choice of inference and not part of the model.

    All K^M values are too many to enumerate at any but toy sizes.

    Sites    z  OneHotCategorical, uniform, event [variables, classes]
             x  WordSequence, event [T], padding masked out
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        variables: number of discrete variables, M.
        classes: values of each, K.
        code: size of the code the decoder reads.
        decoder: `decoder(vocabulary, code)` gives the states.
    """

    plates = 1

    def __init__(
        self,
        vocabulary: int,
        variables: int = 20,
        classes: int = 10,
        code: int = 64,
        decoder: Callable[[int, int], Decoder] = LSTMDecoder,
    ) -> None:
        super().__init__()
        self.variables = variables
        # scaled so that the sum over variables has unit variance, like a draw from a VAE's prior
        self.codes = nn.Parameter(torch.randn(variables, classes, code) / variables**0.5)
        self.decoder = decoder(vocabulary, code)
        self.head = nn.Linear(self.decoder.width, vocabulary)
        self.register_buffer("uniform", torch.zeros(classes))

    def code(self, z: Tensor) -> Tensor:
        """sum_m z_m W_m: `[..., variables, classes]` to `[..., code]`."""
        return z.flatten(-2) @ self.codes.flatten(0, 1)

    def forward(self, batch: TextBatch) -> None:
        with batch.documents():
            z = pyro.sample("z", dist.OneHotCategorical(logits=self.uniform).expand([self.variables]).to_event(1))
            states = self.decoder(self.code(z), batch.inputs)
            pyro.sample("x", WordSequence(states, self.head, batch.mask), obs=batch.targets)

    def generate(self, latents: Mapping[str, Tensor], **options: Any) -> Tensor:
        """Sentences from `z` `[R, variables, classes]` to ids `[R, L]`. Options: see `nn.write`."""
        return write(self.decoder, self.head, self.code(latents["z"]), **options)
