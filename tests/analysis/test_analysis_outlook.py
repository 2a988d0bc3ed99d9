"""What may still be found: from the records of a study whose truth is known."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from scalesearch.analysis.belief import Belief
from scalesearch.analysis.outlook import FEWEST, outlook
from scalesearch.report.outlook_section import _row
from scalesearch.spaces.moves import drawn
from scalesearch.values.candidate import Candidate, Recipe, Scaling
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.space import Choice, Limits, NamedAxis, SearchSpace

MakeRecord = Callable[..., MeasuredTrial]
AXES = (
    NamedAxis(name="scaling.resolution", axis=Choice(values=(0.375, 0.5, 0.75, 1.0))),
    NamedAxis(name="scaling.width", axis=Choice(values=(0.5, 0.75, 1.0, 1.25))),
    NamedAxis(name="pruning.channel_fraction", axis=Choice(values=(0.0, 0.25, 0.5))),
    NamedAxis(name="quantization.precision", axis=Choice(values=("fp32", "int8"))),
    NamedAxis(name="quantization.calibration", axis=Choice(values=("minmax", "percentile"))),
)
SPACE = SearchSpace(name="own", network="resnet_small", resolution_px=64, axes=AXES)
MACS = 1e7


def work(candidate: Candidate) -> float:
    """Return MACs as a part of those at multiplier 1."""
    return candidate.scaling.resolution**2 * (candidate.scaling.width * (1 - candidate.pruning.channel_fraction)) ** 2


def score(candidate: Candidate) -> float:
    return 0.8 + 0.06 * math.log2(work(candidate)) - 0.05 * candidate.pruning.channel_fraction


def records(make_record: MakeRecord, count: int) -> list[MeasuredTrial]:
    random, found = np.random.default_rng(0), list[MeasuredTrial]()
    while len(found) < count:
        candidate = drawn(SPACE, random)
        record = make_record(len(found), top1=score(candidate), p50_ms=work(candidate))
        found.append(
            replace(record, candidate=candidate, cost=replace(record.cost, macs=round(MACS * work(candidate))))
        )
    return found


def test_few_trials_or_no_choice_say_nothing(make_record: MakeRecord) -> None:
    made = records(make_record, FEWEST)
    assert outlook(SPACE, made[:-1]) is None
    assert outlook(replace(SPACE, axes=()), made) is None


def test_the_expected_front_and_what_promises_most_are_near_the_truth(make_record: MakeRecord) -> None:
    made = records(make_record, 30)
    found = outlook(SPACE, made)
    assert found
    assert found.errors
    assert found.errors.score_rms < 0.02
    assert found.errors.latency_median < 0.1
    assert len(found.front) > 5
    for each in found.front:
        assert each.score == pytest.approx(score(each.candidate), abs=0.03)
        assert each.p50_ms == pytest.approx(work(each.candidate), rel=0.2)
    tried = {record.candidate for record in made}
    assert not tried & {each.candidate for each in found.best}
    growths = [each.growth or 0.0 for each in found.best]
    assert growths == sorted(growths, reverse=True)
    # Calibrations of one network are one candidate.
    plain = [replace(each.candidate, quantization=replace(each.candidate.quantization, calibration="minmax"))
             for each in found.best]  # fmt: skip
    assert len(set(plain)) == len(plain)


def test_what_breaks_a_limit_is_left_out(make_record: MakeRecord) -> None:
    limits = Limits(max_macs=round(MACS / 2), max_latency_ms=0.3)
    found = outlook(replace(SPACE, limits=limits), records(make_record, 30))
    assert found
    assert all(work(each.candidate) <= 0.32 for each in (*found.front, *found.best))


def test_with_unlike_lengths_all_is_about_the_greatest(make_record: MakeRecord) -> None:
    steps = NamedAxis(name="training.steps", axis=Choice(values=(240, 960)))
    found, short = list[MeasuredTrial](), 0
    for place, record in enumerate(records(make_record, 24)):
        length = 960 if place % 3 == 0 else 240
        short += length == 240
        candidate = replace(record.candidate, recipe=replace(record.candidate.recipe, steps=length))
        quality = replace(record.quality, score=record.quality.score - (0.2 if length == 240 else 0.0))
        found.append(replace(record, candidate=candidate, quality=quality, full_updates=960))
    assert short
    seen = outlook(replace(SPACE, axes=(*AXES, steps)), found)
    assert seen
    assert {each.candidate.recipe.steps for each in (*seen.front, *seen.best)} == {960}
    for each in seen.front:
        assert each.score == pytest.approx(score(each.candidate), abs=0.08), "in full length"


def test_a_candidate_that_was_trained_in_part_is_told_from_untried_ones(make_record: MakeRecord) -> None:
    """Of a space of 12 networks all were trained by 960 updates, but for one that was trained by 240."""
    sides, widths = (0.375, 0.5, 0.75, 1.0), (0.5, 1.0, 1.5)
    axes = (
        NamedAxis(name="scaling.resolution", axis=Choice(values=sides)),
        NamedAxis(name="scaling.width", axis=Choice(values=widths)),
        NamedAxis(name="training.steps", axis=Choice(values=(240, 960))),
    )
    found = list[MeasuredTrial]()
    for trial, record in enumerate(records(make_record, 12)):
        scaling = Scaling(resolution=sides[trial % 4], width=widths[trial // 4])
        candidate = Candidate(scaling=scaling, recipe=Recipe(steps=240 if trial == 7 else 960))
        found.append(replace(record, candidate=candidate, full_updates=960))
    seen = outlook(replace(SPACE, axes=axes), found)
    assert seen
    (only,) = seen.best
    assert (only.trained, only.candidate.recipe.steps) == (240, 960)
    assert only.candidate.scaling == found[7].candidate.scaling
    assert {each.trained for each in seen.front} <= {240, 960}


def test_networks_slower_than_a_second_are_expected_to_enlarge_the_front(make_record: MakeRecord) -> None:
    slow = [
        replace(each, latency=replace(each.latency, p50_ms=1e5 * each.latency.p50_ms))
        for each in records(make_record, 30)
    ]
    found, usual = outlook(SPACE, slow), outlook(SPACE, records(make_record, 30))
    assert found and usual
    assert found.best[0].growth and found.best[0].growth > 0
    assert len(found.front) == len(usual.front), "the same front, only slower"


def test_the_most_promising_say_what_was_sampled_of_them_but_not_their_calibration(make_record: MakeRecord) -> None:
    rates = NamedAxis(name="training.learning_rate", axis=Choice(values=(0.008, 0.016)))
    fixed = NamedAxis(name="training.dropout", axis=Choice(values=(0.2,)))
    scope = NamedAxis(name="pruning.scope", axis=Choice(values=("uniform", "global")))
    found = outlook(replace(SPACE, axes=(*AXES, rates, fixed, scope)), records(make_record, 30))
    assert found and found.best
    for each in found.best:
        cut = each.candidate.pruning.channel_fraction
        assert each.sampled["training.learning_rate"] == each.candidate.recipe.learning_rate
        assert each.sampled["pruning.channel_fraction"] == cut
        assert ("pruning.scope" in each.sampled) == (cut > 0)  # without a cut it has no effect
        assert not {"training.dropout", "quantization.calibration"} & set(each.sampled)


def test_without_a_front_the_candidates_are_still_sorted_by_their_growth(
    make_record: MakeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Belief, "growth", lambda _, pool, reference: np.array([work(each) for each in pool]))
    steps = NamedAxis(name="training.steps", axis=Choice(values=(240, 960)))
    brief = [
        replace(each, candidate=replace(each.candidate, recipe=Recipe(steps=240)), full_updates=960)
        for each in records(make_record, 30)
    ]
    assert not any(each.feasible for each in brief)
    found = outlook(replace(SPACE, axes=(*AXES, steps)), brief)
    assert found
    assert found.best[0].candidate.scaling == Scaling(resolution=1.0, width=1.25), "what would enlarge a front most"
    assert {_row(each)[-1] for each in found.best} == {"-"}
