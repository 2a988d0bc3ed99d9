"""`histogram`: what rounding does to each layer of a trial's network, as a table and as pictures."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scalesearch.cli.studies import MovedData, StudyArgument, find_study, read_records
from scalesearch.errors import ConfigError
from scalesearch.values.candidate import CALIBRATED, Quantization
from scalesearch.values.record import TrialRecord

if TYPE_CHECKING:
    from rich.table import Table

    from scalesearch.values.histogram import LayerHistogram

_HEADERS = ("layer", "weights", "range", "99 % in", "wasted", "SQNR", "reads", "clip to", "clipped", "SQNR")


def register(app: typer.Typer) -> None:
    """Add `histogram` to the app."""
    app.command()(histogram)


def histogram(
    study: StudyArgument = None,
    trial: Annotated[int | None, typer.Option("--trial", help="The trial's number (default: the knee).")] = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder for the pictures (default: export/STUDY/trial_N).")
    ] = None,
    data: MovedData = None,
    front: Annotated[bool, typer.Option("--front", help="Every member of the front, a folder each.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="A list of one object per layer on stdout, with the counts; no pictures.")
    ] = False,
) -> int:
    """Look at a trial's weights and activations: clip ranges, what is clipped, and what rounding to 8 bits loses.

    The pictures also go into the study, for `scalesearch dashboard`.
    """
    from scalesearch.cli.studies import front_under
    from scalesearch.data.finding import with_data
    from scalesearch.export.trial_files import trial_histograms
    from scalesearch.records.run_file import stored_session
    from scalesearch.tasks.registry import sources_of

    if front and (trial is not None or as_json):
        message = "Give --front alone: it draws every member, and prints no JSON."
        raise ConfigError(message)
    folder = find_study(study)
    session = stored_session(folder)
    session = with_data(session, data, sources_of(session.settings.task))
    chosen = [_chosen(folder, each.trial) for each in front_under(read_records(folder))] if front else []
    for record in chosen or [_chosen(folder, trial)]:
        name = f"trial_{record.trial:06d}"
        target = to / name if to and front else to or Path("export") / folder.name / name
        with contextlib.nullcontext() if as_json else _made(target, folder.name, record.trial):
            layers = trial_histograms(record, session)
        if as_json:
            rows = [dataclasses.asdict(layer) | {"wasted_range": layer.wasted_range} for layer in layers]
            typer.echo(json.dumps(rows, indent=1, allow_nan=False))
        else:
            _show(folder, record, layers, target)
    return 0


def _show(folder: Path, record: TrialRecord, layers: "Sequence[LayerHistogram]", target: Path) -> None:
    from scalesearch.cli.screen import print_left_out, wide_console
    from scalesearch.dashboard.publisher import keep_histograms

    title = f"{folder.name}, trial {record.trial}: {_numbers(record.candidate.quantization)}"
    console = wide_console()
    console.print(title, markup=False, highlight=False)
    table, left_out = _table(layers, console.width)
    console.print(table)
    print_left_out(console, left_out)
    _draw(layers, target, title)
    keep_histograms(folder, {record.trial: layers})
    for line in (*_remarks(layers, record.candidate.quantization), f"-> {target}/histogram.png, histogram.html"):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _chosen(folder: Path, trial: int | None) -> TrialRecord:
    """Return the record of that trial (None: the knee) or of the trial that it took its results from.

    The trial of the record has a trained network.
    """
    from scalesearch.cli.study_commands import choose_record

    records = read_records(folder)
    record = choose_record(records, trial)
    if record.same_as is not None:
        record = choose_record(records, record.same_as)
    if record.spec is None or record.training is None:
        reason = record.reason or "no reason recorded"
        message = f"Trial {record.trial} has no trained network to look at: {record.state}, {reason}."
        raise ConfigError(message)
    return record


@contextlib.contextmanager
def _made(folder: Path, study: str, trial: int) -> Iterator[None]:
    """Make the folder for the pictures before the work, so that a bad path is reported; remove it if the work fails."""
    from scalesearch.export.target import refuse_other_trial
    from scalesearch.whole_folder import make_folders, remove_empty

    refuse_other_trial(folder, study, trial)
    try:
        made = make_folders(folder)
    except OSError as error:
        message = f"Cannot write to {folder}: {error.strerror}. Give another folder with --to."
        raise ConfigError(message) from None
    try:
        yield
    except BaseException:
        remove_empty(made)
        raise


def _draw(layers: "Sequence[LayerHistogram]", folder: Path, title: str) -> None:
    from scalesearch.views.histogram_page import write_histogram_page
    from scalesearch.views.histogram_picture import draw_histograms

    draw_histograms(layers, folder / "histogram.png", title)
    write_histogram_page(layers, folder / "histogram.html", title)


def _numbers(quantization: Quantization) -> str:
    from scalesearch.views.words import quantization_text

    told = quantization_text(quantization)
    return told if quantization.precision in CALIBRATED else f"{told}, with what int8 (minmax) would do to it"


def _table(layers: "Sequence[LayerHistogram]", width: int) -> "tuple[Table, tuple[str, ...]]":
    """Return the layers side by side for a screen of that width, and the columns left out to fit."""
    from scalesearch.cli.screen import Column, fitted
    from scalesearch.views.histogram_page import clipped_text, range_text, shape_text, sqnr_text

    columns = [
        Column(head=header, keep=len(_HEADERS) - place, right=place > 0, folds=place > 0)
        for place, header in enumerate(_HEADERS)
    ]
    rows = []
    for layer in layers:
        weights, read = layer.weights, layer.activations
        cells = (
            layer.name,
            shape_text(layer),
            range_text(weights.low, weights.high),
            f"{100 * layer.within_99:.0f} %",
            "yes" if layer.wasted_range else "",
            sqnr_text(weights),
            range_text(read.low, read.high),
            range_text(read.clip_low, read.clip_high),
            clipped_text(read),
            sqnr_text(read),
        )
        rows.append(cells)
    bold = [place for place, layer in enumerate(layers) if layer.wasted_range]
    return fitted(width, columns, rows, bold=bold)


def _remarks(layers: "Sequence[LayerHistogram]", quantization: Quantization) -> tuple[str, ...]:
    from scalesearch.views.histogram_page import summary

    lines = list(summary(layers))
    if quantization.float_layers:
        lines.append(f"the deployed file leaves the {quantization.float_layers} layers that suffer most in float")
    if quantization.aware_steps:
        lines.append("shown before quantization-aware training, which learns weights and ranges of its own")
    return tuple(lines)
