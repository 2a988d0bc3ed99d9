"""Read images from a NumPy archive: arrays of numbers with labels, split or not."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scalesearch.data.copies import equal_images
from scalesearch.data.dataset import Images, ImageSplit
from scalesearch.data.depth import to_8_bits
from scalesearch.data.facts import FLOAT, WHOLE, ImageFact, ImageFacts, gathered, sample_of
from scalesearch.data.memory import require_memory
from scalesearch.data.npz_file import read_arrays
from scalesearch.data.resize import resize_images
from scalesearch.data.source import Source, SourceData
from scalesearch.data.split_names import folded_name
from scalesearch.data.targets import LABELS, Labels
from scalesearch.errors import ConfigError
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings, WindowSetting

_CHUNK_IMAGES = 256
Arrays = Mapping[str, NDArray[np.generic]]
_LAYOUT = (
    "Give train_images, train_labels, val_images, val_labels (and test_...), or images and labels; "
    "numbers (uint8 as they are, others by data.window), number x height x width (x 3)."
)


def load(settings: DataSettings, *, storage: InputSize, cache_folder: Path) -> SourceData:
    """Load the images of an .npz file. `cache_folder` is not used, since the file itself is quick to read.

    Raises:
        ConfigError: If the file is damaged or too large, an array is missing, or one has the wrong type or shape.
    """
    path = Path(settings.source).expanduser()
    arrays = _read(path)
    _refuse_both_layouts(arrays, path)
    prefixes = ("",) if "images" in arrays else ("train_", "val_", "test_")
    for key in ("images", "labels") if prefixes == ("",) else ("train_images", "train_labels"):
        _get(arrays, key, path)
    total = sum(len(value) for key, value in arrays.items() if key.endswith("images"))
    require_memory(images=total, size=storage, where=f"data {path}")
    splits = {
        prefix: _split(arrays, prefix, path, settings, storage) for prefix in prefixes if f"{prefix}images" in arrays
    }
    return SourceData(
        name=path.stem,
        class_names=_class_names(arrays, splits, path),
        train=splits[prefixes[0]],
        val=splits.get("val_"),
        test=splits.get("test_"),
        divided=prefixes != ("",),
        warnings=equal_images(
            {prefix.rstrip("_") or "images": part for prefix, part in splits.items()}, name=path.name
        ),
    )


def _refuse_both_layouts(arrays: Arrays, path: Path) -> None:
    """Raise an error if both `images` and `train_images` are there: one of them would be left out silently.

    Raises:
        ConfigError: If arrays of both layouts are there, also if images of one layout have labels of the other.
    """
    split = sorted(key for key in arrays if re.fullmatch(r"(train|val|test)_(images|labels)", key))
    whole = sorted(key for key in arrays if key in ("images", "labels"))
    if split and whole:
        msg = (
            f"data {path}: expected images and labels, or train_images and train_labels (and val_, test_), came both: "
            f"{', '.join((*whole, *split))}.\nTake one of the two out of the file."
        )
        raise ConfigError(msg)


def _read(path: Path) -> Arrays:
    try:
        arrays = read_arrays(path)
    except (OSError, ValueError) as error:
        msg = (
            f"data {path}: expected a whole .npz file of plain arrays, came: {error}.\nWrite it anew with numpy.savez."
        )
        raise ConfigError(msg) from error
    for key, array in arrays.items():
        if array.ndim == 0 and key.endswith(("images", "labels")):
            msg = f"data {path}: {key} is a single value, expected one entry per image.\n{_LAYOUT}"
            raise ConfigError(msg)
    return arrays


def _get(arrays: Arrays, key: str, path: Path) -> NDArray[np.generic]:
    if key not in arrays:
        msg = f"data {path}: expected the key {key}, came {', '.join(sorted(arrays)) or 'no keys'}.\n{_LAYOUT}"
        raise ConfigError(msg)
    return arrays[key]


def _split(arrays: Arrays, prefix: str, path: Path, settings: DataSettings, storage: InputSize) -> ImageSplit:
    where = f"data {path}: {prefix}images"
    stored = _images(_get(arrays, f"{prefix}images", path), where)
    labels = _labels(_get(arrays, f"{prefix}labels", path), f"data {path}: {prefix}labels")
    if len(stored) != len(labels) or len(stored) == 0:
        msg = f"data {path}: expected as many {prefix}images as {prefix}labels, came {len(stored)} and {len(labels)}."
        raise ConfigError(msg)
    images, facts = _bytes(stored, settings.window, where), _facts(stored)
    return ImageSplit(images=resize_images(images, storage, fit=settings.fit), targets=labels, facts=facts)


def _images(images: NDArray[np.generic], where: str) -> NDArray[np.generic]:
    if images.dtype.kind not in "buif":
        msg = f"{where}: expected numbers (uint8, other whole numbers or floats), came {images.dtype}."
        raise ConfigError(msg)
    grey = images[..., None] if images.ndim == 3 else images
    if grey.ndim != 4 or grey.shape[-1] not in (1, 3) or 0 in grey.shape:
        planes_first = images.ndim == 4 and images.shape[1] in (1, 3)
        advice = " Bring the channels to the end: images.transpose(0, 2, 3, 1)." if planes_first else ""
        msg = f"{where}: expected number x height x width (x 1 or 3), came {images.shape}.{advice}"
        raise ConfigError(msg)
    return grey


def _bytes(images: NDArray[np.generic], window: WindowSetting, where: str) -> Images:
    """Convert images (number, height, width, C) to bytes (number, height, width, 3); masks become black and white."""
    narrow: Images = np.empty(images.shape, np.uint8)
    for start in range(0, len(images), _CHUNK_IMAGES):
        chunk = images[start : start + _CHUNK_IMAGES]
        if images.dtype == np.uint8 or images.dtype.kind == "b":
            narrow[start : start + _CHUNK_IMAGES] = chunk if images.dtype == np.uint8 else 255 * chunk.astype(np.uint8)
            continue
        try:
            narrow[start : start + _CHUNK_IMAGES] = to_8_bits(chunk, window)
        except ValueError as error:
            msg = f"{where}: expected numbers that are all finite, came {error}.\n"
            if np.isfinite(chunk).all():
                msg = f"{where}: expected floats in 0..1, as data.window=full has it, came others.\n"
                msg += "Take --set data.window=auto, or give their range: --set data.window=[LOW,HIGH]"
            else:
                msg += "Leave those images out, or give the pixels a value: numpy.nan_to_num(images)."
            raise ConfigError(msg) from None
    return narrow if narrow.shape[-1] == 3 else np.repeat(narrow, 3, axis=-1)


def _facts(images: NDArray[np.generic]) -> ImageFacts:
    number, height, width = images.shape[:3]
    if images.dtype != np.uint8 and images.dtype.kind != "b":
        kind = FLOAT if images.dtype.kind == "f" else WHOLE
        facts = [ImageFact(size=(width, height), kind=kind, sample=sample_of(each, images=number)) for each in images]
        return gathered(facts)
    return gathered([ImageFact(size=(width, height))] * number)


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


def _class_names(arrays: Arrays, splits: Mapping[str, ImageSplit], path: Path) -> tuple[str, ...]:
    highest = max(int(np.asarray(split.targets).max()) for split in splits.values())
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
    if highest >= sum(len(split) for split in splits.values()):
        msg = f"data {path}: expected classes numbered 0, 1, 2, ..., came {highest}. Number them without gaps."
        raise ConfigError(msg)
    return tuple(str(index) for index in range(highest + 1))


def _is_npz(path: Path) -> bool:
    return path.is_file() and path.suffix.lower() == ".npz"


SOURCE = Source(kind="npz", targets=LABELS, load=load, takes_path=_is_npz, path_words="an .npz file", least_classes=2)
