import itertools
import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fake_evaluators import DEVICE, make_latency, make_quality

from scalesearch.analysis.front import (
    LIKELY_SPEEDUP,
    REFERENCE,
    beaten_above_ms,
    far_above_ms,
    hypervolume,
    knee,
    near_front,
    pareto_front,
    point,
    ties,
)
from scalesearch.errors import ConfigError
from scalesearch.networks import base_spec
from scalesearch.values.candidate import Candidate
from scalesearch.values.latency import Postprocessing
from scalesearch.values.record import Cost, LimitUse, MeasuredTrial, TrainingResult


def record(trial: int, top1: float, p50_ms: float, *, half: float = 0.01) -> MeasuredTrial:
    return MeasuredTrial(
        trial=trial,
        key=str(trial),
        state="complete",
        candidate=Candidate(),
        charged=True,
        quality=make_quality(top1, half),
        latency=make_latency(p50_ms, half),
        device=DEVICE,
        spec=base_spec("resnet_small"),
        cost=Cost(macs=1, params=1),
        training=TrainingResult(
            float_score=top1, train_s=1.0, retrain_s=0.0, steps=1, safe_recipe_used=False, weights_reused=False,
            final_loss=1.0,
        ),
        size_bytes=4,
        onnx_sha256="0",
        network_sha256="1",
    )  # fmt: skip


def cloud(seed: int, n: int) -> list[MeasuredTrial]:
    """Points on a coarse grid, so that equal coordinates and equal points occur."""
    rng = random.Random(seed)
    return [record(i, rng.randint(1, 12) / 12, float(rng.randint(1, 12))) for i in range(n)]


def by_brute_force(records: list[MeasuredTrial]) -> set[int]:
    def beaten(one: MeasuredTrial) -> bool:
        (a, b) = point(one)
        return any(c >= a and d <= b and (c, d) != (a, b) for c, d in map(point, records))

    return {one.trial for one in records if not beaten(one)}


@pytest.mark.parametrize("seed", range(20))
def test_front_is_what_brute_force_finds(seed: int) -> None:
    records = cloud(seed, 1 + seed * 3)
    front = pareto_front(records)
    assert {member.trial for member in front} == by_brute_force(records)
    latencies = [point(member)[1] for member in front]
    assert latencies == sorted(latencies)


def test_front_leaves_out_infeasible_incomplete_and_repeated() -> None:
    good = record(0, 0.5, 2.0)
    slow = replace(record(1, 0.9, 1.0), limits=(LimitUse(limit="max_latency_ms", excess=0.1),))
    lost = replace(record(2, 0.9, 1.0), state="failed").without_measurement()
    again = replace(good, trial=3, same_as=0, state="cached")
    assert pareto_front([good, slow, lost, again]) == (good,)
    assert pareto_front([slow, lost]) == ()


def test_unlike_devices_never_share_a_front() -> None:
    other = replace(record(7, 0.6, 3.0), device=replace(DEVICE, threads=2))
    with pytest.raises(ConfigError, match=r"trial 0 was measured on .*threads=1.*trial 7 on .*threads=2"):
        pareto_front([record(0, 0.5, 2.0), other])
    # One that is not on offer anyway is no reason to refuse.
    assert len(pareto_front([record(0, 0.5, 2.0), other.without_measurement()])) == 1


def test_unlike_objectives_never_share_a_front() -> None:
    one, other = record(0, 0.5, 2.0), record(7, 0.6, 3.0)
    whole = other.latency.beside(Postprocessing(p50_ms=1, p50_low_ms=1, p50_high_ms=1, images=1), "end_to_end")
    with pytest.raises(ConfigError, match=r"latency objectives .*trial 0 has engine, trial 7 has end_to_end"):
        pareto_front([one, replace(other, latency=whole)])
    with pytest.raises(ConfigError, match=r"scores .*trial 0 has top1, trial 7 has map50"):
        pareto_front([one, replace(other, quality=replace(other.quality, metric="map50"))])


@pytest.mark.parametrize("seed", range(10))
def test_hypervolume_is_optunas(seed: int) -> None:
    from optuna._hypervolume import compute_hypervolume

    rng = random.Random(seed)
    points = [(rng.random(), math.exp(rng.uniform(-2, 9))) for _ in range(1 + 4 * seed)]
    losses = np.array([[-top1, math.log(p50_ms)] for top1, p50_ms in points])
    limit = np.array([-REFERENCE[0], math.log(REFERENCE[1])])
    inside = losses[(losses < limit).all(axis=1)]
    expected = compute_hypervolume(inside, limit) if len(inside) else 0.0
    assert hypervolume(points) == pytest.approx(expected)


def test_hypervolume_of_one_point_is_a_rectangle() -> None:
    assert hypervolume([(0.8, 1000 / math.e)]) == pytest.approx(0.8)
    assert hypervolume([(0.8, 2.0)], (0.5, 2.0 * math.e)) == pytest.approx(0.3)
    assert hypervolume([]) == hypervolume([(0.9, 1000.0)]) == hypervolume([(0.0, 1.0)]) == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_hypervolume_never_falls_with_a_further_point_and_ignores_order(seed: int) -> None:
    points = [point(one) for one in cloud(seed, 12)]
    volumes = [hypervolume(points[:n]) for n in range(len(points) + 1)]
    assert volumes == sorted(volumes)
    assert hypervolume(reversed(points)) == pytest.approx(volumes[-1])
    assert hypervolume(point(one) for one in pareto_front(cloud(seed, 12))) == pytest.approx(volumes[-1])


def test_knee_is_where_the_front_bends() -> None:
    # Doubling the latency brings 0.30, then 0.05, then 0.05: the second point is the bend.
    front = [record(i, top1, 2.0**i) for i, top1 in enumerate((0.4, 0.7, 0.75, 0.8))]
    best = knee(front)
    assert best is not None and best.trial == 1


def test_knee_of_the_smallest_fronts() -> None:
    assert knee([]) is None
    assert knee([record(4, 0.5, 1.0)]) == record(4, 0.5, 1.0)
    two = [record(0, 0.5, 1.0), record(1, 0.6, 2.0)]
    assert knee(two) == two[1]  # nothing bends: the more accurate one
    straight = [record(i, 0.5 + 0.1 * i, 2.0**i) for i in range(4)]
    assert knee(straight) == straight[3]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_knee_does_not_depend_on_the_unit_of_time(scale: float) -> None:
    front = [record(i, top1, scale * 2.0**i) for i, top1 in enumerate((0.4, 0.7, 0.75, 0.8))]
    best = knee(front)
    assert best is not None and best.trial == 1


def both_overlap(one: MeasuredTrial, other: MeasuredTrial) -> bool:
    # Intervals are +-1 % of a latency and +-0.01 of an accuracy (see make_latency, make_quality).
    (a, b), (c, d) = point(one), point(other)
    return abs(a - c) <= 0.02 + 1e-12 and abs(b - d) <= 0.01 * (b + d) + 1e-12


@pytest.mark.parametrize(
    ("top1", "p50_ms", "tied"),
    [(0.51, 1.01, True), (0.53, 1.01, False), (0.51, 1.05, False), (0.53, 1.05, False)],
    ids=["both near", "accuracy differs", "latency differs", "both differ"],
)
def test_a_tie_needs_both_intervals_to_overlap(top1: float, p50_ms: float, tied: bool) -> None:
    front = [record(3, 0.5, 1.0), record(8, top1, p50_ms)]
    assert ties(front) == (((3, 8),) if tied else ())


def test_ties_are_pairs_and_not_groups() -> None:
    front = [record(i, 0.5 + 0.015 * i, 1.0 + 0.015 * i) for i in range(4)]
    expected = tuple((a.trial, b.trial) for a, b in itertools.combinations(front, 2) if both_overlap(a, b))
    assert ties(front) == expected == ((0, 1), (1, 2), (2, 3))


def test_only_complete_records_have_a_point() -> None:
    lost = record(5, 0.5, 1.0).without_measurement()
    assert lost.measured is None
    with pytest.raises(ValueError, match="trial 5 has no score"):
        point(lost)


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
