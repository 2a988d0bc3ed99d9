"""The generated street scenes as data for detection: pictures at 16:9 with the boxes of their road signs."""

from pathlib import Path

import numpy as np

from scalesearch.data.boxes import BOXES, Boxes, CropLosses, ImageBoxes, boxes_at
from scalesearch.data.dataset import ImageSplit
from scalesearch.data.resize import resize_images
from scalesearch.data.source import Source, SourceData
from scalesearch.data.street_scenes import SIGN_CLASSES
from scalesearch.data.street_set import StreetSplit, street_splits
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings


def load(settings: DataSettings, *, storage: InputSize, cache_folder: Path) -> SourceData:
    """Load the scenes of this seed, which are drawn once and kept in `cache_folder`."""
    splits, losses = street_splits(settings.seed, storage, cache_folder), CropLosses()
    parts = {
        name: ImageSplit(
            images=resize_images(split.images, storage, fit=settings.framing),
            targets=_targets(split, storage, settings, losses),
        )
        for name, split in splits.items()
    }
    return SourceData(
        name="streets",
        class_names=SIGN_CLASSES,
        train=parts["train"],
        val=parts["val"],
        test=parts["test"],
        divided=True,
        warnings=losses.warnings("streets", storage, settings.framing),
    )


def _targets(split: StreetSplit, storage: InputSize, settings: DataSettings, losses: CropLosses) -> Boxes:
    number, height, width, _ = split.images.shape
    known = [
        ImageBoxes(boxes=boxes[labels >= 0], classes=labels[labels >= 0], ignored=ignored[labels >= 0])
        for boxes, labels, ignored in zip(split.boxes, split.classes, split.ignored, strict=True)
    ]
    return boxes_at(known, np.tile([width, height], (number, 1)), storage, settings.framing, losses)


# The name `signs` is that of the default data of every task: for detection it stands for scenes with signs in them.
SOURCE = Source(kind="street scenes", targets=BOXES, load=load, names=("streets", "signs"), least_classes=1)
