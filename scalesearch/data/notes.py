"""Notes and warnings for the user on a data set that was read and split."""

from scalesearch.data.dataset import (
    Dataset,
)
from scalesearch.data.depth import depth_notes
from scalesearch.data.facts import ImageFacts, joined
from scalesearch.data.framing import long_images_note
from scalesearch.data.near_copies import near_copy_warnings
from scalesearch.data.source import SourceData
from scalesearch.data.split import Splits
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import Fit, WindowSetting


def near_copies_between(data: SourceData, splits: Splits, fit: Fit) -> tuple[str, ...]:
    """Warn of images that are in two splits, unchanged or nearly so."""
    train, val, calibration, test = splits
    return near_copy_warnings({"train": (train, calibration), "val": (val,), "test": (test,)}, name=data.name, fit=fit)


def not_on_disk(dataset: Dataset, *, asked: bool) -> tuple[str, ...]:
    """Warn that the images are in memory, although the user asked for the disk."""
    if not asked or dataset.on_disk:
        return ()
    return (
        f"data {dataset.name}: is held in memory all the same: only the images of a folder, or of an .npz file not in "
        "Fortran order, can be read from disk",
    )


def training_facts(splits: Splits) -> ImageFacts | None:
    """Return the facts of the training and calibration images, none of which is ever scored."""
    train, _, calibration, _ = splits
    return joined((train.facts, calibration.facts)) if train.facts and calibration.facts else None


def all_facts(splits: Splits) -> ImageFacts | None:
    """Return the facts of all images, or None if they are not known of every split."""
    found = [split.facts for split in splits if split.facts]
    return joined(found) if len(found) == len(splits) else None


def reading_notes(
    data: SourceData, splits: Splits, window: WindowSetting, fit: Fit, storage: InputSize
) -> tuple[str, ...]:
    """Return notes for the user on how images were turned into bytes of one size."""
    training, every = training_facts(splits), all_facts(splits)
    if training is None or every is None:
        return ()
    depth = depth_notes(data.name, training, every, window)
    return (*depth, *long_images_note(data.name, every, fit, storage))
