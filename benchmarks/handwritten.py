"""The alternatives: the sentence VAE and a bag-of-words VAE as one writes them without any library but PyTorch.

Only networks and losses; both sides of a comparison share batches, sizes, clipping and optimiser unless a row says so.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainSentenceVAE(nn.Module):
    """The network of `sentence_vae`: LSTM encoder, last state; LSTM decoder, z as initial state and beside inputs."""

    def __init__(self, vocabulary: int, latent: int = 32, embedding: int = 256, width: int = 256) -> None:
        super().__init__()
        self.encoder_words = nn.Embedding(vocabulary, embedding)
        self.encoder = nn.LSTM(embedding, width, batch_first=True)
        self.loc, self.log_variance = nn.Linear(width, latent), nn.Linear(width, latent)
        self.decoder_words = nn.Embedding(vocabulary, embedding)
        self.decoder = nn.LSTM(embedding + latent, width, batch_first=True)
        self.initial = nn.Linear(latent, width, bias=False)
        self.head = nn.Linear(width, vocabulary)

    def posterior(self, targets: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z | x)."""
        states, _ = self.encoder(self.encoder_words(targets))
        last = states[torch.arange(len(states)), lengths - 1]
        return self.loc(last), self.log_variance(last)

    def logits(self, z: Tensor, inputs: Tensor) -> Tensor:
        """Of every word at every position, padding too."""
        words = self.decoder_words(inputs)
        cell = self.initial(z)
        code = z[:, None].expand(-1, inputs.shape[1], -1)
        states, _ = self.decoder(torch.cat([words, code], -1), (cell.tanh()[None], cell[None]))
        return self.head(states)

    def forward(self, inputs: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
        """-ELBO per sentence; 0 is padding."""
        loc, log_variance = self.posterior(targets, lengths)
        z = loc + (0.5 * log_variance).exp() * torch.randn_like(loc)
        logits = self.logits(z, inputs)
        nll = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=0, reduction="sum")
        kl = -0.5 * (1 + log_variance - loc.square() - log_variance.exp()).sum()
        return (nll + kl) / len(inputs)


class PlainBagVAE(nn.Module):
    """NVDM's network: one hidden layer, a softmax over the vocabulary."""

    def __init__(self, vocabulary: int = 2000, hidden: int = 500, latent: int = 50) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(vocabulary, hidden), nn.Tanh())
        self.loc, self.log_variance = nn.Linear(hidden, latent), nn.Linear(hidden, latent)
        self.decoder = nn.Linear(latent, vocabulary)

    def forward(self, counts: Tensor) -> Tensor:
        """-ELBO per document."""
        features = self.encoder(counts)
        loc, log_variance = self.loc(features), self.log_variance(features)
        z = loc + (0.5 * log_variance).exp() * torch.randn_like(loc)
        nll = -(counts * self.decoder(z).log_softmax(-1)).sum()
        kl = -0.5 * (1 + log_variance - loc.square() - log_variance.exp()).sum()
        return (nll + kl) / len(counts)
