"""Latency that repeats on a machine that is never quite quiet: candidate and reference engine in turn, as a duet.

Both engines run in short blocks, back to back, so that whatever slows the machine down slows both; the ratio of the two
is what repeats (Bulej et al., "Duet Benchmarking", ICPE 2020), as long as the machine is calm: only pairs of blocks
count in which the reference runs at its calm time, found once per study. Times that it is milliseconds again. The
clock is the engine's (`time_runs`); the statistics are in `duet`.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from scalesearch.errors import StageFailed
from scalesearch.measurement.duet import MIN_PAIRS, NEAR_CALM, Duet, Seconds, Verdict, judge
from scalesearch.values.record import Latency
from scalesearch.values.settings import LatencySettings

LOG = logging.getLogger(__name__)
STAGE = "latency"

BLOCK_S = 0.001
"""A block runs about this long: a pair of blocks must be shorter than the machine's moods."""
MAX_BLOCK_RUNS = 500
COLD_BELOW_S = 0.005
"""Faster engines find the caches full of the other's data: the first run of their blocks (+3 to +17 %) is left out."""
MIN_S = 0.5
"""Shorter sessions repeat worse, longer ones hardly better: what then differs is one process from the next."""
FIRST_LOOK_PAIRS, LOOK_GROWTH = 40, 1.25
"""Few looks at the interval, since each look is one more chance to stop on a lucky streak."""
WARMUP_WINDOWS, WARMUP_AGREEMENT = 10, 0.02
SLOWEST_RUN_S = 20.0
CALM_S, CALM_WINDOW_S = 3.0, 0.01
MOVE_AFTER_PAIRS, MOVE_AFTER_S = 3, 0.02
"""So many disturbed pairs in a row, and so long on one core, before another core is tried."""
CALM_STRETCH_S = 0.1
"""For so long the calm time is looked for on one core, then on the next."""

Move = Callable[[], None]
"""Puts this thread onto another core (`cores.wandering`)."""


class TimedEngine(Protocol):
    """What is needed of an engine: seconds of each of `count` runs, by the device's own clock."""

    @property
    def batch(self) -> int:
        """Images per run."""
        ...

    def time_runs(self, count: int) -> tuple[float, ...]:
        """Seconds per run."""
        ...


def measure_latency(
    engine: TimedEngine,
    reference: TimedEngine,
    *,
    settings: LatencySettings,
    reference_calm_ms: float,
    calmest_ms: float | None = None,
    move: Move | None = None,
) -> Latency:
    """Latency of `engine`, relative to `reference` (run in turn with it) times the reference's own calm time.

    Goes on for half a second of runs, and then until enough pairs were calm for a narrow interval of their ratio, or
    `settings.max_s` are spent; six pairs at least. The interval of `p50_ms` is wider, for what a fresh process would
    measure. `stable` says whether enough pairs were calm and that interval is within `settings.stable_within`. Call it
    inside `DeviceLock.quiet()`.

    Args:
        engine: What is timed.
        reference: What it is compared with.
        settings: How long and how exactly.
        reference_calm_ms: The study's unit, from `calm_time`.
        calmest_ms: The reference's fastest level known by now, where that is less: then the unit was found in a bad
            mood, and calm is what is calm by this.
        move: Called where the reference is disturbed.

    Raises:
        StageFailed: an engine's clock gave something else than positive times, or one run takes over 20 s.
    """
    if not reference_calm_ms > 0:
        reason = f"expected reference_calm_ms above 0 (from calm_time), got {reference_calm_ms}"
        raise StageFailed(STAGE, reason)
    calm_s = min(reference_calm_ms, calmest_ms or math.inf) / 1e3
    duet = play_duet(engine, reference, settings=settings, calm_s=calm_s, move=move)
    verdict = judge(duet, calm_s)
    p50_s, p90_s, p99_s = np.quantile(duet.candidate_s, (0.5, 0.9, 0.99)).tolist()
    return Latency(
        p50_ms=verdict.ratio * reference_calm_ms,
        p50_low_ms=verdict.low * reference_calm_ms,
        p50_high_ms=verdict.high * reference_calm_ms,
        raw_p50_ms=1e3 * p50_s,
        raw_p90_ms=1e3 * p90_s,
        raw_p99_ms=1e3 * p99_s,
        raw_min_ms=1e3 * float(duet.candidate_s.min()),
        reference_p50_ms=1e3 * float(np.median(duet.reference_s)),
        ratio=verdict.ratio,
        runs=duet.candidate_s.size,
        batch=engine.batch,
        stable=verdict.stable(settings.stable_within),
        calm_fraction=float(verdict.calm.mean()),
        raw_calm_p50_ms=_median_ms(duet.where(verdict.calm).candidate_s),
        raw_disturbed_p50_ms=_median_ms(duet.where(~verdict.calm).candidate_s),
        reference_lowest_ms=1e3 * verdict.reference_s,
    )


def calm_time(reference: TimedEngine, *, settings: LatencySettings, move: Move | None = None) -> float:
    """Milliseconds of one run of `reference` while nothing disturbs it: the least of 10 ms windows' medians.

    Found once, at the start of a study, inside `DeviceLock.quiet()`: it makes ratios milliseconds, so it moves all
    latencies of a study alike and their order never. `move` lets it look at every core, of which one may be disturbed.
    """
    run_s = warm_up(reference, settings.warmup_s)
    runs = max(1, round(CALM_WINDOW_S / run_s))
    windows, stretch_s = [], 0.0
    for _ in range(max(1, round(CALM_S / (runs * run_s)))):
        windows.append(_timed(reference, runs))
        stretch_s += sum(windows[-1])
        if move and stretch_s >= CALM_STRETCH_S:
            move()
            stretch_s = 0.0
    return 1e3 * calmest_window_s(np.asarray(windows))


def calmest_window_s(windows_s: Seconds) -> float:
    """Typical time in the calmest of the windows (rows)."""
    return float(np.median(windows_s, axis=1).min())


def play_duet(
    engine: TimedEngine,
    reference: TimedEngine,
    *,
    settings: LatencySettings,
    calm_s: float = math.inf,
    move: Move | None = None,
) -> Duet:
    """Both engines warmed up and run in turn, AB BA AB ..., until the calm pairs' interval or the time is done.

    Without `calm_s`, the reference's lowest level in this duet is what calm is.
    """
    run_s = warm_up(engine, settings.warmup_s), warm_up(reference, settings.warmup_s)
    # A block is never shorter than a quarter of the other's, or it would see none of what disturbs that one.
    block_s = max(BLOCK_S, max(run_s) / 4)
    players = tuple(
        _Player.of(which, each_s, block_s) for which, each_s in zip((engine, reference), run_s, strict=True)
    )
    spent_s, pairs, next_look = 0.0, 0, FIRST_LOOK_PAIRS
    disturbed, here_s = 0, 0.0
    while pairs < MIN_PAIRS or spent_s < settings.max_s:
        # The order changes from pair to pair, so that neither engine profits from always being second.
        pair_s = sum(player.play() for player in (players if pairs % 2 == 0 else players[::-1]))
        spent_s += pair_s
        here_s += pair_s
        pairs += 1
        disturbed = disturbed + 1 if players[1].latest_s() > (1 + NEAR_CALM) * calm_s else 0
        if move and disturbed >= MOVE_AFTER_PAIRS and here_s >= MOVE_AFTER_S:
            move()
            disturbed, here_s = 0, 0.0
        if pairs >= next_look and spent_s >= MIN_S:
            if _judged(players, calm_s).session_half_width <= settings.half_width:
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

    def latest_s(self) -> float:
        """Typical run of the last block."""
        return float(np.median(self.blocks[-1]))

    def play(self) -> float:
        """Seconds that one more block took."""
        times = _timed(self.engine, self.dropped + self.runs)
        self.blocks.append(times[self.dropped :])
        return sum(times)


def _duet(players: tuple[_Player, ...]) -> Duet:
    candidate, reference = players
    return Duet(candidate_s=np.asarray(candidate.blocks), reference_s=np.asarray(reference.blocks))


def _judged(players: tuple[_Player, ...], calm_s: float) -> Verdict:
    return judge(_duet(players), calm_s)


def _median_ms(seconds: Seconds) -> float | None:
    return 1e3 * float(np.median(seconds)) if seconds.size else None


def _timed(engine: TimedEngine, count: int) -> tuple[float, ...]:
    times = engine.time_runs(count)
    if len(times) != count or not all(0 < each < math.inf for each in times):
        wrong = next((each for each in times if not 0 < each < math.inf), None)
        came = f"{len(times)} times" if wrong is None else f"a time of {wrong} s"
        reason = f"expected {count} positive times from the engine's clock, got {came}"
        raise StageFailed(STAGE, reason)
    return times
