"""Pictures of images with their true boxes and, side by side, with those that a network predicts."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from scalesearch.data.boxes import NO_CLASS
from scalesearch.tasks.detection.decoding import Detections, decode_answers
from scalesearch.tasks.detection.infer import COLORS
from scalesearch.tasks.pictures import Pixels, as_rgb, captioned, side_by_side

_WIDTH_PX: Final = 320
"""Images are enlarged by a whole factor to about this width, so that lines and words can be seen."""
_SURE_FROM: Final = 0.25
_IGNORED: Final = "#bbbbbb"


def with_boxes(
    images: NDArray[np.uint8],
    targets: Any,
    class_names: Sequence[str],
    raw: NDArray[np.float32] | None,
    *,
    threshold: float | None = None,
) -> tuple[Pixels, ...]:
    """Return a picture of each image with its true boxes and, if `raw` is given, side by side with the predicted ones.

    Args:
        images: (number, height, width, C).
        targets: (number, 1 + most, 6), as `Boxes.tensor` has them; ignored boxes are grey.
        class_names: Names of the classes.
        raw: Raw outputs (number, 4 + classes + 1, points), or None.
        threshold: Predicted boxes of a lower score are not drawn; None: of less than 0.25.
    """
    least = _SURE_FROM if threshold is None else threshold
    rows, sides = np.asarray(targets), (int(images.shape[1]), int(images.shape[2]))
    answers = [None] * len(images) if raw is None else decode_answers(raw, sides)
    pictures = []
    for image, row, answer in zip(images, rows, answers, strict=True):
        held = row[1:][row[1:, 4] != NO_CLASS]
        names = [class_names[int(label)] for label in held[:, 4]]
        colors = [
            _IGNORED if ignored else COLORS[int(label) % len(COLORS)]
            for label, ignored in zip(held[:, 4], held[:, 5] > 0, strict=True)
        ]
        parts = [captioned(drawn(image, held[:, :4], names, colors), f"truth: {len(held)} boxes")]
        if answer is not None:
            parts.append(_answered(image, answer.above(least), class_names, least))
        pictures.append(side_by_side(parts))
    return tuple(pictures)


def _answered(image: Pixels, answer: Detections, class_names: Sequence[str], least: float) -> Pixels:
    names = [
        f"{class_names[int(label)]} {score:.2f}" for label, score in zip(answer.classes, answer.scores, strict=True)
    ]
    colors = [COLORS[int(label) % len(COLORS)] for label in answer.classes]
    words = f"answer: {len(names)}, score >= {least:.3g}"
    return captioned(drawn(image, answer.boxes, names, colors), words)


def drawn(image: Pixels, boxes: NDArray[np.floating], names: Sequence[str], colors: Sequence[str]) -> Pixels:
    """Return the image, enlarged if it is small, with boxes (n, 4) and their names on it, in RGB."""
    factor = max(1, round(_WIDTH_PX / image.shape[1]))
    picture = Image.fromarray(as_rgb(image).repeat(factor, axis=0).repeat(factor, axis=1))
    draw = ImageDraw.Draw(picture)
    for box, name, color in zip(boxes, names, colors, strict=True):
        left, top, right, bottom = (factor * float(side) for side in box)
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=color, width=1)
        printable = "".join(sign if " " <= sign <= "~" else "?" for sign in name)  # what the built-in font has
        at = (left, bottom) if bottom + 10 < picture.height else (left, max(0.0, top - 11))
        draw.text(at, printable, fill=color, stroke_width=1, stroke_fill="black")
    return np.asarray(picture)
