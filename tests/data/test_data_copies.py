"""Equal files: once in a class, told of in two splits or two classes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scalesearch.data import LABEL_SOURCES, Dataset, load_dataset
from scalesearch.data.copies import first_of_equal
from scalesearch.errors import ConfigError
from scalesearch.values.settings import DataSettings


def write(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def load(root: Path, **settings: object) -> Dataset:
    chosen = DataSettings(source=str(root), calibration_images=2, **settings)  # type: ignore[arg-type]
    return load_dataset(chosen, LABEL_SOURCES, storage_px=8, cache_folder=root.parent / "cache")


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    for number in range(40):
        write(tmp_path / "flat" / "ab"[number % 2] / f"{number:02}.png", number)
    return tmp_path / "flat"


def total(data: Dataset) -> int:
    return sum(len(part) for part in (data.train, data.val, data.calibration, data.test))


def test_a_copy_within_a_class_is_used_once_and_counted(flat: Path) -> None:
    before = load(flat)
    for number in (0, 2, 4):
        write(flat / "a" / f"copy_{number}.png", number)
    for _ in range(2):  # read, then from the cache
        after = load(flat)
        assert total(after) == 40
        assert after.fingerprint == before.fingerprint
        assert any("3 files are copies of others of their class" in text for text in after.warnings)
    assert not any("copies" in text for text in before.warnings)


def test_an_image_in_two_splits_is_told_with_a_pair(tmp_path: Path) -> None:
    root = tmp_path / "t"
    for number in range(20):
        write(root / "train" / "ab"[number % 2] / f"{number:02}.png", number)
    for number in (100, 101, 2, 5):
        write(root / "val" / "ab"[number % 2] / f"{number:02}.png", number)
    data = load(root)
    (text,) = (text for text in data.warnings if "accuracy will be too high" in text)
    assert "2 images are in train and val, e.g. train/a/02.png = val/a/02.png" in text
    assert total(data) == 24


def test_an_image_in_two_classes_is_told(flat: Path) -> None:
    write(flat / "b" / "also.png", 6)
    assert any("1 images are in two classes, e.g. a/06.png = b/also.png" in text for text in load(flat).warnings)


def test_only_equal_content_is_equal(tmp_path: Path) -> None:
    for name, content in (("a", b"one"), ("b", b"two"), ("c", b"one"), ("d", b""), ("e", b""), ("f", b"three")):
        (tmp_path / name).write_bytes(content)
    paths = [*sorted(tmp_path.iterdir()), tmp_path / "gone"]
    assert first_of_equal(paths).tolist() == [0, 1, 0, 3, 4, 5, 6]


def test_equal_arrays_in_two_splits_of_an_npz_are_told(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), np.uint8)
    labels = np.arange(30) % 2
    np.savez(
        tmp_path / "set.npz",
        train_images=images[:20],
        train_labels=labels[:20],
        val_images=images[17:],
        val_labels=labels[17:],
    )
    assert any("3 images are in train and in val" in text for text in load(tmp_path / "set.npz").warnings)


def test_copies_cannot_fall_into_two_splits_where_train_and_val_are_pooled(tmp_path: Path) -> None:
    root = tmp_path / "t"
    for split, numbers in (("train", range(40)), ("val", range(10, 60))):
        for number in numbers:
            write(root / split / "ab"[number % 2] / f"{number:02}.png", number)
    data = load(root, val_fraction=0.3)
    parts = [
        {image.tobytes() for image in part.images[:]} for part in (data.train, data.val, data.calibration, data.test)
    ]
    assert sum(map(len, parts)) == len(set.union(*parts)) == total(data) == 60
    assert any("30 files are copies of others of their class" in text for text in data.warnings)
    assert not any("accuracy will be too high" in text for text in data.warnings)


def test_copies_and_two_labels_within_an_array_are_told(tmp_path: Path) -> None:
    images = np.random.default_rng(1).integers(0, 256, (40, 8, 8, 3), np.uint8)
    images[20], images[22], images[31] = images[0], images[0], images[4]  # two of class 0; one of both
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(40) % 2)
    texts = load(tmp_path / "set.npz").warnings
    assert any("2 images are copies of others of their class" in text for text in texts)
    assert any("1 images are in two classes: one of the labels is wrong" in text for text in texts)


@pytest.mark.parametrize("suffix", [".cr2", ".MOV", ".npy"])
def test_a_file_beside_the_picture_it_belongs_to_is_no_loss(suffix: str, flat: Path) -> None:
    for path in sorted(flat.rglob("*.png")):
        path.with_suffix(suffix).write_bytes(path.name.encode())
    data = load(flat)
    assert total(data) == 40
    assert not any("kinds that are not read" in text for text in data.warnings)


def test_two_of_many_are_a_warning_without_any_setting(flat: Path) -> None:
    for number in range(2):
        (flat / "a" / f"IMG_{number}.heif").write_bytes(bytes([number]))
    assert any("left out 2 of 42 picture files of kinds" in text for text in load(flat).warnings)


@pytest.mark.parametrize("suffix", [".HEIC", ".nef", ".jxl"])
def test_many_pictures_of_a_kind_that_is_not_read_stop_the_run(suffix: str, flat: Path) -> None:
    for number in range(30):
        (flat / "a" / f"IMG_{number}{suffix}").write_bytes(bytes([number]))
    with pytest.raises(ConfigError, match=rf"30 of 70 picture files are of kinds .* \(30 {suffix.lower()}\)") as caught:
        load(flat)
    assert str(caught.value).count("\n") == 2
    data = load(flat, max_skipped_fraction=1.0)
    assert any("left out 30 of 70 picture files" in text for text in data.warnings)


def test_a_few_of_them_are_a_warning_and_other_files_too(flat: Path) -> None:
    (flat / "a" / "one.heic").write_bytes(b"1")
    (flat / "a" / "labels.csv").write_text("x")
    texts = load(flat, max_skipped_fraction=0.05).warnings
    assert any("left out 1 of 41 picture files of kinds that are not read (1 .heic)" in text for text in texts)
    assert any("left out 1 files that are no images by name: a/labels.csv" in text for text in texts)


def test_a_class_that_is_mostly_of_such_files_stops_the_run(flat: Path) -> None:
    for number in range(2):
        write(flat / "c" / f"{number}.png", 500 + number)
    for number in range(3):
        (flat / "c" / f"IMG_{number}.heic").write_bytes(bytes([number]))
    with pytest.raises(ConfigError, match=r"most of those in c/"):
        load(flat, max_skipped_fraction=0.5)
