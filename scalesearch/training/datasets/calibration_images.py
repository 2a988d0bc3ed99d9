"""Which images of a source are its calibration images: their places in the source's own order."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from scalesearch.errors import ConfigError
from scalesearch.training.datasets import in_channels, load_splits
from scalesearch.training.datasets.dataset import ImageSplit, make_dataset
from scalesearch.training.datasets.source import SourceData
from scalesearch.training.datasets.split import split_source
from scalesearch.values.settings import DataSettings


def calibration_indices(
    settings: DataSettings,
    *,
    storage_px: int,
    count: int,
    fingerprint: str,
    channels: int = 3,
    cache_folder: Path | None = None,
) -> tuple[int, ...]:
    """Places of the first `count` calibration images among the source's training images, in the order of their use.

    Where train and val are pooled, places count through training and then validation images.

    Args:
        settings: The study's.
        storage_px: The study's.
        count: How many calibrated.
        fingerprint: Of the data set that they calibrated on, which the source must still be.
        channels: Of the network's images.
        cache_folder: By default the user's.

    Raises:
        ConfigError: The data are gone, or are others than they were.
    """
    data, splits, settings = load_splits(settings, storage_px=storage_px, cache_folder=cache_folder)
    splits = in_channels(splits, channels)
    found = make_dataset(name=data.name, class_names=data.class_names, splits=splits).fingerprint
    if found != fingerprint:
        message = (
            f"the images of {settings.source} are not those of the study any more: "
            f"expected fingerprint {fingerprint[:12]}..., came {found[:12]}..."
        )
        raise ConfigError(message)
    calibration = split_source(_numbered(data), settings)[2]
    return tuple(int(place) for place in calibration.images[:count].ravel())


def _numbered(data: SourceData) -> SourceData:
    """The same source with its place for each image: the split then tells where each of its images came from."""
    start = len(data.train)
    return replace(
        data,
        train=_places(data.train, 0),
        val=None if data.val is None else _places(data.val, start),
        test=None if data.test is None else _places(data.test, 0),
    )


def _places(split: ImageSplit, start: int) -> ImageSplit:
    places = np.arange(start, start + len(split), dtype=np.int64).reshape(-1, 1, 1, 1)
    return ImageSplit(images=places, labels=split.labels)  # type: ignore[arg-type]  # indexed only, whatever its type
