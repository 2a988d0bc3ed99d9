"""What an exported network answers for an image, as `scalesearch predict` prints it; no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scalesearch.errors import ScalesearchError
from scalesearch.plain_text import shortened, visible


class UnreadableImageError(ScalesearchError):
    """A file is no image that can be read; the text says why, in a line."""


def unreadable(error: Exception) -> UnreadableImageError:
    """Return the error that says in one printable line what another one says of a file."""
    return UnreadableImageError(visible(shortened((str(error).splitlines() or [""])[0], 200)) or type(error).__name__)


class NoAnswerError(ScalesearchError):
    """The network's outputs for an image stand for no answer, for example because they are NaN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The head of a column of answers."""

    text: str
    number: bool = False
    """Whether the column holds numbers, which stand to the right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the network answers for one image."""

    cells: tuple[str, ...]
    """The cells of the image's row in the table, from the most important one; printable, each of one line."""
    fields: Mapping[str, object]
    """The same for `--json`: what the image's object holds besides its file."""


class Predictor(Protocol):
    """An exported network, open on the CPU, with all that leads from an image file to an answer."""

    noun: str
    """What one answer is called, as in "no label for photo.jpg"."""

    draws: bool
    """Whether it draws what it answers."""

    def answer(self, image: Path, *, top: int, to: Path | None = None) -> Answer:
        """Return the answer for an image file: the `top` best ones, where the task knows several for an image.

        With `to`, which is for predictors that draw, pictures of the answer are written into that folder, by the name
        of the image.

        Raises:
            UnreadableImageError: The file is no image that can be read.
            NoAnswerError: The network gives no valid answer for it.
        """
        ...

    def heads(self, cells: int) -> tuple[Head, ...]:
        """Return the heads of the table's columns, where the longest row has so many cells."""
        ...
