"""Makes the folder that a command is to write a study into."""

from pathlib import Path
from typing import TYPE_CHECKING

from scalesearch.errors import ConfigError

if TYPE_CHECKING:
    from scalesearch.folder_lock import FolderHold


def prepare_folder(folder: Path, *, fresh: bool, hold: "FolderHold | None" = None) -> None:
    """Make a folder and prove that it can be written; with `fresh` and its hold, move an old study aside first.

    Raises:
        ConfigError: It cannot be moved, made or written.
    """
    if fresh and hold:
        hold.set_aside()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.write_bytes(b"\0" * 65536)
        probe.unlink()
    except OSError as error:
        message = f"Cannot write the study to {folder}: {error.strerror}.\nGive a folder that can be written with --to."
        raise ConfigError(message) from None
