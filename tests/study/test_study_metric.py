"""Which metric names the columns of a study whose trials have no score yet."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from scalesearch.cli.study_commands import _rows
from scalesearch.records.run_file import write_run_file
from scalesearch.study.keeper import Keeper
from scalesearch.study.metric import stored_metric, study_metric
from scalesearch.study.view import StudyView
from scalesearch.values.record import MeasuredTrial
from scalesearch.values.session import Session

MakeRecord = Callable[..., MeasuredTrial]


@pytest.fixture
def masks(session: Session) -> Session:
    found = replace(session, settings=replace(session.settings, task="segmentation"))
    write_run_file(found)
    return found


def test_the_metric_is_that_of_the_records_or_else_of_the_session(
    masks: Session, make_record: MakeRecord, tmp_path: Path
) -> None:
    failed, scored = make_record(0, top1=None), make_record(1)
    assert study_metric([failed], masks) == stored_metric(masks.folder, [failed]) == "miou"
    assert study_metric([failed, scored], masks) == stored_metric(masks.folder, [failed, scored]) == "top1"
    assert study_metric([failed], None) == stored_metric(tmp_path / "none", [failed]) == "top1"
    unknown = replace(masks, settings=replace(masks.settings, task="of_another_package"))
    assert study_metric([failed], unknown) == "top1"


def test_tables_have_the_tasks_columns_before_the_first_score(masks: Session, make_record: MakeRecord) -> None:
    failed = make_record(0, top1=None)
    Keeper(masks.folder, "masks", metric="miou").write([failed], ())
    (shown,) = _rows(masks.folder, [failed])  # of `show --json` and `front --json`
    view = StudyView(folder=masks.folder, session=masks, records=(failed,), front=(), scores=(), confirmed=())
    for names in (
        (masks.folder / "trials.csv").read_text().splitlines()[0].split(","),
        (masks.folder / "front.csv").read_text().splitlines()[0].split(","),
        list(shown),
        list(view.frame().columns),
    ):
        assert "miou" in names and "miou_low" in names
        assert not {"top1", "macro_precision"} & set(names)
    Keeper(masks.folder, "masks", metric="miou").write([], ())
    assert "miou_low" in (masks.folder / "trials.csv").read_text()
