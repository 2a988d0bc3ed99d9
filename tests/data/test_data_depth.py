"""Images of more than 8 bits: which window is found, on which images, and what is said of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scalesearch.data import LABEL_SOURCES, Dataset, load_dataset
from scalesearch.data.decode import decode_square
from scalesearch.errors import ConfigError
from scalesearch.values.settings import DataSettings, Window, WindowSetting

SIDE = 12


def picture(low: float, high: float, seed: int, kind: type = np.uint16) -> Any:
    """A picture whose values are spread evenly over the range, both ends in it, in random order."""
    values = np.linspace(low, high, SIDE * SIDE)
    return np.random.default_rng(seed).permutation(values).reshape(SIDE, SIDE).astype(kind)


def write(root: Path, low: float, high: float, *, split: str = "train", kind: type = np.uint16) -> Path:
    for label, name in enumerate("ab"):
        folder = root / split / name
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(6):
            suffix = ".png" if kind is np.uint16 else ".tif"
            Image.fromarray(picture(low, high, 10 * label + index, kind)).save(folder / f"{index}{suffix}")
    return root


def load(root: Path, **settings: Any) -> Dataset:
    asked = DataSettings(source=str(root), calibration_images=4, **settings)
    return load_dataset(asked, LABEL_SOURCES, storage_px=SIDE, cache_folder=root.parent / "cache")


def three_splits(root: Path, low: float, high: float, kind: type = np.uint16) -> Path:
    for split in ("train", "val", "test"):
        write(root, low, high, split=split, kind=kind)
    return root


def ends(data: Dataset) -> Window:
    assert not isinstance(data.window, str)
    return data.window


def notes(data: Dataset) -> str:
    """What is said of depth; that the same pictures stand in every split is told, too."""
    others = ("standard error", "accuracy will be too high", "look like images")
    return "\n".join(text for text in data.warnings if not any(other in text for other in others))


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    low: float
    high: float
    window: WindowSetting
    kind: type = np.uint16


CASES = (
    Case(name="10 bits", low=0, high=1000, window=(0, 1023)),
    Case(name="12 bits", low=30, high=4000, window=(0, 4095)),
    Case(name="14 bits", low=0, high=16383, window=(0, 16383)),
    Case(name="8 bits in 16", low=3, high=250, window=(0, 255)),
    Case(name="thermal", low=20000, high=22000, window=(20000, 22000)),
    Case(name="high and narrow", low=60000, high=61000, window=(60000, 61000)),
    Case(name="whole 16 bits", low=0, high=65535, window="full"),
    Case(name="most of 16 bits", low=5000, high=50000, window="full"),
    Case(name="Hounsfield", low=-1000, high=3000, window=(-1000, 3000), kind=np.int32),
    Case(name="32 bits", low=1_000_000, high=1_500_000, window=(1_000_000, 1_500_000), kind=np.int32),
    Case(name="unit floats", low=0.1, high=0.9, window="full", kind=np.float32),
    Case(name="faint floats", low=0, high=0.0625, window=(0, 0.0625), kind=np.float32),
    Case(name="floats of bytes", low=0, high=240, window=(0, 255), kind=np.float32),
    Case(name="signed floats", low=-2, high=2, window=(-2, 2), kind=np.float32),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_window_is_the_range_of_the_images_or_their_whole_bit_depth(case: Case, tmp_path: Path) -> None:
    data = load(three_splits(tmp_path / "set", case.low, case.high, case.kind))
    assert data.window == case.window
    full: Window = (0.0, 1.0) if case.kind is np.float32 else (0.0, 65535.0)
    low, high = full if isinstance(case.window, str) else case.window
    exact = 255 * (picture(case.low, case.high, 0, case.kind).astype(float) - low) / (high - low)
    np.testing.assert_allclose(data.val.images[:][0, ..., 1], exact.clip(0, 255), atol=0.5 + 1e-4)
    if isinstance(case.window, str):
        assert notes(data) == ""
    else:
        assert "found in training, data.window = [" in notes(data)


def test_the_line_names_values_and_window(tmp_path: Path) -> None:
    data = load(three_splits(tmp_path / "scan", 30, 4000))
    assert notes(data) == "data scan: 16-bit images: values 30..4000 found in training, data.window = [0, 4095]"


def test_only_training_images_decide(tmp_path: Path) -> None:
    root = write(tmp_path / "set", 1000, 1500)
    write(root, 1200, 9000, split="val")
    write(root, 0, 65535, split="test")
    data = load(root)
    assert data.window == (1000, 1500)
    assert data.test.images[:].min() == 0 and data.test.images[:].max() == 255  # cut off at the window's ends


def test_in_a_tree_that_is_split_here_only_its_training_part_decides(tmp_path: Path) -> None:
    root = tmp_path / "flat"
    for name in "ab":
        (root / name).mkdir(parents=True)
        for index in range(12):
            Image.fromarray(picture(1000, 1500, index + 50 * (name == "b"))).save(root / name / f"{index:02}.png")
    plain = load(root)
    held_back = {plain.val.images[0].tobytes(), plain.test.images[0].tobytes()}
    for seed, path in enumerate(sorted(root.rglob("*.png"))):  # images that are scored get values of their own
        if decode_square(path, SIDE, window=(1000, 1500)).tobytes() in held_back:
            Image.fromarray(picture(0, 40000, 900 + seed)).save(path)
    assert load(root).window == plain.window == (1000, 1500)


def test_dead_hot_and_blank_pixels_do_not_stretch_the_window(tmp_path: Path) -> None:
    root = three_splits(tmp_path / "set", 20000, 22000)
    for index, path in enumerate(sorted((root / "train").rglob("*.png"))):
        pixels = np.asarray(Image.open(path)).repeat(20, axis=0).repeat(20, axis=1).copy()
        pixels[index, 3], pixels[7, index] = 65535, 0  # two of 57,600
        Image.fromarray(pixels).save(path)
    Image.fromarray(np.zeros((SIDE, SIDE), np.uint16)).save(root / "train" / "a" / "blank.png")
    low, high = ends(load(root))
    assert 20000 <= low < 20020 and 21980 < high <= 22000


def test_a_border_of_one_value_far_away_is_no_part_of_the_picture(tmp_path: Path) -> None:
    root = three_splits(tmp_path / "set", 20000, 22000)
    for path in (root / "train").rglob("*.png"):
        pixels = np.asarray(Image.open(path)).copy()
        pixels[0] = pixels[-1] = 0
        Image.fromarray(pixels).save(path)
    low, high = ends(load(root))
    assert 20000 <= low < 20100 and 21900 < high <= 22000


def test_rare_hot_spots_are_kept(tmp_path: Path) -> None:
    root = three_splits(tmp_path / "set", 20000, 22000)
    path = root / "train" / "a" / "0.png"
    pixels = np.asarray(Image.open(path)).copy()
    pixels[0, 0] = 23500  # one of 1,440 values: a person far away, not a dead pixel
    Image.fromarray(pixels).save(path)
    assert load(root).window == (20000, 23500)


def test_a_window_of_the_users_is_taken_and_what_it_cuts_off_is_said(tmp_path: Path) -> None:
    data = load(three_splits(tmp_path / "set", 0, 4000), window=(0.0, 2000.0))
    assert data.window == (0.0, 2000.0)
    assert "data.window = [0, 2000], which cuts off 50 % of the values" in notes(data)


def test_full_reads_as_before_and_says_what_is_lost(tmp_path: Path) -> None:
    root = three_splits(tmp_path / "set", 0, 4000)
    data = load(root, window="full")
    exact = np.round(picture(0, 4000, 0) / 257)
    np.testing.assert_array_equal(data.val.images[:][0, ..., 0], exact)
    assert "read on the whole scale 0..65535: 17 grey levels are left; --set data.window=auto" in notes(data)


def test_8_bit_sets_say_nothing_and_a_window_for_them_is_said_to_be_idle(tmp_path: Path) -> None:
    root = three_splits(tmp_path / "set", 0, 255)
    for path in root.rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(path)).astype(np.uint8)).save(path)
    plain, windowed = load(root), load(root, window=(0.0, 100.0))
    assert (plain.window, notes(plain)) == ("auto", "")
    assert "data.window has no effect" in notes(windowed)
    assert plain.fingerprint == windowed.fingerprint


def test_mixed_depths_are_said(tmp_path: Path) -> None:
    root = three_splits(tmp_path / "set", 0, 4000)
    for seed, path in enumerate((root / "train" / "a").rglob("*.png")):
        Image.fromarray(picture(0, 255, 70 + seed, np.uint8)).save(path)
    data = load(root)
    assert data.window == (0, 4095)
    assert "30 of 36 images have more than 8 bits; the others keep their own scale" in notes(data)


def test_pixels_that_are_no_numbers_make_a_file_unreadable(tmp_path: Path) -> None:
    root = three_splits(tmp_path / "set", 5, 9, np.float32)
    broken = picture(5, 9, 1, np.float32)
    broken[3, 3] = np.nan
    Image.fromarray(broken).save(root / "train" / "a" / "0.tif")
    data = load(root, max_skipped_fraction=0.1)
    assert data.window == (5, 9)
    assert "skipped 1 of 36 image files: train/a/0.tif (pixels that are NaN or infinite)" in notes(data)


def test_colours_of_16_bits_that_pillow_halves_are_said_where_it_matters(tmp_path: Path) -> None:
    import struct
    import zlib

    def png(top: int, seed: int) -> bytes:
        """A 48-bit RGB PNG, which Pillow reads but does not write."""
        pixels = np.random.default_rng(seed).integers(0, top + 1, (8, 8, 3)).astype(">u2")
        rows = b"".join(b"\0" + row.tobytes() for row in pixels)
        parts = (
            (b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        )
        packed = (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in parts
        )
        return b"\x89PNG\r\n\x1a\n" + b"".join(packed)

    said = {}
    for top in (4095, 65535):
        root = three_splits(tmp_path / str(top), 0, 1)
        for seed, path in enumerate(root.rglob("*.png")):
            path.write_bytes(png(top, seed))
        said[top] = notes(load(root))
    assert "12 training images have 16 bits a colour" in said[4095] and "16 levels are left" in said[4095]
    assert said[65535] == ""


@pytest.mark.parametrize("kind", [np.uint16, np.int64, np.float64, np.float16])
def test_arrays_are_windowed_as_files_are(kind: type, tmp_path: Path) -> None:
    images = np.stack([picture(0, 1000, seed, kind) for seed in range(40)])
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(40) % 2)
    data = load(tmp_path / "set.npz")
    assert data.window == ((0, 1000) if np.issubdtype(kind, np.floating) else (0, 1023))
    assert "found in training" in notes(data)
    assert data.train.images[:].max() in (249, 255) and data.train.images[:].min() == 0


def test_wide_whole_numbers_that_are_bytes_are_those_bytes(tmp_path: Path) -> None:
    bytes_ = np.random.default_rng(0).integers(0, 256, (40, SIDE, SIDE, 3), np.uint8)
    found = []
    for kind in (np.uint8, np.int64):
        np.savez(tmp_path / "set.npz", images=bytes_.astype(kind), labels=np.arange(40) % 2)
        found.append(load(tmp_path / "set.npz").fingerprint)
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("change", "window", "message"),
    [
        (
            lambda images: images.astype(str),
            "auto",
            r"expected numbers \(uint8, other whole numbers or floats\), came <U",
        ),
        (lambda images: np.where(images > 9, np.nan, images), "auto", r"came pixels that are NaN.*\n.*nan_to_num"),
        (lambda images: images / 2, "full", r"floats in 0\.\.1, as data\.window=full has it.*\n.*data\.window=auto"),
    ],
    ids=["texts", "NaN", "floats beyond 1"],
)
def test_arrays_that_cannot_be_read_are_named(change: Any, window: Any, message: str, tmp_path: Path) -> None:
    images = change(np.stack([picture(0, 20, seed) for seed in range(40)]))
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(40) % 2)
    with pytest.raises(ConfigError, match=message):
        load(tmp_path / "set.npz", window=window)


def test_another_window_is_another_entry_of_the_cache(tmp_path: Path) -> None:
    root = three_splits(tmp_path / "set", 0, 4000)
    found = [load(root, window=window).fingerprint for window in ((0.0, 4095.0), (0.0, 8191.0), (0.0, 4095.0))]
    assert found[0] == found[2] != found[1]
    assert load(root).fingerprint == found[0]  # found by itself
