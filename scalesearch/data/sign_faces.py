"""Draw the faces of the synthetic road signs, flat: shape, colours, and glyphs that differ in fine detail."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import numpy as np
from PIL import Image

from scalesearch.data.sign_shapes import (
    Face,
    draw_arrow,
    draw_bend,
    draw_bicycle,
    draw_disc,
    draw_ring,
    draw_triangle,
    draw_walker,
    regular_polygon,
)

# --- shapes ---


# --- glyphs ---


# --- signs ---


def _speed(face: Face, number: str) -> None:
    draw_ring(face)
    height = (0.86 if len(number) == 2 else 0.62) * face.glyph
    face.text(number, height, face.palette.black, weight=0.045 * face.stroke)


def _blue_arrow(face: Face, turn_deg: float) -> None:
    draw_disc(face, face.palette.blue)
    draw_arrow(face, turn_deg=turn_deg)


def _blue_walker(face: Face) -> None:
    draw_disc(face, face.palette.blue)
    draw_walker(face, face.palette.white, size=0.7, center=(0.0, 0.0))


def _blue_bicycle(face: Face) -> None:
    draw_disc(face, face.palette.blue)
    draw_bicycle(face, face.palette.white, size=0.68, center=(0.0, 0.02))


def _warn_walker(face: Face) -> None:
    draw_triangle(face, up=True)
    draw_walker(face, face.palette.black, size=0.5, center=(0.0, 0.22))


def _warn_bicycle(face: Face) -> None:
    draw_triangle(face, up=True)
    draw_bicycle(face, face.palette.black, size=0.48, center=(0.0, 0.32))


def _warn_bend(face: Face, left: bool) -> None:
    draw_triangle(face, up=True)
    draw_bend(face, left=left)


def _stop(face: Face) -> None:
    face.polygon(regular_polygon(8, 22.5, 0.99), face.palette.white)
    face.polygon(regular_polygon(8, 22.5, 0.93), face.palette.red)
    face.text("STOP", 0.42 * face.glyph, face.palette.white, weight=0.02 * face.stroke)


def _priority(face: Face) -> None:
    face.polygon(regular_polygon(4, 0, 0.98), face.palette.white)
    face.polygon(regular_polygon(4, 0, 0.98 - 1.4 * face.border), face.palette.yellow)


def _no_entry(face: Face) -> None:
    draw_disc(face, face.palette.red)
    width, height = 0.66 * face.glyph, 0.17 * face.stroke
    face.polygon([(-width, -height), (width, -height), (width, height), (-width, height)], face.palette.white)


def _parking(face: Face) -> None:
    for half, color in ((0.88, face.palette.white), (0.82, face.palette.blue)):
        face.polygon([(-half, -half), (half, -half), (half, half), (-half, half)], color)
    face.text("P", 0.92 * face.glyph, face.palette.white, weight=0.05 * face.stroke)


SIGNS: Mapping[str, Callable[[Face], None]] = MappingProxyType(
    {
        **{f"speed_{number}": partial(_speed, number=number) for number in ("20", "30", "50", "60", "80", "100")},
        "go_straight": partial(_blue_arrow, turn_deg=0),
        "turn_left": partial(_blue_arrow, turn_deg=-90),
        "turn_right": partial(_blue_arrow, turn_deg=90),
        "foot_path": _blue_walker,
        "cycle_path": _blue_bicycle,
        "warn_walkers": _warn_walker,
        "warn_bicycles": _warn_bicycle,
        "warn_left_bend": partial(_warn_bend, left=True),
        "warn_right_bend": partial(_warn_bend, left=False),
        "yield": partial(draw_triangle, up=False),
        "stop": _stop,
        "priority": _priority,
        "no_entry": _no_entry,
        "parking": _parking,
    }
)
CLASS_NAMES = tuple(SIGNS)


def draw_face(class_name: str, *, rng: np.random.Generator, side_px: int) -> Image.Image:
    """Draw one sign seen from the front, in RGBA, transparent around the sign.

    No two drawings are exactly alike.
    """
    face = Face(side_px, rng)
    SIGNS[class_name](face)
    return face.finished()
