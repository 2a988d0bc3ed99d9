"""One image file as a square of RGB pixels, whatever its mode, depth, orientation or size."""

import functools
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from scalesearch.training.datasets.depth import to_8_bits
from scalesearch.training.datasets.facts import CUT, FLOAT, WHOLE, ImageFact, sample_of
from scalesearch.training.datasets.framing import square_image
from scalesearch.values.settings import Fit, WindowSetting

# Part of the cache key: raise it when the same file would give other pixels.
DECODER_VERSION = 2
MAX_FILE_BYTES = 256 * 2**20
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF")
"""Pillow's names for what SUFFIXES promise. A file of another kind with such a name is not opened: Pillow would start
Ghostscript for an EPS, and its readers of rare formats are hardly tested."""

# What Pillow's readers raise on damaged files (found by damaging files of every format), and the bomb guard's two.
UNREADABLE: tuple[type[Exception], ...] = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    struct.error,
    zlib.error,
    Image.DecompressionBombWarning,
    Image.DecompressionBombError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How image files become pixels; equal readings give equal pixels."""

    side_px: int
    window: WindowSetting = "full"
    fit: Fit = "crop"
    images: int = 1
    """Of how many images each shows a sample of its values."""


def decode_square(path: Path, side_px: int, *, window: WindowSetting = "full", fit: Fit = "crop") -> NDArray[np.uint8]:
    """Pixels (side_px, side_px, 3) of the first frame, turned as its EXIF says; raises one of `UNREADABLE`."""
    return decode(path, Reading(side_px=side_px, window=window, fit=fit))[0]


def decode(path: Path, reading: Reading) -> tuple[NDArray[np.uint8], ImageFact]:
    """Pixels (side, side, 3) of an image file, and what the file held; raises one of `UNREADABLE`."""
    size_bytes = path.stat().st_size
    if not 0 < size_bytes <= MAX_FILE_BYTES:
        msg = f"{size_bytes} bytes" if size_bytes else "empty file"
        raise ValueError(msg)
    with warnings.catch_warnings():
        # Pillow warns of odd EXIF and palettes, which it reads all the same; of bombs it must not only warn.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=known_formats()) as image:
            # JPEG alone can be decoded at 1/2, 1/4, 1/8; twice the wanted side leaves the filter enough to average.
            size = image.size
            image.draft(None, (2 * reading.side_px, 2 * reading.side_px))
            return read_square(image, reading, size=size)


@functools.cache
def known_formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow can read; AVIF needs 11.3, and an unknown name is an error there."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def to_square(
    image: Image.Image, side_px: int, *, window: WindowSetting = "full", fit: Fit = "crop"
) -> NDArray[np.uint8]:
    """Pixels (side_px, side_px, 3) of any Pillow image as a square, antialiased."""
    return read_square(image, Reading(side_px=side_px, window=window, fit=fit))[0]


def read_square(
    image: Image.Image, reading: Reading, *, size: tuple[int, int] | None = None
) -> tuple[NDArray[np.uint8], ImageFact]:
    """`to_square`, and what the image held.

    Args:
        image: As Pillow opened it.
        reading: How it is to be read.
        size: Of the whole image, where Pillow was told to decode it smaller.
    """
    cut = _loses_low_bytes(image)
    image.load()
    width, height = size or image.size
    turned = _upright(image)
    if (turned.width > turned.height) != (image.width > image.height):
        width, height = height, width
    kind, sample = _values(image, cut=cut, images=reading.images)
    square = square_image(to_rgb(turned, window=reading.window), reading.side_px, reading.fit)
    return np.asarray(square), ImageFact(size=(width, height), kind=kind, sample=sample)


def to_rgb(image: Image.Image, *, window: WindowSetting = "full") -> Image.Image:
    """The image in RGB: 16 bits scaled to 8, transparency laid on white, all other modes by Pillow's conversion."""
    if is_deep(image):
        # Pillow would clip at 255 and give a white image.
        image = Image.fromarray(to_8_bits(np.asarray(image), window))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, layer)
    return image if image.mode == "RGB" else image.convert("RGB")


def is_deep(image: Image.Image) -> bool:
    """Whether its pixels are 16-bit or 32-bit whole numbers, or floats."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _values(image: Image.Image, *, cut: bool, images: int) -> tuple[int, NDArray[np.float64] | None]:
    if is_deep(image):
        return FLOAT if image.mode == "F" else WHOLE, sample_of(np.asarray(image), images=images)
    if cut:
        return CUT, sample_of(257 * np.asarray(image).astype(np.float64), images=images)
    return 0, None


def _loses_low_bytes(image: Image.Image) -> bool:
    """Whether Pillow is about to read only the upper half of 16 bits a colour."""
    tiles = getattr(image, "tile", None) or ()
    return not is_deep(image) and any(";16" in str(tile[3]) for tile in tiles)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except UNREADABLE:
        return image  # the pixels are fine, only the EXIF block is not
