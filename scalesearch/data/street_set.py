"""The generated street scenes as a data set in three splits, drawn once and kept in the cache folder."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scalesearch.data.cache import Arrays, cached_arrays, content_key
from scalesearch.data.street_backdrop import SURFACES
from scalesearch.data.street_scenes import MOST_SIGNS, SIGN_CLASSES, Scene, draw_scene
from scalesearch.values.network_spec import InputSize

# Part of the cache key: raise it when a change to the code makes the same seed give other scenes.
GENERATOR_VERSION: Final = 1
SPLIT_SIZES: Final = (("train", 1200), ("val", 300), ("test", 300))
# Texture, blur and noise are those of a camera with about this many lines.
LEAST_HEIGHT_PX, MOST_HEIGHT_PX = 96, 180
SHAPE: Final = (9, 16)
"""Height to width of every scene."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StreetSplit:
    """The scenes of one split, and what is known about them."""

    images: NDArray[np.uint8]
    """(number, height, width, 3) in RGB."""
    masks: NDArray[np.uint8]
    """(number, height, width): indices into `street_scenes.SURFACES`."""
    boxes: NDArray[np.float32]
    """(number, 6, 4): left, top, right and bottom in pixels; rows beyond the image's signs are 0."""
    classes: NDArray[np.int64]
    """(number, 6): indices into `street_scenes.SIGN_CLASSES`; -1 beyond the image's signs."""
    ignored: NDArray[np.bool_]
    """(number, 6): signs that are hidden so much that they are ignored as targets."""


def street_splits(seed: int, storage: InputSize, cache_folder: Path) -> dict[str, StreetSplit]:
    """Return the scenes of this seed by the name of their split: `train`, `val` and `test`.

    Their height is that of the storage size, between 96 and 180 px, and their shape always 16:9.

    Args:
        seed: Another seed gives other scenes.
        storage: The size that images will be stored at.
        cache_folder: Where the scenes are kept.
    """
    size = drawn_size(storage)
    key = content_key(GENERATOR_VERSION, SPLIT_SIZES, seed, size.sides)
    arrays = cached_arrays(
        cache_folder, f"street-{key}", partial(_generate, seed, size), whole=partial(_require_whole, size=size)
    )
    return {
        split: StreetSplit(
            images=arrays[f"{split}_images"].astype(np.uint8, copy=False),
            masks=arrays[f"{split}_masks"].astype(np.uint8, copy=False),
            boxes=arrays[f"{split}_boxes"].astype(np.float32, copy=False),
            classes=arrays[f"{split}_classes"].astype(np.int64, copy=False),
            ignored=arrays[f"{split}_ignored"].astype(np.bool_, copy=False),
        )
        for split, _ in SPLIT_SIZES
    }


def drawn_size(storage: InputSize) -> InputSize:
    """Return the 16:9 size at which scenes are drawn for images that are stored at this size."""
    least = max(storage.height_px, round(storage.width_px * SHAPE[0] / SHAPE[1]))
    height_px = min(max(least, LEAST_HEIGHT_PX), MOST_HEIGHT_PX)
    return InputSize(height_px=height_px, width_px=round(height_px * SHAPE[1] / SHAPE[0]))


def _generate(seed: int, size: InputSize) -> Arrays:
    arrays: dict[str, np.ndarray] = {}
    for stream, (split, number) in enumerate(SPLIT_SIZES):
        # Each scene has its own random stream: scene 17 stays the same even if the others change.
        scenes = [draw_scene(rng=np.random.default_rng((seed, stream, index)), size=size) for index in range(number)]
        arrays |= {
            f"{split}_images": np.stack([scene.image for scene in scenes]),
            f"{split}_masks": np.stack([scene.mask for scene in scenes]),
            **{f"{split}_{name}": values for name, values in _padded(scenes).items()},
        }
    return arrays


def _padded(scenes: list[Scene]) -> Arrays:
    boxes = np.zeros((len(scenes), MOST_SIGNS, 4), np.float32)
    classes = np.full((len(scenes), MOST_SIGNS), -1, np.int64)
    ignored = np.zeros((len(scenes), MOST_SIGNS), np.bool_)
    for place, scene in enumerate(scenes):
        number = len(scene.boxes)
        boxes[place, :number], classes[place, :number] = scene.boxes, scene.classes
        ignored[place, :number] = scene.ignored
    return {"boxes": boxes, "classes": classes, "ignored": ignored}


def _require_whole(arrays: Arrays, *, size: InputSize) -> None:
    """Check that stored arrays are what `_generate` makes.

    Raises:
        KeyError: If an array is missing.
        ValueError: If an array is not as expected.
    """
    for split, number in SPLIT_SIZES:
        shapes = {
            "images": (number, *size.sides, 3),
            "masks": (number, *size.sides),
            "boxes": (number, MOST_SIGNS, 4),
            "classes": (number, MOST_SIGNS),
            "ignored": (number, MOST_SIGNS),
        }
        for name, shape in shapes.items():
            if arrays[f"{split}_{name}"].shape != shape:
                msg = f"{split}: {name} of shape {arrays[f'{split}_{name}'].shape}, not {shape}"
                raise ValueError(msg)
        if arrays[f"{split}_masks"].max() >= len(SURFACES):
            msg = f"{split}: masks beyond {len(SURFACES)} surfaces"
            raise ValueError(msg)
        labels = arrays[f"{split}_classes"].astype(np.int64)
        if labels.min() < -1 or labels.max() >= len(SIGN_CLASSES):
            msg = f"{split}: signs beyond {len(SIGN_CLASSES)} classes"
            raise ValueError(msg)
