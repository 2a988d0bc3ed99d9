"""`sensitivity`: what each layer of a trial's network loses with its channels."""

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from scalesearch.cli.studies import MovedData, StudyArgument, find_study, read_records
from scalesearch.errors import ConfigError

if TYPE_CHECKING:
    from scalesearch.compression.sensitivity import LayerSensitivity


def register(app: typer.Typer) -> None:
    """Add `sensitivity` to the app."""
    app.command()(sensitivity)


def sensitivity(
    study: StudyArgument = None,
    trial: Annotated[int | None, typer.Option("--trial", help="The trial's number (default: the knee).")] = None,
    data: MovedData = None,
    as_json: Annotated[bool, typer.Option("--json", help="A list of one object per layer and fraction.")] = False,
) -> int:
    """Show how much score each layer costs when it alone loses channels, without retraining.

    The trial's dense network is judged on the calibration images. `pruning.scope = "sensitivity"` prunes by this.
    """
    from scalesearch.chain.layer_sensitivity import layer_sensitivity
    from scalesearch.cli.screen import Column, print_table, wide_console
    from scalesearch.cli.study_commands import choose_record
    from scalesearch.data.finding import with_data
    from scalesearch.records.run_file import stored_session
    from scalesearch.tasks.registry import sources_of
    from scalesearch.views.words import score_title

    folder = find_study(study)
    record = choose_record(read_records(folder), trial)
    if record.spec is None:
        message = f"Trial {record.trial} never became a network: {record.state}, {record.reason or 'no reason known'}."
        raise ConfigError(message)
    session = stored_session(folder)
    session = with_data(session, data, sources_of(session.settings.task))
    layers, score, images = layer_sensitivity(session, record.candidate)
    if as_json:
        typer.echo(json.dumps(_rows(layers), indent=1))
        return 0
    console = wide_console()
    before = f"{100 * score:.1f} % before"
    lost = f"points of {score_title([record])} lost"
    title = f"{folder}, trial {record.trial}: {lost} on {images} calibration images ({before})"
    console.print(title, highlight=False, markup=False)
    fractions = sorted({point.fraction for layer in layers for point in layer.points})
    columns = [Column(head="layer", keep=99), Column(head="channels", keep=0, right=True)]
    columns += [
        Column(head=f"-{100 * fraction:.0f} %", keep=1 + place, right=True) for place, fraction in enumerate(fractions)
    ]
    rows = []
    for layer in layers:
        points = {point.fraction: point for point in layer.points}
        cells = [f"{100 * points[each].loss:.1f} ({points[each].channels_left})" for each in fractions]
        rows.append([layer.name, str(layer.channels), *cells])
    print_table(console, columns, rows)
    console.print("In brackets: the channels that are left. Fractions round to what the chip wants.", highlight=False)
    return 0


def _rows(layers: "tuple[LayerSensitivity, ...]") -> list[dict[str, object]]:
    return [
        {"layer": layer.name, "channels": layer.channels, **dataclasses.asdict(point)}
        for layer in layers
        for point in layer.points
    ]
