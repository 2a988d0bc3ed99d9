"""Warnings about files of an image folder that were left out."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from scalesearch.data.cache import Arrays
from scalesearch.data.folder_tree import ImageTree
from scalesearch.data.unreadable_kinds import KINDS
from scalesearch.errors import ConfigError

SHOWN_FILES = 3


def skip_warnings(tree: ImageTree, arrays: Arrays, *, max_fraction: float) -> tuple[str, ...]:
    """Return warnings about the files that were left out.

    Raises:
        ConfigError: If more than `max_fraction` of the image files could not be read.
    """
    warnings = []
    reasons: list[str] = json.loads(arrays["skipped"].tobytes())
    if reasons:
        text = f"data {tree.root}: skipped {len(reasons)} of {len(tree.files)} image files: {first_of(reasons)}"
        if len(reasons) > max_fraction * len(tree.files):
            msg = (
                f"data {tree.root}: expected at most {100 * max_fraction:g} % unreadable image files, came "
                f"{len(reasons)} of {len(tree.files)}: {first_of(reasons)}.\n"
                f"Repair or delete them, or allow more with --set data.max_skipped_fraction=..."
            )
            raise ConfigError(msg)
        warnings.append(text)
    names = [shown_path(path, tree.root) for path in tree.others if path.suffix.lower() not in KINDS]
    if names:
        warnings.append(f"data {tree.root}: left out {len(names)} files that are no images by name: {first_of(names)}")
    return tuple(warnings)


def first_of(items: Sequence[str]) -> str:
    """Return the first few items as one text."""
    return ", ".join(items[:SHOWN_FILES]) + (", ..." if len(items) > SHOWN_FILES else "")


def shown_path(path: Path, root: Path) -> str:
    """Return `path_below` as text; bytes that are no UTF-8 become a replacement character."""
    return os.fsencode(path_below(path, root)).decode("utf-8", "replace")


def path_below(path: Path, root: Path) -> str:
    """Return the path as seen from the root, which is the same however the root was typed.

    A file that is not below the root, as a list or a data.yaml may name it, is seen as `../other/photo.jpg`.
    """
    if path.is_relative_to(root):
        return os.path.normpath(path.relative_to(root))
    given, start = Path(os.path.abspath(path)), Path(os.path.abspath(root))  # noqa: PTH100  (keeps links)
    if given.is_relative_to(start):
        return os.fspath(given.relative_to(start))
    return os.path.relpath(given.parent.resolve() / given.name, root.resolve())
