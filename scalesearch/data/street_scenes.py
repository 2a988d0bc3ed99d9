"""Draw synthetic street scenes: a road between verges under a sky, with road signs on poles. Boxes and mask are known.

Detection and segmentation are tried on these scenes without any download. The faces of the signs are those of
`sign_faces`; signs that look alike from afar are one class here (`SIGN_FAMILIES`), since many are a few pixels wide.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from scalesearch.data.sign_faces import draw_face
from scalesearch.values.network_spec import InputSize

SIGN_FAMILIES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "speed_limit": ("speed_20", "speed_30", "speed_50", "speed_60", "speed_80", "speed_100"),
        "mandatory": ("go_straight", "turn_left", "turn_right", "foot_path", "cycle_path"),
        "warning": ("warn_walkers", "warn_bicycles", "warn_left_bend", "warn_right_bend"),
        "yield": ("yield",),
        "stop": ("stop",),
        "priority": ("priority",),
        "no_entry": ("no_entry",),
        "parking": ("parking",),
    }
)
"""The faces of each class of signs."""
SIGN_CLASSES: Final = tuple(SIGN_FAMILIES)
"""Names of the classes that boxes have."""
SURFACES: Final = ("sky", "verge", "road", "pole", "sign")
"""Names of the classes that the pixels of a mask have: a pixel's value is its index here."""
_SKY, _VERGE, _ROAD, _POLE, _SIGN = range(len(SURFACES))

# The scene is drawn at twice the wanted size and averaged down, as the pixels of a camera average.
SUPERSAMPLING = 2
MOST_SIGNS = 6
# Lengths are fractions of the image's height. A sign's size follows from how far away it is: log-uniform, so that small
# signs are as frequent as large ones.
SIGN_SIZES = (0.06, 0.36)
MOST_HIDDEN = 0.5
"""A sign of which a larger part than this is hidden is drawn, but marked as ignored."""
TURN_DEG = 6.0
FORESHORTENING = 0.25
MAX_BLUR = 0.008
MAX_NOISE = 0.06
EXPOSURES = (0.55, 1.15)

Color = tuple[int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scene:
    """A synthetic scene and what is known about it. The signs are ordered from far to near."""

    image: NDArray[np.uint8]
    """(height, width, 3) in RGB."""
    boxes: NDArray[np.float32]
    """Left, top, right and bottom of each sign in pixels, of shape (signs, 4), clipped to the image."""
    classes: NDArray[np.int64]
    """Indices into `SIGN_CLASSES`, of shape (signs,)."""
    ignored: NDArray[np.bool_]
    """Which signs are hidden too much to be asked for, of shape (signs,)."""
    mask: NDArray[np.uint8]
    """Indices into `SURFACES` of what is seen at each pixel, of shape (height, width)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
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


class _Canvas:
    """The picture, and beside it what each pixel shows: its surface and, on signs, the sign's number."""

    def __init__(self, view: _View, backdrop: Image.Image) -> None:
        self.view, self.picture = view, backdrop
        self.surfaces = Image.new("L", backdrop.size, _SKY)
        self.numbers = Image.new("L", backdrop.size, 0)
        self._onto = tuple(ImageDraw.Draw(layer) for layer in (self.picture, self.surfaces, self.numbers))

    def polygon(self, points: list[Point], color: Color, surface: int) -> None:
        for draw, fill in self._fills(color, surface):
            draw.polygon(points, fill=fill)

    def ellipse(self, box: tuple[float, float, float, float], color: Color, surface: int) -> None:
        for draw, fill in self._fills(color, surface):
            draw.ellipse(box, fill=fill)

    def line(self, points: list[Point], color: Color, width: float, surface: int) -> None:
        for draw, fill in self._fills(color, surface):
            draw.line(points, fill=fill, width=max(1, round(width)))

    def _fills(self, color: Color, surface: int) -> list[tuple[ImageDraw.ImageDraw, Color | int]]:
        """Return what draws on each layer, and the value to draw with: no sign is left where something covers it."""
        return list(zip(self._onto, (color, surface, 0), strict=True))

    def paste(self, face: Image.Image, at: tuple[int, int], number: int) -> None:
        """Lay the face of sign `number` (from 1) on the canvas."""
        self.picture.paste(face, at, face)
        solid = face.getchannel("A").point(lambda alpha: 255 * (alpha >= 128))
        self.surfaces.paste(_SIGN, (*at, at[0] + face.width, at[1] + face.height), solid)
        self.numbers.paste(number, (*at, at[0] + face.width, at[1] + face.height), solid)


def draw_scene(*, rng: np.random.Generator, size: InputSize) -> Scene:
    """Draw one scene of this size with up to six signs, or none.

    The same state of `rng` gives the same scene.

    Args:
        rng: The source of all that is random in it.
        size: Height and width of the image; 16:9 looks most natural.
    """
    canvas = _street(rng, size)
    number_of_signs = int(rng.integers(0, MOST_SIGNS + 1))
    low, high = np.log(SIGN_SIZES)
    heights = np.sort(np.exp(rng.uniform(low, high, number_of_signs)))  # far ones first, near ones over them
    classes = rng.integers(0, len(SIGN_CLASSES), number_of_signs)
    boxes, areas = np.zeros((number_of_signs, 4), np.float32), np.zeros(number_of_signs)
    for place, (height, label) in enumerate(zip(heights, classes, strict=True)):
        boxes[place], areas[place] = _mount(canvas, float(height), int(label), rng=rng, number=place + 1)
    shown = np.bincount(np.asarray(canvas.numbers).ravel(), minlength=number_of_signs + 1)[1 : number_of_signs + 1]
    mask = np.ascontiguousarray(np.asarray(canvas.surfaces)[::SUPERSAMPLING, ::SUPERSAMPLING])
    return Scene(
        image=_photographed(canvas, mask, rng),
        boxes=boxes / np.float32(SUPERSAMPLING),
        classes=classes.astype(np.int64),
        ignored=shown < (1 - MOST_HIDDEN) * areas,
        mask=mask,
    )


def _street(rng: np.random.Generator, size: InputSize) -> _Canvas:
    """Draw sky, verges, road and what else stands there, without signs."""
    height, width = SUPERSAMPLING * size.height_px, SUPERSAMPLING * size.width_px
    vanishing_x = rng.uniform(0.3, 0.7) * width
    view = _View(
        width=width, height=height, horizon=rng.uniform(0.35, 0.6) * height, vanishing_x=vanishing_x,
        left_foot=vanishing_x - rng.uniform(0.25, 0.6) * width, right_foot=vanishing_x + rng.uniform(0.25, 0.6) * width,
    )  # fmt: skip
    canvas = _Canvas(view, _sky(rng, view))
    _draw_clouds(canvas, rng)
    green = _near(rng, *((70, 110, 50), (120, 110, 70), (90, 90, 80))[int(rng.integers(3))])
    canvas.polygon(_ground(rng, view), green, _VERGE)
    for _ in range(int(rng.integers(2, 9))):
        _draw_standing(canvas, rng)
    grey = int(rng.integers(60, 130))
    canvas.polygon(
        [(vanishing_x, view.horizon), (view.right_foot, height), (view.left_foot, height)], (grey,) * 3, _ROAD
    )
    _draw_markings(canvas, rng)
    return canvas


def _sky(rng: np.random.Generator, view: _View) -> Image.Image:
    top = np.asarray(_near(rng, *((90, 140, 210), (170, 180, 190), (200, 170, 150))[int(rng.integers(3))]), np.float32)
    bottom = np.clip(top + rng.uniform(0, 60), 0, 255)
    along = np.clip(np.arange(view.height, dtype=np.float32) / np.float32(view.horizon), 0, 1)[:, None, None]
    rows = (top * (1 - along) + bottom * along).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(rows, (view.height, view.width, 3))))


def _draw_clouds(canvas: _Canvas, rng: np.random.Generator) -> None:
    view = canvas.view
    for _ in range(int(rng.integers(0, 5))):
        x, y = rng.uniform(0, view.width), rng.uniform(0, view.horizon)
        across, down = rng.uniform(0.03, 0.2) * view.width, rng.uniform(0.01, 0.06) * view.height
        canvas.ellipse((x - across, y - down, x + across, y + down), _near(rng, 215, 218, 222), _SKY)


def _ground(rng: np.random.Generator, view: _View) -> list[Point]:
    """Return the outline of all below a horizon that is slightly hilly."""
    across = np.linspace(0, view.width, 9)
    hills = view.horizon - rng.uniform(0, 0.05, 9) * view.height
    return [(0, view.height), *((float(x), float(y)) for x, y in zip(across, hills, strict=True)),
            (view.width, view.height)]  # fmt: skip


def _draw_standing(canvas: _Canvas, rng: np.random.Generator) -> None:
    """Draw a tree, a house or a hoarding beside the road: coloured shapes that are no signs."""
    view = canvas.view
    x, foot = rng.uniform(0, view.width), view.horizon + rng.uniform(0, 0.12) * view.height
    tall, wide = rng.uniform(0.05, 0.35) * view.height, rng.uniform(0.03, 0.15) * view.height
    kind = int(rng.integers(3))
    if kind == 0:
        canvas.line([(x, foot), (x, foot - tall)], _near(rng, 80, 60, 40), 0.15 * wide, _VERGE)
        crown = (x - wide, foot - 1.3 * tall, x + wide, foot - 0.4 * tall)
        canvas.ellipse(crown, _near(rng, 50, 90, 45), _VERGE)
        return
    color = _near(rng, *(int(value) for value in rng.integers(60, 220, 3)))
    canvas.polygon(
        [(x - wide, foot), (x - wide, foot - tall), (x + wide, foot - tall), (x + wide, foot)], color, _VERGE
    )
    if kind == 1:
        roof = [(x - 1.1 * wide, foot - tall), (x, foot - 1.5 * tall), (x + 1.1 * wide, foot - tall)]
        canvas.polygon(roof, _near(rng, 140, 60, 50), _VERGE)


def _draw_markings(canvas: _Canvas, rng: np.random.Generator) -> None:
    """Draw the broken line in the middle of the road, and perhaps its edges."""
    view = canvas.view
    white = _near(rng, 225, 225, 220)
    for near in np.arange(rng.uniform(0.02, 0.1), 1.0, 0.16):
        ends = [view.horizon + (view.height - view.horizon) * share**1.5 for share in (near, near + 0.07)]
        middles = [(sum(view.road(y)) / 2, y) for y in ends]
        canvas.line(middles, white, 0.012 * view.width * near, _ROAD)
    if rng.random() < 0.5:
        for edge in (0, 1):
            side = [(view.road(y)[edge], y) for y in (view.horizon, float(view.height))]
            canvas.line(side, white, 0.006 * view.width, _ROAD)


def _mount(
    canvas: _Canvas, height: float, label: int, *, rng: np.random.Generator, number: int
) -> tuple[NDArray[np.float32], float]:
    """Put a sign on its pole beside the road.

    Returns:
        Its box in pixels of the canvas, clipped to it, and the area of the whole face in pixels of the canvas.
    """
    view = canvas.view
    side_px = height * view.height
    x, y = _place(view, side_px, rng)
    grey = int(rng.integers(70, 190))
    foot = min(float(view.height), y + rng.uniform(1.5, 3.0) * side_px)
    canvas.line([(x, y), (x, foot)], (grey,) * 3, rng.uniform(0.06, 0.1) * side_px, _POLE)
    faces = SIGN_FAMILIES[SIGN_CLASSES[label]]
    face = _posed(faces[int(rng.integers(len(faces)))], side_px, rng)
    left, top = round(x - face.width / 2), round(y - face.height / 2)
    canvas.paste(face, (left, top), number)
    box = np.asarray([left, top, left + face.width, top + face.height], np.float32)
    limits = np.asarray([view.width, view.height] * 2, np.float32)
    area = float((np.asarray(face.getchannel("A")) >= 128).sum())
    return np.clip(box, 0, limits).astype(np.float32), area


def _place(view: _View, side_px: float, rng: np.random.Generator) -> Point:
    """Return the middle of a sign: beside the road at the height of the verge, the nearer the further out."""
    near = side_px / (SIGN_SIZES[1] * view.height)
    ground = view.horizon + near * 0.45 * (view.height - view.horizon)
    left, right = view.road(ground)
    room = rng.uniform(0.2, 2.2) * side_px + rng.uniform(0, 0.25) * view.width
    x = left - room if rng.random() < 0.5 else right + room
    y = ground - rng.uniform(0.6, 2.0) * side_px
    # Most signs are whole; a few reach out of the picture.
    inside = 0.5 if rng.random() < 0.85 else 0.2
    x = min(max(x, inside * side_px), view.width - inside * side_px)
    return x, min(max(y, inside * side_px), view.height - inside * side_px)


def _posed(class_name: str, side_px: float, rng: np.random.Generator) -> Image.Image:
    """Return a face in RGBA, turned and seen a little from the side, cut to what is visible of it."""
    face_px = 32 * max(1, round(side_px / 32))
    face = draw_face(class_name, rng=rng, side_px=face_px)
    narrow = rng.uniform(1 - FORESHORTENING, 1)
    shape = (max(3, round(narrow * side_px)), max(3, round(side_px)))
    turned = face.resize(shape, Image.Resampling.BILINEAR, reducing_gap=3.0).rotate(
        float(rng.normal(0, TURN_DEG)), Image.Resampling.BILINEAR, expand=True
    )
    solid = turned.getchannel("A").point(lambda alpha: 255 * (alpha >= 128))
    return turned.crop(solid.getbbox())


def _photographed(canvas: _Canvas, mask: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the canvas as a camera would see it: averaged down, with texture beside the signs, blurred, lit, noisy."""
    photo = canvas.picture.reduce(SUPERSAMPLING)
    rough = np.asarray(photo, np.float32) + _texture(rng, mask.shape) * (mask != _SIGN)[..., None]
    photo = Image.fromarray(np.clip(rough, 0, 255).astype(np.uint8))
    photo = photo.filter(ImageFilter.GaussianBlur(rng.random() ** 2 * MAX_BLUR * photo.height))
    gain = (rng.uniform(*EXPOSURES) * rng.uniform(0.95, 1.05, 3)).astype(np.float32)
    lit = np.asarray(photo, np.float32) * gain + np.float32(255 * rng.uniform(0, 0.06))
    lit += rng.standard_normal(lit.shape, np.float32) * np.float32(255 * rng.random() ** 2 * MAX_NOISE)
    return np.asarray(np.clip(lit, 0, 255).round().astype(np.uint8))


def _texture(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return coarse and fine smooth noise (height, width, 1), without which ground and sky would be flat colours."""
    height, width = shape
    whole = np.zeros((height, width, 1), np.float32)
    for cells, strength in ((6, 25.0), (40, 20.0)):
        coarse = Image.fromarray(rng.uniform(-1, 1, (cells, max(1, cells * width // height))).astype(np.float32))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))[..., None]
        whole += smooth * np.float32(rng.uniform(0, strength))
    return whole


def _near(rng: np.random.Generator, red: int, green: int, blue: int) -> Color:
    """Return a colour near this one."""
    around = rng.integers(-25, 26, 3)
    red, green, blue = (
        int(min(max(value + off, 0), 255)) for value, off in zip((red, green, blue), around, strict=True)
    )
    return red, green, blue
