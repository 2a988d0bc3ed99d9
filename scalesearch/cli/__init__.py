"""Flags to calls, printing, exit codes."""

import importlib.metadata
import os
import sys
from typing import Annotated, NoReturn

import typer

from scalesearch.cli import (
    compare,
    compiling,
    confirm,
    export,
    histogram,
    information,
    pick,
    predict,
    report,
    run,
    sensitivity,
    study_commands,
)
from scalesearch.errors import ScalesearchError
from scalesearch.search.stopping import interrupted_by_sigterm

app = typer.Typer(
    name="scalesearch",
    help="How small, deep, wide, pruned and in which precision should my vision network be, for MY data on MY chip?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with `scalesearch run --budget 8`. Add --debug to any command for a traceback.",
)
for group in (
    run,
    study_commands,
    report,
    pick,
    compare,
    compiling,
    confirm,
    sensitivity,
    export,
    predict,
    histogram,
    information,
):
    group.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"scalesearch {importlib.metadata.version('scalesearch')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def main() -> NoReturn:
    """Run the command line; known errors become at most three lines on stderr and their exit code."""
    # OpenMP threads that spin long at a barrier take the cores from each other on a busy machine: on two cores beside
    # one other process a training step took 116 instead of 163 ms at 64 px with this, though 67 instead of 59 at 32 px;
    # on a quiet machine nothing changed. Read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        with interrupted_by_sigterm():
            code = app(args=arguments, standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # The reader has had enough (`| head`); what Python would still flush has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if debug and not _is_usage_error(error):
            raise
        sys.exit(_explain(error))
    sys.exit(code if isinstance(code, int) else 0)


def _explain(error: Exception) -> int:
    """Says the error in at most three lines on stderr and gives its exit code."""
    if isinstance(error, ScalesearchError):
        _complain(str(error))
        return error.exit_code
    if _is_usage_error(error):
        _complain(f"{error.format_message()}\nSee `scalesearch --help`.")  # type: ignore[attr-defined]
        return 2
    if isinstance(error, OSError) and error.errno:
        where = f" ({error.filename})" if error.filename else ""
        _complain(
            f"The system refused: {error.strerror}{where}.\nFinished trials are on disk: mend the cause and type the "
            "same command again to go on,\nor give another folder with --to."
        )
        return 1
    reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    _complain(f"This is a bug in scalesearch: {reason}\nRun again with --debug and report the traceback.")
    return 1


def _is_usage_error(error: Exception) -> bool:
    # Typer brings its own copy of click or uses the installed one: known by its shape, not by its class.
    return hasattr(error, "format_message") and getattr(error, "exit_code", None) == 2


def _complain(text: str) -> None:
    typer.secho(f"error: {text}", err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
