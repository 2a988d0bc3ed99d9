"""What a duet tells: which of its pairs were played in calm, the ratio of the two engines there, and how sure it is.

A machine has moods: a neighbour on the same physical core slows everything, for seconds or minutes. Both engines slow
down, but *unlike* kernels do so by unlike factors (measured: fp32 by 1.36 to 1.4, int8 by 1.57 to 1.65), so a ratio
taken in a bad mood is another number, and repeats well. Hence only pairs count in which the reference runs about as
fast as it is known to run.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]

NEAR_CALM = 0.10
"""A reference slower than its calm time by more is in another mood: they start at +20 %, processes differ by 1-3 %."""
ONE_MOOD = 0.05
"""Within the session, calm pairs have a reference within this of its lowest level."""
SAME_CALM = 0.02
"""A session's level within this of the calm time adds no doubt: that much differs from one process to the next."""
SLOWS_MORE, SLOWS_LESS = 0.85, 0.6
"""Where the reference slows by s beyond that, a candidate slows by s**(1 + 0.85) at most and s**(1 - 0.6) at least.

Seen at s = 1.4: int8 by 1.65 and tiny fp32 networks by 1.74, which are powers of 1.49 and 1.65.
"""
SMOOTHED_PAIRS = 5
"""The reference's level at a pair is the median over so many pairs around it: blocks before and after count too."""
MIN_CALM_PAIRS = 20
MIN_PAIRS = 6
"""Of slow engines, whose pairs take a while."""
LONG_PAIR_S = 0.05
GROUPS = 20
PROCESS_SPREAD = 0.004
"""Standard deviation of the ratio from one process to the next (memory lies elsewhere), as a fraction of it.

No session can see it, so it is a constant: the root of the benchmark's CV squared less the sessions' own. Of five kinds
of network on a 2-core EPYC it was 0 to 0.0035 (docs/measurements.md); 26 us networks had up to 0.011.
"""
Z_975 = 1.959964
"""97.5 % quantile of the normal distribution."""
STUDENT_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093),
)
"""97.5 % quantile of Student's t with 1, 2, ... 19 degrees of freedom."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Duet:
    """Seconds per run: row k of both arrays (pairs, runs of a block) was measured back to back."""

    candidate_s: Seconds
    reference_s: Seconds

    def part(self, start: int, stop: int) -> "Duet":
        """Some consecutive pairs of it."""
        return Duet(candidate_s=self.candidate_s[start:stop], reference_s=self.reference_s[start:stop])

    def where(self, chosen: NDArray[np.bool_]) -> "Duet":
        """The chosen pairs, in order."""
        return Duet(candidate_s=self.candidate_s[chosen], reference_s=self.reference_s[chosen])


def duet_of_medians(duet: Duet) -> float:
    """Median over the pairs of (block median / block median)."""
    return float(np.median(np.median(duet.candidate_s, axis=1) / np.median(duet.reference_s, axis=1)))


def duet_of_minima(duet: Duet) -> float:
    """Median over the pairs of (block minimum / block minimum)."""
    return float(np.median(duet.candidate_s.min(axis=1) / duet.reference_s.min(axis=1)))


def ratio_of_medians(duet: Duet) -> float:
    """Median of all the candidate's runs over median of all the reference's."""
    return float(np.median(duet.candidate_s) / np.median(duet.reference_s))


def ratio_of_p10s(duet: Duet) -> float:
    """Lower decile of all the candidate's runs over that of the reference's."""
    return float(np.quantile(duet.candidate_s, 0.1) / np.quantile(duet.reference_s, 0.1))


def ratio_of_minima(duet: Duet) -> float:
    """The candidate's fastest run over the reference's."""
    return float(duet.candidate_s.min() / duet.reference_s.min())


ESTIMATORS: dict[str, Callable[[Duet], float]] = {
    estimator.__name__: estimator
    for estimator in (duet_of_medians, duet_of_minima, ratio_of_medians, ratio_of_p10s, ratio_of_minima)
}
OBJECTIVE = "ratio_of_p10s"
"""The estimator behind `p50_ms`, of the calm pairs; benchmarks/latency_repeatability.py compares them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a session found: a ratio with its 95 % interval, as a fresh process would measure it, and the moods."""

    ratio: float
    low: float
    high: float
    session_half_width: float
    """Half of this session's own interval, as a fraction of the ratio; inf where too few pairs were calm."""
    calm: NDArray[np.bool_]
    """Of each pair, whether it was played in calm."""
    enough_calm: bool
    """Whether the ratio is that of the calm pairs; otherwise of all pairs, in whatever mood they were."""
    reference_s: float
    """The reference's lowest level in this session."""

    @property
    def half_width(self) -> float:
        """Half of the interval, as a fraction of the ratio."""
        return (self.high - self.low) / (2 * self.ratio)

    def stable(self, within: float) -> bool:
        """Whether it was measured in calm and is this certain."""
        return self.enough_calm and self.half_width <= within


def judge(duet: Duet, calm_s: float, estimator: str = OBJECTIVE) -> Verdict:
    """The ratio of the calm pairs, and an interval that holds what the session cannot see.

    Too few calm pairs, and it is the ratio of all pairs. Its interval then spans what unlike kernels can make of the
    reference's slow-down.
    """
    calm = calm_pairs(duet, calm_s)
    pair_s = float(np.median(duet.candidate_s.sum(axis=1) + duet.reference_s.sum(axis=1)))
    enough = int(calm.sum()) >= (MIN_PAIRS if pair_s > LONG_PAIR_S else MIN_CALM_PAIRS)
    counted = duet.where(calm) if enough else duet
    ratio = ESTIMATORS[estimator](counted)
    low, high = ratio_interval(counted, estimator)
    session_half = (high - low) / 2 / ratio
    level_s = float(np.quantile(reference_levels(counted), 0.1))
    slower = max(1.0, level_s / ((1 + SAME_CALM) * calm_s))
    fair = math.hypot(session_half, Z_975 * PROCESS_SPREAD)
    return Verdict(
        ratio=ratio,
        low=ratio * max(0.0, 1 - math.hypot(fair, 1 - slower**-SLOWS_MORE)),
        high=ratio * (1 + math.hypot(fair, slower**SLOWS_LESS - 1)),
        session_half_width=session_half if enough else math.inf,
        calm=calm,
        enough_calm=enough,
        reference_s=level_s,
    )


def calm_pairs(duet: Duet, calm_s: float) -> NDArray[np.bool_]:
    """Of each pair, whether the reference around it ran about as fast as it is known to run.

    Where it runs faster than `calm_s`, that was found in a bad mood, and its lowest level here is what calm is.
    """
    levels_s = reference_levels(duet)
    near = levels_s <= (1 + NEAR_CALM) * calm_s
    if not near.any():
        return near
    lowest_s = float(np.quantile(levels_s[near], 0.1))
    return levels_s <= (1 + ONE_MOOD) * lowest_s


def reference_levels(duet: Duet) -> Seconds:
    """The reference's typical time around each pair: a median over neighbouring blocks, so that a spike is no mood."""
    blocks_s = np.median(duet.reference_s, axis=1)
    around = SMOOTHED_PAIRS // 2
    padded = np.pad(blocks_s, around, mode="edge")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, SMOOTHED_PAIRS), axis=1))


def ratio_interval(duet: Duet, estimator: str) -> tuple[float, float]:
    """95 % interval of one of the ESTIMATORS, from its spread over 20 groups of consecutive pairs.

    Batch means (Schmeiser, "Batch Size Effects in the Analysis of Simulation Output", Operations Research 30(3), 1982:
    10 to 30 batches) serve every estimator, and a mood of the machine that spans neighbouring pairs widens them, as
    it should. Order statistics and a bootstrap over pairs assume independent pairs: simulated with moods and this
    stopping rule, they covered the truth in 81 to 87 % of the sessions, the groups in 84 to 94 % (without moods: 88 to
    96 and 95 to 99 %). It is the interval of this one session; see PROCESS_SPREAD.
    """
    pairs = len(duet.candidate_s)
    groups = min(GROUPS, pairs)
    edges = [pairs * group // groups for group in range(groups + 1)]
    values = [ESTIMATORS[estimator](duet.part(*edge)) for edge in itertools.pairwise(edges)]
    center = ESTIMATORS[estimator](duet)
    half = STUDENT_975[groups - 2] * float(np.std(values, ddof=1)) / math.sqrt(groups)
    return max(0.0, center - half), center + half
