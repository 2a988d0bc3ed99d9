"""Find objects in images with an ONNX file of scalesearch, using only onnxruntime, numpy and Pillow.

    python infer.py IMAGE [IMAGE ...] [--model model.onnx] [--threshold 0.4] [--to FOLDER] [--json]

With --to, every image is written into that folder with its boxes drawn on it, as NAME.png; images that share a name
keep their folders below it. All that it needs to know is in the metadata of the ONNX file. From Python:
`Detector(path).detect("photo.jpg")`.

It runs with Python 3.8, numpy 1.21, Pillow 8.0, onnxruntime 1.14 and newer; numpy 2 needs onnxruntime 1.19. A model in
bf16, fp8 or TensorRT's int8 needs a newer onnxruntime: the error message says which. AVIF pictures need Pillow 11.3.

`scalesearch export` writes this file into every export of a detector. It imports nothing of scalesearch there, prints
(it is a script), and decodes answers by the very code that scores them.
"""

from __future__ import annotations  # Python 3.8 and 3.9 could not evaluate some of the types below

import argparse
import json
import signal
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from scalesearch.tasks.detection.decoding import LEAST_SCORE, Detections, NotFiniteError, decode_answers
from scalesearch.tasks.infer_parts.images import (
    UNREADABLE,
    known_formats,
    printable,
    read_input,
    to_rgb,
    turned_upright,
)
from scalesearch.tasks.infer_parts.picture_names import PictureNameError, picture_names, pictures_of, save_picture
from scalesearch.tasks.infer_parts.preprocessing import Preprocessing, read_preprocessing
from scalesearch.tasks.infer_parts.versions import open_session, too_old

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLORS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#808000")


class Detector:
    """An open ONNX file with its preprocessing and its threshold."""

    def __init__(self, model: str | Path, *, threads: int = 1) -> None:
        """Open the file on the CPU.

        With `threads` 0 it uses all cores, from which small networks rarely gain.

        Raises:
            ValueError: The file's metadata do not describe its preprocessing, or it needs a newer ONNX Runtime.
        """
        self._session = open_session(Path(model), threads)
        metadata = self._session.get_modelmeta().custom_metadata_map
        self.preprocessing = read_preprocessing(metadata)
        self.threshold = float(json.loads(metadata.get("scalesearch.threshold", "0.25")))
        """The score from which on a detection is reported, unless another one is asked for."""
        self._input = self._session.get_inputs()[0].name

    def raw(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the network's raw answers (N, 4 + classes + 1, points) for inputs (N, channels, height, width)."""
        return np.asarray(self._session.run(None, {self._input: images})[0], np.float32)

    def detect(self, path: str | Path, *, threshold: float | None = None) -> Detections:
        """Return the objects in an image file, with boxes in pixels of the upright image.

        Raises one of `UNREADABLE`. One of these is `NotFiniteError`, if the network gives no valid answer.
        """
        raw = self.raw(read_input(Path(path), self.preprocessing))
        if not np.isfinite(raw).all():
            message = "the network answers it with NaN or infinity (fp16 overflows and a failed calibration do this)"
            raise NotFiniteError(message)
        least = max(LEAST_SCORE, self.threshold if threshold is None else threshold)
        found = decode_answers(raw, self.preprocessing.resolution_px, least_score=least)[0]
        size = upright_size(Path(path))
        boxes = to_original(found.boxes, size, original_to_input(size, self.preprocessing))
        return Detections(boxes, found.classes, found.scores)


def original_to_input(size: tuple[int, int], preprocessing: Preprocessing) -> tuple[float, float, float, float]:
    """Return scale x, scale y, offset x and offset y from pixels of an image to those of the network's input.

    Args:
        size: Width and height of the upright image.
        preprocessing: How the image becomes the input.
    """
    (width, height), (to_height, to_width) = size, preprocessing.storage_px
    scale_x, scale_y, offset_x, offset_y = to_width / width, to_height / height, 0.0, 0.0
    wide = width * to_height >= height * to_width
    if preprocessing.fit == "pad":
        if wide:
            small = to_width, max(1, (2 * height * to_width + width) // (2 * width))
        else:
            small = max(1, (2 * width * to_height + height) // (2 * height)), to_height
        scale_x, scale_y = small[0] / width, small[1] / height
        offset_x, offset_y = float((to_width - small[0]) // 2), float((to_height - small[1]) // 2)
    elif preprocessing.fit == "crop":
        if wide:
            part = max(1, (2 * height * to_width + to_height) // (2 * to_height)), height
        else:
            part = width, max(1, (2 * width * to_height + to_width) // (2 * to_width))
        scale_x, scale_y = to_width / part[0], to_height / part[1]
        offset_x, offset_y = -((width - part[0]) // 2) * scale_x, -((height - part[1]) // 2) * scale_y
    across, down = preprocessing.resolution_px[1] / to_width, preprocessing.resolution_px[0] / to_height
    return scale_x * across, scale_y * down, offset_x * across, offset_y * down


def to_original(
    boxes: NDArray[np.float32], size: tuple[int, int], placement: tuple[float, float, float, float]
) -> NDArray[np.float32]:
    """Return boxes (n, 4) in pixels of the original image, cut off at its edges.

    Args:
        boxes: In pixels of the network's input.
        size: Width and height of the original image.
        placement: Scale x, scale y, offset x and offset y from original pixels to those of the input.
    """
    scale, offset = np.asarray(placement[:2] * 2), np.asarray(placement[2:] * 2)
    limits = np.asarray(size * 2, np.float32)
    return np.asarray(np.clip((boxes - offset) / scale, 0, limits), np.float32)


def upright_size(path: Path) -> tuple[int, int]:
    """Return width and height of an image file, turned as its EXIF orientation says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path, formats=known_formats()) as image:
            if image.format == "TIFF":  # Pillow turns it when loading, and new versions tell the turned size before
                image.load()
                return turned_upright(image).size
            width, height = image.size
            if image.format == "PNG" and "exif" not in image.info:
                image.load()  # it may stand after the pixels
            # A picture of two pixels is turned, or left if its EXIF block is damaged, just as the whole one was.
            two = Image.new("L", (1, 2))
            two.info.update(image.info)
            turned = turned_upright(two).size == (2, 1)
    return (height, width) if turned else (width, height)


def draw_detections(image: Image.Image, found: Detections, class_names: tuple[str, ...]) -> Image.Image:
    """Return a copy of an RGB image with the boxes, their classes and scores drawn on it."""
    from PIL import ImageDraw  # here, since reading and labelling need none

    drawn = image.copy()
    draw = ImageDraw.Draw(drawn)
    width = max(1, round(max(image.size) / 300))
    for box, place, score in zip(found.boxes, found.classes, found.scores):  # noqa: B905  (Python 3.8 has no `strict`)
        color = COLORS[int(place) % len(COLORS)]
        left, top, right, bottom = (float(side) for side in box)
        draw.rectangle((left, top, right, bottom), outline=color, width=width)
        words = printable(f"{class_names[int(place)]} {score:.2f}").encode("latin-1", "replace").decode("latin-1")
        at = (left, max(0.0, top - 12))
        draw.rectangle((*at, at[0] + 6 * len(words) + 2, at[1] + 12), fill=color)
        draw.text((at[0] + 1, at[1]), words, fill="white")
    return drawn


def as_objects(found: Detections, class_names: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return detections as plain values for JSON, exact enough that they score as the detections themselves do."""
    return [
        {"class": class_names[int(place)], "score": round(float(score), 6), "box": [round(float(x), 3) for x in box]}
        for box, place, score in zip(found.boxes, found.classes, found.scores)  # noqa: B905  (Python 3.8)
    ]


def main() -> int:
    """Print the objects in each image; return 1 if an image cannot be read, 2 if model or --to cannot be used."""
    parser = argparse.ArgumentParser(description="Find objects in images with an exported network.")
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--model", type=Path, default=Path(__file__).with_name("model.onnx"))
    parser.add_argument("--threshold", type=float, help="lowest score to report (default: that of the export)")
    parser.add_argument("--to", type=Path, help="folder to write images with boxes into")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each image")
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
        detector = Detector(arguments.model)
    except Exception as error:  # ONNX Runtime's errors share no base class
        print(printable(f"error: {arguments.model}: {error}"), file=sys.stderr)
        return 2
    names, failed = detector.preprocessing.class_names, 0
    for number, path in enumerate(arguments.images):
        try:
            found = detector.detect(path, threshold=arguments.threshold)
        except NotFiniteError as error:
            failed += 1
            print(f"error: {str(path)!r} has no answer: {error}", file=sys.stderr)
            continue
        except UNREADABLE as error:
            failed += 1
            print(printable(f"error: {str(path)!r} is no image that can be read: {error}"), file=sys.stderr)
            continue
        objects = as_objects(found, names)
        if arguments.json:
            print(json.dumps({"file": str(path), "objects": objects}))
        else:
            parts = (
                f"{each['class']} {each['score']:.2f} at {[round(side, 1) for side in each['box']]}" for each in objects
            )
            print(printable(f"{path}: " + ("; ".join(parts) or "nothing")))
        if places:
            try:
                write_drawn(path, places[number], found, detector.preprocessing)
            except OSError as error:
                print(printable(f"error: cannot write {places[number]}.png: {error}"), file=sys.stderr)
                return 2
    return 1 if failed else 0


def write_drawn(path: Path, to: Path, found: Detections, preprocessing: Preprocessing) -> None:
    """Write an image with its boxes to TO.png, in a folder that is made if needed."""
    with Image.open(path, formats=known_formats()) as image:
        image.load()
        upright = to_rgb(turned_upright(image), preprocessing.window)
    to.parent.mkdir(parents=True, exist_ok=True)
    save_picture(draw_detections(upright, found, preprocessing.class_names), pictures_of(to)[0])


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):  # end like any other command when `| head` closes the pipe
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
