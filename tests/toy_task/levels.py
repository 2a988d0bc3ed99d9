"""The toy's own targets and its own source of data: flat pictures, each with its brightness as a real number."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from scalesearch.data.dataset import ImageSplit
from scalesearch.data.source import Source, SourceData
from scalesearch.data.targets import Places
from scalesearch.values.network_spec import InputSize
from scalesearch.values.settings import DataSettings

KIND = "levels"
IMAGES = 400
DARKEST, BRIGHTEST, NOISE = 30, 210, 20


@dataclass(frozen=True, slots=True, eq=False)
class Levels:
    """A brightness from 0 to 1 for each image, float32 of shape (number,): no classes, hence no strata."""

    values: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, where: Places) -> "Levels":
        return Levels(self.values[where])

    def joined(self, other: "Levels") -> "Levels":
        return Levels(np.concatenate([self.values, other.values]))

    def at(self, size: InputSize) -> "Levels":
        return self

    def content(self) -> Iterator[memoryview]:
        yield np.ascontiguousarray(self.values).data

    def strata(self) -> None:
        return None

    def class_counts(self, classes: int) -> NDArray[np.int64]:
        assert classes == 0
        return np.zeros(0, np.int64)

    def tensor(self) -> torch.Tensor:
        return torch.from_numpy(self.values)


def load(settings: DataSettings, *, storage: InputSize, cache_folder: Path) -> SourceData:
    random = np.random.default_rng(settings.seed)
    levels = random.uniform(0, 1, IMAGES).astype(np.float32)
    flat = DARKEST + (BRIGHTEST - DARKEST) * levels
    noise = random.integers(-NOISE, NOISE + 1, (IMAGES, *storage.sides, 3))
    images = (flat[:, None, None, None] + noise).astype(np.uint8)
    return SourceData(name="flats", class_names=(), train=ImageSplit(images=images, targets=Levels(levels)))


SOURCE = Source(kind="flats", targets=KIND, load=load, names=("flats",))
