"""The columns of tables of trials for people, each with its header and its cells: in a terminal, report or card.

The columns for programs, in `trials.csv`, `front.csv` and `--json`, are those of `records.tables`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from scalesearch.values.quality import Quality, metric_title
from scalesearch.values.record import FrontScore, TrialRecord
from scalesearch.views.words import (
    accuracy_with_interval,
    bytes_text,
    count,
    latency_title,
    latency_with_interval,
    score_title,
    shape_text,
)

NONE: Final = "-"
"""The cell for a value that a trial does not have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialColumn:
    """A column of a table with one row for each trial."""

    head: str
    cell: Callable[[TrialRecord], str]
    right: bool = True
    """Whether its cells stand at the right, as numbers do."""


def number_column(marked: Callable[[TrialRecord], str]) -> TrialColumn:
    """Return the column of trial numbers, which each table marks in its own way."""
    return TrialColumn(head="trial", cell=marked)


def score_column(records: Iterable[TrialRecord], *, metric: str = "") -> TrialColumn:
    """Return the column of scores with their intervals; its header is `metric`, or the metric of these records."""
    return TrialColumn(
        head=f"{metric_title(metric) if metric else score_title(records)}, %",
        cell=lambda record: accuracy_with_interval(record.quality) if record.quality else NONE,
    )


def tested_columns(scores: Mapping[int, FrontScore], words: Callable[[Quality], str]) -> tuple[TrialColumn, ...]:
    """Return the column of test scores; none where no trial has one.

    Args:
        scores: The second evaluations of front members by trial number.
        words: How a score is written.
    """
    if not scores:
        return ()
    found = {trial: words(score.test) for trial, score in scores.items()}
    return (TrialColumn(head="test, %", cell=lambda record: found.get(record.trial, NONE)),)


def latency_column(records: Iterable[TrialRecord]) -> TrialColumn:
    """Return the column of latencies with their intervals; its header says which latency these records have."""
    return TrialColumn(
        head=f"{latency_title(records)}, ms",
        cell=lambda record: latency_with_interval(record.latency) if record.latency else NONE,
    )


MACS: Final = TrialColumn(head="MACs", cell=lambda record: count(record.cost.macs) if record.cost else NONE)
PARAMETERS: Final = TrialColumn(
    head="parameters", cell=lambda record: count(record.cost.params) if record.cost else NONE
)
FILE: Final = TrialColumn(
    head="file", cell=lambda record: NONE if record.size_bytes is None else bytes_text(record.size_bytes)
)
MACS_AND_SIZE: Final = TrialColumn(head="MACs, size", cell=lambda record: f"{MACS.cell(record)}, {FILE.cell(record)}")
SIDES: Final = TrialColumn(head="px", cell=lambda record: record.spec.input_size.label if record.spec else NONE)
RESOLUTION: Final = TrialColumn(
    head="resolution",
    cell=lambda record: (
        f"x {record.candidate.scaling.resolution:.4g}" + (f" = {record.spec.input_size}" if record.spec else "")
    ),
)
SHAPE: Final = TrialColumn(head="depth x width x kernel", cell=shape_text)
PRUNED: Final = TrialColumn(
    head="pruned", cell=lambda record: record.candidate.pruning.label.removeprefix("channels ") or NONE
)
PRECISION: Final = TrialColumn(head="precision", cell=lambda record: record.candidate.quantization.label, right=False)
