import numpy as np
import pytest
from scipy.stats import spearmanr

from scalesearch.analysis.ranks import rank_agreement


@pytest.mark.parametrize("seed", range(5))
def test_it_is_spearmans_coefficient_ties_included(seed: int) -> None:
    random = np.random.default_rng(seed)
    first = random.integers(0, 6, size=20).astype(float)
    second = first + random.normal(0, 2, size=20)
    agreement = rank_agreement(list(first), list(second))
    assert agreement is not None and agreement.pairs == 20
    assert agreement.spearman == pytest.approx(spearmanr(first, second).statistic)
    assert agreement.low < agreement.spearman < agreement.high


@pytest.mark.slow
def test_the_interval_narrows_with_the_root_of_the_number_of_pairs() -> None:
    random = np.random.default_rng(0)
    widths = {20: 0.0, 180: 0.0}
    for pairs in widths:
        for _ in range(10):
            truth = random.normal(size=pairs)
            agreement = rank_agreement(list(truth), list(truth + random.normal(size=pairs)))
            assert agreement is not None
            widths[pairs] += agreement.high - agreement.low
    assert widths[20] / widths[180] == pytest.approx(3, rel=0.25)


def test_the_same_order_is_one_and_the_opposite_minus_one() -> None:
    same, opposite = rank_agreement([1, 2, 3], [10, 20, 90]), rank_agreement([1, 2, 3], [3, 2, 1])
    assert same is not None and same.spearman == pytest.approx(1)
    assert opposite is not None and opposite.spearman == pytest.approx(-1)


def test_there_is_no_order_in_two_things_or_in_equal_ones() -> None:
    assert rank_agreement([1, 2], [1, 2]) is None
    assert rank_agreement([1, 1, 1], [1, 2, 3]) is None


def test_things_that_measure_alike_count_once() -> None:
    assert rank_agreement([1, 1, 2], [5, 5, 9]) is None
    assert rank_agreement([1, 1, 2], [5, 6, 9]) is not None
