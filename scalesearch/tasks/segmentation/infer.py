"""Find the class of each pixel with an ONNX file of scalesearch, using only onnxruntime, numpy and Pillow.

    python infer.py IMAGE [IMAGE ...] [--model model.onnx] [--top 5] [--to FOLDER]

It prints which share of each picture has which class. With --to it writes two pictures for each image: NAME.png, the
mask (mode P: class numbers, with a colour for each), and NAME.overlay.png, the image with the mask's colours on it.
Images that share a name keep their folders below the given one.

All that it needs to know is in the metadata of the ONNX file. From Python: `Segmenter(path).mask("photo.jpg")` is an
array of class numbers (height, width) of the picture's own size. Pixels that the network does not see are 255: where
pictures are cropped to the network's shape, those beside the crop.
"""

from __future__ import annotations  # Python 3.8 and 3.9 could not evaluate some of the types below

import argparse
import signal
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from scalesearch.tasks.infer_parts.images import (
    UNREADABLE,
    known_formats,
    printable,
    read_input,
    to_rgb,
    turned_upright,
)
from scalesearch.tasks.infer_parts.picture_names import PictureNameError, picture_names, pictures_of, save_picture
from scalesearch.tasks.infer_parts.preprocessing import read_preprocessing
from scalesearch.tasks.infer_parts.versions import open_session, too_old

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNSEEN = 255
"""The value of pixels that have no answer."""


class NotFiniteError(ValueError):
    """The network's answer holds NaN or infinity, so it names no classes."""


class Segmenter:
    """An open ONNX file with its preprocessing."""

    def __init__(self, model: str | Path, *, threads: int = 1) -> None:
        """Open the file on the CPU.

        With `threads` 0 it uses all cores, from which small networks rarely gain.

        Raises:
            ValueError: The file's metadata do not describe its preprocessing, or it needs a newer ONNX Runtime.
        """
        self._session = open_session(Path(model), threads)
        self.preprocessing = read_preprocessing(self._session.get_modelmeta().custom_metadata_map)
        self._input = self._session.get_inputs()[0].name

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the network's raw answers (N, classes, h, w) for inputs (N, channels, height, width)."""
        return np.asarray(self._session.run(None, {self._input: images})[0], np.float32)

    def mask(self, path: str | Path) -> NDArray[np.uint8]:
        """Return the class of each pixel of an image file, (height, width) of the picture as it stands upright.

        Raises one of `UNREADABLE`. One of these is `NotFiniteError`, if the network gives no valid answer.
        """
        picture = Path(path)
        logits = self.logits(read_input(picture, self.preprocessing))[0]
        if not np.isfinite(logits).all():
            message = "the network answers it with NaN or infinity (fp16 overflows and a failed calibration do this)"
            raise NotFiniteError(message)
        width, height = upright_rgb(picture, self.preprocessing.window).size
        return mask_of(logits, (height, width), self.preprocessing.storage_px, self.preprocessing.fit)

    def shares(self, mask: NDArray[np.uint8], *, top: int) -> list[tuple[str, float]]:
        """Return the `top` most frequent classes of a mask (height, width), with their shares of answered pixels."""
        names = self.preprocessing.class_names
        counts = np.bincount(mask.ravel(), minlength=256)[: len(names)]
        order = np.argsort(-counts, kind="stable")[:top]
        return [(names[place], float(counts[place] / max(counts.sum(), 1))) for place in order if counts[place]]


def upright_rgb(path: Path, window: tuple[float, ...] | None = None) -> Image.Image:
    """Return the whole picture of a file in RGB, turned as its EXIF orientation says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path, formats=known_formats()) as image:
            image.load()
            return to_rgb(turned_upright(image), window)


def mask_of(
    logits: NDArray[np.float32], size: tuple[int, int], storage_px: tuple[int, int], fit: str
) -> NDArray[np.uint8]:
    """Return the class of each pixel of a picture.

    Args:
        logits: The network's answer, (classes, h, w).
        size: Height and width of the picture.
        storage_px: Height and width that pictures are framed to (`Preprocessing.storage_px`).
        fit: How: "crop", "stretch" or "pad".

    Returns:
        Class numbers (height, width); 255 beside a crop.
    """
    (height, width), (to_height, to_width) = size, storage_px
    wide = width * to_height >= height * to_width
    if fit == "crop":
        if wide:
            part = max(1, (2 * height * to_width + to_height) // (2 * to_height)), height
        else:
            part = width, max(1, (2 * width * to_height + to_width) // (2 * to_width))
        left, top = (width - part[0]) // 2, (height - part[1]) // 2
        mask = np.full(size, UNSEEN, np.uint8)
        mask[top : top + part[1], left : left + part[0]] = class_map(logits, (part[1], part[0]), (0.0, 0.0, 1.0, 1.0))
        return mask
    if fit == "pad":
        if wide:
            to = to_width, max(1, (2 * height * to_width + width) // (2 * width))
        else:
            to = max(1, (2 * width * to_height + height) // (2 * height)), to_height
        top, left = (to_height - to[1]) // 2, (to_width - to[0]) // 2
        return class_map(
            logits,
            size,
            (top / to_height, left / to_width, (top + to[1]) / to_height, (left + to[0]) / to_width),
        )
    return class_map(logits, size, (0.0, 0.0, 1.0, 1.0))


def class_map(
    logits: NDArray[np.float32], size: tuple[int, int], part: tuple[float, float, float, float]
) -> NDArray[np.uint8]:
    """Return the likeliest class of each pixel, of logits (classes, h, w) that are enlarged bilinearly to `size`.

    `part` says which part of the logits' picture is shown: top, left, bottom and right, as shares of its sides.
    """
    rows = bilinear_weights(size[0], logits.shape[1], part[0], part[2])
    columns = bilinear_weights(size[1], logits.shape[2], part[1], part[3])
    wide = logits @ columns.T
    best, likeliest = rows @ wide[0], np.zeros(size, np.uint8)
    for number in range(1, len(wide)):
        score = rows @ wide[number]
        better = score > best
        np.copyto(best, score, where=better)
        likeliest[better] = number
    return likeliest


def bilinear_weights(length: int, cells: int, first: float, last: float) -> NDArray[np.float32]:
    """Return the share (length, cells) of each cell in each of `length` pixels between `first` and `last` of the row.

    It is torch's `interpolate(mode="bilinear", align_corners=False)` along one side.
    """
    place = (first + (np.arange(length) + 0.5) / length * (last - first)) * cells - 0.5
    place = np.clip(place, 0, cells - 1)
    before = np.minimum(place.astype(np.int64), max(cells - 2, 0))
    weights, share = np.zeros((length, cells), np.float32), (place - before).astype(np.float32)
    weights[np.arange(length), before] = 1 - share
    weights[np.arange(length), np.minimum(before + 1, cells - 1)] += share
    return weights


def class_colours() -> NDArray[np.uint8]:
    """Return the colour of each value of a mask, (256, 3): the table of PASCAL VOC; number 255 is dark grey."""
    numbers, colours = np.arange(1, 257), np.zeros((256, 3), np.int64)
    for bit in range(8):
        for colour in range(3):
            colours[:, colour] |= ((numbers >> (3 * bit + colour)) & 1) << (7 - bit)
    colours[255] = 40
    return colours.astype(np.uint8)


def mask_picture(mask: NDArray[np.uint8]) -> Image.Image:
    """Return a mask (height, width) as a picture of mode P: class numbers, and a palette with a colour for each."""
    picture = Image.fromarray(mask)
    picture.putpalette(class_colours().tobytes())
    return picture


def overlay(picture: Image.Image, mask: NDArray[np.uint8]) -> Image.Image:
    """Return the picture with the colours of a mask (height, width) half transparent on it.

    Pixels without an answer stay as they are.
    """
    pixels, colours = np.asarray(picture, np.uint16), class_colours()[mask].astype(np.uint16)
    mixed = np.where((mask == UNSEEN)[..., np.newaxis], pixels, (pixels + colours) // 2)
    return Image.fromarray(mixed.astype(np.uint8))


def write_pictures(path: Path, mask: NDArray[np.uint8], to: Path, window: tuple[float, ...] | None = None) -> None:
    """Write TO.png, the mask (height, width), and TO.overlay.png, into a folder that is made if need be."""
    to.parent.mkdir(parents=True, exist_ok=True)
    plain, mixed = pictures_of(to)
    save_picture(mask_picture(mask), plain)
    save_picture(overlay(upright_rgb(path, window), mask), mixed)


def main() -> int:
    """Print a line for each image; return 1 if an image cannot be read, 2 if model or --to cannot be used."""
    parser = argparse.ArgumentParser(description="Find the class of each pixel with an exported network.")
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--model", type=Path, default=Path(__file__).with_name("model.onnx"))
    parser.add_argument("--top", type=int, default=5, help="how many classes to name (default: 5)")
    parser.add_argument("--to", type=Path, help="folder for the masks, as PNG files")
    arguments = parser.parse_args()
    message = too_old()
    if message:
        print(f"error: {message}", file=sys.stderr)
        return 2
    try:
        places = picture_names(arguments.images, arguments.to) if arguments.to is not None else []
    except PictureNameError as error:
        print(printable(f"error: --to {error}; give another folder"), file=sys.stderr)
        return 2
    try:
        segmenter = Segmenter(arguments.model)
    except Exception as error:  # ONNX Runtime's errors share no base class
        print(printable(f"error: {arguments.model}: {error}"), file=sys.stderr)
        return 2
    failed = 0
    for number, path in enumerate(arguments.images):
        try:
            mask = segmenter.mask(path)
        except NotFiniteError as error:
            failed += 1
            print(f"error: {str(path)!r} has no mask: {error}", file=sys.stderr)
            continue
        except UNREADABLE as error:
            failed += 1
            print(printable(f"error: {str(path)!r} is no image that can be read: {error}"), file=sys.stderr)
            continue
        if places:
            try:
                write_pictures(path, mask, places[number], segmenter.preprocessing.window)
            except OSError as error:
                print(printable(f"error: cannot write {places[number]}.png: {error}"), file=sys.stderr)
                return 2
        shares = segmenter.shares(mask, top=max(arguments.top, 1))
        print(printable(f"{path}: " + ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares)))
    return 1 if failed else 0


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):  # end like any other command when `| head` closes the pipe
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
