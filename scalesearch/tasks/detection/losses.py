"""The loss terms of a detector: which class, which box, and whether there is an object at all."""

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from scalesearch.tasks.detection.assignment import Assigned, assign
from scalesearch.values.candidate import LossName, Recipe

BOX: Final = slice(0, 4)
CLASSES: Final = slice(4, -1)
OBJECT: Final = slice(-1, None)
# Lin et al. 2017 (arXiv 1708.02002), table 1b.
_FOCAL_GAMMA, _FOCAL_ALPHA = 2.0, 0.25
_EPS: Final = 1e-7

ClassLoss = Callable[[Tensor, Tensor, Assigned], Tensor]


def detection_losses(raw: Tensor, targets: Tensor, recipe: Recipe) -> Mapping[str, Tensor]:
    """Return the weighted terms `class`, `box` and `objectness`, each a sum over points, divided by that of positives.

    The box term is 1 - GIoU (arXiv 1902.09630) of the boxes from raw distances; the target of objectness is the IoU of
    the predicted box, as in YOLOX.

    Args:
        raw: (batch, 4 + classes + 1, points), as the detector returns it.
        targets: (batch, 1 + most, 6), as `Boxes.tensor` has them.
        recipe: Names the class term, and holds label smoothing and the weights.
    """
    answers = raw.transpose(1, 2)
    found = assign(targets, answers.shape[1])
    positive = found.positive
    count = positive.sum().clamp(min=1)
    boxes = decoded(answers[..., BOX], found.points, found.strides)
    overlap, generalised = box_overlaps(boxes[positive], found.boxes[positive])
    wanted = torch.zeros_like(answers[..., -1])
    wanted[positive] = overlap.detach().clamp(0, 1).to(wanted.dtype)
    objectness = functional.binary_cross_entropy_with_logits(answers[..., -1], wanted, reduction="none")
    weights = recipe.loss_weights
    classes = CLASS_LOSSES[recipe.loss](answers[..., CLASSES], _class_targets(answers, found, recipe), found)
    return {
        "class": weights.class_ * classes / count,
        "box": weights.box * (1 - generalised).sum() / count,
        "objectness": weights.objectness * objectness[~found.left_out].sum() / count,
    }


def _class_targets(answers: Tensor, found: Assigned, recipe: Recipe) -> Tensor:
    """Return the target probability of each class at each point, (batch, points, classes)."""
    number = answers.shape[2] - 5
    smoothing = recipe.label_smoothing if number > 1 else 0.0
    one_hot = functional.one_hot(found.classes, number).to(answers.dtype)
    return (one_hot * (1 - smoothing) + smoothing / number) * found.positive[..., None]


def _bce(logits: Tensor, wanted: Tensor, found: Assigned) -> Tensor:
    """Return the sum of binary cross entropies of each class, over points with an object only.

    At the other points, objectness alone learns that there is none.
    """
    return functional.binary_cross_entropy_with_logits(logits[found.positive], wanted[found.positive], reduction="sum")


def _cross_entropy(logits: Tensor, wanted: Tensor, found: Assigned) -> Tensor:
    """Return the sum of cross entropies over the classes and "no object", whose logit is 0, at all points.

    Because of that additional logit, a class's own logit says how likely the class is, as with the other class losses.
    """
    extended = torch.cat([logits, torch.zeros_like(logits[..., :1])], dim=-1)
    rest = 1 - wanted.sum(dim=-1, keepdim=True)
    terms = -(torch.cat([wanted, rest], dim=-1) * functional.log_softmax(extended, dim=-1)).sum(dim=-1)
    return terms[~found.left_out].sum()


def _focal(logits: Tensor, wanted: Tensor, found: Assigned) -> Tensor:
    """Return the sum of binary focal losses of each class at all points (arXiv 1708.02002, equation 5)."""
    crossed = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    chance = logits.sigmoid()
    missed = wanted * (1 - chance) + (1 - wanted) * chance
    share = _FOCAL_ALPHA * wanted + (1 - _FOCAL_ALPHA) * (1 - wanted)
    return (share * missed**_FOCAL_GAMMA * crossed).sum(dim=-1)[~found.left_out].sum()


CLASS_LOSSES: Final[Mapping[LossName, ClassLoss]] = {"bce": _bce, "cross_entropy": _cross_entropy, "focal": _focal}


def decoded(distances: Tensor, points: Tensor, strides: Tensor) -> Tensor:
    """Return boxes (..., points, 4) in pixels.

    Args:
        distances: From the point to left, top, right and bottom, in strides, (..., points, 4).
        points: x and y in pixels, (points, 2).
        strides: Stride of each point's feature map in pixels, (points,).
    """
    reach = distances * strides[:, None]
    return torch.cat([points - reach[..., :2], points + reach[..., 2:]], dim=-1)


def box_overlaps(boxes: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Return IoU and GIoU of pairs of boxes (n, 4), each of shape (n,).

    A box whose right or bottom edge comes before its left or top one counts as a box of area 0.
    """
    inner = _area(torch.maximum(boxes[:, :2], wanted[:, :2]), torch.minimum(boxes[:, 2:], wanted[:, 2:]))
    hull = _area(torch.minimum(boxes[:, :2], wanted[:, :2]), torch.maximum(boxes[:, 2:], wanted[:, 2:]))
    union = _area(boxes[:, :2], boxes[:, 2:]) + _area(wanted[:, :2], wanted[:, 2:]) - inner
    overlap = inner / (union + _EPS)
    return overlap, overlap - (hull - union) / (hull + _EPS)


def _area(low: Tensor, high: Tensor) -> Tensor:
    sides = (high - low).clamp(min=0)
    return sides[:, 0] * sides[:, 1]
