"""The places of calibration images lead back to the very images that calibrated."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scalesearch.data import LABEL_SOURCES, load_dataset
from scalesearch.data.calibration_images import calibration_indices
from scalesearch.errors import ConfigError
from scalesearch.values.settings import DataSettings


@pytest.fixture
def settings(tmp_path: Path) -> DataSettings:
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {"class_names": np.array(["a", "b", "c"])}
    for split, count in (("train", 90), ("val", 30)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % 3
    np.savez(tmp_path / "noise.npz", **arrays)
    return DataSettings(source=str(tmp_path / "noise.npz"), calibration_images=20)


@pytest.mark.parametrize("val_fraction", [0.0, 0.4], ids=["own val", "pooled"])
@pytest.mark.parametrize("count", [7, 12])
def test_each_place_holds_the_image_that_calibrated(settings: DataSettings, val_fraction: float, count: int) -> None:
    settings = dataclasses.replace(settings, val_fraction=val_fraction)
    data = load_dataset(settings, LABEL_SOURCES, storage_px=8)
    places = calibration_indices(settings, LABEL_SOURCES, storage_px=8, count=count, fingerprint=data.fingerprint)
    with np.load(settings.source) as stored:
        source = stored["train_images"]
        if val_fraction:
            source = np.concatenate([source, stored["val_images"]])
    assert len(set(places)) == count
    np.testing.assert_array_equal(source[list(places)], data.calibration.images[:count])


def test_other_images_are_not_taken_for_the_studys(settings: DataSettings) -> None:
    with pytest.raises(ConfigError, match=r"not those of the study any more: expected fingerprint 000000000000\.\.\."):
        calibration_indices(settings, LABEL_SOURCES, storage_px=8, count=5, fingerprint="0" * 64)


def test_data_that_are_gone_are_named(settings: DataSettings) -> None:
    Path(settings.source).unlink()
    with pytest.raises(ConfigError, match=r"noise\.npz"):
        calibration_indices(settings, LABEL_SOURCES, storage_px=8, count=5, fingerprint="0" * 64)
