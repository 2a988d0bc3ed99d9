"""Which validation images are shown of a member: those that it answers worst, by its metric on each image alone."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from scalesearch.data.targets import Labels
from scalesearch.errors import StageFailed
from scalesearch.study.pictures import _scores
from scalesearch.values.quality import Quality

QUALITY = Quality(score=0.5, score_low=0.4, score_high=0.6, images=4)
PARTS = [{"raw": np.full((1, 1), value, np.float32)} for value in (0.25, 3.0, 0.0, 0.75)]
"""Answers to four images; there is nothing to find in the second and third one."""


class Counting:
    """The score is the answer itself; an image with the label 0 has nothing to be scored on."""

    def reset(self) -> None:
        self._value, self._label = 0.0, 0

    def update(self, outputs: Mapping[str, NDArray[np.float32]], targets: Any) -> None:
        (self._label,) = targets.values
        self._value = float(outputs["raw"][0, 0])

    def score(self) -> float:
        if not self._label:
            raise StageFailed("quality", "nothing to find")
        return self._value

    def result(self) -> Quality:
        return QUALITY

    def doubts(self) -> tuple[str, ...]:
        return ()


class Reporting(Counting):
    """Reports as many things as the answer says."""

    def made_up(self, quality: Quality) -> int:
        assert quality is QUALITY
        return int(self._value)


@pytest.mark.parametrize(("metric", "empty"), [(Counting(), [np.inf, np.inf]), (Reporting(), [0.0, np.inf])])
def test_made_up_reports_are_among_the_worst_answers(metric: Counting, empty: list[float]) -> None:
    scores = _scores(metric, PARTS, Labels(np.asarray([1, 0, 0, 1])), QUALITY)
    assert scores.tolist() == [0.25, *empty, 0.75]
