"""The losses a recipe can name, each on (logits, labels, label smoothing), averaged over the batch."""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from scalesearch.values.candidate import LossName

Loss = Callable[[Tensor, Tensor, float], Tensor]

# Lin et al. 2017 (arXiv 1708.02002), table 1b: 2 was their best and has been everybody's default since.
_FOCAL_GAMMA: Final = 2.0


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Mean softmax cross-entropy of (batch, classes) logits against (batch,) labels."""
    return functional.cross_entropy(logits, labels, label_smoothing=smoothing)


def focal(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Mean softmax focal loss: each class's term is weighed by (1 - p)^2, so well-learnt images count little.

    Reference: Lin et al. 2017 (arXiv 1708.02002), equation 4, in its softmax form.
    """
    log_p = functional.log_softmax(logits, dim=1)
    weights = (1 - log_p.exp()) ** _FOCAL_GAMMA
    return -(_smoothed(logits, labels, smoothing) * weights * log_p).sum(dim=1).mean()


def bce(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Binary cross-entropy, one class against the rest: summed over classes, mean over the batch.

    Summed, not averaged, over classes: otherwise its gradient shrinks with the number of classes and a rate found on
    one data set means another on the next. Reference: Wightman et al. 2021 (arXiv 2110.00476), section 3.
    """
    targets = _smoothed(logits, labels, smoothing)
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(labels)


def _smoothed(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    classes = logits.shape[1]
    one_hot = functional.one_hot(labels, classes).to(torch.float32)
    return one_hot * (1 - smoothing) + smoothing / classes


LOSSES: Final[dict[LossName, Loss]] = {"cross_entropy": cross_entropy, "focal": focal, "bce": bce}
