"""Whether two measurements put the same things in the same order."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_DRAWS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class RankAgreement:
    """Spearman's coefficient of pairs, with its 95 % interval (percentiles of a seeded bootstrap over the pairs)."""

    pairs: int
    spearman: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.spearman:.2f} ({self.low:.2f} to {self.high:.2f}, {self.pairs} pairs)"


def rank_agreement(first: Sequence[float], second: Sequence[float]) -> RankAgreement | None:
    """Return the rank agreement of two measurements of the same things.

    Equal values share the mean of their ranks. Source: Spearman, American Journal of Psychology 15 (1904).

    Args:
        first: N values.
        second: N values of the same things, in the same order.

    Returns:
        None if there are fewer than three different pairs of values (equal pairs count once), or if one of the two
        measurements never varies.
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if len(set(zip(first, second, strict=True))) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    random = np.random.default_rng(0)
    drawn = random.integers(0, len(one), size=(_DRAWS, len(one)))
    # A bootstrap draw may contain only one distinct value, which has no order.
    found = [_spearman(one[at], other[at]) for at in drawn if np.ptp(one[at]) > 0 and np.ptp(other[at]) > 0]
    low, high = np.percentile(found, (2.5, 97.5))
    return RankAgreement(pairs=len(one), spearman=_spearman(one, other), low=float(low), high=float(high))


def _spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    first, second = (ranks - ranks.mean() for ranks in map(_ranks, (one, other)))
    return float((first @ second) / np.sqrt((first @ first) * (second @ second)))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    ordered = np.sort(values)
    ranks: NDArray[np.float64] = (np.searchsorted(ordered, values) + np.searchsorted(ordered, values, "right") + 1) / 2
    return ranks
