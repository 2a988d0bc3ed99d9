"""Endless training batches of images with masks: flipped, scaled and shifted together, jittered, normalised."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from scalesearch.data.framing import PAD_GREY
from scalesearch.data.mapped import ImageSource
from scalesearch.data.masks import UNLABELLED
from scalesearch.data.normalisation import Normalisation
from scalesearch.tasks.segmentation.losses import WeightedMasks, class_weights
from scalesearch.training.batches import Drawn
from scalesearch.training.shuffled import ShuffledBatches
from scalesearch.values.candidate import Recipe


class MaskBatches(ShuffledBatches):
    """Batches of images with their masks.

    One sampling grid per batch says where each pixel comes from: images are interpolated, masks take the nearest pixel.
    Beyond the border, images are grey and masks unlabelled. With a teacher, images are only mirrored, since the
    teacher's outputs are for images that were not scaled or shifted.
    """

    def __init__(
        self,
        images: Tensor | ImageSource,
        masks: Tensor,
        recipe: Recipe,
        *,
        normalisation: Normalisation,
        device: str,
        seed: int,
    ) -> None:
        """Take uint8 images (N, C, H, W) and masks (N, H, W)."""
        count, _, self._height, self._width = images.shape
        super().__init__(count, recipe, normalisation=normalisation, seed=seed)
        self._images, self._masks, self._device = images, masks, device
        moves = not recipe.distill_weight
        self._shift, self._reach = 2 * recipe.shift_fraction * moves, 1 + recipe.scale_fraction * moves
        self._weights: Tensor | None = None
        if recipe.class_weights != "none":
            self._weights = class_weights(masks, recipe.class_weights).to(device)

    def next(self) -> tuple[Tensor, Any]:
        """Return the next images, normalised float32 (batch, C, H, W), and masks uint8 (batch, H, W).

        The masks are inside `WeightedMasks` where the recipe weights classes.
        """
        chosen = self._draw_indices()
        mirrored, moves = self._moves()
        self._drawn = Drawn(indices=chosen, mirrored=mirrored)
        scale, offset = self._brightness_and_contrast()
        pixels = self._images[chosen] if isinstance(self._images, Tensor) else self._images.take(chosen)
        pixels = pixels.to(self._device).to(torch.float32)
        masks = self._masks[chosen].to(self._device)
        shape = [self._size, 1, self._height, self._width]
        grid = affine_grid(moves.to(self._device), shape, align_corners=False)
        # Outside the image, the sampled value is 0: so 0 must stand for grey in images, and for "no class" in masks.
        pixels = grid_sample(pixels - PAD_GREY, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        lack = (UNLABELLED - masks).to(torch.float32)[:, None]
        lack = grid_sample(lack, grid, mode="nearest", padding_mode="zeros", align_corners=False)
        images = (pixels + PAD_GREY).mul_(scale.to(self._device)).add_(offset.to(self._device))
        wanted = UNLABELLED - lack[:, 0].round().to(torch.uint8)
        images = images.contiguous(memory_format=torch.channels_last)
        return images, wanted if self._weights is None else WeightedMasks(masks=wanted, class_weights=self._weights)

    def _moves(self) -> tuple[Tensor, Tensor]:
        """Return which images are mirrored (batch,), and the affine maps (batch, 2, 3) from new to old coordinates.

        Coordinates run from -1 to 1 across the image.
        """
        recipe, number = self._recipe, self._size
        factor = self._reach ** (2 * torch.rand(number, generator=self._random) - 1)
        shift = self._shift * (2 * torch.rand(number, 2, generator=self._random) - 1)
        mirrored = torch.zeros(number, dtype=torch.bool)
        if recipe.flip:
            mirrored = torch.rand(number, generator=self._random) < 0.5
        moves = torch.zeros(number, 2, 3)
        moves[:, 0, 0] = torch.where(mirrored, -1 / factor, 1 / factor)
        moves[:, 1, 1] = 1 / factor
        moves[:, :, 2] = shift
        return mirrored, moves
