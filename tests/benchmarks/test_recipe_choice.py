"""Replayed searches by recipe: what the networks cost there."""

from dataclasses import replace

import pytest
from rank_fidelity import SHAPES, Job, Way
from recipe_choice import Pool, Trained, confirm_s, long_seconds, replay, together, trained

BRIEF = Way(steps=240, flip=False, schedule="wsd")
LONGER = replace(BRIEF, steps=480)


def lines(way: Way, seed: int, cpu_s: float) -> dict[Job, dict[str, float]]:
    """Every network took equally long; a cut one only made its branch."""
    return {
        Job(network=shape.name, way=way.name, seed=seed): {
            "cpu_s": cpu_s / (3 if shape.cut else 1),
            "val": 0.5,
            "test": 0.4,
        }
        for shape in SHAPES
    }


def test_each_seed_has_its_own_seconds_or_all_have_those_of_some() -> None:
    done = lines(BRIEF, 0, 30.0) | lines(BRIEF, 1, 10.0) | lines(BRIEF, 2, 14.0) | lines(LONGER, 0, 99.0)
    own, shared = trained(done, LONGER, 0), trained(done, LONGER, 0, (1, 2))
    assert own and shared
    for one, other in zip(own, shared, strict=True):
        # Twice the updates of 240. A cut network pays a third for its branch and two thirds for its trunk.
        assert one.whole_s == pytest.approx(60.0)
        assert other.whole_s == pytest.approx(24.0)
        assert one.branch_s == pytest.approx(20.0 if one.shape.cut else 60.0)
        assert other.branch_s == pytest.approx(8.0 if one.shape.cut else 24.0)
    assert trained(done, LONGER, 1, (1, 2)) is None, "not trained with this seed"
    assert trained(lines(LONGER, 0, 1.0), LONGER, 0) is None, "how long it takes from random weights is not known"


def member(place: int, val: float, *, test: float = 0.5) -> Trained:
    return Trained(shape=SHAPES[place], whole_s=10.0, branch_s=4.0, val=val, test=test)


def test_a_front_is_trained_long_with_one_trunk_for_all_cuts_of_a_network() -> None:
    cut = next(place for place, shape in enumerate(SHAPES) if shape.cut)
    other = next(place for place, shape in enumerate(SHAPES) if shape.cut > SHAPES[cut].cut)
    dense = SHAPES.index(replace(SHAPES[cut], cut=0.0))
    assert SHAPES[other] == replace(SHAPES[cut], cut=SHAPES[other].cut), "of the same network"
    seconds = {shape: 8.0 if shape.cut else 30.0 for shape in SHAPES}
    one, two, whole = member(cut, 0.5), member(other, 0.4), member(dense, 0.6)
    assert confirm_s([whole], seconds, 6.0) == pytest.approx(36)
    assert confirm_s([one], seconds, 6.0) == pytest.approx(20 + 8 + 6)
    assert confirm_s([one, two], seconds, 6.0) == pytest.approx(20 + 16 + 12)
    assert confirm_s([one, two, whole], seconds, 6.0) == pytest.approx(30 + 16 + 18)


def test_a_search_ends_when_the_rest_is_just_enough_for_its_front() -> None:
    plain = [place for place, shape in enumerate(SHAPES) if not shape.cut][:3]
    networks = [member(place, 0.4 + place / 100) for place in range(len(SHAPES))]
    ms = {shape.name: 1.0 + place for place, shape in enumerate(SHAPES)}
    long_s = dict.fromkeys(SHAPES, 80.0)
    pool = Pool(done={}, ms=ms, long={}, orders=(), fixed_s=0.0, long_s=long_s)
    assert replay(networks, plain, 25.0, 0.0, ms)[::2] == (2, 20.0)
    assert together(networks, plain, 89.0, pool) == (0, [])
    for seconds, count in ((90.0, 1), (179.0, 1), (180.0, 2), (270.0, 3), (9999.0, 3)):
        found, front = together(networks, plain, seconds, pool)
        assert (found, len(front)) == (count, count), "each is slower and better than the one before"
    worse = [replace(each, val=0.9 - each.val) for each in networks]
    found, front = together(worse, plain, 110.0, pool)
    assert (found, [each.shape for each in front]) == (3, [SHAPES[plain[0]]]), "only the first is on the front"


def test_long_trainings_have_the_clock_of_the_brief_ones() -> None:
    done = lines(BRIEF, 1, 10.0) | lines(BRIEF, 2, 14.0)
    long_s = long_seconds(done, replace(BRIEF, steps=1920), (1, 2))
    assert {each for shape, each in long_s.items() if not shape.cut} == {96.0}
    assert {each for shape, each in long_s.items() if shape.cut} == {32.0}
    assert long_seconds({}, replace(BRIEF, steps=1920), (1, 2)) == {}
