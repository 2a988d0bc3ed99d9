"""Resizing of many equal images at once: the one place where a data set changes its resolution."""

import numpy as np
from numpy.typing import NDArray

CHUNK_BYTES = 64 * 2**20


def resize_images(images: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """Square uint8 images (number, side_px, side_px, 3) from (number, height, width, 3): centre square, resized.

    Antialiased bilinear: where the side shrinks, the filter widens with it, so each new pixel averages all that it
    covers. Done in integers by torch, hence the same on every machine.
    """
    import torch
    from torch.nn.functional import interpolate

    number, height, width, channels = images.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    squares = images[:, top : top + side, left : left + side]
    if side == side_px:
        return np.ascontiguousarray(squares)
    resized = np.empty((number, side_px, side_px, channels), np.uint8)
    step = max(1, CHUNK_BYTES // (side * side * channels))
    for start in range(0, number, step):
        # (number, height, width, 3) seen as (number, 3, height, width) is torch's channels_last: no copy.
        # "W": torch warns of arrays that cannot be written to, though nothing is written here.
        chunk = torch.from_numpy(np.require(squares[start : start + step], requirements=("C", "W"))).permute(0, 3, 1, 2)
        small = interpolate(chunk, size=(side_px, side_px), mode="bilinear", antialias=True, align_corners=False)
        resized[start : start + step] = small.permute(0, 2, 3, 1).numpy()
    return resized
