"""How images become the network's input, read from the metadata of its ONNX file."""

from __future__ import annotations  # Python 3.8 and 3.9 could not evaluate some of the types below

import json
from dataclasses import dataclass

VERSION = "1"
"""Version of the preprocessing if images are RGB, cropped to squares, and 16 bits are read on their whole scale."""
VERSIONS = (VERSION, "2", "3")
"""All versions that can be used: the second adds window, fit and channels, the third rectangles. Others are refused."""
FITS = ("crop", "stretch", "pad")


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input, and the names of the network's classes."""

    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    storage_px: tuple[int, int]
    """Height and width that an image is given first; the training images were stored at this size."""
    resolution_px: tuple[int, int]
    """Height and width of the network's input; the stored image is shrunk to it."""
    window: tuple[float, ...] | None = None
    """Pixel values that become 0 and 255, for images of more than 8 bits; None: 0 and 65535, in floats 0 and 1."""
    fit: str = "crop"
    """How an image gets its shape: its centre is cut out ("crop"), or it is stretched or padded with grey bars."""
    channels: int = 3
    """3 for RGB, 1 for grey."""


def read_preprocessing(metadata: dict[str, str]) -> Preprocessing:
    """Read the preprocessing from the metadata of an ONNX file.

    Raises:
        ValueError: The metadata are missing, or of a version or with values that are not known here.
    """
    found = metadata.get("scalesearch.preprocessing")
    if found not in VERSIONS:
        came = "no such entry" if found is None else repr(found)
        wanted = " or ".join(map(repr, VERSIONS))
        message = f"expected an ONNX file with metadata 'scalesearch.preprocessing' = {wanted}, came {came}"
        raise ValueError(message)
    window = json.loads(metadata.get("scalesearch.window", "null"))
    fit, channels = json.loads(metadata.get("scalesearch.fit", '"crop"')), int(metadata.get("scalesearch.channels", 3))
    if fit not in FITS or channels not in (1, 3):
        message = f"expected 'scalesearch.fit' in {FITS} and 1 or 3 channels, came {fit!r} and {channels}"
        raise ValueError(message)
    return Preprocessing(
        class_names=tuple(json.loads(metadata["scalesearch.class_names"])),
        mean=tuple(json.loads(metadata["scalesearch.mean"])),
        std=tuple(json.loads(metadata["scalesearch.std"])),
        storage_px=read_sides(metadata["scalesearch.storage_px"]),
        resolution_px=read_sides(metadata["scalesearch.resolution_px"]),
        window=tuple(window) if window else None,
        fit=fit,
        channels=channels,
    )


def read_sides(text: str) -> tuple[int, int]:
    """Return height and width in pixels from their JSON: `[48, 80]`, or one number, which is a square.

    Raises:
        ValueError: It is neither.
    """
    given = json.loads(text)
    sides = given if isinstance(given, list) else [given, given]
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        message = f"expected a number of pixels or [height, width], came {text!r}"
        raise ValueError(message)
    return sides[0], sides[1]
