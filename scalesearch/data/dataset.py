"""The images of a data set: its splits, all of it at any resolution, and the normalisation that every stage uses."""

import hashlib
import math
from collections import OrderedDict
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from scalesearch.data.facts import ImageFacts
from scalesearch.data.mapped import MappedImages
from scalesearch.data.memory import fits_beside, room_bytes
from scalesearch.data.normalisation import Images, PerChannel, channel_statistics
from scalesearch.data.resize import resize_images, rows_of_chunk
from scalesearch.data.targets import Targets
from scalesearch.errors import ConfigError
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import MemorySetting, WindowSetting

# Accuracy for which the standard error is stated: about what brief training reaches on hard sets (grocery42: 60 %).
# In the worst case, an accuracy of 0.5, the standard error is only 2 % larger.
STATED_ACCURACY = 0.6
MAX_VAL_STANDARD_ERROR_POINTS = 1.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageSplit:
    """Images (number, height, width, 3 for RGB or 1 for grey) and their targets, in the same order."""

    images: Images | MappedImages
    targets: Targets
    facts: ImageFacts | None = None
    """What the images were like before they were given one size; None if that is not known or does not matter."""
    names: NDArray[np.str_] | None = None
    """Names of the images' files, with their folders below the data set's, of shape (number,); None where the images
    are not files."""

    def __len__(self) -> int:
        return len(self.targets)


class ResizeMemo:
    """A cache of resized data sets, as many as fit into `max_bytes`; the one requested longest ago is dropped first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[InputSize, Dataset] = OrderedDict()

    def get(self, size: InputSize) -> "Dataset | None":
        """Return the data set at this size, or None if it is not kept."""
        if size in self._kept:
            self._kept.move_to_end(size)
        return self._kept.get(size)

    def put(self, size: InputSize, dataset: "Dataset") -> None:
        """Keep this data set, and drop older ones until the limit holds; the newest is always kept."""
        self._kept[size] = dataset
        while len(self._kept) > 1 and sum(kept.size_bytes for kept in self._kept.values()) > self._max_bytes:
            self._kept.popitem(last=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """Four splits of one source, all of one size, in memory or on disk. Equal `fingerprint` means equal content."""

    name: str
    class_names: tuple[str, ...]
    mean: PerChannel
    """Mean of the train split at the storage size: red, green, blue (or grey), on the scale 0..1.

    The same values are used at every resolution.
    """
    std: PerChannel
    fingerprint: str
    """SHA-256 of the class names, images and targets of all splits as they are stored."""
    train: ImageSplit
    val: ImageSplit
    calibration: ImageSplit
    """Images taken from the source's train images and never trained on.

    They are in random order, so any first part of them is a fair sample.
    """
    test: ImageSplit
    warnings: tuple[str, ...] = ()
    window: WindowSetting = "auto"
    """The window that images of more than 8 bits were read by, kept so that later images are read the same way."""
    memory: MemorySetting = "auto"
    """What `at` does if these images are on disk: with `auto` it keeps smaller ones in memory if they fit, with `disk`
    it never does."""
    notes: tuple[str, ...] = ()
    """Lines to print while the data set is loaded; unlike `warnings`, they report no doubts about the data."""
    _memo: ResizeMemo | None = field(default=None, repr=False)

    @property
    def size(self) -> InputSize:
        """Height and width of the images."""
        _, height_px, width_px, _ = self.train.images.shape
        return InputSize(height_px=int(height_px), width_px=int(width_px))

    @property
    def resolution_px(self) -> int:
        """Height of the images in pixels, which is the side of square ones."""
        return self.size.height_px

    @property
    def size_bytes(self) -> int:
        """Memory that the images take, in bytes; images on disk take none."""
        parts = (self.train.images, self.val.images, self.calibration.images, self.test.images)
        return sum(images.nbytes for images in parts if isinstance(images, np.ndarray))

    @property
    def on_disk(self) -> bool:
        """Whether the images are read from disk when they are needed."""
        return isinstance(self.train.images, MappedImages)

    def at(self, size: int | InputSize) -> "Dataset":
        """Return the same data set with smaller images.

        The sizes made last are kept in memory, as long as together they take no more bytes than this data set. If this
        data set is on disk, a smaller size is kept in memory only if it takes no more than its share of it
        (`memory.fits_beside`); otherwise, and always with `memory="disk"`, images are resized whenever they are read.

        Args:
            size: The side of square images in pixels, or their height and width. The whole stored images are shrunk to
                it, even if its shape is a little different because both sides were rounded.

        Raises:
            ConfigError: If a side is larger than what is stored, since there is no detail to add.
        """
        wanted, stored = InputSize.of(size), self.size
        if wanted == stored:
            return self
        if not all(0 < side <= most for side, most in zip(wanted.sides, stored.sides, strict=True)):
            needed = wanted.label if wanted.is_square else repr(wanted)
            msg = (
                f"data {self.name!r}: expected a resolution of 1 to {stored} (what is stored), "
                f"came {wanted}. Load it with storage_px={needed} or more."
            )
            raise ConfigError(msg)
        kept = self._memo.get(wanted) if self._memo else None
        if kept is None:
            kept = self._resized(wanted)
            if self._memo:
                self._memo.put(wanted, kept)
        return kept

    def normalised_by(self, mean: PerChannel, std: PerChannel) -> "Dataset":
        """Return the same images with other normalisation constants, such as those of a trained parent."""
        if (mean, std) == (self.mean, self.std):
            return self
        changed = replace(self, mean=mean, std=std, _memo=None)
        return replace(changed, _memo=ResizeMemo(room_bytes() if self.on_disk else self.size_bytes))

    def _resized(self, size: InputSize) -> "Dataset":
        number = sum(len(part) for part in (self.train, self.val, self.calibration, self.test))
        size_bytes = number * size.pixels * self.train.images.shape[-1]
        stays = self.on_disk and (self.memory == "disk" or not fits_beside(size_bytes))

        def part(split: ImageSplit) -> ImageSplit:
            targets = split.targets.at(size)
            if not isinstance(split.images, MappedImages):
                return ImageSplit(images=resize_images(split.images, size, fit="stretch"), targets=targets)
            small = split.images.at(size)
            return ImageSplit(images=small if stays else small[:], targets=targets)

        return replace(
            self,
            train=part(self.train),
            val=part(self.val),
            calibration=part(self.calibration),
            test=part(self.test),
            _memo=None,
        )


def make_dataset(
    *,
    name: str,
    class_names: tuple[str, ...],
    splits: tuple[ImageSplit, ImageSplit, ImageSplit, ImageSplit],
    warnings: tuple[str, ...] = (),
    window: WindowSetting = "auto",
    memory: MemorySetting = "auto",
) -> Dataset:
    """Make a data set from its splits, and compute its mean, std and fingerprint.

    Args:
        name: Name of the data set.
        class_names: The names of the classes, in the order of the targets' class indices; empty without classes.
        splits: Train, val, calibration and test, with images of shape (number, height, width, C).
        warnings: What the user should know about the data.
        window: The window that images of more than 8 bits were read by.
        memory: Where smaller sizes of images on disk are kept.
    """
    train, val, calibration, test = splits
    mean, std = channel_statistics(train.images)
    dataset = Dataset(
        name=name,
        class_names=class_names,
        mean=mean,
        std=std,
        fingerprint=_fingerprint(class_names, splits),
        train=train,
        val=val,
        calibration=calibration,
        test=test,
        warnings=warnings,
        window=window,
        memory=memory,
    )
    return replace(dataset, _memo=ResizeMemo(room_bytes() if dataset.on_disk else dataset.size_bytes))


def _fingerprint(class_names: tuple[str, ...], splits: tuple[ImageSplit, ...]) -> str:
    digest = hashlib.sha256(repr(class_names).encode())
    for split in splits:
        digest.update(repr(split.images.shape).encode())
        step = rows_of_chunk(split.images.shape)
        for start in range(0, len(split.images), step):
            digest.update(np.ascontiguousarray(split.images[start : start + step]).data)
        for part in split.targets.content():
            digest.update(part)
    return digest.hexdigest()


def val_standard_error_points(dataset: Dataset) -> float:
    """Return the standard error, in points, of an accuracy of 60 % on the validation images (296 images: 2.8)."""
    return 100 * math.sqrt(STATED_ACCURACY * (1 - STATED_ACCURACY) / max(len(dataset.val), 1))
