"""The strategy's parts agree with a second way to compute them, and it looks where it should."""

import numpy as np
import pytest
from made_up_table import made_up_table
from replay.limits import counts, probability_within, timed_row
from replay.session import Replay
from replay.strategy import POOL, START, GrowthSearch, features_of, reference_of
from replay.synthetic import synthetic_lines
from replay.table import Table, table_of


@pytest.fixture
def made_up() -> Table:
    """The made-up table of the whole space."""
    return made_up_table()


def test_the_reference_lies_beyond_what_is_expected() -> None:
    observed = (np.array([0.4, 0.6]), np.array([0.0, 1.0]))
    assert reference_of(observed, (np.array([0.5]), np.array([3.0]))) == pytest.approx((0.38, 3.3))


def test_a_spread_start_takes_one_network_of_each_tenth(made_up: Table) -> None:
    search, replay = GrowthSearch(made_up, 0, spread=True), Replay(made_up, 0)
    macs = [made_up.points[place].macs for place in (ask_and_evaluate(search, replay) for _ in range(START))]
    fp32 = sorted(point.macs for point in made_up.points if point.precision == "fp32")
    tenths = [np.searchsorted(fp32, each) * START // len(fp32) for each in macs]
    assert macs == sorted(macs)
    assert np.abs(np.array(tenths) - np.arange(START)).max() <= 1


def ask_and_evaluate(search: GrowthSearch, replay: Replay) -> int:
    """Make one step of a search."""
    place = search.ask(replay)
    assert place is not None
    assert place not in replay.observed
    search.tell(place, replay.evaluate(place))
    return place


@pytest.mark.parametrize("measured", [False, True])
def test_it_finds_more_than_chance_and_asks_nothing_twice(made_up: Table, measured: bool) -> None:
    search, replay = GrowthSearch(made_up, 0, measured=measured), Replay(made_up, 0)
    places = [ask_and_evaluate(search, replay) for _ in range(24)]
    assert len(set(places)) == 24
    by_chance = [made_up.share(np.random.default_rng(seed).permutation(len(made_up.points))[:24]) for seed in range(20)]
    assert replay.grown[-1].share > np.mean(by_chance)


def test_a_pool_holds_only_what_was_not_observed(made_up: Table) -> None:
    search, replay = GrowthSearch(made_up, 0), Replay(made_up, 0)
    for _ in range(START):
        ask_and_evaluate(search, replay)
    pool = search._pool(replay)
    assert len(set(pool.tolist())) == len(pool) == POOL
    assert not set(pool.tolist()) & set(replay.observed)


def test_it_ends_when_all_is_observed() -> None:
    shapes = [point.shape for point in made_up_table().points[:12:2]]
    table = table_of(synthetic_lines((240,), shapes=shapes), 240)
    search, replay = GrowthSearch(table, 0), Replay(table, 0)
    for _ in table.points:
        ask_and_evaluate(search, replay)
    assert search.ask(replay) is None
    assert replay.grown[-1].share == pytest.approx(1)


def test_false_rejections_are_those_that_fit() -> None:
    within, true_ms = np.array([0.01, 0.2, 0.01, 0.9, 0.04]), np.array([1.0, 1.0, 3.0, 3.0, 3.0])
    found = counts(within, true_ms, 2.0, 0.05)
    assert (found.fitting, found.falsely_rejected, found.slow, found.rejected) == (2, 1, 3, 2)


def test_a_latency_model_is_sure_of_what_is_far_from_the_limit(made_up: Table) -> None:
    features, true_ms = features_of(made_up)[1], np.array([ms for _, ms in made_up.truth])
    known = np.arange(0, len(true_ms), 7)
    limit_ms = float(np.median(true_ms))
    within = probability_within(features, np.log(true_ms[known]), known, limit_ms)
    assert within[true_ms < limit_ms / 2].min() > 0.9
    assert within[true_ms > limit_ms * 2].max() < 0.1


def test_the_rule_of_a_run_rejects_what_is_surely_too_slow() -> None:
    own = [
        {
            "kind": "latency",
            "network": str(ms),
            "precision": "fp32",
            "process": 0,
            "p50_ms": ms,
            "p50_low_ms": 0.99 * ms,
        }
        for ms in (1.0, 2.0, 3.0, 4.0, 5.0)
    ]
    assert timed_row(own).split() == ["timed", "0.00", "100.0"]
    own[1]["p50_low_ms"] = (
        9.0  # a process that is far off: false for the limits of 3 and 4, right for that of 2 or less
    )
    assert float(timed_row(own).split()[1]) > 20
