"""Two latent layers: a class and a style that make the code of a sentence, and the code that makes the sentence."""

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
from pyro_nlp.nn import Decoder, GaussianHead, LSTMDecoder, cat, write


class StackedSentence(PyroModule):
    """p(c) p(z2) p(z1 | c, z2) prod_t p(x_t | x_<t, z1)     Kingma et al. 2014b (arXiv:1406.5298), M1+M2, section 2.3

    M2 on the code z1 of a sentence VAE, which is M1. As in the paper it is trained in two stages: `sentence` has the
    parameters of a `SentenceVAE`, begins with those of a run of one (`Training(start=...)`) and is then `fixed`; the
    recipe says how. Trained in one stage it is a deeper generative model than M2.

    Sites    c   OneHotCategorical, learnt prior, event [classes]
             z2  Normal(0, 1), event [style]
             z1  Normal, event [latent]; mean and log-variance by a hidden layer of (z2, c)
             x   WordSequence, event [T], padding masked out
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        latent: size of z1.
        classes: number of classes, K.
        style: size of z2.
        width: of the hidden layer.
        decoder: `decoder(vocabulary, latent)` gives the states.
    """

    plates = 1
    told = "c"  # the class that a user may ask it to write
    kept = "z2"  # and what a sentence keeps when its class is changed

    def __init__(
        self,
        vocabulary: int,
        latent: int = 32,
        classes: int = 2,
        style: int = 16,
        width: int = 64,
        decoder: Callable[[int, int], Decoder] = LSTMDecoder,
    ) -> None:
        super().__init__()
        self.style = style
        self.prior = nn.Parameter(torch.zeros(classes))
        self.hidden = nn.Sequential(nn.Linear(style + classes, width), nn.Softplus())
        self.code = GaussianHead(width, latent)
        self.sentence = _Sentence(vocabulary, latent, decoder)
        self.register_buffer("zero", torch.zeros(()))

    def forward(self, batch: TextBatch) -> None:
        with batch.documents():
            c = pyro.sample("c", dist.OneHotCategorical(logits=self.prior))
            z2 = pyro.sample("z2", dist.Normal(self.zero, 1.0).expand([self.style]).to_event(1))
            z1 = pyro.sample("z1", dist.Normal(*self.code(self.hidden(cat(z2, c)))).to_event(1))
            states = self.sentence.decoder(z1, batch.inputs)
            pyro.sample("x", WordSequence(states, self.sentence.head, batch.mask), obs=batch.targets)

    def generate(self, latents: Mapping[str, Tensor], **options: Any) -> Tensor:
        """Sentences from codes `z1` `[R, latent]` to ids `[R, L]`, or from the means of p(z1 | c, z2) by `c`
        `[R, classes]` and `z2` `[R, style]`. Options: see `nn.write`."""
        z1 = latents.get("z1")
        if z1 is None:
            z1, _ = self.code(self.hidden(cat(latents["z2"], latents["c"])))
        return write(self.sentence.decoder, self.sentence.head, z1, **options)


class _Sentence(nn.Module):
    """The parameters of a `SentenceVAE`."""

    def __init__(self, vocabulary: int, latent: int, decoder: Callable[[int, int], Decoder]) -> None:
        super().__init__()
        self.decoder = decoder(vocabulary, latent)
        self.head = nn.Linear(self.decoder.width, vocabulary)
