"""Picture and video files that this program cannot read, as opposed to files that are not pictures at all."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from scalesearch.errors import ConfigError

_PHOTOS: Final = (".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpf", ".jpx", ".wdp", ".jxr", ".bpg")
_CAMERA: Final = (
    ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".dng", ".raf", ".orf", ".rw2", ".pef", ".srw",
    ".x3f", ".3fr", ".iiq", ".raw",
)  # fmt: skip
_DRAWN: Final = (
    ".svg", ".svgz", ".psd", ".psb", ".xcf", ".eps", ".ai", ".pdf", ".tga", ".pcx", ".ico", ".icns", ".exr", ".hdr",
    ".pfm", ".dds",
)  # fmt: skip
_SCIENCE: Final = (
    ".dcm", ".dicom", ".nii", ".fits", ".fit", ".mat", ".npy", ".npz", ".h5", ".hdf5", ".czi", ".nd2", ".svs",
)  # fmt: skip
_VIDEO: Final = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".m4v", ".wmv", ".3gp")
_MANY_FRACTION: Final = 0.1
"""Share of the pictures above which unreadable ones are an error. A few such files have always been left out with a
warning, and studies were run on the others."""
KINDS: Final = frozenset((*_PHOTOS, *_CAMERA, *_DRAWN, *_SCIENCE, *_VIDEO))


def check_kinds(root: Path, *, images: Sequence[Path], others: Sequence[Path], max_fraction: float) -> tuple[str, ...]:
    """Warn of a few picture files of kinds that are not read; raise an error if they are many, in all or in one folder.

    Args:
        root: The data set's folder, for the message.
        images: Files that are read.
        others: Visible files that are not read.
        max_fraction: `data.max_skipped_fraction`.

    Raises:
        ConfigError: If they are more than a tenth of the pictures (or `max_fraction`, if that is more), or more than
            half of the pictures of one folder. A `max_fraction` of 1 allows any number.
    """
    beside = {path.with_suffix("") for path in images}
    # IMG_1.cr2 or IMG_1.mov beside IMG_1.jpg is the same picture once more, so nothing is lost by leaving it out.
    unread = [path for path in others if path.suffix.lower() in KINDS and path.with_suffix("") not in beside]
    if not unread:
        return ()
    kinds = Counter(path.suffix.lower() for path in unread)
    shown = ", ".join(f"{count} {suffix}" for suffix, count in kinds.most_common(3))
    total = len(images) + len(unread)
    here = Counter(path.parent for path in images)
    starved = [folder for folder, count in Counter(path.parent for path in unread).items() if count > here[folder]]
    if max_fraction < 1 and (len(unread) > max(max_fraction, _MANY_FRACTION) * total or starved):
        where = f", most of those in {starved[0].relative_to(root)}/" if starved else ""
        msg = (
            f"data {root}: {len(unread)} of {total} picture files are of kinds that are not read ({shown}){where}.\n"
            f"Convert them to JPEG or PNG, e.g. {_converter(kinds.most_common(1)[0][0])},\n"
            "or leave them out with --set data.max_skipped_fraction=1"
        )
        raise ConfigError(msg)
    return (f"data {root}: left out {len(unread)} of {total} picture files of kinds that are not read ({shown})",)


def _converter(suffix: str) -> str:
    if suffix in _CAMERA:
        return f"with dcraw or RawTherapee (*{suffix})"
    if suffix in _VIDEO:
        return f"`ffmpeg -i FILE{suffix} %05d.png`"
    if suffix in _SCIENCE:
        return "arrays in one .npz file with images and labels"
    return f"`mogrify -format jpg *{suffix}` (ImageMagick)"
