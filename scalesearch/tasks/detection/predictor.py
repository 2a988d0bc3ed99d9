"""The objects in image files, by the same code as an export's own infer.py."""

from pathlib import Path

from scalesearch.plain_text import visible
from scalesearch.tasks.answers import Answer, Head, NoAnswerError, unreadable
from scalesearch.tasks.detection.decoding import NotFiniteError
from scalesearch.tasks.detection.infer import Detector, as_objects, write_drawn
from scalesearch.tasks.infer_parts.images import UNREADABLE


class BoxPredictor:
    """A `Predictor` that returns the objects with at least the export's threshold as score."""

    noun = "boxes"
    draws = True

    def __init__(self, model: Path, *, threads: int) -> None:
        """Open an exported ONNX file; raises what ONNX Runtime and `Detector` raise."""
        self._detector = Detector(model, threads=threads)

    def answer(self, image: Path, *, top: int, to: Path | None = None, name: str = "") -> Answer:
        """Return the objects in an image file; the table shows the `top` most certain ones.

        With `to`, the image is written into that folder with its boxes drawn on it, as `Predictor` says.
        """
        try:
            found = self._detector.detect(image)
        except NotFiniteError as error:
            raise NoAnswerError(str(error)) from error
        except UNREADABLE as error:
            raise unreadable(error) from error
        if to is not None:
            write_drawn(image, to / (name or image.stem), found, self._detector.preprocessing)
        objects = as_objects(found, self._detector.preprocessing.class_names)
        cells = [str(len(objects))]
        for each in objects[:top]:
            box = " ".join(f"{side:.0f}" for side in each["box"])
            cells += [visible(each["class"], newlines=False), f"{each['score']:.2f}", box]
        return Answer(cells=tuple(cells), fields={"objects": objects})

    def heads(self, cells: int) -> tuple[Head, ...]:
        """Return the header of the number of objects, and three for each object: class, score and box in pixels."""
        each = (Head(text="class"), Head(text="score", number=True), Head(text="left top right bottom"))
        return (Head(text="objects", number=True), *(each * ((cells - 1) // 3)))
