"""Networks that read a bag of words (layer: nn)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from pyro_nlp.data.batches import CountBatch
from pyro_nlp.nn.batch_norm import BatchNorm
from pyro_nlp.nn.encoders import Encoder
from pyro_nlp.nn.heads import Head

Activation = Literal["tanh", "relu", "softplus"]
_ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "softplus": nn.Softplus}


class CountEncoder(Encoder):
    """A network of `layers` hidden layers over the counts of words: the encoder of NVDM, ProdLDA and ETM

    Args:
        vocabulary: number of words.
        width: units of every hidden layer, and size of the features.
        layers: hidden layers, at least 1.
        activation: after every layer.
        reads: `counts` as they are (NVDM, ProdLDA); `log`, log(1 + count), which long documents and bursts of a word do
            not dominate; `shares`, counts over their sum (ETM): of what is said, not of how much.
        dropout: rate on the features.
        batch_norm: normalise the output of every layer before its activation.
        word_dropout: rate on what it reads, word types at a time: a document is to be known by any of its words.
    """

    def __init__(
        self,
        vocabulary: int,
        width: int = 500,
        layers: int = 1,
        activation: Activation = "tanh",
        reads: Literal["counts", "log", "shares"] = "counts",
        dropout: float = 0.0,
        batch_norm: bool = False,
        word_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"CountEncoder: layers is {layers}; it takes at least 1")
        self.width, self.reads = width, reads
        parts: list[nn.Module] = [nn.Dropout(word_dropout)]
        for layer in range(layers):
            # a bias before a normalisation would be subtracted by it
            parts.append(nn.Linear(width if layer else vocabulary, width, bias=not batch_norm))
            if batch_norm:
                parts.append(BatchNorm(width))
            parts.append(_ACTIVATIONS[activation]())
        self.network = nn.Sequential(*parts, nn.Dropout(dropout))

    def forward(self, batch: CountBatch) -> Tensor:  # type: ignore[override]  # an encoder of its own kind of batch
        return self.network(self._read(batch.counts))

    def _read(self, counts: Tensor) -> Tensor:
        counts = counts.float()
        if self.reads == "log":
            return counts.log1p()
        if self.reads == "shares":
            return counts / counts.sum(-1, keepdim=True).clamp(min=1)
        return counts


class NormalisedHead(Head):
    """A Gaussian whose means and log-variances are both normalised over the batch: the head of ProdLDA
    Srivastava and Sutton 2017 (arXiv:1703.01488), section 3.2 and its code

    Neither has a learnt scale, so in every dimension the means of a batch have a standard deviation of 1: topics stay
    in use. Moments as in `BatchNorm`.

    Args:
        width: size of the features.
        latent: size of z.
    """

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        self.loc, self.log_variance = (
            nn.Sequential(nn.Linear(width, latent, bias=False), BatchNorm(latent, scale=False)) for _ in range(2)
        )

    def moments(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.loc(features), (0.5 * self.log_variance(features)).exp()
