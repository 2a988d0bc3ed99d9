"""Searches over lengths of training: what they cost, what they compare, and where they end."""

import functools

import numpy as np
import pytest
from replay.lengths import ByBelief, Flat, Halving, Lengths, Session, expected_seconds, lengths_of, replayed, strategies
from replay.lines import Line
from replay.shapes import every_shape, table_space
from replay.synthetic import synthetic_lines
from replay.table import Table

from scalesearch.values.candidate import Precision

STEPS = (240, 480, 960)


@functools.cache
def lines() -> list[Line]:
    """Return a made-up table of the networks of one depth and kernel."""
    shapes = [shape for shape in every_shape(table_space()) if shape.depth == 1 and shape.kernel == 1]
    return synthetic_lines(STEPS, shapes=shapes)


@functools.cache
def made_up() -> Lengths:
    """Return that table at its lengths."""
    return lengths_of(lines(), STEPS)


def place_of(cut: float, width: float, precision: Precision) -> int:
    """Return the place of a network of 48 px."""
    wanted = (0.75, width, cut, precision)
    points = made_up().last.points
    found = [(each.shape.resolution, each.shape.width, each.shape.cut, each.precision) for each in points]
    return found.index(wanted)


def test_the_seeds_are_those_that_every_length_has() -> None:
    kept = [line for line in lines() if not (line["kind"] == "accuracy" and line["steps"] == 960 and line["seed"] == 0)]
    table = lengths_of(kept, STEPS)
    assert table.steps == STEPS
    assert [each.val.shape[1] for each in table.by_steps.values()] == [1, 1, 1]
    np.testing.assert_array_equal(table.by_steps[240].val[:, 0], made_up().by_steps[240].val[:, 1])


def test_lengths_of_other_points_are_refused() -> None:
    gone = ("accuracy", lines()[-1]["network"], 960)
    kept = [line for line in lines() if tuple(line.get(each) for each in ("kind", "network", "steps")) != gone]
    with pytest.raises(SystemExit, match="expected the same points at 240, 480, 960 updates"):
        lengths_of(kept, STEPS)


def test_a_longer_training_costs_what_it_adds() -> None:
    session = Session(made_up(), 0)
    place, sibling, cut = place_of(0.0, 1.0, "fp32"), place_of(0.0, 1.0, "int8"), place_of(0.5, 1.0, "fp32")
    short, long = (made_up().by_steps[steps].seconds for steps in (240, 960))
    first = short[place]
    assert session.seconds_of([(place, 240)]) == pytest.approx(first.trunk + first.branch + first.score + first.timing)
    session.do((place, 240))
    assert session.seconds_of([(place, 240)]) == 0
    assert session.seconds_of([(sibling, 240)]) == pytest.approx(short[sibling].score + short[sibling].timing)
    added = long[place].trunk - first.trunk + long[place].branch + long[place].score
    assert session.seconds_of([(place, 960)]) == pytest.approx(added)
    of_cut = long[cut].branch + long[cut].score + long[cut].timing
    assert session.seconds_of([(place, 960), (cut, 960)]) == pytest.approx(added + of_cut)
    session.do((place, 960))
    between = made_up().by_steps[480].seconds[place]
    anew = between.trunk - first.trunk + between.branch + between.score
    assert session.seconds_of([(place, 480)]) == pytest.approx(anew), "it continues the trunk of 240, not that of 960"
    np.testing.assert_allclose(expected_seconds(session, [(place, 480)]), anew, rtol=0.5)
    session = Session(made_up(), 0)
    session.do((place, 240))
    assert session.seconds == pytest.approx(first.trunk + first.branch + first.score + first.timing)


def test_seconds_are_expected_as_they_come() -> None:
    session = Session(made_up(), 0)
    for width in (0.5, 0.75, 1.25):
        session.do((place_of(0.0, width, "fp32"), 240))
    pool = [(place_of(0.0, 1.0, "fp32"), 240), (place_of(0.0, 1.25, "fp32"), 960), (place_of(0.5, 1.25, "fp32"), 240)]
    true_s = [session.seconds_of([work]) for work in pool]
    np.testing.assert_allclose(expected_seconds(session, pool), true_s, rtol=0.25)


def test_halving_lengthens_the_best_of_three() -> None:
    table = made_up()
    session, search = Session(table, 0), Halving(table, 0)
    for _ in range(3):
        work = search.ask(session)
        assert work
        assert work[1] == 240
        session.do(work)
    place, steps = search.ask(session) or (-1, 0)
    assert (place, 240) in session.observed
    assert steps == 480


def test_halving_never_compares_unlike_lengths() -> None:
    session, table = Session(made_up(), 0), made_up()
    slow, fast = place_of(0.0, 1.0, "fp32"), place_of(0.5, 0.5, "fp32")
    session.do((slow, 240))
    session.do((fast, 240))
    assert set(Halving(table, 0).front(session)) == {slow, fast}
    session.do((fast, 960))  # more accurate now than the slow one was after a quarter of the updates
    assert set(Halving(table, 0).front(session)) == {slow, fast}


@pytest.mark.parametrize("name", ["flat 240", "flat 960", "halving", "belief", "members"])
def test_every_search_hands_over_more_with_more_time(name: str) -> None:
    course = replayed(made_up(), strategies(made_up())[name], 1, [1.0, 150.0, 400.0])
    shares = course.handed_over
    assert shares[0] == 0
    assert shares[0] < shares[1] < shares[2]
    assert list(course.standing) == sorted(course.standing)
    if name == "flat 960":
        assert course.standing == shares, "every candidate is a member as soon as it is done"
    if name == "flat 240":
        assert course.standing == (0, 0, 0)


def test_a_share_of_the_seconds_goes_into_members() -> None:
    table = made_up()
    session, search = Session(table, 0), ByBelief(table, 0, members=0.5)
    on_members_s = 0.0
    for asked in range(16):
        before_s, work = session.seconds, search.ask(session)
        assert work
        if asked > 10:
            assert work[1] == STEPS[-1] or on_members_s >= 0.5 * before_s
        session.do(work)
        on_members_s += (session.seconds - before_s) * (work[1] == STEPS[-1])


def test_the_belief_begins_with_one_candidate_at_every_length() -> None:
    table = made_up()
    session, search = Session(table, 0), ByBelief(table, 0)
    for _ in range(10):
        work = search.ask(session)
        assert work
        session.do(work)
    done = list(session.observed)
    assert [steps for place, steps in done[:3] if place == done[0][0]] == list(STEPS)
    assert set(search.front(session)) <= {place for place, _ in done}


def test_a_flat_search_keeps_its_length() -> None:
    session, search = Session(made_up(), 0), Flat(made_up(), 0, steps=480)
    for _ in range(8):
        work = search.ask(session)
        assert work
        session.do(work)
    assert {steps for _, steps in session.observed} == {480}


@pytest.mark.parametrize("name", ["flat 240", "belief", "members"])
def test_no_search_knows_the_reference_by_which_it_is_judged(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(table: Table) -> None:
        pytest.fail("a search asked for the worst accuracy and latency of the table")

    monkeypatch.setattr(Table, "reference", property(refuse))
    session, search = Session(made_up(), 0), strategies(made_up())[name](made_up(), 0)
    for _ in range(12):
        work = search.ask(session)
        assert work
        session.do(work)
