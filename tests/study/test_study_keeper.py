"""What a run keeps in the study's folder after each trial and at its end."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from scalesearch.analysis.front import pareto_front
from scalesearch.study import keeper as keeping
from scalesearch.study.keeper import Keeper
from scalesearch.values.record import MeasuredTrial


def test_the_picture_holds_every_trial_at_the_end_and_is_drawn_with_the_front_before(
    tmp_path: Path, make_record: Callable[..., MeasuredTrial], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = list[list[int]]()

    def draw(records: Collection[MeasuredTrial], **_: Any) -> None:
        drawn.append([record.trial for record in records])

    monkeypatch.setattr(keeping, "draw_front", draw)
    keeper = Keeper(tmp_path, "signs, 300 validation images")
    records = [make_record(trial, top1=0.8 - trial / 10, p50_ms=1.0 + trial) for trial in range(3)]
    for record in records:
        keeper.keep(record)
    assert drawn == [[0]], "the front is trial 0 throughout"
    for _ in range(2):
        keeper.write(records, pareto_front(records))
    assert drawn == [[0], [0, 1, 2]], "once, with the dominated trials"


def test_a_picture_of_a_front_that_is_no_more_is_removed(
    tmp_path: Path, make_record: Callable[..., MeasuredTrial]
) -> None:
    (tmp_path / "front.png").write_bytes(b"before the study was made longer")
    record = make_record(0)
    Keeper(tmp_path, "signs").write([record.in_study_of(9 * record.candidate.recipe.steps)], [])
    assert not (tmp_path / "front.png").exists()
