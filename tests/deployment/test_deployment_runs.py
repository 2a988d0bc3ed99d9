"""What all engines do alike: refuse what does not fit, make the same timed images, and read the host's clock."""

import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from scalesearch.deployment.backends.base import EngineOptions
from scalesearch.deployment.backends.runs import closed, ensure_counts, ensure_images, time_on_host, timed_images
from scalesearch.errors import StageFailed


@pytest.mark.parametrize("options", [EngineOptions(batch=0), EngineOptions(threads=0)])
def test_counts_below_one_are_refused(options: EngineOptions) -> None:
    with pytest.raises(StageFailed, match="batch and threads must be at least 1"):
        ensure_counts(options)


@pytest.mark.parametrize("images", [np.zeros((2, 3, 8, 8)), np.zeros((2, 3, 8, 9), dtype=np.float32)])
def test_images_of_another_type_or_shape_are_refused(images: NDArray[np.float32]) -> None:
    with pytest.raises(StageFailed, match=r"small\.onnx takes float32 images of shape \(N, 3x8x8\), got"):
        ensure_images(images, (3, 8, 8), Path("small.onnx"))
    ensure_images(np.zeros((0, 3, 8, 8), dtype=np.float32), (3, 8, 8), Path("small.onnx"))


def test_timed_images_are_the_same_every_time() -> None:
    images = timed_images(2, (3, 8, 8))
    assert images.shape == (2, 3, 8, 8) and images.dtype == np.float32
    np.testing.assert_array_equal(images, timed_images(2, (3, 8, 8)))


def test_every_run_is_timed_alone() -> None:
    called: list[int] = []

    def run() -> None:
        called.append(len(called))
        time.sleep(0.02)

    times_s = time_on_host(run, 3)
    assert called == [0, 1, 2]
    assert all(0.02 <= each < 2 for each in times_s)


def test_a_closed_engine_names_its_file() -> None:
    error = closed(Path("folder") / "small.onnx")
    assert (error.stage, error.reason) == ("run", "the engine of small.onnx is closed")
