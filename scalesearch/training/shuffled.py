"""The part of a source of batches that is the same for every task: which images come next, and how bright they are."""

from collections.abc import Mapping

import torch
from torch import Tensor

from scalesearch.data.normalisation import Normalisation
from scalesearch.training.batches import Drawn
from scalesearch.values.candidate import Recipe


class ShuffledBatches:
    """Draws full batches; epochs follow one another without a gap, so a batch may contain two epochs.

    All random numbers come from one CPU generator, so that a GPU sees the same pictures as a CPU. A task adds `next`,
    which calls `_draw_indices` first and leaves in `_drawn` what it drew.
    """

    def __init__(self, count: int, recipe: Recipe, *, normalisation: Normalisation, seed: int) -> None:
        """Set up the source, before its first batch.

        Args:
            count: Number of training images.
            recipe: Says how many images a batch holds and how much their brightness and contrast vary.
            normalisation: Mean and standard deviation of each channel.
            seed: Seed of all that is drawn.
        """
        self._count, self._recipe = count, recipe
        self._mean = torch.tensor(normalisation.mean, dtype=torch.float32).view(1, -1, 1, 1)
        self._std = torch.tensor(normalisation.std, dtype=torch.float32).view(1, -1, 1, 1)
        # A batch of one image has no variance for BatchNorm to divide by where the feature map is 1x1.
        self._size = max(2, recipe.batch_size)
        self._random = torch.Generator().manual_seed(seed)
        self._order = torch.empty(0, dtype=torch.int64)
        self._drawn = Drawn(indices=self._order, mirrored=self._order.bool())

    def state(self) -> dict[str, Tensor]:
        """Return what the next batches depend on: the state of the generator, and the images left of this epoch."""
        return {"generator": self._random.get_state(), "order": self._order.clone()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on with the batches that came next when `state` was taken, of a source with equally many images."""
        self._random.set_state(state["generator"])
        self._order = state["order"].clone()

    def drawn(self) -> Drawn:
        """Return which images are in the batch that `next` returned last, and which of them are mirrored."""
        return self._drawn

    def _draw_indices(self) -> Tensor:
        """Return the places (batch,) of the next images."""
        while len(self._order) < self._size:
            self._order = torch.cat([self._order, torch.randperm(self._count, generator=self._random)])
        chosen, self._order = self._order[: self._size], self._order[self._size :]
        return chosen

    def _brightness_and_contrast(self) -> tuple[Tensor, Tensor]:
        """Return scale and offset (batch, C, 1, 1) that turn bytes into normalised, jittered values.

        x -> c (f x - m) + m as in torchvision's ColorJitter, but m is the mean of the data set instead of the image's
        own, and there is no clip to 0..1. Both would need a pass over the pixels and change little at the usual 20 %.
        """
        jitter = self._recipe.jitter
        brightness, contrast = 1 + jitter * (2 * torch.rand(2, self._size, 1, 1, 1, generator=self._random) - 1)
        return contrast * brightness / (255 * self._std), -contrast * self._mean / self._std
