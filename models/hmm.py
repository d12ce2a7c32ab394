"""A hidden Markov model of sentences: a tag for every word, a chain of tags, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import pyro
import pyro.distributions as dist
import torch
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_nlp.data.batches import TextBatch
from pyro_nlp.distributions.chain_sum import clamp_tags
from pyro_nlp.distributions.hidden_markov import HiddenMarkov, NextWord, Observed
from pyro_nlp.distributions.labelled import refuse_more_tags, seen_tags
from pyro_nlp.nn import Decoder, write
from pyro_nlp.nn.sizes import refuse_none


class HMM(PyroModule):
    """prod_t p(tag_t | tag_t-1) p(x_t | tag_t), tags summed out        Rabiner 1989 (Proceedings of the IEEE 77)

    The tags leave the model: `x` is their exact marginal, so there is no guide and every strategy is maximum
    likelihood. A sentence ends because `</s>` is a word like any other. The first word is emitted without a transition
    before it. Tran et al. 2016 (arXiv:1609.09007) put networks in the place of the tables: `NeuralHMM`.

    With supervision the tags of a share of the sentences are observed in training, state k being tag k, and what is
    climbed is log p(x, known tags): supervised, semi-supervised and unsupervised are one likelihood. In evaluation mode
    no tag is known, so the likelihood is always that of words. `marginals`, `viterbi` and `sample_tags` never know one.

    Sites    x  HiddenMarkov, event [T], padding masked out
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        states: number of tags, K.
        emission_spread: standard deviation of the first logits of words; tags that begin alike would stay alike.
        transition_spread: standard deviation of the first logits of tags; small, so that words decide what a tag
            becomes.
        supervision: share of the training sentences whose tags are observed, 0 to 1; which ones follows from their
            index (`seen_tags`).
    """

    plates = 1

    def __init__(
        self,
        vocabulary: int,
        states: int = 45,
        emission_spread: float = 1.0,
        transition_spread: float = 0.1,
        supervision: float = 0.0,
    ) -> None:
        super().__init__()
        refuse_none(self, states=states)
        self.states, self.supervision = states, supervision
        self.initial = nn.Parameter(transition_spread * torch.randn(states))
        self.transition = nn.Parameter(transition_spread * torch.randn(states, states))
        self.emission = nn.Parameter(emission_spread * torch.randn(states, vocabulary))

    def meet_corpus(self, corpus: Any) -> None:
        """Refuse one with more tags than there are states."""
        refuse_more_tags(len(getattr(corpus, "tags", ())), self.states, self.supervision)

    def forward(self, batch: TextBatch) -> None:
        tags = seen_tags(batch, self.supervision, self.states, self.training)
        with batch.documents():
            pyro.sample("x", self._sentences(batch, tags), obs=batch.targets)

    def marginals(self, batch: TextBatch) -> Tensor:
        """p(tag_t = k | x), `[B, T, K]`; zeros at padding."""
        return self._sentences(batch).marginals(batch.targets)

    def viterbi(self, batch: TextBatch) -> tuple[Tensor, Tensor]:
        """The likeliest tags `[B, T]` (-1 at padding), and log p(x, tags) `[B]`."""
        return self._sentences(batch).viterbi(batch.targets)

    def sample_tags(self, batch: TextBatch) -> Tensor:
        """Tags drawn from their posterior, `[B, T]`; -1 at padding."""
        return self._sentences(batch).posterior_sample(batch.targets)

    @torch.no_grad()
    def generate(self, latents: Mapping[str, Tensor], count: int = 1, **options: Any) -> Tensor:
        """`count` sentences as ids `[count, L]`; there are no latents to start from. Options: see `nn.write`."""
        rows = self.initial.new_zeros(count, 0)
        return write(
            cast(Decoder, NextWord(self.initial, self.transition, self.emission)),
            cast(nn.Linear, nn.Identity()),
            rows,
            **options,
        )

    def _sentences(self, batch: TextBatch, tags: Tensor | None = None) -> HiddenMarkov:
        return HiddenMarkov(self.initial, self.transition, self.emission, batch.mask, tags)


class EnumeratedHMM(HMM):
    """prod_t p(tag_t | tag_t-1) p(x_t | tag_t), tags enumerated by Pyro  Rabiner 1989 (Proceedings of the IEEE 77)

    The same model and the same parameters with every tag a site, for `pyro.infer.TraceEnum_ELBO(max_plate_nesting=1)`
    and an empty guide: a check of `HMM`, and a place to begin from where a model outgrows it. Some ten times slower.

    Sites    tag_0 .. tag_T-1  Categorical, enumerated in parallel
             x_0 .. x_T-1      the word's log-probability, padding masked out
    Plates   documents (dim -1)

    Args:
        vocabulary: number of words.
        states: number of tags, K.
        emission_spread: standard deviation of the first logits of words.
        transition_spread: standard deviation of the first logits of tags.
        supervision: share of the training sentences whose tags are observed.
    """

    def forward(self, batch: TextBatch) -> None:
        # Emissions of the words at hand, `[T, B, K]`; Categorical(logits=emission[tag]) would hold [B, T, K, V].
        emitted = self.emission.log_softmax(1)[:, batch.targets].permute(2, 1, 0)
        tags = seen_tags(batch, self.supervision, self.states, self.training)
        emitted = clamp_tags(emitted, None if tags is None else tags.t())
        row = torch.arange(len(batch), device=emitted.device)
        tag: Tensor | None = None
        with batch.documents():
            for t in pyro.markov(range(emitted.shape[0])):
                logits = self.initial if tag is None else self.transition[tag]
                # A tag of padding is drawn too: it sums to one. Masked, it would count as many times as there are tags.
                tag = pyro.sample(f"tag_{t}", dist.Categorical(logits=logits), infer={"enumerate": "parallel"})
                word = Observed(emitted[t][row, tag]).mask(batch.mask[:, t])
                pyro.sample(f"x_{t}", word, obs=batch.targets[:, t])
