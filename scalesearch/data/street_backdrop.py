"""Street scenes without signs: sky, ground, road, markings, and things beside the road."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from scalesearch.data.sign_shapes import SUPERSAMPLING, Color, Point
from scalesearch.values.network_spec import InputSize

SURFACES: Final = ("sky", "verge", "road", "pole", "sign")
"""Names of the classes that the pixels of a mask have: a pixel's value is its index here."""
SKY, VERGE, ROAD, POLE, SIGN = range(len(SURFACES))


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Where the horizon and the road are on the canvas, in pixels of the canvas."""

    width: int
    height: int
    horizon: float
    vanishing_x: float
    left_foot: float
    right_foot: float

    def road(self, y: float) -> Point:
        """Return the left and the right edge of the road at this height of the canvas."""
        near = (y - self.horizon) / (self.height - self.horizon)
        return (
            self.vanishing_x + (self.left_foot - self.vanishing_x) * near,
            self.vanishing_x + (self.right_foot - self.vanishing_x) * near,
        )


class Canvas:
    """The picture, and two further layers that hold what each pixel shows: its surface, and on signs their number."""

    def __init__(self, view: View, backdrop: Image.Image) -> None:
        self.view, self.picture = view, backdrop
        self.surfaces = Image.new("L", backdrop.size, SKY)
        self.numbers = Image.new("L", backdrop.size, 0)
        self._onto = tuple(ImageDraw.Draw(layer) for layer in (self.picture, self.surfaces, self.numbers))

    def polygon(self, points: list[Point], color: Color, surface: int) -> None:
        """Draw a filled polygon; points are in pixels of the canvas."""
        for draw, fill in self._fills(color, surface):
            draw.polygon(points, fill=fill)

    def ellipse(self, box: tuple[float, float, float, float], color: Color, surface: int) -> None:
        """Draw a filled ellipse into the box left, top, right, bottom."""
        for draw, fill in self._fills(color, surface):
            draw.ellipse(box, fill=fill)

    def line(self, points: list[Point], color: Color, width: float, surface: int) -> None:
        """Draw a line through the points, `width` pixels wide."""
        for draw, fill in self._fills(color, surface):
            draw.line(points, fill=fill, width=max(1, round(width)))

    def _fills(self, color: Color, surface: int) -> list[tuple[ImageDraw.ImageDraw, Color | int]]:
        """Return what draws on each layer, and the value to draw with: what covers a sign erases its number there."""
        return list(zip(self._onto, (color, surface, 0), strict=True))

    def paste(self, face: Image.Image, at: tuple[int, int], number: int) -> None:
        """Lay the face of sign `number` (from 1) on the canvas."""
        self.picture.paste(face, at, face)
        solid = face.getchannel("A").point(lambda alpha: 255 * (alpha >= 128))
        self.surfaces.paste(SIGN, (*at, at[0] + face.width, at[1] + face.height), solid)
        self.numbers.paste(number, (*at, at[0] + face.width, at[1] + face.height), solid)


def street(rng: np.random.Generator, size: InputSize) -> Canvas:
    """Draw sky, verges, road and what else stands there, without signs."""
    height, width = SUPERSAMPLING * size.height_px, SUPERSAMPLING * size.width_px
    vanishing_x = rng.uniform(0.3, 0.7) * width
    view = View(
        width=width, height=height, horizon=rng.uniform(0.35, 0.6) * height, vanishing_x=vanishing_x,
        left_foot=vanishing_x - rng.uniform(0.25, 0.6) * width, right_foot=vanishing_x + rng.uniform(0.25, 0.6) * width,
    )  # fmt: skip
    canvas = Canvas(view, _sky(rng, view))
    _draw_clouds(canvas, rng)
    green = near_color(rng, *((70, 110, 50), (120, 110, 70), (90, 90, 80))[int(rng.integers(3))])
    canvas.polygon(_ground(rng, view), green, VERGE)
    for _ in range(int(rng.integers(2, 9))):
        _draw_standing(canvas, rng)
    grey = int(rng.integers(60, 130))
    canvas.polygon(
        [(vanishing_x, view.horizon), (view.right_foot, height), (view.left_foot, height)], (grey,) * 3, ROAD
    )
    _draw_markings(canvas, rng)
    return canvas


def _sky(rng: np.random.Generator, view: View) -> Image.Image:
    top = np.asarray(
        near_color(rng, *((90, 140, 210), (170, 180, 190), (200, 170, 150))[int(rng.integers(3))]), np.float32
    )
    bottom = np.clip(top + rng.uniform(0, 60), 0, 255)
    along = np.clip(np.arange(view.height, dtype=np.float32) / np.float32(view.horizon), 0, 1)[:, None, None]
    rows = (top * (1 - along) + bottom * along).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(rows, (view.height, view.width, 3))))


def _draw_clouds(canvas: Canvas, rng: np.random.Generator) -> None:
    view = canvas.view
    for _ in range(int(rng.integers(0, 5))):
        x, y = rng.uniform(0, view.width), rng.uniform(0, view.horizon)
        across, down = rng.uniform(0.03, 0.2) * view.width, rng.uniform(0.01, 0.06) * view.height
        canvas.ellipse((x - across, y - down, x + across, y + down), near_color(rng, 215, 218, 222), SKY)


def _ground(rng: np.random.Generator, view: View) -> list[Point]:
    """Return the outline of all below a horizon that is slightly hilly."""
    across = np.linspace(0, view.width, 9)
    hills = view.horizon - rng.uniform(0, 0.05, 9) * view.height
    return [(0, view.height), *((float(x), float(y)) for x, y in zip(across, hills, strict=True)),
            (view.width, view.height)]  # fmt: skip


def _draw_standing(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw a tree, a house or a hoarding beside the road: coloured shapes that are no signs."""
    view = canvas.view
    x, foot = rng.uniform(0, view.width), view.horizon + rng.uniform(0, 0.12) * view.height
    tall, wide = rng.uniform(0.05, 0.35) * view.height, rng.uniform(0.03, 0.15) * view.height
    kind = int(rng.integers(3))
    if kind == 0:
        canvas.line([(x, foot), (x, foot - tall)], near_color(rng, 80, 60, 40), 0.15 * wide, VERGE)
        crown = (x - wide, foot - 1.3 * tall, x + wide, foot - 0.4 * tall)
        canvas.ellipse(crown, near_color(rng, 50, 90, 45), VERGE)
        return
    color = near_color(rng, *(int(value) for value in rng.integers(60, 220, 3)))
    canvas.polygon([(x - wide, foot), (x - wide, foot - tall), (x + wide, foot - tall), (x + wide, foot)], color, VERGE)
    if kind == 1:
        roof = [(x - 1.1 * wide, foot - tall), (x, foot - 1.5 * tall), (x + 1.1 * wide, foot - tall)]
        canvas.polygon(roof, near_color(rng, 140, 60, 50), VERGE)


def _draw_markings(canvas: Canvas, rng: np.random.Generator) -> None:
    """Draw the broken line in the middle of the road, and perhaps its edges."""
    view = canvas.view
    white = near_color(rng, 225, 225, 220)
    for near in np.arange(rng.uniform(0.02, 0.1), 1.0, 0.16):
        ends = [view.horizon + (view.height - view.horizon) * share**1.5 for share in (near, near + 0.07)]
        middles = [(sum(view.road(y)) / 2, y) for y in ends]
        canvas.line(middles, white, 0.012 * view.width * near, ROAD)
    if rng.random() < 0.5:
        for edge in (0, 1):
            side = [(view.road(y)[edge], y) for y in (view.horizon, float(view.height))]
            canvas.line(side, white, 0.006 * view.width, ROAD)


def texture(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return coarse and fine smooth noise (height, width, 1), without which ground and sky would be flat colours."""
    height, width = shape
    whole = np.zeros((height, width, 1), np.float32)
    for cells, strength in ((6, 25.0), (40, 20.0)):
        coarse = Image.fromarray(rng.uniform(-1, 1, (cells, max(1, cells * width // height))).astype(np.float32))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))[..., None]
        whole += smooth * np.float32(rng.uniform(0, strength))
    return whole


def near_color(rng: np.random.Generator, red: int, green: int, blue: int) -> Color:
    """Return a colour near this one."""
    around = rng.integers(-25, 26, 3)
    red, green, blue = (
        int(min(max(value + off, 0), 255)) for value, off in zip((red, green, blue), around, strict=True)
    )
    return red, green, blue
