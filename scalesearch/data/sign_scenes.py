"""Make synthetic photographs of road signs: a face in some pose, with a background, lighting, blur and noise."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from scalesearch.data.sign_faces import CLASS_NAMES, draw_face

Floats = NDArray[np.float32]
Homography = tuple[float, ...]

# The scene is made at twice the wanted side and averaged down, just as the pixels of a camera average.
SUPERSAMPLING = 2
# These numbers set how hard the task is; they were chosen with benchmarks/signs_resolution.py. In brief training the
# small ResNet must neither fail nor reach its limit, and 16 px must cost it more than 10 points. Lengths are fractions
# of the image side.
SIGN_SIZES = (0.35, 0.75)
OFF_CENTER = 1.0
"""The part of the free space around the sign that the sign may be moved by at random."""
TURN_DEG = 8.0
FORESHORTENING = 0.2
PERSPECTIVE = 0.05
MAX_BLUR = 0.03
MAX_NOISE = 0.12
EXPOSURES = (0.35, 1.1)
OCCLUDED_FRACTION = 0.4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SignImage:
    """A synthetic image (image_px, image_px, 3) and what is known about it.

    `box` is left, top, right and bottom in pixels, the last two exclusive.
    """

    image: NDArray[np.uint8]
    box: tuple[int, int, int, int]
    mask: NDArray[np.bool_]
    """(image_px, image_px): True where the sign is, even if something small covers it."""
    class_name: str


def draw_sign(class_name: str, *, rng: np.random.Generator, image_px: int = 64) -> SignImage:
    """Draw one square image of `image_px` with one sign of this class.

    The same state of `rng` gives the same image.
    """
    side = SUPERSAMPLING * image_px
    canvas = _background(rng, image_px)
    corners = _pose(rng, side)
    _draw_pole(canvas, rng, corners)
    alpha = _mount_face(canvas, class_name, rng=rng, corners=corners)
    if rng.random() < OCCLUDED_FRACTION:
        _draw_twig(canvas, rng, corners)
    photo = canvas.reduce(SUPERSAMPLING)
    photo = photo.filter(ImageFilter.GaussianBlur(rng.random() ** 2 * MAX_BLUR * image_px))
    lit = _lit(np.asarray(photo, np.float32) / np.float32(255), rng)
    noise = rng.standard_normal(lit.shape, np.float32) * np.float32(rng.random() ** 2 * MAX_NOISE)
    image = (255 * np.clip(lit + noise, 0, 1)).round().astype(np.uint8)
    mask = np.asarray(alpha.reduce(SUPERSAMPLING)) >= 128
    return SignImage(image=image, box=_box(mask), mask=mask, class_name=class_name)


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _color(rng: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = rng.integers(0, 256, 3)
    return int(red), int(green), int(blue)


def _background(rng: np.random.Generator, image_px: int) -> Image.Image:
    """Draw a gradient between two colours, coarse and fine texture, and clutter that resembles signs."""
    ends = (rng.uniform(40, 200, (2, 1)) + rng.uniform(-40, 40, (2, 3))).astype(np.float32)
    along = np.clip(0.5 + 1.4 * _slope(rng, image_px), 0, 1)
    pixels = ends[0] * (1 - along) + ends[1] * along
    for cells, strength in ((5, 40.0), (24, 28.0)):
        pixels += _texture(rng, cells, image_px) * np.float32(rng.uniform(0, strength))
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    # The backdrop is smooth and needs no supersampling, but what is drawn on it does.
    canvas = image.resize((SUPERSAMPLING * image_px,) * 2, Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(0, 6))):
        _draw_clutter(draw, rng, canvas.width)
    return canvas


def _slope(rng: np.random.Generator, side: int) -> Floats:
    """Return a plane (side, side, 1) that is 0 in the middle and rises by 1 across the image in some direction."""
    angle = rng.uniform(0, 2 * math.pi)
    axis = (np.arange(side, dtype=np.float32) + np.float32(0.5)) / np.float32(side) - np.float32(0.5)
    plane = axis[None, :] * np.float32(math.cos(angle)) + axis[:, None] * np.float32(math.sin(angle))
    return np.asarray(plane[..., None])


def _texture(rng: np.random.Generator, cells: int, side: int) -> Floats:
    """Return smooth noise (side, side, 1) of about -1..1, the same for all channels."""
    coarse = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((side, side), Image.Resampling.BILINEAR))[..., None]


def _draw_clutter(draw: ImageDraw.ImageDraw, rng: np.random.Generator, side: int) -> None:
    center, radius = rng.uniform(0, side, 2), rng.uniform(0.04, 0.24) * side
    kind, color = int(rng.integers(4)), _color(rng)
    if kind == 0:
        left, top, right, bottom = *(center - radius), *(center + radius)
        draw.ellipse((left, top, right, bottom), fill=color)
    elif kind == 1:
        end = center + rng.uniform(-side, side, 2)
        draw.line((*center, *end), fill=color, width=max(1, round(rng.uniform(0.01, 0.06) * side)))
    else:
        corners = kind + 1
        angles = rng.uniform(0, 2 * math.pi) + 2 * math.pi * np.arange(corners) / corners
        points = center + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(
            0.4, 1, (corners, 1)
        )
        draw.polygon([(float(x), float(y)) for x, y in points], fill=color)


def _pose(rng: np.random.Generator, side: int) -> NDArray[np.float64]:
    """Return where the corners of the face's square are in the image: (4, 2), clockwise from top left."""
    size = rng.uniform(*SIGN_SIZES) * side
    turn = math.radians(rng.normal(0, TURN_DEG))
    square = np.asarray([(-1, -1), (1, -1), (1, 1), (-1, 1)], np.float64) * size / 2
    square[:, 0] *= rng.uniform(1 - FORESHORTENING, 1)  # seen from the side
    square *= rng.uniform(1 - PERSPECTIVE, 1 + PERSPECTIVE, (4, 1))  # and in perspective
    rotation = np.asarray([(math.cos(turn), math.sin(turn)), (-math.sin(turn), math.cos(turn))])
    room = OFF_CENTER * (side - size) / 2
    return np.asarray(square @ rotation + side / 2 + rng.uniform(-room, room, 2))


def _mount_face(
    canvas: Image.Image, class_name: str, *, rng: np.random.Generator, corners: NDArray[np.float64]
) -> Image.Image:
    """Bend the face onto the corners, lay it on the canvas, and return where it covers the canvas (mode L)."""
    low = np.floor(corners.min(axis=0)).astype(int)
    width, height = (int(extent) for extent in np.ceil(corners.max(axis=0)).astype(int) - low)
    # Drawn about as large as it will appear, so that bending need not shrink it, which would cause aliasing.
    face_px = 32 * max(1, round(max(width, height) / 32))
    face = draw_face(class_name, rng=rng, side_px=face_px)
    homography = _homography(corners - low, face_px)
    posed = face.transform((width, height), Image.Transform.PERSPECTIVE, homography, Image.Resampling.BILINEAR)
    at = (int(low[0]), int(low[1]))
    canvas.paste(posed, at, posed)
    alpha = Image.new("L", canvas.size)
    alpha.paste(posed.getchannel("A"), at)
    return alpha


def _homography(corners: NDArray[np.float64], face_px: int) -> Homography:
    """Return the eight numbers of Pillow's PERSPECTIVE transform, from a pixel of the scene to one of the face."""
    face = np.asarray([(0, 0), (face_px, 0), (face_px, face_px), (0, face_px)], np.float64)
    rows, wanted = [], []
    for (x, y), (u, v) in zip(corners, face, strict=True):
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
        wanted += [u, v]
    return tuple(float(value) for value in np.linalg.solve(np.asarray(rows), np.asarray(wanted)))


def _draw_pole(canvas: Image.Image, rng: np.random.Generator, corners: NDArray[np.float64]) -> None:
    top, foot = corners.mean(axis=0), corners[2:].mean(axis=0)
    end = top + (foot - top) * 8
    grey = int(rng.integers(60, 200))
    width = max(1, round(float(rng.uniform(0.05, 0.1) * np.ptp(corners[:, 0]))))
    ImageDraw.Draw(canvas).line((*top, *end), fill=(grey, grey, grey), width=width)


def _draw_twig(canvas: Image.Image, rng: np.random.Generator, corners: NDArray[np.float64]) -> None:
    """Draw a twig in front of the sign."""
    size = float(np.ptp(corners[:, 0]))
    start = corners.mean(axis=0) + rng.uniform(-0.6, 0.6, 2) * size
    end = start + rng.uniform(-0.6, 0.6, 2) * size
    width = max(1, round(rng.uniform(0.02, 0.07) * size))
    ImageDraw.Draw(canvas).line((*start, *end), fill=_color(rng), width=width)


def _lit(pixels: Floats, rng: np.random.Generator) -> Floats:
    """Apply exposure, contrast, a tint, and light that falls off across the image."""
    shade = 1 + np.float32(rng.uniform(0, 0.25)) * _slope(rng, len(pixels))
    gain = (rng.uniform(*EXPOSURES) * rng.uniform(0.95, 1.05, 3)).astype(np.float32)
    veil = np.float32(rng.uniform(0, 0.08))
    return np.asarray(pixels * shade * gain + veil)


__all__ = ["CLASS_NAMES", "SignImage", "draw_sign"]
