"""The mean and standard deviation of images, and the arrays and tensors that are normalised by them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scalesearch.data.mapped import MappedImages
from scalesearch.data.resize import rows_of_chunk

if TYPE_CHECKING:
    from torch import Tensor

Images = NDArray[np.uint8]
PerChannel = tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalisation:
    """The constants that a network's images are normalised with, of pixels in 0..1."""

    mean: PerChannel
    std: PerChannel


def channel_statistics(images: Images | MappedImages) -> tuple[PerChannel, PerChannel]:
    """Compute the mean and the standard deviation of every channel from exact histograms.

    Args:
        images: Images of shape (number, height, width, C) in uint8.

    Returns:
        Mean and standard deviation of each channel on the scale 0..1. The standard deviation is at least 1/255.
    """
    channels = images.shape[-1]
    counts = np.zeros((channels, 256), np.int64)
    step = rows_of_chunk(images.shape, bytes_a_value=8)  # bincount makes long numbers of them
    for start in range(0, len(images), step):
        chunk = images[start : start + step]
        for channel in range(channels):
            counts[channel] += np.bincount(chunk[..., channel].ravel(), minlength=256)
    weights = counts / max(int(counts[0].sum()), 1)
    levels = np.arange(256) / 255
    mean = weights @ levels
    variance = (weights * (levels - mean[:, None]) ** 2).sum(axis=1)
    # The minimum is one grey level, so that images of a single colour do not lead to a division by zero.
    std = np.maximum(np.sqrt(variance), 1 / 255)
    return tuple(map(float, mean)), tuple(map(float, std))


def _affine(mean: PerChannel, std: PerChannel) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return scale and offset per channel, so that (pixel / 255 - mean) / std = pixel * scale + offset."""
    deviation = np.asarray(std)
    return (1 / (255 * deviation)).astype(np.float32), (-np.asarray(mean) / deviation).astype(np.float32)


def to_input(images: Images, *, mean: PerChannel, std: PerChannel) -> NDArray[np.float32]:
    """Normalise images into the array that engines and networks are fed.

    Args:
        images: Images of shape (number, height, width, C) in uint8.
        mean: Mean of each channel on the scale 0..1.
        std: Standard deviation of each channel on the scale 0..1.

    Returns:
        Float32 of shape (number, C, height, width).
    """
    scale, offset = _affine(mean, std)
    planes = np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
    planes *= scale[:, None, None]
    planes += offset[:, None, None]
    return planes


def normalise(images: "Tensor", *, mean: PerChannel, std: PerChannel) -> "Tensor":
    """Normalise a torch tensor on its device, to exactly the same values as `to_input`.

    Args:
        images: Images of shape (number, C, height, width) in uint8.
        mean: Mean of each channel on the scale 0..1.
        std: Standard deviation of each channel on the scale 0..1.

    Returns:
        Float32 of shape (number, C, height, width).
    """
    scale, offset = _affine(mean, std)
    planes = images.float()
    return planes.mul_(planes.new_tensor(scale).view(-1, 1, 1)).add_(planes.new_tensor(offset).view(-1, 1, 1))
