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
    best = knee(pareto_front(made))
    assert best
    belief = Belief(space, observations_of(made))
    return simple_ways(space, belief, knee=best.candidate)


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
    shorter = simple_ways(SPACE, belief, knee=pareto_front(half)[0].candidate)
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


def test_a_fine_range_makes_no_endless_grid(make_record: MakeRecord) -> None:
    axes = (
        NamedAxis(name="scaling.resolution", axis=Range(low=0.5, high=1.0, step=0.001)),
        NamedAxis(name="scaling.width", axis=Range(low=0.5, high=1.25, step=0.001)),
    )
    space = dataclasses.replace(SPACE, axes=axes)
    found = ways_of(records(make_record, 20, cutting_pays, space), space)
    assert found
    assert next(way for way in found.ways if way.name == "width x resolution").networks == 8 * 8


@pytest.mark.parametrize("precisions", [("fp32", "int8"), ("int8", "fp32")])
def test_what_is_too_large_in_fp32_alone_counts_in_int8(make_record: MakeRecord, precisions: tuple[str, ...]) -> None:
    def size_of(candidate: Candidate) -> int:
        wide = candidate.scaling.width * (1 - candidate.pruning.channel_fraction)
        return round(4e5 * wide**2 / (4 if candidate.quantization.precision == "int8" else 1))

    axes = (*AXES[:-1], NamedAxis(name="quantization.precision", axis=Choice(values=precisions)))
    space = dataclasses.replace(SPACE, axes=axes, limits=Limits(max_size_bytes=160_000))
    every = records(make_record, 60, cutting_pays, space)
    sized = [dataclasses.replace(each, size_bytes=size_of(each.candidate)) for each in every]
    found = ways_of([each for each in sized if each.size_bytes <= 160_000], space)
    assert found
    grid = next(way for way in found.ways if way.name == "width x resolution")
    assert grid.networks == 16, "the widest has 156 kB in int8; in fp32 only the four narrowest fit"


def test_a_measured_trial_counts_although_the_model_expects_it_too_slow(make_record: MakeRecord) -> None:
    limit_ms = 0.3
    space = dataclasses.replace(SPACE, limits=Limits(max_latency_ms=limit_ms))
    every = records(make_record, 60, cutting_pays, SPACE)
    made = [each for each in every if each.latency.p50_ms <= limit_ms]
    best = knee(pareto_front(made))
    assert best
    fast = [dataclasses.replace(each, p50_ms=2 * each.p50_ms) for each in observations_of(made)]
    found = simple_ways(space, Belief(space, fast), knee=best.candidate)
    free = simple_ways(SPACE, Belief(SPACE, fast), knee=best.candidate)
    assert found and free
    assert found.score == free.score
    grids = [next(way for way in each.ways if way.name == "width x resolution") for each in (found, free)]
    assert grids[0].hypervolume < grids[1].hypervolume, "the same grid with a limit has less, its rival has not"


def test_simple_ways_are_trained_as_long_as_the_longest_trial(make_record: MakeRecord) -> None:
    steps = NamedAxis(name="training.steps", axis=Choice(values=(240, 480, 960)))
    space = dataclasses.replace(SPACE, axes=(*AXES[:4], steps))

    def longer_pays(candidate: Candidate) -> float:
        return cutting_pays(candidate) + 0.1 * math.log2(candidate.recipe.steps / 960)

    made = records(make_record, 80, longer_pays, space)
    found = ways_of(made, space)
    assert found
    grid = next(way for way in found.ways if way.name == "width x resolution")
    assert grid.score is not None
    largest = 0.8 + 0.06 * math.log2(1.25**2)
    assert grid.score == pytest.approx(largest, abs=0.03), "trained by 240 updates it would have 0.2 less"


@pytest.mark.parametrize("kept", [(), ("scaling.kernel", "pruning.channel_fraction")])
def test_a_space_without_scaling_leaves_simpler_ways_no_choice(make_record: MakeRecord, kept: tuple[str, ...]) -> None:
    space = dataclasses.replace(SPACE, axes=tuple(named for named in AXES if named.name in (*kept, AXES[-1].name)))
    made = records(make_record, 12, cutting_pays, space)
    found = ways_of(made, space)
    assert found is None or [way.name for way in found.ways] == ["by chance"]
