"""confirmed.csv, confirmed.json and confirmed.png in a study's `confirmed/`: what full training made of the front."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from scalesearch.files import replace_file
from scalesearch.plain_text import utf8_text
from scalesearch.records.confirmation import Confirmation, Move, SplitGap
from scalesearch.records.confirmation_picture import confirmation_figure
from scalesearch.records.confirmed import FOLDER
from scalesearch.records.plots import png
from scalesearch.records.report import pruning_label
from scalesearch.records.tables import Row, csv_text
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.session import Session

TABLE, DOCUMENT, PICTURE = "confirmed.csv", "confirmed.json", "confirmed.png"


def write_confirmation(
    study: Path,
    session: Session,
    confirmation: Confirmation,
    runs: Iterable[ConfirmedRun],
    *,
    lost: Iterable[tuple[int, int, str]] = (),
) -> None:
    """Writes the three files, each whole or not at all; `lost` is (trial, seed, reason) of runs that gave nothing."""
    folder = study / FOLDER
    rows = confirmation_rows(confirmation)
    replace_file(folder / TABLE, utf8_text(csv_text(rows)).encode())
    document = confirmation_document(confirmation, runs, lost=lost) | {"device": dataclasses.asdict(session.device)}
    replace_file(folder / DOCUMENT, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
    caption = f"{session.data_words}, {session.data.val_images} validation, {session.data.test_images} test images"
    replace_file(folder / PICTURE, png(confirmation_figure(confirmation, caption=caption)))


def confirmation_rows(confirmation: Confirmation) -> list[Row]:
    """One flat row for each member, from fast to slow as measured now; the names are those of confirmed.csv."""
    return [_row(move) for move in confirmation.moves]


def confirmation_document(
    confirmation: Confirmation, runs: Iterable[ConfirmedRun], *, lost: Iterable[tuple[int, int, str]] = ()
) -> dict[str, Any]:
    """The same with rank agreement, gaps between the splits, rounds of the timing, and the runs behind it, as JSON."""
    gaps = {"brief": confirmation.brief_gap, "full": confirmation.full_gap}
    ranks = confirmation.ranks
    return {
        "members": confirmation_rows(confirmation),
        "spearman": dataclasses.asdict(ranks) if ranks else None,
        "validation_less_test": {name: dataclasses.asdict(gap) if gap else None for name, gap in gaps.items()},
        "splits_differ": confirmation.splits_differ,
        "winners_curse": confirmation.winners_curse,
        "runs": [_run(run) for run in runs],
        "lost": [{"trial": trial, "seed": seed, "reason": reason} for trial, seed, reason in lost],
    }


def _row(move: Move) -> Row:
    record, latency = move.record, move.latency
    assert record.quality and record.latency
    row: Row = {
        "trial": record.trial,
        "on_front": move.on_front,
        "beaten_by": _numbers(move.beaten_by),
        "ties": _numbers(move.ties),
        "seeds": move.seeds,
        "steps": move.steps,
        "brief_steps": record.training.steps if record.training else None,
        "brief_top1": record.quality.top1,
        "brief_top1_low": record.quality.top1_low,
        "brief_top1_high": record.quality.top1_high,
    }
    for name, mean in (("val", move.validation), ("test", move.test)):
        row |= {f"{name}_{field.name}": getattr(mean, field.name) for field in dataclasses.fields(mean)}
    for name, found in (("searched", record.latency), ("confirmed", latency)):
        row |= {f"{name}_{part}": getattr(found, part) for part in ("p50_ms", "p50_low_ms", "p50_high_ms")}
    row |= {"timed_together": move.timed_together, "stable": latency.stable}
    row |= {"precision": record.candidate.quantization.precision, "pruned": pruning_label(record.candidate.pruning)}
    return row


def _run(run: ConfirmedRun) -> dict[str, Any]:
    return {
        "trial": run.trial,
        "seed": run.seed,
        "steps": run.steps,
        "validation_top1": run.validation.top1,
        "test_top1": run.test.top1,
        "p50_ms": run.latency.p50_ms,
        "rounds_p50_ms": [each.p50_ms for each in run.latency_rounds],
        "onnx_sha256": run.onnx_sha256,
    }


def _numbers(trials: Sequence[int]) -> str:
    return " ".join(map(str, trials))


def gap_text(gap: SplitGap | None) -> str:
    """`+1.2 points (-0.4 to +2.8)`, or a dash."""
    if gap is None:
        return "-"
    low, high = gap.mean - gap.half, gap.mean + gap.half
    return f"{100 * gap.mean:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
