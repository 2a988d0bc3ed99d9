"""Labels images with an ONNX file of scalesearch, by nothing but onnxruntime, numpy and Pillow.

    python infer.py IMAGE [IMAGE ...] [--model model.onnx] [--top 3]

Everything that it must know is in the file's own metadata. From Python: `Labeller(path).label("photo.jpg")`.

`scalesearch export` copies this file as it stands into every export, so it imports nothing of scalesearch, prints (it
is a script), and repeats what `training/datasets` does with an image: tests hold the two equal, pixel for pixel.
"""

import argparse
import json
import signal
import struct
import sys
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image, ImageOps

VERSION = "1"
"""Of this preprocessing, as long as images are RGB, cropped to squares, and 16 bits are read on their whole scale."""
VERSIONS = (VERSION, "2")
"""All that can be done: the second adds window, fit and channels. A file that wants another one is refused."""
FITS = ("crop", "stretch", "pad")
PAD_GREY = 114
"""Of the bars beside a padded image."""
MAX_FILE_BYTES = 256 * 2**20
UNREADABLE: tuple[type[Exception], ...] = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    EOFError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    struct.error,
    zlib.error,
    Image.DecompressionBombWarning,
    Image.DecompressionBombError,
)
"""What Pillow raises on files that are no images, damaged, or bombs."""
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF")
"""All that is opened, whatever a file's name: Pillow would start Ghostscript for an EPS that is called photo.jpg."""


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input, and what its answers are called."""

    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    storage_px: int
    """Side of the square that an image is first made: what the training images were kept at."""
    resolution_px: int
    """Side of the network's input, which that square is shrunk to."""
    window: "tuple[float, ...] | None" = None
    """Values of images of more than 8 bits that become 0 and 255; None: 0 and 65535, in float images 0 and 1."""
    fit: str = "crop"
    """How an image that is no square becomes one: its centre is cut out, or it is stretched, or padded with grey."""
    channels: int = 3
    """3 for RGB, 1 for grey."""


class Labeller:
    """An ONNX file, open, with its preprocessing."""

    def __init__(self, model: str | Path, *, threads: int = 1) -> None:
        """Opens the file on the CPU; `threads` 0 takes all cores, which small networks rarely gain from.

        Raises:
            ValueError: The file's metadata do not tell how to feed it.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.preprocessing = read_preprocessing(self._session.get_modelmeta().custom_metadata_map)
        self._input = self._session.get_inputs()[0].name

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network's raw answers (N, classes) to inputs (N, channels, side, side)."""
        return np.asarray(self._session.run(None, {self._input: images})[0], np.float32)

    def label(self, path: str | Path, *, top: int = 1) -> list[tuple[str, float]]:
        """The `top` likeliest class names of an image file with their probabilities; raises one of `UNREADABLE`."""
        probabilities = softmax(self.logits(read_input(Path(path), self.preprocessing))[0])
        places = np.argsort(-probabilities, kind="stable")[:top]
        return [(self.preprocessing.class_names[place], float(probabilities[place])) for place in places]


def read_preprocessing(metadata: dict[str, str]) -> Preprocessing:
    """What the ONNX file's metadata say.

    Raises:
        ValueError: They are not there, or of another version.
    """
    found = metadata.get("scalesearch.preprocessing")
    if found not in VERSIONS:
        came = "no such entry" if found is None else repr(found)
        wanted = " or ".join(map(repr, VERSIONS))
        message = f"expected an ONNX file with metadata 'scalesearch.preprocessing' = {wanted}, came {came}"
        raise ValueError(message)
    window = json.loads(metadata.get("scalesearch.window", "null"))
    fit, channels = json.loads(metadata.get("scalesearch.fit", '"crop"')), int(metadata.get("scalesearch.channels", 3))
    if fit not in FITS or channels not in (1, 3):
        message = f"expected 'scalesearch.fit' in {FITS} and 1 or 3 channels, came {fit!r} and {channels}"
        raise ValueError(message)
    return Preprocessing(
        class_names=tuple(json.loads(metadata["scalesearch.class_names"])),
        mean=tuple(json.loads(metadata["scalesearch.mean"])),
        std=tuple(json.loads(metadata["scalesearch.std"])),
        storage_px=int(metadata["scalesearch.storage_px"]),
        resolution_px=int(metadata["scalesearch.resolution_px"]),
        window=tuple(window) if window else None,
        fit=fit,
        channels=channels,
    )


def read_input(path: Path, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """The network's input (1, channels, side, side) from an image file; raises one of `UNREADABLE`."""
    square = decode(path, preprocessing.storage_px, window=preprocessing.window, fit=preprocessing.fit)
    if preprocessing.channels == 1:
        square = to_grey(square)
    pixels = shrink(square, preprocessing.resolution_px)
    std = np.asarray(preprocessing.std)
    scale = (1 / (255 * std)).astype(np.float32)
    offset = (-np.asarray(preprocessing.mean) / std).astype(np.float32)
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)[np.newaxis]
    planes *= scale[:, None, None]
    planes += offset[:, None, None]
    return planes


def decode(
    path: Path, side_px: int, *, window: "tuple[float, ...] | None" = None, fit: str = "crop"
) -> NDArray[np.uint8]:
    """An image file as a square (side_px, side_px, 3), upright as its EXIF says, in RGB, on white."""
    size_bytes = path.stat().st_size
    if not 0 < size_bytes <= MAX_FILE_BYTES:
        message = f"{size_bytes} bytes" if size_bytes else "empty file"
        raise ValueError(message)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd EXIF and palettes are read all the same
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=known_formats()) as image:
            image.draft(None, (2 * side_px, 2 * side_px))
            image.load()
            upright = to_rgb(turned_upright(image), window)
    return np.asarray(to_square(upright, side_px, fit))


def to_square(image: Image.Image, side_px: int, fit: str) -> Image.Image:
    """The RGB image as a square: its centre cut out, or stretched, or whole with grey bars."""
    width, height = image.size
    if fit == "pad":
        longer = max(width, height)
        to = [max(1, (2 * side * side_px + longer) // (2 * longer)) for side in (width, height)]
        small = image.resize((to[0], to[1]), Image.Resampling.BILINEAR, reducing_gap=3.0)
        square = Image.new("RGB", (side_px, side_px), (PAD_GREY,) * 3)
        square.paste(small, ((side_px - to[0]) // 2, (side_px - to[1]) // 2))
        return square
    if fit == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        image = image.crop((left, top, left + side, top + side))
    return image.resize((side_px, side_px), Image.Resampling.BILINEAR, reducing_gap=3.0)


def known_formats() -> Any:
    """Those of `FORMATS` that this Pillow can read."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def printable(text: str) -> str:
    """The text without power over a terminal: controls and marks that are not seen are written as their codes."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def turned_upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation wants it seen."""
    try:
        return ImageOps.exif_transpose(image)
    except UNREADABLE:
        return image  # the pixels are fine, only the EXIF block is not


def to_rgb(image: Image.Image, window: "tuple[float, ...] | None" = None) -> Image.Image:
    """The image in RGB: more bits scaled to 8, transparency laid on white, all other modes by Pillow's conversion."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = Image.fromarray(to_8_bits(np.asarray(image), window))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, (255, 255, 255, 255)), layer)
    return image if image.mode == "RGB" else image.convert("RGB")


def to_8_bits(values: NDArray[Any], window: "tuple[float, ...] | None") -> NDArray[np.uint8]:
    """The values as bytes: the window's ends become 0 and 255, what is beyond them too."""
    fractions = values.dtype.kind == "f"
    if fractions and not np.isfinite(values).all():
        message = "pixels that are NaN or infinite"
        raise ValueError(message)
    if window is not None:
        low, high = window
        return np.asarray((255 * (values.astype(np.float64) - low) / (high - low)).round().clip(0, 255), np.uint8)
    if not fractions:
        return np.asarray((np.clip(values.astype(np.int64), 0, 65535) / 257).round(), np.uint8)
    if values.min() < 0 or values.max() > 1:
        message = "float pixels outside 0..1"
        raise ValueError(message)
    return np.asarray((255 * values).round(), np.uint8)


def to_grey(square: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma (side, side, 1) of RGB pixels (side, side, 3): ITU-R BT.601 in whole numbers, as Pillow's mode L."""
    red, green, blue = np.moveaxis(square.astype(np.uint32), -1, 0)
    grey = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return np.asarray(grey[..., np.newaxis], np.uint8)


def shrink(pixels: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """The square (side_px, side_px, channels): antialiased bilinear in integers, first along rows, then along columns.

    Bit for bit torch's `interpolate(uint8, mode="bilinear", antialias=True)`, which made the training images
    (aten/src/ATen/native/cpu/UpSampleKernel.cpp).
    """
    if pixels.shape[0] == side_px:
        return pixels
    weights, shift = filter_weights(pixels.shape[0], side_px)
    half = 1 << (shift - 1)
    values = pixels.astype(np.int64)
    values = (np.einsum("oi,yic->yoc", weights, values) + half >> shift).clip(0, 255)
    values = (np.einsum("oi,ixc->oxc", weights, values) + half >> shift).clip(0, 255)
    return np.asarray(values, np.uint8)


def filter_weights(length: int, to: int) -> tuple[NDArray[np.int64], int]:
    """Weights (to, length) of a triangle filter that widens with the scale, as integers of `shift` binary places."""
    scale = length / to
    support = max(scale, 1.0)
    weights = np.zeros((to, length))
    for place in range(to):
        centre = scale * (place + 0.5)
        first, last = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), length)
        distance = np.abs((np.arange(first, last) - centre + 0.5) / support)
        triangle = np.where(distance < 1, 1 - distance, 0)
        weights[place, first:last] = triangle / triangle.sum()
    largest, shift = weights.max(), 0
    while shift < 22 and int(0.5 + largest * (1 << (shift + 1))) < 1 << 15:
        shift += 1
    return (0.5 + weights * (1 << shift)).astype(np.int64), shift


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities (classes,) of logits (classes,)."""
    powers = np.exp(logits.astype(np.float64) - float(logits.max()))
    return np.asarray(powers / powers.sum(), np.float64)


def main() -> int:
    """Prints a line for each image; 1 where one could not be read, 2 where the model could not."""
    parser = argparse.ArgumentParser(description="Label images with an exported network.")
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--model", type=Path, default=Path(__file__).with_name("model.onnx"))
    parser.add_argument("--top", type=int, default=2, help="how many classes to name (default: 2)")
    arguments = parser.parse_args()
    try:
        labeller = Labeller(arguments.model)
    except Exception as error:  # ONNX Runtime's errors share no base class
        print(printable(f"error: {arguments.model}: {error}"), file=sys.stderr)
        return 2
    failed = 0
    for path in arguments.images:
        try:
            answers = labeller.label(path, top=max(arguments.top, 1))
        except UNREADABLE as error:
            failed += 1
            print(printable(f"error: {str(path)!r} is no image that can be read: {error}"), file=sys.stderr)
            continue
        line = f"{path}: " + ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in answers)
        print(printable(line))
    return 1 if failed else 0


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):  # `| head` has had enough: end like any other command
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
