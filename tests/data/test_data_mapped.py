"""Images on disk: the same pixels, fingerprint and batches as in memory, chosen by size, in little memory."""

import errno
import os
import subprocess
import sys
import zipfile
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scalesearch.data import LABEL_SOURCES, Dataset, ImageSplit, load_dataset
from scalesearch.data.calibration_images import calibration_indices
from scalesearch.data.dataset import make_dataset
from scalesearch.data.mapped import MappedImages, MappedPlanes, planes
from scalesearch.data.targets import Labels
from scalesearch.errors import ConfigError
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings, MemorySetting

SPLITS = ("train", "val", "calibration", "test")
SETTINGS = DataSettings(val_fraction=0.3, calibration_images=5, max_skipped_fraction=0.5)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root, random = tmp_path / "fruit", np.random.default_rng(0)
    for name, count in (("train/apple", 14), ("train/pear", 15), ("val/apple", 3), ("val/pear", 3)):
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = random.integers(0, 256, (40, 44, 3), np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index:03}.png")
    (root / "train" / "apple" / "005.png").write_text("no image")
    return root


def load(
    root: Path, memory: MemorySetting, *, channels: int = 3, cache: str = "cache", storage_px: int | InputSize = 32
) -> Dataset:
    settings = replace(SETTINGS, source=str(root), memory=memory)
    return load_dataset(
        settings, LABEL_SOURCES, storage_px=storage_px, channels=channels, cache_folder=root.parent / cache
    )


def available(monkeypatch: pytest.MonkeyPatch, size_bytes: int) -> None:
    monkeypatch.setattr("scalesearch.data.memory.available_bytes", lambda: size_bytes)


def free_disk(monkeypatch: pytest.MonkeyPatch, size_bytes: int) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("scalesearch.data.memory.shutil.disk_usage", lambda _: usage(10**9, 0, size_bytes))


def kept_file(root: Path) -> Path:
    (path,) = (root.parent / "cache").glob("folder-*.npz")
    return path


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("caches", [("cache", "cache"), ("cache", "other")], ids=["one file", "two files"])
def test_both_ways_give_equal_images_at_every_size(tree: Path, channels: int, caches: tuple[str, str]) -> None:
    disk = load(tree, "disk", channels=channels, cache=caches[0])
    ram = load(tree, "ram", channels=channels, cache=caches[1])
    assert disk.on_disk and not ram.on_disk
    assert (disk.fingerprint, disk.mean, disk.std, disk.class_names) == (
        ram.fingerprint, ram.mean, ram.std, ram.class_names
    )  # fmt: skip
    assert disk.warnings == ram.warnings and any("skipped 1 of 35" in text for text in disk.warnings)
    for size_px in (32, 31, 16, 5):
        for name in SPLITS:
            mapped, plain = (getattr(data.at(size_px), name) for data in (disk, ram))
            assert isinstance(mapped.images, MappedImages) and isinstance(plain.images, np.ndarray)
            np.testing.assert_array_equal(mapped.images[:], plain.images)
            np.testing.assert_array_equal(np.asarray(mapped.targets), np.asarray(plain.targets))
            assert (mapped.images.shape, mapped.images.nbytes) == (plain.images.shape, plain.images.nbytes)
            assert mapped.images[:].flags.writeable
    assert (disk.size_bytes, disk.at(16).size_bytes) == (0, 0)


def test_rectangles_are_equal_in_both_ways_too(tree: Path) -> None:
    stored = InputSize(height_px=20, width_px=32)
    disk, ram = (load(tree, memory, storage_px=stored) for memory in ("disk", "ram"))
    assert disk.on_disk and (disk.size, disk.fingerprint) == (stored, ram.fingerprint)
    for sides in ((20, 32), (20, 16), (10, 32), (7, 11)):
        size = InputSize(height_px=sides[0], width_px=sides[1])
        mapped, plain = (data.at(size).train.images for data in (disk, ram))
        assert isinstance(mapped, MappedImages) and mapped.shape[1:] == (*sides, 3)
        np.testing.assert_array_equal(mapped[:], plain)
    kept = len(list((tree.parent / "cache").glob("folder-*.npz")))
    load(tree, "ram", storage_px=InputSize(height_px=32, width_px=20))
    assert len(list((tree.parent / "cache").glob("folder-*.npz"))) == kept + 1  # the other way round is another file


def test_the_calibration_images_are_found_again_in_both_ways(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tree.parent / "cache"))
    ways: tuple[MemorySetting, MemorySetting] = ("disk", "ram")
    found = [
        calibration_indices(
            replace(SETTINGS, source=str(tree), memory=memory),
            LABEL_SOURCES,
            storage_px=32,
            count=4,
            fingerprint=load(tree, "ram").fingerprint,
        )
        for memory in ways
    ]
    assert found[0] == found[1] and len(found[0]) == 4


def test_every_index_gives_what_an_array_gives(tree: Path) -> None:
    images = load(tree, "disk").at(16).train.images
    assert isinstance(images, MappedImages)
    whole = np.asarray(images)
    assert whole.dtype == np.uint8
    mask = np.arange(len(images)) % 3 == 0
    for where in (slice(2, 9, 3), slice(None, None, -1), mask, np.asarray([4, 0, 4]), np.asarray([], np.int64)):
        np.testing.assert_array_equal(images[where], whole[where])
    np.testing.assert_array_equal(images[-1], whole[-1])
    assert len(list(images)) == len(whole)
    with pytest.raises(IndexError):
        images[len(images)]
    np.testing.assert_array_equal(images.part(mask)[:], whole[mask])
    np.testing.assert_array_equal(images.part(mask).joined(images)[:3], whole[mask][:3])
    with pytest.raises(ValueError, match="cannot be joined"):
        images.joined(images.at(8))


def test_a_source_of_planes_is_the_tensor_batch_by_batch(tree: Path) -> None:
    images = load(tree, "disk").at(16).train.images
    source, whole = planes(images), planes(images[:])
    assert isinstance(source, MappedPlanes) and isinstance(whole, torch.Tensor)
    assert (len(source), source.shape) == (len(whole), tuple(whole.shape))
    chosen = torch.tensor([5, 0, 5])
    torch.testing.assert_close(source.take(chosen), whole[chosen], rtol=0, atol=0)


@pytest.mark.parametrize(("share", "on_disk"), [(3.9, True), (4.1, False)])
def test_more_than_a_quarter_of_the_memory_goes_to_disk(
    tree: Path, monkeypatch: pytest.MonkeyPatch, share: float, on_disk: bool
) -> None:
    available(monkeypatch, int(share * 35 * 32 * 32 * 3))
    data = load(tree, "auto")
    assert data.on_disk == on_disk
    assert len(data.notes) == on_disk
    if on_disk:
        assert "35 images at 32 px take 0.0 GB, more than a quarter of the memory available" in data.notes[0]
        assert str(kept_file(tree)) in data.notes[0] and "data.memory=ram" in data.notes[0]


def test_a_small_size_of_a_large_set_is_held_in_memory_unless_forced(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    available(monkeypatch, 3 * 35 * 32 * 32 * 3)
    data = load(tree, "auto")
    assert data.on_disk and data.at(30).on_disk and not data.at(16).on_disk
    assert data.at(16) is data.at(16)
    assert data.at(16).size_bytes == 34 * 16 * 16 * 3
    np.testing.assert_array_equal(data.at(16).val.images, load(tree, "ram", cache="other").at(16).val.images)
    assert load(tree, "disk").at(16).on_disk


def test_a_forced_way_is_taken_whatever_the_size(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(tree, "disk").on_disk
    assert "as data.memory says" in load(tree, "disk").notes[0]
    available(monkeypatch, 3 * 35 * 32 * 32 * 3)
    assert not load(tree, "ram").on_disk
    available(monkeypatch, 35 * 32 * 32 * 3)
    with pytest.raises(ConfigError, match=r"(?s)expected at most half.*--set data\.memory=auto"):
        load(tree, "ram")


def test_an_unknown_way_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data.memory: expected auto or ram or disk, came 'tape'"):
        load_dataset(DataSettings(memory="tape"), LABEL_SOURCES, storage_px=32)  # type: ignore[arg-type]


@pytest.mark.parametrize("memory", ["auto", "disk"])
def test_a_disk_without_room_is_said_before_anything_is_written(
    tree: Path, monkeypatch: pytest.MonkeyPatch, memory: MemorySetting
) -> None:
    available(monkeypatch, 35 * 32 * 32 * 3)
    free_disk(monkeypatch, 100)
    with pytest.raises(ConfigError) as caught:
        load(tree, memory)
    expected, came, way_out = str(caught.value).splitlines()
    assert "expected 0.00 GB of free disk in" in expected
    assert came == "Came: 0.00 GB free."
    assert "Make room" in way_out and "XDG_CACHE_HOME" in way_out
    assert not list((tree.parent / "cache").glob("folder-*"))


def test_half_of_the_memory_serves_where_the_disk_has_no_room(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    available(monkeypatch, 3 * 35 * 32 * 32 * 3)
    free_disk(monkeypatch, 100)
    assert not load(tree, "auto").on_disk


def test_a_file_that_is_there_needs_no_room(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(tree, "disk")
    free_disk(monkeypatch, 100)
    assert load(tree, "disk").fingerprint == first.fingerprint


def test_a_disk_that_becomes_full_while_it_is_written(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("zipfile._ZipWriteFile.write", full)
    monkeypatch.setattr("scalesearch.data.cache.npy.write_array_header_1_0", lambda *_: None)
    with pytest.raises(ConfigError) as caught:
        load(tree, "disk")
    expected, came, way_out = str(caught.value).splitlines()
    assert "expected to write its images to" in expected
    assert came == "Came: No space left on device."
    assert "Make room" in way_out
    assert [path.name for path in (tree.parent / "cache").iterdir() if "copies" not in path.name] == []


@pytest.mark.parametrize("damage", ["flipped", "short", "empty", "compressed", "other"])
def test_a_damaged_file_is_made_anew(tree: Path, damage: str) -> None:
    first = load(tree, "disk")
    path = kept_file(tree)
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    elif damage in ("short", "empty"):
        content = content[: len(content) // 2 if damage == "short" else 0]
    path.unlink()  # what is mapped stays as it is
    path.write_bytes(content)
    if damage == "compressed":
        with np.load(path) as arrays:
            np.savez_compressed(path, allow_pickle=False, **arrays)
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = path.stem.encode()
    if damage == "other":
        np.savez(path, images=np.zeros((35, 32, 32, 3), np.uint8))
    again = load(tree, "disk")
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.train.images[:], first.train.images[:])
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None


def test_generated_images_say_that_they_stay_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalesearch.data.signs.SPLIT_SIZES", (("train", 100), ("val", 50), ("test", 50)))
    data = load_dataset(DataSettings(memory="disk"), LABEL_SOURCES, storage_px=8, cache_folder=tmp_path)
    assert not data.on_disk
    (note,) = data.notes
    assert note.startswith("data signs: is held in memory all the same: only the images of a folder, or of an .npz")


def test_statistics_and_fingerprint_of_many_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(1).integers(0, 256, (20, 8, 8, 3), np.uint8)
    split = ImageSplit(images=images, targets=Labels(np.arange(20) % 2))
    whole = make_dataset(name="made", class_names=("a", "b"), splits=(split,) * 4)
    monkeypatch.setattr("scalesearch.data.resize.CHUNK_BYTES", 3 * 8 * 8 * 3)
    parts = make_dataset(name="made", class_names=("a", "b"), splits=(split,) * 4)
    assert (whole.fingerprint, whole.mean, whole.std) == (parts.fingerprint, parts.mean, parts.std)


PEAK = """
import sys
from pathlib import Path
import torch
from scalesearch.data import LABEL_SOURCES, load_dataset
from scalesearch.data.mapped import planes
from scalesearch.values.settings import DataSettings

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()  # getrusage counts the parent's, too
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

torch.zeros(1, 3, 8, 8).float()
before = peak()
settings = DataSettings(source=sys.argv[1], memory=sys.argv[2], fit="stretch")
data = load_dataset(settings, LABEL_SOURCES, storage_px=512,
    cache_folder=Path(sys.argv[3])).at(256)
source = planes(data.train.images)
for start in range(0, 224, 32):
    source[start : start + 32] if isinstance(source, torch.Tensor) else source.take(torch.arange(start, start + 32))
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the peak is told by /proc")
def test_the_peak_of_memory_stays_far_below_the_size_of_the_set(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for index in range(300):
            color = (index % 256, 100 * (index // 256), 200 * (name == "a"))
            Image.new("RGB", (16, 16), color).save(tmp_path / "set" / name / f"{index}.png")
    size_bytes = 600 * 512 * 512 * 3
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-c", PEAK, str(tmp_path / "set"), memory, str(tmp_path / "cache")],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for memory in ("disk", "ram")
    ]
    assert peaks[0] < 0.4 * size_bytes
    assert peaks[1] > size_bytes
