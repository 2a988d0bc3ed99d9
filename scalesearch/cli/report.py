"""`report`: a whole study as one HTML file."""

import time
from pathlib import Path
from typing import Annotated

import typer

from scalesearch.cli.studies import MovedData, StudyArgument, find_study
from scalesearch.cli.terminal import echo
from scalesearch.errors import ConfigError, MissingBackendError

_NAME = "report.html"
_HEAD_BYTES = 100_000
"""Number of bytes at the beginning of a report that contain its title."""


def register(app: typer.Typer) -> None:
    """Add `report` to the app."""
    app.command()(report)


def report(
    study: StudyArgument = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="File, or a folder for it (default: report.html in the study).")
    ] = None,
    data: MovedData = None,
) -> int:
    """Write the study as one HTML file that works offline: front, axes, compression, classes, weights, warnings.

    It reads no images; with --data it checks, before it writes, that those there are the study's.
    """
    folder = find_study(study)
    target = _target(to) if to else folder / _NAME
    if data is not None:
        from scalesearch.data.finding import with_data
        from scalesearch.records.run_file import stored_session
        from scalesearch.tasks.registry import sources_of

        session = stored_session(folder)
        with_data(session, data, sources_of(session.settings.task))
    from scalesearch.dashboard.publisher import installed, stored_histograms
    from scalesearch.report.page import write_page
    from scalesearch.study.contents import read_contents

    began = time.monotonic()
    unreadable = ""
    try:
        histograms = stored_histograms(folder)
    except (ConfigError, MissingBackendError) as error:  # everything else is in the records
        echo(f"warning: left out are weights and activations: {error}", err=True)
        histograms, unreadable = {}, str(error)
    if not installed():
        unreadable = "that needs the extra `dashboard`: pip install 'scalesearch[dashboard]'"
    found = read_contents(folder, histograms=histograms, without_histograms=unreadable)
    if found.unreadable:
        echo(f"warning: left out is the confirmed front: {found.unreadable}", err=True)
    try:
        size_bytes = write_page(found, target)
    except OSError as error:
        message = f"Cannot write {target}: {error.strerror}.\nGive a file elsewhere with --to FILE.html."
        raise ConfigError(message) from None
    echo(f"{folder} -> {target} ({size_bytes / 1e6:.1f} MB, {time.monotonic() - began:.1f} s): open it in a browser")
    return 0


def _target(to: Path) -> Path:
    target = to / _NAME if to.is_dir() else to
    if target.is_symlink():
        message = f"--to {to}: {target} is a link, and the report would take its place. Give what it leads to."
        raise ConfigError(message)
    if target.exists() and not _is_report(target):
        message = f"--to {to}: {target} is there, and no report of scalesearch. Move it away, or give another name."
        raise ConfigError(message)
    if target != to:
        return target
    if to.suffix.lower() not in (".html", ".htm"):
        message = f"--to {to}: expected a file that ends in .html, or a folder that is there."
        raise ConfigError(message)
    return to


def _is_report(path: Path) -> bool:
    from scalesearch.report.page import TITLE_END

    if not path.is_file():
        return False
    with path.open("rb") as file:
        return TITLE_END.encode() in file.read(_HEAD_BYTES)
