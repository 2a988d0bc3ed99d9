"""Files of the image cache that are not what they should be, and what killed writers left."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scalesearch.data.cache import cached_arrays


def an_array_alone(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.zeros(9))


def other_arrays(path: Path) -> None:
    np.savez(path, x=np.zeros(3))


def of_other_images(path: Path) -> None:
    cached_arrays(path.parent, "other", lambda: {"x": np.ones(3, np.uint8)})
    (path.parent / "other.npz").replace(path)


def compressed_and_broken(path: Path) -> None:
    np.savez_compressed(path, x=np.arange(5000))
    content = bytearray(path.read_bytes())
    content[200:260] = bytes(60)
    path.write_bytes(content)


def unknown_compression(path: Path) -> None:
    content = path.read_bytes()
    place = content.index(b"PK\x01\x02") + 10
    path.write_bytes(content[:place] + b"\x63\x00" + content[place + 2 :])


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize(
    "harm",
    [an_array_alone, other_arrays, of_other_images, compressed_and_broken, unknown_compression, a_folder, cut_short],
)
def test_what_is_not_the_cache_of_these_images_is_made_anew_and_said(
    tmp_path: Path, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    made = {"x": np.arange(900, dtype=np.uint8)}
    cached_arrays(tmp_path, "mine", lambda: made)
    harm(tmp_path / "mine.npz")
    assert np.array_equal(cached_arrays(tmp_path, "mine", lambda: made)["x"], made["x"])
    assert "mine.npz" in caplog.text and "made anew" in caplog.text
    if harm is not a_folder:
        caplog.clear()
        cached_arrays(tmp_path, "mine", lambda: pytest.fail("it was just made"))
        assert not caplog.records


def test_what_a_killed_writer_left_goes_and_a_living_ones_stays(tmp_path: Path) -> None:
    for name in (".writing-dead.npz", ".writing-alive.npz", ".writing-young.npz"):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (1000, 1000) if "young" not in name else None)
    with (tmp_path / ".writing-alive.npz").open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        cached_arrays(tmp_path, "mine", lambda: {"x": np.zeros(3, np.uint8)})
    assert sorted(path.name for path in tmp_path.iterdir()) == [".writing-alive.npz", ".writing-young.npz", "mine.npz"]
