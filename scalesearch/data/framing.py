"""Give an image the shape that is stored, a square or a rectangle, and say how much of it is lost by that.

For masks: which of their pixels belong to which pixels of the stored image.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from scalesearch.data.facts import ImageFacts
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import Fit

# Value of the bars around a padded image: mid-grey, near the mean of photographs, so that the bars are near 0 after
# normalisation. tasks/infer_parts/images.py has the same value.
PAD_GREY: Final = 114


def padded_size(width: int, height: int, to: InputSize) -> tuple[int, int]:
    """Return width and height of the whole image, shrunk or grown until it just fits into `to`."""
    if width * to.height_px >= height * to.width_px:
        return to.width_px, max(1, (2 * height * to.width_px + width) // (2 * width))
    return max(1, (2 * width * to.height_px + height) // (2 * height)), to.height_px


def crop_box(width: int, height: int, to: InputSize) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom (the last two exclusive) of the largest centred part with the shape of `to`.

    Its sides are whole pixels, so its shape is that of `to` up to half a pixel.
    """
    if width * to.height_px >= height * to.width_px:
        part_width, part_height = max(1, (2 * height * to.width_px + to.height_px) // (2 * to.height_px)), height
    else:
        part_width, part_height = width, max(1, (2 * width * to.height_px + to.width_px) // (2 * to.width_px))
    left, top = (width - part_width) // 2, (height - part_height) // 2
    return left, top, left + part_width, top + part_height


def framed(image: Image.Image, to: InputSize, fit: Fit) -> Image.Image:
    """Give the image this size, antialiased."""
    width, height = image.size
    if fit == "pad":
        small = image.resize(padded_size(width, height, to), Image.Resampling.BILINEAR, reducing_gap=3.0)
        whole = Image.new("RGB", (to.width_px, to.height_px), (PAD_GREY,) * 3)
        whole.paste(small, ((to.width_px - small.width) // 2, (to.height_px - small.height) // 2))
        return whole
    if fit == "crop":
        # Cropped before resizing: with the `box` argument of resize, the filter would reach a pixel beyond the box.
        image = image.crop(crop_box(width, height, to))
    return image.resize((to.width_px, to.height_px), Image.Resampling.BILINEAR, reducing_gap=3.0)


def long_images_note(name: str, facts: ImageFacts, fit: Fit, to: InputSize) -> tuple[str, ...]:
    """Say how many images lose how much to the centre crop.

    Args:
        name: Name of the data set.
        facts: The sizes of its images.
        fit: How they were given the size `to`.
        to: The size of the stored images.

    Returns:
        One note; none if the crop keeps three quarters of each image, or if the whole images are kept.
    """
    # An image has the aspect ratio of `to` if both products are equal. Otherwise the crop keeps smaller / larger of it.
    across, along = facts.sizes[:, 0].astype(np.int64) * to.height_px, facts.sizes[:, 1].astype(np.int64) * to.width_px
    longer, shorter = np.maximum(across, along), np.minimum(across, along)
    # Half a pixel is added because the shorter side of an image of that aspect ratio was rounded.
    half_px = np.where(across > along, to.width_px, to.height_px) / 2
    long = 3 * longer > 4 * (shorter + half_px)
    if fit != "crop" or not long.any():
        return ()
    ratios = shorter[long] / longer[long]
    # The median one is an image of the set, so that the size in the note really exists.
    typical = np.flatnonzero(long)[np.argsort(ratios, kind="stable")[len(ratios) // 2]]
    width, height = facts.sizes[typical]
    shape = "are longer than 4:3" if to.is_square else f"are much wider or higher than height x width {to.label}"
    return (
        f"data {name}: {int(long.sum())} of {len(long)} images {shape} (typical {width} x {height}): the "
        f"centre crop keeps {100 * shorter[typical] / longer[typical]:.0f} % of them; "
        f"--set data.fit=pad or --set data.fit=stretch keeps all",
    )


def covered_part(height: int, width: int, storage: InputSize, fit: Fit) -> tuple[float, float, float, float]:
    """Return which part of a stored image is filled by a picture that had this size, without the bars of padding.

    Returns:
        Top, left, bottom and right, as fractions of the stored sides; (0, 0, 1, 1) unless `fit` is `pad`.
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
    """Return which row (or column) of a mask lies at the centre of each row (or column) of the stored image.

    Args:
        length: Number of rows of the stored image.
        own: Number of rows of the mask.
        first: Where the mask begins, as a fraction of the stored side (`covered_part`).
        last: Where it ends.

    Returns:
        Indices into the mask's rows, and whether the mask reaches that row at all, both of shape (length,).
    """
    centres = np.round(((np.arange(length) + 0.5) / length - first) / (last - first), 12)
    inside = (centres >= 0) & (centres < 1)
    # Rounded, since 4.5 / 9 * 30 must be 15 and not a little less, wherever the division is made.
    return np.clip(np.round(centres * own, 9).astype(np.int64), 0, own - 1), inside
