"""The generated street scenes with their masks: the default data of segmentation, without any download."""

from pathlib import Path

import numpy as np

from scalesearch.data.dataset import ImageSplit
from scalesearch.data.framing import crop_box
from scalesearch.data.masks import MASKS, Masks, MaskStore
from scalesearch.data.resize import resize_images
from scalesearch.data.source import Source, SourceData
from scalesearch.data.street_backdrop import SURFACES
from scalesearch.data.street_set import StreetSplit, street_splits
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings, Fit


def load(settings: DataSettings, *, storage: InputSize, cache_folder: Path) -> SourceData:
    """Load the synthetic scenes of this seed, drawn at 16:9 and kept in `cache_folder`, with a class for each pixel."""
    found = street_splits(settings.seed, storage, cache_folder)
    parts = {name: _split(split, storage, settings.framing) for name, split in found.items()}
    return SourceData(
        name="streets",
        class_names=SURFACES,
        train=parts["train"],
        val=parts["val"],
        test=parts["test"],
        divided=True,
    )


def _split(split: StreetSplit, storage: InputSize, fit: Fit) -> ImageSplit:
    masks = split.masks
    if fit == "crop":
        left, top, right, bottom = crop_box(masks.shape[2], masks.shape[1], storage)
        masks = masks[:, top:bottom, left:right]
    return ImageSplit(
        images=resize_images(split.images, storage, fit=fit),
        targets=Masks(store=MaskStore.pack(masks), places=np.arange(len(masks)), storage=storage, fit=fit),
    )


SOURCE = Source(kind="synthetic", targets=MASKS, load=load, names=("streets",), least_classes=2)
