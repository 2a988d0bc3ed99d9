"""Classes that mirror images would mix up are told by their names."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from scalesearch.config import parse_space
from scalesearch.data import LABEL_SOURCES, Dataset, load_dataset
from scalesearch.study.sided_classes import sided_pairs, with_sides_told
from scalesearch.values.settings import DataSettings
from scalesearch.values.space import SearchSpace


@pytest.mark.parametrize(
    "names",
    [
        ("turn_left", "turn_right"),
        ("LeftArrow", "RightArrow"),
        ("right", "left"),
        ("warn left bend", "Warn Right Bend"),
        ("turnLeft", "turnRight"),
        ("LEFT-2", "RIGHT-2"),
        ("left2", "right2"),
        ("left-of-right", "right-of-left"),
    ],
)
def test_names_that_exchanging_left_and_right_turns_into_one_another_are_a_pair(names: tuple[str, str]) -> None:
    assert sided_pairs(("stop", *names)) == (names,)


@pytest.mark.parametrize(
    "names",
    [
        ("l", "r"),
        ("turn_left", "turn_around"),
        ("turn_left", "go_right"),
        ("bright", "bleft"),
        ("leftover", "rightover"),
        ("Cat", "cat"),
        ("right_of_way",),
        (),
    ],
)
def test_other_names_are_none(names: tuple[str, ...]) -> None:
    assert sided_pairs(names) == ()


@pytest.fixture
def arrows(tmp_path: Path) -> Dataset:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "arrows.npz", images=images, labels=np.arange(60) % 4)
    asked = DataSettings(source=str(tmp_path / "arrows.npz"), calibration_images=4)
    data = load_dataset(asked, LABEL_SOURCES, storage_px=8, cache_folder=tmp_path)
    return dataclasses.replace(data, class_names=("turn_left", "keep_left", "turn_right", "keep_right"), warnings=())


def space(flip: object) -> SearchSpace:
    training = {"steps": 2} if flip is None else {"steps": 2, "flip": flip}
    document = {"network": "resnet_small", "resolution_px": 8, "training": training}
    return parse_space(document, name="s", origin="s.toml")


def test_a_pair_is_told_once_where_training_mirrors(arrows: Dataset) -> None:
    told = with_sides_told(arrows, space(True))
    assert told.warnings == (
        "data arrows: training mirrors images (training.flip = true), but the classes turn_left and turn_right "
        "(and 1 more such) differ by left and right alone: mirrored, each would be taught as the other; --set "
        "training.flip=false, or training.flip=auto, which finds out",
    )
    moved = dataclasses.replace(told, name="moved")
    assert with_sides_told(moved, space(True)).warnings == told.warnings
    (listed,) = with_sides_told(arrows, space([True, False])).warnings
    assert "training may mirror images (training.flip lists true)" in listed
    plain = dataclasses.replace(arrows, class_names=("a", "b", "c", "d"))
    assert with_sides_told(plain, space(True)).warnings == ()


@pytest.mark.parametrize("flip", [None, False, "auto"])
def test_nothing_is_told_where_training_does_not_mirror_or_the_program_finds_out(arrows: Dataset, flip: object) -> None:
    assert with_sides_told(arrows, space(flip)).warnings == ()
