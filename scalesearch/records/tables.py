"""Records as flat rows, with the only column names of `trials.csv`, `front.csv` and `--json`."""

import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import fields
from pathlib import Path

from scalesearch.files import replace_file
from scalesearch.plain_text import utf8_text
from scalesearch.values.candidate import CALIBRATED, Candidate, Quantization, Scaling
from scalesearch.values.latency import Latency
from scalesearch.values.quality import DEFAULT_METRIC, ClassDetail, Quality
from scalesearch.values.record import FrontScore, TrialRecord

Cell = str | int | float | bool | None
Row = dict[str, Cell]

_SCORE_FIELDS = ("score", "score_low", "score_high")
# Spreadsheets run a cell that begins with one of these as a formula (OWASP, "CSV Injection").
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def trial_rows(
    records: Iterable[TrialRecord],
    *,
    front: Collection[int] = (),
    scores: Iterable[FrontScore] = (),
    metric: str = DEFAULT_METRIC,
) -> list[Row]:
    """Return one flat row for each record, by trial number.

    Every row has the same keys in the same order. Cells for stages that a trial never reached, and numbers that are not
    finite, are None. Columns of the network's single stages (`stage1_depth`, ...) exist only if a candidate scales its
    stages separately. `test_*` and `fresh_*` come from the second evaluation of the front's members (`scores`).

    Args:
        records: The records of a study, in any order.
        front: Trial numbers of the Pareto front.
        scores: The second evaluations of the front's members.
        metric: Name of the score, for records of which none has one.
    """
    ordered = sorted(records, key=lambda record: record.trial)
    stages = max((len(record.candidate.scaling.stages) for record in ordered), default=0)
    again = {score.trial: score for score in scores}
    metric = next((record.quality.metric for record in ordered if record.quality), metric)
    return _with_same_columns(
        [
            _row(record, again.get(record.trial), on_front=record.trial in front, stages=stages, metric=metric)
            for record in ordered
        ]
    )


def _with_same_columns(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with the same columns: only trials with a score have those of the task's further numbers."""
    longest = max(rows, key=len, default={})
    names = dict.fromkeys((*longest, *(name for row in rows for name in row)))
    return [{name: row.get(name) for name in names} for row in rows]


def front_rows(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of the front, from fast to slow."""
    return sorted((row for row in rows if row["on_front"]), key=_latency_then_trial)


def csv_text(rows: Sequence[Row], *, columns: Sequence[str] = (), metric: str = DEFAULT_METRIC) -> str:
    """Return the rows as CSV with a header.

    Text cells that a spreadsheet would run as a formula get a leading quote mark.

    Args:
        rows: Rows that all have the same keys.
        columns: The header if there are no rows; if omitted, that of records whose stages are scaled together.
        metric: Name of the score in such a header.
    """
    import pandas as pd  # 0.4 s, so only once a table is asked for

    columns = list(rows[0]) if rows else list(columns or _row(_NOTHING, None, on_front=False, stages=0, metric=metric))
    # dtype object: a None among whole numbers must not turn them into 12.0.
    frame = pd.DataFrame([[_inert(row[name]) for name in columns] for row in rows], columns=columns, dtype=object)
    return str(frame.to_csv(index=False, lineterminator="\n"))


def write_tables(
    folder: Path,
    records: Iterable[TrialRecord],
    *,
    front: Collection[int],
    scores: Iterable[FrontScore] = (),
    metric: str = DEFAULT_METRIC,
) -> None:
    """Write `trials.csv` and `front.csv` (fast to slow) into `folder`; `metric` is as in `trial_rows`.

    A reader sees the old or the new file, never half of one.
    """
    rows = trial_rows(records, front=front, scores=scores, metric=metric)
    replace_file(folder / "trials.csv", utf8_text(csv_text(rows, metric=metric)).encode())
    front_text = csv_text(front_rows(rows), columns=list(rows[0]) if rows else (), metric=metric)
    replace_file(folder / "front.csv", utf8_text(front_text).encode())


def _row(record: TrialRecord, again: FrontScore | None, *, on_front: bool, stages: int, metric: str) -> Row:
    row: Row = {"trial": record.trial, "state": record.state, "feasible": record.feasible, "on_front": on_front}
    row |= _scores(record, metric)
    others = _named(record.quality, "images") | _timing(record) | _again(again, metric) | _costs(record)
    others |= _candidate(record.candidate, stages=stages) | _gains(record, metric) | _efforts(record)
    row |= _detail(record.quality, metric, taken={*row, *others}) | others
    return {name: _finite(cell) for name, cell in row.items()}


def _scores(record: TrialRecord, metric: str) -> Row:
    row = _named(record.quality, *_SCORE_FIELDS) | _named(record.training, "float_score")
    row |= {f"{step}_score": _step(record, step) for step in ("onnx_fp32", "onnx")}
    return by_metric(row, metric)


def _timing(record: TrialRecord) -> Row:
    latency = record.latency
    row = latency_cells(latency) | _named(latency, "raw_p50_ms", "raw_p90_ms", "raw_p99_ms")
    row |= _named(latency, "reference_p50_ms", "stable", "calm_fraction")
    if latency and latency.postprocessing:
        row["latency_objective"] = latency.objective
    row["latency_batch"] = latency.batch if latency else None
    row["latency_runs"] = latency.runs if latency else None
    return row


def latency_cells(latency: Latency | None) -> Row:
    """Return the engine's p50 with its interval, and the columns of post-processing if it was measured.

    A column means the same in every study. `end_to_end_ms` exists only in tasks whose post-processing is measured.
    """
    cells = _named(latency and latency.of_engine, "p50_ms", "p50_low_ms", "p50_high_ms")
    whole = latency and latency.end_to_end
    if whole is None or whole.postprocessing is None:
        return cells
    cells["postprocessing_ms"] = whole.postprocessing.p50_ms
    return cells | {name.replace("p50", "end_to_end"): getattr(whole, name) for name in tuple(cells)[:3]}


def _step(record: TrialRecord, step: str) -> float | None:
    return next((found.score for found in record.accuracy_path if found.step == step), None)


def by_metric(row: Row, metric: str) -> Row:
    """Return the row with the score columns named by the metric: `score_low` becomes `top1_low`."""
    return {re.sub(r"(^|_)score($|_)", rf"\g<1>{metric}\g<2>", name): cell for name, cell in row.items()}


def _detail(quality: Quality | None, metric: str, *, taken: Collection[str]) -> Row:
    """Return what the task adds to its score.

    A number that has the name of another column (`taken`) is put under `detail_` and its name: a detector's precision
    is `detail_precision`, since `precision` is that of the arithmetic. The score itself is not repeated. The columns of
    classifiers are there even before the first trial has a score.
    """
    if quality is None and metric == DEFAULT_METRIC:
        return {"macro_precision": None, "macro_recall": None}
    if quality is None:
        return {}
    if isinstance(quality.detail, ClassDetail):
        return _named(quality.detail, "macro_precision", "macro_recall")
    return {
        f"detail_{number.name}" if number.name in taken else number.name: number.value
        for number in quality.detail.numbers
        if number.name != metric
    }


def _again(score: FrontScore | None, metric: str) -> Row:
    tested = by_metric(_named(score and score.test, *_SCORE_FIELDS, "images"), metric)
    row: Row = {f"test_{name}": cell for name, cell in tested.items()}
    return row | {f"fresh_{name}": cell for name, cell in latency_cells(score.latency if score else None).items()}


def _costs(record: TrialRecord) -> Row:
    row = _named(record.cost, "macs", "params")
    row |= {"dense_macs": record.dense_macs, "size_bytes": record.size_bytes}
    row["network"] = record.spec.name if record.spec else None
    row["resolution_px"] = record.spec.input_size.cell if record.spec else None
    return row


def _candidate(candidate: Candidate, *, stages: int) -> Row:
    # Taken from the fields themselves, so that a new field becomes a new column without a line here.
    row: Row = {
        field.name: getattr(candidate.scaling, field.name) for field in fields(Scaling) if field.name != "stages"
    }
    for index in range(stages):
        own = candidate.scaling.stages[index] if index < len(candidate.scaling.stages) else None
        for name in ("depth", "width", "kernel"):
            row[f"stage{index + 1}_{name}"] = getattr(own, name) if own else None
    row |= {field.name: getattr(candidate.pruning, field.name) for field in fields(candidate.pruning)}
    row |= _quantization(candidate.quantization)
    recipe, weights = candidate.recipe, candidate.recipe.loss_weights
    row |= {field.name: getattr(recipe, field.name) for field in fields(recipe) if field.name != "loss_weights"}
    row |= {f"loss_weights_{field.name.removesuffix('_')}": getattr(weights, field.name) for field in fields(weights)}
    return row


def _quantization(quantization: Quantization) -> Row:
    """Return the quantization's cells, with the calibration cells empty where they had no effect.

    Otherwise equal candidates would look different.
    """
    row: Row = {field.name: getattr(quantization, field.name) for field in fields(quantization)}
    if quantization.precision not in CALIBRATED:
        row |= {"calibration": None, "calibration_images": None}
    if quantization.precision not in CALIBRATED or quantization.calibration != "percentile":
        row["clip_percentile"] = None
    return row


def _gains(record: TrialRecord, metric: str) -> Row:
    row: Row = {}
    for step in ("pruning", "precision"):
        found = next((gain for gain in record.gains if gain.step == step), None)
        values = _named(found, "speedup", "speedup_low", "speedup_high", "score_change")
        row |= {f"{step}_{name}": value for name, value in by_metric(values, metric).items()}
    return row | {"no_gain": ", ".join(gain.what for gain in record.gains if gain.no_gain)}


def _efforts(record: TrialRecord) -> Row:
    training, device = record.training, record.device
    row: Row = {"trained_steps": training.steps if training else None, "full_steps": record.full_updates or None}
    row |= _named(training, "final_loss", "weights_reused", "safe_recipe_used", "train_s", "retrain_s")
    row["total_s"] = sum(stage.seconds for stage in record.stages) if record.stages else None
    row |= {
        "charged": record.charged,
        "charge": record.charge,
        "same_as": record.same_as,
        "sibling_of": record.sibling_of,
    }
    row["device"] = device.name if device else None
    row["backend"] = f"{device.backend} {device.backend_version}" if device else None
    row["accepted_by"] = record.acceptance.compiler if record.acceptance else None
    return row | {"reason": record.reason, "warnings": "; ".join(record.warnings), "key": record.key}


def _named(part: object | None, *names: str) -> Row:
    """Return the named fields of a part of the record, each None if the trial never reached that part."""
    return {name: None if part is None else getattr(part, name) for name in names}


def _finite(cell: Cell) -> Cell:
    """Return None for a number that is not finite: JSON has no NaN, and most readers take a CSV cell `nan` for text."""
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _inert(cell: Cell) -> Cell:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA_STARTS) else cell


def _latency_then_trial(row: Row) -> tuple[float, int]:
    whole = row.get("latency_objective") == "end_to_end"
    latency, trial = row["end_to_end_ms" if whole else "p50_ms"], row["trial"]
    assert isinstance(latency, int | float) and isinstance(trial, int)
    return (latency, trial)


_NOTHING = TrialRecord(trial=0, key="", state="rejected", candidate=Candidate(), charged=False)
"""A record of which only the column names are used, for the header of a table without rows."""
