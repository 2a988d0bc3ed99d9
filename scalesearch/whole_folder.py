"""Write folders that are complete or absent: fill one under a temporary name, then rename it to its place."""

import contextlib
import ctypes
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
    """Yield an empty folder to be filled; it replaces `target` when the block ends.

    If the block raises, `target` stays as it was. If the process is killed, `target` is the old folder or the new one,
    never a mixture; hidden folders may stay next to it, which the next call for the same target removes. Where two
    folders cannot be exchanged in one step, a kill may leave no `target`; the next call then puts the old one back. The
    caller must make sure that no other process replaces the same folder meanwhile (`folder_lock`).

    Raises:
        OSError: The folder cannot be written or renamed.
    """
    target = Path(os.path.abspath(target))  # noqa: PTH100  (a link is not followed)
    made = make_folders(target.parent)
    new, aside = (target.with_name(f".{target.name}{suffix}") for suffix in (_NEW, _OLD))
    try:
        _remove_leftovers(target, new, aside)
        new.mkdir()
        yield new
        _put(new, target, aside)
        sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        remove_empty(made)
        raise
    shutil.rmtree(new, ignore_errors=True)  # this is the old folder, where the two could be exchanged


def make_folders(folder: Path) -> tuple[Path, ...]:
    """Make the folder with its parents, and return those that were made, the innermost first.

    Raises:
        OSError: One of them cannot be made.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return tuple(missing)


def remove_empty(folders: Sequence[Path]) -> None:
    """Remove those of the folders that are empty."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _put(new: Path, target: Path, aside: Path) -> None:
    if not target.exists():
        new.rename(target)
    elif not _exchange(new, target):
        # Two renames: a kill between them leaves the old folder aside, and the next call puts it back.
        target.rename(aside)
        try:
            new.rename(target)
        except OSError:
            aside.rename(target)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step, as Linux can; tell whether it worked."""
    if sys.platform != "linux":
        return False
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None)
    if renameat2 is None:
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0)


def _remove_leftovers(target: Path, new: Path, aside: Path) -> None:
    """Remove what a killed process left next to `target`; put the old folder back if no new one has replaced it."""
    if aside.exists() and not target.exists():
        aside.rename(target)
    for left in (aside, new):
        if left.exists():
            shutil.rmtree(left)
