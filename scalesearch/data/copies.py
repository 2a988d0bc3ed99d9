"""Find files of equal content: use them once within a class, and report them across classes and splits."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scalesearch.data.dataset import ImageSplit
from scalesearch.data.folder_tree import ImageFile, ImageTree
from scalesearch.data.resize import rows_of_chunk
from scalesearch.data.split_names import SPLITS

_CHUNK_BYTES: Final = 2**20


def first_of_equal(paths: Sequence[Path]) -> NDArray[np.int64]:
    """Return for every file the index of the first file with the same content, which may be its own.

    Files of different sizes cannot be equal, so only files of the same size are read. Empty and unreadable files are
    never treated as copies.

    Returns:
        Indices of shape (number of paths,).
    """
    first = np.arange(len(paths), dtype=np.int64)
    by_size: defaultdict[int, list[int]] = defaultdict(list)
    for index, path in enumerate(paths):
        by_size[_size_bytes(path)].append(index)
    for size_bytes, indices in by_size.items():
        if size_bytes <= 0 or len(indices) < 2:
            continue
        seen: dict[bytes, int] = {}
        for index in indices:
            digest = _digest(paths[index])
            if digest:
                first[index] = seen.setdefault(digest, index)
    return first


def without_copies(tree: ImageTree, first: NDArray[np.int64], *, pooled: bool = False) -> ImageTree:
    """Keep each content once per class and split, and add notes on what was found.

    The notes give the number of copies left out, and the contents that are in two splits or in two classes.

    Args:
        tree: The files as they were scanned.
        first: The result of `first_of_equal` for the tree's files, of shape (number of files,).
        pooled: Whether train and val are joined and split again. A copy could then fall into either of them, so they
            count as one split.
    """
    groups: defaultdict[int, list[ImageFile]] = defaultdict(list)
    kept: list[ImageFile] = []
    for file, origin in zip(tree.files, first.tolist(), strict=True):
        group = groups[origin]
        counted = replace(file, split="train") if pooled and file.split == "val" else file
        if not any((other.split, other.label) == (counted.split, counted.label) for other in group):
            group.append(counted)
            kept.append(file)
    notes = []
    if dropped := len(tree.files) - len(kept):
        notes.append(f"data {tree.root}: {dropped} files are copies of others of their class, so each is used once")
    shared = [group for group in groups.values() if len(group) > 1]
    notes += _notes_of_splits(tree, [group for group in shared if len({file.split for file in group}) > 1])
    notes += _notes_of_classes(tree, [group for group in shared if len({file.label for file in group}) > 1])
    return replace(tree, files=tuple(kept), notes=(*tree.notes, *notes))


def equal_images(splits: dict[str, ImageSplit], *, name: str) -> tuple[str, ...]:
    """Warn of images that are equal, pixel for pixel, in two splits, in two classes or in one class.

    Classes are those by which the targets are stratified; without them only the splits are compared.

    Args:
        splits: Splits by name, with images of shape (number, height, width, 3).
        name: Name of the data set, for the warnings.
    """
    digests = {
        split: [hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=16).digest() for image in _each(part)]
        for split, part in splits.items()
    }
    names = list(digests)
    warnings = []
    for place, first in enumerate(names):
        for second in names[place + 1 :]:
            if both := len({*digests[first]} & {*digests[second]}):
                warnings.append(
                    f"data {name}: {both} images are in {first} and in {second}: accuracy on {second} will be too high"
                )
    return (*warnings, *_copies_within(splits, digests, name))


def _each(split: ImageSplit) -> Iterator[NDArray[np.uint8]]:
    """Yield the images one by one; of images on disk only a few are in memory at a time."""
    step = rows_of_chunk(split.images.shape)
    for start in range(0, len(split), step):
        yield from split.images[start : start + step]


def _copies_within(splits: dict[str, ImageSplit], digests: dict[str, list[bytes]], name: str) -> Iterator[str]:
    """Warn of images that are twice in one class of an array, and of images that have two labels."""
    strata = {split: part.targets.strata() for split, part in splits.items()}
    pairs = {
        split: list(zip(digests[split], found.tolist(), strict=True))
        for split, found in strata.items()
        if found is not None
    }
    copies = sum(len(of_split) - len(set(of_split)) for of_split in pairs.values())
    if copies:
        yield (
            f"data {name}: {copies} images are copies of others of their class, which may fall into two splits where "
            "arrays are split anew; write the file without them"
        )
    labels: defaultdict[bytes, set[int]] = defaultdict(set)
    for of_split in pairs.values():
        for digest, label in of_split:
            labels[digest].add(label)
    if two := sum(len(found) > 1 for found in labels.values()):
        yield f"data {name}: {two} images are in two classes: one of the labels is wrong"


def _notes_of_splits(tree: ImageTree, groups: list[list[ImageFile]]) -> list[str]:
    counts = Counter(_splits_of(group) for group in groups)
    return [
        f"data {tree.root}: {count} images are in {splits}, e.g. {_pair(tree, groups, splits)}: accuracy will be too "
        "high; take them out of one of the two"
        for splits, count in counts.items()
    ]


def _splits_of(group: Iterable[ImageFile]) -> str:
    there = {file.split for file in group}
    return " and ".join(split for split in SPLITS if split in there)


def _pair(tree: ImageTree, groups: Iterable[list[ImageFile]], splits: str) -> str:
    group = next(group for group in groups if _splits_of(group) == splits)
    two = {file.split: file for file in group}
    return " = ".join(_shown(tree, file) for file in list(two.values())[:2])


def _notes_of_classes(tree: ImageTree, groups: list[list[ImageFile]]) -> list[str]:
    if not groups:
        return []
    two = {file.label: file for file in groups[0]}
    example = " = ".join(_shown(tree, file) for file in list(two.values())[:2])
    return [f"data {tree.root}: {len(groups)} images are in two classes, e.g. {example}: one of the labels is wrong"]


def _shown(tree: ImageTree, file: ImageFile) -> str:
    return str(file.path.relative_to(tree.root)).encode("utf-8", "replace").decode()


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _digest(path: Path) -> bytes:
    """Return the hash of a file's content, or empty bytes if it cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError:
        return b""
    return digest.digest()
