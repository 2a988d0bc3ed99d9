"""Evaluate a duet (two engines run in turn): the ratio of their times in its calm pairs, and how certain it is.

The speed of a machine changes: a neighbour on the same physical core slows everything down for seconds or minutes. Such
a phase is called a mood here. Both engines slow down, but *different* kernels do so by different factors (measured:
fp32 by 1.36 to 1.4, int8 by 1.57 to 1.65). A ratio that is measured in a bad mood is therefore a different number, even
if it repeats well. So only those pairs count in which the reference runs about as fast as it is known to run.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scalesearch.values.quality import Z_975

Seconds = NDArray[np.float64]

NEAR_CALM = 0.10
"""A reference that is slower than its calm time by more than this share is in another mood. Moods start at +20 %, while
processes differ by 1-3 %.
"""
ONE_MOOD = 0.05
"""In a session, calm pairs are those whose reference is within this share of its lowest level."""
SAME_CALM = 0.02
"""A session's level within this share of the calm time adds no doubt: processes differ by that much."""
SLOWS_MORE, SLOWS_LESS = 0.85, 0.6
"""If the reference slows down by a factor s beyond that, a candidate slows down by s**(1 + 0.85) at most and
s**(1 - 0.6) at least.

At s = 1.4, int8 was seen to slow down by 1.65 and tiny fp32 networks by 1.74, which are s to the powers 1.49 and 1.65.
"""
SMOOTHED_PAIRS = 5
"""The reference's level at a pair is the median over this many pairs around it, since the blocks before and after tell
about the mood too.
"""
MIN_CALM_PAIRS = 20
MIN_PAIRS = 6
"""Least number of pairs of a duet, and number of calm pairs needed if a pair takes longer than `LONG_PAIR_S`."""
LONG_PAIR_S = 0.05
GROUPS = 20
PROCESS_SPREAD = 0.004
"""Standard deviation of the ratio from one process to the next (memory lies elsewhere), as a fraction of the ratio.

No single session can measure it, so it is a constant. It is the square root of the benchmark's squared coefficient of
variation (CV) minus that of the sessions themselves. For five kinds of network on a 2-core EPYC it was 0 to 0.0035
(docs/measurements.md); networks of 26 us had up to 0.011.
"""
STUDENT_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093),
)
"""97.5 % quantile of Student's t with 1, 2, ... 19 degrees of freedom."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Duet:
    """Seconds of each run of two engines, both (pairs, runs of a block); rows k of both were measured back to back."""

    candidate_s: Seconds
    reference_s: Seconds

    def part(self, start: int, stop: int) -> "Duet":
        """Return some consecutive pairs, from `start` to before `stop`."""
        return Duet(candidate_s=self.candidate_s[start:stop], reference_s=self.reference_s[start:stop])

    def where(self, chosen: NDArray[np.bool_]) -> "Duet":
        """Return the chosen pairs, in order; `chosen` is (pairs,)."""
        return Duet(candidate_s=self.candidate_s[chosen], reference_s=self.reference_s[chosen])


def duet_of_medians(duet: Duet) -> float:
    """Return the median over the pairs of (candidate's block median / reference's block median)."""
    return float(np.median(np.median(duet.candidate_s, axis=1) / np.median(duet.reference_s, axis=1)))


def duet_of_minima(duet: Duet) -> float:
    """Return the median over the pairs of (candidate's block minimum / reference's block minimum)."""
    return float(np.median(duet.candidate_s.min(axis=1) / duet.reference_s.min(axis=1)))


def ratio_of_medians(duet: Duet) -> float:
    """Return the median of all the candidate's runs divided by the median of all the reference's runs."""
    return float(np.median(duet.candidate_s) / np.median(duet.reference_s))


def ratio_of_p10s(duet: Duet) -> float:
    """Return the lower decile of all the candidate's runs divided by that of the reference's runs."""
    return float(np.quantile(duet.candidate_s, 0.1) / np.quantile(duet.reference_s, 0.1))


def ratio_of_minima(duet: Duet) -> float:
    """Return the candidate's fastest run divided by the reference's fastest run."""
    return float(duet.candidate_s.min() / duet.reference_s.min())


ESTIMATORS: dict[str, Callable[[Duet], float]] = {
    estimator.__name__: estimator
    for estimator in (duet_of_medians, duet_of_minima, ratio_of_medians, ratio_of_p10s, ratio_of_minima)
}
OBJECTIVE = "ratio_of_p10s"
"""The estimator behind `p50_ms`, applied to the calm pairs; benchmarks/latency_repeatability.py compares them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The result of a session: a ratio with its 95 % interval, as a fresh process would measure it, and calm pairs."""

    ratio: float
    low: float
    high: float
    session_half_width: float
    """Half of this session's own interval, as a fraction of the ratio; infinite if too few pairs were calm."""
    calm: NDArray[np.bool_]
    """For each pair (pairs,), whether it was measured in calm."""
    enough_calm: bool
    """True if the ratio is that of the calm pairs; False if it is that of all pairs, calm or not."""
    reference_s: float
    """The reference's lowest level in this session, in seconds per run."""

    @property
    def half_width(self) -> float:
        """Half of the interval's width, as a fraction of the ratio."""
        return (self.high - self.low) / (2 * self.ratio)

    def half_width_after(self, times: float) -> float:
        """Return the `half_width` to expect of a session that is `times` as long, if it goes on as it did.

        The session's own interval narrows with the square root of its length; what differs between processes stays.
        """
        narrower = self.session_half_width**2 * (1 - 1 / times)
        return math.sqrt(max(0.0, self.half_width**2 - narrower))

    def stable(self, within: float) -> bool:
        """Tell whether the ratio was measured in calm and its `half_width` is at most `within`."""
        return self.enough_calm and self.half_width <= within


def judge(duet: Duet, calm_s: float, estimator: str = OBJECTIVE) -> Verdict:
    """Return the ratio of the calm pairs, with an interval that also covers what a single session cannot see.

    If too few pairs are calm, it is the ratio of all pairs. Its interval is then wide enough for kernels that react to
    the disturbance more, or less, than the reference does.

    Args:
        duet: The measured pairs.
        calm_s: The reference's known time per run in calm, in seconds.
        estimator: One of the names in ESTIMATORS.
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
    """Tell for each pair (pairs,) whether the reference around it ran about as fast as it is known to run.

    If the reference runs faster than `calm_s` in this duet, `calm_s` was measured in a bad mood; then the reference's
    lowest level in this duet defines calm.
    """
    levels_s = reference_levels(duet)
    near = levels_s <= (1 + NEAR_CALM) * calm_s
    if not near.any():
        return near
    lowest_s = float(np.quantile(levels_s[near], 0.1))
    return levels_s <= (1 + ONE_MOOD) * lowest_s


def reference_levels(duet: Duet) -> Seconds:
    """Return the reference's typical time around each pair (pairs,), in seconds.

    It is a median over neighbouring blocks, so that a single spike does not count as a mood.
    """
    blocks_s = np.median(duet.reference_s, axis=1)
    around = SMOOTHED_PAIRS // 2
    padded = np.pad(blocks_s, around, mode="edge")
    return np.asarray(np.median(np.lib.stride_tricks.sliding_window_view(padded, SMOOTHED_PAIRS), axis=1))


def ratio_interval(duet: Duet, estimator: str) -> tuple[float, float]:
    """Return the 95 % interval of an estimator's ratio, from its spread over 20 groups of consecutive pairs.

    These are batch means (Schmeiser, "Batch Size Effects in the Analysis of Simulation Output", Operations Research
    30(3), 1982: 10 to 30 batches). They work with every estimator, and a mood of the machine that spans neighbouring
    pairs widens the interval, as it should. Order statistics and a bootstrap over pairs assume independent pairs.
    In simulations with moods and this stopping rule, their intervals covered the true ratio in 81 to 87 % of the
    sessions, and those from groups in 84 to 94 % (without moods: 88 to 96 and 95 to 99 %). The interval is that of one
    session only; see PROCESS_SPREAD.
    """
    pairs = len(duet.candidate_s)
    groups = min(GROUPS, pairs)
    edges = [pairs * group // groups for group in range(groups + 1)]
    values = [ESTIMATORS[estimator](duet.part(*edge)) for edge in itertools.pairwise(edges)]
    center = ESTIMATORS[estimator](duet)
    half = STUDENT_975[groups - 2] * float(np.std(values, ddof=1)) / math.sqrt(groups)
    return max(0.0, center - half), center + half
