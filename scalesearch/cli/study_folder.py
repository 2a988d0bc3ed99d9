"""Makes the folder that a command is to write a study into, and leaves no trace of a command that wrote none."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from scalesearch.cli.terminal import echo
from scalesearch.errors import ConfigError

if TYPE_CHECKING:
    from scalesearch.folder_lock import FolderHold


def prepare_folder(folder: Path, *, fresh: bool, hold: "FolderHold | None" = None) -> Path | None:
    """Make a folder and prove that it can be written; with `fresh` and its hold, move an old study aside first.

    Returns:
        Where the old study is now; None if none was moved.

    Raises:
        ConfigError: It cannot be moved, made or written. An old study is then where it was.
    """
    aside = hold.set_aside() if fresh and hold else None
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"\0" * 65536)
        probe.unlink()
    except OSError as error:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
        if hold:
            leave_no_trace(hold, aside)
        message = f"Cannot write the study to {folder}: {error.strerror}.\nGive a folder that can be written with --to."
        raise ConfigError(message) from None
    return aside


def leave_no_trace(hold: "FolderHold", aside: Path | None) -> None:
    """Remove the folder of a command that was refused or stopped before it wrote anything, and put an old study back.

    Where something was written, the folder stays, and a line says where the old study is.

    Args:
        hold: That of the command's folder.
        aside: Where `prepare_folder` moved an old study; None if it moved none.
    """
    hold.leave_empty()
    if aside and not hold.put_back(aside):
        echo(f"The old study is kept: {aside}", err=True)
