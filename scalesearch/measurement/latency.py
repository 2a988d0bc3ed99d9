"""Repeatable latency on a machine that is never quite quiet: candidate and reference engine run in turn, as a duet.

Both engines run in short blocks, back to back, so that whatever slows the machine down slows both. The ratio of the two
repeats well (Bulej et al., "Duet Benchmarking", ICPE 2020), as long as the machine is calm. So only those pairs of
blocks count in which the reference runs at its calm time, which is found once per study. The ratio times this calm time
is the latency in milliseconds. The clock is the engine's (`time_runs`); the statistics are in `duet`.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from scalesearch.errors import StageFailed
from scalesearch.measurement.duet import MIN_PAIRS, NEAR_CALM, Duet, Seconds, Verdict, judge
from scalesearch.measurement.ends import Ends
from scalesearch.values.latency import Latency
from scalesearch.values.settings import LatencySettings

LOG = logging.getLogger(__name__)
STAGE = "latency"

BLOCK_S = 0.001
"""A block runs for about this long: a pair of blocks must be shorter than the machine's moods (see `duet`)."""
MAX_BLOCK_RUNS = 500
COLD_BELOW_S = 0.005
"""Engines with shorter runs find the caches full of the other engine's data, so the first run of each of their blocks
(which takes 3 to 17 % longer) is left out.
"""
MIN_S = 0.5
"""Shorter sessions repeat worse, longer ones hardly better: what remains differs from one process to the next."""
FIRST_LOOK_PAIRS, LOOK_GROWTH = 40, 1.25
"""The interval is first checked after this many pairs, and again whenever their number has grown by this factor. Checks
are few, since each is one more chance to stop on a lucky streak."""
WARMUP_WINDOWS, WARMUP_AGREEMENT = 10, 0.02
REFERENCE_WINDOWS = 2
"""Windows of the reference's warm-up in a duet: the candidate's own warm-up has woken the device by then."""
SLOWEST_RUN_S = 20.0
MOVE_AFTER_PAIRS, MOVE_AFTER_S = 3, 0.02
"""Another core is tried after this many disturbed pairs in a row, and after at least this many seconds on one core."""

Move = Callable[[], None]
"""Moves this thread to another core (`cores.wandering`)."""


class TimedEngine(Protocol):
    """The part of an engine that a measurement needs; runs are timed by the device's own clock."""

    @property
    def batch(self) -> int:
        """Images per run."""
        ...

    def time_runs(self, count: int) -> tuple[float, ...]:
        """Run `count` times, and return the seconds of each run."""
        ...


def measure_latency(
    engine: TimedEngine,
    reference: TimedEngine,
    *,
    settings: LatencySettings,
    reference_calm_ms: float,
    calmest_ms: float | None = None,
    exact_ms: tuple[float, float] = (0.0, math.inf),
    brief: bool = False,
    move: Move | None = None,
) -> Latency:
    """Measure the latency of `engine`: its ratio to `reference`, run in turn with it, times the reference's calm time.

    It runs for at least half a second and six pairs, and then until enough pairs were calm for a narrow interval of
    their ratio, or until `settings.max_s` are spent. The interval of `p50_ms` is wider: it is for what a fresh process
    would measure. `stable` says whether enough pairs were calm and this wider interval is within
    `settings.stable_within`. Call this function inside `DeviceLock.quiet()`.

    Args:
        engine: The engine to time.
        reference: The engine that it is compared with.
        settings: How long and how exactly to measure.
        reference_calm_ms: The study's unit of time in milliseconds, from `calm_time`.
        calmest_ms: The fastest level of the reference known so far, in milliseconds. If it is below
            `reference_calm_ms`, that unit was found in a bad mood, and this level decides which pairs are calm.
        exact_ms: Range in which the latency must be known exactly. If it is surely outside, timing ends once the
            session's interval is within `settings.coarse_half_width`, or after a quarter of `settings.max_s`.
        brief: Also end when more time would hardly help: when the latency is stable and can hardly get more exact; or
            when half of `settings.max_s` brought too few calm pairs and the estimate is above `exact_ms`. This is meant
            for candidates of a search, the best of which are timed again.
        move: Called when the reference is disturbed.

    Raises:
        StageFailed: `reference_calm_ms` is not above 0, an engine's clock gave other than positive times, or one run
            takes over 20 s.
    """
    if not reference_calm_ms > 0:
        reason = f"expected reference_calm_ms above 0 (from calm_time), got {reference_calm_ms}"
        raise StageFailed(STAGE, reason)
    calm_s = min(reference_calm_ms, calmest_ms or math.inf) / 1e3
    low_ms, high_ms = exact_ms
    ends = Ends(settings=settings, bounds=(low_ms / reference_calm_ms, high_ms / reference_calm_ms), brief=brief)
    duet = play_duet(engine, reference, settings=settings, calm_s=calm_s, ends=ends, move=move)
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
        coarse=ends.coarse,
    )


def play_duet(
    engine: TimedEngine,
    reference: TimedEngine,
    *,
    settings: LatencySettings,
    calm_s: float = math.inf,
    ends: Ends | None = None,
    move: Move | None = None,
) -> Duet:
    """Warm both engines up and run them in turn, AB BA AB ..., until the interval is narrow enough or time is up.

    The interval is that of the calm pairs' ratio. Without `calm_s`, the reference's lowest level in this duet defines
    calm. Without `ends`, no duet ends early. The other arguments are those of `measure_latency`.
    """
    ends = ends or Ends(settings=settings)
    run_s = warm_up(engine, settings.warmup_s), warm_up(reference, settings.warmup_s, windows=REFERENCE_WINDOWS)
    # A block is never shorter than a quarter of one run of the slower engine; otherwise it would see none of what
    # disturbs that engine.
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
            if ends.enough(_judged(players, calm_s), spent_s):
                break
            next_look = math.ceil(LOOK_GROWTH * next_look)
    return _duet(players)


def warm_up(engine: TimedEngine, seconds: float, *, windows: int = WARMUP_WINDOWS) -> float:
    """Run the engine until two successive windows agree within 2 %, and return the seconds per run.

    A window takes half of `seconds`; there are `windows` of them at most. Their lower deciles are compared: other work
    on the machine changes their medians from window to window, while an engine that is not warm is slow in every run.

    Raises:
        StageFailed: A run takes over 20 s, or the engine's clock gave other than positive times.
    """
    (run_s,) = timed(engine, 1)
    if run_s > SLOWEST_RUN_S:
        reason = (
            f"expected a run to take at most {SLOWEST_RUN_S:g} s, got {run_s:.1f} s; use a smaller network or batch"
        )
        raise StageFailed(STAGE, reason)
    before_s = math.inf
    for _ in range(windows):
        window: list[float] = []
        while not window or sum(window) < seconds / 2:
            window += timed(engine, max(1, min(MAX_BLOCK_RUNS, round(seconds / 2 / run_s))))
            run_s = float(np.median(window))
        fast_s = float(np.quantile(window, 0.1))
        if abs(fast_s - before_s) <= WARMUP_AGREEMENT * fast_s:
            return run_s
        before_s = fast_s
    if windows == WARMUP_WINDOWS:
        words = "warm-up ended while runs of %.3f ms still varied by over %.0f %%"
        LOG.info(words, 1e3 * run_s, 100 * WARMUP_AGREEMENT)
    return run_s


@dataclass(slots=True)
class _Player:
    """One engine of a duet, with the blocks that it has run."""

    engine: TimedEngine
    runs: int
    dropped: int
    blocks: list[tuple[float, ...]]

    @classmethod
    def of(cls, engine: TimedEngine, run_s: float, block_s: float) -> "_Player":
        runs = max(1, min(MAX_BLOCK_RUNS, round(block_s / run_s)))
        return cls(engine, runs, 1 if run_s < COLD_BELOW_S else 0, [])

    def latest_s(self) -> float:
        """Return the typical run time of the last block, in seconds."""
        return float(np.median(self.blocks[-1]))

    def play(self) -> float:
        """Run one more block, and return the seconds it took."""
        times = timed(self.engine, self.dropped + self.runs)
        self.blocks.append(times[self.dropped :])
        return sum(times)


def _duet(players: tuple[_Player, ...]) -> Duet:
    candidate, reference = players
    return Duet(candidate_s=np.asarray(candidate.blocks), reference_s=np.asarray(reference.blocks))


def _judged(players: tuple[_Player, ...], calm_s: float) -> Verdict:
    return judge(_duet(players), calm_s)


def _median_ms(seconds: Seconds) -> float | None:
    return 1e3 * float(np.median(seconds)) if seconds.size else None


def timed(engine: TimedEngine, count: int) -> tuple[float, ...]:
    """Return the seconds of each of `count` runs.

    Raises:
        StageFailed: The engine's clock gives another number of times, or a time that is not positive and finite.
    """
    times = engine.time_runs(count)
    if len(times) != count or not all(0 < each < math.inf for each in times):
        wrong = next((each for each in times if not 0 < each < math.inf), None)
        came = f"{len(times)} times" if wrong is None else f"a time of {wrong} s"
        reason = f"expected {count} positive times from the engine's clock, got {came}"
        raise StageFailed(STAGE, reason)
    return times
