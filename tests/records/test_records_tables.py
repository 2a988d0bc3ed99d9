import csv
import io
import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pandas as pd
import pytest

from scalesearch.files import replace_file
from scalesearch.records.tables import csv_text, front_rows, trial_rows, write_tables
from scalesearch.values.candidate import Candidate, LossWeights, Quantization, Recipe, Scaling, StageScaling
from scalesearch.values.latency import Postprocessing
from scalesearch.values.quality import NamedNumber, NumbersDetail
from scalesearch.values.record import FrontScore, MeasuredTrial

MakeRecord = Callable[..., MeasuredTrial]


def test_rows_hold_the_records_numbers_in_trial_order(make_record: MakeRecord) -> None:
    rows = trial_rows([make_record(7, top1=0.9, p50_ms=3.0), make_record(2, top1=0.7, p50_ms=1.0)], front=(7,))
    assert [row["trial"] for row in rows] == [2, 7]
    assert [row["on_front"] for row in rows] == [False, True]
    assert (rows[1]["top1"], rows[1]["p50_ms"], rows[1]["float_top1"]) == (0.9, 3.0, 0.91)
    assert (rows[1]["resolution"], rows[1]["resolution_px"], rows[1]["channel_fraction"]) == (0.5, 32, 0.25)
    assert rows[1]["total_s"] == 14.0


def test_a_rectangle_is_told_by_both_sides(make_record: MakeRecord) -> None:
    spec = replace(make_record(1).spec, resolution_px=24, width_px=40)
    (row,) = trial_rows([replace(make_record(1), spec=spec)])
    assert row["resolution_px"] == "24x40"


def test_numbers_of_a_task_never_take_the_place_of_other_columns(make_record: MakeRecord) -> None:
    names = ("precision", "recall", "depth", "test_miou", "no_gain")
    detail = NumbersDetail(numbers=tuple(NamedNumber(name=name, value=0.0625) for name in (*names, "miou")))
    record = make_record(0, precision="int8")
    record = replace(record, quality=replace(record.quality, metric="miou", detail=detail))
    row = trial_rows([record])[0]
    without = replace(record, quality=replace(record.quality, detail=NumbersDetail()))
    assert {name: row[name] for name in trial_rows([without])[0]} == trial_rows([without])[0]
    assert {name for name in row if row[name] == 0.0625} == {
        "detail_precision", "recall", "detail_depth", "detail_test_miou", "detail_no_gain",
    }  # fmt: skip


def test_every_row_has_the_same_keys_in_the_same_order(make_record: MakeRecord) -> None:
    staged = replace(make_record(1), candidate=Candidate(scaling=Scaling(stages=(StageScaling(width=2.0),) * 2)))
    rows = trial_rows([make_record(0), staged, make_record(2, top1=None)])
    assert list(rows[0]) == list(rows[1]) == list(rows[2])
    assert rows[1]["stage2_width"] == 2.0
    assert rows[0]["stage2_width"] is None
    assert not any(name.startswith("stage1") for name in trial_rows([make_record(0)])[0])


def test_every_knob_of_the_recipe_is_a_column(make_record: MakeRecord) -> None:
    row = trial_rows([make_record(0)])[0]
    own = {field.name for field in fields(Recipe)} - {"loss_weights"}
    weights = {f"loss_weights_{field.name.removesuffix('_')}" for field in fields(LossWeights)}
    assert own | weights <= set(row)


@pytest.mark.parametrize(
    ("quantization", "calibration", "clip"),
    [
        (Quantization(precision="fp32", calibration="percentile", clip_percentile=99.0), None, None),
        (Quantization(precision="int8", calibration="minmax", clip_percentile=99.0), "minmax", None),
        (Quantization(precision="int8", calibration="percentile", clip_percentile=99.0), "percentile", 99.0),
    ],
    ids=["fp32", "minmax", "percentile"],
)
def test_calibration_is_blank_where_it_meant_nothing(
    make_record: MakeRecord, quantization: Quantization, calibration: str | None, clip: float | None
) -> None:
    row = trial_rows([replace(make_record(0), candidate=Candidate(quantization=quantization))])[0]
    assert (row["calibration"], row["clip_percentile"]) == (calibration, clip)


def test_what_a_trial_never_reached_is_empty_and_json_can_hold_it(make_record: MakeRecord) -> None:
    record = make_record(3)
    assert record.training is not None
    diverged = replace(record, training=replace(record.training, final_loss=float("nan")))
    rows = trial_rows([make_record(1, top1=None), diverged])
    assert (rows[0]["top1"], rows[0]["p50_ms"], rows[0]["stable"]) == (None, None, None)
    assert rows[0]["reason"] == "train: loss is not finite"
    assert json.loads(json.dumps(rows, allow_nan=False))[1]["final_loss"] is None


def test_whole_numbers_stay_whole_beside_empty_cells(make_record: MakeRecord) -> None:
    rows = trial_rows([make_record(0), make_record(1, same_as=0, state="cached", charged=False)])
    cells = list(csv.DictReader(io.StringIO(csv_text(rows))))
    assert [cell["same_as"] for cell in cells] == ["", "0"]
    assert cells[0]["macs"] == "20000000"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1"])
def test_text_cells_cannot_be_formulas(make_record: MakeRecord, text: str) -> None:
    rows = trial_rows([make_record(0, reason=text), make_record(1, reason='plain, "quoted"\nand broken')])
    cells = list(csv.DictReader(io.StringIO(csv_text(rows))))
    assert cells[0]["reason"] == "'" + text
    assert cells[1]["reason"] == 'plain, "quoted"\nand broken'
    assert rows[0]["reason"] == text, "only CSV is escaped"


def test_tables_are_written_whole_and_the_front_is_sorted_by_latency(make_record: MakeRecord, tmp_path: Path) -> None:
    records = [make_record(0, top1=0.9, p50_ms=5.0), make_record(1, top1=0.7, p50_ms=1.0), make_record(2, top1=0.6)]
    write_tables(tmp_path, records, front={0, 1})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["front.csv", "trials.csv"]
    front = pd.read_csv(tmp_path / "front.csv")
    assert list(front["trial"]) == [1, 0]
    assert len(pd.read_csv(tmp_path / "trials.csv")) == 3
    assert [row["trial"] for row in front_rows(trial_rows(records, front={0, 1}))] == [1, 0]


def test_latencies_have_the_same_names_whatever_the_objective_and_the_front_is_sorted_by_it(
    make_record: MakeRecord,
) -> None:
    records = []
    for trial, (p50_ms, after_ms) in enumerate(((1.0, 5.0), (3.0, 0.5))):
        record = make_record(trial, top1=0.9 - 0.1 * trial, p50_ms=p50_ms)
        assert record.latency is not None
        after = Postprocessing(p50_ms=after_ms, p50_low_ms=after_ms, p50_high_ms=after_ms, images=4)
        records.append(replace(record, latency=record.latency.beside(after, "end_to_end")))
    rows = trial_rows(records, front={0, 1})
    names = ("p50_ms", "postprocessing_ms", "end_to_end_ms", "latency_objective")
    assert [tuple(row[name] for name in names) for row in rows] == [
        (1.0, 5.0, 6.0, "end_to_end"), (3.0, 0.5, 3.5, "end_to_end"),
    ]  # fmt: skip
    assert [row["trial"] for row in front_rows(rows)] == [1, 0]
    assert "end_to_end_ms" not in trial_rows([make_record(0)])[0]


def test_an_empty_front_has_the_columns_of_its_trials(make_record: MakeRecord, tmp_path: Path) -> None:
    staged = replace(make_record(1), candidate=Candidate(scaling=Scaling(stages=(StageScaling(width=2.0),) * 2)))
    write_tables(tmp_path, [staged], front=())
    header = (tmp_path / "trials.csv").read_text().splitlines()[0]
    assert (tmp_path / "front.csv").read_text() == f"{header}\n"
    assert "stage2_width" in header


def test_the_last_look_at_the_front_is_in_the_table(make_record: MakeRecord, tmp_path: Path) -> None:
    record, look = make_record(0), make_record(0, top1=0.78, p50_ms=1.1)
    assert look.quality is not None and look.latency is not None
    score = FrontScore(trial=0, test=look.quality, latency=look.latency)
    write_tables(tmp_path, [record, make_record(1)], front={0}, scores=[score])
    row = pd.read_csv(tmp_path / "trials.csv").iloc[0]
    assert (row["test_top1"], row["test_images"], row["fresh_p50_ms"]) == (0.78, 1000, 1.1)
    assert trial_rows([make_record(1)])[0]["test_top1"] is None


def test_a_study_without_trials_still_has_headers(make_record: MakeRecord, tmp_path: Path) -> None:
    write_tables(tmp_path, [], front=())
    assert list(pd.read_csv(tmp_path / "trials.csv").columns) == list(trial_rows([make_record(0)])[0])


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trials.csv").write_text("old")

    def refuse(self: Path, target: Path) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError, match="no space left"):
        replace_file(tmp_path / "trials.csv", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["trials.csv"]
    assert (tmp_path / "trials.csv").read_text() == "old"


def test_a_short_training_tells_both_lengths_and_is_not_feasible(make_record: MakeRecord) -> None:
    whole = make_record(0)
    steps = whole.candidate.recipe.steps
    rows = trial_rows([replace(whole, full_updates=steps), replace(make_record(1), full_updates=2 * steps)])
    assert [(row["full_steps"], row["feasible"]) for row in rows] == [(steps, True), (2 * steps, False)]
    assert trial_rows([whole])[0]["full_steps"] is None
