"""Targets of any kind go through splitting, resizing and the fingerprint; labels are the plainest kind."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from scalesearch.data import load_dataset
from scalesearch.data.copies import equal_images
from scalesearch.data.dataset import ImageSplit, make_dataset
from scalesearch.data.source import Source, SourceData
from scalesearch.data.split import split_source
from scalesearch.data.targets import Labels, Places
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings


@dataclass(frozen=True, slots=True, eq=False)
class Masks:
    """A class for each pixel, uint8 of shape (number, height, width): the kind of targets that a resize changes."""

    values: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, where: Places) -> "Masks":
        return Masks(self.values[where])

    def joined(self, other: "Masks") -> "Masks":
        return Masks(np.concatenate([self.values, other.values]))

    def at(self, size: InputSize) -> "Masks":
        rows, columns = (np.arange(to) * now // to for to, now in zip(size.sides, self.values.shape[1:], strict=True))
        return Masks(self.values[:, rows][:, :, columns])  # the nearest pixel: classes have no mean

    def content(self) -> Iterator[memoryview]:
        yield np.ascontiguousarray(self.values).data

    def strata(self) -> None:
        return None

    def class_counts(self, classes: int) -> NDArray[np.int64]:
        return np.bincount(self.values.ravel(), minlength=classes)

    def tensor(self) -> torch.Tensor:
        return torch.from_numpy(self.values)


def masked(count: int, seed: int, side_px: int = 8) -> ImageSplit:
    """Images whose every pixel is 100 times its class."""
    masks = np.random.default_rng(seed).integers(0, 3, (count, side_px, side_px)).astype(np.uint8)
    return ImageSplit(images=np.repeat(100 * masks[..., None], 3, axis=-1), targets=Masks(masks))


def test_labels_are_their_array() -> None:
    labels = Labels(np.asarray([2, 0, 1, 2]))
    assert np.asarray(labels) is labels.values and len(labels) == 4
    assert labels.tensor().data_ptr() == labels.values.ctypes.data and labels.tensor().dtype == torch.int64
    assert labels.strata() is labels.values and labels.at(InputSize.square(4)) is labels
    assert labels.class_counts(4).tolist() == [1, 1, 2, 0]
    where: tuple[Places, ...] = (slice(1, 3), np.asarray([False, True, True, False]), np.asarray([1, 2]))
    assert [np.asarray(labels[each]).tolist() for each in where] == [[0, 1]] * 3
    assert np.asarray(labels.joined(labels[:1])).tolist() == [2, 0, 1, 2, 2]
    assert np.asarray(labels, dtype=np.float32).dtype == np.float32


def test_the_fingerprint_is_the_hash_of_names_shapes_pixels_and_labels() -> None:
    random = np.random.default_rng(0)
    splits = [
        ImageSplit(images=random.integers(0, 256, (count, 4, 5, 3), np.uint8), targets=Labels(np.arange(count) % 2))
        for count in (6, 4, 3, 2)
    ]
    first, second, third, fourth = splits
    digest = hashlib.sha256(b"('a', 'b')")
    for split in splits:
        assert isinstance(split.images, np.ndarray)
        digest.update(repr(split.images.shape).encode() + split.images.tobytes() + np.asarray(split.targets).tobytes())
    data = make_dataset(name="two", class_names=("a", "b"), splits=(first, second, third, fourth))
    assert data.fingerprint == digest.hexdigest()


def test_masks_are_split_with_their_images_and_follow_a_resize() -> None:
    source = SourceData(name="masks", class_names=("a", "b", "c"), train=masked(40, 1), val=masked(10, 2))
    splits = split_source(source, DataSettings(val_fraction=0.2, calibration_images=6))
    assert [len(split) for split in splits] == [24, 10, 6, 10]  # 50 pooled; 0.2 for val, 0.2 for test
    data = make_dataset(name="masks", class_names=source.class_names, splits=splits)
    other = make_dataset(name="masks", class_names=source.class_names, splits=(*splits[:3], replace_first(splits[3])))
    assert data.fingerprint != other.fingerprint
    for stored, small in ((split, getattr(data.at(4), name)) for name, split in named(splits)):
        assert isinstance(stored.targets, Masks) and isinstance(stored.images, np.ndarray)
        np.testing.assert_array_equal(100 * stored.targets.values, stored.images[..., 0])
        np.testing.assert_array_equal(small.targets.values, stored.targets.values[:, ::2, ::2])
        assert small.targets.tensor().shape == (len(stored), 4, 4)


def named(splits: tuple[ImageSplit, ...]) -> Iterator[tuple[str, ImageSplit]]:
    yield from zip(("train", "val", "calibration", "test"), splits, strict=True)


def replace_first(split: ImageSplit) -> ImageSplit:
    """Return the split with one pixel of one mask changed."""
    assert isinstance(split.targets, Masks)
    values = split.targets.values.copy()
    values[0, 0, 0] = (values[0, 0, 0] + 1) % 3
    return replace(split, targets=Masks(values))


def test_copies_across_splits_are_told_of_targets_without_strata() -> None:
    first = masked(5, 1)
    (warning,) = equal_images({"train": first, "val": replace(masked(3, 2), images=first.images[:3])}, name="m")
    assert warning.startswith("data m: 3 images are in train and in val")


@pytest.mark.parametrize("missing", [0, 2])
def test_a_class_that_no_mask_shows_is_said_and_no_error(missing: int, tmp_path: Path) -> None:
    """Images are drawn without regard to what is on them, so a rare class may miss a split by chance."""
    masks = np.full((30, 4, 4), 1, np.uint8)
    masks[:, 0, 0] = 2 - missing
    part = ImageSplit(images=np.zeros((30, 4, 4, 3), np.uint8), targets=Masks(masks))
    data = SourceData(name="m", class_names=("zero", "one", "two"), train=part)
    source = Source(kind="made", targets="masks", load=lambda *_, **__: data, names=("made",))
    found = load_dataset(
        DataSettings(source="made", calibration_images=3), (source,), storage_px=4, cache_folder=tmp_path
    )
    for split in ("train", "val", "test"):
        assert f"data m: {split} has no image of 1 of 3 classes: {data.class_names[missing]}" in found.warnings
