"""Images from a folder tree: SPLIT/CLASS/*.jpg, or CLASS/*.jpg, which is then split."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scalesearch.errors import ConfigError
from scalesearch.training.datasets.cache import Arrays, cached_arrays, content_key
from scalesearch.training.datasets.copies import first_of_equal, without_copies
from scalesearch.training.datasets.dataset import ImageSplit
from scalesearch.training.datasets.facts import ImageFact, as_arrays, from_arrays, gathered, require_facts
from scalesearch.training.datasets.folder_tree import ImageTree, scan_tree
from scalesearch.training.datasets.memory import require_memory
from scalesearch.training.datasets.source import Source, SourceData
from scalesearch.training.datasets.unreadable_kinds import KINDS, check_kinds
from scalesearch.values.settings import DataSettings

if TYPE_CHECKING:
    from scalesearch.training.datasets.decode import Reading

SHOWN_FILES = 3


def load(settings: DataSettings, *, storage_px: int, cache_folder: Path) -> SourceData:
    """The images of a folder tree, decoded once and kept in `cache_folder` until a file changes.

    Raises:
        ConfigError: if the tree has no shape that is known, a class is empty, or too many files are unreadable.
    """
    from scalesearch.training.datasets.decode import Reading

    root = Path(settings.source).expanduser()
    tree = scan_tree(root, layout=settings.layout)
    number = len(tree.files)
    first = cached_arrays(
        cache_folder,
        f"copies-{_key(tree, None)}",
        lambda: {"first": _first_of_equal(tree)},
        whole=lambda arrays: _require_first(arrays["first"], number),
    )["first"]
    tree = without_copies(tree, first.astype(np.int64), pooled=settings.val_fraction > 0)
    kinds = check_kinds(
        root,
        images=[file.path for file in tree.files],
        others=tree.others,
        max_fraction=settings.max_skipped_fraction,
    )
    require_memory(images=len(tree.files), side_px=storage_px, where=f"data {root}")
    reading = Reading(side_px=storage_px, window=settings.window, fit=settings.fit, images=len(tree.files))
    arrays = cached_arrays(
        cache_folder,
        f"folder-{_key(tree, reading)}",
        lambda: _decode(tree, reading),
        whole=lambda arrays: _require_whole(arrays, len(tree.files), storage_px),
    )
    warnings = _skip_warnings(tree, arrays, max_fraction=settings.max_skipped_fraction)
    return SourceData(
        name=root.resolve().name or str(root),
        class_names=tree.class_names,
        train=_split(tree, arrays, "train"),
        val=_split(tree, arrays, "val") if any(file.split == "val" for file in tree.files) else None,
        test=_split(tree, arrays, "test") if any(file.split == "test" for file in tree.files) else None,
        warnings=(*warnings, *kinds, *(os.fsencode(note).decode("utf-8", "replace") for note in tree.notes)),
        divided=tree.divided,
    )


def _first_of_equal(tree: ImageTree) -> NDArray[np.int64]:
    return first_of_equal([file.path for file in tree.files])


def _key(tree: ImageTree, reading: "Reading | None") -> str:
    """Changes with the pixels wanted, and with the path, size or time of change of any file."""
    from scalesearch.training.datasets.decode import DECODER_VERSION

    def state(path: Path) -> tuple[int, int]:
        try:
            status = path.stat()
        except OSError:
            return (-1, -1)  # a broken link; it will be skipped
        return (status.st_size, status.st_mtime_ns)

    files = [(os.fsencode(file.path.relative_to(tree.root)), *state(file.path)) for file in tree.files]
    return content_key(DECODER_VERSION, reading, os.fsencode(tree.root.resolve()), files)


def _decode(tree: ImageTree, reading: "Reading") -> Arrays:
    """Arrays `images` and facts, `kept` (which files became images, in the tree's order) and `skipped` (why not, JSON).

    What could not be read has no place in `images` and the facts, `sizes`, `kinds` and `samples`.
    """
    from scalesearch.training.datasets.decode import UNREADABLE, decode

    images = np.empty((len(tree.files), reading.side_px, reading.side_px, 3), np.uint8)
    facts: list[ImageFact] = []
    kept = np.zeros(len(tree.files), np.bool_)
    reasons: list[str] = []
    for index, file in enumerate(tree.files):
        try:
            images[len(facts)], fact = decode(file.path, reading)
            facts.append(fact)
            kept[index] = True
        except UNREADABLE as error:
            reason = (str(error).splitlines() or [""])[0][:80] or type(error).__name__
            reasons.append(f"{_shown(file.path, tree.root)} ({reason})")
    skipped = np.frombuffer(json.dumps(reasons).encode(), np.uint8)
    return {"images": images[: len(facts)], "kept": kept, "skipped": skipped, **as_arrays(gathered(facts))}


def _require_first(first: NDArray[np.generic], files: int) -> None:
    """Raise ValueError where a stored array is not what `_first_of_equal` gives for so many files."""
    fit = first.shape == (files,) and first.dtype == np.int64
    places = first.astype(np.int64) if fit else np.empty(0, np.int64)
    # Nobody's copy comes before its original, which is its own.
    if not fit or (places < 0).any() or (places > np.arange(files)).any() or (places[places] != places).any():
        msg = f"{first.shape} {first.dtype} places of {files} files"
        raise ValueError(msg)


def _require_whole(arrays: Arrays, files: int, storage_px: int) -> None:
    """Raise ValueError or KeyError where stored arrays are not what `_decode` makes of so many files."""
    images, kept = arrays["images"], arrays["kept"]
    reasons = json.loads(arrays["skipped"].tobytes())
    wanted = (int(kept.sum()), storage_px, storage_px, 3)
    if kept.dtype != np.bool_ or kept.shape != (files,) or images.dtype != np.uint8 or images.shape != wanted:
        msg = f"{images.shape} {images.dtype} images of {kept.shape} files"
        raise ValueError(msg)
    if not isinstance(reasons, list) or len(reasons) != files - wanted[0]:
        msg = "the reasons of skipped files do not fit"
        raise ValueError(msg)
    require_facts(arrays, wanted[0])


def _split(tree: ImageTree, arrays: Arrays, split: str) -> ImageSplit:
    kept = [file for file, good in zip(tree.files, arrays["kept"], strict=True) if good]
    where = np.asarray([file.split == split for file in kept], np.bool_)
    labels = np.asarray([file.label for file in kept], np.int64)
    images: NDArray[np.uint8] = arrays["images"].astype(np.uint8, copy=False)
    return ImageSplit(images=images[where], labels=labels[where], facts=from_arrays(arrays).part(where))


def _skip_warnings(tree: ImageTree, arrays: Arrays, *, max_fraction: float) -> tuple[str, ...]:
    """What was left out, in words.

    Raises:
        ConfigError: if more than `max_fraction` of the image files could not be read.
    """
    warnings = []
    reasons: list[str] = json.loads(arrays["skipped"].tobytes())
    if reasons:
        text = f"data {tree.root}: skipped {len(reasons)} of {len(tree.files)} image files: {_first(reasons)}"
        if len(reasons) > max_fraction * len(tree.files):
            msg = (
                f"data {tree.root}: expected at most {100 * max_fraction:g} % unreadable image files, came "
                f"{len(reasons)} of {len(tree.files)}: {_first(reasons)}.\n"
                f"Repair or delete them, or allow more with --set data.max_skipped_fraction=..."
            )
            raise ConfigError(msg)
        warnings.append(text)
    names = [_shown(path, tree.root) for path in tree.others if path.suffix.lower() not in KINDS]
    if names:
        warnings.append(f"data {tree.root}: left out {len(names)} files that are no images by name: {_first(names)}")
    return tuple(warnings)


def _first(items: Sequence[str]) -> str:
    return ", ".join(items[:SHOWN_FILES]) + (", ..." if len(items) > SHOWN_FILES else "")


def _shown(path: Path, root: Path) -> str:
    return os.fsencode(path.relative_to(root)).decode("utf-8", "replace")


SOURCE = Source(kind="folder", load=load, takes_path=Path.is_dir)
