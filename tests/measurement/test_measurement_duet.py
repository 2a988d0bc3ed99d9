"""Statistics of a duet: which pairs were calm, the ratio there, and how sure it is."""

import math

import numpy as np
import pytest
from scipy.stats import t as student_t

from scalesearch.measurement.duet import (
    ESTIMATORS,
    GROUPS,
    MIN_CALM_PAIRS,
    OBJECTIVE,
    PROCESS_SPREAD,
    SAME_CALM,
    STUDENT_975,
    Duet,
    judge,
    ratio_interval,
)


def test_estimators_are_what_their_names_say() -> None:
    duet = Duet(
        candidate_s=np.array([[1.0, 2.0, 9.0], [3.0, 4.0, 5.0]]),
        reference_s=np.array([[1.0, 4.0, 4.0], [2.0, 2.0, 8.0]]),
    )
    found = {name: estimator(duet) for name, estimator in ESTIMATORS.items()}
    assert found == {
        "duet_of_medians": (2 / 4 + 4 / 2) / 2,
        "duet_of_minima": (1 / 1 + 3 / 2) / 2,
        "ratio_of_medians": 3.5 / 3.0,
        "ratio_of_p10s": 1.5 / 1.5,
        "ratio_of_minima": 1.0,
    }


def test_students_quantiles_are_those_of_scipy() -> None:
    assert len(STUDENT_975) == GROUPS - 1
    assert pytest.approx([student_t.ppf(0.975, df) for df in range(1, GROUPS)], abs=6e-4) == STUDENT_975


def test_the_interval_of_few_pairs_is_students_over_the_pairs() -> None:
    ratios = np.array([0.9, 1.0, 1.1, 1.2])
    duet = Duet(candidate_s=ratios[:, None], reference_s=np.ones((4, 1)))
    low, high = ratio_interval(duet, "ratio_of_medians")
    half = student_t.ppf(0.975, 3) * np.std(ratios, ddof=1) / 2
    assert (low, high) == pytest.approx((1.05 - half, 1.05 + half), rel=1e-3)
    assert OBJECTIVE in ESTIMATORS


def blocks(*stretches: tuple[int, float, float]) -> Duet:
    """Stretches of (pairs, candidate's ms, reference's ms), five runs a block, without noise."""
    candidate = np.concatenate([np.full((pairs, 5), candidate_s) for pairs, candidate_s, _ in stretches])
    reference = np.concatenate([np.full((pairs, 5), reference_s) for pairs, _, reference_s in stretches])
    return Duet(candidate_s=candidate / 1e3, reference_s=reference / 1e3)


def test_only_pairs_count_in_which_the_reference_is_calm() -> None:
    # The neighbour is there for four fifths of the time: int8 slows by 1.65, the reference by 1.4.
    duet = blocks((160, 0.6 * 1.65, 1.4), (40, 0.6, 1.0))
    verdict = judge(duet, 1e-3)
    assert verdict.ratio == pytest.approx(0.6)
    assert verdict.enough_calm
    assert verdict.calm.sum() == 40
    assert verdict.reference_s == pytest.approx(1e-3)
    # Nothing varies within the calm: what is left is the spread from process to process.
    assert verdict.half_width == pytest.approx(1.96 * PROCESS_SPREAD, rel=1e-3)
    assert verdict.stable(0.02)


def test_without_calm_the_interval_spans_what_unlike_kernels_make_of_the_slow_down() -> None:
    for power in (0.5, 1.0, 1.5, 1.75):
        slow = 1.4
        verdict = judge(blocks((200, 0.6 * slow**power, slow)), 1e-3)
        assert not verdict.enough_calm
        assert not verdict.stable(0.5)
        assert verdict.session_half_width == math.inf
        assert verdict.low <= 0.6 <= verdict.high
    # The more it is disturbed, the less is known.
    widths = [judge(blocks((200, 0.6 * slow, slow)), 1e-3).half_width for slow in (1.0, 1.06, 1.15, 1.3, 1.6)]
    assert widths == sorted(widths)
    assert widths[1] > 2 * widths[0]


def test_a_spike_in_one_block_is_no_mood_and_a_lucky_block_no_calm() -> None:
    calm = blocks((99, 0.6, 1.0), (1, 0.6, 5.0), (100, 0.6, 1.0))
    assert judge(calm, 1e-3).calm.all()
    disturbed = blocks((99, 0.9, 1.4), (1, 0.9, 1.0), (100, 0.9, 1.4))
    assert not judge(disturbed, 1e-3).calm.any()


def test_few_calm_pairs_do_not_decide_unless_pairs_are_long() -> None:
    few = blocks((100, 0.99, 1.4), (MIN_CALM_PAIRS - 5, 0.6, 1.0))
    assert not judge(few, 1e-3).enough_calm
    slow_engines = Duet(candidate_s=100 * few.candidate_s, reference_s=100 * few.reference_s)
    assert judge(slow_engines, 0.1).enough_calm
    assert judge(slow_engines, 0.1).ratio == pytest.approx(0.6)


@pytest.mark.parametrize("unit", [1.4, 1.1, math.inf], ids=["other mood", "slightly slow", "unknown"])
def test_a_calm_time_that_was_found_in_a_bad_mood_does_not_make_that_mood_calm(unit: float) -> None:
    verdict = judge(blocks((50, 0.99, 1.4), (50, 0.6, 1.0)), unit / 1e3)
    assert verdict.calm.tolist() == [False] * 50 + [True] * 50
    assert verdict.ratio == pytest.approx(0.6)


def test_a_reference_that_differs_as_processes_do_adds_no_doubt() -> None:
    widths = [judge(blocks((100, 0.6, level)), 1e-3).half_width for level in (1.0, 1.01, 1 + SAME_CALM)]
    assert widths == pytest.approx([widths[0]] * 3)


def test_a_longer_session_narrows_its_own_interval_and_not_what_differs_between_processes() -> None:
    generator = np.random.default_rng(0)
    reference_s = np.full((400, 1), 1e-3)
    verdict = judge(Duet(candidate_s=0.6e-3 * generator.uniform(1, 1.3, (400, 1)), reference_s=reference_s), 1e-3)
    own = verdict.session_half_width
    assert verdict.half_width_after(1) == pytest.approx(verdict.half_width)
    for times in (4, 100):
        # The interval of the session and that of the processes are independent: their squares add up.
        expected = math.hypot(own / math.sqrt(times), 1.96 * PROCESS_SPREAD)
        assert verdict.half_width_after(times) == pytest.approx(expected, rel=1e-3)
