"""Sequences written word by word, each word read before the next is chosen (layer: distributions)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from pyro.distributions import TorchDistribution
from pyro.distributions.torch_distribution import constraints
from torch import Tensor, nn

from pyro_nlp.data.batches import BOS, EOS, PAD, PairBatch

OUT_OF_REACH = -1e4
"""A logit whose exponential is 0 in float32, and has a gradient all the same."""


ROUNDING = 1e-9
"""0.6 of 25 words is 15, and a little more in floating point."""


class Writer(ABC):
    """What says of every next word how likely it is.

    Words are ids, or relaxed: points of the simplex over the vocabulary in floating point, with a dimension V more.
    """

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where its words are."""

    @property
    @abstractmethod
    def vocabulary(self) -> int:
        """Number of words, V."""

    @abstractmethod
    def logits(self, inputs: Tensor) -> Tensor:
        """Of the next word after each prefix: inputs `<s> c_1 ...` `[..., B, M]` to `[..., B, M, V]`."""

    @abstractmethod
    def begin(self, left: torch.Size) -> Any:
        """The state before the first word, of `left` = `[..., B]` sequences at once."""

    @abstractmethod
    def step(self, state: Any, words: Tensor) -> tuple[Tensor, Any]:
        """Read one word in every sequence, `[..., B]`; logits of the next `[..., B, V]`, and the state after it."""

    def score(self, inputs: Tensor, words: Tensor, ends: Ends) -> Tensor:
        """log-probabilities of words `[..., B, M]` that are ids, after each prefix `inputs`, and where they may end.

        This default looks at the whole vocabulary; a writer that need not does better.
        """
        log_p = restrict(self.logits(inputs), ends).log_softmax(-1)
        words = words.expand(torch.broadcast_shapes(words.shape, log_p.shape[:-1]))  # which gather would not
        return log_p.gather(-1, words[..., None]).squeeze(-1)

    def choose(self, state: Any, words: Tensor, ends: Ends) -> tuple[Tensor, Any]:
        """Read one word in every sequence, `[..., B]`, and draw the next; ends are `[..., B]`. The default as above."""
        logits, state = self.step(state, words)
        return draw(restrict(logits, ends)), state

    def candidates(self, state: Any, words: Tensor, ends: Ends) -> tuple[Tensor, Tensor, Any]:
        """Read one word in every sequence, `[..., B]`, and see what may be next.

        Words `[..., B, K]` and their log-probabilities, -inf where one may not be; no word with a chance is there
        twice. The default as above: all V.
        """
        logits, state = self.step(state, words)
        log_p = restrict(logits, ends).log_softmax(-1)
        every = torch.arange(log_p.shape[-1], device=log_p.device).expand_as(log_p)
        return every, log_p.masked_fill(log_p < OUT_OF_REACH / 2, -torch.inf), state


class Ends(NamedTuple):
    """Where sequences may end, and where they must, bool, of a shape that broadcasts with that of the words."""

    may: Tensor
    must: Tensor

    def at(self, place: int) -> Ends:
        """Of one position."""
        return Ends(self.may[..., place], self.must[..., place])


def restrict(logits: Tensor, ends: Ends) -> Tensor:
    """Logits `[..., V]` with what cannot stand there out of reach: padding and `<s>`, an end or a word."""
    word = torch.arange(logits.shape[-1], device=logits.device)
    end = word == EOS
    outside = (end & ~ends.may[..., None]) | (~end & ends.must[..., None]) | (word == PAD) | (word == BOS)
    return logits.float().masked_fill(outside, OUT_OF_REACH)


def draw(logits: Tensor) -> Tensor:
    """One index from each row of logits `[..., K]`, `[...]`."""
    return torch.multinomial(logits.softmax(-1).flatten(0, -2), 1).view(logits.shape[:-1])


class Written(TorchDistribution):
    """prod_j p(c_j | c_<j) over sequences of words that end with `</s>`; after it stands padding.

    With `lengths` a sequence has so many words and the end is certain; without, it ends when `</s>` is written, after
    `longest` words at the latest. No sequence is empty, and padding and `<s>` are never written.

    Shapes: batch `[..., B]`, event `[M]` with M = longest + 1. A relaxed value is `[..., B, M, V]`: its log-probability
    is sum_j <c_j, log p(. | c_<j)>, that of the sequence where every word is one-hot.

    Args:
        writer: gives the logits.
        batch: B.
        longest: words of a sequence at most, its end not counted; with `lengths` their maximum, or more.
        lengths: words of each sequence, its end not counted, `[B]`; None where the writer decides.
        most: where it decides, words of each at most, `[B]`; None for `longest`.
        known: sequences that are given, `[B, M]`, and for which documents, bool `[B]`: there draws are the given
            sequence and its probability is one.

    Raises:
        ValueError: a length below 1 or above `longest`.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    has_rsample = False

    def __init__(
        self,
        writer: Writer,
        batch: int,
        longest: int,
        lengths: Tensor | None = None,
        known: tuple[Tensor, Tensor] | None = None,
        batch_shape: torch.Size | None = None,
        most: Tensor | None = None,
    ) -> None:
        if longest < 1 or (lengths is not None and not 1 <= int(lengths.min()) <= int(lengths.max()) <= longest):
            raise ValueError(f"lengths are 1 to longest, which is {longest}; found {lengths}")
        self.writer, self.batch, self.longest, self.lengths, self.known = writer, batch, longest, lengths, known
        self.most = most
        left = torch.Size([batch]) if batch_shape is None else batch_shape
        super().__init__(left, torch.Size([longest + 1]), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.nonnegative_integer, 1)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Written:
        left = torch.Size(batch_shape)
        return Written(self.writer, self.batch, self.longest, self.lengths, self.known, left, self.most)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        with torch.no_grad():
            left = torch.Size(sample_shape) + self.batch_shape
            state = self.writer.begin(left)
            word = torch.full(left, BOS, device=self.writer.device)
            ended, found = torch.zeros_like(word, dtype=torch.bool), []
            for j in range(self.longest + 1):
                word, state = self.writer.choose(state, word, self.ends(j, 1).at(0))
                word = word.masked_fill(ended, PAD)
                ended = ended | (word == EOS)
                found.append(word)
            drawn = torch.stack(found, -1)
            return drawn if self.known is None else torch.where(self.known[1][:, None], self.known[0], drawn)

    @property
    def count(self) -> int:
        """How many sequences of one to `longest` words there are, whatever their lengths may be here."""
        return int(sum((self.writer.vocabulary - 3) ** length for length in range(1, self.longest + 1)))

    def all_sequences(self) -> Tensor:
        """All of them, `[count, M]`; those of a length that a document may not have are out of its reach."""
        words = torch.tensor([w for w in range(self.writer.vocabulary) if w not in (PAD, BOS, EOS)])
        found = []
        for length in range(1, self.longest + 1):
            each = torch.cartesian_prod(*[words] * length).view(-1, length)
            found.append(
                nn.functional.pad(nn.functional.pad(each, (0, 1), value=EOS), (0, self.longest - length), value=PAD)
            )
        return torch.cat(found).to(self.writer.device)

    def relaxed(self, choose: Callable[[Tensor], Tensor]) -> Tensor:
        """A relaxed draw with a gradient, `[..., B, M, V]`, every word given the relaxed ones before it.

        A sequence ends with the first word that is mostly `</s>`. Known sequences are themselves.

        Args:
            choose: normalised log-probabilities of words `[..., V]` to a point of the simplex.
        """
        left = self.batch_shape
        state = self.writer.begin(left)
        word = torch.full(left, BOS, device=self.writer.device)
        ended, found = torch.zeros_like(word, dtype=torch.bool), []
        for j in range(self.longest + 1):
            logits, state = self.writer.step(state, word)
            word = choose(self._allowed(logits[..., None, :], j).squeeze(-2).log_softmax(-1))
            padding = one_hot_words(torch.full_like(ended, PAD, dtype=torch.long), word)
            word = torch.where(ended[..., None], padding, word)
            ended = ended | (word.argmax(-1) == EOS)
            found.append(word)
        drawn = torch.stack(found, -2)
        if self.known is None:
            return drawn
        return torch.where(self.known[1][:, None, None], one_hot_words(self.known[0], drawn), drawn)

    def log_prob(self, value: Tensor) -> Tensor:
        """log p(c) in nats, `[..., B]`; 0 where the sequence is known."""
        log_p = self.log_prob_by_word(value).sum(-1)
        return log_p.expand(torch.broadcast_shapes(log_p.shape, self.batch_shape))

    def log_prob_by_word(self, value: Tensor) -> Tensor:
        """log p(c_j | c_<j) in nats, `[..., B, M]`; 0 at padding. A known sequence is certain, another out of reach."""
        log_p = self.log_written(value)
        if self.known is None:
            return log_p
        words = value.argmax(-1) if value.is_floating_point() else value
        at_known = torch.where(words == self.known[0], 0.0, OUT_OF_REACH)
        return torch.where(self.known[1][:, None], at_known, log_p)

    def log_known(self) -> Tensor:
        """What the writer says of the known sequences in nats, `[B]`; 0 where none is known."""
        if self.known is None:
            return torch.zeros(self.batch, device=self.writer.device)
        return self.log_written(self.known[0]).sum(-1).masked_fill(~self.known[1], 0.0)

    def log_written(self, value: Tensor) -> Tensor:
        """log p(c_j | c_<j) by the writer, whatever is known, `[..., B, M]`; 0 at padding."""
        if value.is_floating_point():
            first = one_hot_words(torch.full(value.shape[:-2], BOS, device=value.device), value)[..., None, :]
            allowed = self._allowed(self.writer.logits(torch.cat([first, value[..., :-1, :]], -2)), 0).log_softmax(-1)
            return (value * allowed).sum(-1).masked_fill(is_padding(value), 0.0)
        inputs = torch.full_like(value, BOS)
        inputs[..., 1:] = value[..., :-1].masked_fill(value[..., :-1] == EOS, PAD)
        return self.writer.score(inputs, value, self.ends(0, value.shape[-1])).masked_fill(value == PAD, 0.0)

    def _allowed(self, logits: Tensor, first: int) -> Tensor:
        """Logits `[..., B, J, V]` of the positions from `first` on, with what cannot stand there out of reach."""
        return restrict(logits, self.ends(first, logits.shape[-2]))

    def ends(self, first: int, count: int) -> Ends:
        """Of `count` positions from `first` on, `[J]` or `[B, J]`."""
        place = torch.arange(first, first + count, device=self.writer.device)
        if self.lengths is None:
            return Ends(place > 0, place == (self.longest if self.most is None else self.most[:, None]))
        at_end = place == self.lengths[:, None]
        return Ends(at_end, at_end)


def one_hot_words(words: Tensor, like: Tensor) -> Tensor:
    """Ids `[...]` as one-hots `[..., V]`, of the type and vocabulary of relaxed words."""
    return nn.functional.one_hot(words, like.shape[-1]).to(like.dtype)


def is_padding(words: Tensor) -> Tensor:
    """Where a sequence `[..., M]`, or a relaxed one `[..., M, V]`, is over, bool `[..., M]`."""
    return words[..., PAD] > 0.5 if words.is_floating_point() else words == PAD


def rows_of(words: Tensor) -> tuple[torch.Size, Tensor]:
    """Words `[..., B]`, or relaxed ones, as rows `[R]` or `[R, V]`, and the dimensions that R stands for."""
    if words.is_floating_point():
        return words.shape[:-1], words.flatten(0, -2)
    return words.shape, words.flatten()


class Lengths(NamedTuple):
    """What `Written` is told of lengths: words of a sequence at most, of each where they are fixed, and of each at most
    where they are not, `[B]`."""

    longest: int
    lengths: Tensor | None
    most: Tensor | None


def check_lengths(who: str, ratio: float | None, longest: int) -> None:
    """Refuse what `allowed_lengths` cannot keep to; `who` takes the arguments."""
    if ratio is not None and not 0 < ratio <= 1:
        raise ValueError(
            f"{who}: ratio is {ratio}; it is the share of words that are kept, above 0 and at most 1, or null for a "
            "length that is learnt"
        )
    if longest < 1:
        raise ValueError(f"{who}: longest is {longest}; a compression of learnt length has at least one word")


def allowed_lengths(batch: PairBatch, ratio: float | None, longest: int, known: Tensor | None) -> Lengths:
    """How long compressions are, or may be: no longer than their sources, and a known one has its own length.

    Args:
        batch: its first texts are the sources.
        ratio: words of a compression to those of its source, rounded up; None for lengths that are not fixed.
        longest: of compressions of no fixed length.
        known: for which documents the second text is the compression, bool `[B]`; None for no document.
    """
    words, own = batch.first.lengths[batch.group] - 1, batch.second.lengths - 1
    own = own.masked_fill(~known, 0) if known is not None else torch.zeros_like(own)
    if ratio is None:
        most = words.clamp(min=1, max=longest).maximum(own)
        return Lengths(max(longest, int(own.max())), None, most)
    share = (words.double() * ratio - ROUNDING).ceil().long().clamp(min=1)
    lengths = share if known is None else torch.where(known, own, share)
    return Lengths(int(lengths.max()), lengths, None)


def known_compressions(batch: PairBatch, training: bool) -> Tensor | None:
    """For which documents the second text is given as the compression, bool `[B]`: in training those of label 1, and
    all of a corpus without labels.

    None if there are none. Elsewhere, as in validation, all are to be inferred.
    """
    if not training:
        return None
    known = torch.ones_like(batch.group, dtype=torch.bool) if batch.labels is None else batch.labels == 1
    return known if bool(known.any()) else None


def given_sequences(batch: PairBatch, longest: int, known: Tensor | None) -> tuple[Tensor, Tensor] | None:
    """The known compressions as `Written` takes them, padded to `longest` words and an end."""
    if known is None:
        return None
    given = batch.second.targets
    value = given.new_full((len(batch), longest + 1), PAD)
    width = min(longest + 1, given.shape[1])
    value[:, :width] = given[:, :width]
    return value.masked_fill(~known[:, None], PAD), known
