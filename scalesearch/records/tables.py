"""Records as flat rows: the one and only column names of trials.csv, front.csv, `--json` and the printed tables."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import fields
from pathlib import Path

from scalesearch.files import replace_file
from scalesearch.plain_text import utf8_text
from scalesearch.values.candidate import CALIBRATED, Candidate, Quantization, Scaling
from scalesearch.values.record import FrontScore, TrialRecord

Cell = str | int | float | bool | None
Row = dict[str, Cell]

_TEST_FIELDS = ("top1", "top1_low", "top1_high", "images")
_FRESH_FIELDS = ("p50_ms", "p50_low_ms", "p50_high_ms")
# Spreadsheets run a cell that begins with one of these as a formula (OWASP, "CSV Injection").
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def trial_rows(
    records: Iterable[TrialRecord], *, front: Collection[int] = (), scores: Iterable[FrontScore] = ()
) -> list[Row]:
    """One flat row for each record, by trial number; `front` holds the trial numbers of the Pareto front.

    Every row has the same keys in the same order. What a trial never reached, and numbers that are not finite, are
    None. Columns of single stages (`stage1_depth`, ...) are there only where a candidate scales its stages apart;
    `test_*` and `fresh_*` are the last look that members of the front get (`scores`).
    """
    ordered = sorted(records, key=lambda record: record.trial)
    stages = max((len(record.candidate.scaling.stages) for record in ordered), default=0)
    again = {score.trial: score for score in scores}
    return [_row(record, again.get(record.trial), on_front=record.trial in front, stages=stages) for record in ordered]


def front_rows(rows: Iterable[Row]) -> list[Row]:
    """The rows of the front, from fast to slow."""
    return sorted((row for row in rows if row["on_front"]), key=_latency_then_trial)


def csv_text(rows: Sequence[Row], *, columns: Sequence[str] = ()) -> str:
    """The rows as CSV with a header; text cells that a spreadsheet would run as a formula get a leading quote mark.

    `columns` is the header where there are no rows; without it, that of records whose stages scale together.
    """
    import pandas as pd  # 0.4 s, so only once a table is asked for

    columns = list(rows[0]) if rows else list(columns or _row(_NOTHING, None, on_front=False, stages=0))
    # dtype object: a None among whole numbers must not turn them into 12.0.
    frame = pd.DataFrame([[_inert(row[name]) for name in columns] for row in rows], columns=columns, dtype=object)
    return str(frame.to_csv(index=False, lineterminator="\n"))


def write_tables(
    folder: Path, records: Iterable[TrialRecord], *, front: Collection[int], scores: Iterable[FrontScore] = ()
) -> None:
    """Write `trials.csv` and `front.csv` (fast to slow) into `folder`; a reader sees the old or the new, never half."""
    rows = trial_rows(records, front=front, scores=scores)
    replace_file(folder / "trials.csv", utf8_text(csv_text(rows)).encode())
    front_text = csv_text(front_rows(rows), columns=list(rows[0]) if rows else ())
    replace_file(folder / "front.csv", utf8_text(front_text).encode())


def _row(record: TrialRecord, again: FrontScore | None, *, on_front: bool, stages: int) -> Row:
    row: Row = {"trial": record.trial, "state": record.state, "feasible": record.feasible, "on_front": on_front}
    row |= _scores(record) | _again(again) | _costs(record) | _candidate(record.candidate, stages=stages)
    row |= _gains(record) | _efforts(record)
    return {name: _finite(cell) for name, cell in row.items()}


def _scores(record: TrialRecord) -> Row:
    quality, latency = record.quality, record.latency
    row = _named(quality, "top1", "top1_low", "top1_high")
    row |= _named(record.training, "float_top1")
    row |= {f"{step}_top1": _step(record, step) for step in ("onnx_fp32", "onnx")}
    row |= _named(quality, "macro_precision", "macro_recall", "images")
    row |= _named(latency, "p50_ms", "p50_low_ms", "p50_high_ms", "raw_p50_ms", "raw_p90_ms", "raw_p99_ms")
    row |= _named(latency, "reference_p50_ms", "stable", "calm_fraction")
    row["latency_batch"] = latency.batch if latency else None
    row["latency_runs"] = latency.runs if latency else None
    return row


def _step(record: TrialRecord, step: str) -> float | None:
    return next((found.top1 for found in record.accuracy_path if found.step == step), None)


def _again(score: FrontScore | None) -> Row:
    row: Row = {f"test_{name}": cell for name, cell in _named(score and score.test, *_TEST_FIELDS).items()}
    return row | {f"fresh_{name}": cell for name, cell in _named(score and score.latency, *_FRESH_FIELDS).items()}


def _costs(record: TrialRecord) -> Row:
    row = _named(record.cost, "macs", "params")
    row |= {"dense_macs": record.dense_macs, "size_bytes": record.size_bytes}
    row["network"] = record.spec.name if record.spec else None
    row["resolution_px"] = record.spec.resolution_px if record.spec else None
    return row


def _candidate(candidate: Candidate, *, stages: int) -> Row:
    # By the fields themselves, so that a new knob is a new column without a line here.
    row: Row = {
        field.name: getattr(candidate.scaling, field.name) for field in fields(Scaling) if field.name != "stages"
    }
    for index in range(stages):
        own = candidate.scaling.stages[index] if index < len(candidate.scaling.stages) else None
        for name in ("depth", "width", "kernel"):
            row[f"stage{index + 1}_{name}"] = getattr(own, name) if own else None
    row |= {field.name: getattr(candidate.pruning, field.name) for field in fields(candidate.pruning)}
    row |= _quantization(candidate.quantization)
    row |= {field.name: getattr(candidate.recipe, field.name) for field in fields(candidate.recipe)}
    return row


def _quantization(quantization: Quantization) -> Row:
    """Calibration columns stay empty where they meant nothing, or equal candidates would look unlike."""
    row: Row = {field.name: getattr(quantization, field.name) for field in fields(quantization)}
    if quantization.precision not in CALIBRATED:
        row |= {"calibration": None, "calibration_images": None}
    if quantization.precision not in CALIBRATED or quantization.calibration != "percentile":
        row["clip_percentile"] = None
    return row


def _gains(record: TrialRecord) -> Row:
    row: Row = {}
    for step in ("pruning", "precision"):
        found = next((gain for gain in record.gains if gain.step == step), None)
        values = _named(found, "speedup", "speedup_low", "speedup_high", "top1_change")
        row |= {f"{step}_{name}": value for name, value in values.items()}
    return row | {"no_gain": ", ".join(gain.what for gain in record.gains if gain.no_gain)}


def _efforts(record: TrialRecord) -> Row:
    training, device = record.training, record.device
    row: Row = {"trained_steps": training.steps if training else None}
    row |= _named(training, "final_loss", "weights_reused", "safe_recipe_used", "train_s", "retrain_s")
    row["total_s"] = sum(stage.seconds for stage in record.stages) if record.stages else None
    row |= {"charged": record.charged, "same_as": record.same_as, "sibling_of": record.sibling_of}
    row["device"] = device.name if device else None
    row["backend"] = f"{device.backend} {device.backend_version}" if device else None
    row["accepted_by"] = record.acceptance.compiler if record.acceptance else None
    return row | {"reason": record.reason, "warnings": "; ".join(record.warnings), "key": record.key}


def _named(part: object | None, *names: str) -> Row:
    """The fields of a part of the record under their own names; None for a part that the trial never reached."""
    return {name: None if part is None else getattr(part, name) for name in names}


def _finite(cell: Cell) -> Cell:
    """JSON has no NaN, and a CSV cell `nan` is text to most readers."""
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _inert(cell: Cell) -> Cell:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA_STARTS) else cell


def _latency_then_trial(row: Row) -> tuple[float, int]:
    latency, trial = row["p50_ms"], row["trial"]
    assert isinstance(latency, int | float) and isinstance(trial, int)
    return (latency, trial)


_NOTHING = TrialRecord(trial=0, key="", state="rejected", candidate=Candidate(), charged=False)
"""Only its column names are used: the header of a table without rows."""
