"""Which networks are near the front: those that would be on it if they were somewhat better than they were measured."""

import math
from collections.abc import Iterable

from scalesearch.analysis.front import Point, as_good, point
from scalesearch.values.record import TrialRecord

LIKELY_SPEEDUP = 1.5
"""Speed-up that another precision may well bring. A candidate that would be on the front with this speed-up is near
it."""


def near_front(record: TrialRecord, front: Iterable[TrialRecord]) -> bool:
    """Tell whether another precision of this network could reach the front.

    The network is assumed to be faster by the likely speed-up and to have the upper end of its score's interval.
    """
    if not record.feasible or record.quality is None or record.latency is None:
        return False
    hoped = (record.quality.score_high, record.latency.p50_ms / LIKELY_SPEEDUP)
    return not any(as_good(point(member), hoped) for member in front if member.trial != record.trial)


def far_above_ms(score_high: float, rivals: Iterable[Point]) -> float:
    """Return the latency from which on a network is not near the front, in milliseconds; infinite if there is none.

    Args:
        score_high: Upper end of the interval of the network's score, as a fraction.
        rivals: Points of the members of the front.
    """
    return LIKELY_SPEEDUP * beaten_above_ms(score_high, rivals)


def beaten_above_ms(score_high: float, rivals: Iterable[Point]) -> float:
    """Return the latency from which on a network is surely not on the front, in milliseconds; infinite without one.

    From there on a member of the front is faster, and at least as accurate as the upper end of the network's interval.

    Args:
        score_high: Upper end of the interval of the network's score, as a fraction.
        rivals: Points of the members of the front.
    """
    return min((p50_ms for score, p50_ms in rivals if score >= score_high), default=math.inf)
