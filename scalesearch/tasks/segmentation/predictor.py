"""The classes in image files and their shares, by the same code as an export's own infer.py."""

from pathlib import Path

from scalesearch.plain_text import visible
from scalesearch.tasks.answers import Answer, Head, NoAnswerError, unreadable
from scalesearch.tasks.infer_parts.images import UNREADABLE
from scalesearch.tasks.segmentation.infer import NotFiniteError, Segmenter, write_pictures


class MaskPredictor:
    """A `Predictor` that returns the most frequent classes and their shares of the picture, and writes masks."""

    noun = "mask"
    draws = True

    def __init__(self, model: Path, *, threads: int) -> None:
        """Open an exported ONNX file; raises what ONNX Runtime and `Segmenter` raise."""
        self._segmenter = Segmenter(model, threads=threads)

    def answer(self, image: Path, *, top: int, to: Path | None = None, name: str = "") -> Answer:
        """Return the `top` most frequent classes of an image file; with `to`, write its mask into that folder.

        The mask is named as `Predictor` says.
        """
        try:
            mask = self._segmenter.mask(image)
        except NotFiniteError as error:
            raise NoAnswerError(str(error)) from error
        except UNREADABLE as error:
            raise unreadable(error) from error
        if to is not None:
            write_pictures(image, mask, to / (name or image.stem), self._segmenter.preprocessing.window)
        classes = self._segmenter.shares(mask, top=top)
        cells = tuple(part for name, share in classes for part in (visible(name, newlines=False), f"{100 * share:.1f}"))
        named = [{"name": name, "share": share} for name, share in classes]
        return Answer(cells=cells, fields={"classes": named, "height": mask.shape[0], "width": mask.shape[1]})

    def heads(self, cells: int) -> tuple[Head, ...]:
        """Return two headers for each rank: the class and its share of the picture."""
        places = range(1, cells // 2 + 1)
        return tuple(head for place in places for head in (Head(text=f"{place}."), Head(text="%", number=True)))
