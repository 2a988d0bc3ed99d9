"""One process at a time works in a folder: `hold_folder` keeps every other one out until it ends, however it ends.

    with hold_folder(folder, "export") as hold:   # refused with a ConfigError that names who holds it
        ...                                       # nothing was written or renamed before this line
        hold.set_aside()                          # the folder is FOLDER.old1 (or the next free number) and is new

Two lock files, because neither is enough by itself. The one beside the folder (`.NAME.lock`) outlives the folder being
renamed, replaced or not there yet. The one inside (`study.lock`) holds where the folder is reached by other ways: moved
while a run works in it, or mounted into a container, where nothing lies beside it. The kernel frees both when the
process dies; a file that a kill left behind locks nothing, and goes with the next hold. Who only reads needs no lock.

Give `inside=False` where the folder is written beside its place and renamed into it, as an export is: no file is made
in it then, but one that is there is heeded. Pass a hold on to what is called (`held=hold`): it is not taken twice.
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
    """A folder that this process alone may write to, until `hold_folder` ends."""

    folder: Path
    what: str
    way_out: str
    inside: bool
    _open: dict[Path, int] = field(default_factory=dict)

    def set_aside(self) -> Path | None:
        """Rename the folder to the first free `NAME.oldN` and make a new one; give the old one's new path.

        Nothing is renamed, and None given, where the folder is empty or not there. Of a link the folder that it leads
        to is renamed, so that the link leads to the new one.

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
        """Take the lock inside as well, once the folder is there. Safe to repeat."""
        path = self.folder.resolve() / INSIDE
        if path not in self._open:
            self._open[path] = self._take(path)

    def leave_empty(self) -> None:
        """Remove the folder if nothing but the lock is in it: what was refused or stopped early leaves no trace."""
        there = self.folder.resolve()
        with suppress(OSError):
            if _is_empty(there):
                (there / INSIDE).unlink(missing_ok=True)
                self._close(there / INSIDE)
                there.rmdir()

    def _take_all(self) -> None:
        there = self.folder.resolve()
        beside = there.with_name(f".{there.name}.lock")
        with suppress(OSError):  # nothing can be made beside it, as by a mounted folder: the lock inside must do
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
        """A descriptor that holds the lock of the file at `path`, which is made where absent."""
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                if HAS_FLOCK:
                    self._lock(descriptor)
                if _is_at(descriptor, path):
                    text = f"{os.getpid()} {socket.gethostname()} {self.what}\n".encode()[:_OWNER_BYTES]
                    with suppress(OSError):  # a full disk: the lock holds all the same
                        os.ftruncate(descriptor, 0)
                        os.pwrite(descriptor, text, 0)
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # its holder removed it just now: what lies there, if anything, is another file

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
            if _is_at(self._open[path], path):
                with suppress(OSError):  # while it is locked: nobody can have taken it for theirs
                    path.unlink()
            self._close(path)


_WRITABLE = "Give a folder that can be written, with --to where the command has it, or make this one writable."
WAY_OUT = "Wait until it ends, stop it, or give another folder with --to."


@contextmanager
def hold_folder(
    folder: Path, what: str, *, way_out: str = WAY_OUT, inside: bool = True, held: FolderHold | None = None
) -> Iterator[FolderHold]:
    """Hold `folder` for this process, so that nothing else of ours writes to it; it need not be there yet.

    Args:
        folder: With `inside` it is made, if absent.
        what: The kind of work, one noun ("run", "confirmation", "export"): others are told of "another WHAT".
        way_out: What the error advises those who are refused to do.
        inside: Whether the lock inside is taken too.
        held: The hold of a caller who has the folder already: it is given back, and nothing is taken.

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
    """`run (process 12)`, with the host where it is another one; older versions wrote the process alone."""
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


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
