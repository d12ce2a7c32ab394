"""Sentence compression: the latent variable is a sentence, from which the source is rewritten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import BOS, EOS, PAD, PairBatch, TextBatch
from pyro_nlp.data.compression import CompressionCorpus
from pyro_nlp.data.pair_corpus import PairCorpus
from pyro_nlp.data.text import TextCorpus
from pyro_nlp.distributions import WordSequence, Written
from pyro_nlp.distributions.written import Writer, allowed_lengths, check_lengths, is_padding, known_compressions
from pyro_nlp.nn import Decoder, LSTMDecoder, LSTMEncoder, StateEncoder, pool
from pyro_nlp.nn.language_model import LanguageModel


class SentenceCompression(PyroModule):
    """p(c) p(s | c): a short sentence, and the long one it was short for     Miao and Blunsom 2016b (arXiv:1609.07317)

    The prior is a language model of compressions; p(s | c) an encoder-decoder with attention over the words of c. In
    training a compression that is known (label 1 of its pair, or no labels at all) is pinned in the guide, so that
    supervised, semi-supervised and unsupervised learning are one model; what teaches the guide from it is the auxiliary
    loss `KnownSequences`.

    Sites    c  Written, event [M + 1]: word ids, `</s>`, padding
             s  WordSequence, event [T]
    Plates   documents (dim -1): the pairs

    Args:
        vocabulary: number of words, of sources and compressions together.
        prior: `prior(vocabulary, 0)`, the states of the language model `prior`. Its parameters are those of a
            `SentenceLM`, so that a run of one can be its start, and be held fixed (`Training.start`, `Training.fixed`).
        encoder: `encoder(vocabulary)` reads c, with a state at every word.
        decoder: `decoder(vocabulary, encoder.width)` gives the states that s is read from.
        width: size of the layer under the words.
        ratio: words of c to those of s, in (0, 1], rounded up; None for a length that is learnt. As of the guide.
        longest: words of a c of learnt length at most, or those of s where they are fewer. As of the guide.
        dropout: rate on the layer under the words.
    """

    plates = 1
    foretells = "first"

    def __init__(
        self,
        vocabulary: int,
        prior: Callable[[int, int], Decoder] = LSTMDecoder,
        encoder: Callable[[int], StateEncoder] = LSTMEncoder,
        decoder: Callable[[int, int], Decoder] = LSTMDecoder,
        width: int = 256,
        ratio: float | None = 0.4,
        longest: int = 20,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_lengths("SentenceCompression", ratio, longest)
        self.ratio, self.longest = ratio, longest
        self.prior = LanguageModel(prior(vocabulary, 0), vocabulary)
        self.encoder = encoder(vocabulary)
        self.decoder = decoder(vocabulary, self.encoder.width)
        self.query = nn.Linear(self.decoder.width, self.encoder.width, bias=False)
        self.of_state = nn.Linear(self.decoder.width, width)
        self.of_source = nn.Linear(self.encoder.width, width, bias=False)
        self.head = nn.Linear(width, vocabulary)
        self.dropout = nn.Dropout(dropout)

    def meet_corpus(self, corpus: Any) -> None:
        """Refuse one whose second texts are no compressions, or whose known ones are marked otherwise."""
        if isinstance(corpus, TextCorpus | PairCorpus) and not isinstance(corpus, CompressionCorpus):
            raise ValueError(
                f"SentenceCompression reads sentences and compressions, and {corpus.called} has none: "
                "--corpus CompressionFile reads a file of yours, with a compression after a tab where there is one"
            )

    def forward(self, batch: PairBatch) -> None:
        source = batch.first.mask[batch.group]
        known = known_compressions(batch, self.training)
        longest, lengths, most = allowed_lengths(batch, self.ratio, self.longest, known)
        with batch.documents():
            c = pyro.sample("c", Written(self.prior, len(batch), longest, lengths, most=most))
            hidden = self.rewrite(c, batch.first.inputs[batch.group])
            pyro.sample("s", WordSequence(hidden, self.head, source), obs=batch.first.targets[batch.group])

    def rewrite(self, c: Tensor, inputs: Tensor) -> Tensor:
        """What the source's words are read from: c `[..., B, M]` or relaxed `[..., B, M, V]`, inputs `[B, T]`, result
        `[..., B, T, width]`."""
        summary, states, mask = self._read(c)
        return self._attend(self.decoder(summary, inputs), states, mask)

    def dream(self, batch: PairBatch) -> tuple[dict[str, Tensor], PairBatch]:
        """Compressions that p(c) writes, and a source from each, for the sleep phase; none of them is known.

        A source has as many words as the one in whose place it is, as the model is given the lengths of compressions by
        those of sources: it is drawn from p(s | c) given its length.
        """
        longest, lengths, most = allowed_lengths(batch, self.ratio, self.longest, None)
        c = Written(self.prior, len(batch), longest, lengths, most=most).sample()
        words = batch.first.lengths[batch.group] - 1
        s = Written(_Rewriter(self, c), len(batch), int(words.max()), words).sample()
        inputs = torch.full_like(s, BOS)
        inputs[:, 1:] = s[:, :-1].masked_fill(s[:, :-1] == EOS, PAD)
        rows = torch.arange(len(batch), device=s.device)
        first = TextBatch(rows, len(batch), inputs, s, s != PAD)
        return {"c": c}, batch.replace(first=first, group=rows, labels=torch.full_like(rows, -1))

    def _read(self, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Summary `[..., B, D]`, states `[..., B, M, D]` and mask `[..., B, M]` of compressions."""
        mask = ~is_padding(c)
        flat, rows = c.flatten(0, mask.dim() - 2), mask.flatten(0, -2)
        states = self.encoder.states(TextBatch(torch.arange(len(rows), device=c.device), len(rows), flat, flat, rows))
        summary = pool(states, rows, self.encoder.pooling).view(*mask.shape[:-1], -1)
        return summary, states.view(*mask.shape, -1), mask

    def _attend(self, hidden: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """What words are read from, by the decoder's states `[..., B, T, D]` and what `_read` found."""
        energy = self.query(hidden) @ states.transpose(-1, -2) / states.shape[-1] ** 0.5
        where = energy.float().masked_fill(~mask[..., None, :], -1e4).softmax(-1)
        return self.dropout((self.of_state(hidden) + self.of_source(where.to(states.dtype) @ states)).tanh())


class _Rewriter(Writer):
    """p(s_t | s_<t, c) of a model for compressions `[B, M]`."""

    def __init__(self, model: SentenceCompression, c: Tensor) -> None:
        self.model, (self.summary, *self.read) = model, model._read(c)

    @property
    def device(self) -> torch.device:
        return self.summary.device

    @property
    def vocabulary(self) -> int:
        return self.model.head.out_features

    def logits(self, inputs: Tensor) -> Tensor:
        found: Tensor = self.model.head(self.model._attend(self.model.decoder(self.summary, inputs), *self.read))
        return found

    def begin(self, left: torch.Size) -> Any:
        return self.model.decoder.start(self.summary.expand(*left, -1))

    def step(self, state: Any, words: Tensor) -> tuple[Tensor, Any]:
        hidden, state = self.model.decoder.step(state, words)
        return self.model.head(self.model._attend(hidden[:, None], *self.read)).squeeze(1), state
