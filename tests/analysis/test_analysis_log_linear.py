"""Powers of features are found exactly from enough observations, and sensibly from few."""

import numpy as np
import pytest

from scalesearch.analysis.log_linear import LogLinear


def test_powers_are_found() -> None:
    x = np.random.default_rng(0).random((20, 3))
    values = np.exp(1.0 + x @ np.array([2.0, 0.5, 0.0]))
    others = np.random.default_rng(1).random((5, 3))
    found = LogLinear(x[:10], values[:10].tolist()).predict(others)
    assert found == pytest.approx(np.exp(1.0 + others @ np.array([2.0, 0.5, 0.0])))


def test_one_observation_is_expected_everywhere() -> None:
    assert LogLinear(np.array([[0.2, 0.4]]), [7.0]).predict(np.array([[0.9, 0.1]])) == pytest.approx([7.0])
