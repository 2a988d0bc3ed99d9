"""The columns of the front's tables: what their headers and cells are, whichever table shows them."""

from pathlib import Path

from conftest import RecordFactory

from scalesearch.analysis.front import pareto_front
from scalesearch.records.front_scores import read_front_scores
from scalesearch.records.store import RecordStore
from scalesearch.views import columns as of

STUDY = Path(__file__).parents[1] / "fixtures" / "study_of_the_first_wave"


def test_the_front_of_a_stored_study_in_every_column() -> None:
    front = pareto_front(RecordStore(STUDY).all())
    scores = {score.trial: score for score in read_front_scores(STUDY)}
    shown = (
        of.number_column(lambda record: str(record.trial)), of.score_column(front),
        *of.tested_columns(scores, lambda quality: f"{quality.score:.2f}"), of.latency_column(front), of.MACS_AND_SIZE,
        of.PARAMETERS, of.SIDES, of.RESOLUTION, of.SHAPE, of.PRUNED, of.PRECISION,
    )  # fmt: skip
    assert [column.head for column in shown] == [
        "trial", "top-1, %", "test, %", "p50, ms", "MACs, size", "parameters", "px", "resolution",
        "depth x width x kernel", "pruned", "precision",
    ]  # fmt: skip
    fastest = min(front, key=lambda record: record.latency.p50_ms)
    assert [column.cell(fastest) for column in shown] == [
        "0", "30.0 (16.7-47.9)", "0.43", "0.0183 (0.0180-0.0185)", "66.1 k, 44.2 kB", "9.9 k", "16", "x 1 = 16 px",
        "0.5 x 0.25 x 1", "-", "fp32",
    ]  # fmt: skip


def test_what_a_trial_never_reached_is_a_dash(make_record: RecordFactory) -> None:
    rejected = make_record(0, top1=None, cost=None, spec=None)
    columns = (of.score_column([rejected]), of.latency_column([rejected]), of.MACS, of.FILE, of.SIDES)
    cells = [column.cell(rejected) for column in columns]
    assert set(cells) == {of.NONE}


def test_without_second_evaluations_there_is_no_test_column() -> None:
    assert of.tested_columns({}, str) == ()
