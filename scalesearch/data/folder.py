"""Read images from a folder tree: SPLIT/CLASS/*.jpg, or CLASS/*.jpg, which is then split."""

import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scalesearch.data.cache import Arrays, Put, cache_file, cached_arrays, content_key, mapped_arrays
from scalesearch.data.copies import first_of_equal, without_copies
from scalesearch.data.dataset import ImageSplit
from scalesearch.data.facts import ImageFact, as_arrays, from_arrays, gathered, require_facts
from scalesearch.data.folder_tree import ImageTree, scan_tree
from scalesearch.data.mapped import MappedImages
from scalesearch.data.memory import disk_note, goes_to_disk, not_written
from scalesearch.data.skipped_files import path_below, shown_path, skip_warnings
from scalesearch.data.source import Source, SourceData
from scalesearch.data.targets import LABELS, Labels
from scalesearch.data.unreadable_kinds import check_kinds
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings

if TYPE_CHECKING:
    from scalesearch.data.decode import Reading


def load(settings: DataSettings, *, storage: InputSize, cache_folder: Path) -> SourceData:
    """Load the images of a folder tree, which are decoded once and kept in `cache_folder` until a file changes.

    A set that would take much of the memory stays in that file, which is mapped (`data.memory`).

    Raises:
        ConfigError: If the tree has no known shape, a class is empty, too many files are unreadable, or the images fit
            neither into memory nor onto the disk.
    """
    from scalesearch.data.decode import Reading

    root = Path(settings.source).expanduser()
    tree = scan_tree(root, layout=settings.layout)
    number = len(tree.files)
    first = cached_arrays(
        cache_folder,
        f"copies-{files_key(tree, None)}",
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
    reading = Reading(size=storage, window=settings.window, fit=settings.framing, images=len(tree.files))
    arrays, notes = decoded(tree, reading, settings, cache_folder=cache_folder)
    warnings = skip_warnings(tree, arrays, max_fraction=settings.max_skipped_fraction)
    return SourceData(
        name=root.resolve().name or str(root),
        class_names=tree.class_names,
        train=_split(tree, arrays, "train"),
        val=_split(tree, arrays, "val") if any(file.split == "val" for file in tree.files) else None,
        test=_split(tree, arrays, "test") if any(file.split == "test" for file in tree.files) else None,
        warnings=(*warnings, *kinds, *(os.fsencode(note).decode("utf-8", "replace") for note in tree.notes)),
        divided=tree.divided,
        notes=notes,
    )


def decoded(
    tree: ImageTree, reading: "Reading", settings: DataSettings, *, cache_folder: Path
) -> tuple[Arrays, tuple[str, ...]]:
    """Return the arrays of `_decode` and the `images`, in memory or mapped, and a line for the user on mapped ones.

    Raises:
        ConfigError: If the images fit neither into memory nor onto the disk.
    """
    name, where, number = f"folder-{files_key(tree, reading)}", f"data {tree.root}", len(tree.files)
    file = cache_file(cache_folder, name)

    def whole(arrays: Arrays) -> None:
        _require_whole(arrays, number, reading.size)

    if not goes_to_disk(images=number, size=reading.size, where=where, memory=settings.memory, file=file):
        return cached_arrays(cache_folder, name, lambda: _decode_all(tree, reading), whole=whole), ()
    shape = (number, *reading.size.sides, 3)
    try:
        arrays = mapped_arrays(
            cache_folder, name, partial(_decode, tree, reading), rows="images", shape=shape, whole=whole
        )
    except OSError as error:
        raise not_written(where, file, error) from error
    note = disk_note(images=number, size=reading.size, where=where, memory=settings.memory, file=file)
    return arrays, (note,)


def _first_of_equal(tree: ImageTree) -> NDArray[np.int64]:
    return first_of_equal([file.path for file in tree.files])


def files_key(tree: ImageTree, reading: "Reading | None") -> str:
    """Return a key that changes with the wanted pixels, and with the path, size or time of change of any file."""
    from scalesearch.data.decode import DECODER_VERSION

    def state(path: Path) -> tuple[int, int]:
        try:
            status = path.stat()
        except (OSError, ValueError):
            return (-1, -1)  # a broken link, or no name of a file; it will be skipped
        return (status.st_size, status.st_mtime_ns)

    files = [(os.fsencode(path_below(file.path, tree.root)), *state(file.path)) for file in tree.files]
    return content_key(DECODER_VERSION, reading, os.fsencode(tree.root.resolve()), files)


def _decode_all(tree: ImageTree, reading: "Reading") -> Arrays:
    """Return what `_decode` returns, and its images as `images` of shape (read, height, width, 3)."""
    images = np.empty((len(tree.files), *reading.size.sides, 3), np.uint8)
    number = 0

    def put(image: NDArray[np.uint8]) -> None:
        nonlocal number
        images[number] = image
        number += 1

    others = _decode(tree, reading, put)
    return {"images": images[:number], **others}


def _decode(tree: ImageTree, reading: "Reading", put: Put) -> Arrays:
    """Decode the files of the tree one by one.

    Args:
        tree: The files.
        reading: How they become pixels.
        put: Is called with each image, of shape (height, width, 3), in the tree's order.

    Returns:
        The facts `sizes`, `kinds` and `samples` of the images; `kept` of shape (files,), whether each file of the tree
        became an image; and `skipped`, the reasons why the others did not, as JSON. Files that could not be read have
        no image and no facts.
    """
    from scalesearch.data.decode import UNREADABLE, decode

    facts: list[ImageFact] = []
    kept = np.zeros(len(tree.files), np.bool_)
    reasons: list[str] = []
    for index, file in enumerate(tree.files):
        try:
            image, fact = decode(file.path, reading)
        except UNREADABLE as error:
            reason = (str(error).splitlines() or [""])[0][:80] or type(error).__name__
            reasons.append(f"{shown_path(file.path, tree.root)} ({reason})")
            continue
        put(image)  # outside of the try block: a full disk is no fault of the image
        facts.append(fact)
        kept[index] = True
    skipped = np.frombuffer(json.dumps(reasons).encode(), np.uint8)
    return {"kept": kept, "skipped": skipped, **as_arrays(gathered(facts))}


def _require_first(first: NDArray[np.generic], files: int) -> None:
    """Check that a stored array is what `_first_of_equal` gives for the given number of files.

    Raises:
        ValueError: If it is not.
    """
    fit = first.shape == (files,) and first.dtype == np.int64
    places = first.astype(np.int64) if fit else np.empty(0, np.int64)
    # The first file with the same content never comes after the file itself, and its entry is its own index.
    if not fit or (places < 0).any() or (places > np.arange(files)).any() or (places[places] != places).any():
        msg = f"{first.shape} {first.dtype} places of {files} files"
        raise ValueError(msg)


def _require_whole(arrays: Arrays, files: int, size: InputSize) -> None:
    """Check that stored arrays are what `_decode` makes of the given number of files.

    After its images, `images` may hold an image of zeros for each file that could not be read.

    Raises:
        KeyError: If an array is missing.
        ValueError: If an array is not as expected.
    """
    images, kept = arrays["images"], arrays["kept"]
    reasons = json.loads(arrays["skipped"].tobytes())
    wanted = (int(kept.sum()), *size.sides, 3)
    fit = images.shape == wanted or images.shape == (files, *wanted[1:])
    if kept.dtype != np.bool_ or kept.shape != (files,) or images.dtype != np.uint8 or not fit:
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
    facts, stored = from_arrays(arrays).part(where), arrays["images"]
    names = np.asarray([shown_path(file.path, tree.root) for file in kept], np.str_)[where]
    if isinstance(stored, np.memmap):
        images = MappedImages(stored, places=np.flatnonzero(where))
        return ImageSplit(images=images, targets=Labels(labels[where]), facts=facts, names=names)
    pixels: NDArray[np.uint8] = stored[: len(kept)].astype(np.uint8, copy=False)
    return ImageSplit(images=pixels[where], targets=Labels(labels[where]), facts=facts, names=names)


SOURCE = Source(
    kind="folder",
    targets=LABELS,
    load=load,
    takes_path=Path.is_dir,
    path_words="a folder",
    layout="A folder holds train/CLASS/*.jpg and val/CLASS/*.jpg, or CLASS/*.jpg to be split.",
    least_classes=2,
)
