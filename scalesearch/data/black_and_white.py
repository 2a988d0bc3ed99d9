"""Black and white masks: where a set holds the values 0 and 255 alone, 255 is its second class."""

from collections.abc import Collection, Sequence
from typing import Final

import numpy as np

from scalesearch.data.mask_reading import VEILED
from scalesearch.data.mask_tree import MaskTree
from scalesearch.data.masks import UNLABELLED, Mask, MaskStore, PackedMask

_BOTH: Final = frozenset((0, UNLABELLED))


def are_black_and_white(masks: Sequence[PackedMask], veiled: Collection[int]) -> bool:
    """Tell whether these masks hold 0 and 255, and nothing else but pixels that have no class.

    Args:
        masks: The masks of a set.
        veiled: The places of those that are veiled, in which `VEILED` stands for no class.
    """
    hidden, seen = frozenset(veiled), set[int]()
    for place, mask in enumerate(masks):
        seen.update(np.flatnonzero(mask.counts).tolist())
        if place in hidden:
            seen.discard(VEILED)
        if not seen <= _BOTH:
            return False
    return seen == _BOTH


def names_of(tree: MaskTree, store: MaskStore, *, black_and_white: bool) -> tuple[tuple[str, ...], bool]:
    """Return the names of the classes, and whether the masks are black and white pictures of two classes.

    Without this rule, masks of 0 and 255 would have a single class, 0, and unlabelled pixels, 255.
    """
    binary = black_and_white and len(tree.class_names) in (0, 2)
    if tree.class_names:
        return tree.class_names, binary
    if binary:
        return ("background", "foreground"), True
    seen = set(np.flatnonzero(store.counts.sum(axis=0, dtype=np.int64)).tolist())
    classes = max(seen - {UNLABELLED}, default=0) + 1
    return tuple(f"class {place}" for place in range(classes)), False


def unveiled(mask: Mask) -> Mask:
    """Return a veiled mask of a set in which 255 stands for no class."""
    return np.where(mask == VEILED, np.uint8(UNLABELLED), mask)


def in_classes(store: MaskStore, *, white: int) -> MaskStore:
    """Return black and white masks with the class `white` for 255, and 255 for pixels that have no class."""
    values = np.arange(256, dtype=np.uint8)
    values[UNLABELLED], values[VEILED] = white, UNLABELLED
    return MaskStore.pack(values[store.mask(place)] for place in range(len(store)))
