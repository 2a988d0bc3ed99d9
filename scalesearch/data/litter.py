"""Recognise images by their file names, and files that file managers, network disks and cameras leave next to them."""

import os
import re
from pathlib import Path
from typing import Final

SUFFIXES: Final = frozenset(
    (".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
)
"""Suffixes of image files, in lower case."""
_FOLDERS: Final = frozenset(
    (
        # Synology, QNAP and NetApp network disks
        "@eadir", "@recycle", "@recently-snapshot", "@tmp", "@sharebin", "#recycle", "#snapshot", "~snapshot",
        # Windows
        "$recycle.bin", "system volume information",
        # macOS (the others begin with a dot), Linux and Android
        "__macosx", "network trash folder", "temporary items", "lost+found", "lost.dir",
        # programs
        "__pycache__", "_vti_cnf", "_vti_pvt",
    )
)  # fmt: skip
_BASKETS: Final = frozenset(("recycler", "recycled"))
"""Waste baskets of old versions of Windows. In data sets of waste these can also be names of classes, so the content
of the folder decides."""
_FOUND: Final = re.compile(r"found\.\d{3}")
"""The name that Windows gives to a folder of rescued file fragments."""
_FILES: Final = frozenset(
    ("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "picasa.ini", "icon\r", "zbthumbnail.info")
)


def is_litter(path: Path) -> bool:
    """Tell whether a system left this file or folder: it is hidden (a leading dot) or has a known name."""
    folded = path.name.casefold()
    if folded in _BASKETS:
        return _holds_deleted_files(path)
    return folded.startswith(".") or folded in _FOLDERS or folded in _FILES or _FOUND.fullmatch(folded) is not None


def is_in_litter(path: Path, folder: Path) -> bool:
    """Tell whether this file, or a folder between it and the given one, is what a system left."""
    while path != folder:
        if is_litter(path):
            return True
        path = path.parent
    return False


def _holds_deleted_files(folder: Path) -> bool:
    """Tell whether this is a waste basket: it holds an account's folder, or the list of deleted files."""
    try:
        with os.scandir(folder) as entries:
            return any(entry.name.startswith("S-1-") or entry.name.casefold() == "info2" for entry in entries)
    except OSError:
        return False
