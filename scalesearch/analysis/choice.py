"""Choose one point of the front by the user's wish, with its neighbours and what the data leave uncertain. No I/O."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from scalesearch.analysis.front import knee, point, ties
from scalesearch.values.quality import best_words, score_noun
from scalesearch.values.record import MeasuredTrial


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What the user wants of a network. Without any bound or weight, the knee is chosen."""

    max_latency_ms: float | None = None
    min_score: float | None = None
    knee: bool = False
    """Whether to choose the knee of all members within the bounds. Otherwise a single bound chooses the best-scoring
    or the fastest member."""
    weights: tuple[float, float] | None = None
    """How much score and latency count, each scaled to 0..1 over the front (latency by its logarithm)."""

    def allows(self, record: MeasuredTrial) -> bool:
        """Tell whether the record's point lies within the bounds."""
        score, p50_ms = point(record)
        slow = self.max_latency_ms is not None and p50_ms > self.max_latency_ms
        return not slow and (self.min_score is None or score >= self.min_score)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The chosen member of a front, its neighbours, and how certain the choice is."""

    record: MeasuredTrial
    rule: str
    """Why this member was chosen, in words."""
    faster: MeasuredTrial | None
    """This and `slower` are the neighbours on the whole front; None at an end of it."""
    slower: MeasuredTrial | None
    ties: tuple[MeasuredTrial, ...]
    """Members that the data cannot tell from the chosen one."""
    doubts: tuple[str, ...]
    """Sentences on bounds of the wish that lie within an interval, and on a latency that is not stable."""


def choose(front: Sequence[MeasuredTrial], wish: Wish) -> Choice:
    """Return the member of the front that the wish asks for.

    Args:
        front: Members of the front, fastest first.
        wish: Bounds and weights.

    Raises:
        ValueError: No member is within the bounds. `cli.studies.front_under` says which members are near.
    """
    members = [record for record in front if wish.allows(record)]
    if not members:
        msg = "no member of the front is within the bounds"
        raise ValueError(msg)
    record, rule = _chosen(front, members, wish)
    place = [member.trial for member in front].index(record.trial)
    tied = {trial for pair in ties(front) if record.trial in pair for trial in pair} - {record.trial}
    return Choice(
        record=record,
        rule=rule,
        faster=front[place - 1] if place else None,
        slower=front[place + 1] if place + 1 < len(front) else None,
        ties=tuple(member for member in front if member.trial in tied),
        doubts=tuple(_doubts(front, record, wish)),
    )


def _chosen(front: Sequence[MeasuredTrial], members: Sequence[MeasuredTrial], wish: Wish) -> tuple[MeasuredTrial, str]:
    bounds = [] if wish.max_latency_ms is None else [f"within {wish.max_latency_ms:g} ms"]
    bounds += [] if wish.min_score is None else [f"with at least {100 * wish.min_score:g} %"]
    among = f"of {len(members)} front members {' and '.join(bounds)}" if bounds else f"of {len(front)} front members"
    metric = front[0].quality.metric
    noun = score_noun(metric)
    if wish.weights is not None:
        score_weight, latency = wish.weights
        best = knee(members, score=score_weight, latency=latency)
        assert best is not None
        return (
            best,
            f"the best {among} by {score_weight:g} x {noun} less {latency:g} x log latency, each 0 to 1 over them",
        )
    if len(bounds) == 1 and not wish.knee:
        if wish.min_score is None:
            return members[-1], f"the {best_words(metric)} {among}"  # along a front, the score rises with latency
        return members[0], f"the fastest {among}"
    best = knee(members)
    assert best is not None
    return best, f"the knee {among}: the best trade of {noun} for latency (on a log scale)"


def _doubts(front: Sequence[MeasuredTrial], record: MeasuredTrial, wish: Wish) -> Iterator[str]:
    limit_ms, least = wish.max_latency_ms, wish.min_score
    if limit_ms is not None and record.latency.p50_high_ms > limit_ms:
        yield f"its latency's interval reaches over the limit: up to {record.latency.p50_high_ms:.3g} ms"
    if least is not None and record.quality.score_low < least:
        noun, low = score_noun(record.quality.metric), f"{100 * record.quality.score_low:.1f} %"
        yield f"its {noun}'s interval reaches below the wish: down to {low}"
    near = [str(other.trial) for other in front if not wish.allows(other) and _may_be_within(other, wish)]
    if near:
        yield f"out of bounds as measured, perhaps within them by the intervals: trial {', '.join(near)}"
    if not record.latency.stable:
        yield record.latency.why_unstable


def _may_be_within(record: MeasuredTrial, wish: Wish) -> bool:
    fast = wish.max_latency_ms is None or record.latency.p50_low_ms <= wish.max_latency_ms
    return fast and (wish.min_score is None or record.quality.score_high >= wish.min_score)
