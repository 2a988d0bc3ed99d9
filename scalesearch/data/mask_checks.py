"""Checks of folders of masks: faults that are errors, and oddities that are warnings."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scalesearch.data.cache import Arrays
from scalesearch.data.facts import require_facts
from scalesearch.data.mask_reading import REMARKS
from scalesearch.data.mask_tree import MaskTree
from scalesearch.data.masks import UNLABELLED, MaskStore
from scalesearch.data.skipped_files import shown_path
from scalesearch.errors import ConfigError
from scalesearch.values.network_spec import InputSize
from scalesearch.values.session import EARLIER_READING

UNCROPPED: Final = "uncropped"
"""The array of the numbers of pixels of each value in each whole mask, (masks, 256); of cropped images alone."""
_SHOWN: Final = 3
_LEAST_TOLD: Final = 0.01
_MEND: Final = {
    "lossy": "Save masks as PNG: convert the originals, for the class numbers of these files are lost.",
    "no_table": "Name the colours: `colors` in data.yaml ([[128, 64, 128], ...] in the order of names), or "
    "class_dict.csv with name,r,g,b.",
    "colours": "Complete the table of colours, or save the masks without smoothing.",
    "palette": "Give the palette the colours of the table; or take the table away, then masks hold class numbers.",
    "beyond": "Convert them to class numbers from 0, with 255 for pixels of no class.",
    "shape": "Each mask must show just what its image shows.",
    "mode": "Save masks as PNG with class numbers (mode L or P).",
}


@dataclass(slots=True)
class Found:
    """What was found on the way through the files, as texts for messages."""

    skipped: list[str] = field(default_factory=list)
    """Files that could not be read, with the reason."""
    remarks: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Names of masks by the remark on them, a key of `REMARKS`."""
    faults: dict[str, list[str]] = field(default_factory=dict)
    """Names of masks by what makes them unusable, with what was found in the first of them."""


def require_masks(tree: MaskTree, most: float) -> None:
    """Raise ConfigError if more than `most` of the images have no mask."""
    images = len(tree.files) + len(tree.missing)
    if len(tree.missing) > most * images:
        message = (
            f"data {tree.root}: expected a mask of the same name for every image, came none for {len(tree.missing)} of "
            f"{images}: {_paths(tree, tree.missing)}.\nAdd them, take the images away, or leave them out with "
            "--set data.max_skipped_fraction=1"
        )
        raise ConfigError(message)


def refuse_faults(tree: MaskTree, found: Found) -> None:
    """Raise ConfigError if masks were found that cannot be read as classes; say what the first one is."""
    for kind, (first, *names) in found.faults.items():
        message = (
            f"data {tree.root}: expected masks with class numbers, came {len(names)} of {len(tree.files)} that cannot "
            f"be used: {_few(names)} ({first}).\n{_MEND[kind]}"
        )
        raise ConfigError(message)


def refuse_many(tree: MaskTree, skipped: Sequence[str], most: float) -> None:
    """Raise ConfigError if more than this fraction of the images was left out."""
    if len(skipped) > most * len(tree.files):
        message = (
            f"data {tree.root}: expected at most {100 * most:g} % of images and masks that cannot be read, came "
            f"{len(skipped)} of {len(tree.files)}: {_few(skipped)}.\n"
            "Repair or delete them, or allow more with --set data.max_skipped_fraction=..."
        )
        raise ConfigError(message)


def refuse_beyond(tree: MaskTree, arrays: Arrays, store: MaskStore, names: tuple[str, ...]) -> None:
    """Check that every value in the masks belongs to a named class.

    Raises:
        ConfigError: Some values do not; the text names the values and files.
    """
    beyond = store.counts[:, len(names) : UNLABELLED] > 0
    if not beyond.any():
        return
    kept = [file for file, good in zip(tree.files, arrays["kept"], strict=True) if good]
    wrong = np.flatnonzero(beyond.any(axis=1))
    values = (np.flatnonzero(beyond.any(axis=0)) + len(names)).tolist()
    message = (
        f"data {tree.root}: expected values from 0 to {len(names) - 1} (the {len(names)} classes) and 255, came "
        f"{', '.join(map(str, values[:5]))}{', ...' if len(values) > 5 else ''} in {len(wrong)} masks: "
        f"{_paths(tree, [kept[place].mask for place in wrong])}.\nName those classes too, or make the pixels 255."
    )
    raise ConfigError(message)


def refuse_single(tree: MaskTree, store: MaskStore, found: dict[str, list[str]], *, binary: bool) -> None:
    """Raise ConfigError if one class is painted on a transparent ground, which is no second class.

    Earlier versions took the transparent pixels for the second class.
    """
    seen = set(np.flatnonzero(store.counts.sum(axis=0, dtype=np.int64)).tolist())
    if binary or "transparent" not in found or len(tree.class_names) not in (0, 2) or not seen <= {0, UNLABELLED}:
        return
    message = (
        f"data {tree.root}: expected masks of two classes, came one value beside transparent pixels, which have no "
        f"class: {_few(found['transparent'])}.\nGive the second class a value of its own, such as opaque white beside "
        "opaque black."
    )
    raise ConfigError(message)


def require_whole(arrays: Arrays, files: int, size: InputSize, *, cropped: bool) -> None:
    """Check that stored arrays are what `_decode` makes of the given number of files.

    Raises:
        KeyError: If an array is missing.
        ValueError: If an array is not as expected.
    """
    images, kept = arrays["images"], arrays["kept"]
    read = int(kept.sum())
    fit = images.shape in ((read, *size.sides, 3), (files, *size.sides, 3))
    if kept.dtype != np.bool_ or kept.shape != (files,) or images.dtype != np.uint8 or not fit:
        message = f"{images.shape} {images.dtype} images of {kept.shape} files"
        raise ValueError(message)
    found = json.loads(arrays["found"].tobytes())
    if not isinstance(found, dict) or len(found["skipped"]) != files - read:
        message = "the reasons of skipped files do not fit"
        raise ValueError(message)
    if arrays["black_and_white"].dtype != np.bool_ or arrays["black_and_white"].shape != (1,):
        message = "whether masks are black and white is not told"
        raise ValueError(message)
    if cropped and arrays[UNCROPPED].shape != (read, 256):
        message = "the pixels of whole masks are not counted"
        raise ValueError(message)
    if len(MaskStore.of_arrays(dict(arrays))) != read:
        message = "there are not as many masks as images"
        raise ValueError(message)
    require_facts(arrays, read)


def crop_warnings(data: str, labelled: NDArray[np.int64], kept: NDArray[np.int64], size: InputSize) -> tuple[str, ...]:
    """Return a line on the labelled pixels that the centre crop takes, or none if those are less than 1 % of all.

    Args:
        data: The data set.
        labelled: Number of labelled pixels of each whole mask, of shape (masks,).
        kept: How many of them the crop keeps, of shape (masks,).
        size: Height and width of the stored images.
    """
    outside, emptied = 1 - kept.sum() / max(1, labelled.sum()), int(((labelled > 0) & (kept == 0)).sum())
    if outside < _LEAST_TOLD and not emptied:
        return ()
    more = f", which leaves {emptied} of {len(labelled)} images without any" if emptied else ""
    return (
        f"data {data}: {100 * outside:.1f} % of the labelled pixels lie outside the centre crop to {size}: neither "
        f"trained on nor scored{more}; --set data.fit=pad keeps all",
    )


def warnings_of(
    tree: MaskTree, found: dict[str, list[str]], skipped: list[str], *, binary: bool, veiled: bool
) -> Sequence[str]:
    """Return a line on each oddity that was found, with its first files.

    Args:
        tree: The files.
        found: Names of masks by the remark on them.
        skipped: Pairs that could not be read, with the reason.
        binary: Whether the masks are black and white, of two classes.
        veiled: Whether some of their pixels have no class.
    """
    where, total = f"data {tree.root}", len(tree.files)
    lines = list(tree.notes)
    if tree.missing:
        lines.append(f"{where}: left out {len(tree.missing)} images without a mask: {_paths(tree, tree.missing)}")
    if skipped:
        lines.append(f"{where}: skipped {len(skipped)} of {total} pairs that cannot be read: {_few(skipped)}")
    for kind, names in found.items():
        lines.append(f"{where}: {len(names)} of {total} masks {REMARKS[kind]}: {_few(names)}")
    if binary:
        line = f"{where}: the masks hold 0 and 255 alone, which are read as two classes, 255 as the second"
        more = f"; transparent pixels and colours of no class have none {EARLIER_READING} the second)"
        lines.append(line + (more if veiled else ""))
    if not tree.class_names and not binary:
        lines.append(
            f"{where}: nothing names the classes, so they are numbered; write names into data.yaml or classes.txt"
        )
    return lines


def _paths(tree: MaskTree, paths: Sequence[Path]) -> str:
    return _few([shown(tree, path) for path in paths])


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def shown(tree: MaskTree, path: Path) -> str:
    """Return the path relative to the data folder; bytes that are no UTF-8 become a replacement character."""
    return shown_path(path, tree.root)
