"""The whole command line, run in this process: without the seconds that a process of its own takes to load torch."""

import contextlib
import io
import sys
from unittest import mock

from scalesearch.cli import main


def stdout_of(*arguments: str) -> str:
    """Return what the command prints on stdout, after it has ended with code 0."""
    printed = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with mock.patch.object(sys, "argv", ["scalesearch", *arguments]), contextlib.redirect_stdout(printed):
        try:
            main()
        except SystemExit as ended:
            assert not ended.code, f"{arguments}: ended with code {ended.code}"
    printed.seek(0)
    return printed.read()
