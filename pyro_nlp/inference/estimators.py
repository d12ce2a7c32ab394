"""How the gradient of an expectation over one latent reaches the guide (layer: inference).

An estimator is a frozen value that a `Strategy` gives to a site. It refuses sites it cannot serve, says what is drawn
in the place of a sample, and may add a surrogate to the loss: a term of value zero whose gradient is the missing part.

Most need only the second. A table of values with weights (`sites.Drawn`) turns "sum over all classes", "sum over the
likeliest and sample one of the rest" or "two antithetic draws" into one evaluation on more rows, and the gradient of
the weights is the estimator.

To write your own, subclass `Estimator` and name it by dotted path in a recipe.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn

from pyro_nlp.data.batches import Batch
from pyro_nlp.distributions import Written
from pyro_nlp.inference import relaxation
from pyro_nlp.inference.baselines import Baseline
from pyro_nlp.inference.schedules import Now, Schedule
from pyro_nlp.inference.sites import Drawn, StructureError
from pyro_nlp.inference.support import (
    LIMIT,
    base,
    binary,
    categories,
    configurations,
    one_hot,
    parameter,
    support,
    variables,
)


class Estimator(ABC):
    """What to do with one latent site."""

    @abstractmethod
    def refuse(self, q: TorchDistribution) -> str | None:
        """Why this estimator cannot be used for a site with the distribution `q`, with a cure; or None."""

    def rows(self, q: TorchDistribution) -> int:
        """Values the site takes at once, each an evaluation of what depends on it."""
        return 1

    def draw(self, q: TorchDistribution, now: Now) -> Drawn | None:
        """What to put in the place of a sample of `q`, which has the batch shape `[particles, documents]`."""
        return None

    def state(self, batch: Batch) -> nn.Module | None:
        """What the estimator learns on the way, made once by `compile`."""
        return None

    def surrogate(self, log_q: Tensor, signal: Signal, state: nn.Module | None, batch: Batch) -> Tensor | None:
        """What to add to the loss, shaped as `signal.value`; its value is zero.

        Args:
            log_q: log q of the draw, `[*tables, particles, documents]`.
            signal: the loss that depends on the draw.
            state: what `state` made.
            batch: the documents.
        """
        return None

    @property
    def sampled(self) -> bool:
        """Whether the site takes one discrete draw, whose gradient comes by a surrogate."""
        return False


@dataclass(frozen=True)
class Signal:
    """The loss that depends on a draw, detached: what score-function estimators multiply.

    Attributes:
        value: `[*tables, particles, documents]`; word by word `[words, particles, documents]`.
        without: what the loss of each particle is expected to be, by the other particles; None if there is one.
        written: word by word, what is no padding, bool as `value`.
    """

    value: Tensor
    without: Callable[[], Tensor] | None = None
    written: Tensor | None = None

    @property
    def counted(self) -> Tensor:
        """The losses that a score is multiplied by, in one row where there is padding."""
        return self.value if self.written is None else self.value[self.written]


# ---- reparameterised ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pathwise(Estimator):
    """Gradient through the sample: z = mu(x) + sigma(x) eps, the reparameterisation trick.

    For sites whose distribution has `rsample`. Kingma and Welling 2014 (arXiv:1312.6114, section 2.4).

    Args:
        gradient: `plain` takes the gradient of the bound as it is. `stl` leaves out the score of q, which is zero in
            expectation and noise at the optimum: sticking the landing (Roeder et al. 2017, arXiv:1703.09194); unbiased
            for the ELBO, biased for the guide under IWAE. `dreg` is the doubly reparameterised gradient of IWAE
            (Tucker et al. 2019, arXiv:1810.04152), unbiased.
    """

    gradient: Literal["plain", "stl", "dreg"] = "plain"

    def __post_init__(self) -> None:
        if self.gradient not in ("plain", "stl", "dreg"):
            raise ValueError(f"Pathwise: gradient is 'plain', 'stl' or 'dreg', not {self.gradient!r}")

    def refuse(self, q: TorchDistribution) -> str | None:
        if q.has_rsample:
            return None
        return (
            f"{type(base(q)).__name__} cannot be reparameterised, which Pathwise needs: give it Enumerate(), "
            "ScoreFunction() or another estimator of discrete latents"
        )

    def draw(self, q: TorchDistribution, now: Now) -> Drawn | None:
        if self.gradient == "plain":
            return None
        value = q.rsample()
        # a flow remembers how it made its draw: of a copy log q comes through the value, where `dreg` weighs it
        return Drawn(value.clone() if self.gradient == "dreg" else value, path_only=True)


# ---- sums -----------------------------------------------------------------------------------------------------


def _refuse_long(q: TorchDistribution, what: str) -> None:
    """A batch may have longer sequences than the one that was looked at."""
    if isinstance(base(q), Written) and (reason := _infinite(q, what)):
        raise StructureError(reason)


def _infinite(q: TorchDistribution, what: str) -> str | None:
    size = configurations(q)
    if size is not None and isinstance(base(q), Written) and size > LIMIT:
        longest = q.event_shape[0] - 1
        return (
            f"{what} sums over every sequence of up to {longest} words, {LIMIT:,} at most, and there are more: give it "
            "ScoreFunction() or Relax()"
        )
    if size is not None:
        return None
    return (
        f"{type(base(q)).__name__} has no finite support, which {what} sums over: give it Pathwise() or ScoreFunction()"
    )


@dataclass(frozen=True)
class Enumerate(Estimator):
    """Sums exactly over every value, weighted by q: no variance, K^M evaluations of the model.

    For finite discrete sites whose K^M configurations are few (`support.LIMIT`).
    """

    def refuse(self, q: TorchDistribution) -> str | None:
        return _infinite(q, "Enumerate")

    def rows(self, q: TorchDistribution) -> int:
        return configurations(q) or 1

    def draw(self, q: TorchDistribution, now: Now) -> Drawn | None:
        _refuse_long(q, "Enumerate")
        values = _each(support(q), q)
        return Drawn(values, q.log_prob(values).exp())


@dataclass(frozen=True)
class Marginalize(Estimator):
    """The site leaves the guide and is summed out in the model: its exact log marginal in place of a bound.

    For finite discrete sites that nothing else in the guide depends on. Chains (`pyro.markov`) need
    bound=PyroELBO("TraceEnum_ELBO"), or a distribution that sums inside.
    """

    def refuse(self, q: TorchDistribution) -> str | None:
        if isinstance(base(q), Written):
            return "a sequence that is written word by word is summed under q: use Enumerate()"
        return _infinite(q, "Marginalize")

    def rows(self, q: TorchDistribution) -> int:
        return configurations(q) or 1


@dataclass(frozen=True)
class Subset(Estimator):
    """Sums over k of the values of a site.

    `top` sums the k likeliest values and samples one of the rest, by score function with the loss at the top as its
    baseline: unbiased (Liu et al. 2019, arXiv:1810.04777, "sum and sample"). `random` sums k values chosen uniformly:
    with their probabilities renormalised it is biased, the bias of the lecture's subset method; without, each counts
    K/k times its probability (Horvitz and Thompson 1952), the others its baseline: unbiased, with more variance.

    Args:
        k: values summed.
        choose: `top` or `random`.
        renormalise: of `random`: make the probabilities of the chosen sum to one.
    """

    k: int = 3
    choose: Literal["top", "random"] = "top"
    renormalise: bool = True

    def __post_init__(self) -> None:
        if self.choose not in ("top", "random") or self.k < 1:
            raise ValueError("Subset: k is at least 1, and choose is 'top' or 'random'")

    def refuse(self, q: TorchDistribution) -> str | None:
        size = configurations(q)
        if size is None:
            return _infinite(q, "Subset")
        if size > LIMIT:
            return f"Subset ranks all {size:,} configurations, and the limit is {LIMIT:,}: give it LocalExpectation()"
        if self.k >= size:
            return f"Subset(k={self.k}) of {size} values leaves none to sample: give it Enumerate()"
        return None

    def rows(self, q: TorchDistribution) -> int:
        return self.k + (self.choose == "top")

    def draw(self, q: TorchDistribution, now: Now) -> Drawn | None:
        _refuse_long(q, "Subset")
        values = support(q)
        log_q = q.log_prob(_each(values, q)).movedim(0, -1)  # [*batch, K]
        if self.k >= len(values):  # a batch of shorter texts than the one that was looked at
            return Drawn(_each(values, q), log_q.movedim(-1, 0).exp())
        if self.choose == "random":
            chosen = torch.rand_like(log_q).topk(self.k, -1).indices
            kept = log_q.gather(-1, chosen)
            weight = kept.softmax(-1) if self.renormalise else self._spread(kept.exp(), len(values))
        else:
            top = log_q.detach().topk(self.k, -1).indices
            rest = log_q.detach().scatter(-1, top, -torch.inf)
            # where the top have all the mass float32 can see, any of the rest will do: its weight is zero
            remains = rest.exp().sum(-1, keepdim=True)
            rest = torch.where(remains > 0, rest, torch.zeros_like(rest).scatter(-1, top, -torch.inf))
            other = torch.distributions.Categorical(logits=rest).sample()[..., None]
            log_other = log_q.gather(-1, other)
            score = (log_other - log_other.detach()).exp()  # one, with the gradient of log q
            kept = log_q.gather(-1, top).exp()
            # the loss at the top is a baseline for all: the gradients of all weights together are zero in expectation
            total = kept.sum(-1, keepdim=True) + remains * score
            share = kept.detach() / kept.detach().sum(-1, keepdim=True)
            weight = torch.cat([kept - share * (total - total.detach()), remains * score], -1)
            chosen = torch.cat([top, other], -1)
        return Drawn(values[chosen.movedim(-1, 0)], weight.movedim(-1, 0))

    def _spread(self, kept: Tensor, size: int) -> Tensor:
        """Probabilities of values that stand for `size` of them; the others chosen are the baseline of each."""
        weight = kept * (size / self.k)
        if self.k == 1:
            return weight
        moving = weight - weight.detach()
        others = (moving.sum(-1, keepdim=True) - moving) / (self.k - 1)
        # the mean of the others leaves out the value itself, which makes the gradient size / (size - 1) times as large
        return weight.detach() + (moving - others) * ((size - 1) / size)


@dataclass(frozen=True)
class LocalExpectation(Estimator):
    """Sums each of M variables exactly, the others sampled: M K evaluations in place of K^M, unbiased.

    For products of independent variables. Titsias and Lazaro-Gredilla 2015 (NeurIPS, local expectation gradients).
    """

    def refuse(self, q: TorchDistribution) -> str | None:
        if configurations(q) is None:
            return _infinite(q, "LocalExpectation")
        if not one_hot(q):
            return f"{type(base(q)).__name__} is not one-hot, which LocalExpectation needs: make it OneHotCategorical"
        return None

    def rows(self, q: TorchDistribution) -> int:
        return variables(q) * (categories(q) or 1)

    def draw(self, q: TorchDistribution, now: Now) -> Drawn | None:
        m, k, batch = variables(q), categories(q) or 1, q.batch_shape
        sample = q.sample().view(*batch, m, k)
        own = torch.eye(m, dtype=torch.bool, device=sample.device).view(m, 1, *[1] * len(batch), m, 1)
        each = torch.eye(k, dtype=sample.dtype, device=sample.device).view(1, k, *[1] * len(batch), 1, k)
        values = torch.where(own, each, sample)  # [M, K, *batch, M, K]: variable m set to k, the others as drawn
        probability = parameter(q).exp().view(*batch, m, k).movedim((-2, -1), (0, 1))  # [M, K, *batch]
        fixed = probability.detach()
        # the value is the mean over m of sum_k q_m(k) f; the gradient is the sum over m of sum_k f grad q_m(k)
        weight = fixed / m + (probability - fixed)
        return Drawn(values.flatten(0, 1).view(m * k, *batch, *q.event_shape), weight.flatten(0, 1))


# ---- score function -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ScoreFunction(Estimator):
    """(f - b) grad log q at a sample, f the loss and b a baseline: REINFORCE; valid for any site, and noisy.

    Williams 1992. Without a baseline use it to see why baselines exist.

    Args:
        baseline: `RunningMean()`, `Neural()` (NVIL), `LeaveOneOut()` (RLOO; under `IWAE`: VIMCO) or None.
        per: of a sequence that is written word by word, `word` holds every word to account for what comes after it
            alone, and compares it with what the other particles still had to pay there; `site` all words for all. The
            same gradient in expectation, with less variance. Of the ELBO.
    """

    baseline: Baseline | None = None
    per: Literal["site", "word"] = "site"

    def __post_init__(self) -> None:
        if self.per not in ("site", "word"):
            raise ValueError(f"ScoreFunction: per is 'site' or 'word', not {self.per!r}")

    @property
    def sampled(self) -> bool:
        return True

    def refuse(self, q: TorchDistribution) -> str | None:
        if self.per == "word" and not isinstance(base(q), Written):
            return f"{type(base(q)).__name__} is not written word by word: use ScoreFunction(per='site')"
        return None

    def draw(self, q: TorchDistribution, now: Now) -> Drawn | None:
        return Drawn(_constant(q))

    def state(self, batch: Batch) -> nn.Module | None:
        if self.baseline is None:
            return None
        return self.baseline.state_by_word(batch) if self.per == "word" else self.baseline.state(batch)

    def surrogate(self, log_q: Tensor, signal: Signal, state: nn.Module | None, batch: Batch) -> Tensor:
        centred, extra = signal.value, None
        if self.baseline is not None:
            centred, extra = self.baseline(signal, state, batch)
        found = centred.detach() * (log_q - log_q.detach())
        return found if extra is None else found + (extra - extra.detach())


@dataclass(frozen=True)
class DisARM(Estimator):
    """Two antithetic draws of binary variables, their loss difference times a closed-form weight: unbiased.

    Dong et al. 2020 (arXiv:2006.10680, eq. 8); also U2G, Yin et al. 2020.
    """

    def refuse(self, q: TorchDistribution) -> str | None:
        return (
            None if binary(q) else f"DisARM is for Bernoulli sites, not {type(base(q)).__name__}: give it LeaveOneOut()"
        )

    def rows(self, q: TorchDistribution) -> int:
        return 2

    def draw(self, q: TorchDistribution, now: Now) -> Drawn | None:
        logits = parameter(q)
        u, odds = torch.rand_like(logits), torch.sigmoid(-logits.detach())
        first, second = (u > odds).to(logits.dtype), (1 - u > odds).to(logits.dtype)
        sign = (1 - 2 * second) * (first != second)
        half = sign * torch.sigmoid(logits.detach().abs()) * (logits - logits.detach())
        events = len(q.event_shape)
        half = 0.5 * (half.flatten(-events).sum(-1) if events else half)
        return Drawn(torch.stack([first, second]), torch.stack([0.5 + half, 0.5 - half]))


# ---- relaxation -----------------------------------------------------------------------------------------------


def _relaxable(q: TorchDistribution, who: str) -> str | None:
    if one_hot(q):
        return None
    reason = (
        "is an index, and a relaxed sample cannot be one"
        if isinstance(base(q), torch.distributions.Categorical)
        else ""
    )
    return f"{type(base(q)).__name__} {reason or 'is not one-hot'}: {who} needs a OneHotCategorical, used linearly"


def _refuse_temperature(estimator: Relax | REBAR) -> None:
    if not isinstance(estimator.temperature, Schedule) and not estimator.temperature > 0:
        raise ValueError(f"{type(estimator).__name__}: temperature is above 0, not {estimator.temperature}")


@dataclass(frozen=True)
class Relax(Estimator):
    """Gumbel-softmax: softmax((logits + Gumbel noise) / temperature), a point of the simplex, in place of a one-hot.

    Jang et al. 2017 (arXiv:1611.01144) and Maddison et al. 2017 (arXiv:1611.00712). Biased for the discrete model, on
    which it is evaluated all the same. Computed in log space. A sequence that is written word by word (`Written`) is
    relaxed word by word, and each is read by the next (SEQ3, Baziotis et al. 2019, arXiv:1904.03651); its KL is
    log q - log p of what was drawn.

    Args:
        temperature: a number or a schedule.
        hard: straight-through: the model sees the one-hot argmax, the gradient that of the relaxed point.
        kl: `categorical` takes the KL of the discrete distributions (Jang), `relaxed` that of the Concrete densities at
            the draw (Maddison), a bound for the relaxed model.
    """

    temperature: float | Schedule = 1.0
    hard: bool = False
    kl: Literal["categorical", "relaxed"] = "categorical"

    def __post_init__(self) -> None:
        if self.kl not in ("categorical", "relaxed"):
            raise ValueError(f"Relax: kl is 'categorical' or 'relaxed', not {self.kl!r}")
        _refuse_temperature(self)

    def refuse(self, q: TorchDistribution) -> str | None:
        if not isinstance(base(q), Written):
            return _relaxable(q, "Relax")
        if self.kl == "relaxed":
            return "a sequence written word by word has no Concrete density: use Relax(kl='categorical')"
        return None

    def draw(self, q: TorchDistribution, now: Now) -> Drawn | None:
        temperature = now(self.temperature)
        if isinstance(base(q), Written):
            return Drawn(base(q).relaxed(lambda log_p: self._point(relaxation.sample(log_p, temperature))))
        log_y = relaxation.sample(parameter(q), temperature)
        value = self._point(log_y)
        if self.kl == "categorical":
            return Drawn(value)
        return Drawn(value, log_density=lambda fn: relaxation.log_density(fn, log_y, temperature))

    def _point(self, log_y: Tensor) -> Tensor:
        return relaxation.harden(log_y) if self.hard else log_y.exp()


@dataclass(frozen=True)
class REBAR(Estimator):
    """A score-function estimate with a relaxed control variate, itself reparameterised: unbiased at any setting.

    [f(b) - eta f(z~)] grad log q(b) + eta grad f(z) - eta grad f(z~), with z the relaxed sample, b its argmax and z~ a
    relaxed sample given b. Tucker et al. 2017 (arXiv:1703.07370); eta and the temperature are fixed here, not learnt.

    Args:
        temperature: of the control variate.
        eta: its scale.
    """

    temperature: float | Schedule = 0.5
    eta: float = 1.0

    def __post_init__(self) -> None:
        _refuse_temperature(self)

    def refuse(self, q: TorchDistribution) -> str | None:
        return _relaxable(q, "REBAR")

    def rows(self, q: TorchDistribution) -> int:
        return 3

    def draw(self, q: TorchDistribution, now: Now) -> Drawn | None:
        logits, temperature = parameter(q), now(self.temperature)
        perturbed = logits + relaxation.gumbel(logits)
        hard = relaxation.harden(perturbed.detach())
        given = relaxation.conditional(logits, hard)
        relaxed = [(p / temperature).softmax(-1) for p in (perturbed, given)]
        log_q = q.log_prob(hard)
        score = 1 + log_q - log_q.detach()  # one, with the gradient of log q
        weights = [score, torch.full_like(score, self.eta), -self.eta * score]
        return Drawn(torch.stack([hard, *relaxed]), torch.stack(weights))


@dataclass(frozen=True)
class Sampled(Estimator):
    """A plain sample without gradient: what wake-sleep does with every latent."""

    def refuse(self, q: TorchDistribution) -> str | None:
        return None

    def draw(self, q: TorchDistribution, now: Now) -> Drawn | None:
        return Drawn(_constant(q))


def _constant(q: TorchDistribution) -> Tensor:
    """A draw without gradient. A copy: a flow remembers its own draw, and would take log q of it without gradient."""
    with torch.no_grad():
        value: Tensor = q.sample().clone()
    return value


def _each(values: Tensor, q: TorchDistribution) -> Tensor:
    """Values `[R, *event]` for every element of the batch, `[R, *ones, *event]`."""
    return values.view(len(values), *[1] * len(q.batch_shape), *q.event_shape)
