"""NumPy archives: both layouts, and every wrong array named."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalesearch.data import LABEL_SOURCES, Dataset, load_dataset
from scalesearch.errors import ConfigError
from scalesearch.values.settings import DataSettings


def images(count: int, *shape: int) -> Any:
    return np.random.default_rng(count).integers(0, 256, (count, *(shape or (8, 8, 3))), np.uint8)


def labels(count: int) -> Any:
    return np.arange(count) % 3


def load(path: Path, **settings: float) -> Dataset:
    return load_dataset(
        DataSettings(source=str(path), **settings),  # type: ignore[arg-type]
        LABEL_SOURCES,
        storage_px=8,
        cache_folder=path.parent,
    )


def save(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "set.npz", **arrays)
    return folder / "set.npz"


def test_split_arrays_are_kept(tmp_path: Path) -> None:
    parts = {name: images(count) for name, count in (("train", 30), ("val", 9), ("test", 6))}
    arrays = {f"{name}_images": part for name, part in parts.items()}
    arrays |= {f"{name}_labels": labels(len(part)) for name, part in parts.items()}
    data = load(save(tmp_path, class_names=np.asarray(["x", "y", "z"]), **arrays), calibration_images=6)
    assert (len(data.train), len(data.calibration)) == (24, 6)
    assert data.class_names == ("x", "y", "z")
    np.testing.assert_array_equal(data.val.images, parts["val"])
    np.testing.assert_array_equal(np.asarray(data.test.targets), labels(6))


def test_one_array_is_split(tmp_path: Path) -> None:
    data = load(save(tmp_path, images=images(60), labels=labels(60)), calibration_images=6)
    assert (len(data.train), len(data.val), len(data.calibration), len(data.test)) == (30, 12, 6, 12)
    assert data.class_names == ("0", "1", "2")


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 1)])
def test_grey_becomes_three_equal_channels(shape: tuple[int, ...], tmp_path: Path) -> None:
    data = load(save(tmp_path, images=images(60, *shape), labels=labels(60)[:, None]))
    assert data.train.images.shape[1:] == (8, 8, 3)
    assert (data.train.images[:] == data.train.images[:][..., :1]).all()
    assert data.train.images[:].std() > 50


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": images(6), "y": labels(6)}, r"expected the key train_images, came x, y\."),
        ({"images": images(6)}, r"expected the key labels, came images\."),
        ({"images": images(6) * 1j, "labels": labels(6)}, r"images: expected numbers \(uint8, .* came complex128\."),
        ({"images": images(6, 3, 8, 8), "labels": labels(6)}, r"came \(6, 3, 8, 8\)\. Bring the channels to the end"),
        ({"images": images(6, 8, 8, 4), "labels": labels(6)}, r"\(x 1 or 3\), came \(6, 8, 8, 4\)\.$"),
        ({"images": images(6, 0, 8, 3), "labels": labels(6)}, r"came \(6, 0, 8, 3\)"),
        ({"images": images(6), "labels": labels(5)}, r"as many images as labels, came 6 and 5"),
        ({"images": images(6), "labels": labels(6) - 1}, r"expected classes 0, 1, 2, \.\.\., came -1"),
        ({"images": images(6), "labels": labels(6) / 1}, r"one whole class number per image, came float64 \(6,\)"),
        ({"images": images(6), "labels": np.eye(6, dtype=int)}, r"came int64 \(6, 6\)\. One-hot rows"),
        ({"images": images(6), "labels": np.eye(6) > 0}, r"came bool \(6, 6\)\. One-hot rows"),
        ({"images": images(6), "labels": 1 - np.eye(6)}, r"Several classes per image \(6 of 6 rows .*\nOne class per"),
        (
            {"images": images(6), "labels": np.zeros((6, 3), int)},
            r"Several classes per image \(6 of 6 rows hold no one",
        ),
        ({"images": images(6), "labels": np.full((6, 3), 0.2)}, r"Rows of scores or probabilities are no labels"),
        ({"images": images(6), "labels": labels(6), "train_images": images(6)}, r"came both: images, labels, train_im"),
        ({"images": images(6), "labels": labels(6), "class_names": ["a", "b", "a"]}, r"came 1 twice or more: a\."),
        (
            {"images": images(6), "labels": labels(6), "class_names": ["\u00e9", "b", "e\u0301"]},
            r"came 1 twice or more",
        ),
        ({"images": images(6), "labels": labels(6) * 9**9}, r"numbered 0, 1, 2, .* came 774840978"),
        ({"images": images(6), "labels": labels(6), "class_names": ["a", "b"]}, r"labels below 2 .* came 2"),
        ({"images": images(6), "labels": labels(6) * 2}, r"came none of 2 classes: 1, 3"),
        (
            {"images": np.asarray([None] * 6), "labels": labels(6)},
            r"a whole .npz file of plain arrays, came: the array 'images.npy' holds object",
        ),
    ],
)
def test_wrong_arrays_are_named(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        load(save(tmp_path, **arrays))


@pytest.mark.parametrize("keep", [0, 100, -30])
def test_damaged_files_are_named(keep: int, tmp_path: Path) -> None:
    path = save(tmp_path, images=images(60), labels=labels(60))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ConfigError, match=r"set.npz: expected a whole .npz file"):
        load(path)


def test_flipped_bytes_are_found(tmp_path: Path) -> None:
    path = save(tmp_path, images=images(60), labels=labels(60))
    content = bytearray(path.read_bytes())
    content[4000] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"Bad CRC-32"):
        load(path)


def test_an_archive_that_unpacks_beyond_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "set.npz", images=np.zeros((2000, 8, 8, 3), np.uint8), labels=labels(2000))
    monkeypatch.setattr("scalesearch.data.npz_file.available_bytes", lambda: 100_000)
    with pytest.raises(ConfigError, match=r"unpacks to 0.0 GB, expected at most half"):
        load(tmp_path / "set.npz")


def _with_header(tmp_path: Path, header: str, content: bytes = b"") -> Path:
    """An archive whose `images` have that header, whatever follows it."""
    path = save(tmp_path, labels=labels(6))
    text = header.encode().ljust(117) + b"\n"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + content)
    return path


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 6, 6, 3), }",
        "{'descr': '|u1', 'fortran_order': False, 'shape': (-6, 6, 6, 3), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (6,), }",
        "{'descr': '|V0', 'fortran_order': False, 'shape': (99999999999,), }",
        "{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (1,), }",
        "{" * 100,
        "'''",
    ],
)
def test_headers_that_promise_what_is_not_there_are_refused_before_memory_is_taken(header: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a whole .npz file of plain arrays, came: the (array|file)"):
        load(_with_header(tmp_path, header, b"\0" * 4))


@pytest.mark.parametrize("key", ["images", "labels"])
def test_single_values_are_named(key: str, tmp_path: Path) -> None:
    arrays = {"images": images(6), "labels": labels(6)} | {key: np.uint8(3)}
    with pytest.raises(ConfigError, match=f"{key} is a single value, expected one entry per image"):
        load(save(tmp_path, **arrays))


def test_a_damaged_stream_of_a_compressed_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez_compressed(path, images=images(60), labels=labels(60))
    content = bytearray(path.read_bytes())
    for place in range(200, 400):
        content[place] ^= 0x5A
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="the file is damaged"):
        load(path)
