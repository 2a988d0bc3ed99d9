"""Endless training batches for detection: shuffled, moved, zoomed, mirrored and jittered, with their boxes."""

import torch
from torch import Tensor
from torch.nn import functional

from scalesearch.data.boxes import NO_CLASS
from scalesearch.data.mapped import ImageSource
from scalesearch.data.normalisation import Normalisation
from scalesearch.training.batches import Drawn
from scalesearch.training.shuffled import ShuffledBatches
from scalesearch.values.candidate import Recipe

_LEAST_SHOWN = 0.4
"""A box of which less than this share is left in the picture is ignored."""


class Batches(ShuffledBatches):
    """Batches of images with their boxes.

    Images are moved and zoomed by one bilinear lookup per batch. With a teacher, they are only mirrored, since the
    teacher's outputs are for images that were not moved or zoomed.
    """

    def __init__(
        self,
        images: Tensor | ImageSource,
        targets: Tensor,
        recipe: Recipe,
        *,
        normalisation: Normalisation,
        device: str,
        seed: int,
    ) -> None:
        """Take uint8 images (N, C, H, W) and targets (N, 1 + most, 6), as `Boxes.tensor` has them."""
        super().__init__(len(images), recipe, normalisation=normalisation, seed=seed)
        self._images = images.to(device) if isinstance(images, Tensor) else images
        self._targets, self._device = targets, device
        moves = not recipe.distill_weight
        self._shift, self._zoom = (recipe.shift_fraction * moves, recipe.scale_fraction * moves)

    def next(self) -> tuple[Tensor, Tensor]:
        """Return the next images (batch, C, H, W), normalised, and targets (batch, 1 + most, 6), on the device."""
        chosen = self._draw_indices()
        mirrored = torch.zeros(self._size, dtype=torch.bool)
        if self._recipe.flip:
            mirrored = torch.rand(self._size, generator=self._random) < 0.5
        zoom = 1 + self._zoom * (2 * torch.rand(self._size, generator=self._random) - 1)
        shift = self._shift * (2 * torch.rand(self._size, 2, generator=self._random) - 1)
        self._drawn = Drawn(indices=chosen, mirrored=mirrored)
        factor, offset = self._brightness_and_contrast()
        images = self._taken(chosen).to(torch.float32)
        images = images.mul_(factor.to(self._device)).add_(offset.to(self._device))
        images = self._moved(images, mirrored, zoom, shift)
        return images, moved_targets(self._targets[chosen], mirrored, zoom, shift).to(self._device)

    def _taken(self, chosen: Tensor) -> Tensor:
        if isinstance(self._images, Tensor):
            return self._images[chosen.to(self._device)]
        return self._images.take(chosen).to(self._device)

    def _moved(self, images: Tensor, mirrored: Tensor, zoom: Tensor, shift: Tensor) -> Tensor:
        """Return the images mirrored, then zoomed around their middle, then moved; gaps get the mean colour (0)."""
        if not (self._shift or self._zoom):
            return torch.where(mirrored.to(self._device).view(-1, 1, 1, 1), images.flip(3), images)
        # A lookup goes from the new place, in -1..1, to the old one.
        sign = torch.where(mirrored, -1.0, 1.0)
        looked = torch.zeros(self._size, 2, 3)
        looked[:, 0, 0], looked[:, 1, 1] = sign / zoom, 1 / zoom
        looked[:, 0, 2], looked[:, 1, 2] = -2 * shift[:, 0] * sign / zoom, -2 * shift[:, 1] / zoom
        grid = functional.affine_grid(looked.to(self._device), list(images.shape), align_corners=False)
        return functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def moved_targets(targets: Tensor, mirrored: Tensor, zoom: Tensor, shift: Tensor) -> Tensor:
    """Return targets (batch, 1 + most, 6) after their images were mirrored, zoomed around the middle and moved.

    Boxes are cut off at the edges. A box of which less than 40 % is left is ignored; one outside the image is dropped.

    Args:
        targets: As `Boxes.tensor` has them.
        mirrored: (batch,), whether the image is flipped left to right.
        zoom: (batch,), the factor by which the content is enlarged.
        shift: (batch, 2), by how much the content moves to the right and down, as fractions of the sides.
    """
    sides = targets[:, :1, 2:4]
    boxes, kinds = targets[:, 1:, :4], targets[:, 1:, 4:]
    left, right = boxes[..., 0], boxes[..., 2]
    flip = mirrored[:, None]
    across = sides[..., 0]
    boxes = torch.stack(
        [
            torch.where(flip, across - right, left),
            boxes[..., 1],
            torch.where(flip, across - left, right),
            boxes[..., 3],
        ],
        dim=-1,
    )
    middle = torch.cat([sides, sides], dim=-1) / 2
    boxes = (boxes - middle) * zoom[:, None, None] + middle * (1 + 2 * torch.cat([shift, shift], dim=1)[:, None, :])
    inside = torch.minimum(boxes.clamp(min=0), 2 * middle)
    share = _areas(inside) / _areas(boxes).clamp(min=1e-9)
    kinds = kinds.clone()
    kinds[..., 1] = torch.where(share < _LEAST_SHOWN, 1.0, kinds[..., 1])
    kinds[..., 0] = torch.where(share <= 0, float(NO_CLASS), kinds[..., 0])
    return torch.cat([targets[:, :1], torch.cat([inside, kinds], dim=-1)], dim=1)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)
