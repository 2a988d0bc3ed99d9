"""Makes the network's input of an image file, pixel for pixel as `data` makes the images of the training.

It repeats what `data` does, because an exported infer.py imports nothing of scalesearch. Tests check that both are
equal.
"""

from __future__ import annotations  # Python 3.8 and 3.9 could not evaluate some of the types below

import struct
import warnings
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from scalesearch.tasks.infer_parts.preprocessing import Preprocessing

PAD_GREY = 114
"""Grey value of the bars beside a padded image."""
MAX_FILE_BYTES = 256 * 2**20
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
"""What Pillow raises for files that are no images, are damaged, or are decompression bombs."""
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF")
"""All that is opened, whatever a file's name: Pillow would start Ghostscript for an EPS that is called photo.jpg."""
BILINEAR = getattr(Image, "Resampling", Image).BILINEAR  # Pillow 9.1 moved it


def read_input(path: Path, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return the network's input (1, channels, height, width) for an image file; raises one of `UNREADABLE`."""
    stored = decode(path, preprocessing.storage_px, window=preprocessing.window, fit=preprocessing.fit)
    if preprocessing.channels == 1:
        stored = to_grey(stored)
    pixels = shrink(stored, preprocessing.resolution_px)
    std = np.asarray(preprocessing.std)
    scale = (1 / (255 * std)).astype(np.float32)
    offset = (-np.asarray(preprocessing.mean) / std).astype(np.float32)
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)[np.newaxis]
    planes *= scale[:, None, None]
    planes += offset[:, None, None]
    return planes


def decode(
    path: Path, sides_px: tuple[int, int], *, window: tuple[float, ...] | None = None, fit: str = "crop"
) -> NDArray[np.uint8]:
    """Read an image file as RGB pixels (height, width, 3) of the given height and width, upright as its EXIF says.

    Transparency is laid on white.
    """
    size_bytes = path.stat().st_size
    if not 0 < size_bytes <= MAX_FILE_BYTES:
        message = f"{size_bytes} bytes" if size_bytes else "empty file"
        raise ValueError(message)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd EXIF and palettes are read all the same
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=known_formats()) as image:
            image.draft(None, (2 * max(sides_px), 2 * max(sides_px)))
            image.load()
            upright = to_rgb(turned_upright(image), window)
    return np.asarray(framed(upright, sides_px, fit))


def framed(image: Image.Image, sides_px: tuple[int, int], fit: str) -> Image.Image:
    """Return the RGB image at this height and width.

    Its largest centred part of that shape is cut out, or it is stretched, or all of it is put between grey bars.
    """
    (width, height), (to_height, to_width) = image.size, sides_px
    wide = width * to_height >= height * to_width
    if fit == "pad":
        if wide:
            to = to_width, max(1, (2 * height * to_width + width) // (2 * width))
        else:
            to = max(1, (2 * width * to_height + height) // (2 * height)), to_height
        small = image.resize(to, BILINEAR, reducing_gap=3.0)
        whole = Image.new("RGB", (to_width, to_height), (PAD_GREY,) * 3)
        whole.paste(small, ((to_width - to[0]) // 2, (to_height - to[1]) // 2))
        return whole
    if fit == "crop":
        if wide:
            part = max(1, (2 * height * to_width + to_height) // (2 * to_height)), height
        else:
            part = width, max(1, (2 * width * to_height + to_width) // (2 * to_width))
        left, top = (width - part[0]) // 2, (height - part[1]) // 2
        image = image.crop((left, top, left + part[0], top + part[1]))
    return image.resize((to_width, to_height), BILINEAR, reducing_gap=3.0)


def known_formats() -> Any:
    """Return those of `FORMATS` that this Pillow can read."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def printable(text: str) -> str:
    """Return the text with control and invisible characters written as codes, so that it cannot control a terminal."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def turned_upright(image: Image.Image) -> Image.Image:
    """Return the image turned as its EXIF orientation says."""
    if getattr(image, "_tile_orientation", None):
        return image  # a TIFF: old Pillow turned it while loading it, and might turn it once more
    try:
        return ImageOps.exif_transpose(image)
    except UNREADABLE:
        return image  # only the EXIF block is damaged, the pixels are fine
    except AttributeError:
        return image  # Pillow 8.4 raises this for any TIFF that it has loaded, and has already turned if needed


def to_rgb(image: Image.Image, window: tuple[float, ...] | None = None) -> Image.Image:
    """Return the image in RGB.

    More bits are scaled to 8, transparency is laid on white, and other modes are converted by Pillow.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = Image.fromarray(to_8_bits(np.asarray(image), window))
    if has_transparency(image):
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, (255, 255, 255, 255)), layer)
    return image if image.mode == "RGB" else image.convert("RGB")


def to_8_bits(values: NDArray[Any], window: tuple[float, ...] | None) -> NDArray[np.uint8]:
    """Return the values as bytes in the same shape: the window's ends, and values beyond them, become 0 and 255."""
    fractions = values.dtype.kind == "f"
    if fractions and not np.isfinite(values).all():
        message = "pixels that are NaN or infinite"
        raise ValueError(message)
    if window is not None:
        low, high = window
        return np.asarray((255 * (values.astype(np.float64) - low) / (high - low)).round().clip(0, 255), np.uint8)
    if not fractions:
        return np.asarray((np.clip(values.astype(np.int64), 0, 65535) / 257).round(), np.uint8)
    if values.min() < 0 or values.max() > 1:
        message = "float pixels outside 0..1"
        raise ValueError(message)
    return np.asarray((255 * values).round(), np.uint8)


def to_grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return luma (height, width, 1) of RGB pixels (height, width, 3): ITU-R BT.601 in integers, as Pillow's mode L."""
    red, green, blue = np.moveaxis(pixels.astype(np.uint32), -1, 0)
    grey = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return np.asarray(grey[..., np.newaxis], np.uint8)


def has_transparency(image: Image.Image) -> bool:
    """Tell whether the image has transparency, as Pillow's own `has_transparency_data`, which exists from 10.1 on."""
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return True
    return image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A")


def shrink(pixels: NDArray[np.uint8], sides_px: tuple[int, int]) -> NDArray[np.uint8]:
    """Shrink pixels (height, width, channels) to a smaller height and width: antialiased bilinear, in integers.

    It is shrunk along the rows first, then along the columns. The result is bit for bit that of torch's
    `interpolate(uint8, mode="bilinear", antialias=True)`, which made the training images
    (aten/src/ATen/native/cpu/UpSampleKernel.cpp).
    """
    values = pixels.astype(np.int64)
    for sum_along, axis in (("oi,yic->yoc", 1), ("oi,ixc->oxc", 0)):
        if pixels.shape[axis] == sides_px[axis]:
            continue
        weights, shift = filter_weights(pixels.shape[axis], sides_px[axis])
        values = (np.einsum(sum_along, weights, values) + (1 << (shift - 1)) >> shift).clip(0, 255)
    return np.asarray(values, np.uint8)


def filter_weights(length: int, to: int) -> tuple[NDArray[np.int64], int]:
    """Return the weights (to, length) of a triangle filter that widens with the scale, as integers, and their shift.

    The shift is the number of their binary places.
    """
    scale = length / to
    support = max(scale, 1.0)
    weights = np.zeros((to, length))
    for place in range(to):
        centre = scale * (place + 0.5)
        first, last = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), length)
        distance = np.abs((np.arange(first, last) - centre + 0.5) / support)
        triangle = np.where(distance < 1, 1 - distance, 0)
        weights[place, first:last] = triangle / triangle.sum()
    largest, shift = weights.max(), 0
    while shift < 22 and int(0.5 + largest * (1 << (shift + 1))) < 1 << 15:
        shift += 1
    return (0.5 + weights * (1 << shift)).astype(np.int64), shift
