"""Training batches for detection: boxes move exactly as the pixels do."""

import numpy as np
import pytest
import torch
from torch import Tensor

from scalesearch.data.boxes import NO_CLASS
from scalesearch.data.normalisation import Normalisation
from scalesearch.tasks.detection.augment import Batches, moved_targets
from scalesearch.values.candidate import Recipe

HEIGHT, WIDTH = 48, 80
BOX = (20, 12, 44, 30)


def one_image() -> tuple[Tensor, Tensor]:
    """Return a black image with a white box, and its targets."""
    image = torch.zeros(1, 3, HEIGHT, WIDTH, dtype=torch.uint8)
    image[:, :, BOX[1] : BOX[3], BOX[0] : BOX[2]] = 255
    rows = torch.tensor([[[0, 0, WIDTH, HEIGHT, NO_CLASS, 0], [*BOX, 1, 0]]], dtype=torch.float32)
    return image, rows


def batches(recipe: Recipe, seed: int = 0) -> Batches:
    images, targets = one_image()
    images, targets = images.repeat(4, 1, 1, 1), targets.repeat(4, 1, 1)
    constants = Normalisation(mean=(0.0,) * 3, std=(1.0,) * 3)
    return Batches(images, targets, recipe, normalisation=constants, device="cpu", seed=seed)


def seen(image: Tensor) -> list[int]:
    """Return the box around the white pixels."""
    white = image[0].numpy() > 0.5
    rows, columns = np.flatnonzero(white.any(axis=1)), np.flatnonzero(white.any(axis=0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(batch_size=16, flip=True, shift_fraction=0.0, jitter=0.0),
        Recipe(batch_size=16, flip=False, shift_fraction=0.2, jitter=0.0),
        Recipe(batch_size=16, flip=True, shift_fraction=0.1, scale_fraction=0.4, jitter=0.0),
    ],
    ids=["flip", "shift", "all"],
)
def test_boxes_move_as_pixels_do(recipe: Recipe) -> None:
    source = batches(recipe)
    moved = set()
    for _ in range(3):
        images, targets = source.next()
        for image, rows in zip(images, targets, strict=True):
            if rows[1, 5]:
                continue  # too little of it is left
            np.testing.assert_allclose(seen(image), rows[1, :4].numpy(), atol=1.01)
            moved.add(tuple(rows[1, :4].round().tolist()))
            assert rows[0].tolist() == [0, 0, WIDTH, HEIGHT, NO_CLASS, 0]
    assert len(moved) > 1


def test_a_teachers_pictures_are_mirrored_only() -> None:
    recipe = Recipe(batch_size=8, flip=True, shift_fraction=0.2, scale_fraction=0.3, jitter=0.0, distill_weight=0.5)
    source = batches(recipe)
    for _ in range(3):
        images, _ = source.next()
        plain = one_image()[0].float()[0] / 255
        for image, mirrored in zip(images, source.drawn().mirrored, strict=True):
            torch.testing.assert_close(image, plain.flip(2) if mirrored else plain)


def test_batches_go_on_where_they_were_left() -> None:
    recipe = Recipe(batch_size=3, flip=True, scale_fraction=0.2)
    source, other = batches(recipe), batches(recipe, seed=5)
    source.next()
    state = source.state()
    expected = source.next()
    other.restore(state)
    for ours, theirs in zip(other.next(), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_what_leaves_the_picture_is_ignored_or_dropped() -> None:
    rows = one_image()[1].repeat(3, 1, 1)
    still, zoom = torch.zeros(3, dtype=torch.bool), torch.ones(3)
    shift = torch.tensor([[-0.3, 0.0], [-0.45, 0.0], [-0.6, 0.0]])  # 24, 36 and 48 px to the left
    moved = moved_targets(rows, still, zoom, shift)
    assert moved[:, 1, 4].tolist() == [1, 1, NO_CLASS]
    assert moved[:, 1, 5].tolist() == [0, 1, 1]
    assert moved[0, 1, :4].tolist() == [0, 12, 20, 30]
