"""Batches of masks: images and masks move together by flip, scale and shift, and begin again where they stopped."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from scalesearch.data.masks import UNLABELLED
from scalesearch.data.normalisation import Normalisation
from scalesearch.tasks.segmentation.augment import MaskBatches
from scalesearch.tasks.segmentation.losses import WeightedMasks
from scalesearch.values.candidate import Recipe

PLAIN = Recipe(batch_size=8, shift_fraction=0.0, scale_fraction=0.0, flip=False, jitter=0.0)
SIDE = (24, 32)


def pictures(number: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures whose pixels say which class they have: 40 for class 0, 120 for 1, 200 for 2, in large blocks."""
    random = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, 3, (number, 3, 4), generator=random)
    masks = blocks.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2).to(torch.uint8)
    images = (40 + 80 * masks)[:, None].repeat(1, 3, 1, 1)
    return images, masks


def batches(recipe: Recipe, seed: int = 0) -> MaskBatches:
    images, masks = pictures()
    constants = Normalisation(mean=(0.0,) * 3, std=(1 / 255,) * 3)
    return MaskBatches(images, masks, recipe, normalisation=constants, device="cpu", seed=seed)


def test_without_augmentation_images_and_masks_are_the_given_ones() -> None:
    images, masks = pictures()
    source = batches(PLAIN)
    shown, wanted = source.next()
    chosen = source.drawn().indices
    assert torch.allclose(shown, images[chosen].float(), atol=1e-3)
    assert torch.equal(wanted, masks[chosen])
    assert wanted.dtype == torch.uint8


@pytest.mark.parametrize(
    "moves", [{"flip": True}, {"scale_fraction": 0.5}, {"shift_fraction": 0.3}, {"flip": True, "scale_fraction": 0.4}]
)
def test_masks_move_with_their_images(moves: dict[str, float]) -> None:
    source, moved = batches(replace(PLAIN, **moves)), 0  # type: ignore[arg-type]
    _, masks = pictures()
    for _ in range(6):
        shown, wanted = source.next()
        inside = wanted != UNLABELLED
        of_mask = 40 + 80 * wanted.float()
        # Near the borders of blocks a pixel is a mixture; everywhere else it says its class.
        right = ((shown[:, 0] - of_mask).abs() < 20)[inside].float().mean()
        assert right > 0.8
        assert ((shown[:, 0] - 114).abs() < 40)[~inside].float().mean() > 0.85 if (~inside).any() else True
        moved += int((wanted != masks[source.drawn().indices]).any())
    assert moved == 6


def test_with_a_teacher_images_are_mirrored_and_not_moved() -> None:
    images, masks = pictures()
    source = batches(replace(PLAIN, flip=True, scale_fraction=0.5, shift_fraction=0.3, distill_weight=0.5))
    for _ in range(3):
        shown, wanted = source.next()
        drawn = source.drawn()
        mirrored = drawn.mirrored[:, None, None]
        assert torch.equal(wanted, torch.where(mirrored, masks[drawn.indices].flip(2), masks[drawn.indices]))
        seen = images[drawn.indices].float()
        assert torch.allclose(shown, torch.where(mirrored[:, None], seen.flip(3), seen), atol=1e-3)


def test_mirrored_images_are_told() -> None:
    _, masks = pictures()
    source = batches(replace(PLAIN, flip=True))
    _, wanted = source.next()
    drawn = source.drawn()
    assert drawn.mirrored.any() and not drawn.mirrored.all()
    plain = masks[drawn.indices]
    assert torch.equal(wanted, torch.where(drawn.mirrored[:, None, None], plain.flip(2), plain))


def test_batches_go_on_where_they_stopped_and_follow_the_seed() -> None:
    recipe = replace(PLAIN, flip=True, scale_fraction=0.3, shift_fraction=0.1, jitter=0.2)
    one, other = batches(recipe), batches(recipe)
    one.next()
    other.restore(one.state())
    for mine, theirs in zip(one.next(), other.next(), strict=True):
        assert torch.equal(mine, theirs)
    assert not torch.equal(batches(recipe, seed=1).next()[0], batches(recipe).next()[0])


def test_a_source_on_disk_gives_the_same_batches() -> None:
    images, masks = pictures()

    class Source:
        shape = tuple(images.shape)

        def __len__(self) -> int:
            return len(images)

        def take(self, indices: torch.Tensor) -> torch.Tensor:
            return images[indices]

    recipe = replace(PLAIN, flip=True, scale_fraction=0.3)
    kept = {"normalisation": Normalisation(mean=(0.0,) * 3, std=(1 / 255,) * 3), "device": "cpu", "seed": 0}
    read = MaskBatches(Source(), masks, recipe, **kept)  # type: ignore[arg-type]
    for mine, theirs in zip(read.next(), batches(recipe).next(), strict=True):
        assert torch.equal(mine, theirs)


def test_weighted_classes_come_with_the_masks() -> None:
    _, wanted = batches(replace(PLAIN, class_weights="root")).next()
    assert isinstance(wanted, WeightedMasks)
    assert wanted.masks.shape == (8, *SIDE)
    counts = np.bincount(pictures()[1].numpy().ravel())
    rarest = int(counts.argmin())
    assert int(wanted.class_weights[:3].argmax()) == rarest
