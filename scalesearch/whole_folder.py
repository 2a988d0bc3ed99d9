"""Folders that are whole or not there: filled beside their place under another name, then put there by one rename."""

import contextlib
import ctypes
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from scalesearch.files import sync_folder

_NEW, _OLD = ".partial", ".replaced"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Give an empty folder to be filled; when the block ends, it takes the place of `target`.

    An error in the block leaves no trace: `target` stays what it was. A kill leaves `target` old or new, never a
    mixture, and hidden folders beside it, which the next call for the same target removes.

    Raises:
        OSError: The place cannot be written.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100  (a link is not followed)
    made = make_folders(target.parent)
    new = target.with_name(f".{target.name}.{os.getpid()}{_NEW}")
    try:
        _remove_leftovers(target)
        new.mkdir()
        with _held(new):
            yield new
            _put(new, target)
        sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        remove_empty(made)
        raise
    shutil.rmtree(new, ignore_errors=True)  # now the old one, where folders could be exchanged


def make_folders(folder: Path) -> tuple[Path, ...]:
    """Make the folder with its parents; those that were made, the innermost first.

    Raises:
        OSError: One cannot be made.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(missing)


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove these folders, as far as nothing is in them."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _put(new: Path, target: Path) -> None:
    if not target.exists():
        new.rename(target)
    elif not _exchange(new, target):
        # Two renames: a kill between them leaves the old folder aside, and the next call puts it back.
        aside = new.with_suffix(_OLD)
        target.rename(aside)
        try:
            new.rename(target)
        except OSError:
            aside.rename(target)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Whether the two changed places in one step, as Linux can."""
    if sys.platform != "linux":
        return False
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _remove_leftovers(target: Path) -> None:
    """Remove what killed processes left beside `target`; a folder that another process fills at this moment stays."""
    for suffix in (_OLD, _NEW):
        for left in target.parent.iterdir():
            number = left.name.removeprefix(f".{target.name}.").removesuffix(suffix)
            if left.name != f".{target.name}.{number}{suffix}" or not number.isdecimal() or not left.is_dir():
                continue
            if suffix == _OLD and not target.exists():
                left.rename(target)
                continue
            with contextlib.suppress(OSError), _held(left):
                shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """The folder is locked by this process; the system lets it go when the process dies.

    Raises:
        OSError: Another process holds it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
