"""Convert colour images to grey in whole numbers, so that every program gets the same bytes."""

import numpy as np
from numpy.typing import NDArray

from scalesearch.data.resize import rows_of_chunk


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
