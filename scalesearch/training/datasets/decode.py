"""One image file as a square of RGB pixels, whatever its mode, depth, orientation or size."""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

# Part of the cache key: raise it when the same file would give other pixels.
DECODER_VERSION = 1
MAX_FILE_BYTES = 256 * 2**20

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
    NotImplementedError,
    struct.error,
    zlib.error,
    Image.DecompressionBombWarning,
    Image.DecompressionBombError,
)


def decode_square(path: Path, side_px: int) -> NDArray[np.uint8]:
    """Pixels (side_px, side_px, 3) of the first frame, turned as its EXIF says; raises one of `UNREADABLE`."""
    size_bytes = path.stat().st_size
    if not 0 < size_bytes <= MAX_FILE_BYTES:
        msg = f"{size_bytes} bytes" if size_bytes else "empty file"
        raise ValueError(msg)
    with warnings.catch_warnings():
        # Pillow warns of odd EXIF and palettes, which it reads all the same; of bombs it must not only warn.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            # JPEG alone can be decoded at 1/2, 1/4, 1/8; twice the wanted side leaves the filter enough to average.
            image.draft(None, (2 * side_px, 2 * side_px))
            return to_square(image, side_px)


def to_square(image: Image.Image, side_px: int) -> NDArray[np.uint8]:
    """Pixels (side_px, side_px, 3) of the centre square of any Pillow image, antialiased."""
    image.load()
    upright = to_rgb(_upright(image))
    width, height = upright.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    # Cropped first: resize's own box lets the filter reach a pixel beyond it.
    square = upright.crop((left, top, left + side, top + side))
    square = square.resize((side_px, side_px), Image.Resampling.BILINEAR, reducing_gap=3.0)
    return np.asarray(square)


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB: 16 bits scaled to 8, transparency laid on white, all other modes by Pillow's conversion."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        # Pillow would clip at 255 and give a white image. Values above 16 bits have no agreed white.
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        image = Image.fromarray((values / 257).round().astype(np.uint8))
    elif image.mode == "F":
        image = Image.fromarray(_from_float(np.asarray(image)))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, layer)
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except UNREADABLE:
        return image  # the pixels are fine, only the EXIF block is not


def _from_float(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
        msg = "float pixels outside 0..1"
        raise ValueError(msg)
    return (255 * values).round().astype(np.uint8)
