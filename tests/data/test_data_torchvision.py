"""Torchvision's sets: the real CIFAR-10 class on a folder made here, and what is said when it cannot be had."""

import hashlib
import pickle
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest

from scalesearch.data import LABEL_SOURCES, load_dataset, torchvision_sets
from scalesearch.errors import ConfigError, MissingBackendError
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings

torchvision = pytest.importorskip("torchvision")

CIFAR_NAMES = ["plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the download leaves it, with 20 images per batch file."""
    base = tmp_path / "downloads" / "cifar-10-batches-py"
    base.mkdir(parents=True)

    def write(name: str, content: object) -> list[str]:
        (base / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((base / name).read_bytes()).hexdigest()]

    def batch(seed: int) -> dict[str, Any]:
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 3072), np.uint8)
        return {"data": pixels, "labels": [index % 10 for index in range(20)]}

    kind = torchvision.datasets.CIFAR10
    train = [write(f"data_batch_{number}", batch(number)) for number in range(1, 6)]
    monkeypatch.setattr(kind, "train_list", train)
    monkeypatch.setattr(kind, "test_list", [write("test_batch", batch(6))])
    name, md5 = write("batches.meta", {"label_names": CIFAR_NAMES})
    monkeypatch.setattr(kind, "meta", {"filename": name, "key": "label_names", "md5": md5})
    return tmp_path


@pytest.mark.parametrize("name", ["cifar10", "CIFAR10"])
def test_cifar10_is_read_by_torchvision_and_kept(name: str, cifar10: Path) -> None:
    settings = DataSettings(source=name, download_folder=str(cifar10 / "downloads"), calibration_images=10)
    data = load_dataset(settings, LABEL_SOURCES, storage_px=32, cache_folder=cifar10 / "cache")
    assert data.name == "cifar10"
    assert data.class_names == tuple(CIFAR_NAMES)
    assert (len(data.train), len(data.val), len(data.calibration), len(data.test)) == (70, 20, 10, 20)
    stored = pickle.loads((cifar10 / "downloads" / "cifar-10-batches-py" / "test_batch").read_bytes())
    expected = stored["data"].reshape(20, 3, 32, 32).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(data.test.images, expected)
    assert np.asarray(data.test.targets).tolist() == stored["labels"]
    (cifar10 / "downloads").rename(cifar10 / "gone")  # the second time it comes from the cache
    assert (
        load_dataset(settings, LABEL_SOURCES, storage_px=32, cache_folder=cifar10 / "cache").fingerprint
        == data.fingerprint
    )


def test_a_set_becomes_rectangles_and_is_kept_apart_from_its_squares(cifar10: Path) -> None:
    settings = DataSettings(source="cifar10", download_folder=str(cifar10 / "downloads"), calibration_images=10)
    wide = InputSize(height_px=16, width_px=32)
    data = load_dataset(settings, LABEL_SOURCES, storage_px=wide, cache_folder=cifar10 / "cache")
    whole = load_dataset(settings, LABEL_SOURCES, storage_px=32, cache_folder=cifar10 / "cache")
    # The middle 16 of 32 rows, in which nothing is resized.
    np.testing.assert_array_equal(data.test.images, whole.test.images[:][:, 8:24])
    assert any("keeps 50 % of them" in text for text in data.warnings)
    (cifar10 / "downloads").rename(cifar10 / "gone")  # the second time it comes from the cache
    assert (
        load_dataset(settings, LABEL_SOURCES, storage_px=wide, cache_folder=cifar10 / "cache").fingerprint
        == data.fingerprint
    )


@pytest.mark.parametrize("name", list(torchvision_sets.SETS))
def test_every_set_is_a_class_of_torchvision_that_takes_these_arguments(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nothing is there and nothing can be fetched: each class must get as far as its download."""

    def refuse(*_: object, **__: object) -> None:
        msg = "no network here"
        raise URLError(msg)

    kind = torchvision_sets.SETS[name]
    module = sys.modules[getattr(torchvision.datasets, kind.class_name).__module__]
    for loader in ("download_and_extract_archive", "download_url"):
        if hasattr(module, loader):
            monkeypatch.setattr(module, loader, refuse)
    for arguments in (kind.train, kind.val, kind.test):
        if arguments is not None:
            with pytest.raises(ConfigError, match=r"(no network here|Error downloading)") as caught:
                torchvision_sets._open(name, kind, arguments, tmp_path)
            assert str(caught.value).count("\n") <= 2
            assert f"data {name}: expected torchvision to download it" in str(caught.value)


def test_sets_without_names_are_numbered_and_notes_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fake(root: str, *, split: str, download: bool) -> Any:
        assert download
        transform = None
        made = torchvision.datasets.FakeData(60 if split == "train" else 12, (3, 10, 14), 3, transform)
        return [(made[index][0], index % 3) for index in range(len(made))]

    monkeypatch.setattr(torchvision.datasets, "GTSRB", fake)
    data = load_dataset(DataSettings(source="gtsrb"), LABEL_SOURCES, storage_px=8, cache_folder=tmp_path)
    assert data.class_names == ("0", "1", "2")
    assert len(data.test) == 12
    assert "30 frames of each physical sign" in data.warnings[0]


def test_without_torchvision_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingBackendError, match=r"pip install 'scalesearch\[datasets\]'") as caught:
        load_dataset(DataSettings(source="mnist"), LABEL_SOURCES, storage_px=8, cache_folder=tmp_path)
    assert str(caught.value).count("\n") == 2
