"""The shapes that the faces of the generated road signs are made of."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]
Point = tuple[float, float]
SUPERSAMPLING = 2
"""Signs and scenes are drawn at this many times the wanted side and averaged down, which gives smooth edges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Palette:
    """The colours of one sign, which differ a little from sign to sign as makers and the age of paint do."""

    red: Color
    blue: Color
    yellow: Color
    white: Color
    black: Color


class Face:
    """A transparent square to draw on; coordinates run from -1 to 1, x to the right, y down."""

    def __init__(self, side_px: int, rng: np.random.Generator) -> None:
        self._side = side_px * SUPERSAMPLING
        self._image = Image.new("RGBA", (self._side, self._side))
        self._draw = ImageDraw.Draw(self._image)
        self.palette = palette(rng)
        self.border = rng.uniform(0.13, 0.18)
        """Width of the coloured rim."""
        self.glyph = rng.uniform(0.94, 1.06)
        """Size of what is drawn inside, relative to its usual size."""
        self.stroke = rng.uniform(0.85, 1.15)
        """Thickness of lines, relative to their usual thickness."""

    def polygon(self, points: list[Point], color: Color) -> None:
        """Draw a filled polygon."""
        self._draw.polygon([self._at(point) for point in points], fill=color)

    def circle(self, center: Point, radius: float, color: Color, *, width: float = 0.0) -> None:
        """Draw a filled circle, or a ring of the given width inside the radius."""
        x, y = center
        corners = [self._at((x - radius, y - radius)), self._at((x + radius, y + radius))]
        if width:
            self._draw.ellipse(corners, outline=color, width=round(width * self._side / 2))
        else:
            self._draw.ellipse(corners, fill=color)

    def line(self, points: list[Point], width: float, color: Color) -> None:
        """Draw a line through the points, with round ends and joints."""
        pixels = [self._at(point) for point in points]
        self._draw.line(pixels, fill=color, width=max(1, round(width * self._side / 2)))
        for point in points:
            self.circle(point, width / 2, color)

    def text(self, text: str, height: float, color: Color, *, weight: float = 0.0) -> None:
        """Draw text in the middle, with capitals about `height` high."""
        # The capitals of Pillow's own font are 0.7 times as high as the font's size.
        font = load_font(round(height / 0.7 * self._side / 2))
        stroke = round(weight * self._side / 2)
        left, top, right, bottom = self._draw.textbbox((0, 0), text, font=font, stroke_width=stroke)
        middle = self._side / 2
        self._draw.text(
            (middle - (left + right) / 2, middle - (top + bottom) / 2), text, font=font, fill=color, stroke_width=stroke
        )

    def finished(self) -> Image.Image:
        """Return the face at the wanted side, in RGBA."""
        return self._image.reduce(SUPERSAMPLING)

    def _at(self, point: Point) -> Point:
        return ((point[0] + 1) * self._side / 2, (point[1] + 1) * self._side / 2)


@lru_cache(maxsize=64)
def load_font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return Pillow's own font, so that the signs do not depend on the fonts of the machine."""
    return ImageFont.load_default(size=size_px)


def palette(rng: np.random.Generator) -> Palette:
    """Draw the colours of one sign."""
    # All channels together vary more than each channel by itself, or white would turn pink.
    shared, own = int(rng.integers(-14, 15)), iter(rng.integers(-7, 8, 15).tolist())

    def near(*color: int) -> Color:
        red, green, blue = (min(max(channel + shared + next(own), 0), 255) for channel in color)
        return (red, green, blue)

    return Palette(
        red=near(196, 24, 32),
        blue=near(16, 80, 168),
        yellow=near(242, 190, 18),
        white=near(236, 236, 232),
        black=near(24, 24, 26),
    )


def regular_polygon(corners: int, turn_deg: float, radius: float) -> list[Point]:
    """Return the corners of a regular polygon around the middle, the first one turned by `turn_deg` from the right."""
    angles = [math.radians(turn_deg + 360 * corner / corners) for corner in range(corners)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]


def scaled(points: list[Point], factor: float, *, around: Point = (0.0, 0.0)) -> list[Point]:
    """Return the points, drawn towards a centre by a factor."""
    return [(around[0] + factor * (x - around[0]), around[1] + factor * (y - around[1])) for x, y in points]


def mirrored(points: list[Point]) -> list[Point]:
    """Return the points with left and right exchanged."""
    return [(-x, y) for x, y in points]


def draw_ring(face: Face) -> None:
    """Draw a white disc with a red rim."""
    face.circle((0, 0), 0.96, face.palette.red)
    face.circle((0, 0), 0.96 - face.border, face.palette.white)


def draw_disc(face: Face, color: Color) -> None:
    """Draw a coloured disc with a thin white rim."""
    face.circle((0, 0), 0.96, face.palette.white)
    face.circle((0, 0), 0.92, color)


TRIANGLE: list[Point] = [(0.0, -0.88), (0.97, 0.8), (-0.97, 0.8)]


def draw_triangle(face: Face, *, up: bool) -> None:
    """Draw a white triangle with a red rim, on its base or on its tip."""
    outer = TRIANGLE if up else [(x, -y) for x, y in TRIANGLE]
    center = (0.0, 0.24 if up else -0.24)
    face.polygon(outer, face.palette.red)
    face.polygon(scaled(outer, 1 - 1.6 * face.border, around=center), face.palette.white)


def draw_arrow(face: Face, *, turn_deg: float) -> None:
    """Draw a white arrow, which points up unless turned."""
    thin = 0.14 * face.stroke
    arrow: list[Point] = [
        (-thin, 0.66), (-thin, -0.04), (-0.48, -0.04), (0.0, -0.7), (0.48, -0.04), (thin, -0.04), (thin, 0.66),
    ]  # fmt: skip
    turn = math.radians(turn_deg)
    cos, sin = math.cos(turn), math.sin(turn)
    face.polygon(scaled([(x * cos - y * sin, x * sin + y * cos) for x, y in arrow], face.glyph), face.palette.white)


def draw_walker(face: Face, color: Color, *, size: float, center: Point) -> None:
    """Draw a person who walks."""
    size = size * face.glyph
    thick = 0.17 * size * face.stroke

    def limb(*points: Point) -> None:
        face.line([(center[0] + size * x, center[1] + size * y) for x, y in points], thick, color)

    face.circle((center[0] + 0.05 * size, center[1] - 0.78 * size), 0.19 * size, color)
    limb((0.02, -0.45), (-0.02, 0.1))
    limb((-0.02, 0.1), (0.25, 0.45), (0.3, 0.9))
    limb((-0.02, 0.1), (-0.2, 0.5), (-0.48, 0.86))
    limb((0.02, -0.42), (0.3, -0.12), (0.52, -0.2))
    limb((0.02, -0.42), (-0.3, -0.18), (-0.36, 0.12))


def draw_bicycle(face: Face, color: Color, *, size: float, center: Point) -> None:
    """Draw a bicycle from the side."""
    size = size * face.glyph
    thick = 0.1 * size * face.stroke

    def at(x: float, y: float) -> Point:
        return (center[0] + size * x, center[1] + size * y)

    for x in (-0.58, 0.58):
        face.circle(at(x, 0.32), 0.4 * size, color, width=thick)
    rear, front, saddle, pedals, head = (
        at(-0.58, 0.32),
        at(0.58, 0.32),
        at(-0.24, -0.3),
        at(-0.02, 0.32),
        at(0.4, -0.28),
    )
    face.line([rear, saddle, head, pedals, rear], thick, color)
    face.line([saddle, pedals], thick, color)
    face.line([front, at(0.34, -0.5), at(0.14, -0.54)], thick, color)
    face.line([at(-0.4, -0.4), at(-0.1, -0.4)], thick, color)


def draw_bend(face: Face, *, left: bool) -> None:
    """Draw an arrow that follows a bend of the road."""
    path: list[Point] = [(0.14, 0.62), (0.14, 0.28), (0.06, 0.12), (-0.12, -0.02), (-0.2, -0.16), (-0.2, -0.2)]
    head: list[Point] = [(-0.38, -0.16), (-0.2, -0.46), (-0.02, -0.16)]
    if not left:
        path, head = mirrored(path), mirrored(head)
    face.line(path, 0.15 * face.stroke, face.palette.black)
    face.polygon(head, face.palette.black)
