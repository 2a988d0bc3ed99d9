"""Writes confirmed.csv, confirmed.json and confirmed.png in a study's `confirmed/`: the front after full training."""

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from scalesearch.analysis.brief_bias import BriefBias
from scalesearch.analysis.confirmation import Confirmation, Move, SplitGap
from scalesearch.analysis.likely_members import Correction, LikelyMember
from scalesearch.files import replace_file
from scalesearch.plain_text import utf8_text
from scalesearch.records.confirmed import FOLDER
from scalesearch.records.tables import Row, by_metric, csv_text, latency_cells
from scalesearch.values.confirmed import ConfirmedRun
from scalesearch.values.session import Session
from scalesearch.views.confirmation_picture import confirmation_figure
from scalesearch.views.front_picture import png

TABLE, DOCUMENT, PICTURE = "confirmed.csv", "confirmed.json", "confirmed.png"


def write_confirmation(
    study: Path,
    session: Session,
    confirmation: Confirmation,
    correction: Correction,
    *,
    runs: Iterable[ConfirmedRun],
    lost: Iterable[tuple[int, int, str]] = (),
) -> None:
    """Write the three files, each whole or not at all.

    `lost` holds (trial, seed, reason) of runs that gave no result.
    """
    folder = study / FOLDER
    rows = confirmation_rows(confirmation)
    replace_file(folder / TABLE, utf8_text(csv_text(rows)).encode())
    document = confirmation_document(confirmation, correction, runs=runs, lost=lost)
    document |= {"device": dataclasses.asdict(session.device)}
    replace_file(folder / DOCUMENT, (json.dumps(document, indent=1, allow_nan=False) + "\n").encode())
    caption = f"{session.data_words}, {session.data.val_images} validation, {session.data.test_images} test images"
    replace_file(folder / PICTURE, png(confirmation_figure(confirmation, caption=caption)))


def confirmation_rows(confirmation: Confirmation) -> list[Row]:
    """Return one flat row for each member, from fast to slow by the new latency.

    The names of the columns are those of confirmed.csv.
    """
    return [_row(move) for move in confirmation.moves]


def confirmation_document(
    confirmation: Confirmation,
    correction: Correction,
    *,
    runs: Iterable[ConfirmedRun],
    lost: Iterable[tuple[int, int, str]] = (),
) -> dict[str, Any]:
    """Return the content of confirmed.json.

    It holds the rows of confirmed.csv, the rank agreement, the gaps between the splits, the bias of brief training and
    the trials that it scored too low, the rounds of the timing session, and all runs.
    """
    gaps = {"brief": confirmation.brief_gap, "full": confirmation.full_gap}
    ranks = confirmation.ranks
    return {
        "members": confirmation_rows(confirmation),
        "spearman": dataclasses.asdict(ranks) if ranks else None,
        "validation_less_test": {name: dataclasses.asdict(gap) if gap else None for name, gap in gaps.items()},
        "splits_differ": confirmation.splits_differ,
        "winners_curse": confirmation.winners_curse,
        "brief_bias": _bias(correction.bias) if correction.bias else None,
        "likely_on_front": [_likely(one) for one in correction.likely],
        "runs": [_run(run) for run in runs],
        "lost": [{"trial": trial, "seed": seed, "reason": reason} for trial, seed, reason in lost],
    }


def _row(move: Move) -> Row:
    record, latency = move.record, move.latency
    row: Row = {
        "trial": record.trial,
        "on_front": move.on_front,
        "added": move.added,
        "beaten_by": _numbers(move.beaten_by),
        "ties": _numbers(move.ties),
        "seeds": move.seeds,
        "steps": move.steps,
        "brief_steps": record.training.steps if record.training else None,
        "brief_score": record.quality.score,
        "brief_score_low": record.quality.score_low,
        "brief_score_high": record.quality.score_high,
    }
    for name, mean in (("val", move.validation), ("test", move.test)):
        row |= {f"{name}_{field.name}": getattr(mean, field.name) for field in dataclasses.fields(mean)}
    for name, found in (("searched", record.latency), ("confirmed", latency)):
        row |= {f"{name}_{part}": value for part, value in latency_cells(found).items()}
    row |= {"timed_together": move.timed_together, "stable": latency.stable}
    row |= {"precision": record.candidate.quantization.precision, "pruned": record.candidate.pruning.label}
    return by_metric(row, record.quality.metric)


def _bias(bias: BriefBias) -> dict[str, Any]:
    """Return the effects in points for 10 points of brief score, a doubling of side or MACs, and being cut."""
    return {
        "networks": bias.networks,
        "mean_gain_points": bias.mean_gain,
        "effects_points": [dataclasses.asdict(effect) for effect in bias.effects],
        "residual_sd_points": bias.residual_sd,
        "left_out_rms_points": dataclasses.asdict(bias.left_out),
    }


def _likely(one: LikelyMember) -> dict[str, Any]:
    corrected = one.corrected
    return {
        "trial": one.record.trial,
        "probability": one.probability,
        "brief_score": one.record.quality.score,
        "corrected_score": corrected.score,
        "corrected_sd": corrected.sd,
        one.record.latency.name: one.record.latency.p50_ms,
    }


def _run(run: ConfirmedRun) -> dict[str, Any]:
    return {
        "trial": run.trial,
        "seed": run.seed,
        "steps": run.steps,
        f"validation_{run.validation.metric}": run.validation.score,
        f"test_{run.test.metric}": run.test.score,
        run.latency.name: run.latency.p50_ms,
        f"rounds_{run.latency.name}": [each.p50_ms for each in run.latency_rounds],
        "onnx_sha256": run.onnx_sha256,
    }


def _numbers(trials: Sequence[int]) -> str:
    return " ".join(map(str, trials))


def gap_text(gap: SplitGap | None) -> str:
    """Return a gap as text: `+1.2 points (-0.4 to +2.8)`, or a dash."""
    if gap is None:
        return "-"
    low, high = gap.mean - gap.half, gap.mean + gap.half
    return f"{100 * gap.mean:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
