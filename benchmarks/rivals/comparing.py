"""Fronts of one seed side by side: hypervolume, the best accuracy within a latency, and points above our front."""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from scalesearch.analysis.front import Point, hypervolume

OURS = "scalesearch"
"""Name of the arm that the others are compared with."""
SLOWEST_MS = 1.0
"""Hypervolumes reach to this latency: a slower network adds nothing."""
SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of a search's minutes, counted from the start of its process: when searches are compared by their own figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share of images that were answered right, with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member of an arm's front, timed and tested together with those of the other arms of its seed."""

    arm: str
    seed: int
    name: str
    """What it is, in a few words."""
    val: Share
    test: Share
    told_ms: float
    """Its latency as the arm itself measured it."""
    ms: float
    ms_low: float
    ms_high: float
    """Its latency among all members of the seed, with the 95 % interval, in milliseconds."""
    stable: bool
    """Whether the machine was calm for long enough while it was timed."""

    @property
    def log_half(self) -> float:
        """Half the width of the interval of ln(latency)."""
        return math.log(self.ms_high / self.ms_low) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """One search of one arm as it ended."""

    arm: str
    seed: int
    trainings: int
    last_s: float
    """Seconds from the start of its process to its last result."""
    whole_s: float
    """Seconds from start to end of its process."""
    volumes: tuple[float, ...]
    """Hypervolumes, by its own accuracies and latencies, of what it had found at each of SHARES of its minutes."""
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Above:
    """A point of a rival that lies above our front by more than the errors of both."""

    member: Member
    best: Member | None
    """Our most accurate member that is not surely slower; None where all of ours are."""
    points: float
    """By how many points of accuracy it lies above that member."""


Which = Callable[[Member], Share]
"""Takes a member's validation or test accuracy."""
WHICH: dict[str, Which] = {"validation": lambda member: member.val, "test": lambda member: member.test}


def point(member: Member, which: Which) -> Point:
    """Return (accuracy as a fraction, milliseconds)."""
    return which(member).value, member.ms


def volume(points: Iterable[Point]) -> float:
    """Return the area below a front: accuracy in % over log10(1 ms / latency), for latencies of less than 1 ms."""
    return 100 * hypervolume(points, (0.0, SLOWEST_MS)) / math.log(10)


def best_within(points: Iterable[Point], limit_ms: float) -> float:
    """Return the highest accuracy of the points that are at most so slow; 0 where there are none."""
    return max((score for score, ms in points if ms <= limit_ms), default=0.0)


def surely_slower(one: Member, other: Member) -> bool:
    """Tell whether one member is slower than the other by more than the errors of both latencies together."""
    return math.log(one.ms / other.ms) > math.hypot(one.log_half, other.log_half)


def above(rivals: Sequence[Member], ours: Sequence[Member], which: Which) -> tuple[Above, ...]:
    """Return the rivals' points that lie above our front by more than the errors of both accuracies together.

    A point is compared with our most accurate member that is not surely slower than it. The errors are half the widths
    of the 95 % intervals, added as independent errors are (root of the sum of squares).
    """
    found = []
    for rival in rivals:
        as_fast = [member for member in ours if not surely_slower(member, rival)]
        best = max(as_fast, key=lambda member: which(member).value, default=None)
        lead = which(rival).value - (which(best).value if best else 0.0)
        error = math.hypot(which(rival).half, which(best).half if best else 0.0)
        if lead > error:
            found.append(Above(member=rival, best=best, points=100 * lead))
    return tuple(found)


def mean_and_spread(values: Sequence[float], digits: int = 1) -> str:
    """Write a mean and, in brackets, the standard deviation where there are several values."""
    spread = f" ({statistics.stdev(values):.{digits}f})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{spread}"


def turns(arms: Sequence[str], seeds: Sequence[int]) -> list[tuple[int, str]]:
    """Return (seed, arm) in the order in which they are run: each seed begins with another arm."""
    found = list[tuple[int, str]]()
    for turn, seed in enumerate(seeds):
        shift = turn % len(arms)
        found += [(seed, arm) for arm in (*arms[shift:], *arms[:shift])]
    return found
