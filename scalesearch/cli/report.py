"""`report`: a whole study as one HTML file."""

import time
from pathlib import Path
from typing import Annotated

import typer

from scalesearch.cli.studies import StudyArgument, find_study
from scalesearch.errors import ConfigError

_NAME = "report.html"


def register(app: typer.Typer) -> None:
    """Adds `report` to the app."""
    app.command()(report)


def report(
    study: StudyArgument = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="File, or a folder for it (default: report.html in the study).")
    ] = None,
) -> int:
    """Write the study as one HTML file that works offline: front, axes, compression, classes, weights, warnings."""
    folder = find_study(study)
    target = _target(to) if to else folder / _NAME
    from scalesearch.report.page import write_page
    from scalesearch.report.study import read_study
    from scalesearch.search.dashboard import stored_histograms

    began = time.monotonic()
    try:
        histograms = stored_histograms(folder)
    except ConfigError as error:  # all else is in the records
        typer.echo(f"warning: left out are weights and activations: {error}", err=True)
        histograms = {}
    study = read_study(folder, histograms=histograms)
    try:
        size_bytes = write_page(study, target)
    except OSError as error:
        message = f"Cannot write {target}: {error.strerror}.\nGive a file elsewhere with --to FILE.html."
        raise ConfigError(message) from None
    typer.echo(
        f"{folder} -> {target} ({size_bytes / 1e6:.1f} MB, {time.monotonic() - began:.1f} s): open it in a browser"
    )
    return 0


def _target(to: Path) -> Path:
    if to.is_dir():
        return to / _NAME
    if to.suffix.lower() not in (".html", ".htm"):
        message = f"--to {to}: expected a file that ends in .html, or a folder that is there."
        raise ConfigError(message)
    return to
