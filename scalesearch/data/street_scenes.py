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
from PIL import Image, ImageFilter

from scalesearch.data.sign_faces import draw_face
from scalesearch.data.sign_shapes import SUPERSAMPLING, Point
from scalesearch.data.street_backdrop import POLE, SIGN, Canvas, View, street, texture
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
    """Which signs are hidden so much that they are ignored as targets, of shape (signs,)."""
    mask: NDArray[np.uint8]
    """Indices into `SURFACES` of what is seen at each pixel, of shape (height, width)."""


def draw_scene(*, rng: np.random.Generator, size: InputSize) -> Scene:
    """Draw one scene of this size with up to six signs, or none.

    The same state of `rng` gives the same scene.

    Args:
        rng: The source of all that is random in it.
        size: Height and width of the image; 16:9 looks most natural.
    """
    canvas = street(rng, size)
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


def _mount(
    canvas: Canvas, height: float, label: int, *, rng: np.random.Generator, number: int
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
    canvas.line([(x, y), (x, foot)], (grey,) * 3, rng.uniform(0.06, 0.1) * side_px, POLE)
    faces = SIGN_FAMILIES[SIGN_CLASSES[label]]
    face = _posed(faces[int(rng.integers(len(faces)))], side_px, rng)
    left, top = round(x - face.width / 2), round(y - face.height / 2)
    canvas.paste(face, (left, top), number)
    box = np.asarray([left, top, left + face.width, top + face.height], np.float32)
    limits = np.asarray([view.width, view.height] * 2, np.float32)
    area = float((np.asarray(face.getchannel("A")) >= 128).sum())
    return np.clip(box, 0, limits).astype(np.float32), area


def _place(view: View, side_px: float, rng: np.random.Generator) -> Point:
    """Return the centre of a sign in pixels of the canvas: above the verge, further from the road the nearer it is."""
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


def _photographed(canvas: Canvas, mask: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the canvas as a camera would see it: averaged down, textured except on signs, blurred, lit and noisy."""
    photo = canvas.picture.reduce(SUPERSAMPLING)
    rough = np.asarray(photo, np.float32) + texture(rng, mask.shape) * (mask != SIGN)[..., None]
    photo = Image.fromarray(np.clip(rough, 0, 255).astype(np.uint8))
    photo = photo.filter(ImageFilter.GaussianBlur(rng.random() ** 2 * MAX_BLUR * photo.height))
    gain = (rng.uniform(*EXPOSURES) * rng.uniform(0.95, 1.05, 3)).astype(np.float32)
    lit = np.asarray(photo, np.float32) * gain + np.float32(255 * rng.uniform(0, 0.06))
    lit += rng.standard_normal(lit.shape, np.float32) * np.float32(255 * rng.random() ** 2 * MAX_NOISE)
    return np.asarray(np.clip(lit, 0, 255).round().astype(np.uint8))
