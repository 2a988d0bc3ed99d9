"""Lets one process at a time work in a folder: `hold_folder` keeps all others out until the process ends.

    with hold_folder(folder, "export") as hold:   # refused with a ConfigError that names who holds it
        ...                                       # nothing was written or renamed before this line
        hold.set_aside()                          # the folder is FOLDER.old1 (or the next free number) and is new

There are two lock files, because neither is enough by itself. The one next to the folder (`.NAME.lock`) also works
while the folder is renamed, replaced or does not exist yet. The one inside (`study.lock`) also works where the folder
has another path: it was moved during a run, or is mounted into a container, which does not see the file next to it.
The kernel frees both locks when the process dies, however it dies. A lock file that a killed process left behind locks
nothing, and the next hold removes it. Only writing needs the lock, not reading.

Give `inside=False` where the folder is filled under another name and then renamed, as an export is. No lock file is
made inside it then, but an existing one is respected. Pass a hold on to the functions that you call (`held=hold`), so
that it is not taken twice.
"""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from scalesearch.errors import ConfigError

try:
    from fcntl import LOCK_EX, LOCK_NB, flock

    HAS_FLOCK = True
except ImportError:  # Windows: nothing is locked, as measurement.device_lock says there
    HAS_FLOCK = False

INSIDE = "study.lock"
_OWNER_BYTES = 400
_log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class FolderHold:
    """A folder that only this process may write to, until `hold_folder` ends."""

    folder: Path
    what: str
    way_out: str
    inside: bool
    _open: dict[Path, int] = field(default_factory=dict)

    def set_aside(self) -> Path | None:
        """Rename the folder to the first free `NAME.oldN`, make a new one, and return the old one's new path.

        Where the folder is empty or absent, nothing is renamed and None is returned. If the folder is a link, the
        folder that it leads to is renamed, so that the link leads to the new one.

        Raises:
            ConfigError: The folder cannot be renamed or made.
        """
        there = self.folder.resolve()
        aside: Path | None = None
        try:
            if there.exists() and not _is_empty(there):
                aside = _free_name(there)
                there.rename(aside)
                (aside / INSIDE).unlink(missing_ok=True)
                self._close(there / INSIDE)
            there.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = (
                f"Cannot move {self.folder} aside: {error.strerror}.\nMake the folder that it lies in writable, or "
                "give another one with --to."
            )
            raise ConfigError(message) from None
        if self.inside:
            self.lock_inside()
        return aside

    def lock_inside(self) -> None:
        """Take the lock inside as well, once the folder exists. It is safe to call this again."""
        path = self.folder.resolve() / INSIDE
        if path not in self._open:
            self._open[path] = self._take(path)

    def leave_empty(self) -> None:
        """Remove the folder if only the lock is in it, so that a refused or stopped command leaves no trace."""
        there = self.folder.resolve()
        with suppress(OSError):
            if _is_empty(there):
                (there / INSIDE).unlink(missing_ok=True)
                self._close(there / INSIDE)
                there.rmdir()

    def put_back(self, aside: Path) -> bool:
        """Give what `set_aside` has renamed its name again, and tell whether that was done.

        It is not where the new folder is still there, since something was written into it, or the system refuses.
        """
        there = self.folder.resolve()
        with suppress(OSError):
            if not there.exists():
                aside.rename(there)
                return True
        return False

    def _take_all(self) -> None:
        there = self.folder.resolve()
        beside = there.with_name(f".{there.name}.lock")
        with suppress(OSError):  # no file can be made beside a mounted folder, for example: the lock inside must do
            there.parent.mkdir(parents=True, exist_ok=True)
            self._open[beside] = self._take(beside)
        if self.inside or (there / INSIDE).exists():
            try:
                if self.inside:
                    there.mkdir(parents=True, exist_ok=True)
                self.lock_inside()
            except OSError as error:
                message = f"Cannot write to {self.folder}: {error.strerror}.\n{_WRITABLE}"
                raise ConfigError(message) from None
        elif not self._open:
            message = f"Cannot write to {there.parent}, where {self.folder} is to lie.\n{_WRITABLE}"
            raise ConfigError(message)

    def _take(self, path: Path) -> int:
        """Return a descriptor that holds the lock of the file at `path`; the file is made if absent."""
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                if HAS_FLOCK:
                    self._lock(descriptor)
                if is_at(descriptor, path):
                    text = f"{os.getpid()} {socket.gethostname()} {self.what}\n".encode()[:_OWNER_BYTES]
                    with suppress(OSError):  # a full disk: the lock holds all the same
                        os.ftruncate(descriptor, 0)
                        os.pwrite(descriptor, text, 0)
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # the holder removed it just now: what is there now, if anything, is another file

    def _lock(self, descriptor: int) -> None:
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            who = _owner(os.pread(descriptor, _OWNER_BYTES, 0).decode(errors="replace"))
            raise ConfigError(f"another {who} works on {self.folder}.\n{self.way_out}") from None  # noqa: EM102
        except OSError as error:  # some network file systems
            _log.warning(
                "%s lies on a file system without locks (%s): see to it that nothing else works on it",
                self.folder,
                error.strerror,
            )

    def _close(self, path: Path) -> None:
        descriptor = self._open.pop(path, None)
        if descriptor is not None:
            os.close(descriptor)

    def _release(self) -> None:
        for path in list(self._open):
            if is_at(self._open[path], path):
                with suppress(OSError):  # it is still locked, so no other process can have taken it
                    path.unlink()
            self._close(path)


_WRITABLE = "Give a folder that can be written, with --to where the command has it, or make this one writable."
WAY_OUT = "Wait until it ends, stop it, or give another folder with --to."


@contextmanager
def hold_folder(
    folder: Path, what: str, *, way_out: str = WAY_OUT, inside: bool = True, held: FolderHold | None = None
) -> Iterator[FolderHold]:
    """Hold `folder` for this process, so that no other process of this program writes to it.

    Args:
        folder: The folder, which need not exist yet. With `inside` it is made, if absent.
        what: The kind of work, one noun ("run", "confirmation", "export"): others are told of "another WHAT".
        way_out: Last line of the error for a process that is refused: what its user can do.
        inside: Whether to take the lock inside the folder too.
        held: The hold of a caller that already holds the folder. It is yielded, and no lock is taken.

    Raises:
        ConfigError: Another process holds it (the text says which), or no lock file can be written.
    """
    if held is not None:
        yield held
        return
    hold = FolderHold(folder=folder, what=what, way_out=way_out, inside=inside)
    try:
        hold._take_all()
        yield hold
    finally:
        hold._release()


def _owner(text: str) -> str:
    """Describe the owner in a lock file, as `run (process 12)`, with the host if that is another one.

    Older versions wrote only the process.
    """
    process, _, rest = text.strip().partition(" ")
    host, _, what = rest.partition(" ")
    where = f" on {host}" if host and host != socket.gethostname() else ""
    return f"{what or 'run'} (process {process or 'unknown'}{where})"


def _free_name(folder: Path) -> Path:
    number = 1
    while (aside := folder.with_name(f"{folder.name}.old{number}")).exists():
        number += 1
    return aside


def _is_empty(folder: Path) -> bool:
    return {path.name for path in folder.iterdir()} <= {INSIDE}


def is_at(descriptor: int, path: Path) -> bool:
    """Tell whether the open file is the one that is at this path now."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
