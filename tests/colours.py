"""A data set that is learnt in a few steps (16 px, three classes, told apart by their mean colour), and its space."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_COUNTS = {"train": 160, "val": 90, "test": 60}


def colour_images(count: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (count, 16, 16, 3) and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    images = rng.integers(0, 120, (count, 16, 16, 3))
    images[np.arange(count), :, :, labels] += 90
    return images.clip(0, 255).astype(np.uint8), labels.astype(np.int64)


def colour_file(path: Path) -> Path:
    """All three splits as an .npz file."""
    splits: dict[str, Any] = {}
    for seed, (name, count) in enumerate(_COUNTS.items()):
        splits[f"{name}_images"], splits[f"{name}_labels"] = colour_images(count, seed)
    np.savez(path, **splits, class_names=np.array(["red", "green", "blue"]))
    return path


def colour_space(widths: str = "[0.25, 0.5, 0.75, 1.0]") -> str:
    """A search space, as TOML, of tiny networks and few steps."""
    return f"""
network = "resnet_small"
resolution_px = 16
summary = "tiny"
[scaling]
width = {widths}
[pruning]
channel_fraction = [0.0, 0.5]
[quantization]
precision = ["fp32", "int8"]
calibration_images = 16
[training]
optimizer = "adamw"
learning_rate = 0.004
steps = 24
batch_size = 16
"""
