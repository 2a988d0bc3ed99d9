"""The splits of a folder of masks."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scalesearch.data.cache import Arrays
from scalesearch.data.dataset import ImageSplit
from scalesearch.data.facts import from_arrays
from scalesearch.data.mapped import MappedImages
from scalesearch.data.mask_checks import (
    shown,
)
from scalesearch.data.mask_tree import MaskTree
from scalesearch.data.masks import Masks, MaskStore
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """What the splits of a source are taken from."""

    tree: MaskTree
    arrays: Arrays
    store: MaskStore
    storage: InputSize
    settings: DataSettings

    def of(self, split: str) -> ImageSplit:
        """Return the images and masks of a split."""
        kept = [file for file, good in zip(self.tree.files, self.arrays["kept"], strict=True) if good]
        where = np.asarray([file.split == split for file in kept], np.bool_)
        facts, stored = from_arrays(self.arrays).part(where), self.arrays["images"]
        masks = Masks(store=self.store, places=np.flatnonzero(where), storage=self.storage, fit=self.settings.framing)
        if isinstance(stored, np.memmap):
            images: NDArray[np.uint8] | MappedImages = MappedImages(stored, places=np.flatnonzero(where))
        else:
            images = stored[: len(kept)].astype(np.uint8, copy=False)[where]
        names = np.asarray([shown(self.tree, file.image) for file in kept], np.str_)[where]
        return ImageSplit(images=images, targets=masks, facts=facts, names=names)
