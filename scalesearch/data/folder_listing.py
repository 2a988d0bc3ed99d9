"""List the contents of a folder: subfolders, images and other files, without those that a system left there."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from scalesearch.data.litter import SUFFIXES, is_litter
from scalesearch.errors import ConfigError

_TABLES: Final = frozenset((".csv", ".tsv", ".json", ".jsonl", ".xlsx", ".parquet"))
SHOWN: Final = 5
"""How many names a message lists at most."""


@dataclass(slots=True)
class LeftOut:
    """What `scan_tree` skipped, so that its notes can tell the user."""

    litter: Counter[str] = field(default_factory=Counter)
    folders: list[str] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    """Folders that have the name of a split but were read as classes."""
    loose: dict[str, int] = field(default_factory=dict)
    """For each folder, the number of images that lie directly in it instead of in one of its class folders."""


def listed(names: Sequence[str]) -> str:
    """Join the first names with commas, and with dots where there are more."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def subfolders(folder: Path, left: LeftOut) -> list[Path]:
    """List the folders that a person made, sorted as ImageFolder sorts them; links to folders are included."""
    found = [child for child in _listing(folder) if child.is_dir()]
    _count_litter(found, left)
    return [child for child in found if not is_litter(child)]


def _listing(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        msg = f"data {folder}: expected a folder that can be read, came: {error.strerror}. Check path and permissions."
        raise ConfigError(msg) from error


def _count_litter(found: Iterable[Path], left: LeftOut) -> None:
    for child in found:
        if is_litter(child) and not child.name.startswith("."):
            left.litter[child.name] = max(left.litter[child.name], 1)


def images_in(folder: Path) -> list[Path]:
    """List the images that lie directly in the folder."""
    return [
        child
        for child in _listing(folder)
        if child.suffix.lower() in SUFFIXES and not is_litter(child) and not child.is_dir()
    ]


def has_images(folder: Path) -> bool:
    """Tell whether images lie directly in the folder."""
    return bool(images_in(folder))


def tables_in(folder: Path) -> list[str]:
    """List the names of the files in the folder that may hold labels."""
    return [child.name for child in _listing(folder) if child.suffix.lower() in _TABLES and not is_litter(child)]


def files_below(folder: Path, *, seen: set[tuple[int, int]], left: LeftOut) -> list[Path]:
    """List the visible files at any depth, sorted; visit each real folder once, so that a loop of links ends."""
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return []
        seen.add((status.st_dev, status.st_ino))
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        msg = f"data {folder}: expected a folder that can be read, came: {error.strerror}. Check its permissions."
        raise ConfigError(msg) from error
    files: list[Path] = []
    for entry in entries:
        if is_litter(Path(entry.path)):
            if not entry.name.startswith("."):
                left.litter[entry.name] += 1
        elif _is_folder(entry):
            files.extend(files_below(Path(entry.path), seen=seen, left=left))
        else:
            files.append(Path(entry.path))
    return files


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link to itself; it is counted as an unreadable file later
