"""Read one mask file of any image mode as a class for each pixel; a file that is not clear is refused."""

import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scalesearch.data.decode import UNREADABLE, known_formats
from scalesearch.data.masks import UNLABELLED, Mask
from scalesearch.errors import ScalesearchError

Colours = Mapping[tuple[int, int, int], int]
"""The class of each colour, red, green and blue."""

Fault = Literal["lossy", "beyond", "no_table", "colours", "palette", "mode", "shape"]

_LOSSY: Final = ("JPEG", "AVIF")
"""Formats that change pixel values: along a border between classes 1 and 9 they store all numbers in between."""
MAY_BE_LOSSY: Final = (".webp", ".avif", ".tif", ".tiff")
"""Suffixes of files that change pixel values or not, as they were written, and of which earlier versions read all."""
_JPEG_IN_TIFF: Final = ("jpeg", "tiff_jpeg")
_CHUNK: Final = struct.Struct("<4sI")
_FRAME: Final = (b"ANMF", 16)
"""The chunk of WebP that holds those of a frame of an animation, and how many bytes stand before these."""
_UNKNOWN_COLOURS: Final = 0.01
"""Largest accepted share of pixels whose colour belongs to no class, as at smoothed edges; with more, a mask is
refused."""
_DEEPEST: Final = 65535
VEILED: Final = 254
"""Pixels that have no class in a mask that is "veiled": it holds 0 and 255 alone, and 255 may be a class there."""


class MaskFaultError(ScalesearchError):
    """A mask cannot be used; the text says why, and `kind` which of the known faults it is."""

    def __init__(self, text: str, *, kind: Fault) -> None:
        super().__init__(text)
        self.kind: Fault = kind


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadMask:
    """A mask, and what was remarkable about its file."""

    mask: Mask
    """The class of each pixel, of shape (height, width); 255 stands for no class; in a veiled mask, `VEILED` does."""
    remarks: tuple[str, ...] = ()
    """What was remarkable about the file, as keys of `REMARKS`; and "veiled"."""


REMARKS: Final = {
    "transparent": "have transparent pixels, which are taken as unlabelled",
    "deep": "have 16 bits, of which only values up to 255 occur",
    "grey_rgb": "are RGB with three equal channels, which are read as class numbers",
    "some_colours": "have a few pixels of colours of no class, which are taken as unlabelled",
    "turned": "lie as the file of their image does, and are turned as its EXIF says",
    "unclear": "belong to images that EXIF turns to the same shape: they must be those of the turned image",
    "other_size": "have another size than their image, of the same shape",
    "empty": "have no labelled pixel",
}
"""Each remark in words, which follow the number of masks in a message."""


def read_mask(path: Path, colours: Colours | None = None) -> ReadMask:
    """Return the class of each pixel of a mask file.

    Pixels that are transparent, or of a colour of no class, have no class whatever 255 stands for. Beside values of 0
    and 255 alone they are `VEILED`, and the mask is "veiled", because only the whole set shows what 255 stands for.

    Grey images hold class numbers as they are; colours are looked up in the table. Images with a palette (mode P) hold
    class numbers if there is no table; if there is one, the colours of their palette are looked up.

    Args:
        path: The file.
        colours: The class of each colour; None where there is no table.

    Raises:
        MaskFaultError: Its format is lossy, it has values beyond 255, or colours that no table explains.
        Exception: One of `UNREADABLE`, if the file cannot be read.
    """
    with Image.open(path, formats=known_formats()) as image:
        if lossy := _lossy(image, path):
            text = f"{lossy}, which blurs class numbers"
            raise MaskFaultError(text, kind="lossy")
        image.load()
        return _read(image, colours)


def _lossy(image: Image.Image, path: Path) -> str:
    """Return the name of the format of a file whose pixels are not those that were saved; empty if they are."""
    if image.format == "TIFF" and image.info.get("compression") in _JPEG_IN_TIFF:
        return "TIFF of JPEG"
    if image.format == "WEBP" and not _is_lossless_webp(path):
        return "lossy WebP"
    return str(image.format) if image.format in _LOSSY else ""


def _is_lossless_webp(path: Path) -> bool:
    """Tell whether the pixels of a WebP file, or of its first frame, are in a chunk VP8L rather than VP8."""
    with path.open("rb") as stream:
        stream.seek(12)  # RIFF, the size, WEBP
        while len(head := stream.read(_CHUNK.size)) == _CHUNK.size:
            name, size = _CHUNK.unpack(head)
            if name in (b"VP8 ", b"VP8L"):
                return bool(name == b"VP8L")
            stream.seek(_FRAME[1] if name == _FRAME[0] else size + size % 2, os.SEEK_CUR)
    return False


def _read(image: Image.Image, colours: Colours | None) -> ReadMask:
    remarks = list[str]()
    unseen, looked_up = np.zeros((image.height, image.width), np.bool_), False
    if image.mode in ("LA", "RGBA", "PA", "La", "RGBa"):
        unseen = np.asarray(image.convert("RGBA"))[..., 3] == 0
        image = image.convert({"LA": "L", "La": "L", "PA": "P"}.get(image.mode, "RGB"))
    if image.mode in ("1", "L", "P"):
        mask = np.asarray(image, np.uint8)
        if colours is not None and image.mode == "P":
            mask, few = _looked_up(np.asarray(image.convert("RGB")), colours, entries=mask)
            looked_up = True
            remarks += ["some_colours"] * few
    elif image.mode == "I" or image.mode.startswith("I;16"):
        mask = _from_deep(np.asarray(image))
        remarks.append("deep")
    elif image.mode == "RGB":
        pixels = np.asarray(image)
        if colours is not None:
            mask, few = _looked_up(pixels, colours)
            looked_up = True
            remarks += ["some_colours"] * few
        else:
            mask = _from_grey(pixels)
            remarks.append("grey_rgb")
    else:
        text = f"mode {image.mode}, which holds no class numbers"
        raise MaskFaultError(text, kind="mode")
    if unseen.any():
        remarks.append("transparent")
    without = unseen | (mask == UNLABELLED) if looked_up else unseen
    if without.any():
        veiled = bool(np.isin(mask[~without], (0, UNLABELLED)).all())
        mask = np.where(without, np.uint8(VEILED if veiled else UNLABELLED), mask)
        remarks += ["veiled"] * veiled
    return ReadMask(mask=np.ascontiguousarray(mask), remarks=tuple(remarks))


def _from_deep(values: NDArray[np.generic]) -> Mask:
    numbers = values.astype(np.int64)
    numbers[numbers == _DEEPEST] = UNLABELLED
    if numbers.min() < 0 or numbers.max() > UNLABELLED:
        worst = int(numbers.max()) if numbers.max() > UNLABELLED else int(numbers.min())
        text = f"the value {worst}, which is no class number; instance numbers must become class numbers first"
        raise MaskFaultError(text, kind="beyond")
    return numbers.astype(np.uint8)


def _from_grey(pixels: NDArray[np.uint8]) -> Mask:
    if (pixels[..., 0] != pixels[..., 1]).any() or (pixels[..., 0] != pixels[..., 2]).any():
        seen = np.unique(pixels.reshape(-1, 3), axis=0)
        shown = ", ".join(f"({', '.join(map(str, colour))})" for colour in seen[:3].tolist())
        text = f"{len(seen)} colours ({shown}, ...) and no table says what they mean"
        raise MaskFaultError(text, kind="no_table")
    return pixels[..., 0]


def _looked_up(pixels: NDArray[np.uint8], colours: Colours, *, entries: Mask | None = None) -> tuple[Mask, bool]:
    """Return the class of each pixel, and whether a few have colours of no class.

    Args:
        pixels: The colours, (height, width, 3).
        colours: The class of each colour.
        entries: The numbers (height, width) of the colours in their palette, if there is one: entry 255 may have a
            colour of no class, as the borders in masks of PASCAL VOC.

    Raises:
        MaskFaultError: More than a few pixels have colours of no class.
    """
    keys = (pixels[..., 0].astype(np.int64) << 16) | (pixels[..., 1].astype(np.int64) << 8) | pixels[..., 2]
    known = sorted(((red << 16) | (green << 8) | blue, number) for (red, green, blue), number in colours.items())
    table, numbers = np.asarray([key for key, _ in known]), np.asarray([number for _, number in known], np.uint8)
    at = np.minimum(np.searchsorted(table, keys), len(table) - 1)
    found = table[at] == keys
    lost = ~found if entries is None else ~found & (entries != UNLABELLED)
    missing = lost.mean()
    if missing > _UNKNOWN_COLOURS:
        strange = np.unique(pixels[lost].reshape(-1, 3), axis=0)[0].tolist()
        text = f"colours of no class on {100 * missing:.0f} % of its pixels, e.g. ({', '.join(map(str, strange))})"
        if entries is None:
            raise MaskFaultError(text, kind="colours")
        text = f"mode P, whose palette gives {text}"
        raise MaskFaultError(text, kind="palette")
    return np.where(found, numbers[at], np.uint8(UNLABELLED)), bool(missing > 0)


def turned_like(mask: Mask, image: Path) -> Mask:
    """Return a mask (height, width), turned by the EXIF orientation of its image's file."""
    try:
        with Image.open(image, formats=known_formats()) as opened:
            orientation = opened.getexif().get(0x0112, 1)
    except UNREADABLE:
        return mask
    turn = _TURNS.get(orientation)
    return mask if turn is None else np.asarray(Image.fromarray(mask).transpose(turn))


_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that turns the pixels of each EXIF orientation upright."""
