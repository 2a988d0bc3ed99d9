"""Make endless training batches from images in memory or on disk: shuffled, shifted, flipped, jittered, normalized."""

from collections.abc import Mapping

import torch
from torch import Tensor

from scalesearch.data.mapped import ImageSource
from scalesearch.data.normalisation import Normalisation
from scalesearch.training.batches import Drawn
from scalesearch.values.candidate import Recipe


class Batches:
    """An endless source of full batches; epochs follow one another without a gap, so a batch may contain two epochs.

    All random numbers come from one CPU generator, so that a GPU sees the same pictures as a CPU. Shift and flip only
    change which pixels are read, and brightness and contrast are merged with the normalization, so a batch takes one
    gather and one multiply-add.
    """

    def __init__(
        self,
        images: Tensor | ImageSource,
        labels: Tensor,
        recipe: Recipe,
        *,
        normalisation: Normalisation,
        device: str,
        seed: int,
    ) -> None:
        """Take uint8 images (N, C, H, W) and labels (N,), and the constants of normalisation.

        Of an image source only the images of a batch are read at a time; the batches are the same, bit for bit.
        """
        self._count, _, self._height, self._width = images.shape
        self._source = None if isinstance(images, Tensor) else images
        if isinstance(images, Tensor):
            self._pixels = _pixel_rows(images).to(device)
        self._labels = labels.to(device=device, dtype=torch.int64)
        self._mean = torch.tensor(normalisation.mean, dtype=torch.float32).view(1, -1, 1, 1)
        self._std = torch.tensor(normalisation.std, dtype=torch.float32).view(1, -1, 1, 1)
        # A batch of one image has no variance for BatchNorm to divide by where the feature map is 1x1.
        self._size = max(2, recipe.batch_size)
        self._recipe = recipe
        self._device = device
        self._random = torch.Generator().manual_seed(seed)
        self._order = torch.empty(0, dtype=torch.int64)
        self._drawn = Drawn(indices=self._order, mirrored=self._order.bool())

    def state(self) -> dict[str, Tensor]:
        """Return what the next batches depend on: the state of the generator, and the images left of this epoch."""
        return {"generator": self._random.get_state(), "order": self._order.clone()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on with the batches that came next when `state` was taken, of a source over as many images."""
        self._random.set_state(state["generator"])
        self._order = state["order"].clone()

    def next(self) -> tuple[Tensor, Tensor]:
        """Return the next images (batch, C, H, W) and labels (batch,), both on the device.

        Images are float32, normalised, and channels-last in memory.
        """
        chosen = self._draw_indices()
        rows = self._offsets(self._height)
        columns = self._offsets(self._width)
        mirrored = torch.zeros(self._size, 1, dtype=torch.bool)
        if self._recipe.flip:
            mirrored = torch.rand(self._size, 1, generator=self._random) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        self._drawn = Drawn(indices=chosen, mirrored=mirrored[:, 0])
        scale, offset = self._brightness_and_contrast()
        images = self._gather(chosen, rows, columns)
        chosen, scale, offset = (part.to(self._device) for part in (chosen, scale, offset))
        return images.to(torch.float32).mul_(scale).add_(offset), self._labels[chosen]

    def drawn(self) -> Drawn:
        """Return which images the batch holds that `next` returned last, and which of them are mirrored."""
        return self._drawn

    def _draw_indices(self) -> Tensor:
        while len(self._order) < self._size:
            self._order = torch.cat([self._order, torch.randperm(self._count, generator=self._random)])
        chosen, self._order = self._order[: self._size], self._order[self._size :]
        return chosen

    def _offsets(self, side: int) -> Tensor:
        """Return the source index of every row (or column) of every image: (batch, side).

        The images are shifted at random; the edge pixel fills the gap.
        """
        reach = round(self._recipe.shift_fraction * side)
        shift = torch.randint(-reach, reach + 1, (self._size, 1), generator=self._random)
        return (torch.arange(side) + shift).clamp(0, side - 1)

    def _brightness_and_contrast(self) -> tuple[Tensor, Tensor]:
        """Return scale and offset (batch, C, 1, 1) that turn bytes into normalized, jittered values.

        x -> c (f x - m) + m as in torchvision's ColorJitter, but m is the mean of the data set instead of the image's
        own, and there is no clip to 0..1. Both would need a pass over the pixels and change little at the usual 20 %.
        """
        jitter = self._recipe.jitter
        brightness, contrast = 1 + jitter * (2 * torch.rand(2, self._size, 1, 1, 1, generator=self._random) - 1)
        return contrast * brightness / (255 * self._std), -contrast * self._mean / self._std

    def _gather(self, chosen: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        pixels = self._pixels if self._source is None else _pixel_rows(self._source.take(chosen)).to(self._device)
        if self._source is not None:
            chosen = torch.arange(self._size)
        lines = ((chosen[:, None] * self._height + rows) * self._width).to(self._device)
        index = lines[:, :, None] + columns.to(self._device)[:, None, :]
        picked = pixels.index_select(0, index.reshape(-1))
        return picked.view(self._size, self._height, self._width, -1).permute(0, 3, 1, 2)


def _pixel_rows(images: Tensor) -> Tensor:
    """Return one row (C) per pixel of images (N, C, H, W).

    Gathering rows is 4x faster than advanced indexing, and the result is channels-last.
    """
    return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1]).contiguous()
