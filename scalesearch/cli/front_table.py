"""The front as a table on a screen: what was scored and timed, its members, and what cannot be told apart."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from scalesearch.cli.screen import Column, command_word, fitted, print_left_out
from scalesearch.cli.studies import data_text, front_under, train_images_of
from scalesearch.errors import ConfigError
from scalesearch.values.record import FrontScore, MeasuredTrial, TrialRecord
from scalesearch.views.words import score_noun_of

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_front(
    console: "Console",
    records: Sequence[TrialRecord],
    folder: Path,
    *,
    members: Sequence[MeasuredTrial] | None = None,
) -> None:
    """Print the front (or `members` of it) as a table, with what was scored, where, and what cannot be told apart.

    Raises:
        NoFeasibleTrialError: The records hold no front.
    """
    from scalesearch.records.front_scores import read_front_scores

    shown = front_under(records) if members is None else members
    scores = {score.trial: score for score in read_front_scores(folder)}
    for line in _heading(records, shown, folder):
        console.print(line, markup=False, highlight=False)
    knee = knee_of(records).trial
    table, left_out = _front_table(shown, scores, knee=knee, width=console.width)
    console.print(table)
    print_left_out(console, left_out)
    for line in (*_footnotes(shown, scores, knee=knee), *_confirmed(folder, records), *_what_paid(records)):
        console.print(line, markup=False, highlight=False)


def knee_of(records: Sequence[TrialRecord]) -> MeasuredTrial:
    """Return the knee of the records' front.

    Raises:
        NoFeasibleTrialError: The records hold no front.
    """
    from scalesearch.analysis.front import knee

    found = knee(front_under(records))
    assert found is not None  # front_under raises on an empty front
    return found


def _heading(records: Sequence[TrialRecord], shown: Sequence[MeasuredTrial], folder: Path) -> list[str]:
    from scalesearch.views.words import device_text

    first, members = shown[0], front_under(records)
    within = f", {len(shown)} of them within the bounds" * (len(shown) < len(members))
    data = data_text(folder)
    images = f"{first.quality.images} validation images{f' of {data}' if data else ''}"
    lines = [
        f"{folder}: {len(members)} of {len(records)} trials on the front{within}"
        f" ({sum(record.feasible and record.same_as is None for record in records)} feasible)",
        f"scored: the deployed file itself, on {images}",
    ]
    if first.device:
        lines.append(f"timed:  {device_text(first.device)}, batch {first.latency.batch}")
    return lines


def _front_table(
    shown: Sequence[MeasuredTrial], scores: dict[int, FrontScore], *, knee: int, width: int
) -> "tuple[Table, tuple[str, ...]]":
    """Return the table for a screen of that width, and the columns left out to fit.

    Where the cells do not fit in one line each, intervals and sizes go to a second line of their cells; after that,
    columns are left out.
    """
    columns, cells = _front_columns(shown, scores, knee=knee)
    rows = [[cell(record) for cell in cells] for record in shown]
    bold = [place for place, record in enumerate(shown) if record.trial == knee]
    table, left_out = fitted(width, columns, rows, bold=bold, ruled=True)
    if not left_out:
        return table, ()
    stacked = [
        replace(column, head=column.head.replace(" ", "\n", 1).replace("precision", "preci-\nsion"))
        for column in columns
    ]
    broken = [
        [cell.replace(" (", "\n(").replace(", ", ",\n").replace(" x ", "x").replace(" but", "\nbut") for cell in row]
        for row in rows
    ]
    return fitted(width, stacked, broken, bold=bold)


def _front_columns(
    shown: Sequence[MeasuredTrial], scores: dict[int, FrontScore], *, knee: int
) -> tuple[list[Column], list[Callable[[TrialRecord], str]]]:
    """Return the columns of the front, and for each column the function that makes its cell for a trial."""
    from scalesearch.views import columns as of

    def marked(record: TrialRecord) -> str:
        unstable = record.latency is not None and record.latency.unsettled
        return f"{'*' * (record.trial == knee)}{'!' * unstable}{record.trial}"

    kept = [
        (of.number_column(marked), 9),
        (of.score_column(shown), 8),
        *((column, 4) for column in of.tested_columns(scores, lambda quality: f"{100 * quality.score:.1f}")),
        (of.latency_column(shown), 7),
        (of.MACS_AND_SIZE, 3),
        (of.SIDES, 2),
        (of.SHAPE, 1),
        (of.PRUNED, 5),
        (of.PRECISION, 6),
    ]
    columns = [Column(head=column.head, keep=keep, right=column.right) for column, keep in kept]
    return columns, [column.cell for column, _ in kept]


def _footnotes(shown: Sequence[MeasuredTrial], scores: dict[int, FrontScore], *, knee: int) -> list[str]:
    from scalesearch.analysis.front import ties
    from scalesearch.analysis.timing_doubts import timing_doubts

    lines, noun = [], score_noun_of(shown)
    if any(record.trial == knee for record in shown):
        lines.append(f"* trial {knee} is the knee: the best trade of {noun} for latency (on a log scale)")
    pairs = ties(shown)
    if pairs:
        told = ", ".join(f"{one} = {other}" for one, other in pairs)
        lines.append(f"ties: {told} (both 95 % intervals overlap: these images and timings cannot tell them apart)")
    if any(record.latency and record.latency.unsettled for record in shown):
        lines.append("! its latency did not settle within the time limit (why: `scalesearch show --trial N`)")
    lines += timing_doubts(shown)
    if any(record.candidate.scaling.stages for record in shown):
        lines.append("x* its stages are scaled apart: see `scalesearch show --trial N`")
    flagged = [str(record.trial) for record in shown if any(gain.no_gain for gain in record.gains)]
    if flagged:
        told = f"is not faster beyond doubt, and no gain of {noun} is known"
        lines.append(f"no gain: a compression step of trial {', '.join(flagged)} {told}")
    if scores:
        lines.append("test: the same file on images that the search never saw")
    return lines


def _trained_on(records: Sequence[TrialRecord]) -> list[str]:
    """Return lines on what the search's own longer trainings tell about the front, or that they tell nothing."""
    from scalesearch.analysis.front import pareto_front
    from scalesearch.views.words import unknown_bias_line

    if any(record.full_updates for record in records):
        from scalesearch.analysis.longer_trainings import longer_trainings
        from scalesearch.views.brief_bias import longer_lines

        if found := longer_trainings(records):
            return list(longer_lines(found))
    return [unknown_bias_line(pareto_front(records))]


def _confirmed(folder: Path, records: Sequence[TrialRecord]) -> list[str]:
    """Return lines on where the confirmed front is stored, and on how it corrects the front that is shown."""
    from scalesearch.records.confirmed import confirmed_hint

    hint = confirmed_hint(folder)
    if not hint:
        return _trained_on(records)
    from scalesearch.analysis.front import pareto_front
    from scalesearch.analysis.likely_members import correct
    from scalesearch.confirm.request import command_for
    from scalesearch.study.view import stored_confirmation
    from scalesearch.views.brief_bias import correction_lines

    front = pareto_front(records)
    try:
        confirmation = stored_confirmation(folder, front, records)
    except ConfigError as error:  # the searched front can be shown all the same
        return [hint, f"warning: {error}"]
    if confirmation is None:
        return [hint]
    command = command_for(command_word(folder), confirmation.moves, train_images=train_images_of(folder))
    return [hint, *correction_lines(confirmation, correct(confirmation, front, records), command=command)]


def _what_paid(records: Sequence[TrialRecord]) -> list[str]:
    from scalesearch.analysis.paid import paid_lines

    lines = paid_lines(records)
    return ["", "what paid on this chip, each step against the same network without it:", *lines] if lines else []
