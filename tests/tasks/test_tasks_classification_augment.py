from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from scalesearch.data.mapped import ImageSource, MappedImages, planes
from scalesearch.data.normalisation import Normalisation, normalise
from scalesearch.data.resize import resize_images
from scalesearch.tasks.classification.augment import Batches
from scalesearch.values.candidate import Recipe

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
PLAIN = Recipe(batch_size=4, shift_fraction=0.0, flip=False, jitter=0.0)


def some_images(count: int, side_px: int = 8) -> torch.Tensor:
    return torch.randint(
        0, 256, (count, 3, side_px, side_px), dtype=torch.uint8, generator=torch.Generator().manual_seed(9)
    )


def batches(images: torch.Tensor | ImageSource, recipe: Recipe, seed: int = 0) -> Batches:
    labels = torch.arange(len(images))
    return Batches(images, labels, recipe, normalisation=Normalisation(mean=MEAN, std=STD), device="cpu", seed=seed)


@pytest.mark.parametrize("stored_px", [8, 20])
def test_images_on_disk_give_the_same_batches_bit_for_bit(stored_px: int, tmp_path: Path) -> None:
    stored = some_images(11, stored_px).permute(0, 2, 3, 1).numpy()
    np.save(tmp_path / "images.npy", stored)
    mapped = MappedImages(np.load(tmp_path / "images.npy", mmap_mode="r")).at(8)
    plain = planes(resize_images(stored, 8))
    assert isinstance(plain, torch.Tensor)
    recipe = Recipe(batch_size=6, shift_fraction=0.2, flip=True, jitter=0.2)
    one, other = batches(plain, recipe, seed=3), batches(planes(mapped), recipe, seed=3)
    for _ in range(5):  # more than two epochs
        (images, labels), (images_too, labels_too) = one.next(), other.next()
        assert torch.equal(images, images_too) and torch.equal(labels, labels_too)
        assert images_too.is_contiguous(memory_format=torch.channels_last)


def test_without_augmentation_a_batch_is_what_scoring_sees() -> None:
    images = some_images(10)
    given, labels = batches(images, PLAIN).next()
    torch.testing.assert_close(given, normalise(images[labels], mean=MEAN, std=STD), atol=1e-5, rtol=1e-5)
    assert given.is_contiguous(memory_format=torch.channels_last)


def test_every_epoch_holds_each_image_once_and_runs_into_the_next() -> None:
    source = batches(some_images(10), PLAIN)
    labels = torch.cat([source.next()[1] for _ in range(5)])
    assert sorted(labels[:10].tolist()) == list(range(10))
    assert sorted(labels[10:].tolist()) == list(range(10))
    assert labels[:10].tolist() != labels[10:].tolist()


@pytest.mark.parametrize("count", [1, 3])
def test_fewer_images_than_a_batch_repeat_evenly(count: int) -> None:
    source = batches(some_images(count), replace(PLAIN, batch_size=6))
    _, labels = source.next()
    assert labels.bincount().tolist() == [6 // count] * count


def test_a_batch_of_one_becomes_two() -> None:
    assert len(batches(some_images(5), replace(PLAIN, batch_size=1)).next()[1]) == 2


def test_shift_stays_in_reach_and_repeats_the_edge() -> None:
    side_px, reach = 10, 2
    rows = torch.arange(side_px, dtype=torch.uint8).view(1, 1, side_px, 1).expand(1, 3, side_px, side_px)
    source = batches(rows.contiguous(), replace(PLAIN, batch_size=64, shift_fraction=0.2))
    given, _ = source.next()
    pixels = (given * torch.tensor(STD).view(1, 3, 1, 1) + torch.tensor(MEAN).view(1, 3, 1, 1)) * 255
    shifts = set()
    for image in pixels.round().to(torch.int64):
        column = image[0, :, 0]
        shift = int(column[side_px // 2]) - side_px // 2
        expected = (torch.arange(side_px) + shift).clamp(0, side_px - 1)
        assert torch.equal(column, expected)
        shifts.add(shift)
    assert shifts == set(range(-reach, reach + 1))


def test_flip_mirrors_some_images_and_is_off_by_default() -> None:
    images = some_images(1)
    straight = normalise(images, mean=MEAN, std=STD)
    given, _ = batches(images, replace(PLAIN, batch_size=32, flip=True)).next()
    mirrored = [torch.allclose(one, straight[0].flip(2), atol=1e-5) for one in given]
    kept = [torch.allclose(one, straight[0], atol=1e-5) for one in given]
    assert all(m != k for m, k in zip(mirrored, kept, strict=True))
    assert 0 < sum(mirrored) < 32
    assert Recipe().flip is False


def test_jitter_is_brightness_then_contrast_about_the_mean() -> None:
    """x -> c (f x - m) + m is affine, and at black it gives m (1 - c) whatever f is."""
    grey = torch.cat([torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.full((1, 3, 4, 4), 200, dtype=torch.uint8)])
    given, labels = batches(grey, replace(PLAIN, batch_size=64, jitter=0.2)).next()
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    values = given[:, :, 0, 0] * std + mean
    contrast = 1 - values[labels == 0] / mean
    assert contrast.min() >= 0.8 - 1e-5
    assert contrast.max() <= 1.2 + 1e-5
    torch.testing.assert_close(contrast, contrast[:, :1].expand_as(contrast), atol=1e-5, rtol=1e-5)
    bright = values[labels == 1]
    assert bright.min() >= 0.8 * (0.8 * 200 / 255) - 0.2 * 0.6 - 1e-4
    assert bright.std(dim=0).min() > 0.02


def test_equal_seeds_give_equal_batches() -> None:
    recipe = Recipe(batch_size=4, flip=True)
    images = some_images(10)
    first, second, other = batches(images, recipe, 1), batches(images, recipe, 1), batches(images, recipe, 2)
    for _ in range(4):
        given, again = first.next(), second.next()
        assert torch.equal(given[0], again[0])
        assert torch.equal(given[1], again[1])
    assert not torch.equal(given[0], [other.next() for _ in range(4)][-1][0])


@pytest.mark.parametrize("mapped", [False, True], ids=["in memory", "on disk"])
def test_a_batch_tells_which_images_it_holds_and_which_are_mirrored(mapped: bool, tmp_path: Path) -> None:
    images = some_images(10)
    given: torch.Tensor | ImageSource = images
    if mapped:
        np.save(tmp_path / "images.npy", images.permute(0, 2, 3, 1).numpy())
        given = planes(MappedImages(np.load(tmp_path / "images.npy", mmap_mode="r")))
    source = batches(given, replace(PLAIN, batch_size=6, flip=True))
    seen = []
    for _ in range(5):
        batch, labels = source.next()
        drawn = source.drawn()
        assert torch.equal(drawn.indices, labels)  # the labels number the images here
        expected = normalise(images[drawn.indices], mean=MEAN, std=STD)
        expected[drawn.mirrored] = expected[drawn.mirrored].flip(3)
        torch.testing.assert_close(batch, expected, atol=1e-5, rtol=1e-5)
        seen.append(drawn.mirrored)
    assert 0 < torch.cat(seen).sum() < 30


def test_without_flips_no_image_is_told_to_be_mirrored() -> None:
    source = batches(some_images(10), PLAIN)
    source.next()
    assert source.drawn().mirrored.tolist() == [False] * 4
