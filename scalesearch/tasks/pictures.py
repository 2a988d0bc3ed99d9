"""Helpers to make pictures from arrays: enlarge them, put them side by side, write a line of text below."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Pixels = NDArray[np.uint8]

LEAST_PX: Final = 96
"""The longer side that small images are enlarged to, by a whole factor."""
CAPTION_PX: Final = 14
_GAP_PX: Final = 6
_PAPER: Final = 245
_LETTER_PX: Final = 6


def as_rgb(image: Pixels) -> Pixels:
    """Return an image (height, width, 1 or 3) in RGB (height, width, 3)."""
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def enlargement(image: Pixels) -> int:
    """Return the whole factor by which a small image (height, width, ...) is enlarged before it is drawn on."""
    return max(1, math.ceil(LEAST_PX / int(max(image.shape[:2]))))


def enlarged(image: Pixels, factor: int) -> Pixels:
    """Return the image (height, width, ...) with each pixel repeated `factor` times along both sides."""
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def captioned(image: Pixels, text: str) -> Pixels:
    """Return the image (height, width, 1 or 3), enlarged if it is small, with a line of text below it, in RGB."""
    shown = enlarged(as_rgb(image), enlargement(image))
    height, width = shown.shape[:2]
    whole = np.full((height + CAPTION_PX, width, 3), 255, np.uint8)
    whole[:height] = shown
    picture = Image.fromarray(whole)
    fits = max(1, width // _LETTER_PX)
    line = text if len(text) <= fits else f"{text[: max(1, fits - 2)]}.."
    printable = "".join(sign if " " <= sign <= "~" else "?" for sign in line)  # what the built-in font has
    ImageDraw.Draw(picture).text((2, height + 1), printable, fill=(0, 0, 0))
    return np.asarray(picture)


def side_by_side(pictures: Sequence[Pixels]) -> Pixels:
    """Return pictures (height, width, 3) in one row, with gaps between them."""
    return sheet(pictures, columns=len(pictures))


def sheet(pictures: Sequence[Pixels], *, columns: int) -> Pixels:
    """Return pictures (height, width, 3) on one sheet, row by row, each row as high as its highest picture."""
    width = max(picture.shape[1] for picture in pictures)
    rows = [pictures[at : at + columns] for at in range(0, len(pictures), columns)]
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    whole = np.full(
        (
            sum(heights) + _GAP_PX * (len(rows) - 1),
            min(columns, len(pictures)) * (width + _GAP_PX) - _GAP_PX,
            3,
        ),
        _PAPER,
        np.uint8,
    )
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for place, picture in enumerate(row):
            left = place * (width + _GAP_PX)
            whole[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
        top += height + _GAP_PX
    return whole
