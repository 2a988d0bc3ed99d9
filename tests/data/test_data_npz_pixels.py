"""Images of an .npz file on disk: the same bytes as in memory, made part by part, from compressed files too."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from scalesearch.data import LABEL_SOURCES, Dataset, load_dataset
from scalesearch.data.npz_file import read_headers, read_rows
from scalesearch.errors import ConfigError
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings, MemorySetting

SPLITS = ("train", "val", "calibration", "test")
SETTINGS = DataSettings(val_fraction=0.3, calibration_images=6)
Save = Callable[..., None]


def whole(dtype: str, *, shape: tuple[int, ...] = (10, 12, 3), seed: int = 0) -> Any:
    random = np.random.default_rng(seed)
    images = random.integers(0, 200, (60, *shape)).astype(dtype)
    return {"images": images * 5 if dtype == "uint16" else images, "labels": np.arange(60) % 3}


def split() -> Any:
    parts = {name: whole("uint8", seed=seed) for seed, name in enumerate(("train", "val", "test"))}
    arrays = {f"{name}_{key}": array for name, part in parts.items() for key, array in part.items()}
    return {**arrays, "class_names": np.asarray(["x", "y", "z"])}


def load(path: Path, memory: MemorySetting, settings: DataSettings = SETTINGS) -> Dataset:
    settings = replace(settings, source=str(path), memory=memory)
    size = InputSize(height_px=8, width_px=8)
    return load_dataset(settings, LABEL_SOURCES, storage_px=size, cache_folder=path.parent / "cache")


def available(monkeypatch: pytest.MonkeyPatch, size_bytes: int) -> None:
    for place in ("memory", "npz_file", "npz_pixels"):
        monkeypatch.setattr(f"scalesearch.data.{place}.available_bytes", lambda: size_bytes)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize(
    "arrays",
    [whole("uint8"), whole("uint8", shape=(10, 12)), whole("uint16"), whole("float32"), split()],
    ids=["bytes", "grey", "deep", "float", "split"],
)
@pytest.mark.parametrize("rows", [7, 256])
def test_the_images_are_the_same_bytes_as_in_memory(
    save: Save, arrays: dict[str, NDArray[Any]], rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalesearch.data.npz_pixels._CHUNK_IMAGES", rows)
    save(tmp_path / "set.npz", **arrays)
    plain = load(tmp_path / "set.npz", "ram")
    for mapped in (load(tmp_path / "set.npz", "disk"), load(tmp_path / "set.npz", "disk")):  # made, then found
        assert mapped.on_disk and not plain.on_disk
        assert (mapped.fingerprint, mapped.mean, mapped.std) == (plain.fingerprint, plain.mean, plain.std)
        assert (mapped.class_names, mapped.window) == (plain.class_names, plain.window)
        assert mapped.warnings == plain.warnings
        for name in SPLITS:
            one, other = getattr(mapped, name), getattr(plain, name)
            assert one.images[:].tobytes() == other.images.tobytes()
            assert np.asarray(one.targets).tobytes() == np.asarray(other.targets).tobytes()
            assert one.facts.samples.tobytes() == other.facts.samples.tobytes()
            assert getattr(mapped.at(4), name).images[:].tobytes() == getattr(plain.at(4), name).images.tobytes()


def test_a_file_larger_than_memory_goes_to_disk_and_is_refused_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "set.npz", **whole("uint8", shape=(40, 40, 3)))
    plain = load(tmp_path / "set.npz", "auto")
    assert not plain.on_disk
    # The 60 stored images take 11.5 kB, less than a quarter of this; the array that they come from takes 288 kB.
    available(monkeypatch, 400_000)
    mapped = load(tmp_path / "set.npz", "auto")
    assert mapped.on_disk and mapped.fingerprint == plain.fingerprint
    assert "its arrays take more than half of the memory available, so its images are read from" in mapped.notes[0]
    with pytest.raises(ConfigError, match=r"unpacks to 0.0 GB, expected at most half"):
        load(tmp_path / "set.npz", "ram")


def test_arrays_in_fortran_order_stay_in_memory(tmp_path: Path) -> None:
    arrays = whole("uint8")
    np.savez(tmp_path / "set.npz", images=np.asfortranarray(arrays["images"]), labels=arrays["labels"])
    np.savez(tmp_path / "plain.npz", **arrays)
    data = load(tmp_path / "set.npz", "disk")
    assert not data.on_disk and any("Fortran order" in note for note in data.notes)
    assert data.fingerprint == load(tmp_path / "plain.npz", "disk").fingerprint


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_damage_is_found_and_leaves_no_file(save: Save, tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    save(path, **whole("uint8"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"set.npz: expected a whole .npz file"):
        load(path, "disk")
    assert not list((tmp_path / "cache").glob("*"))


def test_wrong_images_are_named_before_they_are_kept(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", images=np.zeros((60, 3, 9, 9), np.uint8), labels=np.arange(60) % 3)
    with pytest.raises(ConfigError, match=r"expected number x height x width .* Bring the channels to the end"):
        load(tmp_path / "set.npz", "disk")
    assert not list((tmp_path / "cache").glob("*"))


def test_another_file_of_the_same_name_is_read_anew(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", **whole("uint8"))
    first = load(tmp_path / "set.npz", "disk")
    np.savez(tmp_path / "set.npz", **whole("uint8", seed=5), more=np.zeros(3))
    assert load(tmp_path / "set.npz", "disk").fingerprint != first.fingerprint


def test_rows_are_those_of_the_array(tmp_path: Path) -> None:
    array = np.arange(7 * 6, dtype=np.int16).reshape(7, 2, 3)
    np.savez_compressed(tmp_path / "a.npz", a=array, b=np.float32(1))
    headers = read_headers(tmp_path / "a.npz")
    assert (headers["a"].shape, headers["a"].size_bytes) == ((7, 2, 3), array.nbytes)
    assert headers["a"].dtype == array.dtype
    assert headers["b"].shape == ()
    parts = list(read_rows(tmp_path / "a.npz", "a", 3))
    assert [len(part) for part in parts] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(parts), array)
