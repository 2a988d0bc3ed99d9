"""The expected growth of a hypervolume agrees with the program's hypervolume, and with draws."""

import math

import numpy as np
import pytest

from scalesearch.analysis.expected_growth import expected_growth
from scalesearch.analysis.front import hypervolume

FRONT = [(0.4, math.log(0.5)), (0.6, math.log(2.0)), (0.5, math.log(3.0))]
REFERENCE = (0.1, math.log(8.0))


def grown(score: float, log_ms: float) -> float:
    """Return the growth of the hypervolume by one certain point, by the program's own function."""
    points = [(each, math.exp(log)) for each, log in FRONT]
    reference = (REFERENCE[0], math.exp(REFERENCE[1]))
    return hypervolume([*points, (score, math.exp(log_ms))], reference) - hypervolume(points, reference)


def test_certain_points_grow_the_hypervolume_by_their_own() -> None:
    random = np.random.default_rng(0)
    scores, logs = random.uniform(0, 1, 50), random.uniform(-2, 3, 50)
    found = expected_growth(FRONT, REFERENCE, (scores, np.zeros(50)), (logs, np.zeros(50)))
    assert found == pytest.approx([grown(*each) for each in zip(scores, logs, strict=True)], abs=1e-9)


def test_expected_growth_is_the_mean_over_draws() -> None:
    random = np.random.default_rng(1)
    for score, log_ms in ((0.5, 0.0), (0.55, 0.4), (0.7, 1.2)):
        draws = zip(random.normal(score, 0.1, 4000), random.normal(log_ms, 0.4, 4000), strict=True)
        growths = [grown(*each) for each in draws]
        believed = [(np.array([mean]), np.array([deviation])) for mean, deviation in ((score, 0.1), (log_ms, 0.4))]
        found = expected_growth(FRONT, REFERENCE, believed[0], believed[1])
        assert found[0] == pytest.approx(np.mean(growths), abs=4 * float(np.std(growths)) / math.sqrt(4000))


def test_without_a_front_growth_is_the_whole_box() -> None:
    found = expected_growth([], REFERENCE, (np.array([0.5]), np.zeros(1)), (np.array([0.0]), np.zeros(1)))
    assert found[0] == pytest.approx(0.4 * math.log(8))
