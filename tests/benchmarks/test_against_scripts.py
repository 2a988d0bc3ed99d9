"""The pure parts of the comparison with scripts: what is tried in which order, splits as folders, and the numbers."""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import pytest
from against_scripts import SETUP, prepare
from PIL import Image
from rivals.comparing import OURS, Member, Search, Share, above, best_within, surely_slower, turns, volume
from rivals.folders import write_splits
from rivals.fronts import Handed, course_of, script_front
from rivals.judging import in_turn
from rivals.script_trials import ScriptTrial, add_trial
from rivals.shapes import AXES, Shape, compound, compound_shapes, grid_shapes, spread_out
from rivals.tables import report

from scalesearch import load_space
from scalesearch.values.space import Choice

CLASSES = 10


def member(arm: str, score: float, ms: float, *, half: float = 0.02, ms_half: float = 0.01, seed: int = 0) -> Member:
    share = Share(value=score, low=score - half, high=score + half)
    return Member(
        arm=arm,
        seed=seed,
        name=f"{arm} at {ms} ms",
        val=share,
        test=share,
        told_ms=ms,
        ms=ms,
        ms_low=ms * math.exp(-ms_half),
        ms_high=ms * math.exp(ms_half),
        stable=True,
    )


def search(arm: str, *members: Member, seed: int = 0) -> Search:
    return Search(arm=arm, seed=seed, trainings=3, last_s=60, whole_s=90, volumes=(10, 20, 30, 40), members=members)


def script_trial(number: int, correct: int, ms: float, *, ended_s: float = 1.0) -> ScriptTrial:
    return ScriptTrial(
        number=number,
        name="r1",
        side_px=64,
        correct=correct,
        images=100,
        ms=ms,
        file=f"trial_{number:04d}.onnx",
        ended_s=ended_s,
        train_s=0.5,
    )


def test_the_scripts_choose_from_the_axes_of_the_default_space() -> None:
    axes = {named.name: named.axis for named in load_space("resnet_small").axes}
    assert {name: axes[f"scaling.{name}"] for name in AXES} == {
        name: Choice(values=values) for name, values in AXES.items()
    }
    assert {name for name in axes if name.startswith("scaling.")} == {f"scaling.{name}" for name in AXES}


def test_the_networks_are_those_of_the_papers() -> None:
    assert compound(0.0) == Shape()
    one = compound(1.0)
    assert (one.depth, one.width, one.resolution) == (1.2, 1.1, 1.15)
    grid = {(shape.width, round(224 * shape.resolution)) for shape in grid_shapes()}
    assert grid == {(width, side) for width in (0.25, 0.5, 0.75, 1.0) for side in (128, 160, 192, 224)}
    assert {shape.spec(CLASSES).resolution_px for shape in grid_shapes()} == {40, 48, 56, 64}


def test_any_first_part_of_a_grid_is_spread_out() -> None:
    order = spread_out([0.0, 1.0, 2.0, 3.0, 4.0], lambda one, other: abs(one - other))
    assert order == [0.0, 4.0, 2.0, 1.0, 3.0]
    first, second = list(grid_shapes())[:2]
    assert (first.width, first.resolution, second.width) == (1.0, 1.0, 0.25)
    phis = [math.log(shape.width, 1.1) for shape in compound_shapes()]
    assert phis[:3] == pytest.approx([-6, 2, -2])
    assert len({round(phi, 6) for phi in phis}) == len(phis) == 33


def test_hypervolume_is_percent_by_decades_below_one_millisecond() -> None:
    assert volume([(0.7, 0.1)]) == pytest.approx(70.0)
    assert volume([(0.5, 0.01), (0.7, 0.1), (0.6, 0.5), (0.9, 3.0)]) == pytest.approx(2 * 50 + 20)


def test_best_within_a_latency_is_zero_where_nothing_is_as_fast() -> None:
    points = [(0.5, 0.05), (0.7, 0.2)]
    assert [best_within(points, ms) for ms in (0.01, 0.05, 0.3)] == [0.0, 0.5, 0.7]


def test_a_point_is_above_only_by_more_than_the_errors_of_both() -> None:
    ours = [member(OURS, 0.60, 0.10), member(OURS, 0.70, 0.30)]
    tied, leading = member("nsga2", 0.62, 0.10), member("nsga2", 0.63, 0.10)  # the error of both is 2.83 points
    assert [one.member for one in above([tied, leading], ours, lambda one: one.val)] == [leading]
    (found,) = above([member("nsga2", 0.05, 0.01)], ours, lambda one: one.val)  # faster than all of ours
    assert found.best is None
    assert found.points == pytest.approx(5.0)


def test_a_latency_within_the_errors_of_both_counts_as_as_fast() -> None:
    rival = member("grid", 0.70, 0.100)
    assert not surely_slower(member(OURS, 0.70, 0.101), rival)
    assert surely_slower(member(OURS, 0.70, 0.102), rival)
    assert not above([rival], [member(OURS, 0.70, 0.101)], lambda one: one.val)
    assert above([rival], [member(OURS, 0.70, 0.102)], lambda one: one.val)


def test_each_seed_begins_with_another_search() -> None:
    order = turns(("a", "b", "c"), (5, 6))
    assert order == [(5, "a"), (5, "b"), (5, "c"), (6, "b"), (6, "c"), (6, "a")]


def test_arms_alternate_where_members_are_timed() -> None:
    share = Share(value=0.5, low=0.4, high=0.6)
    handed = [
        Handed(arm=arm, seed=0, name=name, file=Path(name), val=share, told_ms=1.0, test=None, side_px=64)
        for arm, name in (("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"))
    ]
    assert [one.name for one in in_turn(handed)] == ["a1", "b1", "a2", "a3"]


def test_a_scripts_front_is_read_back_from_its_trials(tmp_path: Path) -> None:
    for trial in (script_trial(0, 50, 0.1, ended_s=9), script_trial(1, 40, 0.2), script_trial(2, 80, 1.0, ended_s=30)):
        add_trial(tmp_path, trial)
    assert [(one.file.name, one.val.value) for one in script_front(tmp_path, "grid", 0)] == [
        ("trial_0000.onnx", 0.5),
        ("trial_0002.onnx", 0.8),
    ]
    course = course_of(tmp_path, "grid", began=0.0)
    assert (course.trainings, course.last_s) == (3, 30)
    assert course.points_by(20.0) == ((0.5, 0.1), (0.4, 0.2))


def test_splits_are_written_as_folders_with_the_files_as_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for place in range(60):
        folder = tmp_path / "from" / ("train" if place < 40 else "test") / f"class{place % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), np.uint8)).save(folder / f"{place}.png")
    counts = write_splits(str(tmp_path / "from"), tmp_path / "data", val_fraction=0.25, storage_px=8)
    files = {file: file.parts[-3:-1] for file in (tmp_path / "data").rglob("*.png")}
    assert counts == {"train": 30, "val": 10, "test": 20}
    for split, count in counts.items():
        assert sum(parts[0] == split for parts in files.values()) == count
    for file, (split, label) in files.items():
        number = int(file.stem.split("_")[1])
        assert (split == "test", label) == (number >= 40, f"class{number % 2}")
        origin = tmp_path / "from" / ("test" if split == "test" else "train") / label / f"{number}.png"
        assert file.read_bytes() == origin.read_bytes()


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    settings = {"data": "a", "minutes": 5.0, "workers": 1, "val_fraction": 0.0, "updates": 620, "flip": True, "set": []}
    (tmp_path / SETUP).write_text(json.dumps({**settings, "seeds": [0], "rivals": ["grid"]}), encoding="utf-8")
    told = argparse.Namespace(**{**settings, "minutes": 10.0}, to=tmp_path, seeds=[0], rivals=["grid"])
    with pytest.raises(SystemExit, match=r"was made with minutes = 5\.0, and 10\.0 is asked for"):
        prepare(told)


def test_the_report_tells_ratios_and_points_above_seed_by_seed() -> None:
    ours, theirs = member(OURS, 0.60, 0.01), member("nsga2", 0.60, 0.1)
    later = member("nsga2", 0.70, 0.1, seed=1)
    text = report(
        [
            search(OURS, ours),
            search("nsga2", theirs),
            search(OURS, member(OURS, 0.60, 0.01, seed=1), seed=1),
            search("nsga2", later, seed=1),
        ],
        [0.1],
        minutes=10,
    )
    assert "| search | 2.5 min | 5 min | 7.5 min | 10 min |" in text
    assert "| nsga2 | 10.0 (0.0) | 20.0 (0.0) | 30.0 (0.0) | 40.0 (0.0) |" in text
    assert "| nsga2 | 1.86 (0.20): 2.00, 1.71 |" in text
    assert "* nsga2, test accuracy: in 1 of 2 seeds" in text
    assert "  * seed 1: 70.0 +-2.0 % at 0.1000 ms, +10.0 points above ours of 60.0 +-2.0 % at 0.0100 ms" in text
    (row,) = [line for line in text.splitlines() if line.startswith(f"| {OURS} | 0, 1 |")]
    assert row.count("120.0 (0.0)") == 2
