"""Replayed searches by recipe: what the networks cost there."""

from dataclasses import replace

import pytest
from rank_fidelity import SHAPES, Job, Way
from recipe_choice import trained

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
