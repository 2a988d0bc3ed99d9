"""What simpler ways would have found: from the records of a study whose truth is known."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest

from scalesearch.analysis.belief import Belief, observations_of
from scalesearch.analysis.front import hypervolume, knee, pareto_front
from scalesearch.analysis.simple_ways import SimpleWays, simple_ways
from scalesearch.spaces.moves import drawn
from scalesearch.values.candidate import Candidate
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.space import Choice, Limits, NamedAxis, Range, SearchSpace

MakeRecord = Callable[..., MeasuredTrial]
AXES = (
    NamedAxis(name="scaling.resolution", axis=Choice(values=(0.375, 0.5, 0.75, 1.0))),
    NamedAxis(name="scaling.depth", axis=Choice(values=(1.0, 2.0))),
    NamedAxis(name="scaling.width", axis=Choice(values=(0.5, 0.75, 1.0, 1.25))),
    NamedAxis(name="scaling.kernel", axis=Choice(values=(1.0, 1.67))),
    NamedAxis(name="pruning.channel_fraction", axis=Choice(values=(0.0, 0.25, 0.5))),
    NamedAxis(name="quantization.precision", axis=Choice(values=("fp32", "int8"))),
)
SPACE = SearchSpace(name="own", network="resnet_small", resolution_px=64, axes=AXES)
MACS = 1e7


def work(candidate: Candidate) -> float:
    """Return MACs as a part of those at multiplier 1."""
    scaling = candidate.scaling
    wide = scaling.width * (1 - candidate.pruning.channel_fraction)
    return scaling.resolution**2 * scaling.depth * wide**2 * scaling.kernel**2


def cutting_pays(candidate: Candidate) -> float:
    """Return a score of which a cut takes little: a space of widths and resolutions alone has a worse front."""
    dense = dataclasses.replace(candidate, pruning=dataclasses.replace(candidate.pruning, channel_fraction=0.0))
    return 0.8 + 0.06 * math.log2(work(dense)) - 0.02 * candidate.pruning.channel_fraction


def only_width_and_resolution_pay(candidate: Candidate) -> float:
    """Return a score to which depth, kernel and cuts add nothing."""
    scaling = candidate.scaling
    return 0.8 + 0.05 * math.log2(scaling.resolution**2 * scaling.width) - 0.3 * candidate.pruning.channel_fraction


def records(
    make_record: MakeRecord, count: int, score: Callable[[Candidate], float], space: SearchSpace = SPACE
) -> list[MeasuredTrial]:
    random, found = np.random.default_rng(0), list[MeasuredTrial]()
    while len(found) < count:
        candidate = drawn(space, random)
        record = make_record(len(found), top1=score(candidate), p50_ms=work(candidate))
        cost = dataclasses.replace(record.cost, macs=round(MACS * work(candidate)))
        found.append(dataclasses.replace(record, candidate=candidate, cost=cost))
    return found


def ways_of(made: list[MeasuredTrial], space: SearchSpace = SPACE) -> SimpleWays | None:
    front = pareto_front(made)
    best = knee(front)
    assert best
    belief = Belief(space, observations_of(made))
    return simple_ways(space, belief, [each.candidate for each in front], knee=best.candidate)


def test_a_front_that_cuts_is_ahead_of_ways_without_cuts_where_cutting_pays(make_record: MakeRecord) -> None:
    found = ways_of(records(make_record, 60, cutting_pays))
    assert found
    by_name = {way.name: way for way in found.ways}
    assert list(by_name) == ["by chance", "width x resolution", "compound scaling"]
    assert by_name["width x resolution"].networks == 16
    assert by_name["width x resolution"].hypervolume < 0.95
    assert by_name["compound scaling"].hypervolume < 0.95
    score = by_name["width x resolution"].score
    assert score is not None
    assert score < found.score


def test_a_grid_is_as_good_where_nothing_else_pays(make_record: MakeRecord) -> None:
    made = records(make_record, 60, only_width_and_resolution_pay)
    found = ways_of(made)
    assert found
    grid = next(way for way in found.ways if way.name == "width x resolution")
    assert grid.hypervolume > 0.97

    grid_points = [
        (only_width_and_resolution_pay(each), work(each))
        for each in {record.candidate for record in made}
        if each.scaling.depth == each.scaling.kernel == 1 and not each.pruning.any
    ]
    front_points = [(record.quality.score, record.latency.p50_ms) for record in pareto_front(made)]
    reference = (0.0, 30.0)
    truth = hypervolume(grid_points, reference) / hypervolume(front_points, reference)
    assert grid.hypervolume > truth - 0.02, "the whole grid has all of what was tried of it"


def test_chance_has_as_many_networks_as_the_updates_would_have_trained(make_record: MakeRecord) -> None:
    made = records(make_record, 60, cutting_pays)
    networks = {(each.candidate.scaling, each.candidate.pruning) for each in made}
    found = ways_of(made)
    assert found
    assert found.ways[0].networks == len(networks)

    half = [
        dataclasses.replace(
            each,
            candidate=dataclasses.replace(
                each.candidate, recipe=dataclasses.replace(each.candidate.recipe, steps=240 if each.trial % 2 else 480)
            ),
        )
        for each in made
    ]
    belief = Belief(SPACE, observations_of(half), full_updates=480)
    front = [each.candidate for each in pareto_front(half)]
    shorter = simple_ways(SPACE, belief, front, knee=front[0])
    assert shorter
    longest: dict[object, int] = {}
    for each in half:
        key = (each.candidate.scaling, each.candidate.pruning)
        longest[key] = max(longest.get(key, 0), each.candidate.recipe.steps)
    assert shorter.ways[0].networks == round(sum(longest.values()) / 480)


def test_what_breaks_a_limit_does_not_count(make_record: MakeRecord) -> None:
    small = dataclasses.replace(SPACE, limits=Limits(max_macs=round(0.5 * MACS)))
    made = [each for each in records(make_record, 90, cutting_pays) if work(each.candidate) <= 0.5]
    found = ways_of(made, small)
    assert found
    grid = next(way for way in found.ways if way.name == "width x resolution")
    within = sum(
        (resolution * width) ** 2 <= 0.5 for resolution in (0.375, 0.5, 0.75, 1.0) for width in (0.5, 0.75, 1.0, 1.25)
    )
    assert within <= grid.networks <= within + 1, "a network 5 % above the limit may be let through"


def test_values_of_ranges_are_spread_and_the_nearest_is_taken(make_record: MakeRecord) -> None:
    space = dataclasses.replace(
        SPACE,
        axes=(
            NamedAxis(name="scaling.resolution", axis=Range(low=0.5, high=1.0)),
            NamedAxis(name="scaling.width", axis=Range(low=0.5, high=1.25, step=0.25)),
            NamedAxis(name="scaling.kernel", axis=Choice(values=(1.67, 2.33))),
        ),
    )
    found = ways_of(records(make_record, 40, cutting_pays, space), space)
    assert found
    assert next(way for way in found.ways if way.name == "width x resolution").networks == 5 * 4


@pytest.mark.parametrize("kept", [(), ("scaling.kernel", "pruning.channel_fraction")])
def test_a_space_without_scaling_leaves_simpler_ways_no_choice(make_record: MakeRecord, kept: tuple[str, ...]) -> None:
    space = dataclasses.replace(SPACE, axes=tuple(named for named in AXES if named.name in (*kept, AXES[-1].name)))
    made = records(make_record, 12, cutting_pays, space)
    found = ways_of(made, space)
    assert found is None or [way.name for way in found.ways] == ["by chance"]
