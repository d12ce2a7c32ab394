"""How far chance reaches: intervals of means, of paired differences, and of measures that are no means
(layer: evaluation)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy

DRAWS = 1 << 21
"""Examples drawn at once by the bootstrap and by the randomisation test: bounds the memory."""


@dataclass(frozen=True)
class Interval:
    """A mean over questions or other examples, and its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} ({self.low:.4f} to {self.high:.4f})"


@dataclass(frozen=True)
class PairedInterval(Interval):
    """A mean difference over questions or other examples, its 95 % interval, and the two-sided p-value of none."""

    p_value: float

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ({self.low:+.4f} to {self.high:+.4f}), p {self.p_value:.3g}"


def _parts(draws: int, questions: int) -> Iterator[int]:
    """Sizes of parts that add up to `draws`."""
    size = max(1, DRAWS // questions)
    yield from (min(size, draws - done) for done in range(0, draws, size))


def bootstrap(values: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """2.5 and 97.5 % of the means `[M, 2]` of questions drawn with replacement from `[Q, M]`."""
    if resamples < 1:
        raise ValueError(f"{resamples} resamples: take at least 1, better 10,000")
    rng, count = np.random.default_rng(seed), len(values)
    means = [values[rng.integers(count, size=(part, count))].mean(1) for part in _parts(resamples, count)]
    return np.quantile(np.concatenate(means), [0.025, 0.975], axis=0).T


def sign_flips(values: np.ndarray, permutations: int, seed: int) -> np.ndarray:
    """Two-sided p-values `[M]` of a mean of zero, by random signs for the rows of `[Q, M]`."""
    if permutations < 1:
        raise ValueError(f"{permutations} permutations: take at least 1, better 9,999")
    values = values[(values != 0).any(1)]  # others have no sign
    rng, observed = np.random.default_rng(seed), np.abs(values.sum(0)) - 1e-9  # sums round
    beyond = np.zeros(values.shape[1])
    for part in _parts(permutations, max(1, len(values))):
        signs = 2.0 * rng.integers(2, size=(part, len(values)), dtype=np.int8) - 1
        beyond += (np.abs(signs @ values) >= observed).sum(0)
    return np.asarray((1 + beyond) / (1 + permutations))


def share(right: np.ndarray) -> Interval:
    """How many of the examples are so, bool `[N]`, over all, and its bootstrap interval."""
    found = right.astype(float)
    low, high = bootstrap(found[:, None], 10_000, 0)[0]
    return Interval(float(found.mean()), float(low), float(high))


def ratio(above: np.ndarray, below: np.ndarray, resamples: int = 1000, seed: int = 0) -> Interval:
    """One sum over examples `[N]` over another, and its bootstrap interval; 0 where there is nothing to divide by."""
    both, rng = np.stack([above, below], 1).astype(float), np.random.default_rng(seed)
    drawn = np.stack([both[rng.integers(len(both), size=len(both))].sum(0) for _ in range(resamples)])
    low, high = np.quantile(drawn[:, 0] / np.maximum(1e-12, drawn[:, 1]), [0.025, 0.975])
    return Interval(float(above.sum() / max(1e-12, below.sum())), float(low), float(high))


def jackknife(measure: Callable[[np.ndarray], float], count: int, blocks: int = 20, seed: int = 0) -> Interval:
    """A measure of independent examples that is no mean of theirs, and its 95 % interval by leaving out blocks.

    The measure of all examples, more or less the standard error by the delete-a-block jackknife (Efron and Stein 1981;
    Shao and Tu 1995, section 2.3) times the quantile of Student's t with `blocks - 1` degrees of freedom. Right for
    measures that are smooth in the examples, such as the share of different n-grams; a bootstrap is not, as it draws
    examples twice.

    Args:
        measure: of the examples whose numbers, ascending, it is given.
        count: examples.
        blocks: of examples, chosen by chance; at most `count`.
        seed: of the choice.

    Returns:
        The interval, from NaN to NaN for fewer than two examples.
    """
    rows = np.arange(count)
    blocks = min(blocks, count)
    whole = float(measure(rows))
    if blocks < 2:
        return Interval(whole, np.nan, np.nan)
    parts = np.array_split(np.random.default_rng(seed).permutation(count), blocks)
    without = np.array([measure(np.delete(rows, part)) for part in parts])
    error = np.sqrt((blocks - 1) * without.var())
    reach = scipy.special.stdtrit(blocks - 1, 0.975) * error
    return Interval(whole, float(whole - reach), float(whole + reach))
