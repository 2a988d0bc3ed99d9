"""Replace files so that a reader finds the old or the new content and never a part of it."""

import os
import re
import stat
import tempfile
from pathlib import Path

MAX_FILE_BYTES = 256 * 2**20
"""Default limit of `read_file`: more bytes than any file of a study that is read in one piece."""

_PARTIAL = re.compile(r"\..+\.[a-z0-9_]+\.partial")


def read_file(path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Return the content of a regular file of at most `max_bytes`.

    Raises:
        OSError: The file is not there, or cannot be read.
        ValueError: It is not a regular file (reading a pipe could wait forever), or is larger than `max_bytes`.
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
    """Write `content` to `path`, so that the file is whole and on the disk when this returns.

    A process that is killed meanwhile leaves no half-written file: the content goes into a temporary file in the same
    folder, is flushed, and is then renamed to `path`. Missing folders are made.

    Raises:
        OSError: The file cannot be written. An older file at `path` is then unchanged.
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
    """Remove what `replace_file` left in the folder and below when it was killed; return the number of files.

    Call it only while holding the folder: otherwise another process may be writing one of these files.
    """
    removed = 0
    for path in folder.rglob(".*.partial"):
        if _PARTIAL.fullmatch(path.name) and not path.is_dir():
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def sync_folder(folder: Path) -> None:
    """Flush the folder's list of names to the disk, since a rename alone may be lost in a power cut."""
    if os.name != "posix":  # Windows cannot open folders and needs no flush
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _ordinary_mode() -> int:
    """Return the permission bits that the umask gives to a new file, but never write permission for others.

    A user who can change a record can change which network is deployed.
    """
    mask = os.umask(0o077)  # strict while it is read: another thread may make a file at this moment
    os.umask(mask)
    return 0o664 & ~mask


def absolute_from(folder: Path, path: str) -> str:
    """Return the absolute path of `path`, which may start from `folder` or from `~`; links stay, `..` goes."""
    return os.path.abspath(folder / Path(path).expanduser())  # noqa: PTH100  (Path.resolve would follow links)


def is_folder(path: Path) -> bool:
    """Tell whether the folder exists; False too for a name that the system does not allow, such as one too long."""
    return os.path.isdir(path)  # noqa: PTH112  (Path.is_dir raises for them)


def is_file(path: Path) -> bool:
    """Tell whether the file exists; False too for a name that the system does not allow."""
    return os.path.isfile(path)  # noqa: PTH113  (Path.is_file raises for them)


def named(folder: Path) -> Path:
    """Return the folder by a path that ends with its name, which `.` and `..` do not."""
    return folder.resolve() if folder.name in ("", "..") else folder
