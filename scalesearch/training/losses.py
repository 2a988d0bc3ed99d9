"""The losses a recipe can name: functions of logits, labels and label smoothing, for each label or for the batch."""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from scalesearch.values.candidate import LossName

Loss = Callable[[Tensor, Tensor, float], Tensor]

# Lin et al. 2017 (arXiv 1708.02002), table 1b: 2 was their best value and has been the usual default since.
_FOCAL_GAMMA: Final = 2.0


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Return the mean softmax cross-entropy of logits (batch, classes) against labels (batch,)."""
    return functional.cross_entropy(logits, labels, label_smoothing=smoothing)


def focal(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Return the mean of `each_focal` over the batch."""
    return each_focal(logits, labels, smoothing).mean()


def each_focal(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Return the softmax focal losses (batch,) of logits (batch, classes) against labels (batch,).

    The term of each class is weighted by (1 - p)^2, so that images that are already well learnt count little.
    Reference: Lin et al. 2017 (arXiv 1708.02002), equation 4, in its softmax form.
    """
    log_p = functional.log_softmax(logits, dim=1)
    weights = (1 - log_p.exp()) ** _FOCAL_GAMMA
    return -(_smoothed(logits, labels, smoothing) * weights * log_p).sum(dim=1)


def bce(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Return the mean of `each_bce` over the batch."""
    targets = _smoothed(logits, labels, smoothing)
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(labels)


def each_bce(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Return the binary cross-entropies (batch,) of logits (batch, classes) against labels (batch,).

    Each class is told from the rest, and the classes are summed. If they were averaged, the gradient would shrink with
    their number, and a learning rate found on one data set would not fit the next. Reference: Wightman et al. 2021
    (arXiv 2110.00476), section 3.
    """
    targets = _smoothed(logits, labels, smoothing)
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=1)


def distillation(logits: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """Return the mean divergence of softened class probabilities from the teacher's.

    T^2 KL(softmax(taught / T) || softmax(logits / T)), for logits (batch, classes) of both. The gradient shrinks with
    1 / T^2, which the factor makes up for. Reference: Hinton et al. 2015 (arXiv 1503.02531), section 2.
    """
    ours, theirs = (functional.log_softmax(each / temperature, dim=1) for each in (logits, taught))
    return temperature**2 * functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def _smoothed(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    classes = logits.shape[1]
    one_hot = functional.one_hot(labels, classes).to(torch.float32)
    return one_hot * (1 - smoothing) + smoothing / classes


LOSSES: Final[dict[LossName, Loss]] = {"cross_entropy": cross_entropy, "focal": focal, "bce": bce}
"""The mean losses over the batch."""
