"""A sentence VAE that is told what to write about: attributes beside its code."""

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
from pyro_nlp.distributions.attributes import columns_of, refuse_attributes
from pyro_nlp.nn import Decoder, LSTMDecoder, cat, write, write_softly


class ControlledSentence(PyroModule):
    """p(z) prod_k p(c_k) prod_t p(x_t | x_<t, z, c)                      Hu et al. 2017 (arXiv:1703.00955)

    Attributes c, one-hot and uniform a priori, and z for all the rest; the decoder reads them side by side. With one
    attribute it is the model of `StyledSentence`; what is new is how it can be trained (`Control`, `Dreams`,
    `WakeSleepPhases`).

    Sites    z  Normal(0, 1), event [latent]
             a OneHotCategorical for each attribute, by its name, event [classes]
             x  WordSequence, event [T], padding masked out
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        latent: size of z.
        attributes: number of classes by name, as the corpus has them; by default {sentiment: 2}.
        decoder: `decoder(vocabulary, latent + classes of all attributes)` gives the states; a recurrent one, if the
            model is to write softly.
    """

    plates = 1

    def __init__(
        self,
        vocabulary: int,
        latent: int = 64,
        attributes: dict[str, int] | None = None,
        decoder: Callable[[int, int], Decoder] = LSTMDecoder,
    ) -> None:
        super().__init__()
        self.latent, self.attributes = latent, refuse_attributes({"sentiment": 2} if attributes is None else attributes)
        self.decoder = decoder(vocabulary, latent + sum(self.attributes.values()))
        self.head = nn.Linear(self.decoder.width, vocabulary)
        self.register_buffer("zero", torch.zeros(()))

    def forward(self, batch: TextBatch) -> None:
        with batch.documents():
            c = [pyro.sample(a, dist.OneHotCategorical(self.zero.new_ones(k))) for a, k in self.attributes.items()]
            z = pyro.sample("z", dist.Normal(self.zero, 1.0).expand([self.latent]).to_event(1))
            states = self.decoder(cat(z, *c), batch.inputs)
            pyro.sample("x", WordSequence(states, self.head, batch.mask), obs=batch.targets)

    def generate(self, latents: Mapping[str, Tensor], **options: Any) -> Tensor:
        """Sentences from `z` `[R, latent]` and attributes `[R, classes]` to ids `[R, L]`. Options: see `nn.write`."""
        return write(self.decoder, self.head, self._code(latents), **options)

    def write_softly(
        self, latents: Mapping[str, Tensor], temperature: float, max_length: int, hard: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Sentences as points of the simplex `[R, L, V]`, and their mask `[R, L]`: see `nn.write_softly`."""
        return write_softly(self.decoder, self.head, self._code(latents), temperature, max_length, hard)

    def meet_corpus(self, corpus: Any) -> None:
        """Refuse attributes that the corpus does not have."""
        columns_of(self.attributes, corpus)

    def _code(self, latents: Mapping[str, Tensor]) -> Tensor:
        return cat(latents["z"], *(latents[name] for name in self.attributes))
