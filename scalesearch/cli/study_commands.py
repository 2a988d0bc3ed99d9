"""Commands that read a study: `front`, `show` and `dashboard`."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scalesearch.cli.front_table import knee_of, print_front
from scalesearch.cli.screen import NARROW, wide_console
from scalesearch.cli.studies import (
    StudyArgument,
    find_study,
    front_under,
    parse_fraction,
    parse_latency_ms,
    read_records,
)
from scalesearch.cli.terminal import echo
from scalesearch.errors import ConfigError
from scalesearch.values.record import TrialRecord

if TYPE_CHECKING:
    from rich.console import Console

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
    min_accuracy: Annotated[
        str | None, typer.Option("--min-accuracy", help="Only with this score: 0.8 or 80%.")
    ] = None,
) -> int:
    """Show the Pareto front: score of what was deployed against latency measured on the chip."""
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


def choose_record(records: Sequence[TrialRecord], trial: int | None) -> TrialRecord:
    """Return the record of that trial, or of the knee.

    Raises:
        ConfigError: There is no such trial.
        NoFeasibleTrialError: The knee was asked for, and there is no front.
    """
    if trial is None:
        return knee_of(records)
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
    from scalesearch.study.metric import stored_metric

    numbers = {record.trial for record in pareto_front(records)}
    metric = stored_metric(folder, records)
    return trial_rows(records, front=numbers, scores=read_front_scores(folder), metric=metric)


def _front_text(folder: Path, records: Sequence[TrialRecord], members: Sequence[TrialRecord], *, as_csv: bool) -> str:
    from scalesearch.records.tables import csv_text, front_rows

    numbers = {record.trial for record in members}
    every = _rows(folder, records)
    rows = [row for row in front_rows(every) if row["trial"] in numbers]
    return csv_text(rows, columns=list(every[0])) if as_csv else _json(rows)


def _json(rows: "Sequence[Row]") -> str:
    return json.dumps(rows, indent=1, allow_nan=False)


def _print_trial(console: "Console", record: TrialRecord, folder: Path) -> None:

    from rich.table import Table

    from scalesearch.records.front_scores import read_front_scores
    from scalesearch.tasks.registry import parts_of, views_of
    from scalesearch.views.description import describe

    score = next((score for score in read_front_scores(folder) if score.trial == record.trial), None)
    views = views_of(record)
    parts = parts_of(record, "" if views else _task_of(folder))
    sections = describe(record, score, task_sections=views.sections(record) if views else (), parts=parts)
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


def _task_of(folder: Path) -> str:
    """Return the name of a study's task; empty if run.toml is not there or damaged, without which a trial is shown."""
    from scalesearch.records.run_file import read_run_file

    with contextlib.suppress(ConfigError):
        session = read_run_file(folder)
        return session.settings.task if session else ""
    return ""


def _print_stacked(console: "Console", section: "Section") -> None:
    from rich.padding import Padding
    from rich.text import Text

    console.print()
    console.print(Text(section.title, style="bold cyan"))
    for label, text in section.lines:
        console.print(Text(label, style="dim"))
        console.print(Padding(Text(text, overflow="fold"), (0, 0, 0, 2)))
