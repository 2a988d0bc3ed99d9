"""Loss terms that train a detector to give another one's outputs: for distillation and quantization-aware training."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from scalesearch.tasks.detection.decoding import strides_for
from scalesearch.tasks.detection.losses import BOX, CLASSES, OBJECT

_LEAST_CHANCE = 1e-6


def torch_divergence(expected: Tensor, answers: Tensor) -> Tensor:
    """Return what `divergence.mean_divergence` returns, with gradients.

    Both are raw outputs (batch, 4 + classes + 1, points).
    """
    chance = expected[:, OBJECT].sigmoid()
    objects = _apart(expected[:, OBJECT], answers[:, OBJECT])
    classes = chance * _apart(expected[:, CLASSES], answers[:, CLASSES])
    boxes = chance * (expected[:, BOX] - answers[:, BOX]).square().mean(dim=1, keepdim=True)
    return (objects.sum() + classes.sum() + boxes.sum()) / len(expected)


def taught_losses(answers: Tensor, taught: Tensor) -> Mapping[str, Tensor]:
    """Return loss terms that are smallest if the outputs equal the teacher's.

    Objectness is trained everywhere, classes and boxes only where the teacher sees objects. The terms are divided by
    the sum of the teacher's objectness. This makes gradients of about the size of those of the targets' losses, which
    are divided by the number of points with an object.

    Args:
        answers: Raw outputs (batch, 4 + classes + 1, points).
        taught: The teacher's raw outputs, of the same shape.
    """
    chance = taught[:, OBJECT].sigmoid()
    seen = chance.sum().clamp(min=1.0)
    objects = functional.binary_cross_entropy_with_logits(answers[:, OBJECT], chance, reduction="sum")
    classes = functional.binary_cross_entropy_with_logits(
        answers[:, CLASSES], taught[:, CLASSES].sigmoid(), reduction="none"
    )
    boxes = functional.smooth_l1_loss(answers[:, BOX], taught[:, BOX], reduction="none")
    return {
        "taught_objectness": objects / seen,
        "taught_class": (chance * classes).sum() / seen,
        "taught_box": (chance * boxes).sum() / seen,
    }


def resized(raw: Tensor, sides_px: tuple[int, int], to_px: tuple[int, int]) -> Tensor:
    """Return raw outputs for images of one size as those for the same images of another size.

    Each feature map is brought to its size there by bilinear interpolation, and distances grow with the image. An
    object stays on its feature map, though a network trained at the other size may find it on the next one.

    Args:
        raw: (batch, 4 + classes + 1, points), for images of `sides_px`.
        sides_px: Height and width.
        to_px: The other height and width, also multiples of the coarsest stride.

    Returns:
        (batch, 4 + classes + 1, points of the other size).
    """
    strides = strides_for(sides_px, raw.shape[2])
    grids = [(sides_px[0] // stride, sides_px[1] // stride) for stride in strides]
    wanted = [(to_px[0] // stride, to_px[1] // stride) for stride in strides]
    maps = torch.split(raw, [rows * columns for rows, columns in grids], dim=2)
    changed = [
        functional.interpolate(
            each.reshape(*each.shape[:2], *grid), size=size, mode="bilinear", align_corners=False
        ).flatten(2)
        for each, grid, size in zip(maps, grids, wanted, strict=True)
    ]
    down, across = (to / side for to, side in zip(to_px, sides_px, strict=True))
    growth = torch.ones(raw.shape[1], 1, dtype=raw.dtype, device=raw.device)
    growth[BOX, 0] = growth.new_tensor([across, down, across, down])
    return growth * torch.cat(changed, dim=2)


def _apart(wanted: Tensor, given: Tensor) -> Tensor:
    p, q = (logits.sigmoid().clamp(_LEAST_CHANCE, 1 - _LEAST_CHANCE) for logits in (wanted, given))
    return p * torch.log(p / q) + (1 - p) * torch.log((1 - p) / (1 - q))
