"""Which pixels of a mask belong to which pixels of the image that was made of the picture beside it."""

import numpy as np
from numpy.typing import NDArray

from scalesearch.data.framing import padded_size
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import Fit


def covered_part(height: int, width: int, storage: InputSize, fit: Fit) -> tuple[float, float, float, float]:
    """Return which part of a stored image a picture of this size fills: top, left, bottom and right, as shares of it.

    Only a padded one does not fill it.
    """
    if fit != "pad":
        return 0.0, 0.0, 1.0, 1.0
    inner_width, inner_height = padded_size(width, height, storage)
    top, left = (storage.height_px - inner_height) // 2, (storage.width_px - inner_width) // 2
    return (
        top / storage.height_px,
        left / storage.width_px,
        (top + inner_height) / storage.height_px,
        (left + inner_width) / storage.width_px,
    )


def nearest(length: int, own: int, first: float, last: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return for each of `length` pixels the mask's own row (or column) at its centre, and whether there is one."""
    centres = np.round(((np.arange(length) + 0.5) / length - first) / (last - first), 12)
    inside = (centres >= 0) & (centres < 1)
    # Rounded, since 4.5 / 9 * 30 must be 15 and not a little less, wherever the division is made.
    return np.clip(np.round(centres * own, 9).astype(np.int64), 0, own - 1), inside
