"""Pictures of images and, side by side, their masks in colours, with the names of the classes in them."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scalesearch.data.masks import UNLABELLED
from scalesearch.tasks.pictures import Pixels, as_rgb, captioned, enlarged, enlargement, side_by_side
from scalesearch.tasks.segmentation.infer import class_colours, class_map

_MOST_NAMES: Final = 3


def beside_masks(
    images: NDArray[np.uint8], masks: Any, class_names: Sequence[str], logits: NDArray[np.float32] | None
) -> tuple[Pixels, ...]:
    """Return a picture of each image: the image, its mask in colours and, if `logits` is given, the predicted mask.

    Args:
        images: (number, height, width, C).
        masks: Masks (number, height, width), as a tensor or in a batch that has weights too.
        class_names: Names of the classes.
        logits: A network's logits (number, classes, h, w), or None.
    """
    wanted = np.asarray(getattr(masks, "masks", masks))
    pictures = []
    for place, image in enumerate(images):
        parts = [captioned(image, "image"), _shown(image, wanted[place], "mask", class_names)]
        if logits is not None:
            answer = class_map(logits[place], wanted[place].shape, (0.0, 0.0, 1.0, 1.0))
            right = (answer == wanted[place])[wanted[place] != UNLABELLED]
            share = f" {100 * right.mean():.0f} % right" if right.size else ""
            parts.append(_shown(image, answer, f"answer{share}", class_names))
        pictures.append(side_by_side(parts))
    return tuple(pictures)


def _shown(image: Pixels, mask: NDArray[np.uint8], what: str, class_names: Sequence[str]) -> Pixels:
    """Return the mask in colours, blended with a little of the image, with its most frequent classes below."""
    mixed = (as_rgb(image).astype(np.uint16) + 3 * class_colours()[mask].astype(np.uint16)) // 4
    counts = np.bincount(mask.ravel(), minlength=256)[: len(class_names)]
    order = [place for place in np.argsort(-counts, kind="stable")[:_MOST_NAMES] if counts[place]]
    names = ", ".join(class_names[place] for place in order) or "nothing labelled"
    return captioned(enlarged(mixed.astype(np.uint8), enlargement(image)), f"{what}: {names}")
