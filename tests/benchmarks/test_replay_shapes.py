"""The networks of a table: all combinations once, a sample that fills the space, and work in an order that resumes."""

import itertools
import math
from pathlib import Path

import pytest
from replay.lines import Lines
from replay.make_table import chosen_shapes, command_line
from replay.shapes import (
    BRANCH_SHARE,
    SECONDS_AT_240,
    Shape,
    every_shape,
    expected_s,
    place_in,
    shape_of,
    table_space,
    thinned,
    values_of,
)
from replay.synthetic import synthetic_lines
from replay.timing import in_order
from replay.training import groups

SPACE = table_space()
VALUES = values_of(SPACE)
TRUNKS = tuple(dict.fromkeys(shape.trunk for shape in every_shape(SPACE)))


def test_every_combination_occurs_once() -> None:
    shapes = every_shape(SPACE)
    assert len(shapes) == len({shape.name for shape in shapes}) == math.prod(len(each) for each in VALUES.values())
    assert all(shape_of(shape.candidate(steps=240)) == shape for shape in shapes)


@pytest.mark.parametrize("count", [16, 24, 40])
def test_a_sample_has_all_corners_and_fills_the_space(count: int) -> None:
    chosen = thinned(TRUNKS, count, VALUES)
    assert len(set(chosen)) == count
    corners = itertools.product(*((values[0], values[-1]) for name, values in VALUES.items() if name != "cut"))
    assert {
        Shape(resolution=resolution, depth=depth, width=width, kernel=kernel)
        for resolution, depth, width, kernel in corners
    } <= set(chosen)
    assert thinned(TRUNKS, 40, VALUES)[:count] == chosen
    places = [place_in(VALUES, trunk, cut=False) for trunk in chosen]
    far = max(min(math.dist(place_in(VALUES, trunk, cut=False), place) for place in places) for trunk in TRUNKS)
    last = min(math.dist(places[-1], place) for place in places[:-1])
    assert far <= last or count == 16  # whoever came last was the farthest, so nobody is farther now


def test_a_sample_of_fewer_than_the_corners_is_refused() -> None:
    with pytest.raises(SystemExit, match="expected at least 16"):
        thinned(TRUNKS, 15, VALUES)
    assert thinned(TRUNKS, 1000, VALUES) == TRUNKS


def test_expected_seconds_count_trunks_once_and_every_branch() -> None:
    constant, slope = SECONDS_AT_240
    dense, cut = (
        Shape(resolution=1, depth=1, width=1, kernel=1),
        Shape(resolution=1, depth=1, width=1, kernel=1, cut=0.5),
    )
    found_s = expected_s({dense: 2_000_000, cut: 1_000_000}, {dense: 2_000_000}, (240, 480), 2)
    trunk_s = 2 * (constant + 2 * slope) * (1 - BRANCH_SHARE)
    branches_s = 3 * (2 * constant + 3 * slope) * BRANCH_SHARE
    assert found_s == pytest.approx(2 * (trunk_s + branches_s))


def test_shorter_trunks_come_first_and_seeds_one_after_the_other() -> None:
    shapes = [Shape(resolution=1, depth=1, width=width, kernel=1, cut=cut) for width in (0.5, 1) for cut in (0, 0.5)]
    found = groups([shape for shape in shapes if not shape.cut], shapes, (480, 240), (0, 1))
    assert [(group.seed, group.steps) for group in found[::2]] == [(0, 240), (0, 480), (1, 240), (1, 480)]
    assert [group.shapes for group in found[:2]] == [tuple(shapes[:2]), tuple(shapes[2:])]


def test_each_process_times_everything_in_an_order_of_its_own() -> None:
    shapes = every_shape(SPACE)[:10]
    first, second = (list(in_order(shapes, process)) for process in (0, 1))
    assert first != second
    assert set(first) == set(second)
    assert len(first) == 20


def test_equal_and_rejected_combinations_are_left_out(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "t.jsonl", {"data": "d", "val_images": 1, "test_images": 1, "space": "s"})
    networks = [line for line in synthetic_lines((240,)) if line["kind"] == "network"]
    networks[1]["identity"] = networks[0]["identity"]
    lines.add(networks)
    trunks, shapes = chosen_shapes(lines, SPACE, None)
    rejected = sum(bool(line["rejected"]) for line in networks)
    assert rejected > 0
    assert len(shapes) == len(networks) - rejected - 1
    fewer, own = chosen_shapes(lines, SPACE, 20)
    assert len(fewer) == 20 < len(trunks)
    assert {shape.trunk for shape in own} == set(fewer)


def test_the_command_is_kept_without_the_paths_of_a_machine() -> None:
    found = command_line(["--data", "/home/me/photos", "--to", "a/table.jsonl", "--steps", "240", "480"])
    assert found == "python -m replay.make_table --data photos --to table.jsonl --steps 240 480"
