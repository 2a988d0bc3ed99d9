"""Boxes of objects as targets: several for each image, some of which are marked as ignored."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from scalesearch.data.framing import crop_box, padded_size
from scalesearch.data.targets import Places
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import Fit

if TYPE_CHECKING:
    from torch import Tensor

BOXES: Final = "boxes"
"""The kind of targets that `Boxes` are."""
COLUMNS: Final = 6
"""Left, top, right, bottom, class and whether it is ignored: the last axis of `Boxes.tensor`."""
NO_CLASS: Final = -1
"""The class of rows that hold no box."""
# A box of which the centre crop leaves at least this share remains a target; if less is left, it is ignored.
_LEAST_SHOWN: Final = 0.4

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the pixels of an original image are in the stored one: x becomes `scale_x` x + `offset_x`, y likewise."""

    scale_x: float = 1.0
    scale_y: float = 1.0
    offset_x: float = 0.0
    offset_y: float = 0.0


def placement(width: int, height: int, to: InputSize, fit: Fit) -> Placement:
    """Return where `framing.framed` puts the pixels of an image of this width and height."""
    if fit == "stretch":
        return Placement(scale_x=to.width_px / width, scale_y=to.height_px / height)
    if fit == "pad":
        small_width, small_height = padded_size(width, height, to)
        return Placement(
            scale_x=small_width / width,
            scale_y=small_height / height,
            offset_x=(to.width_px - small_width) // 2,
            offset_y=(to.height_px - small_height) // 2,
        )
    left, top, right, bottom = crop_box(width, height, to)
    scale_x, scale_y = to.width_px / (right - left), to.height_px / (bottom - top)
    return Placement(scale_x=scale_x, scale_y=scale_y, offset_x=-left * scale_x, offset_y=-top * scale_y)


def placed(boxes: Floats, at: Placement) -> Floats:
    """Return boxes (..., 4) of left, top, right and bottom in pixels, moved as the image was."""
    scale = np.asarray([at.scale_x, at.scale_y] * 2, np.float32)
    return np.asarray(boxes * scale + np.asarray([at.offset_x, at.offset_y] * 2, np.float32), np.float32)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ImageBoxes:
    """The boxes of one original image, in its own pixels."""

    boxes: Floats
    """(n, 4): left, top, right and bottom."""
    classes: NDArray[np.int64]
    ignored: NDArray[np.bool_]
    """(n,): True for crowds and other objects that do not count; a detection there is neither right nor wrong."""


def no_boxes() -> ImageBoxes:
    """Return the boxes of an image without objects."""
    return ImageBoxes(boxes=np.zeros((0, 4), np.float32), classes=np.zeros(0, np.int64), ignored=np.zeros(0, np.bool_))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Boxes:
    """The boxes of some images, padded to `most`, the largest number of boxes of an image.

    They also hold where the pixels of each image came from.
    """

    boxes: Floats
    """(number, most, 4): left, top, right and bottom in pixels of images of `size`."""
    classes: NDArray[np.int64]
    """(number, most); `NO_CLASS` in rows without a box."""
    ignored: NDArray[np.bool_]
    """(number, most)."""
    placements: Floats
    """(number, 4): scale x, scale y, offset x and offset y from original pixels to those of images of `size`."""
    originals: NDArray[np.int64]
    """(number, 2): width and height of the original images."""
    size: InputSize

    def __post_init__(self) -> None:
        """Refuse arrays that do not fit together."""
        number, most = self.classes.shape
        shapes = (self.boxes.shape, self.ignored.shape, self.placements.shape, self.originals.shape)
        if shapes != ((number, most, 4), (number, most), (number, 4), (number, 2)):
            msg = f"boxes of {number} images, at most {most} of each, have parts of shape {shapes}"
            raise ValueError(msg)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.classes)

    def __getitem__(self, where: Places) -> "Boxes":
        """Return the boxes of some of the images."""
        return replace(
            self,
            boxes=self.boxes[where],
            classes=self.classes[where],
            ignored=self.ignored[where],
            placements=self.placements[where],
            originals=self.originals[where],
        )

    def joined(self, other: "Boxes") -> "Boxes":
        """Return these boxes and then the others, which are of images of the same size."""
        if self.size != other.size:
            msg = f"boxes at {self.size} and at {other.size} cannot be joined"
            raise ValueError(msg)
        most = max(self.classes.shape[1], other.classes.shape[1])
        parts = [each._padded(most) for each in (self, other)]
        return Boxes(
            boxes=np.concatenate([part.boxes for part in parts]),
            classes=np.concatenate([part.classes for part in parts]),
            ignored=np.concatenate([part.ignored for part in parts]),
            placements=np.concatenate([part.placements for part in parts]),
            originals=np.concatenate([part.originals for part in parts]),
            size=self.size,
        )

    def at(self, size: InputSize) -> "Boxes":
        """Return the boxes of the same whole images at this size."""
        if size == self.size:
            return self
        ratio = np.asarray([size.width_px / self.size.width_px, size.height_px / self.size.height_px] * 2, np.float32)
        return replace(self, boxes=self.boxes * ratio, placements=self.placements * ratio, size=size)

    def content(self) -> "Iterator[memoryview]":
        """Yield the bytes of all arrays, without the rows that hold no box."""
        held = self.classes != NO_CLASS
        yield np.ascontiguousarray(held.sum(axis=1)).data
        for part in (self.boxes[held], self.classes[held], self.ignored[held], self.placements, self.originals):
            yield np.ascontiguousarray(part).data

    def strata(self) -> NDArray[np.int64]:
        """Return for each image 1 + the index of its rarest class, or 0 if it has no boxes, of shape (number,)."""
        most = int(self.classes.max(initial=0)) + 1
        counts = self.class_counts(most)
        rank = np.empty(most + 1, np.int64)
        rank[np.append(np.argsort(counts, kind="stable"), most)] = np.arange(most + 1)  # `most`, no class, comes last
        rarest = np.where(self.classes == NO_CLASS, most, self.classes)
        ranks = rank[rarest].min(axis=1, initial=most)
        by_rank = np.append(np.argsort(counts, kind="stable") + 1, 0)
        return np.asarray(by_rank[ranks], np.int64)

    def class_counts(self, classes: int) -> NDArray[np.int64]:
        """Return the number of boxes of each class, without the ignored ones, of shape (classes,)."""
        asked = (self.classes != NO_CLASS) & ~self.ignored
        return np.bincount(self.classes[asked], minlength=classes)

    def tensor(self) -> "Tensor":
        """Return float32 (number, 1 + most, 6): left, top, right, bottom, class and whether it is ignored.

        The first row of an image is no box: it holds 0, 0, width and height of the image, and `NO_CLASS`. It tells a
        loss the image size that the boxes are for.
        """
        import torch

        rows = np.zeros((len(self), 1 + self.classes.shape[1], COLUMNS), np.float32)
        rows[:, 0, 2:5] = (self.size.width_px, self.size.height_px, NO_CLASS)
        rows[:, 1:, :4], rows[:, 1:, 4], rows[:, 1:, 5] = self.boxes, self.classes, self.ignored
        return torch.from_numpy(rows)

    def original(self, place: int) -> ImageBoxes:
        """Return the boxes of one image in pixels of the original one."""
        held = self.classes[place] != NO_CLASS
        scale, offset = np.tile(self.placements[place, :2], 2), np.tile(self.placements[place, 2:], 2)
        boxes = (self.boxes[place][held] - offset) / scale
        return ImageBoxes(boxes=boxes, classes=self.classes[place][held], ignored=self.ignored[place][held])

    def _padded(self, most: int) -> "Boxes":
        more = most - self.classes.shape[1]
        return replace(
            self,
            boxes=np.pad(self.boxes, ((0, 0), (0, more), (0, 0))),
            classes=np.pad(self.classes, ((0, 0), (0, more)), constant_values=NO_CLASS),
            ignored=np.pad(self.ignored, ((0, 0), (0, more))),
        )


@dataclass(slots=True)
class CropLosses:
    """How many boxes, and images with boxes, lose what to the centre crop; ignored boxes are not counted."""

    boxes: int = 0
    outside: int = 0
    """Boxes of which nothing is left; they are dropped."""
    mostly: int = 0
    """Boxes of which too little is left; they are ignored."""
    images: int = 0
    emptied: int = 0
    """Images that had boxes and have none left that counts."""

    def add(self, left: Floats, ignored: NDArray[np.bool_]) -> None:
        """Count an image.

        Args:
            left: The share of each of its boxes that is left, of shape (n,).
            ignored: Which of them were ignored before, of shape (n,).
        """
        shares = left[~ignored]
        self.boxes += len(shares)
        self.outside += int((shares <= 0).sum())
        self.mostly += int(((shares > 0) & (shares < _LEAST_SHOWN)).sum())
        self.images += 1
        self.emptied += bool(len(shares)) and bool((shares < _LEAST_SHOWN).all())

    def warnings(self, data: str, size: InputSize, fit: Fit) -> tuple[str, ...]:
        """Return a line on what is lost, or none.

        Args:
            data: The data set.
            size: Height and width of the stored images.
            fit: How they were given that shape.
        """
        if fit != "crop" or not self.outside + self.mostly:
            return ()
        few = f"{self.mostly} of {self.boxes} boxes lie mostly outside"
        lost = f"{self.outside} of {self.boxes} boxes lie outside" if self.outside else few
        mostly = f", {self.mostly} more mostly" if self.outside and self.mostly else ""
        emptied = f", which leaves {self.emptied} of {self.images} images without any" if self.emptied else ""
        return (
            f"data {data}: {lost} the centre crop to {size}{mostly}: neither trained on nor scored{emptied}; "
            f"--set data.fit=pad keeps all",
        )


def boxes_at(
    images: Sequence[ImageBoxes],
    originals: NDArray[np.integer],
    size: InputSize,
    fit: Fit,
    losses: CropLosses | None = None,
) -> Boxes:
    """Return the boxes of original images after each image was given this size by `framing.framed`.

    Boxes are cut off at the edges of the image. A box of which less than 40 % is left is marked as ignored, and one of
    which nothing is left is dropped.

    Args:
        images: The boxes of each image.
        originals: Width and height of each original image, of shape (number, 2).
        size: Height and width of the images now.
        fit: How the images were given that shape.
        losses: Where it is counted what the images lose by that.
    """
    most = max((len(each.classes) for each in images), default=0)
    number = len(images)
    boxes = np.zeros((number, most, 4), np.float32)
    classes = np.full((number, most), NO_CLASS, np.int64)
    ignored = np.zeros((number, most), np.bool_)
    placements = np.zeros((number, 4), np.float32)
    for place, (each, (width, height)) in enumerate(zip(images, originals.tolist(), strict=True)):
        at = placement(width, height, size, fit)
        placements[place] = (at.scale_x, at.scale_y, at.offset_x, at.offset_y)
        moved, left = clipped(placed(each.boxes, at), size)
        if losses is not None:
            losses.add(left, each.ignored)
        kept = left > 0
        count = int(kept.sum())
        boxes[place, :count], classes[place, :count] = moved[kept], each.classes[kept]
        ignored[place, :count] = each.ignored[kept] | (left[kept] < _LEAST_SHOWN)
    return Boxes(
        boxes=boxes,
        classes=classes,
        ignored=ignored,
        placements=placements,
        originals=np.asarray(originals, np.int64).reshape(-1, 2),
        size=size,
    )


def clipped(boxes: Floats, size: InputSize) -> tuple[Floats, Floats]:
    """Return boxes (n, 4) cut off at the edges of images of this size, and the share of each that is left (n,)."""
    limits = np.asarray([size.width_px, size.height_px] * 2, np.float32)
    inside = np.clip(boxes, 0, limits).astype(np.float32)
    before = np.maximum((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), 1e-9)
    after = np.maximum(inside[:, 2] - inside[:, 0], 0) * np.maximum(inside[:, 3] - inside[:, 1], 0)
    return inside, np.asarray(after / before, np.float32)
