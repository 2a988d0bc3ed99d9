"""Losses of semantic segmentation: the recipe's loss of each pixel at the masks' size, and the Dice loss."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate, kl_div, log_softmax, one_hot

from scalesearch.data.masks import UNLABELLED
from scalesearch.training.losses import Loss, each_bce, each_focal
from scalesearch.values.candidate import ClassWeights, LossName, Recipe

_MOST_VALUES: Final = 2**25
"""Number of logits that are enlarged at once if no gradients are needed: 128 MB."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WeightedMasks:
    """The masks of a batch, and the weight of each class in the loss."""

    masks: Tensor
    """uint8 (batch, height, width): class of each pixel; 255 stands for no class."""
    class_weights: Tensor
    """(classes,)."""


def terms(logits: Tensor, targets: Any, recipe: Recipe) -> dict[str, Tensor]:
    """Return the weighted loss terms by name, averaged over the labelled pixels of the batch.

    Args:
        logits: (batch, classes, logit height, logit width); they are enlarged to the masks' size.
        targets: uint8 masks (batch, height, width), or `WeightedMasks`.
        recipe: Its loss, smoothing and weights. If it weights classes and the targets are masks alone, the weights are
            those of the classes' frequencies in these very masks.
    """
    masks, weights = _parts(targets, recipe.class_weights, logits.device)
    weights = None if weights is None else weights[: logits.shape[1]]
    dice_weight, sums, overlaps = recipe.loss_weights.dice, list[tuple[Tensor, Tensor]](), list[Tensor]()
    for wide, part in _enlarged(logits, masks):
        sums.append(_pixel_terms(wide, part, weights, recipe))
        if dice_weight:
            overlaps.append(_overlaps(wide, part))
    pixels = torch.stack([count for _, count in sums]).sum().clamp(min=1e-12)
    found: dict[str, Tensor] = {recipe.loss: torch.stack([loss for loss, _ in sums]).sum() / pixels}
    if dice_weight:
        found["dice"] = dice_weight * _dice(torch.stack(overlaps).sum(dim=0))
    return found


def distillation(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Return the divergence of softened class probabilities from the teacher's, averaged over pixels and images.

    Logits are (images, classes, height, width). The teacher may have another resolution: its logits are brought to the
    size of the student's.
    """
    if taught.shape[2:] != logits.shape[2:]:
        taught = interpolate(taught, size=logits.shape[2:], mode="bilinear", align_corners=False)
    ours, theirs = (log_softmax(each / temperature, dim=1) for each in (logits, taught))
    places = ours.shape[0] * ours.shape[2] * ours.shape[3]
    return temperature**2 * kl_div(ours, theirs, reduction="sum", log_target=True) / places


def divergence(expected: Tensor, answers: Tensor) -> Tensor:
    """Return the divergence of class probabilities in nats, averaged over pixels and images, with gradients.

    Both are logits (images, classes, height, width), perhaps of different sizes.
    """
    return distillation(answers, expected, 1.0)


def _parts(targets: Any, how: ClassWeights, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Return the masks and, where classes are weighted, the weights of all class numbers."""
    if isinstance(targets, WeightedMasks):
        return targets.masks.to(device), targets.class_weights.to(device)
    return targets.to(device), None if how == "none" else class_weights(targets.cpu(), how).to(device)


def _enlarged(logits: Tensor, masks: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield logits at the masks' size with the masks, all images at once or, without gradients, a few at a time."""
    height, width = masks.shape[1:]
    step = len(masks)
    if not (torch.is_grad_enabled() and logits.requires_grad):
        step = max(1, _MOST_VALUES // (logits.shape[1] * height * width))
    for start in range(0, len(masks), step):
        some = logits[start : start + step].float()
        yield interpolate(some, size=(height, width), mode="bilinear", align_corners=False), masks[start : start + step]


def _pixel_terms(logits: Tensor, masks: Tensor, weights: Tensor | None, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return the summed loss of the labelled pixels, and their number (or the sum of their weights).

    The weight of a pixel is that of its class. Cross entropy alone weights the share that label smoothing gives to
    another class by the weight of that class, as torch does.
    """
    wanted = masks.long()
    labelled = wanted != UNLABELLED
    if recipe.loss == "cross_entropy":
        loss = cross_entropy(
            logits, wanted, weight=weights, ignore_index=UNLABELLED, label_smoothing=recipe.label_smoothing,
            reduction="sum",
        )  # fmt: skip
        if weights is None:
            return loss, labelled.sum().float()
        return loss, weights[wanted[labelled]].sum()
    rows, classes = logits.permute(0, 2, 3, 1)[labelled], wanted[labelled]
    if not len(rows):
        return logits.sum() * 0, labelled.sum().float()
    each = _OTHER_LOSSES[recipe.loss](rows, classes, recipe.label_smoothing)
    if weights is None:
        return each.sum(), labelled.sum().float()
    return (weights[classes] * each).sum(), weights[classes].sum()


_OTHER_LOSSES: Final[dict[LossName, Loss]] = {"focal": each_focal, "bce": each_bce}
"""The losses of single pixels, from logits (pixels, classes) and classes (pixels,), but for cross entropy."""


def _overlaps(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the three sums of the Dice coefficient for each class, of shape (3, classes), over the labelled pixels.

    They are the probability of the class at its own pixels, its probability at all pixels, and its number of pixels.

    Args:
        logits: (batch, classes, height, width), at the masks' size.
        masks: (batch, height, width).
    """
    labelled = masks != UNLABELLED
    chances = logits.softmax(dim=1).permute(0, 2, 3, 1)[labelled]
    truth = one_hot(masks[labelled].long(), logits.shape[1]).to(chances.dtype)
    return torch.stack([(chances * truth).sum(0), chances.sum(0), truth.sum(0)])


def _dice(overlaps: Tensor) -> Tensor:
    """Return 1 - the Dice coefficient of class probabilities, averaged over the classes in the masks.

    Reference: Milletari et al. 2016 (arXiv 1606.04797), with the sums over the whole batch.

    Args:
        overlaps: What `_overlaps` returns, summed over parts of the batch.
    """
    both, chances, truth = overlaps
    present = truth > 0
    if not present.any():
        return overlaps.sum() * 0
    overlap: Tensor = (2 * both / (chances + truth).clamp(min=1e-12))[present].mean()
    return 1 - overlap


_MASKS_AT_ONCE: Final = 64
_POWERS: Final[dict[ClassWeights, float]] = {"none": 0.0, "root": -0.5, "inverse": -1.0}


def class_weights(masks: Tensor, how: ClassWeights) -> Tensor:
    """Return a weight for each class number (255,), whose mean over the labelled pixels is 1.

    Args:
        masks: All training masks, uint8 (N, H, W).
        how: `root` weights a class by 1 / sqrt(frequency), `inverse` by 1 / frequency, `none` all classes alike. A
            class without pixels weighs as much as the rarest.
    """
    counts = torch.zeros(256, dtype=torch.int64)
    for start in range(0, len(masks), _MASKS_AT_ONCE):
        counts += torch.bincount(masks[start : start + _MASKS_AT_ONCE].flatten().long(), minlength=256)
    counts = counts[:UNLABELLED]
    if not counts.any():
        return torch.ones(UNLABELLED)
    share = counts.double() / counts.sum()
    rare = share.clamp(min=float(share[share > 0].min())) ** _POWERS[how]
    return (rare / (rare * share).sum()).float()
