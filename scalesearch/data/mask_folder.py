"""The source of images with masks in folders: decoded once, checked, and kept in the cache."""

import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from scalesearch.data.black_and_white import are_black_and_white, in_classes, names_of, unveiled
from scalesearch.data.cache import Arrays, Put, cache_file, cached_arrays, content_key, mapped_arrays
from scalesearch.data.facts import ImageFact, as_arrays, gathered
from scalesearch.data.framing import crop_box
from scalesearch.data.mask_checks import (
    UNCROPPED,
    Found,
    crop_warnings,
    refuse_beyond,
    refuse_faults,
    refuse_many,
    refuse_single,
    require_masks,
    require_whole,
    shown,
    warnings_of,
)
from scalesearch.data.mask_reading import MAY_BE_LOSSY, VEILED, MaskFaultError, read_mask, turned_like
from scalesearch.data.mask_splits import Splits
from scalesearch.data.mask_tree import LAYOUT, MaskedFile, MaskTree, holds_masks, scan_masks
from scalesearch.data.masks import MASKS, UNLABELLED, Mask, MaskStore, PackedMask
from scalesearch.data.memory import disk_note, goes_to_disk, not_written
from scalesearch.data.source import Source, SourceData
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings

if TYPE_CHECKING:
    from scalesearch.data.decode import Reading

# Part of the cache key: raise it when a change to the code makes the same files give other masks.
_VERSION: Final = 3


def load(settings: DataSettings, *, storage: InputSize, cache_folder: Path) -> SourceData:
    """Load the images and masks of a folder, which are decoded once and kept in `cache_folder` until a file changes.

    Raises:
        ConfigError: The folder has another shape, masks cannot be understood (the text names the first files), or too
            many files cannot be read or have no mask.
    """
    from scalesearch.data.decode import Reading

    tree = scan_masks(Path(settings.source).expanduser())
    require_masks(tree, settings.max_skipped_fraction)
    reading = Reading(size=storage, window=settings.window, fit=settings.framing, images=len(tree.files))
    arrays, notes = _decoded(tree, reading, settings, cache_folder=cache_folder)
    found: dict[str, list[str]] = json.loads(arrays["found"].tobytes())
    skipped = found.pop("skipped")
    refuse_many(tree, skipped, settings.max_skipped_fraction)
    store = MaskStore.of_arrays(dict(arrays))
    black_and_white = bool(arrays["black_and_white"][0])
    names, binary = names_of(tree, store, black_and_white=black_and_white)
    refuse_single(tree, store, found, binary=binary)
    veiled = black_and_white and bool(store.counts[:, VEILED].any())
    if binary or veiled:
        store = in_classes(store, white=1 if binary else UNLABELLED)
    if "empty" in found:  # a mask that is white as a whole has a class in a black and white set
        labelled = np.flatnonzero(arrays["kept"])[(store.counts[:, :UNLABELLED] > 0).any(axis=1)]
        with_class = {shown(tree, tree.files[place].mask) for place in labelled}
        empty = [name for name in found.pop("empty") if name not in with_class]
        found |= {"empty": empty} if empty else {}
    refuse_beyond(tree, arrays, store, names)
    splits = Splits(tree=tree, arrays=arrays, store=store, storage=storage, settings=settings)
    return SourceData(
        name=tree.root.resolve().name or str(tree.root),
        class_names=names,
        train=splits.of("train"),
        val=splits.of("val") if any(file.split == "val" for file in tree.files) else None,
        test=splits.of("test") if any(file.split == "test" for file in tree.files) else None,
        warnings=(
            *warnings_of(tree, found, skipped, binary=binary, veiled=veiled),
            *_left_out(tree, arrays, store, classes=len(names), binary=binary, size=storage),
        ),
        divided=tree.divided,
        notes=notes,
    )


def _left_out(
    tree: MaskTree, arrays: Arrays, store: MaskStore, *, classes: int, binary: bool, size: InputSize
) -> tuple[str, ...]:
    """Return a line on the labelled pixels that lie outside the centre crop; none without a crop.

    Args:
        tree: The files.
        arrays: What `_decode` gave.
        store: The masks in classes.
        classes: Number of classes.
        binary: Whether the masks are black and white, of two classes.
        size: Height and width of the stored images.
    """
    if UNCROPPED not in arrays:
        return ()
    values = [0, UNLABELLED] if binary else list(range(classes))
    labelled = np.asarray(arrays[UNCROPPED], np.int64)[:, values].sum(axis=1)
    kept = store.counts[:, :classes].sum(axis=1, dtype=np.int64)
    return crop_warnings(str(tree.root), labelled, kept, size)


def _decoded(
    tree: MaskTree, reading: "Reading", settings: DataSettings, *, cache_folder: Path
) -> tuple[Arrays, tuple[str, ...]]:
    """Return the arrays of `_decode` and the `images`, in memory or mapped, and a line for the user on mapped ones."""
    name, where, number = f"masks-{_key(tree, reading)}", f"data {tree.root}", len(tree.files)
    file, shape = cache_file(cache_folder, name), (number, *reading.size.sides, 3)

    def whole(arrays: Arrays) -> None:
        require_whole(arrays, number, reading.size, cropped=reading.fit == "crop")

    if not goes_to_disk(images=number, size=reading.size, where=where, memory=settings.memory, file=file):
        return cached_arrays(cache_folder, name, lambda: _decode_all(tree, reading, shape), whole=whole), ()
    try:
        arrays = mapped_arrays(
            cache_folder, name, partial(_decode, tree, reading), rows="images", shape=shape, whole=whole
        )
    except OSError as error:
        raise not_written(where, file, error) from error
    note = disk_note(images=number, size=reading.size, where=where, memory=settings.memory, file=file)
    return arrays, (note,)


def _key(tree: MaskTree, reading: "Reading") -> str:
    """Return a key that changes with the wanted pixels, the colours, and the state of any file."""
    from scalesearch.data.decode import DECODER_VERSION

    def state(path: Path) -> tuple[bytes, int, int]:
        try:
            status = path.stat()
        except OSError:
            return os.fsencode(path), -1, -1
        return os.fsencode(os.path.relpath(path, tree.root)), status.st_size, status.st_mtime_ns

    files = [(state(file.image), state(file.mask)) for file in tree.files]
    colours = sorted(tree.colours.items()) if tree.colours else None
    # Some of these were read by earlier versions whose arrays may be in the cache, and are refused now.
    checked = ("lossless",) if any(file.mask.suffix.lower() in MAY_BE_LOSSY for file in tree.files) else ()
    return content_key(DECODER_VERSION, _VERSION, reading, os.fsencode(tree.root.resolve()), colours, files, *checked)


def _decode_all(tree: MaskTree, reading: "Reading", shape: tuple[int, ...]) -> Arrays:
    images, number = np.empty(shape, np.uint8), 0

    def put(image: NDArray[np.uint8]) -> None:
        nonlocal number
        images[number] = image
        number += 1

    others = _decode(tree, reading, put)
    return {"images": images[:number], **others}


def _decode(tree: MaskTree, reading: "Reading", put: Put) -> Arrays:
    """Decode images and masks one by one. Each mask is compressed at once: those of a large set would fill the memory.

    Args:
        tree: The files.
        reading: How the images become pixels.
        put: Is called with each image, of shape (height, width, 3), in the tree's order.

    Returns:
        The facts of the images, the masks (`MaskStore.arrays`), `kept` of shape (files,), `found`, the remarks on files
        as JSON, `black_and_white` of shape (1,): whether 255 may be a class, for then masks may still be veiled; and of
        cropped images `UNCROPPED`. Pairs of which one could not be read are left out.

    Raises:
        ConfigError: Masks cannot be understood.
    """
    from scalesearch.data.decode import UNREADABLE, decode

    facts, masks, found = list[ImageFact](), list[PackedMask](), Found()
    unclear, veiled, uncropped = list[tuple[int, Path]](), list[int](), list[NDArray[np.int64]]()
    kept = np.zeros(len(tree.files), np.bool_)
    for index, file in enumerate(tree.files):
        name = shown(tree, file.mask)
        try:
            image, fact = decode(file.image, reading)
            mask, remarks = _mask_of(tree, file, fact.size)
        except MaskFaultError as fault:
            found.faults.setdefault(fault.kind, [str(fault)]).append(name)
            continue
        except UNREADABLE as error:
            reason = (str(error).splitlines() or [""])[0][:80] or type(error).__name__
            found.skipped.append(f"{name} ({reason})")
            continue
        put(image)
        if "unclear" in remarks:
            unclear.append((len(masks), file.image))
        if "veiled" in remarks:
            veiled.append(len(masks))
        facts.append(fact)
        if reading.fit == "crop":
            uncropped.append(np.bincount(mask.ravel(), minlength=256))
        masks.append(PackedMask.of(mask if "unclear" in remarks else _seen(mask, reading)))
        kept[index] = True
        empty = np.isin(mask, (UNLABELLED, VEILED) if "veiled" in remarks else (UNLABELLED,)).all()
        for remark in (*remarks, *(["empty"] if empty else ())):
            found.remarks[remark].append(name)
    refuse_faults(tree, found)
    lie_as_files = _lie_as_files(found)
    for place, image_file in unclear:  # these are whole until here: what is seen of a mask depends on how it lies
        mask = masks[place].mask()
        masks[place] = PackedMask.of(_seen(turned_like(mask, image_file) if lie_as_files else mask, reading))
    found.remarks.pop("veiled", None)
    black_and_white = are_black_and_white(masks, veiled)
    for place in () if black_and_white else veiled:
        masks[place] = PackedMask.of(unveiled(masks[place].mask()))
    said = json.dumps({**found.remarks, "skipped": found.skipped})
    return {
        "kept": kept,
        "found": np.frombuffer(said.encode(), np.uint8),
        "black_and_white": np.asarray([black_and_white]),
        **({UNCROPPED: np.asarray(uncropped, np.int32).reshape(-1, 256)} if reading.fit == "crop" else {}),
        **MaskStore.of(masks).arrays(),
        **as_arrays(gathered(facts)),
    }


def _mask_of(tree: MaskTree, file: MaskedFile, size: tuple[int, int]) -> tuple[Mask, tuple[str, ...]]:
    """Return the mask of an image of this width and height, upright, and the remarks on it.

    Raises:
        MaskFaultError: It cannot be understood, or its shape is not the image's.
    """
    read = read_mask(file.mask, tree.colours)
    mask, remarks = read.mask, read.remarks
    (height, width), (wide, high) = mask.shape, size
    if (width, height) == (wide, high):
        return mask, (*remarks, *_lying(mask, file.image))
    if (width, height) == (high, wide):
        mask = turned_like(mask, file.image)
        if mask.shape == (high, wide):
            return mask, (*remarks, "turned")
        text = f"{width} x {height} for an image of {wide} x {high}"
        raise MaskFaultError(text, kind="shape")
    if abs(width * high - height * wide) > max(wide, high):  # more than rounding
        text = f"{width} x {height} for an image of {wide} x {high}"
        raise MaskFaultError(text, kind="shape")
    return mask, (*remarks, *_lying(mask, file.image), "other_size")


def _lying(mask: Mask, image: Path) -> tuple[str, ...]:
    """Return what a mask that has its upright image's shape tells of the set, if EXIF turns or mirrors the image.

    It is "upright" if EXIF exchanges width and height, for then the shape tells how the mask lies, else "unclear".
    """
    from scalesearch.data.decode import orientation_of

    orientation = orientation_of(image)
    if orientation == 1:
        return ()
    return ("upright",) if orientation >= 5 and mask.shape[0] != mask.shape[1] else ("unclear",)


def _lie_as_files(found: Found) -> bool:
    """Tell whether masks lie as their images' files do where their shapes cannot tell, by all those whose shapes do.

    The remarks become what then holds: where the masks whose shapes tell are all alike, nothing is unclear.
    """
    upright, turned = found.remarks.pop("upright", []), found.remarks.get("turned", [])
    if bool(upright) == bool(turned):
        return False
    unclear = found.remarks.pop("unclear", [])
    turned.extend(unclear if turned else ())
    return bool(turned)


def _seen(mask: Mask, reading: "Reading") -> Mask:
    """Return the part of the mask that the stored image shows."""
    if reading.fit != "crop":
        return mask
    left, top, right, bottom = crop_box(mask.shape[1], mask.shape[0], reading.size)
    return mask[top:bottom, left:right]


SOURCE = Source(
    kind="mask folder",
    targets=MASKS,
    load=load,
    takes_path=holds_masks,
    path_words="a folder of images and masks, or its data.yaml",
    layout=LAYOUT,
    least_classes=2,
)
