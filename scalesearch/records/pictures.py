"""Where a study keeps pictures of what its members answer for validation images."""

from pathlib import Path


def picture_path(folder: Path, trial: int) -> Path:
    """Return the path of a trial's picture in the study's folder."""
    return folder / "pictures" / f"trial_{trial:06d}.jpg"


def stored_pictures(folder: Path, trials: "tuple[int, ...]") -> dict[int, bytes]:
    """Return the pictures of those of the trials that have one, as JPEG files."""
    found = {trial: picture_path(folder, trial) for trial in trials}
    return {trial: path.read_bytes() for trial, path in found.items() if path.is_file()}
