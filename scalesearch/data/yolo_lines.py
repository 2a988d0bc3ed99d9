"""Read the lines of YOLO's label files: boxes, polygons, and boxes with keypoints."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from scalesearch.data.box_faults import Faults, refuse
from scalesearch.data.box_files import LabelledBox

_PIXELS_FROM: Final = 2.0
"""A coordinate of at least this value is no fraction, not even of a box that reaches far out of its image."""
_SLACK: Final = 0.01
"""How far a keypoint may lie outside of its box, and a box outside of its image, as fractions of the image."""
_SLANT: Final = 0.002
"""How far four corners may be from a parallelogram and still be an oriented box."""
_SHOWN: Final = 80

Numbers = Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeypointShape:
    """How many keypoints follow each box, and how many numbers each of them has."""

    points: int
    numbers: int
    """2 for x and y, 3 if it is also told whether the point is seen."""

    @property
    def words(self) -> int:
        """How many numbers a line has."""
        return 5 + self.points * self.numbers


def keypoint_shape(document: Mapping[str, Any], file: Path) -> KeypointShape | None:
    """Return what a data.yaml says in `kpt_shape`; None if it says nothing.

    Raises:
        ConfigError: It is not as expected.
    """
    given = document.get("kpt_shape")
    if not given:
        return None
    if (
        not isinstance(given, list)
        or [type(each) for each in given] != [int, int]
        or given[0] < 1
        or given[1] not in (2, 3)
    ):
        expected = "kpt_shape as [keypoints, 2 or 3]"
        refuse(str(file), expected, repr(given)[:_SHOWN], str(file), "Mend kpt_shape, or remove it.")
    return KeypointShape(points=given[0], numbers=given[1])


@dataclass(slots=True)
class LineReader:
    """Reads lines one by one, and says at the end what they were taken for."""

    labels: Mapping[int, int]
    """The index of each class number that data.yaml names."""
    keypoints: KeypointShape | None
    faults: Faults
    _polygons: list[tuple[int, bool, str]] = field(default_factory=list)
    """How many numbers each polygon's line has, whether it could also be a box with more, and its place."""

    def box(self, words: Sequence[str], where: str) -> LabelledBox:
        """Return the box of a line: class, then centre and sides as fractions, or the corners of a polygon.

        Raises:
            ConfigError: The line is neither.
        """
        values = _finite(words)
        if self.keypoints and len(values) not in (5, self.keypoints.words):
            shape = self.keypoints
            expected = (
                f"5 numbers, or {shape.words} with {shape.points} keypoints of {shape.numbers}, as kpt_shape says"
            )
            came = f"{len(values)} numbers" if values else repr(" ".join(words))[:_SHOWN]
            refuse(self.faults.root, expected, came, where, "Mend the line, or kpt_shape in data.yaml.")
        polygon = not self.keypoints and len(values) >= 7 and len(values) % 2 == 1
        if not (len(values) in (5, 6) or polygon or self.keypoints):
            remedy = "Write one line for each box: class, centre x, centre y, width, height, as fractions of the sides."
            refuse(self.faults.root, "a class and four numbers", repr(" ".join(words))[:_SHOWN], where, remedy)
        label, *rest = values
        if not label.is_integer() or int(label) not in self.labels:
            known = f"one of the {len(self.labels)} classes that data.yaml names"
            refuse(self.faults.root, known, f"class {words[0]}", where, "Mend the label, or add the class to names.")
        self._require_fractions(rest if polygon else rest[:4], words, where)
        if polygon:
            sides = self._around(rest, words, where)
        else:
            if len(rest) == 5:
                what = "lines with a sixth number (a confidence, or the number of a track?), which is not read"
                self.faults.add(what, where)
            elif len(rest) > 5:
                self.faults.add("boxes with keypoints, which are not read", where)
            x, y, width, height = rest[:4]
            sides = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return LabelledBox(sides=sides, label=self.labels[int(label)], where=where)

    def count_polygons(self) -> None:
        """Count the polygons, once all lines were read.

        Outlines have unlike numbers of corners. Where all lines have as many numbers, and each of them could be a box
        within its image with keypoints in it, or with a confidence and the number of a track, that is said.
        """
        lengths = {length for length, _, _ in self._polygons}
        what = "polygons, taken for the boxes around them"
        if len(lengths) == 1 and all(doubtful for _, doubtful, _ in self._polygons):
            what = (
                f"lines of {min(lengths)} numbers, taken for polygons: if they are boxes with keypoints, data.yaml "
                "needs its kpt_shape; if with confidence and track, remove these"
            )
        for _, _, where in self._polygons:
            self.faults.add(what, where)

    def _require_fractions(self, numbers: Numbers, words: Sequence[str], where: str) -> None:
        place = next((place for place, number in enumerate(numbers) if abs(number) >= _PIXELS_FROM), None)
        if place is None:
            return
        expected = "fractions of the image's sides, 0 to 1"
        remedy = "Divide x by the width and y by the height of the image."
        if place < 4:
            refuse(self.faults.root, expected, f"{' '.join(words[1:5])} (pixels?)", where, remedy)
        came = f"{words[place + 1]} as number {place + 2} of a line of {len(words)} (pixels, a keypoint, a track?)"
        remedy = "Divide by the sides of the image; or give data.yaml its kpt_shape; or remove what follows the box."
        refuse(self.faults.root, expected, came[:_SHOWN], where, remedy)

    def _around(self, numbers: Numbers, words: Sequence[str], where: str) -> tuple[float, float, float, float]:
        """Return the box around a polygon."""
        doubtful, hidden = _read_as_box(numbers)
        if hidden > 1:
            came = f"{' '.join(words)[: _SHOWN // 2]} ... with {hidden} points at 0 0 (keypoints?)"
            remedy = "Give data.yaml its kpt_shape, as [keypoints, 2 or 3], if the line is a box with keypoints."
            refuse(self.faults.root, "the corners of a polygon", came, where, remedy)
        self._polygons.append((len(words), doubtful, where))
        return min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])


def _finite(words: Sequence[str]) -> list[float]:
    """Return words as numbers; none if any word is no finite number."""
    try:
        values = [float(word) for word in words]
    except ValueError:
        return []
    return values if all(map(math.isfinite, values)) else []


def _read_as_box(numbers: Numbers) -> tuple[bool, int]:
    """Tell whether the numbers of a polygon could be a box with more.

    Returns:
        Whether they could, and, if that is a box with keypoints, how many of these were not seen: they stand at 0, 0.
    """
    x, y, width, height, *more = numbers
    inside = all(
        side > 0 and centre - side / 2 >= -_SLACK and centre + side / 2 <= 1 + _SLACK
        for centre, side in ((x, width), (y, height))
    )
    if not inside or _is_oriented_box(numbers):
        return False, 0
    if len(more) == 2 and 0 <= more[0] <= 1 and more[1] in (0, 1):
        return True, 0  # a confidence and the number of a track

    def fits(point: Numbers) -> bool:
        near = abs(point[0] - x) <= width / 2 + _SLACK and abs(point[1] - y) <= height / 2 + _SLACK
        return (near and (len(point) == 2 or point[2] in (0, 1))) or not any(point)

    for size in (2, 3):
        starts = range(0, len(more), size)
        if len(more) % size == 0 and all(fits(more[start : start + size]) for start in starts):
            return True, sum(not any(more[start : start + size]) for start in starts)
    return False, 0


def _is_oriented_box(numbers: Numbers) -> bool:
    """Tell whether the numbers are the four corners of a parallelogram, one after the other."""
    if len(numbers) != 8:
        return False
    first, second, third, fourth = zip(numbers[::2], numbers[1::2], strict=True)
    return all(abs(first[axis] + third[axis] - second[axis] - fourth[axis]) <= _SLANT for axis in (0, 1))
