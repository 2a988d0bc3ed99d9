"""Images that are no squares: cropped, stretched or padded, and counted where much is lost."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from scalesearch.data import Dataset, load_dataset
from scalesearch.data.decode import to_square
from scalesearch.data.framing import PAD_GREY, padded_size
from scalesearch.data.resize import resize_images
from scalesearch.values.input_size import InputSize
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
    return load_dataset(asked, storage_px=8, cache_folder=source.parent / "cache")


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
    assert len(set(first.values())) == 3
    assert {fit: load(root, fit=fit).fingerprint for fit in get_args(Fit)} == first
