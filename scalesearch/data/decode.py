"""Read one image file as RGB pixels of a wanted size, whatever its mode, depth, orientation or size."""

import functools
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from scalesearch.data.depth import to_8_bits
from scalesearch.data.facts import CUT, FLOAT, WHOLE, ImageFact, sample_of
from scalesearch.data.framing import framed
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import Fit, WindowSetting

# Part of the cache key: raise it when a change to the code makes the same file give other pixels or facts.
DECODER_VERSION = 3
MAX_FILE_BYTES = 256 * 2**20
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF")
"""Pillow's names for the formats that belong to SUFFIXES. A file of another format with such a suffix is not opened:
Pillow would start Ghostscript for an EPS, and its readers of rare formats are hardly tested."""
_ORIENTATION: Final = 0x0112
_TURNED: Final = range(2, 9)
"""The EXIF orientations that turn or mirror the pixels; 1 is upright."""
_ON_ITS_SIDE: Final = range(5, 9)
"""Those of them that exchange width and height."""

# What Pillow's readers raise on damaged files (found by damaging files of every format), and the two errors of its
# guard against decompression bombs.
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


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Reading:
    """How image files become pixels; equal `Reading` objects give equal pixels."""

    size: InputSize
    """Height and width of the pixels."""
    window: WindowSetting = "full"
    fit: Fit = "crop"
    images: int = 1
    """How many images there are in all; the more, the fewer values are sampled from each of them."""

    def __repr__(self) -> str:
        """Return the text that names of cached files are made of; for squares it must stay as in earlier versions."""
        size = f"side_px={self.size.height_px}" if self.size.is_square else f"sides={self.size.sides}"
        return f"Reading({size}, window={self.window!r}, fit={self.fit!r}, images={self.images!r})"


def decode_square(path: Path, side_px: int, *, window: WindowSetting = "full", fit: Fit = "crop") -> NDArray[np.uint8]:
    """Decode the first frame of an image file into pixels (side_px, side_px, 3), turned as its EXIF orientation says.

    Raises:
        Exception: One of `UNREADABLE`, if the file cannot be read.
    """
    return decode(path, Reading(size=InputSize.square(side_px), window=window, fit=fit))[0]


def decode(path: Path, reading: Reading) -> tuple[NDArray[np.uint8], ImageFact]:
    """Decode an image file into pixels (height, width, 3), and say what the file held.

    Raises:
        Exception: One of `UNREADABLE`, if the file cannot be read.
    """
    size_bytes = path.stat().st_size
    if not 0 < size_bytes <= MAX_FILE_BYTES:
        msg = f"{size_bytes} bytes" if size_bytes else "empty file"
        raise ValueError(msg)
    with warnings.catch_warnings():
        # Pillow warns of odd EXIF data and palettes, which it can still read. A decompression bomb must be an error.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=known_formats()) as image:
            # Only JPEG can be decoded at 1/2, 1/4 or 1/8. Twice the wanted side leaves the filter enough to average.
            # It is the longer side for both, since the image may still lie on its side here.
            size, longer_px = image.size, max(reading.size.sides)
            image.draft(None, (2 * longer_px, 2 * longer_px))
            return read_image(image, reading, size=size)


@functools.cache
def known_formats() -> tuple[str, ...]:
    """Return those of `FORMATS` that the installed Pillow can read.

    AVIF needs Pillow 11.3; an older Pillow raises an error for the unknown name.
    """
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def to_square(
    image: Image.Image, side_px: int, *, window: WindowSetting = "full", fit: Fit = "crop"
) -> NDArray[np.uint8]:
    """Turn any Pillow image into a square of pixels (side_px, side_px, 3), antialiased."""
    return read_image(image, Reading(size=InputSize.square(side_px), window=window, fit=fit))[0]


def read_image(
    image: Image.Image, reading: Reading, *, size: tuple[int, int] | None = None
) -> tuple[NDArray[np.uint8], ImageFact]:
    """Turn an image into RGB pixels of the wanted size, antialiased, and say what the image held.

    Args:
        image: The image as Pillow opened it.
        reading: How it is to be read.
        size: Width and height of the whole image in pixels, if Pillow was told to decode it smaller.

    Returns:
        Pixels of shape (height, width, 3), and the facts of the image.
    """
    cut = _loses_low_bytes(image)
    image.load()
    turned = _upright(image)
    kind, sample = _values(image, cut=cut, images=reading.images)
    pixels = framed(to_rgb(turned, window=reading.window), reading.size, reading.fit)
    return np.asarray(pixels), ImageFact(size=_whole_size(image, turned, size), kind=kind, sample=sample)


def _whole_size(image: Image.Image, turned: Image.Image, size: tuple[int, int] | None) -> tuple[int, int]:
    """Return width and height of a whole image, upright.

    Args:
        image: The image as it was decoded, perhaps smaller than it is.
        turned: The same, upright.
        size: Width and height of the whole image as it lies in its file; None if it was decoded as a whole.
    """
    if size is None or size == image.size:
        return turned.size
    # The sides of the smaller image may be equal, or the longer one the shorter: only the orientation tells.
    on_its_side = turned is not image and image.getexif().get(_ORIENTATION) in _ON_ITS_SIDE
    return (size[1], size[0]) if on_its_side else size


def to_rgb(image: Image.Image, *, window: WindowSetting = "full") -> Image.Image:
    """Convert the image to RGB.

    Images of 16 bits and more are scaled to 8 bits by the window, transparency is laid on white, and all other modes
    use Pillow's conversion.
    """
    if is_deep(image):
        # Pillow's own conversion would clip at 255 and give a white image.
        image = Image.fromarray(to_8_bits(np.asarray(image), window))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, layer)
    return image if image.mode == "RGB" else image.convert("RGB")


def is_deep(image: Image.Image) -> bool:
    """Tell whether the pixels are 16-bit or 32-bit whole numbers, or floats."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def is_turned(path: Path) -> bool:
    """Tell whether `decode` turns or mirrors an image file because of its EXIF orientation."""
    return orientation_of(path) != 1


def orientation_of(path: Path) -> int:
    """Return the EXIF orientation of an image file: 1 as it lies; 2 to 8 turned or mirrored, from 5 on on its side.

    Only the beginning of the file is read: what a PNG file says after its pixels is not seen.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path, formats=known_formats()) as image:
                # Not `image.getexif()`: for a PNG file without EXIF that decodes all pixels.
                found = Image.Image.getexif(image).get(_ORIENTATION)
        except UNREADABLE:
            return 1
    return next((turn for turn in _TURNED if turn == found), 1)


def is_on_its_side(path: Path, size: tuple[int, int]) -> bool:
    """Tell whether EXIF exchanges width and height of an image file, which `decode` gave this width and height."""
    if orientation_of(path) in _ON_ITS_SIDE:
        return True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(path, formats=known_formats()) as image:  # a PNG file may say so after its pixels
                return image.size != size
        except UNREADABLE:
            return False


def _values(image: Image.Image, *, cut: bool, images: int) -> tuple[int, NDArray[np.float64] | None]:
    if is_deep(image):
        return FLOAT if image.mode == "F" else WHOLE, sample_of(np.asarray(image), images=images)
    if cut:
        return CUT, sample_of(257 * np.asarray(image).astype(np.float64), images=images)
    return 0, None


def _loses_low_bytes(image: Image.Image) -> bool:
    """Tell whether Pillow is about to read only the upper 8 of the 16 bits of each colour."""
    tiles = getattr(image, "tile", None) or ()
    return not is_deep(image) and any(";16" in str(tile[3]) for tile in tiles)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except UNREADABLE:
        return image  # the pixels are fine; only the EXIF block is damaged
