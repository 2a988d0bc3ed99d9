"""One data set in memory: resolutions, statistics, the one normalisation, and the standard error."""

import numpy as np
import pytest
import torch
from PIL import Image

from scalesearch.data import Dataset, ImageSplit, normalise, to_input, val_standard_error_points
from scalesearch.data.dataset import make_dataset
from scalesearch.data.normalisation import channel_statistics
from scalesearch.data.resize import resize_images, to_grey
from scalesearch.data.targets import Labels
from scalesearch.errors import ConfigError
from scalesearch.values.network_spec import InputSize


def make_split(count: int, seed: int, side_px: int = 32) -> ImageSplit:
    rng = np.random.default_rng(seed)
    return ImageSplit(
        images=rng.integers(0, 256, (count, side_px, side_px, 3), np.uint8),
        targets=Labels(np.arange(count, dtype=np.int64) % 2),
    )


def make(seed: int = 0, val_count: int = 5, names: tuple[str, ...] = ("a", "b")) -> Dataset:
    splits = (make_split(9, seed), make_split(val_count, 1), make_split(4, 2), make_split(6, 3))
    return make_dataset(name="made", class_names=names, splits=splits)


def test_to_input_is_pixels_scaled_and_standardised() -> None:
    images = make_split(3, 0).images[:]
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    expected = ((images / 255.0 - np.asarray(mean)) / np.asarray(std)).transpose(0, 3, 1, 2)
    given = to_input(images, mean=mean, std=std)
    assert given.dtype == np.float32
    assert given.flags.c_contiguous
    np.testing.assert_allclose(given, expected, atol=2e-6)


def test_torch_and_numpy_normalise_bit_for_bit_alike() -> None:
    data = make()
    planes = torch.from_numpy(data.train.images).permute(0, 3, 1, 2)
    as_torch = normalise(planes, mean=data.mean, std=data.std)
    assert as_torch.dtype == torch.float32
    np.testing.assert_array_equal(as_torch.numpy(), to_input(data.train.images[:], mean=data.mean, std=data.std))


def test_one_channel_is_normalised_as_three_are() -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 5, 5, 3), np.uint8)
    grey = to_grey(images)
    assert grey.shape == (4, 5, 5, 1)
    mean, std = channel_statistics(grey)
    assert len(mean) == 1 and mean[0] == pytest.approx(grey.mean() / 255)
    given = to_input(grey, mean=mean, std=std)
    np.testing.assert_allclose(given[:, 0], (grey[..., 0] / 255 - mean[0]) / std[0], atol=1e-5)
    as_torch = normalise(torch.from_numpy(grey).permute(0, 3, 1, 2), mean=mean, std=std)
    np.testing.assert_array_equal(as_torch.numpy(), given)


def test_grey_pictures_in_three_channels_come_back_as_they_were() -> None:
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    np.testing.assert_array_equal(to_grey(every.repeat(3, axis=-1)), every)


def test_normalised_train_images_have_mean_0_and_deviation_1() -> None:
    data = make()
    planes = to_input(data.train.images[:], mean=data.mean, std=data.std)
    np.testing.assert_allclose(planes.mean(axis=(0, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(planes.std(axis=(0, 2, 3)), 1, atol=1e-5)


def test_images_of_one_colour_do_not_divide_by_zero() -> None:
    flat = ImageSplit(images=np.full((4, 8, 8, 3), 77, np.uint8), targets=Labels(np.asarray([0, 1, 0, 1])))
    data = make_dataset(name="flat", class_names=("a", "b"), splits=(flat, flat, flat, flat))
    np.testing.assert_allclose(to_input(flat.images[:], mean=data.mean, std=data.std), 0, atol=1e-4)


def test_halving_averages_and_agrees_with_pillow() -> None:
    smooth = np.asarray(Image.fromarray(make_split(1, 5, 8).images[0]).resize((64, 64), Image.Resampling.BICUBIC))
    small = resize_images(smooth[None], 32)[0]
    pillow = np.asarray(Image.fromarray(smooth).resize((32, 32), Image.Resampling.BILINEAR))
    assert smooth.std() > 20
    assert np.abs(small.astype(int) - pillow.astype(int)).max() <= 1
    blocks = smooth.reshape(32, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - blocks).mean() < 2


def test_resize_takes_the_centre_square_and_leaves_equal_sizes_alone() -> None:
    wide = np.zeros((2, 4, 8, 3), np.uint8)
    wide[:, :, 2:6] = 200
    assert (resize_images(wide, 4) == 200).all()
    assert (resize_images(wide, 8) == 200).all()


def test_at_gives_the_same_set_smaller() -> None:
    data = make()
    small = data.at(16)
    assert small.resolution_px == 16
    assert small.size_bytes * 4 == data.size_bytes
    assert (small.mean, small.std, small.fingerprint) == (data.mean, data.std, data.fingerprint)
    np.testing.assert_array_equal(np.asarray(small.val.targets), np.asarray(data.val.targets))
    np.testing.assert_array_equal(small.test.images[:], resize_images(data.test.images[:], 16))
    assert data.at(32) is data


def test_at_keeps_the_last_resolutions_within_the_sets_own_size() -> None:
    data = make()
    kept = data.at(16)
    assert data.at(16) is kept
    data.at(28)  # (28² + 16²) / 32² > 1: the older one must go
    assert data.at(16) is not kept
    newest = data.at(16)
    assert data.at(16) is newest


@pytest.mark.parametrize("resolution_px", [0, -8, 33])
def test_at_refuses_what_is_not_stored(resolution_px: int) -> None:
    with pytest.raises(ConfigError, match=f"expected a resolution of 1 to 32 px .* came {resolution_px} px"):
        make().at(resolution_px)


def size(height_px: int, width_px: int) -> InputSize:
    return InputSize(height_px=height_px, width_px=width_px)


def test_at_gives_rectangles_of_the_whole_image() -> None:
    data = make()
    wide = data.at(size(8, 20))
    assert (wide.size, wide.resolution_px, wide.val.images.shape[1:]) == (size(8, 20), 8, (8, 20, 3))
    np.testing.assert_array_equal(wide.val.images[:], resize_images(data.val.images[:], size(8, 20), fit="stretch"))
    assert data.at(size(8, 20)) is wide and data.at(size(20, 8)) is not wide
    np.testing.assert_array_equal(data.at(size(16, 16)).val.images[:], data.at(16).val.images[:])
    assert wide.at(size(4, 20)).size == size(4, 20)


def test_at_refuses_a_rectangle_with_one_side_too_large() -> None:
    stored = make().at(size(8, 20))
    with pytest.raises(ConfigError, match=r"expected a resolution of 1 to 8x20 px \(what is stored\), came 9x20 px"):
        stored.at(size(9, 20))
    with pytest.raises(ConfigError, match=r"storage_px=InputSize\(height_px=8, width_px=21\) or more"):
        stored.at(size(8, 21))


def test_fingerprint_follows_content_and_class_names() -> None:
    assert make().fingerprint == make().fingerprint
    assert len({make().fingerprint, make(seed=9).fingerprint, make(names=("a", "c")).fingerprint}) == 3


def test_standard_error_of_grocery42s_validation_set() -> None:
    assert round(val_standard_error_points(make(val_count=296)), 1) == 2.8
    assert val_standard_error_points(make(val_count=1500)) < 1.3
