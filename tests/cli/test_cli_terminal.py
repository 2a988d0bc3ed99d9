"""The printing edge: foreign words reach the terminal as they are, and have no power over it."""

import io
import re
from pathlib import Path
from typing import Any

import pytest

from scalesearch import cli
from scalesearch.cli import _explain
from scalesearch.cli.console import PlainConsole
from scalesearch.cli.screen import wide_console
from scalesearch.cli.terminal import echo
from scalesearch.errors import ConfigError

HOSTILE = "[bold]wide[/b] :smile: pip install 'scalesearch[rtx]' \x1b[31mred\u202egnp"
SHOWN = "[bold]wide[/b] :smile: pip install 'scalesearch[rtx]' \\x1b[31mred\\u202egnp"


def _table() -> Any:
    from rich.table import Table

    table = Table(title=HOSTILE, box=None)
    table.add_column(HOSTILE, no_wrap=True)
    table.add_row(HOSTILE)
    return table


@pytest.mark.parametrize("terminal", [False, True])
def test_a_console_shows_foreign_words_and_obeys_none(terminal: bool) -> None:
    from rich.text import Text

    file = io.StringIO()
    colours: Any = "truecolor" if terminal else None
    console = PlainConsole(file=file, width=200, force_terminal=terminal, color_system=colours, highlight=False)
    console.print(HOSTILE)
    console.print(_table())
    console.print(Text(HOSTILE))
    printed = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue()) if terminal else file.getvalue()
    assert printed.count(SHOWN) == 5
    assert "\x1b" not in printed and "\u202e" not in printed
    assert "\x1b[31mred" not in file.getvalue()


def test_every_command_uses_such_a_console() -> None:
    assert isinstance(wide_console(), PlainConsole)


def test_lines_are_cleaned(capsys: pytest.CaptureFixture[str]) -> None:
    echo(HOSTILE)
    echo("two\nlines", err=True)
    assert capsys.readouterr() == (f"{SHOWN}\n", "two\nlines\n")


def test_no_command_prints_past_the_edge() -> None:
    """`typer.echo` is left to lists for programs, which are ASCII, and to `terminal.echo` itself."""
    for path in Path(cli.__file__).parent.glob("*.py"):
        source = path.read_text()
        assert not re.search(r"(?<![.\w])print\(|[^.\w]Console\(\)|rich\.print|from_markup", source), path.name
        if path.name in ("terminal.py", "__init__.py"):
            continue
        for line in re.findall(r"typer\.s?echo\((.*)", source):
            assert re.match(r"json\.dumps|_json\(|_front_text\(|\(folder / ", line), f"{path.name}: {line}"


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ConfigError("name = " + "x" * 99_999), 2, "characters in all"),
        (ConfigError("\x1b[2Jgone"), 2, r"\x1b[2Jgone"),
        (MemoryError(), 1, "not enough memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 1, "not enough memory"),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), 1, "not enough memory"),
        (ImportError("libGL.so.1: cannot open shared object file", name="cv2"), 3, "A library cannot be loaded: libGL"),
        (OSError(36, "File name too long", "a" * 5000), 1, "File name too long"),
        (KeyError("x" * 9999), 1, "This is a bug in scalesearch: KeyError"),
    ],
)
def test_errors_are_short_and_harmless(
    error: Exception, code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _explain(error) == code
    printed = capsys.readouterr().err
    assert words in printed and "\x1b" not in printed
    assert len(printed) < 1100 and len(printed.splitlines()) <= 3
    assert ("bug" in printed) == isinstance(error, KeyError)
