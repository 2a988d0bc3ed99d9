"""Make an image square, and say how much of it is lost by that."""

from typing import Final

import numpy as np
from PIL import Image

from scalesearch.data.facts import ImageFacts
from scalesearch.values.settings import Fit

# Value of the bars beside a padded image: mid-grey, near the mean of photographs, so that the bars have little weight
# after normalisation. tasks/classification/infer.py has the same value.
PAD_GREY: Final = 114


def padded_size(width: int, height: int, side_px: int) -> tuple[int, int]:
    """Return width and height of the whole image inside a square of `side_px`: its longer side fills the square."""
    longer = max(width, height)
    return tuple(max(1, (2 * side * side_px + longer) // (2 * longer)) for side in (width, height))  # type: ignore[return-value]


def square_image(image: Image.Image, side_px: int, fit: Fit) -> Image.Image:
    """Make the image a square of `side_px`, antialiased."""
    width, height = image.size
    if fit == "pad":
        small = image.resize(padded_size(width, height, side_px), Image.Resampling.BILINEAR, reducing_gap=3.0)
        square = Image.new("RGB", (side_px, side_px), (PAD_GREY,) * 3)
        square.paste(small, ((side_px - small.width) // 2, (side_px - small.height) // 2))
        return square
    if fit == "crop":
        # Cropped before resizing: with the `box` argument of resize, the filter would reach a pixel beyond the box.
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    return image.resize((side_px, side_px), Image.Resampling.BILINEAR, reducing_gap=3.0)


def long_images_note(name: str, facts: ImageFacts, fit: Fit) -> tuple[str, ...]:
    """Say how many images lose how much to the centre crop.

    Returns:
        One note; none if no image is longer than 4:3, or if the whole images are kept.
    """
    longer, shorter = facts.sizes.max(axis=1), facts.sizes.min(axis=1)
    # Half a pixel is added because the shorter side of a 4:3 image was rounded.
    long = 3 * longer > 4 * (shorter + 0.5)
    if fit != "crop" or not long.any():
        return ()
    ratios = shorter[long] / longer[long]
    # The median one is an image of the set, so that the size in the note really exists.
    typical = np.flatnonzero(long)[np.argsort(ratios, kind="stable")[len(ratios) // 2]]
    width, height = facts.sizes[typical]
    return (
        f"data {name}: {int(long.sum())} of {len(long)} images are longer than 4:3 (typical {width} x {height}): the "
        f"centre crop keeps {100 * shorter[typical] / longer[typical]:.0f} % of them; "
        f"--set data.fit=pad or --set data.fit=stretch keeps all",
    )
