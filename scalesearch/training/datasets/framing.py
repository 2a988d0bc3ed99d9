"""How an image that is no square becomes one, and what that costs in words."""

from typing import Final

import numpy as np
from PIL import Image

from scalesearch.training.datasets.facts import ImageFacts
from scalesearch.values.settings import Fit

# What is left over beside a padded image: mid-grey, near the mean of photographs, so that after normalisation the bars
# weigh little. deployment/infer.py has the same.
PAD_GREY: Final = 114


def padded_size(width: int, height: int, side_px: int) -> tuple[int, int]:
    """Width and height of the whole image inside a square of `side_px`: the longer side fills it."""
    longer = max(width, height)
    return tuple(max(1, (2 * side * side_px + longer) // (2 * longer)) for side in (width, height))  # type: ignore[return-value]


def square_image(image: Image.Image, side_px: int, fit: Fit) -> Image.Image:
    """The image as a square of `side_px`, antialiased."""
    width, height = image.size
    if fit == "pad":
        small = image.resize(padded_size(width, height, side_px), Image.Resampling.BILINEAR, reducing_gap=3.0)
        square = Image.new("RGB", (side_px, side_px), (PAD_GREY,) * 3)
        square.paste(small, ((side_px - small.width) // 2, (side_px - small.height) // 2))
        return square
    if fit == "crop":
        # Cropped first: resize's own box lets the filter reach a pixel beyond it.
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    return image.resize((side_px, side_px), Image.Resampling.BILINEAR, reducing_gap=3.0)


def long_images_note(name: str, facts: ImageFacts, fit: Fit) -> tuple[str, ...]:
    """How many images lose how much to the centre crop; nothing where none is longer than 4:3, or all is kept."""
    longer, shorter = facts.sizes.max(axis=1), facts.sizes.min(axis=1)
    # Half a pixel: the shorter side of a 4:3 image was rounded.
    long = 3 * longer > 4 * (shorter + 0.5)
    if fit != "crop" or not long.any():
        return ()
    ratios = shorter[long] / longer[long]
    # The one in the middle, so that the size named is one that exists.
    typical = np.flatnonzero(long)[np.argsort(ratios, kind="stable")[len(ratios) // 2]]
    width, height = facts.sizes[typical]
    return (
        f"data {name}: {int(long.sum())} of {len(long)} images are longer than 4:3 (typical {width} x {height}): the "
        f"centre crop keeps {100 * shorter[typical] / longer[typical]:.0f} % of them; "
        f"--set data.fit=pad or --set data.fit=stretch keeps all",
    )
