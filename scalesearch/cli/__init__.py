"""The command line: turns flags into calls, prints results, and sets exit codes."""

import errno
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
from scalesearch.cli.screen import usable_sizes
from scalesearch.cli.terminal import prepare_streams, print_traceback
from scalesearch.errors import ScalesearchError
from scalesearch.execution.stopping import interrupted_by_sigterm
from scalesearch.plain_text import error_text

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
    """Run the command line. A known error is printed in at most three lines on stderr and gives its exit code."""
    # On a busy machine, OpenMP threads that spin for long at a barrier take the cores from each other. On two cores
    # shared with one other process, this setting made a training step faster at 64 px (116 instead of 163 ms), though
    # slower at 32 px (67 instead of 59 ms); on a quiet machine nothing changed. The variable is read when torch is
    # loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    prepare_streams()
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    for name in os.environ.keys() - usable_sizes(os.environ).keys():  # COLUMNS=0 would print nothing, in help as well
        del os.environ[name]
    try:
        with interrupted_by_sigterm():
            code = app(args=arguments, standalone_mode=False)
        sys.stdout.flush()  # a closed pipe is noticed here, not at the interpreter's exit
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        _close_stdout()
        sys.exit(0)
    except SystemExit as end:  # click and Rich answer a closed pipe with code 1
        if not _is_broken_pipe(end):
            raise
        _close_stdout()
        sys.exit(0)
    except typer.Exit as end:  # raised by a callback such as --version
        sys.exit(end.exit_code)
    except Exception as error:
        if _is_broken_pipe(error):
            _close_stdout()
            sys.exit(0)
        if debug and not _is_usage_error(error):
            print_traceback(error)
        sys.exit(_explain(error))
    sys.exit(code if isinstance(code, int) else 0)


def _close_stdout() -> None:
    """Discard what Python would still flush to stdout: its reader has closed the pipe (`| head`)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_broken_pipe(error: BaseException | None) -> bool:
    """Tell whether the error comes from a closed pipe on stdout, however it was wrapped on the way."""
    while error is not None:
        if isinstance(error, OSError) and error.errno == errno.EPIPE:
            return True
        error = error.__cause__ or error.__context__
    return False


def _explain(error: Exception) -> int:
    """Print the error in at most three lines on stderr and return its exit code."""
    if isinstance(error, ScalesearchError):
        _complain(str(error))
        return error.exit_code
    if _is_usage_error(error):
        _complain(f"{error.format_message()}\nSee `scalesearch --help`.")  # type: ignore[attr-defined]
        return 2
    if _is_lack_of_memory(error):
        _complain(
            f"There is not enough memory: {_first_line(error)}\nFinished trials are on disk. Free memory, or ask for "
            "less: fewer workers, a smaller resolution, width or batch size."
        )
        return 1
    if isinstance(error, ImportError) and not (error.name or "").startswith("scalesearch"):
        _complain(
            f"A library cannot be loaded: {_first_line(error)}\nInstall it (again), or free memory if it is there: "
            "`scalesearch doctor` tells what is installed."
        )
        return 3
    if isinstance(error, OSError) and error.errno:
        where = f" ({os.fsdecode(error.filename)})" if isinstance(error.filename, str | bytes) else ""
        _complain(
            f"The system refused: {error.strerror}{where}.\nFinished trials are on disk: mend the cause and type the "
            "same command again to go on,\nor give another folder with --to."
        )
        return 1
    _complain(
        f"This is a bug in scalesearch: {type(error).__name__}: {_first_line(error)}\n"
        "Run again with --debug and report the traceback."
    )
    return 1


def _is_lack_of_memory(error: Exception) -> bool:
    """Tell whether memory ran out: in Python, in NumPy, in torch, or in a library that is being loaded."""
    words = ("DefaultCPUAllocator", "out of memory", "Cannot allocate memory", "cannot allocate", "std::bad_alloc")
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, RuntimeError | ImportError) and any(word in str(error) for word in words))
        or (isinstance(error, ImportError) and "failed to map segment" in str(error))
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _is_usage_error(error: Exception) -> bool:
    # Typer brings its own copy of click or uses the installed one, so click errors are recognised by their attributes,
    # not by their class.
    return hasattr(error, "format_message") and getattr(error, "exit_code", None) == 2


def _complain(text: str) -> None:
    typer.secho(error_text(f"error: {text}"), err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
