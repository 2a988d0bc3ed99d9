"""Commands that read a study: `front`, `show` and `dashboard`."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scalesearch.cli.screen import NARROW, Column, fitted, print_left_out, wide_console
from scalesearch.cli.studies import (
    StudyArgument,
    data_text,
    find_study,
    front_under,
    parse_fraction,
    parse_latency_ms,
    read_records,
)
from scalesearch.cli.terminal import echo
from scalesearch.errors import ConfigError
from scalesearch.values.record import FrontScore, MeasuredTrial, TrialRecord

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from scalesearch.records.tables import Row
    from scalesearch.views.description import Section


def register(app: typer.Typer) -> None:
    """Add `front`, `show` and `dashboard` to the app."""
    app.command()(front)
    app.command()(show)
    app.command()(dashboard)


def front(
    study: StudyArgument = None,
    as_json: Annotated[bool, typer.Option("--json", help="A list of objects on stdout, nothing else.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="The same rows as front.csv on stdout.")] = False,
    max_latency: Annotated[str | None, typer.Option("--max-latency", help="Only these: 5ms, 0.5s.")] = None,
    min_accuracy: Annotated[str | None, typer.Option("--min-accuracy", help="Only these: 0.8 or 80%.")] = None,
) -> int:
    """Show the Pareto front: accuracy of what was deployed against latency measured on the chip."""
    if as_json and as_csv:
        message = "give one of --json and --csv: stdout holds one of them."
        raise ConfigError(message)
    max_latency_ms = None if max_latency is None else parse_latency_ms(max_latency)
    min_score = None if min_accuracy is None else parse_fraction(min_accuracy)
    folder = find_study(study)
    records = read_records(folder)
    members = front_under(records, max_latency_ms=max_latency_ms, min_score=min_score)
    if as_json or as_csv:
        typer.echo(_front_text(folder, records, members, as_csv=as_csv), nl=not as_csv)
    else:
        print_front(wide_console(), records, folder, members=members)
    return 0


def show(
    study: StudyArgument = None,
    trial: Annotated[int | None, typer.Option("--trial", help="The trial's number (default: the knee).")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="A list of one object on stdout; the whole record is in records/.")
    ] = False,
) -> int:
    """Show everything of one trial: what was asked, what it became, and what was measured."""
    folder = find_study(study)
    records = read_records(folder)
    record = choose_record(records, trial)
    if as_json:
        typer.echo(_json([row for row in _rows(folder, records) if row["trial"] == record.trial]))
    else:
        _print_trial(wide_console(), record, folder)
    return 0


def dashboard(
    study: StudyArgument = None,
    port: Annotated[int, typer.Option("--port", help="Port on 127.0.0.1; 0 takes any free one.")] = 8080,
) -> int:
    """Open the study in Optuna Dashboard, on this machine only, while it runs or afterwards."""
    folder = find_study(study)
    from scalesearch.dashboard.server import DashboardServer, complete_notes
    from scalesearch.records.store import RecordStore

    with DashboardServer(folder, port=port) as server:
        complete_notes(folder, RecordStore(folder).all())
        echo(f"{folder} in Optuna Dashboard: {server.url}   (Ctrl-C ends it)")
        try:
            server.serve()
        except KeyboardInterrupt:
            echo()
    return 0


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
    knee = _knee(records).trial
    table, left_out = _front_table(shown, scores, knee=knee, width=console.width)
    console.print(table)
    print_left_out(console, left_out)
    for line in (*_footnotes(shown, scores, knee=knee), *_confirmed(folder), *_what_paid(records)):
        console.print(line, markup=False, highlight=False)


def _knee(records: Sequence[TrialRecord]) -> MeasuredTrial:
    from scalesearch.analysis.front import knee

    found = knee(front_under(records))
    assert found is not None  # front_under raises on an empty front
    return found


def choose_record(records: Sequence[TrialRecord], trial: int | None) -> TrialRecord:
    """Return the record of that trial, or of the knee.

    Raises:
        ConfigError: There is no such trial.
        NoFeasibleTrialError: The knee was asked for, and there is no front.
    """
    if trial is None:
        return _knee(records)
    for record in records:
        if record.trial == trial:
            return record
    numbers = [record.trial for record in records]
    message = (
        f"--trial {trial}: no such trial; this study has {len(numbers)}, numbered {min(numbers)} to {max(numbers)}."
    )
    raise ConfigError(message)


def _rows(folder: Path, records: Sequence[TrialRecord]) -> "list[Row]":
    from scalesearch.analysis.front import pareto_front
    from scalesearch.records.front_scores import read_front_scores
    from scalesearch.records.tables import trial_rows

    numbers = {record.trial for record in pareto_front(records)}
    return trial_rows(records, front=numbers, scores=read_front_scores(folder))


def _front_text(folder: Path, records: Sequence[TrialRecord], members: Sequence[TrialRecord], *, as_csv: bool) -> str:
    from scalesearch.records.tables import csv_text, front_rows

    numbers = {record.trial for record in members}
    rows = [row for row in front_rows(_rows(folder, records)) if row["trial"] in numbers]
    return csv_text(rows) if as_csv else _json(rows)


def _json(rows: "Sequence[Row]") -> str:
    return json.dumps(rows, indent=1, allow_nan=False)


def _heading(records: Sequence[TrialRecord], shown: Sequence[MeasuredTrial], folder: Path) -> list[str]:
    from scalesearch.views.words import device_text

    first = shown[0]
    data = data_text(folder)
    images = f"{first.quality.images} validation images{f' of {data}' if data else ''}"
    lines = [
        f"{folder}: {len(shown)} of {len(records)} trials on the front"
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
    """Return the columns of the front and what makes their cells."""
    from scalesearch.views import columns as of

    def marked(record: TrialRecord) -> str:
        unstable = record.latency is not None and not record.latency.stable
        return f"{'*' * (record.trial == knee)}{'!' * unstable}{record.trial}"

    kept = [
        (of.number_column(marked), 9),
        (of.score_column(shown), 8),
        *((column, 4) for column in of.tested_columns(scores, lambda quality: f"{100 * quality.score:.1f}")),
        (of.LATENCY, 7),
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

    lines = []
    if any(record.trial == knee for record in shown):
        lines.append(f"* trial {knee} is the knee: the best trade of accuracy for latency (on a log scale)")
    pairs = ties(shown)
    if pairs:
        told = ", ".join(f"{one} = {other}" for one, other in pairs)
        lines.append(f"ties: {told} (both 95 % intervals overlap: these images and timings cannot tell them apart)")
    if any(record.latency and not record.latency.stable for record in shown):
        lines.append("! its latency did not settle within the time limit (why: `scalesearch show --trial N`)")
    lines += timing_doubts(shown)
    if any(record.candidate.scaling.stages for record in shown):
        lines.append("x* its stages are scaled apart: see `scalesearch show --trial N`")
    flagged = [str(record.trial) for record in shown if any(gain.no_gain for gain in record.gains)]
    if flagged:
        lines.append(f"no gain: a compression step of trial {', '.join(flagged)} costs accuracy and is not faster")
    if scores:
        lines.append("test: the same file on images that the search never saw")
    return lines


def _confirmed(folder: Path) -> list[str]:
    from scalesearch.records.confirmed import confirmed_hint

    hint = confirmed_hint(folder)
    return [hint] if hint else []


def _what_paid(records: Sequence[TrialRecord]) -> list[str]:
    from scalesearch.analysis.paid import paid_lines

    lines = paid_lines(records)
    return ["", "what paid on this chip, each step against the same network without it:", *lines] if lines else []


def _print_trial(console: "Console", record: TrialRecord, folder: Path) -> None:
    from rich.table import Table

    from scalesearch.records.front_scores import read_front_scores
    from scalesearch.tasks.registry import views_of
    from scalesearch.views.description import describe

    score = next((score for score in read_front_scores(folder) if score.trial == record.trial), None)
    views = views_of(record)
    sections = describe(record, score, task_sections=views.sections(record) if views else ())
    # One width for all labels, so that the values of every part stand in one column.
    width = max(len(label) for section in sections for label, _ in section.lines)
    console.print(f"trial {record.trial} of {folder}", style="bold", highlight=False)
    for section in sections:
        if console.width < NARROW:
            _print_stacked(console, section)
            continue
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), title=section.title, title_justify="left")
        table.title_style = "bold cyan"
        table.add_column(min_width=min(width, 24), max_width=24, style="dim")
        table.add_column(overflow="fold")
        for label, text in section.lines:
            table.add_row(label, text)
        console.print()
        console.print(table)


def _print_stacked(console: "Console", section: "Section") -> None:
    from rich.padding import Padding
    from rich.text import Text

    console.print()
    console.print(Text(section.title, style="bold cyan"))
    for label, text in section.lines:
        console.print(Text(label, style="dim"))
        console.print(Padding(Text(text, overflow="fold"), (0, 0, 0, 2)))
