"""The interface of an endless source of training batches."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Drawn:
    """Which images are in a batch, and which of them are mirrored; both tensors are on the CPU."""

    indices: Tensor
    """Places among the training images, int64 (batch,)."""
    mirrored: Tensor
    """Whether the image is flipped left to right, bool (batch,)."""


class BatchSource(Protocol):
    """A source of endless batches."""

    def state(self) -> dict[str, Tensor]:
        """Return the state on which the next batches depend, as tensors by name."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on with the batches that came next when `state` was taken, of a source over the same images."""

    def next(self) -> tuple[Tensor, Any]:
        """Return normalised images (batch, C, H, W) and their targets, on the device that trains."""
        ...

    def drawn(self) -> Drawn:
        """Return which images are in the batch that `next` returned last."""
        ...
