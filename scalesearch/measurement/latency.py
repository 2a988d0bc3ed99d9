"""Latency that repeats on a machine that is never quite quiet: candidate and reference engine in turn, as a duet.

Both engines run in short blocks, back to back, so that whatever slows the machine down slows both; the ratio of the two
is what repeats (Bulej et al., "Duet Benchmarking", ICPE 2020). Times the reference's calm time, found once per study,
it is milliseconds again. The clock is the engine's (`time_runs`); the statistics are here.
"""

import itertools
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scalesearch.errors import StageFailed
from scalesearch.values.record import Latency
from scalesearch.values.settings import LatencySettings

LOG = logging.getLogger(__name__)
STAGE = "latency"

BLOCK_S = 0.001
"""A block runs about this long: a pair of blocks must be shorter than the machine's moods."""
MAX_BLOCK_RUNS = 500
COLD_BELOW_S = 0.005
"""Faster engines find the caches full of the other's data: the first run of their blocks (+3 to +17 %) is left out."""
MIN_PAIRS = 6
MIN_S = 0.5
"""Shorter sessions repeat worse, longer ones hardly better: what then differs is one process from the next."""
FIRST_LOOK_PAIRS, LOOK_GROWTH = 40, 1.25
"""Few looks at the interval, since each look is one more chance to stop on a lucky streak."""
GROUPS = 20
WARMUP_WINDOWS, WARMUP_AGREEMENT = 10, 0.02
PROCESS_SPREAD = 0.004
"""Standard deviation of the ratio from one process to the next (memory lies elsewhere), as a fraction of it.

No session can see it, so it is a constant: the root of the benchmark's CV squared less the sessions' own, of 0.13 ms
networks on a busy 2-core EPYC; 26 us networks had up to 0.011. Without it 42 % of the 95 % intervals held the mean.
"""
SLOWEST_RUN_S = 20.0
CALM_S, CALM_WINDOW_S = 3.0, 0.01

Seconds = NDArray[np.float64]

Z_975 = 1.959964
"""97.5 % quantile of the normal distribution."""
STUDENT_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093),
)
"""97.5 % quantile of Student's t with 1, 2, ... 19 degrees of freedom."""


class TimedEngine(Protocol):
    """What is needed of an engine: seconds of each of `count` runs, by the device's own clock."""

    @property
    def batch(self) -> int:
        """Images per run."""
        ...

    def time_runs(self, count: int) -> tuple[float, ...]:
        """Seconds per run."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Duet:
    """Seconds per run: row k of both arrays (pairs, runs of a block) was measured back to back."""

    candidate_s: Seconds
    reference_s: Seconds

    def part(self, start: int, stop: int) -> "Duet":
        """Some consecutive pairs of it."""
        return Duet(candidate_s=self.candidate_s[start:stop], reference_s=self.reference_s[start:stop])


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
"""The estimator behind `p50_ms`; benchmarks/latency_repeatability.py compares them all."""


def measure_latency(
    engine: TimedEngine, reference: TimedEngine, *, settings: LatencySettings, reference_calm_ms: float
) -> Latency:
    """Latency of `engine`, relative to `reference` (run in turn with it) times the reference's own calm time.

    Goes on for half a second of runs, and then until the 95 % interval of the ratio is narrow enough, or
    `settings.max_s` are spent (then `stable` is false); six pairs at least. The interval of `p50_ms` is wider, for what
    a fresh process would measure. Call it inside `DeviceLock.quiet()`.

    Raises:
        StageFailed: an engine's clock gave something else than positive times, or one run takes over 20 s.
    """
    if not reference_calm_ms > 0:
        reason = f"expected reference_calm_ms above 0 (from calm_time), got {reference_calm_ms}"
        raise StageFailed(STAGE, reason)
    duet = play_duet(engine, reference, settings=settings)
    ratio = ESTIMATORS[OBJECTIVE](duet)
    low, high = ratio_interval(duet, OBJECTIVE)
    half = math.hypot((high - low) / 2, Z_975 * PROCESS_SPREAD * ratio)
    p50_s, p90_s, p99_s = np.quantile(duet.candidate_s, (0.5, 0.9, 0.99)).tolist()
    return Latency(
        p50_ms=ratio * reference_calm_ms,
        p50_low_ms=max(0.0, ratio - half) * reference_calm_ms,
        p50_high_ms=(ratio + half) * reference_calm_ms,
        raw_p50_ms=1e3 * p50_s,
        raw_p90_ms=1e3 * p90_s,
        raw_p99_ms=1e3 * p99_s,
        raw_min_ms=1e3 * float(duet.candidate_s.min()),
        reference_p50_ms=1e3 * float(np.median(duet.reference_s)),
        ratio=ratio,
        runs=duet.candidate_s.size,
        batch=engine.batch,
        stable=_narrow(duet, settings.half_width),
    )


def calm_time(reference: TimedEngine, *, settings: LatencySettings) -> float:
    """Milliseconds of one run of `reference` while nothing disturbs it: the least of 10 ms windows' medians.

    Found once, at the start of a study, inside `DeviceLock.quiet()`: it makes ratios milliseconds, so it moves all
    latencies of a study alike and their order never.
    """
    run_s = warm_up(reference, settings.warmup_s)
    runs = max(1, round(CALM_WINDOW_S / run_s))
    windows = [_timed(reference, runs) for _ in range(max(1, round(CALM_S / (runs * run_s))))]
    return 1e3 * calm_s(np.asarray(windows))


def calm_s(windows_s: Seconds) -> float:
    """Typical time in the calmest of the windows (rows)."""
    return float(np.median(windows_s, axis=1).min())


def play_duet(engine: TimedEngine, reference: TimedEngine, *, settings: LatencySettings) -> Duet:
    """Both engines warmed up and run in turn, AB BA AB ..., until the objective's interval or the time is done."""
    run_s = warm_up(engine, settings.warmup_s), warm_up(reference, settings.warmup_s)
    # A block is never shorter than a quarter of the other's, or it would see none of what disturbs that one.
    block_s = max(BLOCK_S, max(run_s) / 4)
    players = tuple(
        _Player.of(which, each_s, block_s) for which, each_s in zip((engine, reference), run_s, strict=True)
    )
    spent_s, pairs, next_look = 0.0, 0, FIRST_LOOK_PAIRS
    while pairs < MIN_PAIRS or spent_s < settings.max_s:
        # The order changes from pair to pair, so that neither engine profits from always being second.
        spent_s += sum(player.play() for player in (players if pairs % 2 == 0 else players[::-1]))
        pairs += 1
        if pairs >= next_look and spent_s >= MIN_S:
            if _narrow(_duet(players), settings.half_width):
                break
            next_look = math.ceil(LOOK_GROWTH * next_look)
    return _duet(players)


def warm_up(engine: TimedEngine, seconds: float) -> float:
    """Run until two successive windows of half of `seconds` agree within 2 %, ten at most; gives seconds per run."""
    (run_s,) = _timed(engine, 1)
    if run_s > SLOWEST_RUN_S:
        reason = (
            f"expected a run to take at most {SLOWEST_RUN_S:g} s, got {run_s:.1f} s; use a smaller network or batch"
        )
        raise StageFailed(STAGE, reason)
    before_s = math.inf
    for _ in range(WARMUP_WINDOWS):
        window: list[float] = []
        while not window or sum(window) < seconds / 2:
            window += _timed(engine, max(1, min(MAX_BLOCK_RUNS, round(seconds / 2 / run_s))))
            run_s = float(np.median(window))
        if abs(run_s - before_s) <= WARMUP_AGREEMENT * run_s:
            return run_s
        before_s = run_s
    LOG.info("warm-up ended while runs of %.3f ms still varied by over %.0f %%", 1e3 * run_s, 100 * WARMUP_AGREEMENT)
    return run_s


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


@dataclass(slots=True)
class _Player:
    """One engine of a duet and the blocks that it has played."""

    engine: TimedEngine
    runs: int
    dropped: int
    blocks: list[tuple[float, ...]]

    @classmethod
    def of(cls, engine: TimedEngine, run_s: float, block_s: float) -> "_Player":
        runs = max(1, min(MAX_BLOCK_RUNS, round(block_s / run_s)))
        return cls(engine, runs, 1 if run_s < COLD_BELOW_S else 0, [])

    def play(self) -> float:
        """Seconds that one more block took."""
        times = _timed(self.engine, self.dropped + self.runs)
        self.blocks.append(times[self.dropped :])
        return sum(times)


def _duet(players: tuple[_Player, ...]) -> Duet:
    candidate, reference = players
    return Duet(candidate_s=np.asarray(candidate.blocks), reference_s=np.asarray(reference.blocks))


def _narrow(duet: Duet, half_width: float) -> bool:
    low, high = ratio_interval(duet, OBJECTIVE)
    return high - low <= half_width * (high + low)


def _timed(engine: TimedEngine, count: int) -> tuple[float, ...]:
    times = engine.time_runs(count)
    if len(times) != count or not all(0 < each < math.inf for each in times):
        wrong = next((each for each in times if not 0 < each < math.inf), None)
        came = f"{len(times)} times" if wrong is None else f"a time of {wrong} s"
        reason = f"expected {count} positive times from the engine's clock, got {came}"
        raise StageFailed(STAGE, reason)
    return times
