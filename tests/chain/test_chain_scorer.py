"""Engines are scored on a few images at a time: on fewer of them if they are large, in whole batches of the engine."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from scalesearch.chain.scorer import Scorer, images_for_scores
from scalesearch.data.dataset import ImageSplit
from scalesearch.data.targets import Labels
from scalesearch.tasks.registry import get_task
from scalesearch.values.quality import Quality
from scalesearch.values.session import Session

IMAGES = np.random.default_rng(0).integers(0, 256, (70, 8, 16, 3), dtype=np.uint8)
LABELS = Labels(np.arange(70) % 4)


@dataclass
class Engine:
    """Answers with the means of each image's channels, and remembers how many images it was given at a time."""

    batch: int = 1
    counts: list[int] = field(default_factory=list)

    def run(self, images: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        self.counts.append(len(images))
        means = images.mean(axis=(2, 3))
        return {"logits": np.concatenate([means, means[:, :1] + means[:, 1:2]], axis=1)}


def test_large_images_are_scored_a_few_at_a_time(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, found = Scorer(get_task("classification"), session.data, threads=1), list[Quality]()
    split = ImageSplit(images=IMAGES, targets=LABELS)
    for most, batch, counts in (
        (1000, 1, [64, 6]),
        (30, 1, [30, 30, 10]),
        (30, 8, [24, 24, 22]),
        (30, 32, [32, 32, 6]),  # an engine of this batch runs as many anyway
    ):
        monkeypatch.setattr("scalesearch.host._MOST_PIXELS", most * 8 * 16)
        engine: Any = Engine(batch)
        found.append(scorer.quality(engine, split, []).quality)
        assert engine.counts == counts
    assert all(quality == found[0] for quality in found)


@pytest.mark.parametrize("batch", [1, 8, 10, 64, 100])
def test_images_that_are_not_large_are_scored_by_64_whatever_the_batch(batch: int) -> None:
    assert images_for_scores(512, 512, batch=batch) == 64


@pytest.mark.parametrize(("batch", "count"), [(1, 17), (2, 16), (8, 16), (16, 16), (20, 20), (64, 64), (100, 64)])
def test_pictures_of_a_wide_camera_are_scored_in_whole_batches(batch: int, count: int) -> None:
    assert images_for_scores(736, 1280, batch=batch) == count
