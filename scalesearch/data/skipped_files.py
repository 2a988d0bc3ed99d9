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
    """Return the path below the root; bytes that are no UTF-8 become a replacement character."""
    return os.fsencode(path.relative_to(root)).decode("utf-8", "replace")
