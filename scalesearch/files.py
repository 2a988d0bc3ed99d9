"""Files that are whole or not there: the one way in which this program replaces a file."""

import os
import re
import stat
import tempfile
from pathlib import Path

MAX_FILE_BYTES = 256 * 2**20
"""Above what any file of a study that is read whole holds."""

_PARTIAL = re.compile(r"\..+\.[a-z0-9_]+\.partial")


def read_file(path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """The content of a plain file of a bearable size.

    Raises:
        OSError: It is not there, or cannot be read.
        ValueError: It is no plain file (a pipe would be waited for without end), or larger than `max_bytes`.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        message = "it is no plain file"
        raise ValueError(message)
    if status.st_size > max_bytes:
        message = f"it has {status.st_size / 1e6:.0f} MB, expected at most {max_bytes / 1e6:.0f}"
        raise ValueError(message)
    return path.read_bytes()


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
    """As the umask has it, but never writable for everybody: who changes a record changes what is deployed."""
    mask = os.umask(0o077)  # tight while it is asked for: another thread may make a file just now
    os.umask(mask)
    return 0o664 & ~mask
