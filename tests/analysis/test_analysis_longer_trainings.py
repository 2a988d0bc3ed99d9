"""What a search's own longer trainings show: the gain, the order, and whom they helped most."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from scipy.stats import spearmanr

from scalesearch.analysis.longer_trainings import LEAST_NETWORKS, longer_trainings
from scalesearch.values.candidate import Precision
from scalesearch.values.record import MeasuredTrial
from scalesearch.views.brief_bias import longer_lines

SIDES_PX = (24, 32, 48, 64)


@pytest.fixture
def trained(make_record: Callable[..., MeasuredTrial]) -> Callable[..., MeasuredTrial]:
    """Return a function that makes the trial of a network in one length."""

    def make(
        trial: int, side_px: int, width: float, steps: int, score: float, precision: Precision = "fp32"
    ) -> MeasuredTrial:
        record = make_record(trial)
        candidate = record.candidate
        return replace(
            record,
            candidate=replace(
                candidate,
                scaling=replace(candidate.scaling, resolution=side_px / 64, width=width),
                recipe=replace(candidate.recipe, steps=steps),
                quantization=replace(candidate.quantization, precision=precision),
            ),
            spec=replace(record.spec, resolution_px=side_px),
            cost=replace(record.cost, macs=int(1000 * width * side_px**2)),
            training=replace(record.training, float_score=score, steps=steps),
            full_updates=960,
        )

    return make


def records(trained: Callable[..., MeasuredTrial], points_a_doubling: float) -> list[MeasuredTrial]:
    """Return networks of four sides and two widths in two lengths; larger images gain so much more."""
    found = list[MeasuredTrial]()
    for place, side_px in enumerate(SIDES_PX):
        for width in (0.5, 1.0):
            brief = 0.4 + 0.03 * (3 * place % 4) + 0.1 * width + 0.001 * place  # goes up and down with the side
            gain = 0.1 + points_a_doubling / 100 * math.log2(side_px / 24)
            found += [
                trained(len(found), side_px, width, 240, brief),
                trained(len(found) + 1, side_px, width, 480, brief + gain / 2),
                trained(len(found) + 2, side_px, width, 960, brief + gain),
            ]
    return found


def test_the_gain_the_order_and_whom_it_helped(trained: Callable[..., MeasuredTrial]) -> None:
    found = longer_trainings(records(trained, 12.0))
    assert found and found.bias and found.ranks
    assert (found.networks, found.shortest, found.full) == (8, 240, 960)
    mean = 10 + 12 * sum(math.log2(side / 24) for side in SIDES_PX) / 4
    assert found.bias.mean_gain == pytest.approx(mean)
    brief, long = ([each.training.float_score for each in records(trained, 12.0)[first::3]] for first in (0, 2))
    assert found.ranks.spearman == pytest.approx(spearmanr(brief, long).statistic)
    first, *others = longer_lines(found)
    assert first.startswith(f"8 networks were trained on, from 240 updates to 960: {mean:+.1f} points on average")
    (second,) = others
    assert "for a doubling of the side; the front may still favour small images" in second


def test_short_scores_of_one_length_alone_are_compared(trained: Callable[..., MeasuredTrial]) -> None:
    """Of twelve networks ten have 480 updates, and eight 240: two of these have no 480."""
    every = records(trained, 12.0)
    more = [
        trained(100 + 3 * place + part, side_px, 1.5, steps, 0.5 + 0.01 * place + gain)
        for place, side_px in enumerate(SIDES_PX)
        for part, (steps, gain) in enumerate(((480, 0.05), (960, 0.1)))
    ]
    less = [each for each in every if each.trial not in (1, 4)]
    found = longer_trainings([*less, *more])
    assert found and (found.networks, found.shortest) == (10, 480)


def test_equal_gains_tell_no_bias(trained: Callable[..., MeasuredTrial]) -> None:
    found = longer_trainings(records(trained, 0.0))
    assert found and found.bias
    assert abs(found.bias.effect("side").points) < 1.0
    assert len(list(longer_lines(found))) == 1


def test_precisions_of_a_network_count_once_and_repeats_do_not(trained: Callable[..., MeasuredTrial]) -> None:
    own = records(trained, 2.0)
    more = [
        replace(trained(100 + place, 64, 1.0, steps, 0.1, "int8"), same_as=None)
        for place, steps in enumerate((240, 960))
    ]
    again = [replace(record, trial=200 + record.trial, same_as=record.trial) for record in own]
    found = longer_trainings([*own, *more, *again])
    assert found == longer_trainings(own)


def test_few_networks_and_trainings_alike_tell_nothing(trained: Callable[..., MeasuredTrial]) -> None:
    own = records(trained, 2.0)
    assert longer_trainings(own[: 3 * (LEAST_NETWORKS - 1)]) is None
    assert longer_trainings([each for each in own if each.candidate.recipe.steps == 960]) is None
    assert longer_trainings([replace(each, full_updates=0) for each in own]) is None
    assert longer_trainings([]) is None
