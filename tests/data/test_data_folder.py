"""Folder trees: shapes that are understood, wrong ones named, bad files skipped and counted, decoding done once."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scalesearch.data import LABEL_SOURCES, Dataset, folder, load_dataset
from scalesearch.errors import ConfigError
from scalesearch.values.settings import DataSettings


def write_images(folder: Path, count: int, *, color: tuple[int, int, int] = (90, 120, 30)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        Image.new("RGB", (12, 10), (index, *color[1:])).save(folder / f"{index:03}.png")


def make_tree(root: Path, **splits: dict[str, int]) -> Path:
    for split, classes in splits.items():
        for name, count in classes.items():
            write_images(root / split / name, count)
    return root


def load(root: Path, **settings: float | str) -> Dataset:
    return load_dataset(
        DataSettings(source=str(root), **settings),  # type: ignore[arg-type]
        LABEL_SOURCES,
        storage_px=8,
        cache_folder=root.parent / "cache",
    )


def sizes(data: Dataset) -> tuple[int, ...]:
    return len(data.train), len(data.val), len(data.calibration), len(data.test)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return make_tree(
        tmp_path / "fruit", train={"apple": 12, "pear": 18}, val={"apple": 4, "pear": 4}, test={"apple": 2, "pear": 3}
    )


def test_split_folders_are_kept(tree: Path) -> None:
    data = load(tree, calibration_images=5)
    assert sizes(data) == (25, 8, 5, 5)
    assert data.name == "fruit"
    assert data.class_names == ("apple", "pear")
    assert np.asarray(data.test.targets).tolist() == [0, 0, 1, 1, 1]
    assert data.test.images[:][:, 0, 0].tolist() == [[index, 120, 30] for index in (0, 1, 0, 1, 2)]


def test_a_bare_class_tree_is_split(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "bare", **{".": {"a": 20, "b": 20}})
    assert sizes(load(root, calibration_images=4)) == (20, 8, 4, 8)


@pytest.mark.parametrize("name", ["valid", "validation"])
def test_other_names_of_val_are_known(name: str, tmp_path: Path) -> None:
    root = make_tree(tmp_path / "t", train={"a": 9, "b": 9}, test={"a": 2, "b": 2}, **{name: {"a": 3, "b": 3}})
    assert sizes(load(root))[1] == 6


def test_a_class_missing_in_val_is_only_a_warning(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "t", train={"a": 9, "b": 9}, val={"a": 3}, test={"a": 2, "b": 2})
    data = load(root)
    assert any("val has no image of 1 of 2 classes: b" in text for text in data.warnings)


def test_a_small_validation_set_is_said_with_the_way_out(tree: Path) -> None:
    text = next(text for text in load(tree).warnings if "standard error" in text)
    # sqrt(.6 * .4 / 8) = 17.3 points; three tenths of the 38 pooled images give sqrt(.6 * .4 / 11.4) = 14.5
    assert "8 validation images has a standard error of 17.3 points" in text
    assert "--set data.val_fraction=0.3 gives 14.5" in text


def test_bad_files_are_skipped_counted_and_named(tree: Path) -> None:
    apples = tree / "train" / "apple"
    (apples / "empty.jpg").touch()
    (apples / "text.png").write_text("no image")
    (apples / "cut.png").write_bytes((apples / "000.png").read_bytes()[:50])
    (apples / "gone.png").symlink_to("nowhere.png")
    (apples / "labels.csv").write_text("a,b")
    (apples / ".DS_Store").write_text("hidden")
    for _ in range(2):  # decoded, then from the cache
        data = load(tree, max_skipped_fraction=0.5, calibration_images=5)
        assert sizes(data)[0] == 25
        skipped = next(text for text in data.warnings if "skipped 4" in text)
        assert "skipped 4 of 47 image files" in skipped
        assert "train/apple/cut.png" in skipped
        assert "train/apple/empty.jpg (empty file)" in skipped
        others = next(text for text in data.warnings if "no images by name" in text)
        assert "left out 1 files" in others
        assert "labels.csv" in others


def test_labels_stay_with_their_images_when_files_are_skipped(tree: Path) -> None:
    (tree / "test" / "apple" / "000.png").write_text("no image")
    data = load(tree, max_skipped_fraction=0.5)
    assert np.asarray(data.test.targets).tolist() == [0, 1, 1, 1]
    assert data.test.images[:][:, 0, 0, 0].tolist() == [1, 0, 1, 2]


def test_too_many_bad_files_are_an_error(tree: Path) -> None:
    (tree / "train" / "apple" / "text.png").write_text("no image")
    with pytest.raises(
        ConfigError, match=r"expected at most 1 % unreadable image files, came 1 of 44: train/apple/text"
    ):
        load(tree)


def test_a_class_of_unreadable_files_only_is_an_error(tree: Path) -> None:
    write_images(tree / "train" / "quince", 0)
    (tree / "train" / "quince" / "a.png").write_text("no image")
    with pytest.raises(ConfigError, match="came none of 1 classes: quince"):
        load(tree, max_skipped_fraction=1.0)


def test_nested_folders_are_searched_and_loops_of_links_end(tree: Path) -> None:
    write_images(tree / "train" / "apple" / "deep" / "deeper", 2, color=(0, 1, 2))
    (tree / "train" / "apple" / "deep" / "loop").symlink_to(tree / "train" / "apple")
    (tree / "train" / "apple" / "itself").symlink_to("itself")
    data = load(tree, calibration_images=2)
    assert sizes(data)[0] + sizes(data)[2] == 32


def test_images_are_decoded_once_until_a_file_changes(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(tree)

    def refuse(*_: object) -> None:
        pytest.fail("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(folder, "_decode", refuse)
        assert load(tree).fingerprint == first.fingerprint
    Image.new("RGB", (12, 10), "white").save(tree / "test" / "apple" / "000.png")
    os.utime(tree / "test" / "apple" / "000.png", (1, 1))
    changed = load(tree)
    assert (changed.test.images[0] == 255).all()
    assert changed.fingerprint != first.fingerprint


def test_a_read_only_cache_costs_time_and_not_the_run(tree: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tree.parent / "file").write_text("")
    data = load_dataset(
        DataSettings(source=str(tree)), LABEL_SOURCES, storage_px=8, cache_folder=tree.parent / "file" / "cache"
    )
    assert len(data.val) == 8
    assert "cannot keep" in caplog.text


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"val": {"a": 3, "b": 3}}, r"expected train/ beside val/, came none"),
        ({"train": {"a": 3, "b": 0}, "val": {"a": 3}}, r"images in every class folder, came none in 1 of 2: b\."),
        ({"train": {"a": 3}, "val": {"a": 3}}, r"expected at least two class folders, came 1 \(a\)"),
        ({".": {"a": 3}}, r"expected at least two class folders, came 1 \(a\)"),
        ({"train": {"a": 3, "b": 3}, "val": {"a": 1, "x": 3}}, r"only the 2 classes of .*train, came 1 more: x\."),
        ({"train": {"a": 3, "b": 3}, "val": {"a": 0}}, r"expected val images as CLASS/\*.jpg, came none"),
        ({"train": {"a": 3}, "val": {"a": 3}, "valid": {"a": 3}}, r"expected one val folder, came val and valid"),
        ({".": {}}, r"expected at least two class folders, came 0 \(none\)"),
    ],
)
def test_trees_that_cannot_be_used_are_named(splits: dict[str, dict[str, int]], message: str, tmp_path: Path) -> None:
    root = tmp_path / "t"
    root.mkdir()
    with pytest.raises(ConfigError, match=message):
        load(make_tree(root, **splits))


def test_images_without_class_folders_are_named(tmp_path: Path) -> None:
    write_images(tmp_path / "t", 5)
    with pytest.raises(ConfigError, match=r"expected at least two class folders, came 0"):
        load(tmp_path / "t")


def test_train_alone_is_enough_where_val_is_drawn_from_it(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "t", train={"a": 20, "b": 20})
    assert sizes(load(root, val_fraction=0.25, calibration_images=4)) == (18, 10, 4, 8)


def test_more_than_half_of_the_memory_is_refused(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalesearch.data.memory.available_bytes", lambda: 16_000)
    with pytest.raises(ConfigError, match=r"43 images at 8 px take 0.0 GB, expected at most half"):
        load(tree, memory="ram")  # 43 x 8 x 8 x 3 = 8,256 bytes


def test_pixels_are_those_of_pillow(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    root = make_tree(tmp_path / "t", train={"a": 3, "b": 3}, val={"a": 1, "b": 1}, test={"b": 1})
    (root / "test" / "a").mkdir()
    Image.fromarray(pixels).save(root / "test" / "a" / "x.png")
    np.testing.assert_array_equal(load(root).test.images[0], pixels)
