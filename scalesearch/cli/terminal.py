"""The one place where text goes to the terminal: control characters in it are shown and never executed.

Every command prints through `echo` here or through `console.PlainConsole`; a test checks that. What `--json` prints is
ASCII already.
"""

import logging
import os
import sys
import traceback

import typer

from scalesearch.plain_text import visible, without_secrets


def echo(text: str = "", *, err: bool = False) -> None:
    """Print a line (to stderr with `err`) with control characters made visible."""
    typer.echo(visible(text), err=err)


def print_traceback(error: BaseException) -> None:
    """Print an error's traceback for developers, without control characters and secrets."""
    lines = "".join(traceback.format_exception(error))
    typer.echo(visible(without_secrets(lines)).rstrip(), err=True)


def prepare_streams() -> None:
    """Make stdout and stderr accept any text, and make control characters in logged warnings visible.

    A character that the terminal's encoding lacks is printed as an escape code instead of raising an error. Files and
    folders that this process and its children make are never writable for everybody, not even at umask 000.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    handler = _ToStderr(logging.WARNING)
    handler.setFormatter(_VisibleFormatter())
    logging.getLogger("scalesearch").addHandler(handler)
    os.umask(os.umask(0o077) | 0o002)


class _ToStderr(logging.Handler):
    """Write to what stderr is at that time: a stream that was replaced may be closed by then."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the formatted message as a line."""
        try:
            sys.stderr.write(f"{self.format(record)}\n")
        except Exception:  # as logging's own handlers: a log line must not end a run
            self.handleError(record)


class _VisibleFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return the message alone, as Python prints warnings where no log was set up."""
        return visible(super().format(record))
