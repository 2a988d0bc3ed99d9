"""Load images with their targets: each kind of source is one file, and a task says which sources it has."""

import math
from dataclasses import replace
from pathlib import Path
from typing import get_args

from scalesearch.data import folder, npz, signs, torchvision_sets
from scalesearch.data.cache import default_cache_folder
from scalesearch.data.dataset import (
    MAX_VAL_STANDARD_ERROR_POINTS,
    Dataset,
    ImageSplit,
    make_dataset,
    val_standard_error_points,
)
from scalesearch.data.depth import deep, find_window
from scalesearch.data.groups import check_pattern, crossing_groups
from scalesearch.data.mapped import MappedImages
from scalesearch.data.normalisation import Images, normalise, to_input
from scalesearch.data.notes import all_facts, near_copies_between, not_on_disk, reading_notes, training_facts
from scalesearch.data.resize import to_grey
from scalesearch.data.source import SourceData, Sources
from scalesearch.data.source_names import (
    find_source,
    hidden_warning,
    plain_source,
    refuse_ambiguous_source,
)
from scalesearch.data.split import (
    Splits,
    drawn_validation,
    missing_classes,
    needs_every_class,
    require_classes,
    split_source,
    with_labelled_test,
)
from scalesearch.data.targets import LABELS
from scalesearch.errors import ConfigError
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import LEAST_CALIBRATION_IMAGES, DataSettings, FitSetting, MemorySetting, WindowSetting

# Tried in this order. A new source of labelled images needs one new file and one line here. Other sources are listed by
# the task that their targets belong to.
LABEL_SOURCES: Sources = (
    signs.SOURCE,
    torchvision_sets.SOURCE,
    folder.SOURCE,
    npz.SOURCE,
)

# Share of the train and validation images that is suggested for validation when the validation set is too small.
SUGGESTED_VAL_FRACTION = 0.3

__all__ = [
    "LABELS",
    "LABEL_SOURCES",
    "Dataset",
    "ImageSplit",
    "find_source",
    "load_dataset",
    "load_splits",
    "normalise",
    "plain_source",
    "refuse_ambiguous_source",
    "to_input",
    "val_standard_error_points",
]


def load_dataset(
    settings: DataSettings,
    sources: Sources,
    *,
    storage_px: int | InputSize,
    channels: int = 3,
    cache_folder: Path | None = None,
    look_for_copies: bool = True,
) -> Dataset:
    """Load the data set, split, with all its images at one size.

    `Dataset.at` gives the smaller sizes. The images of a folder or an .npz file are in memory, or stay on
    disk if they are large (`data.memory`); those of other sources are always in memory: they are small or generated.

    Args:
        settings: Where the images come from and how they are split.
        sources: The sources of the task (`Task.sources`), among which the settings name one.
        storage_px: Size of the stored images, the largest that will be asked for: the side of squares in pixels, or
            their height and width.
        channels: 3 for RGB; 1 for grey, computed from the same RGB pixels.
        cache_folder: Where decoded or generated images are kept; by default the user's cache folder.
        look_for_copies: Whether splits are searched for pictures that look alike, which reads all images once more.

    Raises:
        ConfigError: If the source, its content or the settings are wrong.
        MissingBackendError: If the source needs torchvision, which is not installed.
    """
    # The standard error of an accuracy is known before any network is trained; that of another score is not.
    has_accuracy = find_source(settings.source, sources).targets == LABELS
    hidden = hidden_warning(settings.source, sources)
    data, splits, settings = load_splits(settings, sources, storage_px=storage_px, cache_folder=cache_folder)
    warnings = (
        *hidden,
        *data.warnings,
        *reading_notes(data, splits, settings.window, settings.framing, InputSize.of(storage_px)),
    )
    copies = near_copies_between(data, splits, settings.framing) if look_for_copies else ()
    warnings = (*warnings, *crossing_groups(data, settings), *copies)
    dataset = make_dataset(
        name=data.name,
        class_names=data.class_names,
        splits=in_channels(splits, channels),
        window=settings.window,
        memory=settings.memory,
    )
    return replace(
        dataset,
        warnings=(
            *warnings,
            *drawn_validation(data, settings.val_fraction),
            *_split_warnings(dataset, settings, has_accuracy=has_accuracy),
        ),
        notes=(*data.notes, *not_on_disk(dataset, asked=settings.memory == "disk")),
    )


def load_splits(
    settings: DataSettings, sources: Sources, *, storage_px: int | InputSize, cache_folder: Path | None = None
) -> tuple[SourceData, Splits, DataSettings]:
    """Load the source in RGB and split it.

    Returns:
        The source as it was read, its splits, and the settings. If the settings say `window="auto"` and some images
        have more than 8 bits, the returned settings hold the window that those images were read by.

    Raises:
        ConfigError: As `load_dataset`.
    """
    check_settings(settings)
    source, folder = find_source(settings.source, sources), cache_folder or default_cache_folder()
    storage = InputSize.of(storage_px)
    settings = replace(settings, source=plain_source(settings.source))
    data = with_labelled_test(source.load(settings, storage=storage, cache_folder=folder))
    require_classes(data, source.least_classes)
    splits = split_source(data, settings)
    training, every = training_facts(splits), all_facts(splits)
    if settings.window != "auto" or training is None or every is None or not deep(every).any():
        return data, splits, settings
    settings = replace(settings, window=find_window(training, every))
    if settings.window != "full":  # with "auto" the images have been read as with "full" so far
        data = with_labelled_test(source.load(settings, storage=storage, cache_folder=folder))
        splits = split_source(data, settings)
    return data, splits, settings


def in_channels(splits: Splits, channels: int) -> Splits:
    """Return the RGB splits unchanged for 3 channels, or converted to grey for 1.

    Args:
        splits: Splits with images of shape (number, height, width, 3).
        channels: 3 or 1.

    Raises:
        ConfigError: If `channels` is neither 1 nor 3.
    """
    if channels == 3:
        return splits
    if channels != 1:
        msg = f"data: expected images of 1 (grey) or 3 (RGB) channels, asked for {channels}."
        raise ConfigError(msg)
    train, val, calibration, test = (replace(split, images=_in_grey(split.images)) for split in splits)
    return train, val, calibration, test


def _in_grey(images: Images | MappedImages) -> Images | MappedImages:
    return images.in_grey() if isinstance(images, MappedImages) else to_grey(images)


def check_settings(settings: DataSettings) -> None:
    """Check every fraction and count, and raise an error for the first that is not allowed.

    Raises:
        ConfigError: Names the key, the allowed values and the value that was given.
    """
    rules = (
        ("val_fraction", 0 <= settings.val_fraction < 1, "0, or a fraction below 1"),
        ("test_fraction", 0 < settings.test_fraction < 1, "a fraction above 0 and below 1"),
        ("test_fraction", settings.val_fraction + settings.test_fraction < 1, "below 1 together with val_fraction"),
        ("max_skipped_fraction", 0 <= settings.max_skipped_fraction <= 1, "a fraction from 0 to 1"),
        (
            "calibration_images",
            settings.calibration_images >= LEAST_CALIBRATION_IMAGES,
            f"at least {LEAST_CALIBRATION_IMAGES}",
        ),
        ("seed", settings.seed >= 0, "0 or more"),
        ("window", _is_window(settings.window), '"auto", "full" or two numbers [low, high] with low below high'),
        ("fit", settings.fit in get_args(FitSetting), " or ".join(get_args(FitSetting))),
        ("memory", settings.memory in get_args(MemorySetting), " or ".join(get_args(MemorySetting))),
    )
    for key, holds, expected in rules:
        if not holds:
            msg = f"data.{key}: expected {expected}, came {getattr(settings, key)!r}. Set it with --set data.{key}=..."
            raise ConfigError(msg)
    check_pattern(settings.group_by)


def _is_window(window: WindowSetting) -> bool:
    if isinstance(window, str):
        return window in ("auto", "full")
    return len(window) == 2 and all(math.isfinite(end) for end in window) and window[0] < window[1]


def _split_warnings(dataset: Dataset, settings: DataSettings, *, has_accuracy: bool) -> tuple[str, ...]:
    """Return warnings about a small validation set and about classes without images in a split."""
    warnings = []
    images = len(dataset.val)
    error = val_standard_error_points(dataset)
    if has_accuracy and error > MAX_VAL_STANDARD_ERROR_POINTS:
        pool = images + len(dataset.train) + len(dataset.calibration)
        better = error * (images / (SUGGESTED_VAL_FRACTION * pool)) ** 0.5
        advice = "only more images help"
        if settings.val_fraction < SUGGESTED_VAL_FRACTION and better < error:
            advice = f"--set data.val_fraction={SUGGESTED_VAL_FRACTION} gives {better:.1f}"
        warnings.append(
            f"data {dataset.name}: accuracy on {images} validation images has a standard error of {error:.1f} points, "
            f"so smaller differences are noise; {advice}"
        )
    untrained = () if needs_every_class(dataset.train) else (("train", dataset.train),)  # there, it was an error
    for name, split in (*untrained, ("val", dataset.val), ("test", dataset.test)):
        absent = missing_classes(dataset.class_names, split)
        if absent:
            count = f"{len(absent)} of {len(dataset.class_names)} classes"
            shown = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
            warnings.append(f"data {dataset.name}: {name} has no image of {count}: {shown}")
    return tuple(warnings)
