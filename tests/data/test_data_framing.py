"""Images that are no squares: cropped, stretched or padded, and counted where much is lost."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from scalesearch.data import LABEL_SOURCES, Dataset, load_dataset
from scalesearch.data.decode import DECODER_VERSION, Reading, decode, read_image, to_square
from scalesearch.data.framing import PAD_GREY, crop_box, padded_size
from scalesearch.data.resize import resize_images
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings, Fit


def gradient(width: int, height: int) -> Any:
    """Red grows to the right, green downwards."""
    rows, columns = np.mgrid[:height, :width]
    return (
        np.stack([255 * columns / (width - 1), 255 * rows / (height - 1), 0 * rows], axis=-1).round().astype(np.uint8)
    )


def squares(width: int, height: int, side: int, fit: Fit) -> list[Any]:
    """By Pillow, as files are read, and by torch, as arrays are."""
    pixels = gradient(width, height)
    return [to_square(Image.fromarray(pixels), side, fit=fit), resize_images(pixels[np.newaxis], side, fit=fit)[0]]


@pytest.mark.parametrize(("width", "height"), [(120, 30), (30, 120)])
def test_stretching_keeps_every_corner(width: int, height: int) -> None:
    for square in squares(width, height, 20, "stretch"):
        assert square.shape == (20, 20, 3)
        assert square[0, 0].max() < 15 and square[-1, -1, :2].min() > 240


def test_padding_keeps_the_shape_between_bars_of_one_grey() -> None:
    for square in squares(120, 30, 20, "pad"):
        inside = square[7:12]  # 20 * 30 / 120 = 5 rows, (20 - 5) // 2 = 7 above them
        assert (square[:7] == PAD_GREY).all() and (square[12:] == PAD_GREY).all()
        assert inside[0, 0].max() < 30 and inside[-1, -1, :2].min() > 225
    tall = squares(30, 120, 20, "pad")[0]
    assert (tall[:, :7] == PAD_GREY).all() and (tall[:, 12:] == PAD_GREY).all() and tall[0, 9, 1] < 10


def test_cropping_keeps_the_middle_only() -> None:
    for square in squares(120, 30, 20, "crop"):
        # Columns 45 to 74 of 120: red from 255 * 45 / 119 = 96 to 255 * 74 / 119 = 159.
        assert square[..., 0].min() >= 96 and square[..., 0].max() <= 159


@pytest.mark.parametrize("fit", get_args(Fit))
def test_a_square_is_the_same_by_every_fit(fit: Fit) -> None:
    for ours, cropped in zip(squares(33, 33, 20, fit), squares(33, 33, 20, "crop"), strict=True):
        np.testing.assert_array_equal(ours, cropped)


def test_a_thread_of_an_image_keeps_a_pixel() -> None:
    assert padded_size(1000, 1, InputSize.square(16)) == (16, 1)
    assert padded_size(3, 4, InputSize.square(8)) == (6, 8)


def tree(root: Path, sizes: list[tuple[int, int]]) -> Path:
    for index, (width, height) in enumerate(sizes):
        path = root / "ab"[index % 2] / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = gradient(width, height)
        pixels[..., 2] = index  # no two files alike
        Image.fromarray(pixels).save(path)
    return root


def load(source: Path, **settings: Any) -> Dataset:
    asked = DataSettings(source=str(source), calibration_images=4, **settings)
    return load_dataset(asked, LABEL_SOURCES, storage_px=8, cache_folder=source.parent / "cache")


def long_notes(data: Dataset) -> list[str]:
    return [text for text in data.warnings if "4:3" in text]


def test_long_images_are_counted_with_what_the_crop_keeps(tmp_path: Path) -> None:
    root = tree(tmp_path / "plates", 18 * [(160, 32)] + 12 * [(40, 30)])
    assert long_notes(load(root)) == [
        "data plates: 18 of 30 images are longer than 4:3 (typical 160 x 32): the centre crop keeps 20 % of them; "
        "--set data.fit=pad or --set data.fit=stretch keeps all"
    ]
    for fit in ("pad", "stretch"):
        assert long_notes(load(root, fit=fit)) == []


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (333, 250), (20, 20)])
def test_up_to_4_to_3_nothing_is_said(size: tuple[int, int], tmp_path: Path) -> None:
    assert long_notes(load(tree(tmp_path / "set", 20 * [size]))) == []


def test_turned_images_are_named_upright(tmp_path: Path) -> None:
    root, exif = tree(tmp_path / "set", 20 * [(20, 20)]), Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(gradient(64, 16)).save(root / "a" / "00.png", exif=exif)
    assert "1 of 20 images are longer than 4:3 (typical 16 x 64)" in long_notes(load(root))[0]


def test_arrays_that_are_no_squares_are_fitted_and_counted_too(tmp_path: Path) -> None:
    images = np.stack([gradient(48, 12)] * 40)
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(40) % 2)
    cropped, padded = load(tmp_path / "set.npz"), load(tmp_path / "set.npz", fit="pad")
    assert "40 of 40 images are longer than 4:3 (typical 48 x 12): the centre crop keeps 25 %" in long_notes(cropped)[0]
    np.testing.assert_array_equal(padded.val.images[0], resize_images(images[:1], 8, fit="pad")[0])
    assert (padded.val.images[0][0] == PAD_GREY).all()


def test_every_fit_is_another_entry_of_the_cache(tmp_path: Path) -> None:
    root = tree(tmp_path / "set", 20 * [(60, 20)])
    first = {fit: load(root, fit=fit).fingerprint for fit in get_args(Fit)}
    assert load(root).fingerprint == first["crop"]  # nobody has said how; the file of the crop serves
    assert len(set(first.values())) == 3
    assert {fit: load(root, fit=fit).fingerprint for fit in get_args(Fit)} == first


WIDE, TALL = InputSize(height_px=12, width_px=20), InputSize(height_px=20, width_px=12)


def framed_both(pixels: Any, size: InputSize, fit: Fit) -> list[Any]:
    """By Pillow, as files are read, and by torch, as arrays are."""
    by_pillow, _ = read_image(Image.fromarray(pixels), Reading(size=size, fit=fit))
    return [by_pillow, resize_images(pixels[np.newaxis], size, fit=fit)[0]]


@pytest.mark.parametrize("size", [WIDE, TALL, InputSize.square(16), InputSize(height_px=1, width_px=31)], ids=str)
@pytest.mark.parametrize(("width", "height"), [(120, 30), (30, 120), (200, 120), (33, 33), (7, 5), (1, 90)])
def test_the_crop_is_the_largest_centred_part_of_the_wanted_shape(width: int, height: int, size: InputSize) -> None:
    left, top, right, bottom = crop_box(width, height, size)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    assert right - left == width or bottom - top == height  # the largest: it touches two borders
    assert 0 <= (width - right) - left <= 1 and 0 <= (height - bottom) - top <= 1  # centred
    exact = min(width / size.width_px, height / size.height_px)
    assert abs((right - left) - exact * size.width_px) <= max(0.5, 1 - exact * size.width_px)
    assert abs((bottom - top) - exact * size.height_px) <= max(0.5, 1 - exact * size.height_px)


@pytest.mark.parametrize("side", [1, 8, 31])
@pytest.mark.parametrize(("width", "height"), [(120, 30), (31, 120), (33, 33), (1000, 1)])
def test_for_squares_crop_and_pad_have_the_numbers_that_they_always_had(width: int, height: int, side: int) -> None:
    size, shorter, longer = InputSize.square(side), min(width, height), max(width, height)
    left, top = (width - shorter) // 2, (height - shorter) // 2
    assert crop_box(width, height, size) == (left, top, left + shorter, top + shorter)
    before = tuple(max(1, (2 * each * side + longer) // (2 * longer)) for each in (width, height))
    assert padded_size(width, height, size) == before


def test_the_names_of_cached_squares_are_those_that_they_always_had() -> None:
    square = Reading(size=InputSize.square(64), window=(0.0, 4095.0), fit="pad", images=30)
    assert repr(square) == "Reading(side_px=64, window=(0.0, 4095.0), fit='pad', images=30)"
    assert DECODER_VERSION == 3
    assert len({repr(Reading(size=size)) for size in (WIDE, TALL, InputSize.square(12), InputSize.square(20))}) == 4


def test_a_picture_of_the_wanted_shape_keeps_all_corners_by_every_fit() -> None:
    for fit in get_args(Fit):
        for framed in framed_both(gradient(100, 60), WIDE, fit):
            assert framed.shape == (12, 20, 3)
            assert framed[0, 0, :2].max() < 15 and framed[-1, -1, :2].min() > 240


def test_a_longer_picture_is_cropped_at_its_sides_only() -> None:
    for framed in framed_both(gradient(200, 60), WIDE, "crop"):
        # 60 * 20 / 12 = 100 columns from 50 on: red from 255 * 50 / 199 = 64 to 255 * 149 / 199 = 191; all rows.
        assert framed[..., 0].min() >= 64 and framed[..., 0].max() <= 191
        assert framed[0, :, 1].max() < 15 and framed[-1, :, 1].min() > 240


def test_a_higher_picture_is_padded_at_its_sides() -> None:
    for framed in framed_both(gradient(60, 60), WIDE, "pad"):
        # 12 of 20 columns, (20 - 12) // 2 = 4 to their left
        assert (framed[:, :4] == PAD_GREY).all() and (framed[:, 16:] == PAD_GREY).all()
        assert framed[0, 4, :2].max() < 15 and framed[-1, 15, :2].min() > 240


def test_a_camera_on_its_side_loses_no_detail_before_it_is_turned(tmp_path: Path) -> None:
    exif, lines = Image.Exif(), np.zeros((3200, 900, 3), np.uint8)
    exif[0x0112] = 6
    lines[:, np.arange(900) // 3 % 2 == 0] = 255
    Image.fromarray(lines).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    wanted = InputSize(height_px=400, width_px=50)
    pixels, fact = decode(tmp_path / "turned.jpg", Reading(size=wanted))
    assert fact.size == (3200, 900) and pixels.shape == (400, 50, 3)
    with Image.open(tmp_path / "turned.jpg") as whole:
        expected, _ = read_image(whole, Reading(size=wanted))
    # Lying, it is 900 px wide: decoded at 1/4, as 50 x 400 px would allow, its lines would be gone.
    np.testing.assert_array_equal(pixels, expected)
    assert pixels.std() > 30


def test_what_a_rectangle_loses_is_counted_by_its_own_shape(tmp_path: Path) -> None:
    root = tree(tmp_path / "road", 12 * [(160, 90)] + 8 * [(90, 90)])
    asked = DataSettings(source=str(root), calibration_images=4)
    cache = tmp_path / "cache"
    wide = load_dataset(asked, LABEL_SOURCES, storage_px=InputSize(height_px=9, width_px=16), cache_folder=cache)
    notes = [text for text in wide.warnings if "centre crop" in text]
    # A square keeps 9/16 = 56 % in a frame of 16:9; the pictures of 16:9 lose nothing.
    assert notes == [
        "data road: 8 of 20 images are much wider or higher than height x width 9x16 (typical 90 x 90): the centre "
        "crop keeps 56 % of them; --set data.fit=pad or --set data.fit=stretch keeps all"
    ]
    square = load_dataset(asked, LABEL_SOURCES, storage_px=9, cache_folder=cache)
    assert "12 of 20 images are longer than 4:3 (typical 160 x 90): the centre crop keeps 56 %" in str(square.warnings)


def test_arrays_become_rectangles_too(tmp_path: Path) -> None:
    images = np.stack([gradient(48, 12)] * 40)
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(40) % 2)
    asked = DataSettings(source=str(tmp_path / "set.npz"), calibration_images=4, fit="stretch")
    data = load_dataset(asked, LABEL_SOURCES, storage_px=WIDE, cache_folder=tmp_path)
    assert (data.size, data.resolution_px) == (WIDE, 12)
    np.testing.assert_array_equal(data.val.images[0], resize_images(images[:1], WIDE, fit="stretch")[0])
