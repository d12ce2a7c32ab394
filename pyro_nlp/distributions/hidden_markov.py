"""A sentence under a hidden Markov model: its distribution, and its next word (layer: distributions)."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import Categorical, constraints

from pyro_nlp.data.batches import BOS, PAD
from pyro_nlp.distributions.chain_blocks import BlockEmission, within_blocks
from pyro_nlp.distributions.chain_emissions import Emission, TableEmission
from pyro_nlp.distributions.chain_sum import chain_log_prob, clamp_tags, log_forward
from pyro_nlp.distributions.forward_backward import Chain, marginal_log_prob
from pyro_nlp.distributions.moves import Dense, Moves, log_softmax

NO_TAG = -1
"""Stands for the tag of a padded position."""


class HiddenMarkov(TorchDistribution):
    """sum_z p(z_1) p(x_1 | z_1) prod_t p(z_t | z_t-1) p(x_t | z_t) over the real positions of a sentence.

    The first tag emits the first word: no transition comes before it, where `pyro.distributions.DiscreteHMM` has one.

    Shapes: initial `[K]`, transition `[K, K]` (from, to) and emission `[K, V]` are logits, normalised along the last
    dimension here; mask `[..., B, T]` is true at real positions, which stand left of the padding; batch shape
    `[..., B]`, event shape `[T]`; values are ids `[..., B, T]` and may carry more left dimensions than the mask.

    In place of the table `transition` may be any of `moves.py`: `Varying` by position, `LowRank`, `SecondOrder`; and
    in place of the table `emission` a `FactoredEmission`; or a `BlockEmission`, beside a table of transitions alone and
    without known tags, so that only the states that may emit a word are looked at.

    Tags `[..., B, T]` that are known (-1 where unknown) are taken as observed: `log_prob` is then log p(x, known tags),
    and all else is conditioned on them.

    Of two tables, `log_prob` is a scaled forward pass with its gradient by a backward pass (`forward_backward.py`),
    once differentiable, and of all others that of `chain_sum.py`; within `second_derivatives()` it is plain autograd.
    Methods that look at the chain take a value:

        >>> x = HiddenMarkov(initial, transition, emission, batch.mask)
        >>> x.marginals(batch.targets)  # p(z_t | x), [B, T, K]
        >>> tags, log_p = x.viterbi(batch.targets)

    Reference: Rabiner 1989 (Proceedings of the IEEE 77).
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 (torch's own declaration)
    has_rsample = False

    def __init__(
        self,
        initial: Tensor,
        transition: Tensor | Moves,
        emission: Tensor | Emission,
        mask: Tensor,
        tags: Tensor | None = None,
        batch_shape: torch.Size | None = None,
    ) -> None:
        states = (emission.shape if isinstance(emission, Tensor) else (emission.states, emission.words))[0]
        square = transition.shape if isinstance(transition, Tensor) else (transition.tags, transition.tags)
        if initial.shape != (states,) or square != (states, states):
            emitted = list(emission.shape) if isinstance(emission, Tensor) else [states, emission.words]
            raise ValueError(
                f"initial {list(initial.shape)}, transition {list(square)} and emission {emitted} do not fit: "
                "give [K], [K, K] and [K, V]"
            )
        if isinstance(emission, BlockEmission) and not isinstance(transition, Tensor):
            raise ValueError(
                f"emissions by blocks go with a table of transitions, and {type(transition).__name__} is none: choose "
                "transitions that are logits [K, K]"
            )
        if isinstance(emission, BlockEmission) and tags is not None:
            raise ValueError(
                "a word has one block of states, whatever its tag: known tags want other emissions, as WordEmissions, "
                "or supervision 0"
            )
        self.initial, self.transition, self.emission, self.mask_, self.tags = initial, transition, emission, mask, tags
        super().__init__(mask.shape[:-1] if batch_shape is None else batch_shape, mask.shape[-1:], validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.integer_interval(0, self._emission.words - 1), 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> HiddenMarkov:
        # Nothing is copied: log_prob works at the value's own shape and expands its result.
        parts = self.initial, self.transition, self.emission, self.mask_, self.tags
        return HiddenMarkov(*parts, torch.Size(batch_shape))

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(x) of each sentence in nats, padding left out, `[..., B]`; with tags, log p(x, known tags)."""
        words, mask, tags, left = self._rows(value)
        if isinstance(self.transition, Tensor) and isinstance(self.emission, Tensor):
            found = marginal_log_prob(Chain(self.initial, self.transition, self.emission), words, mask, tags)
        else:
            found = chain_log_prob(*self._chain(words, tags, left), mask)
        found = found.view(left)
        return found.expand(torch.broadcast_shapes(left, self.batch_shape))

    def marginals(self, value: Tensor) -> Tensor:
        """p(z_t = k | x), `[..., B, T, K]`; zeros at padding."""
        words, mask, tags, left = self._rows(value)
        with torch.no_grad():
            initial, moves, emitted = self._chain(words, tags, left)
        with torch.enable_grad():  # d log p(x) / d log p(x_t | z_t = k) is just that
            total = chain_log_prob(initial.detach(), moves, emitted.requires_grad_(), mask)
            (found,) = torch.autograd.grad(total.sum(), emitted)
        found = found * mask[..., None]
        if isinstance(self.emission, BlockEmission):
            every = found.new_zeros(*words.shape, self.emission.states)
            found = every.scatter(2, self.emission.members(words), found)
        return found.view(*left, *found.shape[1:])

    @torch.no_grad()
    def viterbi(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """The likeliest chain of each sentence `[..., B, T]` (-1 at padding), and log p(x, chain) `[..., B]`."""
        words, mask, tags, left = self._rows(value)
        initial, moves, emitted = self._chain(words, tags, left)
        emitted = moves.spread(emitted)
        best, came_from = moves.begin(initial) + emitted[:, 0], []
        stay = torch.arange(best.shape[1], device=best.device).expand_as(best)
        for t in range(1, words.shape[1]):
            here = mask[:, t, None]
            step, origin = moves.best(t, best)
            best = torch.where(here, step + emitted[:, t], best)
            came_from.append(torch.where(here, origin, stay))
        log_prob, state = best.max(1)
        states = [state]
        for origin in reversed(came_from):
            states.append(origin.gather(1, states[-1][:, None]).squeeze(1))
        path = self._tags(moves.tag(torch.stack(states[::-1], 1)), words, mask)
        return path.view(*left, -1), torch.where(mask[:, 0], log_prob, 0.0).view(left)

    @torch.no_grad()
    def posterior_sample(self, value: Tensor) -> Tensor:
        """A draw from p(z | x) of each sentence, filtered forward and drawn backward, `[..., B, T]`; -1 at padding."""
        words, mask, tags, left = self._rows(value)
        initial, moves, emitted = self._chain(words, tags, left)
        alphas = log_forward(initial, moves, emitted, mask)
        state = Categorical(logits=alphas[-1]).sample()  # past its end a sentence keeps its last alpha
        states = [state]
        for t in range(len(alphas) - 1, 0, -1):
            here = mask[:, t]  # whether there is a transition to t
            score = alphas[t - 1] + torch.where(here[:, None], moves.into(t, state), 0.0)
            state = torch.where(here, Categorical(logits=score).sample(), state)
            states.append(state)
        return self._tags(moves.tag(torch.stack(states[::-1], 1)), words, mask).view(*left, -1)

    @torch.no_grad()
    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        """Sentences as long as the mask says, whatever words they hold; 0 at padding. Known tags do not count."""
        left = torch.Size(sample_shape) + self.batch_shape
        mask = self.mask_.expand(*left, -1)
        moves, count = self._moves(left), left.numel()
        state = Categorical(logits=moves.begin(log_softmax(self.initial))).sample((count,))
        states = [state]
        for t in range(1, mask.shape[-1]):
            state = Categorical(logits=moves.out_of(t, state)).sample()
            states.append(state)
        tagged = moves.tag(torch.stack(states, -1)).view(mask.shape)
        words = torch.zeros_like(tagged)
        for k in tagged[mask].unique():  # state by state: a table per position would be [.., T, V]
            chosen = mask & (tagged == k)
            row = self._emission.rows(k[None])[0].softmax(-1)
            words[chosen] = row.multinomial(int(chosen.sum()), replacement=True)
        return words

    @property
    def _emission(self) -> Emission:
        return TableEmission(self.emission) if isinstance(self.emission, Tensor) else self.emission

    def _moves(self, left: torch.Size) -> Moves:
        """The transitions of `left` sentences."""
        moves = Dense(self.transition) if isinstance(self.transition, Tensor) else self.transition
        own = self.mask_.shape[:-1].numel()
        return moves.rows(left.numel() // own) if own else moves

    def _chain(self, words: Tensor, tags: Tensor | None, left: torch.Size) -> tuple[Tensor, Moves, Tensor]:
        """The first state, the moves and what is emitted; by blocks, of the states of each word's block alone."""
        emission = self._emission
        if not isinstance(emission, BlockEmission):
            return log_softmax(self.initial), self._moves(left), clamp_tags(emission.look_up(words), tags)
        assert isinstance(self.transition, Tensor)
        moves, emitted = within_blocks(self.initial, self.transition, emission, words)
        return emitted.new_zeros(emission.size), moves, emitted

    def _tags(self, path: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        """What `_chain` calls a state as a tag, -1 at padding, `[N, T]`."""
        if isinstance(self.emission, BlockEmission):
            path = path + self.emission.members(words)[..., 0]
        return path.masked_fill(~mask, NO_TAG)

    def _rows(self, value: Tensor) -> tuple[Tensor, Tensor, Tensor | None, torch.Size]:
        """Words, mask and tags as `[N, T]`, and the left dimensions that N stands for."""
        left = torch.broadcast_shapes(value.shape[:-1], self.mask_.shape[:-1])
        length = self.event_shape[0]
        words, mask = (x.expand(*left, length).reshape(-1, length) for x in (value, self.mask_))
        tags = None if self.tags is None else self.tags.expand(*left, length).reshape(-1, length)
        return words, mask, tags, left


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


class Informed(Protocol):
    """Transitions that depend on the words so far: what `NextWord` asks of them."""

    def start(self, rows: int) -> tuple[Tensor, ...]:
        """What they remember before the first word, each `[rows, ...]`."""

    def step(self, memory: tuple[Tensor, ...], words: Tensor) -> tuple[Moves, tuple[Tensor, ...]]:
        """Read a word in every row, `[rows]`: the moves to the next tag (at t = 1), and what is remembered."""


class NextWord(nn.Module):
    """A hidden Markov model as a decoder for `nn.write`, with `Identity` for its vocabulary layer.

    Its state is what the words so far say of the next tag, and it expects the next word by that. Initial and emission
    are logits, as in `HiddenMarkov`; no gradient comes out.
    """

    @torch.no_grad()
    def __init__(self, initial: Tensor, transition: Tensor | Moves | Informed, emission: Tensor) -> None:
        super().__init__()
        self.transition: Moves | Informed = Dense(transition) if isinstance(transition, Tensor) else transition
        self.initial, self.emission = log_softmax(initial), log_softmax(emission)

    def start(self, z: Tensor) -> tuple[Tensor, ...]:
        """Before the first word, `[rows, S]` and what the transitions remember."""
        if isinstance(self.transition, Moves):
            return (self.transition.begin(self.initial).expand(len(z), -1),)
        return (self.initial.expand(len(z), -1), *self.transition.start(len(z)))

    def step(self, state: tuple[Tensor, ...], words: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """log p(x_t | x_<t) `[rows, V]`, and log p(state_t | x_<t): words `[rows]` are the ones before."""
        belief, *remembered = state
        memory = tuple(remembered)
        if isinstance(self.transition, Moves):
            moves = self.transition
        else:
            moves, memory = self.transition.step(memory, words)
        seen = (belief + moves.spread(self.emission[:, words].t())).log_softmax(1)  # log p(state_t-1 | x_<t)
        unread = (words == BOS) | (words == PAD)  # no word before this, or none after the end
        belief = torch.where(unread[:, None], belief, moves.log_pushed(1, seen))
        return (moves.by_tag(belief.exp()) @ self.emission.exp()).log(), (belief, *memory)
