"""Where images come from: one file per kind of source, one line each in `SOURCES`."""

from dataclasses import replace
from pathlib import Path

from scalesearch.errors import ConfigError
from scalesearch.training.datasets import folder, npz, signs, torchvision_sets
from scalesearch.training.datasets.cache import default_cache_folder
from scalesearch.training.datasets.dataset import (
    MAX_VAL_STANDARD_ERROR,
    Dataset,
    ImageSplit,
    make_dataset,
    normalise,
    to_input,
    val_standard_error,
)
from scalesearch.training.datasets.source import Source
from scalesearch.training.datasets.split import missing_classes, split_source
from scalesearch.values.settings import DataSettings

# Names first, then paths, in this order. A new source is one file and one line here.
SOURCES: tuple[Source, ...] = (
    signs.SOURCE,
    torchvision_sets.SOURCE,
    folder.SOURCE,
    npz.SOURCE,
)

# What a too small validation set is advised to become, of train and val together.
SUGGESTED_VAL_FRACTION = 0.3

__all__ = [
    "SOURCES",
    "Dataset",
    "ImageSplit",
    "find_source",
    "load_dataset",
    "normalise",
    "to_input",
    "val_standard_error",
]


def load_dataset(settings: DataSettings, *, storage_px: int, cache_folder: Path | None = None) -> Dataset:
    """The data set in memory: split, square, RGB, `storage_px` on a side; `Dataset.at` gives the smaller sizes.

    Args:
        settings: where the images come from and how they are split.
        storage_px: the largest resolution that will be asked for.
        cache_folder: where decoded or generated images are kept; by default the user's cache folder.

    Raises:
        ConfigError: if the source, its content or the settings are wrong.
        MissingBackendError: if the source needs torchvision, which is not installed.
    """
    check_settings(settings)
    source = find_source(settings.source)
    data = source.load(settings, storage_px=storage_px, cache_folder=cache_folder or default_cache_folder())
    splits = split_source(data, settings)
    dataset = make_dataset(name=data.name, class_names=data.class_names, splits=splits, warnings=data.warnings)
    return replace(dataset, warnings=(*data.warnings, *_split_warnings(dataset, settings)))


def find_source(source: str) -> Source:
    """The kind of source that a name or path stands for. Nothing is read but the path's kind.

    Raises:
        ConfigError: if it is neither a known name, nor a folder, nor an .npz file.
    """
    name = source.lower().replace("_", "-")
    path = Path(source).expanduser()
    for kind in SOURCES:
        if source and (name in kind.names or kind.takes_path(path)):  # Path("") would be the working folder
            return kind
    raise ConfigError(_unknown_source(source, path))


def check_settings(settings: DataSettings) -> None:
    """Passes, or stops at the first fraction or count that cannot be.

    Raises:
        ConfigError: naming the key, what it may be and what it is.
    """
    rules = (
        ("val_fraction", 0 <= settings.val_fraction < 1, "0, or a fraction below 1"),
        ("test_fraction", 0 < settings.test_fraction < 1, "a fraction above 0 and below 1"),
        ("test_fraction", settings.val_fraction + settings.test_fraction < 1, "below 1 together with val_fraction"),
        ("max_skipped_fraction", 0 <= settings.max_skipped_fraction <= 1, "a fraction from 0 to 1"),
        ("calibration_images", settings.calibration_images >= 1, "at least 1"),
        ("seed", settings.seed >= 0, "0 or more"),
    )
    for key, holds, expected in rules:
        if not holds:
            msg = f"data.{key}: expected {expected}, came {getattr(settings, key)!r}. Set it with --set data.{key}=..."
            raise ConfigError(msg)


def _unknown_source(source: str, path: Path) -> str:
    from difflib import get_close_matches

    names = [name for kind in SOURCES for name in kind.names]
    if path.is_file():
        came = f"the file {source}, which is no .npz"
    elif path.suffix or len(path.parts) > 1:
        came = f"{source!r}, where there is nothing"
    else:
        near = get_close_matches(source.lower(), names, n=1)
        came = f"{source!r}" + (f"; did you mean {near[0]}?" if near else "")
    return (
        f"data.source: expected a folder, an .npz file or a known name, came {came}\n"
        f"Known names: {', '.join(names)}.\n"
        f"A folder holds train/CLASS/*.jpg and val/CLASS/*.jpg, or CLASS/*.jpg to be split."
    )


def _split_warnings(dataset: Dataset, settings: DataSettings) -> tuple[str, ...]:
    """What the user should know before trusting small differences."""
    warnings = []
    images = len(dataset.val)
    error = val_standard_error(dataset)
    if error > MAX_VAL_STANDARD_ERROR:
        pool = images + len(dataset.train) + len(dataset.calibration)
        better = error * (images / (SUGGESTED_VAL_FRACTION * pool)) ** 0.5
        advice = "only more images help"
        if settings.val_fraction < SUGGESTED_VAL_FRACTION and better < error:
            advice = f"--set data.val_fraction={SUGGESTED_VAL_FRACTION} gives {better:.1f}"
        warnings.append(
            f"data {dataset.name}: accuracy on {images} validation images has a standard error of {error:.1f} points, "
            f"so smaller differences are noise; {advice}"
        )
    for name, split in (("val", dataset.val), ("test", dataset.test)):
        absent = missing_classes(dataset.class_names, split)
        if absent:
            count = f"{len(absent)} of {len(dataset.class_names)} classes"
            shown = ", ".join(absent[:3]) + (", ..." if len(absent) > 3 else "")
            warnings.append(f"data {dataset.name}: {name} has no image of {count}: {shown}")
    return tuple(warnings)
