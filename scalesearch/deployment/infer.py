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
"""Of this preprocessing; a file that wants another one is refused."""
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
    NotImplementedError,
    struct.error,
    zlib.error,
    Image.DecompressionBombWarning,
    Image.DecompressionBombError,
)
"""What Pillow raises on files that are no images, damaged, or bombs."""


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
        """The network's raw answers (N, classes) to inputs (N, 3, side, side)."""
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
    if found != VERSION:
        came = "no such entry" if found is None else repr(found)
        message = f"expected an ONNX file with metadata 'scalesearch.preprocessing' = {VERSION!r}, came {came}"
        raise ValueError(message)
    return Preprocessing(
        class_names=tuple(json.loads(metadata["scalesearch.class_names"])),
        mean=tuple(json.loads(metadata["scalesearch.mean"])),
        std=tuple(json.loads(metadata["scalesearch.std"])),
        storage_px=int(metadata["scalesearch.storage_px"]),
        resolution_px=int(metadata["scalesearch.resolution_px"]),
    )


def read_input(path: Path, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """The network's input (1, 3, side, side) from an image file; raises one of `UNREADABLE`."""
    pixels = shrink(decode(path, preprocessing.storage_px), preprocessing.resolution_px)
    std = np.asarray(preprocessing.std)
    scale = (1 / (255 * std)).astype(np.float32)
    offset = (-np.asarray(preprocessing.mean) / std).astype(np.float32)
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)[np.newaxis]
    planes *= scale[:, None, None]
    planes += offset[:, None, None]
    return planes


def decode(path: Path, side_px: int) -> NDArray[np.uint8]:
    """The centre square (side_px, side_px, 3) of an image file, upright as its EXIF says, in RGB, on white."""
    size_bytes = path.stat().st_size
    if not 0 < size_bytes <= MAX_FILE_BYTES:
        message = f"{size_bytes} bytes" if size_bytes else "empty file"
        raise ValueError(message)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd EXIF and palettes are read all the same
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path) as image:
            image.draft(None, (2 * side_px, 2 * side_px))
            image.load()
            upright = to_rgb(turned_upright(image))
    side = min(upright.size)
    left, top = (upright.width - side) // 2, (upright.height - side) // 2
    square = upright.crop((left, top, left + side, top + side))
    return np.asarray(square.resize((side_px, side_px), Image.Resampling.BILINEAR, reducing_gap=3.0))


def turned_upright(image: Image.Image) -> Image.Image:
    """The image as its EXIF orientation wants it seen."""
    try:
        return ImageOps.exif_transpose(image)
    except UNREADABLE:
        return image  # the pixels are fine, only the EXIF block is not


def to_rgb(image: Image.Image) -> Image.Image:
    """The image in RGB: 16 bits scaled to 8, transparency laid on white, all other modes by Pillow's conversion."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        image = Image.fromarray((values / 257).round().astype(np.uint8))
    elif image.mode == "F":
        values = np.asarray(image)
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 1:
            message = "float pixels outside 0..1"
            raise ValueError(message)
        image = Image.fromarray((255 * values).round().astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, (255, 255, 255, 255)), layer)
    return image if image.mode == "RGB" else image.convert("RGB")


def shrink(pixels: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    """The square (side_px, side_px, 3): antialiased bilinear in integers, first along rows, then along columns.

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
        print(f"error: {arguments.model}: {error}", file=sys.stderr)
        return 2
    failed = 0
    for path in arguments.images:
        try:
            answers = labeller.label(path, top=max(arguments.top, 1))
        except UNREADABLE as error:
            failed += 1
            print(f"error: {str(path)!r} is no image that can be read: {error}", file=sys.stderr)
            continue
        print(f"{path}: " + ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in answers))
    return 1 if failed else 0


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):  # `| head` has had enough: end like any other command
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
