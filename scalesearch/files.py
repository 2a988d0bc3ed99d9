"""Files that are whole or not there: the one way in which this program replaces a file."""

import os
import re
import tempfile
from pathlib import Path

_PARTIAL = re.compile(r"\..+\.[a-z0-9_]+\.partial")


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` at `path`, whole and on the disk when this returns, whatever kills the process in between.

    It is written beside `path` under a temporary name, flushed and renamed; missing folders are made.

    Raises:
        OSError: The place cannot be written; what was at `path` is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(_ordinary_mode())  # mkstemp's 0600 would keep others from reading results
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def remove_partial_files(folder: Path) -> int:
    """Remove what `replace_file` left in the folder and below when it was killed; give the number of files.

    Only for who holds the folder: another process may be writing one of them at this moment.
    """
    removed = 0
    for path in folder.rglob(".*.partial"):
        if _PARTIAL.fullmatch(path.name) and not path.is_dir():
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def sync_folder(folder: Path) -> None:
    """Put the names in the folder on the disk: a rename alone may be lost in a power cut."""
    if os.name != "posix":  # Windows cannot open folders and needs nothing
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _ordinary_mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
