"""The synthetic signs: known boxes and masks, repeatable, kept on disk."""

import os
from pathlib import Path

import numpy as np
import pytest

from scalesearch.data import LABEL_SOURCES, load_dataset, signs
from scalesearch.data.cache import cached_arrays
from scalesearch.data.framing import PAD_GREY
from scalesearch.data.sign_faces import CLASS_NAMES
from scalesearch.data.sign_scenes import FORESHORTENING, PERSPECTIVE, SIGN_SIZES, draw_sign
from scalesearch.errors import ConfigError
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signs, "SPLIT_SIZES", (("train", 60), ("val", 40), ("test", 20)))


@pytest.mark.parametrize("class_name", CLASS_NAMES)
@pytest.mark.parametrize("image_px", [32, 64])
def test_box_and_mask_are_where_the_sign_is(class_name: str, image_px: int) -> None:
    sign = draw_sign(class_name, rng=np.random.default_rng(1), image_px=image_px)
    left, top, right, bottom = sign.box
    assert sign.image.shape == (image_px, image_px, 3)
    assert sign.mask.shape == (image_px, image_px)
    assert 0 <= left < right <= image_px
    assert 0 <= top < bottom <= image_px
    outside = sign.mask.copy()
    outside[top:bottom, left:right] = False
    assert not outside.any()
    assert all(
        edge.any() for edge in (sign.mask[top], sign.mask[bottom - 1], sign.mask[:, left], sign.mask[:, right - 1])
    )
    # A triangle fills half of its box, a square all of it.
    assert 0.35 < sign.mask[top:bottom, left:right].mean() <= 1
    # The smallest triangle, seen from the side: half of size x size x foreshortened width.
    smallest = SIGN_SIZES[0] ** 2 * (1 - FORESHORTENING) * (1 - PERSPECTIVE) ** 2 / 2
    assert 0.8 * smallest < sign.mask.mean() < SIGN_SIZES[1] ** 2


def test_the_mask_covers_the_red_of_a_stop_sign() -> None:
    sign = draw_sign("stop", rng=np.random.default_rng(3), image_px=64)
    redness = sign.image[..., 0].astype(int) - sign.image[..., 1:].max(axis=-1)
    assert redness[sign.mask].mean() > 30 + redness[~sign.mask].mean()


def test_equal_random_states_draw_equal_images() -> None:
    first, again, other = (draw_sign("stop", rng=np.random.default_rng(seed)).image for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.5


@pytest.mark.usefixtures("few")
def test_every_class_has_its_share_and_splits_differ(tmp_path: Path) -> None:
    data = load_dataset(DataSettings(calibration_images=20), LABEL_SOURCES, storage_px=64, cache_folder=tmp_path)
    assert data.class_names == CLASS_NAMES
    assert np.bincount(np.asarray(data.train.targets)).tolist() == [2] * 20
    assert np.bincount(np.asarray(data.val.targets)).tolist() == [2] * 20
    everything = np.concatenate([data.train.images, data.val.images, data.calibration.images, data.test.images])
    assert len({image.tobytes() for image in everything}) == 120


@pytest.mark.usefixtures("few")
def test_an_image_comes_from_its_own_seed(tmp_path: Path) -> None:
    data = load_dataset(DataSettings(seed=7), LABEL_SOURCES, storage_px=64, cache_folder=tmp_path)
    expected = draw_sign(CLASS_NAMES[11], rng=np.random.default_rng((7, 2, 11)), image_px=64).image
    np.testing.assert_array_equal(data.test.images[11], expected)
    assert (
        load_dataset(DataSettings(seed=8), LABEL_SOURCES, storage_px=64, cache_folder=tmp_path).fingerprint
        != data.fingerprint
    )


@pytest.mark.usefixtures("few")
def test_less_than_64_px_is_drawn_at_64_and_resized(tmp_path: Path) -> None:
    large, small = (
        load_dataset(DataSettings(), LABEL_SOURCES, storage_px=px, cache_folder=tmp_path) for px in (64, 24)
    )
    np.testing.assert_array_equal(large.at(24).val.images, small.val.images)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.usefixtures("few")
def test_signs_are_padded_into_rectangles_but_never_cut(tmp_path: Path) -> None:
    wide = InputSize(height_px=24, width_px=40)
    with pytest.raises(ConfigError, match=r"expected a square resolution_px, .* came 24x40 px\.\n.*data\.fit=pad"):
        load_dataset(DataSettings(), LABEL_SOURCES, storage_px=wide, cache_folder=tmp_path)
    padded = load_dataset(DataSettings(fit="pad"), LABEL_SOURCES, storage_px=wide, cache_folder=tmp_path)
    square = load_dataset(DataSettings(), LABEL_SOURCES, storage_px=24, cache_folder=tmp_path)
    images = padded.val.images[:]
    np.testing.assert_array_equal(images[:, :, 8:32], square.val.images[:])  # (40 - 24) // 2 = 8
    assert (images[:, :, :8] == PAD_GREY).all() and (images[:, :, 32:] == PAD_GREY).all()


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("damage", [b"", b"PK nonsense"])
def test_a_damaged_cache_is_made_anew(damage: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = load_dataset(DataSettings(), LABEL_SOURCES, storage_px=64, cache_folder=tmp_path)
    (kept,) = tmp_path.iterdir()
    kept.write_bytes(damage)
    assert (
        load_dataset(DataSettings(), LABEL_SOURCES, storage_px=64, cache_folder=tmp_path).fingerprint
        == first.fingerprint
    )
    assert "is damaged" in caplog.text
    assert kept.stat().st_size > 1000


@pytest.mark.usefixtures("few")
def test_a_flipped_pixel_in_the_cache_is_found(tmp_path: Path) -> None:
    first = load_dataset(DataSettings(), LABEL_SOURCES, storage_px=64, cache_folder=tmp_path)
    (kept,) = tmp_path.iterdir()
    content = bytearray(kept.read_bytes())
    content[len(content) // 2] ^= 0xFF
    kept.write_bytes(content)
    assert (
        load_dataset(DataSettings(), LABEL_SOURCES, storage_px=64, cache_folder=tmp_path).fingerprint
        == first.fingerprint
    )


def test_the_cache_drops_what_was_used_longest_ago(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scalesearch.data.cache.MAX_CACHE_BYTES", 2500)
    for age, name in ((3, "old"), (2, "used"), (1, "young")):
        cached_arrays(tmp_path, name, lambda: {"x": np.zeros(700, np.uint8)})
        os.utime(tmp_path / f"{name}.npz", (1000 - age, 1000 - age))
        if name == "used":
            cached_arrays(tmp_path, "old", dict)  # a hit: now "used" is the older one
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.npz", "young.npz"]
