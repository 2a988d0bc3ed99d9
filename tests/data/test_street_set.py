"""The generated scenes in splits: sizes, padding, and the cache."""

from pathlib import Path

import numpy as np
import pytest

from scalesearch.data import street_set
from scalesearch.data.street_scenes import draw_scene
from scalesearch.values.network_spec import InputSize

STORAGE = InputSize(height_px=32, width_px=64)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(street_set, "SPLIT_SIZES", (("train", 4), ("val", 3), ("test", 2)))


def test_drawn_sizes_are_wide_and_within_limits() -> None:
    assert street_set.drawn_size(STORAGE).sides == (96, 171)
    assert street_set.drawn_size(InputSize(height_px=128, width_px=224)).sides == (128, 228)
    assert street_set.drawn_size(InputSize.square(160)).sides == (160, 284)
    assert street_set.drawn_size(InputSize(height_px=720, width_px=1280)).sides == (180, 320)


@pytest.mark.usefixtures("few")
def test_splits_hold_the_scenes_of_their_streams(tmp_path: Path) -> None:
    splits = street_set.street_splits(5, STORAGE, tmp_path)
    assert {name: len(split.images) for name, split in splits.items()} == {"train": 4, "val": 3, "test": 2}
    scene = draw_scene(rng=np.random.default_rng((5, 1, 2)), size=street_set.drawn_size(STORAGE))
    val, number = splits["val"], len(scene.boxes)
    np.testing.assert_array_equal(val.images[2], scene.image)
    np.testing.assert_array_equal(val.masks[2], scene.mask)
    np.testing.assert_array_equal(val.boxes[2, :number], scene.boxes)
    np.testing.assert_array_equal(val.classes[2, :number], scene.classes)
    assert (val.classes[2, number:] == -1).all()
    assert not val.ignored[2, number:].any()


@pytest.mark.usefixtures("few")
def test_a_damaged_cache_is_drawn_again(tmp_path: Path) -> None:
    first = street_set.street_splits(5, STORAGE, tmp_path)["train"].images
    (file,) = tmp_path.glob("street-*.npz")
    file.write_bytes(b"no archive")
    np.testing.assert_array_equal(street_set.street_splits(5, STORAGE, tmp_path)["train"].images, first)
