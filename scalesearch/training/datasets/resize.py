"""Resizing of many equal images at once: the one place where a data set changes its resolution."""

import numpy as np
from numpy.typing import NDArray

from scalesearch.training.datasets.framing import PAD_GREY, padded_size
from scalesearch.values.settings import Fit

CHUNK_BYTES = 64 * 2**20


def resize_images(images: NDArray[np.uint8], side_px: int, *, fit: Fit = "crop") -> NDArray[np.uint8]:
    """Square uint8 images (number, side_px, side_px, C) from (number, height, width, C), made square by `fit`.

    Antialiased bilinear: where the side shrinks, the filter widens with it, so each new pixel averages all that it
    covers. Done in integers by torch, hence the same on every machine.
    """
    number, height, width, channels = images.shape
    if fit == "stretch" or height == width:
        return _resized(images, side_px, side_px)
    if fit == "pad":
        small_width, small_height = padded_size(width, height, side_px)
        padded = np.full((number, side_px, side_px, channels), PAD_GREY, np.uint8)
        top, left = (side_px - small_height) // 2, (side_px - small_width) // 2
        padded[:, top : top + small_height, left : left + small_width] = _resized(images, small_height, small_width)
        return padded
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return _resized(images[:, top : top + side, left : left + side], side_px, side_px)


def _resized(images: NDArray[np.uint8], to_height: int, to_width: int) -> NDArray[np.uint8]:
    import torch
    from torch.nn.functional import interpolate

    number, height, width, channels = images.shape
    if (height, width) == (to_height, to_width):
        return np.ascontiguousarray(images)
    resized = np.empty((number, to_height, to_width, channels), np.uint8)
    step = max(1, CHUNK_BYTES // (height * width * channels))
    for start in range(0, number, step):
        # (number, height, width, C) seen as (number, C, height, width) is torch's channels_last: no copy.
        # "W": torch warns of arrays that cannot be written to, though nothing is written here.
        chunk = torch.from_numpy(np.require(images[start : start + step], requirements=("C", "W"))).permute(0, 3, 1, 2)
        small = interpolate(chunk, size=(to_height, to_width), mode="bilinear", antialias=True, align_corners=False)
        resized[start : start + step] = small.permute(0, 2, 3, 1).numpy()
    return resized
