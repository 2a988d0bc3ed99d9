"""Assign objects to the points of a detector that must predict them: the static assignment of FCOS."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

from scalesearch.data.boxes import NO_CLASS
from scalesearch.tasks.detection.decoding import points_of, strides_for

CENTRE_RADIUS: Final = 1.5
"""A point may be assigned an object whose centre is this near along both sides, in strides of its feature map."""
# A level is for boxes whose farthest side is this far from the point, in strides of its feature map: at least the first
# value (the second on all levels but the finest), and less than the third (any distance on the coarsest level).
_FINEST_FROM, _COARSER_FROM, _TO = 0.0, 2.0, 4.0
_FAR: Final = 1e9
_MOST_PAIRS: Final = 2**23
"""At most so many pairs of a point and a box are compared at once, unless one image has more. Each of the numbers that
are computed for them takes 32 MB."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Assigned:
    """The training targets of each point, for a batch of images."""

    points: Tensor
    """(points, 2): x and y in pixels."""
    strides: Tensor
    """(points,): stride of the point's feature map in pixels."""
    positive: Tensor
    """(batch, points): whether an object is assigned to the point."""
    left_out: Tensor
    """(batch, points): whether the point lies in an ignored box and is left out of the loss."""
    boxes: Tensor
    """(batch, points, 4): the assigned box, in pixels; meaningless unless `positive`."""
    classes: Tensor
    """(batch, points): class of the assigned box."""


def assign(targets: Tensor, number_of_points: int) -> Assigned:
    """Assign objects to points: a point near the centre of a box, inside it, on the level that fits its size.

    Where several boxes fit, the smallest one wins (FCOS, arXiv 1904.01355, section 3.2; the radius is that of its later
    versions). A box that no point fits, mostly because it is small, goes to the nearest point of the finest level.

    Args:
        targets: (batch, 1 + most, 6), as `Boxes.tensor` has them.
        number_of_points: How many points the detector has.
    """
    width, height = (int(side) for side in targets[0, 0, 2:4].round().tolist())
    grid = _grid((height, width), number_of_points, str(targets.device))
    images = max(1, _MOST_PAIRS // (number_of_points * max(1, _without_empty(targets).shape[1] - 1)))
    parts = [_assigned(some, grid) for some in torch.split(targets, images)]
    positive, left_out, boxes, classes = (torch.cat(each) for each in zip(*parts, strict=True))
    points, strides, _, _ = grid
    return Assigned(points=points, strides=strides, positive=positive, left_out=left_out, boxes=boxes, classes=classes)


def _without_empty(targets: Tensor) -> Tensor:
    """Return targets (batch, 1 + most, 6) without the rows that hold a box in none of the images."""
    held = (targets[:, :, 4] != NO_CLASS).any(dim=0)
    held[0] = True  # the sides of the images
    return targets[:, held]


def _assigned(targets: Tensor, grid: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return `positive`, `left_out`, `boxes` and `classes` of `Assigned` for targets (batch, 1 + most, 6).

    `grid` is what `_grid` returns for their size.
    """
    points, strides, low, high = grid
    targets = _without_empty(targets)
    boxes, classes, ignored = targets[:, 1:, :4], targets[:, 1:, 4].long(), targets[:, 1:, 5] > 0
    held = classes != NO_CLASS
    if not boxes.shape[1]:
        boxes = targets.new_zeros(len(targets), 1, 4)
        classes, ignored, held = (boxes[..., 0].to(kind) for kind in (torch.int64, torch.bool, torch.bool))
    # (batch, points, boxes)
    x, y = points[:, 0, None], points[:, 1, None]
    left, top, right, bottom = (side[:, None, :] for side in boxes.unbind(-1))
    inside = (x > left) & (y > top) & (right > x) & (bottom > y)
    reach = torch.maximum(torch.maximum(x - left, right - x), torch.maximum(y - top, bottom - y))
    off = torch.maximum((x - (left + right) / 2).abs(), (y - (top + bottom) / 2).abs())
    wanted = (held & ~ignored)[:, None, :]
    fits = (
        inside & (off < CENTRE_RADIUS * strides[:, None]) & (reach >= low[:, None]) & (reach < high[:, None]) & wanted
    )
    fits |= _nearest(off, strides, wanted & ~fits.any(dim=1, keepdim=True))
    areas = torch.where(fits, (right - left) * (bottom - top), _FAR)
    smallest, chosen = areas.min(dim=2)
    positive = smallest < _FAR
    left_out = (inside & (held & ignored)[:, None, :]).any(dim=2) & ~positive
    found = boxes.gather(1, chosen[..., None].expand(-1, -1, 4))
    return positive, left_out, found, classes.gather(1, chosen).clamp(min=0)


def _nearest(off: Tensor, strides: Tensor, lost: Tensor) -> Tensor:
    """Return the points to which boxes are assigned that no point fits, as a mask (batch, points, boxes).

    Args:
        off: Distance of each point from the centre of each box, (batch, points, boxes).
        strides: (points,).
        lost: Which boxes no point fits, (batch, 1, boxes).
    """
    finest = (strides == strides.min())[:, None]
    nearest = torch.where(finest, off, _FAR).argmin(dim=1, keepdim=True)
    places = torch.arange(off.shape[1], device=off.device)[:, None]
    return (places == nearest) & lost


@lru_cache(maxsize=64)
def _grid(sides_px: tuple[int, int], number_of_points: int, device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return points (points, 2) and, each (points,), strides and the least and greatest reach, all in pixels.

    The reach of a box from a point is the distance to the box's farthest side.
    """
    levels = strides_for(sides_px, number_of_points)
    points, strides = (torch.from_numpy(part).to(device) for part in points_of(sides_px, levels))
    low = torch.where(strides == levels[0], _FINEST_FROM, _COARSER_FROM) * strides
    high = torch.where(strides == levels[-1], _FAR, _TO * strides)
    return points, strides, low, high
