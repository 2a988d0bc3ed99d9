"""Find out which images of a source are its calibration images, as indices in the source's own order."""

from dataclasses import replace

import numpy as np

from scalesearch.data import in_channels, load_splits
from scalesearch.data.dataset import ImageSplit, make_dataset
from scalesearch.data.source import SourceData, Sources
from scalesearch.data.split import split_source
from scalesearch.errors import ConfigError
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings


def calibration_indices(
    settings: DataSettings,
    sources: Sources,
    *,
    storage_px: int | InputSize,
    count: int,
    fingerprint: str,
    channels: int = 3,
) -> tuple[int, ...]:
    """Return the indices of the first `count` calibration images among the source's training images.

    They are in the order in which they are used. Where train and val are pooled, the indices count through the training
    images first and then through the validation images.

    Args:
        settings: The study's data settings.
        sources: The sources of the study's task.
        storage_px: Size of the study's stored images: the side of squares in pixels, or their height and width.
        count: How many images were used for calibration.
        fingerprint: Fingerprint of the data set that was used for calibration; the source must still have it.
        channels: Number of channels of the network's images.

    Raises:
        ConfigError: If the data are gone or have changed.
    """
    data, splits, settings = load_splits(settings, sources, storage_px=storage_px)
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
    """Return the same source with each image replaced by its index.

    When this is split, the splits show which images of the source they hold.
    """
    start = len(data.train)
    return replace(
        data,
        train=_places(data.train, 0),
        val=None if data.val is None else _places(data.val, start),
        test=None if data.test is None else _places(data.test, 0),
    )


def _places(split: ImageSplit, start: int) -> ImageSplit:
    places = np.arange(start, start + len(split), dtype=np.int64).reshape(-1, 1, 1, 1)
    return ImageSplit(images=places, targets=split.targets, names=split.names)  # type: ignore[arg-type]  # indexed only, whatever its type
