"""The default data: images of road signs, generated and clearly synthetic. They are seeded; nothing is downloaded."""

from functools import partial
from pathlib import Path

import numpy as np

from scalesearch.data.cache import Arrays, cached_arrays, content_key, require_splits
from scalesearch.data.dataset import ImageSplit
from scalesearch.data.resize import resize_images
from scalesearch.data.source import Source, SourceData
from scalesearch.data.targets import LABELS, Labels
from scalesearch.errors import ConfigError
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings

# Part of the cache key: raise it when a change to the code makes the same seed give other pixels.
GENERATOR_VERSION = 3
# 1,500 validation images give a standard error of 1.3 points.
SPLIT_SIZES = (("train", 4000), ("val", 1500), ("test", 1500))
# Blur and noise are those of a camera with this many pixels: drawing smaller images saves nothing, and larger ones show
# little more.
MIN_DRAWN_PX = 64
MAX_DRAWN_PX = 128


def load(settings: DataSettings, *, storage: InputSize, cache_folder: Path) -> SourceData:
    """Load the synthetic signs of this seed, drawn at 64 to 128 px and kept in `cache_folder`.

    They are drawn as squares. For a rectangle they are stretched or padded, as the settings say.

    Raises:
        ConfigError: As `require_square` says.
    """
    require_square(settings, storage)
    drawn_px = min(max(*storage.sides, MIN_DRAWN_PX), MAX_DRAWN_PX)
    key = content_key(GENERATOR_VERSION, SPLIT_SIZES, settings.seed, drawn_px)
    arrays = cached_arrays(
        cache_folder,
        f"signs-{key}",
        partial(_generate, settings.seed, drawn_px),
        whole=partial(_require_whole, drawn_px=drawn_px),
    )
    parts = {
        split: ImageSplit(
            images=resize_images(arrays[f"{split}_images"].astype(np.uint8, copy=False), storage, fit=settings.framing),
            targets=Labels(arrays[f"{split}_labels"].astype(np.int64, copy=False)),
        )
        for split, _ in SPLIT_SIZES
    }
    names = tuple(str(name) for name in arrays["class_names"])
    return SourceData(
        name="signs", class_names=names, train=parts["train"], val=parts["val"], test=parts["test"], warnings=()
    )


def require_square(settings: DataSettings, storage: InputSize) -> None:
    """Raise an error if rectangles are to be cropped from the square drawings, which would cut signs in two.

    Raises:
        ConfigError: If the stored images are no squares and `data.fit` is `crop`.
    """
    if not storage.is_square and settings.framing == "crop":
        msg = (
            f"data signs: expected a square resolution_px, since the signs are drawn as squares, came {storage}.\n"
            "Take pictures of your own (--data FOLDER), or the squares between grey bars: --set data.fit=pad"
        )
        raise ConfigError(msg)


def _require_whole(arrays: Arrays, *, drawn_px: int) -> None:
    """Check that stored arrays are what `_generate` makes.

    Raises:
        KeyError: If an array is missing.
        ValueError: If an array is not as expected.
    """
    from scalesearch.data.sign_scenes import CLASS_NAMES

    require_splits(arrays, dict(SPLIT_SIZES), size=InputSize.square(drawn_px), classes=len(CLASS_NAMES))
    if arrays["class_names"].tolist() != list(CLASS_NAMES):
        msg = "other class names"
        raise ValueError(msg)


def _generate(seed: int, drawn_px: int) -> Arrays:
    from scalesearch.data.sign_scenes import CLASS_NAMES, draw_sign

    arrays: dict[str, np.ndarray] = {"class_names": np.asarray(CLASS_NAMES)}
    for stream, (split, size) in enumerate(SPLIT_SIZES):
        # The classes take turns, so that each has an equal share.
        labels = np.arange(size, dtype=np.int64) % len(CLASS_NAMES)
        images = np.empty((size, drawn_px, drawn_px, 3), np.uint8)
        for index, label in enumerate(labels):
            # Each image has its own random stream: image 17 stays the same even if the others change.
            rng = np.random.default_rng((seed, stream, index))
            images[index] = draw_sign(CLASS_NAMES[label], rng=rng, image_px=drawn_px).image
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    return arrays


SOURCE = Source(kind="synthetic", targets=LABELS, load=load, names=("signs",), least_classes=2, check=require_square)
