"""Labels in pixels that state another size than their image has: what is scaled, what is let be, what is refused."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scalesearch.data.box_faults import ROUNDING, Faults, refuse, shown

_UNLIKE_AT_MOST: Final = 50
"""Boxes are scaled along if both sides agree up to this part of them, a fiftieth: more would distort them."""
_SHOWN: Final = 40

Floats = NDArray[np.float64]
Size = tuple[int, int]


@dataclass(slots=True)
class DeclaredSizes:
    """Compares the sizes that labels state with those that images have, and keeps what must be refused."""

    faults: Faults
    _refused: dict[str, list[tuple[Path, Size, Size]]] = field(default_factory=dict)

    def factors(self, path: Path, declared: Size, size: Size, sides: Floats) -> Floats:
        """Return factors (4,) that scale boxes in pixels to the image.

        Args:
            path: The image.
            declared: Width and height that its labels state.
            size: Width and height that it has, upright.
            sides: Its boxes as its labels give them, of shape (n, 4).
        """
        (wide, high), (width, height), same = declared, size, np.ones(4)
        if declared == size or not len(sides):
            return same
        if min(declared) < 1:
            self.faults.add("images whose labels tell no size, taken for the image's own", str(path))
            return same
        if (wide, high) == (height, width):
            if _is_turned(path, size):
                self._refused.setdefault("turned", []).append((path, declared, size))
            elif _fit(sides, size):
                self.faults.add("images with width and height exchanged in their labels, whose boxes fit", str(path))
            else:
                self._refused.setdefault("exchanged", []).append((path, declared, size))
            return same
        if not _of_one_shape(declared, size):
            self._refused.setdefault("shape", []).append((path, declared, size))
            return same
        what = "images of another size than their labels tell, boxes enlarged or shrunk along"
        self.faults.add(what, str(path))
        return np.asarray([width / wide, height / high] * 2)

    def refuse_others(self) -> None:
        """Raise ConfigError if boxes of some images could not be placed; the text names the first of one kind."""
        for kind, found in self._refused.items():
            path, (wide, high), (width, height) = found[0]
            told, has = f"labels of {f'{wide} x {high}'[:_SHOWN]}", f"{width} x {height}"
            where = f"those of {shown([str(each) for each, _, _ in found])}" + f" ({len(found)})" * (len(found) > 1)
            if kind == "turned":
                remedy = (
                    "Turn the pixels themselves, e.g. by Pillow's ImageOps.exif_transpose, or label the turned image."
                )
                refuse(
                    self.faults.root, f"labels of the image as it is seen, {has} (EXIF turns it)", told, where, remedy
                )
            if kind == "exchanged":
                expected, came = f"labels of the image as it lies, {has}", f"{told} with boxes that reach out of it"
                refuse(self.faults.root, expected, came, where, "Label the image as it is.")
            seen = " (EXIF turns it)" if _is_turned(path, (width, height)) else ""
            expected = f"labels of an image of the same shape, as {has}{seen}"
            refuse(self.faults.root, expected, told, where, "Label the image as it is, or mend width and height.")


def _is_turned(path: Path, size: Size) -> bool:
    from scalesearch.data.decode import is_on_its_side

    return is_on_its_side(path, size)


def _fit(sides: Floats, size: Size) -> bool:
    """Tell whether boxes lie in an image of this size, up to rounding."""
    limits = np.asarray(size * 2)
    return bool((sides >= -ROUNDING * limits).all() and (sides <= (1 + ROUNDING) * limits).all())


def _of_one_shape(declared: Size, size: Size) -> bool:
    """Tell whether two sizes have the same shape: equal factors for both sides, up to rounding or a few hundredths."""
    across, along = size[0] * declared[1], size[1] * declared[0]
    return abs(across - along) <= max(*declared, *size, max(across, along) // _UNLIKE_AT_MOST)
