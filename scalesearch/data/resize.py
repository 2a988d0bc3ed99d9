"""Resize many images of equal size at once, or make them grey.

This is the only place where a data set changes its resolution.
"""

import math

import numpy as np
from numpy.typing import NDArray

from scalesearch.data.framing import PAD_GREY, crop_box, padded_size
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import Fit

CHUNK_BYTES = 64 * 2**20


def resize_images(images: NDArray[np.uint8], size: int | InputSize, *, fit: Fit = "crop") -> NDArray[np.uint8]:
    """Resize images to `size`.

    The resizing is antialiased bilinear: where a side shrinks, the filter widens with it, so each new pixel averages
    all that it covers. Torch does it in integers, so the result is the same on every machine.

    Args:
        images: Images of shape (number, height, width, C) in uint8.
        size: Height and width of the result in pixels; a number stands for a square.
        fit: How images of another aspect ratio are fitted to the size.

    Returns:
        Images of shape (number, size.height_px, size.width_px, C) in uint8.
    """
    number, height, width, channels = images.shape
    to = InputSize.of(size)
    if fit == "stretch" or height * to.width_px == width * to.height_px:
        return _resized(images, *to.sides)
    if fit == "pad":
        small_width, small_height = padded_size(width, height, to)
        padded = np.full((number, *to.sides, channels), PAD_GREY, np.uint8)
        top, left = (to.height_px - small_height) // 2, (to.width_px - small_width) // 2
        padded[:, top : top + small_height, left : left + small_width] = _resized(images, small_height, small_width)
        return padded
    left, top, right, bottom = crop_box(width, height, to)
    return _resized(images[:, top:bottom, left:right], *to.sides)


def rows_of_chunk(shape: tuple[int, ...], *, bytes_a_value: int = 1) -> int:
    """Return how many images are worked on at once, at least one.

    Args:
        shape: Shape of all images, (number, height, width, C).
        bytes_a_value: How many bytes the work takes for each of their values.
    """
    return max(1, CHUNK_BYTES // max(1, bytes_a_value * math.prod(shape[1:])))


def _resized(images: NDArray[np.uint8], to_height: int, to_width: int) -> NDArray[np.uint8]:
    import torch
    from torch.nn.functional import interpolate

    number, height, width, channels = images.shape
    if (height, width) == (to_height, to_width):
        return np.ascontiguousarray(images)
    resized = np.empty((number, to_height, to_width, channels), np.uint8)
    step = rows_of_chunk(images.shape)
    for start in range(0, number, step):
        # (number, height, width, C) seen as (number, C, height, width) is torch's channels_last: no copy.
        # "W" (writable): torch would warn of read-only arrays, although nothing is written here.
        chunk = torch.from_numpy(np.require(images[start : start + step], requirements=("C", "W"))).permute(0, 3, 1, 2)
        small = interpolate(chunk, size=(to_height, to_width), mode="bilinear", antialias=True, align_corners=False)
        resized[start : start + step] = small.permute(0, 2, 3, 1).numpy()
    return resized


def to_grey(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Convert RGB images (number, height, width, 3) to luma (number, height, width, 1), as ITU-R BT.601 defines it.

    The formula is that of Pillow's mode L. It is computed in whole numbers, so grey pictures keep their values, and
    `infer.py` gives exactly the same result.
    """
    grey = np.empty((*images.shape[:3], 1), np.uint8)
    step = rows_of_chunk(images.shape, bytes_a_value=4)
    for start in range(0, len(images), step):
        red, green, blue = np.moveaxis(images[start : start + step].astype(np.uint32), -1, 0)
        grey[start : start + step, ..., 0] = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return grey
