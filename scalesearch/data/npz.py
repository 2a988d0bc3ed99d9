"""Read images from a NumPy archive: arrays of numbers with labels, split or not."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scalesearch.data.copies import equal_images
from scalesearch.data.dataset import ImageSplit
from scalesearch.data.npz_file import ArrayHeader, read_arrays, read_headers
from scalesearch.data.npz_pixels import NpzImages, unreadable
from scalesearch.data.source import Source, SourceData
from scalesearch.data.split_names import folded_name
from scalesearch.data.targets import LABELS, Labels
from scalesearch.errors import ConfigError
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings

Arrays = Mapping[str, NDArray[np.generic]]
_LAYOUT = (
    "Give train_images, train_labels, val_images, val_labels (and test_...), or images and labels; "
    "numbers (uint8 as they are, others by data.window), number x height x width (x 3)."
)


def load(settings: DataSettings, *, storage: InputSize, cache_folder: Path) -> SourceData:
    """Load the images of an .npz file.

    The file itself is quick to read, so `cache_folder` is used only for images that are left on disk (`data.memory`):
    they are read part by part, so that neither they nor the arrays of the file are ever in memory as a whole.

    Raises:
        ConfigError: If the file is damaged or too large, an array is missing, or one has the wrong type or shape.
    """
    path = Path(settings.source).expanduser()
    headers = _headers(path)
    _refuse_both_layouts(headers, path)
    prefixes = ("",) if "images" in headers else ("train_", "val_", "test_")
    for key in ("images", "labels") if prefixes == ("",) else ("train_images", "train_labels"):
        _require(headers, key, path)
    keys = {prefix: f"{prefix}images" for prefix in prefixes if f"{prefix}images" in headers}
    images = NpzImages(path, {key: headers[key] for key in keys.values()}, settings, storage)
    on_disk = images.stay_on_disk(cache_folder)
    arrays = _read(path, left_out=keys.values() if on_disk else ())
    labels = {prefix: _labels_of(arrays, prefix, headers[key].shape[0], path) for prefix, key in keys.items()}
    if on_disk:
        pixels, note = images.mapped(cache_folder)
    else:
        pixels, note = {key: images.in_memory(key, arrays[key]) for key in keys.values()}, ""
    splits = {
        prefix: ImageSplit(images=pixels[key][0], targets=labels[prefix], facts=pixels[key][1])
        for prefix, key in keys.items()
    }
    return SourceData(
        name=path.stem,
        class_names=_class_names(arrays, labels, path),
        train=splits[prefixes[0]],
        val=splits.get("val_"),
        test=splits.get("test_"),
        divided=prefixes != ("",),
        warnings=equal_images(
            {prefix.rstrip("_") or "images": part for prefix, part in splits.items()}, name=path.name
        ),
        notes=(note,) if note else (),
    )


def _refuse_both_layouts(names: Collection[str], path: Path) -> None:
    """Raise an error if both `images` and `train_images` are there: one of them would be left out silently.

    Raises:
        ConfigError: If arrays of both layouts are there, also if images of one layout have labels of the other.
    """
    split = sorted(key for key in names if re.fullmatch(r"(train|val|test)_(images|labels)", key))
    whole = sorted(key for key in names if key in ("images", "labels"))
    if split and whole:
        msg = (
            f"data {path}: expected images and labels, or train_images and train_labels (and val_, test_), came both: "
            f"{', '.join((*whole, *split))}.\nTake one of the two out of the file."
        )
        raise ConfigError(msg)


def _headers(path: Path) -> dict[str, ArrayHeader]:
    try:
        headers = read_headers(path)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    for key, header in headers.items():
        if not header.shape and key.endswith(("images", "labels")):
            msg = f"data {path}: {key} is a single value, expected one entry per image.\n{_LAYOUT}"
            raise ConfigError(msg)
    return headers


def _read(path: Path, *, left_out: Collection[str]) -> Arrays:
    try:
        return read_arrays(path, left_out=left_out)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error


def _require(names: Collection[str], key: str, path: Path) -> None:
    if key not in names:
        msg = f"data {path}: expected the key {key}, came {', '.join(sorted(names)) or 'no keys'}.\n{_LAYOUT}"
        raise ConfigError(msg)


def _labels_of(arrays: Arrays, prefix: str, images: int, path: Path) -> Labels:
    """Return the labels of a split with `images` images; raise ConfigError if their numbers differ."""
    _require(arrays, f"{prefix}labels", path)
    labels = _labels(arrays[f"{prefix}labels"], f"data {path}: {prefix}labels")
    if images != len(labels) or images == 0:
        msg = f"data {path}: expected as many {prefix}images as {prefix}labels, came {images} and {len(labels)}."
        raise ConfigError(msg)
    return labels


def _labels(labels: NDArray[np.generic], where: str) -> Labels:
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.ndim != 1 or flat.dtype.kind not in "iu":
        advice = _advice_on_rows(labels)
        msg = f"{where}: expected one whole class number per image, came {labels.dtype} {labels.shape}.{advice}"
        raise ConfigError(msg)
    if flat.size and flat.astype(np.int64).min() < 0:
        msg = f"{where}: expected classes 0, 1, 2, ..., came {flat.min()}."
        raise ConfigError(msg)
    return Labels(flat.astype(np.int64))


def _advice_on_rows(labels: NDArray[np.generic]) -> str:
    """Explain labels of shape (number, classes): one-hot rows, scores, or several classes for an image."""
    if labels.ndim != 2 or labels.dtype.kind not in "iufb":
        return ""
    rows = labels.astype(np.float64)
    if not np.isin(rows, (0, 1)).all():
        return " Rows of scores or probabilities are no labels: give the class number of each image."
    several = int((rows.sum(axis=1) != 1).sum())
    if several:
        return (
            f" Several classes per image ({several} of {len(rows)} rows hold no one, or two and more).\n"
            "One class per image is needed."
        )
    return " One-hot rows: labels.argmax(axis=1)."


def _class_names(arrays: Arrays, labels: Mapping[str, Labels], path: Path) -> tuple[str, ...]:
    highest = max(int(each.values.max()) for each in labels.values())
    if "class_names" in arrays:
        names = tuple(str(name) for name in arrays["class_names"].ravel())
        folded = [folded_name(name) for name in names]
        if doubled := sorted({name for name in folded if folded.count(name) > 1}):
            msg = (
                f"data {path}: expected every class name once, came {len(doubled)} twice or more: "
                f"{', '.join(doubled[:5])}.\nRename them in class_names, or give their images one number."
            )
            raise ConfigError(msg)
        if highest >= len(names):
            msg = f"data {path}: expected labels below {len(names)} (the class_names), came {highest}."
            raise ConfigError(msg)
        return names
    if highest >= sum(len(each) for each in labels.values()):
        msg = f"data {path}: expected classes numbered 0, 1, 2, ..., came {highest}. Number them without gaps."
        raise ConfigError(msg)
    return tuple(str(index) for index in range(highest + 1))


def _is_npz(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".npz"


SOURCE = Source(kind="npz", targets=LABELS, load=load, takes_path=_is_npz, path_words="an .npz file", least_classes=2)
