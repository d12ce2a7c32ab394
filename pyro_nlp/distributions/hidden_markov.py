"""A sentence under a hidden Markov model: its distribution, and its next word (layer: distributions)."""

from __future__ import annotations

from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import Categorical, constraints

from pyro_nlp.data.batches import BOS, PAD
from pyro_nlp.distributions.forward_backward import Chain, log_alphas, logsumexp, marginal_log_prob

NO_TAG = -1
"""Stands for the tag of a padded position."""


class HiddenMarkov(TorchDistribution):
    """sum_z p(z_1) p(x_1 | z_1) prod_t p(z_t | z_t-1) p(x_t | z_t) over the real positions of a sentence.

    The first tag emits the first word: no transition comes before it, where `pyro.distributions.DiscreteHMM` has one.

    Shapes: initial `[K]`, transition `[K, K]` (from, to) and emission `[K, V]` are logits, normalised along the last
    dimension here; mask `[..., B, T]` is true at real positions, which stand left of the padding; batch shape
    `[..., B]`, event shape `[T]`; values are ids `[..., B, T]` and may carry more left dimensions than the mask.

    `log_prob` is a scaled forward pass with its gradient by a backward pass (`forward_backward.py`), once
    differentiable; within `second_derivatives()` it is plain autograd. Methods that look at the chain take a value:

        >>> x = HiddenMarkov(initial, transition, emission, batch.mask)
        >>> x.marginals(batch.targets)  # p(z_t | x), [B, T, K]
        >>> tags, log_p = x.viterbi(batch.targets)

    Reference: Rabiner 1989 (Proceedings of the IEEE 77).
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)
    has_rsample = False

    def __init__(
        self, initial: Tensor, transition: Tensor, emission: Tensor, mask: Tensor, batch_shape: torch.Size | None = None
    ) -> None:
        states = emission.shape[-2]
        if initial.shape != (states,) or transition.shape != (states, states) or emission.dim() != 2:
            raise ValueError(
                f"initial {list(initial.shape)}, transition {list(transition.shape)} and emission "
                f"{list(emission.shape)} do not fit: give [K], [K, K] and [K, V]"
            )
        self.chain, self.mask_ = Chain(initial, transition, emission), mask
        super().__init__(mask.shape[:-1] if batch_shape is None else batch_shape, mask.shape[-1:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.integer_interval(0, self.chain.emission.shape[1] - 1), 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> HiddenMarkov:
        # Nothing is copied: log_prob works at the value's own shape and expands its result.
        return HiddenMarkov(*self.chain, self.mask_, torch.Size(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x) of each sentence in nats, padding left out, `[..., B]`."""
        words, mask, left = self._rows(value)
        found = marginal_log_prob(self.chain, words, mask).view(left)
        return found.expand(torch.broadcast_shapes(left, self.batch_shape))

    def marginals(self, value: Tensor) -> Tensor:
        """p(z_t = k | x), `[..., B, T, K]`; zeros at padding."""
        words, mask, left = self._rows(value)
        with torch.no_grad():
            chain = self.chain.normalised()
            emitted = chain.look_up(words)
        with torch.enable_grad():  # d log p(x) / d log p(x_t | z_t = k) is just that
            total = logsumexp(log_alphas(chain, emitted.requires_grad_(), mask)[-1], -1)
            (found,) = torch.autograd.grad(total.sum(), emitted)
        return (found * mask[..., None]).view(*left, *found.shape[1:])

    @torch.no_grad()
    def viterbi(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The likeliest chain of each sentence `[..., B, T]` (-1 at padding), and log p(x, chain) `[..., B]`."""
        words, mask, left = self._rows(value)
        chain = self.chain.normalised()
        emitted = chain.look_up(words)
        best, came_from = chain.initial + emitted[:, 0], []
        stay = torch.arange(best.shape[1], device=best.device).expand_as(best)
        for t in range(1, words.shape[1]):
            here = mask[:, t, None]
            step, origin = (best[:, :, None] + chain.transition).max(1)
            best = torch.where(here, step + emitted[:, t], best)
            came_from.append(torch.where(here, origin, stay))
        log_prob, tag = best.max(1)
        tags = [tag]
        for origin in reversed(came_from):
            tags.append(origin.gather(1, tags[-1][:, None]).squeeze(1))
        path = torch.stack(tags[::-1], 1).masked_fill(~mask, NO_TAG)
        return path.view(*left, -1), torch.where(mask[:, 0], log_prob, 0.0).view(left)

    @torch.no_grad()
    def posterior_sample(self, value: Tensor) -> Tensor:
        """A draw from p(z | x) of each sentence, filtered forward and drawn backward, `[..., B, T]`; -1 at padding."""
        words, mask, left = self._rows(value)
        chain = self.chain.normalised()
        alphas = log_alphas(chain, chain.look_up(words), mask)
        tag = Categorical(logits=alphas[-1]).sample()  # past its end a sentence keeps its last alpha
        tags = [tag]
        for t in range(len(alphas) - 2, -1, -1):
            here = mask[:, t + 1]  # whether there is a transition from t
            drawn = Categorical(logits=alphas[t] + chain.transition.t()[tag]).sample()
            tag = torch.where(here, drawn, tag)
            tags.append(tag)
        return torch.stack(tags[::-1], 1).masked_fill(~mask, NO_TAG).view(*left, -1)

    @torch.no_grad()
    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Sentences as long as the mask says, whatever words they hold; 0 at padding."""
        chain = self.chain.normalised()
        shape = (*torch.Size(sample_shape), *self.batch_shape, *self.event_shape)
        mask = self.mask_.expand(shape)
        tag = Categorical(logits=chain.initial).sample(shape[:-1])
        tags = [tag]
        for _ in range(shape[-1] - 1):
            tag = Categorical(logits=chain.transition[tag]).sample()
            tags.append(tag)
        tagged = torch.stack(tags, -1)
        words = torch.zeros_like(tagged)
        for k, row in enumerate(chain.emission.exp()):  # state by state: a table per position would be [.., T, V]
            chosen = mask & (tagged == k)
            if chosen.any():
                words[chosen] = row.multinomial(int(chosen.sum()), replacement=True)
        return words

    def _rows(self, value: Tensor) -> tuple[Tensor, Tensor, torch.Size]:
        """Words and mask as `[N, T]`, and the left dimensions that N stands for."""
        left = torch.broadcast_shapes(value.shape[:-1], self.mask_.shape[:-1])
        length = self.event_shape[0]
        words, mask = (x.expand(*left, length).reshape(-1, length) for x in (value, self.mask_))
        return words, mask, left


class Observed(TorchDistribution):
    """Something observed whose log-probability `[...]` has been looked up already: a word of an enumerated chain."""

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)
    support = constraints.nonnegative_integer

    def __init__(self, log_p: Tensor) -> None:
        self.log_p = log_p
        super().__init__(log_p.shape, validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Observed:
        return Observed(self.log_p.expand(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        return self.log_p


class NextWord(nn.Module):
    """A hidden Markov model as a decoder for `nn.write`, with `Identity` for its vocabulary layer.

    Its state is what the words so far say of the next tag, and it expects the next word by that. Arguments are logits,
    as in `HiddenMarkov`; no gradient comes out.
    """

    @torch.no_grad()
    def __init__(self, initial: Tensor, transition: Tensor, emission: Tensor) -> None:
        super().__init__()
        self.initial, log_transition, log_emission = Chain(initial, transition, emission).normalised()
        self.transition, self.emission = log_transition.exp(), log_emission.exp()

    def start(self, z: Tensor) -> tuple[Tensor]:
        """log p(tag_1), `[rows, K]`."""
        return (self.initial.expand(len(z), -1),)

    def step(self, state: tuple[Tensor], words: Tensor) -> tuple[Tensor, tuple[Tensor]]:
        """log p(x_t | x_<t) `[rows, V]`, and log p(tag_t | x_<t): words `[rows]` are the ones before."""
        (belief,) = state
        seen = (belief + self.emission[:, words].t().log()).softmax(1)  # p(tag_t-1 | x_<t)
        unread = (words == BOS) | (words == PAD)  # no word before this, or none after the end
        belief = torch.where(unread[:, None], belief, (seen @ self.transition).log())
        return (belief.exp() @ self.emission).log(), (belief,)
