"""Images in memory: the splits, one data set at any resolution, and the one normalisation that every stage uses."""

import hashlib
import math
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scalesearch.errors import ConfigError
from scalesearch.training.datasets.facts import ImageFacts
from scalesearch.training.datasets.resize import resize_images
from scalesearch.values.settings import WindowSetting

if TYPE_CHECKING:
    from torch import Tensor

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
PerChannel = tuple[float, ...]

# Accuracy at which the standard error is stated: about what brief training reaches on hard sets (grocery42: 60 %).
# The worst case, 0.5, is only 2 % larger.
STATED_ACCURACY = 0.6
MAX_VAL_STANDARD_ERROR_POINTS = 1.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageSplit:
    """Square images (number, height, width, 3 or, of grey ones, 1) and their class indices, in the same order."""

    images: Images
    labels: Labels
    facts: ImageFacts | None = None
    """Of the images as they were before; None where that is not known or does not matter."""

    def __len__(self) -> int:
        return len(self.labels)


class ResizeMemo:
    """The resolutions made last, as many as fit into `max_bytes`; the one asked for longest ago goes first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[int, Dataset] = OrderedDict()

    def get(self, resolution_px: int) -> "Dataset | None":
        """The data set at this resolution, if it is still kept."""
        if resolution_px in self._kept:
            self._kept.move_to_end(resolution_px)
        return self._kept.get(resolution_px)

    def put(self, resolution_px: int, dataset: "Dataset") -> None:
        """Keep this one, and let older ones go until the bound holds; the newest always stays."""
        self._kept[resolution_px] = dataset
        while len(self._kept) > 1 and sum(kept.size_bytes for kept in self._kept.values()) > self._max_bytes:
            self._kept.popitem(last=False)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Dataset:
    """Four splits of one source in memory, all at `storage_px`; equal `fingerprint` means equal content."""

    name: str
    class_names: tuple[str, ...]
    mean: PerChannel
    """Of the train split at `storage_px`, red green blue (or grey), on the scale 0..1. The same at every resolution."""
    std: PerChannel
    fingerprint: str
    """SHA-256 of class names, images and labels of all splits as they are stored."""
    train: ImageSplit
    val: ImageSplit
    calibration: ImageSplit
    """From the source's train images, never trained on, in random order: any first part of it is a fair sample."""
    test: ImageSplit
    warnings: tuple[str, ...] = ()
    window: WindowSetting = "auto"
    """What images of more than 8 bits were read by: to be kept, so that later ones are read alike."""
    _memo: ResizeMemo | None = field(default=None, repr=False)

    @property
    def resolution_px(self) -> int:
        """Side of the images."""
        return int(self.train.images.shape[1])

    @property
    def size_bytes(self) -> int:
        """Memory that the images take."""
        return sum(part.images.nbytes for part in (self.train, self.val, self.calibration, self.test))

    def at(self, resolution_px: int) -> "Dataset":
        """The same data set with smaller images; the last few resolutions are kept, within this set's own size.

        Raises:
            ConfigError: if `resolution_px` is larger than what is stored, since there is no detail to add.
        """
        if resolution_px == self.resolution_px:
            return self
        if not 0 < resolution_px < self.resolution_px:
            msg = (
                f"data {self.name!r}: expected a resolution of 1 to {self.resolution_px} px (what is stored), "
                f"came {resolution_px} px. Load it with storage_px={resolution_px} or more."
            )
            raise ConfigError(msg)
        kept = self._memo.get(resolution_px) if self._memo else None
        if kept is None:
            kept = self._resized(resolution_px)
            if self._memo:
                self._memo.put(resolution_px, kept)
        return kept

    def _resized(self, resolution_px: int) -> "Dataset":
        def part(split: ImageSplit) -> ImageSplit:
            return ImageSplit(images=resize_images(split.images, resolution_px), labels=split.labels)

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
) -> Dataset:
    """A data set from its splits (train, val, calibration, test), with mean, std and fingerprint computed."""
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
    )
    return replace(dataset, _memo=ResizeMemo(dataset.size_bytes))


def to_grey(images: Images) -> Images:
    """Luma (number, height, width, 1) of RGB images (number, height, width, 3): ITU-R BT.601 as in Pillow's mode L.

    In whole numbers, so grey pictures come back as they were, and `deployment/infer.py` gives the same to the bit.
    """
    grey = np.empty((*images.shape[:3], 1), np.uint8)
    for start in range(0, len(images), 1024):
        red, green, blue = np.moveaxis(images[start : start + 1024].astype(np.uint32), -1, 0)
        grey[start : start + 1024, ..., 0] = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return grey


def channel_statistics(images: Images) -> tuple[PerChannel, PerChannel]:
    """Mean and standard deviation of every channel on the scale 0..1, from exact histograms."""
    channels = images.shape[-1]
    counts = np.zeros((channels, 256), np.int64)
    for start in range(0, len(images), 1024):
        chunk = images[start : start + 1024]
        for channel in range(channels):
            counts[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
    weights = counts / max(int(counts[0].sum()), 1)
    levels = np.arange(256) / 255
    mean = weights @ levels
    variance = (weights * (levels - mean[:, None]) ** 2).sum(axis=1)
    # One grey level as the floor: images of one colour must not divide by zero.
    std = np.maximum(np.sqrt(variance), 1 / 255)
    return tuple(map(float, mean)), tuple(map(float, std))


def _fingerprint(class_names: tuple[str, ...], splits: tuple[ImageSplit, ...]) -> str:
    digest = hashlib.sha256(repr(class_names).encode())
    for split in splits:
        digest.update(repr(split.images.shape).encode())
        digest.update(np.ascontiguousarray(split.images).data)
        digest.update(np.ascontiguousarray(split.labels).data)
    return digest.hexdigest()


def _affine(mean: PerChannel, std: PerChannel) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scale and offset per channel, so that (pixel / 255 - mean) / std = pixel * scale + offset."""
    deviation = np.asarray(std)
    return (1 / (255 * deviation)).astype(np.float32), (-np.asarray(mean) / deviation).astype(np.float32)


def to_input(images: Images, *, mean: PerChannel, std: PerChannel) -> NDArray[np.float32]:
    """What engines and networks are fed: float32 (number, channels, height, width), from uint8 with channels last."""
    scale, offset = _affine(mean, std)
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
    planes *= scale[:, None, None]
    planes += offset[:, None, None]
    return planes


def normalise(images: "Tensor", *, mean: PerChannel, std: PerChannel) -> "Tensor":
    """`to_input` for torch: float32 from uint8 (number, C, height, width), on the tensor's device, bit for bit."""
    scale, offset = _affine(mean, std)
    planes = images.float()
    return planes.mul_(planes.new_tensor(scale).view(-1, 1, 1)).add_(planes.new_tensor(offset).view(-1, 1, 1))


def val_standard_error_points(dataset: Dataset) -> float:
    """Standard error, in points, of an accuracy of 60 % measured on the validation images (296 images: 2.8)."""
    return 100 * math.sqrt(STATED_ACCURACY * (1 - STATED_ACCURACY) / max(len(dataset.val), 1))
