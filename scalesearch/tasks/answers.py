"""Results of an exported network for an image, as `scalesearch predict` prints them; without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from scalesearch.errors import ScalesearchError
from scalesearch.plain_text import shortened, visible


class UnreadableImageError(ScalesearchError):
    """A file is no image that can be read; the text says why, in a line."""


def unreadable(error: Exception) -> UnreadableImageError:
    """Return an error with the message of `error`, which says what is wrong with a file, as one printable line."""
    return UnreadableImageError(visible(shortened((str(error).splitlines() or [""])[0], 200)) or type(error).__name__)


class NoAnswerError(ScalesearchError):
    """The network's outputs for an image give no result, for example because they are NaN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The header of a column of the table of results."""

    text: str
    number: bool = False
    """Whether the column holds numbers, which are aligned to the right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The network's result for one image."""

    cells: tuple[str, ...]
    """The cells of the image's row in the table, from the most important one; printable, each of one line."""
    fields: Mapping[str, object]
    """The result for `--json`: the fields of the image's object besides its file."""


class Predictor(Protocol):
    """An exported network, open on the CPU, with its preprocessing and post-processing."""

    noun: str
    """What a result is called, as in "no label for photo.jpg"."""

    draws: bool
    """Whether it draws pictures of its results."""

    def answer(self, image: Path, *, top: int, to: Path | None = None) -> Answer:
        """Return the result for an image file.

        Args:
            image: The image file.
            top: Number of classes or objects that the table shows at most, the best ones first.
            to: Folder for pictures of the result, named like the image; only for predictors that draw, which take
                `name` as well, the pictures' name without suffix if it is not the image's.

        Raises:
            UnreadableImageError: The file is no image that can be read.
            NoAnswerError: The network gives no valid result for it.
            OSError: A picture of the result cannot be written.
        """
        ...

    def heads(self, cells: int) -> tuple[Head, ...]:
        """Return the headers of the table's columns, for a table whose longest row has `cells` cells."""
        ...
