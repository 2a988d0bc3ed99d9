"""Groups by file name: frames of one film stay in one split, and what crosses the source's own splits is said."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scalesearch.data import LABEL_SOURCES, Dataset, load_dataset
from scalesearch.data.groups import EXAMPLE, crossing, drawn_groups, groups_of
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


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        (r"^(film\d+)?", [0, 0, 1, 2, 3]),  # an empty match names nothing
        (r"^(?:film\d+)?", [0, 0, 1, 2, 3]),
        (r"(film\d+)_|clip\d+", [0, 0, 1, 1, 2]),  # the whole match, where the brackets take no part
        (r"^film(\d*)", [0, 0, 1, 2, 3]),
        (r"^(?=(film\d+|clip\d+))", [0, 0, 1, 1, 2]),
    ],
)
def test_brackets_that_take_no_part_make_no_group_of_all(pattern: str, wanted: list[int]) -> None:
    names = ["film7_1.png", "film7_2.png", "clip1_1.png", "clip1_2.png", "other.png"]
    assert groups_of(names, pattern, where="data x").tolist() == wanted


def test_images_whose_brackets_match_nothing_are_said() -> None:
    (empty, *_) = [line for line in said(["film7_1.png", "film7_2.png", "a.png"], r"^(film\d+)?") if "brackets" in line]
    assert "in 1 of 3 names data.group_by or its brackets match nothing" in empty
    assert "(earlier versions: all of them were one group), e.g. a.png" in empty


def said(train: list[str], pattern: str, *, val: tuple[str, ...] = (), class_names: tuple[str, ...] = ()) -> list[str]:
    return list(crossing({"train": train, "val": val}, pattern, where="data x", class_names=class_names))


IN_SPLITS = ("images/train/film7_0001.jpg", "images/train/film7_0002.jpg"), ("images/val/film7_0003.jpg",)
IN_CLASSES = ("cat/film7_0001.jpg", "dog/film7_0002.jpg", "dog/film7_0003.jpg")


def test_films_that_only_folders_of_splits_or_classes_tell_apart_are_said() -> None:
    (parted,) = said(list(IN_SPLITS[0]), "^[^_]+", val=IN_SPLITS[1])
    assert "tells 2 of 2 groups apart by folders of splits or classes alone" in parted
    assert "e.g. images/train/film7_0002.jpg and images/val/film7_0003.jpg" in parted
    assert repr(EXAMPLE) in parted
    (pooled,) = said([*IN_SPLITS[0], *IN_SPLITS[1]], "^[^_]+")
    assert "tells 2 of 2 groups apart" in pooled
    (classes,) = said(list(IN_CLASSES), "^[^_]+", class_names=("cat", "dog"))
    assert "tells 2 of 2 groups apart" in classes
    assert not said(list(IN_CLASSES), "^[^_]+")  # folders of places, perhaps
    (whole,) = said(["train/a.jpg", "train/b.jpg"], "^[^/]+", val=("val/c.jpg",))
    assert "tells 2 of 2 groups apart" in whole


def test_a_class_or_a_split_in_the_files_own_name_is_no_folder() -> None:
    assert not said(["cat/cat_001.jpg", "cat/cat_002.jpg", "dog/dog_001.jpg"], EXAMPLE, class_names=("cat", "dog"))
    assert not said(["train_0001.jpg", "train_0002.jpg"], EXAMPLE, val=("val_0001.jpg",))


def test_the_example_in_the_documents_sees_a_film_in_two_splits_and_classes() -> None:
    (crossed,) = said(list(IN_SPLITS[0]), EXAMPLE, val=IN_SPLITS[1])
    assert "1 of 1 groups (data.group_by) are in several splits" in crossed
    assert not said(list(IN_CLASSES), EXAMPLE, class_names=("cat", "dog"))
    assert groups_of(["a_set/film7_1.jpg", "film7_2.jpg", "b/film8_3.jpg"], EXAMPLE, where="x").tolist() == [0, 0, 1]
    docs = Path(__file__).parents[2] / "docs" / "tasks.md"
    assert f"data.group_by='{EXAMPLE}'" in docs.read_text()


def test_an_expression_that_makes_each_image_a_group_is_said() -> None:
    (alone,) = said(["train/0001.jpg", "train/0002.jpg"], "^[^_]+", val=("val/0001.jpg",))
    assert "makes each image a group of its own, so it keeps none together: of train/0001.jpg it takes 'train/" in alone


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
