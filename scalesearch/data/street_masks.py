"""The generated street scenes with their masks: the default data of segmentation, without any download."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from scalesearch.data.dataset import ImageSplit
from scalesearch.data.framing import crop_box
from scalesearch.data.mask_checks import crop_warnings
from scalesearch.data.masks import MASKS, UNLABELLED, Masks, MaskStore
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
        warnings=_left_out(found, storage) if settings.framing == "crop" else (),
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


def _left_out(splits: Mapping[str, StreetSplit], storage: InputSize) -> tuple[str, ...]:
    """Return a line on the labelled pixels that the centre crop takes, if there are some."""
    labelled = np.concatenate([split.masks for split in splits.values()]) != UNLABELLED
    left, top, right, bottom = crop_box(labelled.shape[2], labelled.shape[1], storage)
    kept = labelled[:, top:bottom, left:right]
    return crop_warnings("streets", labelled.sum(axis=(1, 2)), kept.sum(axis=(1, 2)), storage)


SOURCE = Source(kind="synthetic", targets=MASKS, load=load, names=("streets",), least_classes=2)
