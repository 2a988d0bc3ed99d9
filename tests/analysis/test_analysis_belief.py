"""What is believed of untried candidates: near the truth of a known function, and unsure where nothing was seen."""

import functools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from scalesearch.analysis.belief import Belief, Features, Observation, Timed, timed_of, tuned_by, within_limits
from scalesearch.analysis.front import REFERENCE
from scalesearch.analysis.gaussian_process import GaussianProcess, _tuned, newest_and_best
from scalesearch.spaces.moves import drawn
from scalesearch.values.candidate import Candidate
from scalesearch.values.latency import Postprocessing
from scalesearch.values.record import LimitUse, MeasuredTrial, StageTime
from scalesearch.values.space import Choice, Limits, NamedAxis, Range, SearchSpace

AXES = (
    NamedAxis(name="scaling.resolution", axis=Choice(values=(0.375, 0.5, 0.75, 1.0))),
    NamedAxis(name="scaling.width", axis=Range(low=0.5, high=1.25)),
    NamedAxis(name="pruning.channel_fraction", axis=Choice(values=(0.0, 0.25, 0.5))),
    NamedAxis(name="quantization.precision", axis=Choice(values=("fp32", "int8", "fp16"))),
)
SPACE = SearchSpace(name="own", network="resnet_small", resolution_px=64, axes=AXES)


def truth(candidate: Candidate) -> tuple[float, float]:
    """Return a score and a latency in ms that are smooth in the multipliers."""
    scaling, cut = candidate.scaling, candidate.pruning.channel_fraction
    score = 0.8 + 0.15 * math.log2(scaling.resolution) + 0.1 * math.log2(scaling.width) - 0.1 * cut
    ms = scaling.resolution**2 * (scaling.width * (1 - cut)) ** 1.7
    return score, ms * (0.6 if candidate.quantization.precision == "int8" else 1.0)


def observed(count: int, seed: int, noise: float = 0.0) -> list[Observation]:
    random = np.random.default_rng(seed)
    candidates = [drawn(SPACE, random) for _ in range(count)]
    return [
        Observation(candidate=each, score=truth(each)[0] + noise * float(random.normal()), p50_ms=truth(each)[1])
        for each in candidates
    ]


def test_features_lie_between_0_and_1_and_tell_candidates_apart() -> None:
    random = np.random.default_rng(0)
    candidates = list({drawn(SPACE, random) for _ in range(50)})
    x = Features(SPACE).of(candidates)
    assert x.shape == (len(candidates), 5)  # resolution, width, cut, and two of the three names
    assert Features(SPACE).of([]).shape == (0, 5)
    assert 0 <= x.min() < x.max() <= 1
    assert len({tuple(row) for row in x.tolist()}) == len(candidates)
    # By ratios: half the resolution lies as far below the whole as a quarter lies below the half.
    sides = [replace(candidates[0], scaling=replace(candidates[0].scaling, resolution=side)) for side in (0.375, 0.75)]
    halves = Features(SPACE).of(sides)[:, 0]
    assert halves[1] - halves[0] == pytest.approx(math.log(2) / math.log(1 / 0.375))


def test_expectations_are_near_the_truth_where_there_is_data() -> None:
    belief = Belief(SPACE, observed(40, seed=1))
    others = [each.candidate for each in observed(60, seed=2)]
    expected = belief.expect(others)
    scores, log_ms = np.array([truth(each)[0] for each in others]), np.log([truth(each)[1] for each in others])
    assert np.sqrt(np.mean((expected.score[0] - scores) ** 2)) < 0.02
    assert np.sqrt(np.mean((expected.log_ms[0] - log_ms) ** 2)) < 0.1
    # Doubt is larger with less data.
    assert Belief(SPACE, observed(6, seed=1)).expect(others).score[1].mean() > 2 * expected.score[1].mean()


def test_growth_is_expected_from_what_is_better_than_all_and_not_from_what_is_worse() -> None:
    belief = Belief(SPACE, observed(40, seed=3, noise=0.005))
    known = {each.candidate for each in belief.observations}
    others = [each.candidate for each in observed(80, seed=4) if each.candidate not in known]
    growth = belief.growth(others)
    points = [(each.score, each.p50_ms) for each in belief.observations]

    def is_better(candidate: Candidate) -> bool:
        score, ms = truth(candidate)
        return not any(other >= score and faster <= ms for other, faster in points)

    better = np.array([is_better(each) for each in others])
    assert 3 < better.sum() < len(others) - 3
    assert growth[better].mean() > 5 * growth[~better].mean()


def test_nothing_slower_than_the_limit_counts() -> None:
    limited = replace(SPACE, limits=Limits(max_latency_ms=0.2))
    belief = Belief(limited, observed(40, seed=5))
    others = [each.candidate for each in observed(80, seed=6)]
    slow = np.array([truth(each)[1] > 0.3 for each in others])
    assert belief.growth(others)[slow].max() < 1e-3 * Belief(SPACE, observed(40, seed=5)).growth(others)[slow].max()


def test_what_is_being_measured_changes_the_doubt_alone() -> None:
    belief = Belief(SPACE, observed(40, seed=3, noise=0.005))
    asked = [each.candidate for each in observed(6, seed=8)]
    before, after = belief.expect(asked), belief.supposing(asked).expect(asked)
    np.testing.assert_allclose(after.score[0], before.score[0], atol=0.01)
    assert (after.score[1] < before.score[1]).all()
    assert len(belief.observations) == 40
    assert belief.supposing(()) is belief


def test_latencies_of_rejected_candidates_teach_the_latency_and_nothing_else() -> None:
    """Half the precision's speed is unknown to the observations, which have no int8 at all."""
    known = [each for each in observed(40, seed=1) if each.candidate.quantization.precision == "fp32"]
    others = [each for each in observed(80, seed=2) if each.candidate.quantization.precision == "int8"]
    rejected = [Timed(candidate=each.candidate, p50_ms=each.p50_ms) for each in others[:8]]
    asked = [each.candidate for each in others[8:]]
    log_ms = np.log([truth(each)[1] for each in asked])
    plain, taught = Belief(SPACE, known), Belief(SPACE, known, timed=rejected)
    off = [float(np.sqrt(np.mean((each.expect(asked).log_ms[0] - log_ms) ** 2))) for each in (plain, taught)]
    assert off[1] < 0.12 < off[0]
    np.testing.assert_array_equal(taught.expect(asked).score[0], plain.expect(asked).score[0])
    assert taught.errors() is not None


def test_the_kernels_are_tuned_to_every_observation_at_first_and_to_a_tenth_more_later() -> None:
    found = [tuned_by(count) for count in (4, 59, 60, 65, 66, 71, 72, 78, 79)]
    assert found == [(4, 1), (59, 1), (60, 6), (60, 6), (66, 6), (66, 6), (72, 7), (72, 7), (79, 7)]


def test_between_two_tunings_the_kernels_stay_and_a_new_process_finds_the_same() -> None:
    known, asked = observed(72, seed=1, noise=0.02), [each.candidate for each in observed(9, seed=2)]
    rejected = [Timed(candidate=each.candidate, p50_ms=each.p50_ms) for each in observed(12, seed=3)]

    def tunings(count: int, timed: int = 0) -> int:
        """Return how often a process was tuned for a belief."""
        before = _tuned.cache_info().misses
        Belief(SPACE, known[:count], timed=rejected[:timed])
        return _tuned.cache_info().misses - before

    _tuned.cache_clear()
    assert [tunings(count) for count in (58, 59, 66, 67, 71, 72)] == [2, 2, 2, 0, 0, 2]
    assert [tunings(72, timed) for timed in (6, 7, 8)] == [0, 1, 0], "the process of latencies alone, seven at a time"
    before = Belief(SPACE, known[:71]).expect(asked)
    _tuned.cache_clear()
    after = Belief(SPACE, known[:71]).expect(asked)
    for one, other in ((before.score, after.score), (before.log_ms, after.log_ms)):
        np.testing.assert_array_equal(one, other)


def test_what_was_rejected_untrained_has_a_latency(make_record: Callable[..., MeasuredTrial]) -> None:
    stages = (StageTime(stage="untrained", seconds=1.0),)
    slow = replace(make_record(1).without_measurement(), state="rejected", charged=False, stages=stages)
    slow = replace(
        slow, limits=(LimitUse(limit="max_macs", excess=-0.5), LimitUse(limit="max_latency_ms", excess=0.25))
    )
    by_macs = replace(slow, trial=2, stages=(), limits=(LimitUse(limit="max_macs", excess=2.0),))
    assert timed_of([by_macs, slow, make_record(3)], 2.0) == (Timed(candidate=slow.candidate, p50_ms=2.5),)
    assert timed_of([slow], None) == ()


def test_networks_slower_than_a_second_promise_something_too() -> None:
    slow = [replace(each, p50_ms=1e5 * each.p50_ms) for each in observed(40, seed=1)]
    others = [each.candidate for each in observed(50, seed=2)]
    usual, belief = Belief(SPACE, observed(40, seed=1)), Belief(SPACE, slow)
    assert usual.reference(others) == REFERENCE
    assert belief.reference(others)[1] >= 2 * max(each.p50_ms for each in slow)
    assert (belief.growth(others) > 1e-9).mean() < 0.5 < (belief.growth(others, belief.reference(others)) > 1e-9).mean()


def test_candidates_whose_file_is_surely_too_large_are_left_out() -> None:
    def size(candidate: Candidate) -> int:
        bytes_each = {"fp32": 4, "fp16": 2, "int8": 1}[candidate.quantization.precision]
        return round(1e6 * bytes_each * candidate.scaling.width**2)

    known = [replace(each, size_bytes=size(each.candidate)) for each in observed(40, seed=1)]
    pool = [each.candidate for each in observed(200, seed=2)]
    limited = replace(SPACE, limits=Limits(max_size_bytes=1_000_000))
    kept = within_limits(limited, known, pool)
    assert {each for each in pool if size(each) <= 1_000_000} <= set(kept)
    assert all(size(each) <= 1.2e6 for each in kept) and len(kept) < 0.6 * len(pool)
    assert within_limits(SPACE, known, pool) == pool
    over = [each.candidate for each in known if size(each.candidate) > 1_000_000]
    assert set(over) <= set(within_limits(limited, known, over)), "what was observed is not asked"


def test_the_work_after_the_engine_is_added_to_what_was_timed_without_it(
    make_record: Callable[..., MeasuredTrial],
) -> None:
    stages = (StageTime(stage="untrained", seconds=1.0),)
    slow = replace(make_record(1).without_measurement(), state="rejected", charged=False, stages=stages)
    slow = replace(slow, limits=(LimitUse(limit="max_latency_ms", excess=0.25),))
    measured = make_record(2, p50_ms=1.5)
    after = Postprocessing(p50_ms=0.5, p50_low_ms=0.4, p50_high_ms=0.6, images=9)
    latency = replace(measured.latency, postprocessing=after, objective="end_to_end")
    found = timed_of([slow, replace(measured, latency=latency)], 2.0)
    assert [each.p50_ms for each in found] == [pytest.approx(2.5 + 0.5)]


def test_the_errors_are_those_of_the_model_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted, fit = list[int](), GaussianProcess.fit

    def counted(self: GaussianProcess, x: Any, y: Any, *, tune: bool = True) -> None:
        fitted.append(len(x))
        fit(self, x, y, tune=tune)

    monkeypatch.setattr("scalesearch.analysis.belief.newest_and_best", functools.partial(newest_and_best, most=20))
    monkeypatch.setattr(GaussianProcess, "fit", counted)
    _tuned.cache_clear()
    assert Belief(SPACE, observed(50, seed=1)).errors(most=3)
    # Score and latency: tuned, fitted, and fitted to what remains without each of three networks.
    assert fitted == 10 * [20]
