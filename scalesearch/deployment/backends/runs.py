"""Code that all engines share around a run: check the images, make those for timing, read the host's clock."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scalesearch.deployment.backends.base import EngineOptions
from scalesearch.errors import StageFailed


def ensure_counts(options: EngineOptions) -> None:
    """Raise an error unless batch and threads are at least 1.

    Raises:
        StageFailed: One of them is less.
    """
    if options.batch < 1 or options.threads < 1:
        reason = f"batch and threads must be at least 1, got {options.batch} and {options.threads}"
        raise StageFailed(stage="compile", reason=reason)


def ensure_images(images: NDArray[np.float32], image_shape: tuple[int, ...], file: Path) -> None:
    """Raise an error unless the images are float32 of shape (N, *image_shape).

    Args:
        images: Images of shape (N, C, H, W).
        image_shape: The expected shape of one image, (C, H, W).
        file: The model's file, for the message.

    Raises:
        StageFailed: The images have another type or shape.
    """
    if images.dtype != "float32" or images.shape[1:] != image_shape:
        expected, came = "x".join(map(str, image_shape)), f"{images.dtype} of shape {images.shape}"
        reason = f"{file.name} takes float32 images of shape (N, {expected}), got {came}"
        raise StageFailed(stage="run", reason=reason)


def timed_images(batch: int, image_shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return normal random images (batch, *image_shape), the same for every model of this shape."""
    return np.random.default_rng(0).standard_normal((batch, *image_shape), dtype=np.float32)


def time_on_host(run: Callable[[], object], count: int) -> tuple[float, ...]:
    """Return the seconds of each of `count` calls, by the clock of this machine's CPU."""
    times_ns = []
    for _ in range(count):
        start_ns = time.perf_counter_ns()
        run()
        times_ns.append(time.perf_counter_ns() - start_ns)
    return tuple(time_ns / 1e9 for time_ns in times_ns)


def closed(file: Path) -> StageFailed:
    """Return the error of an engine that is used after it was closed."""
    return StageFailed(stage="run", reason=f"the engine of {file.name} is closed")
