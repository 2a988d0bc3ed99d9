"""Says where the pictures of answers are written, so that none replaces another one or an image, and writes them."""

from __future__ import annotations  # Python 3.8 and 3.9 could not evaluate some of the types below

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from scalesearch.tasks.infer_parts.images import UNREADABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

PICTURE_ENDINGS = (".png", ".overlay.png")
"""What the names of pictures of answers end in."""
MARK = ("Software", "scalesearch")
"""The text, with its keyword, by which the PNG files of pictures of answers are known."""


class PictureNameError(ValueError):
    """A picture of an answer would replace an image or a strange file; the text says which."""


def picture_names(images: Sequence[Path], to: Path) -> list[Path]:
    """Return for each image where its pictures go below the folder `to`, without their endings (`PICTURE_ENDINGS`).

    That is TO/photo for photo.jpg. If any two of the images would share a picture, it is TO/film/photo for all of them,
    with their folders below the one that they have in common, and if that is not enough, TO/film/photo.jpg.

    Raises:
        PictureNameError: A picture would replace one of the images, or a file that `save_picture` did not write.
    """
    whole = [Path(os.path.abspath(str(each))) for each in images]  # noqa: PTH100  (keeps links)
    folders = [each.parent.parts[1:] for each in whole]
    common = 0
    for parts in zip(*folders):  # noqa: B905  (Python 3.8 has no `strict`)
        if len(set(parts)) > 1:
            break
        common += 1
    inner = [to.joinpath(*each[common:]) for each in folders]
    choices = [
        [to / each.stem for each in whole],
        [folder / each.stem for folder, each in zip(inner, whole)],  # noqa: B905
        [folder / each.name for folder, each in zip(inner, whole)],  # noqa: B905
    ]
    chosen = choices[-1]
    for bases in choices:
        pictures = {str(path).casefold() for base in bases for path in pictures_of(base)}
        if len(pictures) == len(PICTURE_ENDINGS) * len(set(whole)):
            chosen = bases
            break
    files = {file_number(each) for each in whole} - {None}
    for path in (path for base in chosen for path in pictures_of(base)):
        number = file_number(path)
        if number in files:
            message = f"{to}: expected a folder where no picture replaces an image, came {path}, which is one of them"
            raise PictureNameError(message)
        if number is not None and not is_picture_of_ours(path):
            message = f"{to}: expected a folder where no picture replaces a file, came {path}, which no --to wrote"
            raise PictureNameError(message)
    return chosen


def pictures_of(base: Path) -> list[Path]:
    """Return the paths of all pictures that an answer may have."""
    return [base.with_name(base.name + ending) for ending in PICTURE_ENDINGS]


def save_picture(picture: Image.Image, to: Path) -> None:
    """Write a picture of an answer as a PNG file, marked so that later runs may replace it."""
    from PIL import PngImagePlugin  # here, since labelling needs none

    told = PngImagePlugin.PngInfo()
    told.add_text(*MARK)
    picture.save(to, pnginfo=told)


def is_picture_of_ours(path: Path) -> bool:
    """Tell whether `save_picture` wrote this file."""
    keyword, text = MARK
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=("PNG",)) as picture:
                return bool(picture.info.get(keyword) == text)
    except UNREADABLE:
        return False


def file_number(path: Path) -> tuple[int, int] | None:
    """Return device and number of a file, which are the same for all names of the file; None if it is not there."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
