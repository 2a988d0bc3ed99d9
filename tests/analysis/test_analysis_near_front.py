"""Which networks are near the front."""

import math
from typing import Any

import pytest

from scalesearch.analysis.front import pareto_front, point
from scalesearch.analysis.near_front import LIKELY_SPEEDUP, beaten_above_ms, far_above_ms, near_front


def test_near_the_front_is_what_a_likely_speedup_would_put_on_it(make_record: Any) -> None:
    member = make_record(0, top1=0.8, p50_ms=1.0)
    doubt = member.quality.score_high - member.quality.score
    just, over = 0.99 * LIKELY_SPEEDUP, 1.01 * LIKELY_SPEEDUP
    worse = 0.8 - doubt - 0.01
    assert near_front(make_record(1, top1=worse, p50_ms=just), [member])
    assert not near_front(make_record(1, top1=worse, p50_ms=over), [member])
    assert near_front(make_record(1, top1=0.8 - doubt + 0.01, p50_ms=over), [member]), "its images leave it in doubt"
    assert near_front(member, [member])
    assert not near_front(make_record(1, top1=0.9, excess=0.1), [member]), "infeasible"


@pytest.mark.parametrize("top1", [0.5, 0.72, 0.77, 0.9])
def test_a_network_is_far_from_the_front_from_the_latency_on_at_which_it_is_not_near_it(
    top1: float, make_record: Any
) -> None:
    front = [make_record(0, top1=0.6, p50_ms=1.0), make_record(1, top1=0.8, p50_ms=3.0)]
    far_ms = far_above_ms(make_record(2, top1=top1).quality.score_high, map(point, front))
    assert far_ms == {0.5: LIKELY_SPEEDUP, 0.72: 3 * LIKELY_SPEEDUP, 0.77: 3 * LIKELY_SPEEDUP, 0.9: math.inf}[top1]
    for p50_ms in (1.0, 2.0, 4.0, 10.0):
        assert near_front(make_record(2, top1=top1, p50_ms=p50_ms), front) == (p50_ms < far_ms)


@pytest.mark.parametrize(("top1", "beaten_ms"), [(0.5, 1.0), (0.72, 3.0), (0.77, 3.0), (0.9, math.inf)])
def test_a_network_is_beaten_from_the_latency_of_the_fastest_member_that_is_surely_as_accurate(
    top1: float, beaten_ms: float, make_record: Any
) -> None:
    front = [make_record(0, top1=0.6, p50_ms=1.0), make_record(1, top1=0.8, p50_ms=3.0)]
    assert beaten_above_ms(make_record(2, top1=top1).quality.score_high, map(point, front)) == beaten_ms
    if beaten_ms < math.inf:
        slower = make_record(2, top1=top1, p50_ms=1.001 * beaten_ms)
        assert 2 not in {record.trial for record in pareto_front([*front, slower])}


def test_without_rivals_nothing_is_far_or_beaten() -> None:
    assert far_above_ms(0.9, ()) == beaten_above_ms(0.9, ()) == math.inf
