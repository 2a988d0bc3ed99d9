"""Label images with an ONNX file of scalesearch, using only onnxruntime, numpy and Pillow.

    python infer.py IMAGE [IMAGE ...] [--model model.onnx] [--top 3]

All that it needs to know is in the metadata of the ONNX file. From Python: `Labeller(path).label("photo.jpg")`.

It runs with Python 3.8, numpy 1.21, Pillow 8.0, onnxruntime 1.14 and newer; numpy 2 needs onnxruntime 1.19. A model in
bf16, fp8 or TensorRT's int8 needs a newer onnxruntime: the error message says which. AVIF pictures need Pillow 11.3.

`scalesearch export` copies this file unchanged into every export. So it imports nothing of scalesearch, prints (it is a
script), and repeats what `data` does with an image: tests check that the two are equal, pixel for pixel.
"""

from __future__ import annotations  # Python 3.8 and 3.9 could not evaluate some of the types below

import argparse
import json
import re
import signal
import struct
import sys
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

OLDEST = {"python": "3.8", "numpy": "1.21", "pillow": "8.0", "onnxruntime": "1.14"}
"""Oldest versions; tried with these and with the newest ones."""
INSTALL = "pip install --upgrade " + " ".join(
    f"'{name}>={OLDEST[name]}'" for name in ("onnxruntime", "numpy", "pillow")
)
try:
    import numpy as np
    import onnxruntime as ort
    import PIL
    from PIL import Image, ImageOps
except ImportError as error:  # missing, or onnxruntime below 1.19 beside numpy 2
    if __name__ != "__main__":
        raise
    print(
        f"error: {error}\nexpected onnxruntime, numpy and Pillow (numpy 2 wants onnxruntime 1.19): {INSTALL}",
        file=sys.stderr,
    )
    sys.exit(2)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

VERSION = "1"
"""Version of the preprocessing if images are RGB, cropped to squares, and 16 bits are read on their whole scale."""
VERSIONS = (VERSION, "2", "3")
"""All versions that can be used: the second adds window, fit and channels, the third rectangles. Others are refused."""
FITS = ("crop", "stretch", "pad")
PAD_GREY = 114
"""Grey value of the bars beside a padded image."""
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
"""What Pillow raises for files that are no images, are damaged, or are decompression bombs."""
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF")
"""All that is opened, whatever a file's name: Pillow would start Ghostscript for an EPS that is called photo.jpg."""
BILINEAR = getattr(Image, "Resampling", Image).BILINEAR  # Pillow 9.1 moved it
ONNXRUNTIME_OF_IR = {8: "1.14", 9: "1.15", 10: "1.18", 11: "1.23", 13: "1.24"}
"""First release that reads an ONNX file of this IR version; each release was tried."""
ONNXRUNTIME_OF_OPSET = {18: "1.14", 19: "1.15", 20: "1.17", 21: "1.18", 22: "1.21", 23: "1.23", 25: "1.24", 26: "1.25"}
"""First release that knows this version of the operator set; each release was tried."""
ONNXRUNTIME_OF_HALF = "1.15"
"""First release for half precision: 1.14 crashes on fp16."""
ONNXRUNTIME_OF_HALF_SCALES = "1.32"
"""First release for TensorRT's int8 and fp8. Older ones refuse these files or give wrong answers: 1.19 gave 20 of 75
pictures another label.
"""


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the network's input, and the names of the network's classes."""

    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    storage_px: tuple[int, int]
    """Height and width that an image is given first; the training images were stored at this size."""
    resolution_px: tuple[int, int]
    """Height and width of the network's input; the stored image is shrunk to it."""
    window: tuple[float, ...] | None = None
    """Pixel values that become 0 and 255, for images of more than 8 bits; None: 0 and 65535, in floats 0 and 1."""
    fit: str = "crop"
    """How an image gets its shape: its centre is cut out ("crop"), or it is stretched or padded with grey bars."""
    channels: int = 3
    """3 for RGB, 1 for grey."""


class Labeller:
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
        """Return the network's raw answers (N, classes) for inputs (N, channels, height, width)."""
        return np.asarray(self._session.run(None, {self._input: images})[0], np.float32)

    def label(self, path: str | Path, *, top: int = 1) -> list[tuple[str, float]]:
        """Return the `top` most likely class names of an image file, with their probabilities.

        Raises one of `UNREADABLE`. One of these is `NotFiniteError`, if the network gives no valid answer.
        """
        probabilities = softmax(self.logits(read_input(Path(path), self.preprocessing))[0])
        places = np.argsort(-probabilities, kind="stable")[:top]
        return [(self.preprocessing.class_names[place], float(probabilities[place])) for place in places]


def open_session(model: Path, threads: int) -> ort.InferenceSession:
    """Open an ONNX file on the CPU, with all cores if `threads` is 0.

    Raises:
        ValueError: The file needs a newer ONNX Runtime.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    ensure_new_enough(model)
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def too_old() -> str:
    """Return a sentence about installed versions older than those this file was tried with; empty if there are none."""
    found = {
        "python": "{}.{}.{}".format(*sys.version_info),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "onnxruntime": ort.__version__,
    }
    old = [name for name, oldest in OLDEST.items() if as_numbers(found[name]) < as_numbers(oldest)]
    if not old:
        return ""
    wanted = ", ".join(f"{name} {OLDEST[name]} or newer (this is {found[name]})" for name in old)
    packages = [name for name in old if name != "python"]
    return f"infer.py needs {wanted}" + f": {INSTALL}" * bool(packages)


def as_numbers(version: str) -> tuple[int, ...]:
    """Return the first two numbers of a version, to compare by: (1, 14) for `1.14.0rc1`."""
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def onnxruntime_needed(model: Path) -> str:
    """Return the oldest release of ONNX Runtime that reads this ONNX file and gives right answers on a CPU.

    Raises:
        ValueError: It is not an ONNX file, or it is newer than all versions known here.
        IndexError: The file ends too early.
    """
    content = read_versions(model)
    wanted = [OLDEST["onnxruntime"]]
    for table, version in ((ONNXRUNTIME_OF_IR, content.ir_version), (ONNXRUNTIME_OF_OPSET, content.opset)):
        known = [release for highest, release in table.items() if version <= highest]
        if not known:
            message = f"version {version} is newer than all that is known here"
            raise ValueError(message)
        wanted.append(known[0])
    if content.half:
        wanted.append(ONNXRUNTIME_OF_HALF_SCALES if content.quantized else ONNXRUNTIME_OF_HALF)
    return max(wanted, key=as_numbers)


def oldest_versions(model: Path) -> dict[str, str]:
    """Return the oldest versions that this file runs with on the model, which may need a newer ONNX Runtime."""
    return {**OLDEST, "onnxruntime": onnxruntime_needed(model)}


def ensure_new_enough(model: Path) -> None:
    """Check, before ONNX Runtime reads the model, that its version is new enough.

    A version that is too old may crash, or give wrong answers without a message.

    Raises:
        ValueError: The installed version is too old for this model.
    """
    try:
        needed, content = onnxruntime_needed(model), read_versions(model)
    except (OSError, ValueError, IndexError):
        return  # not an ONNX file, or a very new one: ONNX Runtime's own message is better
    if as_numbers(needed) > as_numbers(ort.__version__):
        halves = " and numbers in half precision" if content.half else ""
        message = (
            f"expected onnxruntime {needed} or newer for its IR version {content.ir_version}, opset {content.opset}"
            f"{halves}, this is {ort.__version__}: pip install --upgrade 'onnxruntime>={needed}'"
        )
        raise ValueError(message)


@dataclass(frozen=True)
class Versions:
    """The properties of an ONNX file that decide which ONNX Runtime can run it."""

    ir_version: int
    opset: int
    half: bool
    """Whether the file holds numbers in fp16 or fp8."""
    quantized: bool
    """Whether the file has nodes that quantize."""


def read_versions(model: Path) -> Versions:
    """Read the versions from an ONNX file, without a library, since one that is too old cannot tell them.

    Raises:
        ValueError: It is not an ONNX file.
        IndexError: The file ends too early.
    """
    ir_version, opset = 0, 0
    types: set[int] = set()
    operators: set[bytes] = set()
    for field, value in protobuf_fields(memoryview(model.read_bytes())):
        if isinstance(value, int):
            ir_version = value if field == 1 else ir_version
        elif field == 8:  # one for each domain; the standard one has no name
            entry = dict(protobuf_fields(value))
            if bytes(entry.get(1, b"")) in (b"", b"ai.onnx"):
                opset = int(entry.get(2, 0))
        elif field == 7:  # the graph: nodes, and tensors with their types
            for part, inner in protobuf_fields(value):
                if part == 1:
                    operators.update(bytes(name) for number, name in protobuf_fields(inner) if number == 4)
                elif part == 5:
                    types.update(kind for number, kind in protobuf_fields(inner) if number == 2)
    if not 0 < ir_version < 1000 or not 0 < opset < 1000:
        message = "no ONNX file"
        raise ValueError(message)
    return Versions(
        ir_version=ir_version, opset=opset, half=bool(types & {10, 17}), quantized=b"QuantizeLinear" in operators
    )


def protobuf_fields(content: Any) -> Iterator[tuple[int, Any]]:
    """Yield number and value of each field of a protobuf message; fields of a fixed size are left out.

    Raises:
        ValueError: It is not a protobuf message as in ONNX files.
        IndexError: It ends in the middle of a field.
    """
    place = 0

    def varint() -> int:
        nonlocal place
        value, shift = 0, 0
        while True:
            byte = int(content[place])
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while place < len(content):
        key = varint()
        kind = key & 7
        if kind == 0:
            yield key >> 3, varint()
        elif kind == 2:
            size = varint()
            if size > len(content) - place:
                message = "a field is longer than what is left"
                raise ValueError(message)
            yield key >> 3, content[place : place + size]
            place += size
        elif kind in (1, 5):
            place += 8 if kind == 1 else 4
        else:
            message = f"fields of type {kind} are not in an ONNX file"
            raise ValueError(message)


def read_preprocessing(metadata: dict[str, str]) -> Preprocessing:
    """Read the preprocessing from the metadata of an ONNX file.

    Raises:
        ValueError: The metadata are missing, or of a version or with values that are not known here.
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
        storage_px=read_sides(metadata["scalesearch.storage_px"]),
        resolution_px=read_sides(metadata["scalesearch.resolution_px"]),
        window=tuple(window) if window else None,
        fit=fit,
        channels=channels,
    )


def read_sides(text: str) -> tuple[int, int]:
    """Return height and width in pixels from their JSON: `[48, 80]`, or one number, which is a square.

    Raises:
        ValueError: It is neither.
    """
    given = json.loads(text)
    sides = given if isinstance(given, list) else [given, given]
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        message = f"expected a number of pixels or [height, width], came {text!r}"
        raise ValueError(message)
    return sides[0], sides[1]


def read_input(path: Path, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Return the network's input (1, channels, height, width) for an image file; raises one of `UNREADABLE`."""
    stored = decode(path, preprocessing.storage_px, window=preprocessing.window, fit=preprocessing.fit)
    if preprocessing.channels == 1:
        stored = to_grey(stored)
    pixels = shrink(stored, preprocessing.resolution_px)
    std = np.asarray(preprocessing.std)
    scale = (1 / (255 * std)).astype(np.float32)
    offset = (-np.asarray(preprocessing.mean) / std).astype(np.float32)
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)[np.newaxis]
    planes *= scale[:, None, None]
    planes += offset[:, None, None]
    return planes


def decode(
    path: Path, sides_px: tuple[int, int], *, window: tuple[float, ...] | None = None, fit: str = "crop"
) -> NDArray[np.uint8]:
    """Read an image file as RGB pixels (height, width, 3) of the given height and width, upright as its EXIF says.

    Transparency is laid on white.
    """
    size_bytes = path.stat().st_size
    if not 0 < size_bytes <= MAX_FILE_BYTES:
        message = f"{size_bytes} bytes" if size_bytes else "empty file"
        raise ValueError(message)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd EXIF and palettes are read all the same
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path, formats=known_formats()) as image:
            image.draft(None, (2 * max(sides_px), 2 * max(sides_px)))
            image.load()
            upright = to_rgb(turned_upright(image), window)
    return np.asarray(framed(upright, sides_px, fit))


def framed(image: Image.Image, sides_px: tuple[int, int], fit: str) -> Image.Image:
    """Return the RGB image at this height and width.

    Its largest centred part of that shape is cut out, or it is stretched, or all of it is put between grey bars.
    """
    (width, height), (to_height, to_width) = image.size, sides_px
    wide = width * to_height >= height * to_width
    if fit == "pad":
        if wide:
            to = to_width, max(1, (2 * height * to_width + width) // (2 * width))
        else:
            to = max(1, (2 * width * to_height + height) // (2 * height)), to_height
        small = image.resize(to, BILINEAR, reducing_gap=3.0)
        whole = Image.new("RGB", (to_width, to_height), (PAD_GREY,) * 3)
        whole.paste(small, ((to_width - to[0]) // 2, (to_height - to[1]) // 2))
        return whole
    if fit == "crop":
        if wide:
            part = max(1, (2 * height * to_width + to_height) // (2 * to_height)), height
        else:
            part = width, max(1, (2 * width * to_height + to_width) // (2 * to_width))
        left, top = (width - part[0]) // 2, (height - part[1]) // 2
        image = image.crop((left, top, left + part[0], top + part[1]))
    return image.resize((to_width, to_height), BILINEAR, reducing_gap=3.0)


def known_formats() -> Any:
    """Return those of `FORMATS` that this Pillow can read."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def printable(text: str) -> str:
    """Return the text with control and invisible characters written as codes, so that it cannot control a terminal."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def turned_upright(image: Image.Image) -> Image.Image:
    """Return the image turned as its EXIF orientation says."""
    if getattr(image, "_tile_orientation", None):
        return image  # a TIFF: old Pillow turned it while loading it, and might turn it once more
    try:
        return ImageOps.exif_transpose(image)
    except UNREADABLE:
        return image  # only the EXIF block is damaged, the pixels are fine
    except AttributeError:
        return image  # Pillow 8.4 raises this for any TIFF that it has loaded, and has already turned if needed


def to_rgb(image: Image.Image, window: tuple[float, ...] | None = None) -> Image.Image:
    """Return the image in RGB.

    More bits are scaled to 8, transparency is laid on white, and other modes are converted by Pillow.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = Image.fromarray(to_8_bits(np.asarray(image), window))
    if has_transparency(image):
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, (255, 255, 255, 255)), layer)
    return image if image.mode == "RGB" else image.convert("RGB")


def to_8_bits(values: NDArray[Any], window: tuple[float, ...] | None) -> NDArray[np.uint8]:
    """Return the values as bytes in the same shape: the window's ends, and values beyond them, become 0 and 255."""
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


def to_grey(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return luma (height, width, 1) of RGB pixels (height, width, 3): ITU-R BT.601 in integers, as Pillow's mode L."""
    red, green, blue = np.moveaxis(pixels.astype(np.uint32), -1, 0)
    grey = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return np.asarray(grey[..., np.newaxis], np.uint8)


def has_transparency(image: Image.Image) -> bool:
    """Tell whether the image has transparency, as Pillow's own `has_transparency_data`, which exists from 10.1 on."""
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return True
    return image.mode == "P" and image.palette is not None and image.palette.mode.endswith("A")


def shrink(pixels: NDArray[np.uint8], sides_px: tuple[int, int]) -> NDArray[np.uint8]:
    """Shrink pixels (height, width, channels) to a smaller height and width: antialiased bilinear, in integers.

    It is shrunk along the rows first, then along the columns. The result is bit for bit that of torch's
    `interpolate(uint8, mode="bilinear", antialias=True)`, which made the training images
    (aten/src/ATen/native/cpu/UpSampleKernel.cpp).
    """
    values = pixels.astype(np.int64)
    for sum_along, axis in (("oi,yic->yoc", 1), ("oi,ixc->oxc", 0)):
        if pixels.shape[axis] == sides_px[axis]:
            continue
        weights, shift = filter_weights(pixels.shape[axis], sides_px[axis])
        values = (np.einsum(sum_along, weights, values) + (1 << (shift - 1)) >> shift).clip(0, 255)
    return np.asarray(values, np.uint8)


def filter_weights(length: int, to: int) -> tuple[NDArray[np.int64], int]:
    """Return the weights (to, length) of a triangle filter that widens with the scale, as integers, and their shift.

    The shift is the number of their binary places.
    """
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


class NotFiniteError(ValueError):
    """The network's answer holds NaN or infinity, so it does not name a class."""


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Return the probabilities (classes,) of logits (classes,).

    Raises:
        NotFiniteError: A logit is NaN or infinite.
    """
    if not np.isfinite(logits).all():  # otherwise the first class would win, with a probability of nan
        message = "the network answers it with NaN or infinity (fp16 overflows and a failed calibration do this)"
        raise NotFiniteError(message)
    powers = np.exp(logits.astype(np.float64) - float(logits.max()))
    return np.asarray(powers / powers.sum(), np.float64)


def main() -> int:
    """Print a line for each image; return 1 if an image could not be read, 2 if the model could not."""
    parser = argparse.ArgumentParser(description="Label images with an exported network.")
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--model", type=Path, default=Path(__file__).with_name("model.onnx"))
    parser.add_argument("--top", type=int, default=2, help="how many classes to name (default: 2)")
    arguments = parser.parse_args()
    message = too_old()
    if message:
        print(f"error: {message}", file=sys.stderr)
        return 2
    try:
        labeller = Labeller(arguments.model)
    except Exception as error:  # ONNX Runtime's errors share no base class
        print(printable(f"error: {arguments.model}: {error}"), file=sys.stderr)
        return 2
    failed = 0
    for path in arguments.images:
        try:
            answers = labeller.label(path, top=max(arguments.top, 1))
        except NotFiniteError as error:
            failed += 1
            print(f"error: {str(path)!r} has no label: {error}", file=sys.stderr)
            continue
        except UNREADABLE as error:
            failed += 1
            print(printable(f"error: {str(path)!r} is no image that can be read: {error}"), file=sys.stderr)
            continue
        line = f"{path}: " + ", ".join(f"{name} {100 * probability:.1f} %" for name, probability in answers)
        print(printable(line))
    return 1 if failed else 0


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):  # end like any other command when `| head` closes the pipe
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
