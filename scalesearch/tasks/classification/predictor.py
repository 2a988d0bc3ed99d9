"""The labels of image files, by the same code as an export's own infer.py."""

from pathlib import Path

from scalesearch.plain_text import visible
from scalesearch.tasks.answers import Answer, Head, NoAnswerError, unreadable
from scalesearch.tasks.classification.infer import Labeller, NotFiniteError
from scalesearch.tasks.infer_parts.images import UNREADABLE


class LabelPredictor:
    """A `Predictor` that returns the most likely classes and their probabilities."""

    noun = "label"
    draws = False

    def __init__(self, model: Path, *, threads: int) -> None:
        """Open an exported ONNX file; raises what ONNX Runtime and `Labeller` raise."""
        self._labeller = Labeller(model, threads=threads)

    def answer(self, image: Path, *, top: int, to: Path | None = None) -> Answer:
        """Return the `top` most likely classes of an image file."""
        try:
            classes = self._labeller.label(image, top=top)
        except NotFiniteError as error:
            raise NoAnswerError(str(error)) from error
        except UNREADABLE as error:
            raise unreadable(error) from error
        cells = tuple(part for name, share in classes for part in (visible(name, newlines=False), f"{100 * share:.1f}"))
        named = [{"name": name, "probability": probability} for name, probability in classes]
        first, probability = classes[0]
        return Answer(cells=cells, fields={"label": first, "probability": probability, "classes": named})

    def heads(self, cells: int) -> tuple[Head, ...]:
        """Return two headers for each rank: the class and its probability."""
        names = ("label", "runner-up", *(f"{place}." for place in range(3, cells // 2 + 1)))
        return tuple(head for name in names[: cells // 2] for head in (Head(text=name), Head(text="%", number=True)))
