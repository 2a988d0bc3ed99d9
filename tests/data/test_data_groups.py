"""Groups by file name: frames of one film stay in one split, and what crosses the source's own splits is said."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scalesearch.data import LABEL_SOURCES, Dataset, load_dataset
from scalesearch.data.groups import crossing, drawn_groups, groups_of
from scalesearch.errors import ConfigError
from scalesearch.values.settings import DataSettings

FILM = r"/(film\d+)_"


def films(root: Path, *, films: int = 12, frames: int = 5) -> Path:
    random = np.random.default_rng(0)
    for film in range(films):
        folder = root / ("a" if film % 2 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        for frame in range(frames):
            pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"film{film:02}_{frame}.png")
    return root


def load(root: Path, **settings: str | float | int) -> Dataset:
    asked = DataSettings(source=str(root), calibration_images=4, **settings)  # type: ignore[arg-type]
    return load_dataset(asked, LABEL_SOURCES, storage_px=8, cache_folder=root.parent / "cache")


def films_of(split: object) -> set[str]:
    return {name.split("/")[1].split("_")[0] for name in split.names}  # type: ignore[attr-defined]


def test_no_film_is_in_two_splits(tmp_path: Path) -> None:
    root = films(tmp_path / "t")
    plain, grouped = load(root), load(root, group_by=FILM)
    assert films_of(plain.train) & films_of(plain.val)  # by chance alone, frames of a film part
    train = films_of(grouped.train) | films_of(grouped.calibration)
    assert not train & films_of(grouped.val)
    assert not train & films_of(grouped.test)
    assert not films_of(grouped.val) & films_of(grouped.test)
    # A fifth of 60 frames each, in films of 5: within a film of it
    assert abs(len(grouped.val) - 12) <= 5
    assert abs(len(grouped.test) - 12) <= 5
    for split in (grouped.train, grouped.val, grouped.test):
        assert (split.targets.class_counts(2) > 0).all()  # both classes everywhere


def test_the_first_pair_of_brackets_names_the_group() -> None:
    names = ["a/film1_3.png", "b/film1_9.png", "a/film2_1.png", "other.png", "another.png"]
    assert groups_of(names, r"(film\d)_\d", where="data x").tolist() == [0, 0, 1, 2, 3]
    assert groups_of(names, r"film\d_\d", where="data x").tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("strata", [None, np.repeat([0, 1], 500)])
def test_drawn_groups_are_whole_and_about_as_many_as_asked(strata: np.ndarray | None) -> None:
    groups = np.arange(1000) // 10
    drawn = drawn_groups(groups, strata, 200, rng=np.random.default_rng(1))
    assert all(drawn[groups == group].all() or not drawn[groups == group].any() for group in range(100))
    assert drawn.sum() == 200
    if strata is not None:
        assert np.bincount(strata[drawn]).tolist() == [100, 100]


def test_one_group_is_never_drawn_whole() -> None:
    assert not drawn_groups(np.zeros(10, np.int64), None, 5, rng=np.random.default_rng(0)).any()
    large = drawn_groups(np.repeat([0, 1], 50), None, 10, rng=np.random.default_rng(0))
    assert large.sum() == 50  # each is larger than what is wanted, and one must be taken


def test_groups_in_several_splits_of_the_source_are_said() -> None:
    names = {"train": ["f1_0.png", "f1_1.png", "f2_0.png", "odd.png"], "val": ["f1_2.png", "f3_0.png"]}
    films_, single = crossing(names, r"f\d", where="data x")
    assert films_.startswith(
        "data x: 1 of 4 groups (data.group_by) are in several splits of the data set, e.g. f1_0.png"
    )
    assert "f1_0.png and f1_2.png" in films_
    assert "matches 5 of 6 names" in single
    assert "odd.png" in single


@pytest.mark.parametrize(
    ("pattern", "words"), [("(", "expected a regular expression"), ("no such thing", "matches, came none, e.g. ")]
)
def test_a_useless_expression_is_an_error(pattern: str, words: str, tmp_path: Path) -> None:
    root = films(tmp_path / "t", films=4)
    with pytest.raises(ConfigError, match=r"data\.group_by") as caught:
        load(root, group_by=pattern)
    assert words in str(caught.value)


def test_sources_without_file_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="the images of this source have no file names"):
        groups_of([], "x", where="data signs")
