"""Faults in the labels of boxes: how many of each kind there are, and the first places where they were found."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from scalesearch.errors import ConfigError

_SHOWN: Final = 3
ROUNDING: Final = 0.01
"""An edge that lies outside its image by no more than this share of the side is a rounding error and not reported."""

Floats = NDArray[np.float64]


@dataclass(slots=True)
class Faults:
    """Faults that do not stop the loading, with the places where each of them was found."""

    root: str
    """The data set, for messages."""
    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, what: str, where: str) -> None:
        """Count a fault.

        Args:
            what: What was found and what is made of it, as in "boxes without area, left out".
            where: File and line, or another name of the place.
        """
        self.found.setdefault(what, []).append(where)

    def warnings(self) -> tuple[str, ...]:
        """Return one line for each kind of fault: how often, what, and the first places."""
        return tuple(f"data {self.root}: {len(places)} {what} ({shown(places)})" for what, places in self.found.items())


def shown(places: Sequence[str]) -> str:
    """Return the first of some places, as text."""
    return ", ".join(places[:_SHOWN]) + (", ..." if len(places) > _SHOWN else "")


def refuse(root: str, expected: str, came: str, where: str, remedy: str) -> NoReturn:
    """Raise ConfigError: what was expected, what came, where, and what to do."""
    message = f"data {root}: expected {expected}, came {came} in {where}.\n{remedy}"
    raise ConfigError(message)


def text_lines(file: Path, root: str, what: str) -> list[str]:
    """Return the lines of a text file; a byte-order mark is no part of the first.

    Args:
        file: The file.
        root: The data set, for messages.
        what: What the file is, as in "a list of images".

    Raises:
        ConfigError: It cannot be read, or is not in UTF-8.
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        refuse(root, f"{what} that can be read", str(error), str(file), "Check the file.")
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        refuse(
            root, f"{what} in UTF-8", f"{error.reason} at byte {error.start + 1}", f"{file}:{line}", "Save it in UTF-8."
        )


def checked_box(box: Floats, sides: tuple[float, float], *, where: str, faults: Faults) -> Floats | None:
    """Return a box cut off at the edges of its image; None if nothing is left of it.

    What is cut off or left out is counted.

    Args:
        box: Left, top, right and bottom, of shape (4,).
        sides: Width and height of the image, in the unit of the box.
        where: Where the box is from.
        faults: Where faults are counted.
    """
    width, height = sides
    if not (box[2] > box[0] and box[3] > box[1]):
        faults.add("boxes without area, left out", where)
        return None
    inside = np.clip(box, 0, [width, height, width, height])
    if not (inside[2] > inside[0] and inside[3] > inside[1]):
        faults.add("boxes outside of their image, left out", where)
        return None
    if (np.abs(inside - box) > ROUNDING * np.asarray([width, height, width, height])).any():
        faults.add("boxes that reach out of their image, cut off at its edge", where)
    return np.asarray(inside)


def without_repeats(rows: Sequence[tuple[tuple[float, ...], str]], faults: Faults) -> list[int]:
    """Return the indices of the rows that do not repeat an earlier row; the repeated ones are counted as faults.

    Args:
        rows: The values of each row, and the place where it stands, for messages.
        faults: Where faults are counted.
    """
    seen, kept = set[tuple[float, ...]](), list[int]()
    for place, (said, where) in enumerate(rows):
        if said in seen:
            faults.add("boxes that are there twice, the second left out", where)
            continue
        seen.add(said)
        kept.append(place)
    return kept
